#include "tests/bench/launch_bench.h"

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/io/files.h"
#include "lib/io/process.h"
#include "noded/enforcement.h"
#include "noded/shepherd_protocol.h"

extern char** environ;

namespace muster::bench {
namespace {

using Clock = std::chrono::steady_clock;
using noded::Control;
using noded::EndedFrame;
using noded::Enforcement;
using noded::Frame;
using noded::FrameReader;
using noded::LaunchFrame;

[[noreturn]] void die(const std::string& message) {
  std::fprintf(stderr, "muster-bench: %s\n", message.c_str());
  std::exit(1);
}

std::vector<std::uint64_t> own_cpus() {
  cpu_set_t set;
  IndexSet cpus;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (std::uint32_t i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &set)) {
        cpus.insert(i);
      }
    }
  }
  return cpus.words();
}

class Launches {
 public:
  Launches() {
    char pattern[] = "/tmp/muster-bench-launch.XXXXXX";
    auto shepherd = io::find_program("muster-shepherd");
    if (mkdtemp(pattern) == nullptr || !shepherd.ok()) {
      die("cannot make a folder, or find muster-shepherd");
    }
    directory_ = pattern;
    shepherd_ = *shepherd;
    noded::EnforcementOptions options;
    options.spool_dir = directory_;
    options.cpus = true;
    options.devices = true;
    auto chosen = noded::choose_enforcement(options, [this](const std::string& tree, const auto& others) {
      groups_ = others;
      groups_.push_back(tree);
    });
    if (!chosen.ok()) {
      die(chosen.error().message);
    }
    enforcement_ = std::move(*chosen);
  }
  ~Launches() {
    for (const std::string& group : groups_) {
      rmdir(group.c_str());
    }
    static_cast<void>(io::remove_tree(directory_));
  }
  Launches(const Launches&) = delete;
  Launches& operator=(const Launches&) = delete;

  [[nodiscard]] const Enforcement& enforcement() const { return enforcement_; }

  // Milliseconds from the order to "nothing is left" of a script that does nothing.
  double one(bool enforced) {
    LaunchFrame launch;
    launch.name = std::to_string(++count_) + ".1";
    launch.directory = directory_ + "/" + launch.name;
    if (mkdir(launch.directory.c_str(), 0711) != 0) {
      die("cannot make " + launch.directory);
    }
    launch.uid = geteuid();
    launch.gid = getegid();
    launch.has_script = true;
    launch.script = "/bin/true";
    launch.work_dir = "/";
    launch.stdout_path = "/dev/null";
    launch.cpus = own_cpus();
    if (enforced) {
      launch.cgroup_parent = enforcement_.tree;
      launch.controls = enforcement_.controls;
      launch.limits = {1ULL << 30U, 4'096, true, {{1, 7}}, {}};
    }
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      die("cannot make a socket pair");
    }
    const pid_t pid = start(ends[1]);
    close(ends[1]);
    const std::string bytes = noded::encode_frame(launch);
    const auto begin = Clock::now();
    if (send(ends[0], bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) {
      die("a shepherd does not listen");
    }
    wait_for_end(ends[0]);
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    close(ends[0]);
    waitpid(pid, nullptr, 0);
    return ms;
  }

 private:
  pid_t start(int socket) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const int high = fcntl(socket, F_DUPFD_CLOEXEC, 100);
    posix_spawn_file_actions_adddup2(&actions, high, noded::kShepherdFd);
    char* argv[] = {shepherd_.data(), nullptr};
    pid_t pid = 0;
    if (posix_spawn(&pid, shepherd_.c_str(), &actions, nullptr, argv, environ) != 0) {
      die("cannot start " + shepherd_);
    }
    posix_spawn_file_actions_destroy(&actions);
    close(high);
    return pid;
  }

  static void wait_for_end(int socket) {
    FrameReader reader;
    char buffer[65536];
    while (true) {
      const ssize_t n = read(socket, buffer, sizeof(buffer));
      if (n <= 0) {
        die("a shepherd went away");
      }
      reader.append(std::string_view(buffer, static_cast<std::size_t>(n)));
      Frame frame;
      for (auto got = reader.next(frame); got.ok() && *got; got = reader.next(frame)) {
        if (const auto* ended = std::get_if<EndedFrame>(&frame)) {
          if (ended->outcome.cause != EndCause::kExited || ended->outcome.exit_code != 0) {
            die("a launch failed: " + ended->outcome.detail);
          }
          return;
        }
      }
    }
  }

  std::string directory_;
  std::string shepherd_;
  Enforcement enforcement_;
  std::vector<std::string> groups_;
  std::uint64_t count_ = 0;
};

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int launch_cost(std::uint64_t count) {
  Launches launches;
  std::vector<double> plain;
  std::vector<double> enforced;
  std::vector<double> added;
  // In turn, so that whatever else the machine does meets both alike.
  for (std::uint64_t i = 0; i < count; ++i) {
    plain.push_back(launches.one(false));
    enforced.push_back(launches.one(true));
    added.push_back(enforced.back() - plain.back());
  }
  std::string by;
  for (const EnforcedBy& one : launches.enforcement().statement) {
    by += (by.empty() ? "" : ", ") + one.function + ": " + one.by;
  }
  const double without = median(plain);
  const double with = median(enforced);
  std::printf("{\"plain_ms\": %.3f, \"enforced_ms\": %.3f, \"added_ms\": %.3f, \"ratio\": %.2f, \"by\": \"%s\"}\n",
              without, with, median(added), with / without, by.c_str());
  return 0;
}

}  // namespace muster::bench
