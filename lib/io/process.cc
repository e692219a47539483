#include "lib/io/process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX wants it declared by the program

namespace muster::io {
namespace {

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

class FileActions {
 public:
  FileActions() { MUSTER_CHECK(posix_spawn_file_actions_init(&actions_) == 0); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;

  // What the child's descriptors become. The sources are first duplicated above all targets, because a target may be
  // the number of a source that is still needed.
  Status map(const std::vector<std::pair<int, int>>& fds) {
    int last_target = 2;
    for (const auto& [source, target] : fds) last_target = std::max(last_target, target);
    std::vector<bool> wanted(static_cast<std::size_t>(last_target) + 1, false);
    for (const auto& [source, target] : fds) {
      MUSTER_CHECK(target >= 0);
      Fd copy(::fcntl(source, F_DUPFD_CLOEXEC, last_target + 1));
      if (!copy.valid()) return errno_error("duplicate", "descriptor " + std::to_string(source), errno);
      MUSTER_CHECK(posix_spawn_file_actions_adddup2(&actions_, copy.get(), target) == 0);
      wanted[static_cast<std::size_t>(target)] = true;
      copies_.push_back(std::move(copy));
    }
    for (int fd = 0; fd <= last_target; ++fd) {
      if (wanted[static_cast<std::size_t>(fd)]) continue;
      const int rc = fd <= 2 ? posix_spawn_file_actions_addopen(&actions_, fd, "/dev/null", O_RDWR, 0)
                             : posix_spawn_file_actions_addclose(&actions_, fd);
      MUSTER_CHECK(rc == 0);
    }
    MUSTER_CHECK(posix_spawn_file_actions_addclosefrom_np(&actions_, last_target + 1) == 0);
    return ok_status();
  }

  void change_dir(const std::string& path) {
    MUSTER_CHECK(posix_spawn_file_actions_addchdir_np(&actions_, path.c_str()) == 0);
  }

  [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
  std::vector<Fd> copies_;
};

class SpawnAttributes {
 public:
  explicit SpawnAttributes(const SpawnOptions& options) {
    MUSTER_CHECK(posix_spawnattr_init(&attributes_) == 0);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    MUSTER_CHECK(posix_spawnattr_setsigmask(&attributes_, &none) == 0);
    MUSTER_CHECK(posix_spawnattr_setsigdefault(&attributes_, &all) == 0);
    int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (options.new_session) flags |= POSIX_SPAWN_SETSID;
    if (options.new_process_group) flags |= POSIX_SPAWN_SETPGROUP;
    MUSTER_CHECK(posix_spawnattr_setflags(&attributes_, static_cast<short>(flags)) == 0);
  }
  ~SpawnAttributes() { posix_spawnattr_destroy(&attributes_); }
  SpawnAttributes(const SpawnAttributes&) = delete;
  SpawnAttributes& operator=(const SpawnAttributes&) = delete;
  [[nodiscard]] const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_{};
};

}  // namespace

Result<pid_t> spawn(const SpawnOptions& options) {
  MUSTER_CHECK(!options.argv.empty());
  const std::string& program = options.argv.front();
  FileActions actions;
  MUSTER_TRY(actions.map(options.fds));
  if (!options.work_dir.empty()) {
    // posix_spawn does not say which of its steps failed.
    if (::access(options.work_dir.c_str(), X_OK) != 0) return errno_error("enter folder", options.work_dir, errno);
    actions.change_dir(options.work_dir);
  }
  const SpawnAttributes attributes(options);
  const std::vector<char*> argv = pointers_to(options.argv);
  std::vector<char*> env;
  if (options.env) env = pointers_to(*options.env);
  pid_t pid = -1;
  const int rc = ::posix_spawn(&pid, program.c_str(), actions.get(), attributes.get(), argv.data(),
                               options.env ? env.data() : environ);
  if (rc != 0) return errno_error("start", program, rc);
  return pid;
}

Result<std::optional<int>> wait_child(pid_t pid, Duration timeout) {
  const Duration deadline = boottime_now() + timeout;
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process.valid() && errno != ESRCH) return errno_error("watch", "process " + std::to_string(pid), errno);
  while (true) {
    int wait_status = 0;
    const pid_t got = ::waitpid(pid, &wait_status, WNOHANG);
    if (got == pid) return std::optional<int>(wait_status);
    if (got < 0 && errno != EINTR) return errno_error("wait for", "process " + std::to_string(pid), errno);
    const Duration left = deadline - boottime_now();
    if (left.us <= 0) return std::optional<int>();
    pollfd item{process.get(), POLLIN, 0};
    constexpr std::int64_t kPollMsMax = 60'000;
    static_cast<void>(::poll(&item, 1, static_cast<int>(std::min(left.ms() + 1, kPollMsMax))));
  }
}

bool process_alive(pid_t pid) {
  constexpr std::size_t kBytesMax = 4096;
  if (pid <= 0) return false;
  const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat", kBytesMax);
  if (!stat.ok()) return false;
  // The state is the letter after the name in parentheses, and the name may contain parentheses itself.
  const std::size_t close = stat->rfind(") ");
  if (close == std::string::npos || close + 2 >= stat->size()) return false;
  const char state = (*stat)[close + 2];
  return state != 'Z' && state != 'X';
}

std::string describe_wait_status(int wait_status) {
  if (WIFEXITED(wait_status)) return "exit code " + std::to_string(WEXITSTATUS(wait_status));
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    const char* text = ::sigdescr_np(number);
    return "signal " + std::to_string(number) + (text != nullptr ? " (" + std::string(text) + ")" : "");
  }
  return "wait status " + std::to_string(wait_status);
}

std::string program_dir() {
  std::string path(4096, '\0');
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0) return ".";
  path.resize(static_cast<std::size_t>(length));
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

Result<std::string> find_program(const std::string& name) {
  const std::string folder = program_dir();
  // Beside the running program, or in bin/ beside its folder, as in a build tree's tests/.
  for (const std::string& path : {folder + "/" + name, folder + "/../bin/" + name}) {
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return make_error(ErrorCode::kNotFound,
                    "cannot find the program " + name + " in " + folder + ": install Muster's programs in one folder");
}

}  // namespace muster::io
