// muster-nodeinit: what a pretended node is instead of a machine. It owns the node's namespaces and its boot id, starts
// the node's daemon when asked, keeps whatever outlives that daemon, and ends everything when the power is cut.
//
//   muster-nodeinit --name n1 --socket PATH [--hosts FILE] [--isolation full|host|none] -- muster-noded ARGUMENT...
//
// It stays outside of the namespace of process ids that it makes (its children are inside), so that it can tell others
// the pids as they see them. One thread; SIGCHLD and the socket are its only events.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "noded/init/node_namespaces.h"
#include "noded/init/protocol.h"

namespace muster::nodeinit {
namespace {

struct Options {
  std::string name;
  std::string socket_path;
  std::string hosts_file;
  std::string isolation;  // empty: the strongest
  std::vector<std::string> daemon;
};

int fail(const std::string& text) {
  fprintf(stderr, "muster-nodeinit: %s\n", text.c_str());
  return 1;
}

std::string random_boot_id() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) return "";
  std::string text;
  char two[3];
  for (const unsigned char byte : bytes) {
    snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

bool parse_options(int argc, char** argv, Options& options, std::string& problem) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--") {
      options.daemon.assign(argv + i + 1, argv + argc);
      break;
    }
    std::string* field = word == "--name"        ? &options.name
                         : word == "--socket"    ? &options.socket_path
                         : word == "--hosts"     ? &options.hosts_file
                         : word == "--isolation" ? &options.isolation
                                                 : nullptr;
    if (field == nullptr || i + 1 == argc) {
      problem = "unknown or incomplete option " + std::string(word) + ": `muster local` starts this program";
      return false;
    }
    *field = argv[++i];
  }
  if (options.name.empty() || options.socket_path.empty() || options.daemon.empty()) {
    problem = "--name, --socket and -- PROGRAM are needed: `muster local` starts this program";
    return false;
  }
  return true;
}

// Process 1 of the node: reaps orphans until it is killed.
[[noreturn]] void be_first_process() {
  signal(SIGCHLD, SIG_DFL);
  // Ends with the init, so that a killed init is a power cut too.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "muster-node1");
  for (int fd = 3; fd < 64; ++fd) close(fd);
  while (true) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    if (waitpid(-1, nullptr, 0) < 0) {  // no child at all: sleep until there is news
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGCHLD);
      sigprocmask(SIG_BLOCK, &set, nullptr);
      timespec second{1, 0};
      sigtimedwait(&set, nullptr, &second);
    }
  }
}

int listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const mode_t mask = umask(0077);
  const int bound = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  umask(mask);
  if (bound != 0 || listen(fd, 16) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

// The children of `pid`, from /proc. Only used where the process ids are the machine's.
void collect_children(pid_t pid, std::vector<pid_t>& all) {
  const std::string folder = "/proc/" + std::to_string(pid) + "/task";
  DIR* tasks = opendir(folder.c_str());
  if (tasks == nullptr) return;
  std::vector<pid_t> found;
  while (const dirent* task = readdir(tasks)) {
    if (task->d_name[0] == '.') continue;
    FILE* file = fopen((folder + "/" + task->d_name + "/children").c_str(), "re");
    if (file == nullptr) continue;
    int child = 0;
    while (fscanf(file, "%d", &child) == 1) found.push_back(child);
    fclose(file);
  }
  closedir(tasks);
  for (const pid_t child : found) {
    all.push_back(child);
    collect_children(child, all);
  }
}

class NodeInit {
 public:
  explicit NodeInit(Options options) : options_(std::move(options)), boot_id_(random_boot_id()) {}

  int run();

 private:
  bool start_first_process(std::string& problem);
  bool start_daemon(std::string& problem);
  void reap();
  void serve(int listener);
  std::string answer(std::string_view request);
  void cut_power();

  Options options_;
  std::string boot_id_;
  Isolation isolation_ = Isolation::kNone;
  pid_t first_ = 0;   // the namespace's process 1; 0: none
  pid_t daemon_ = 0;  // 0: does not run
  bool ended_ = false;
};

bool NodeInit::start_first_process(std::string& problem) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) {
    problem = strerror(errno);
    return false;
  }
  first_ = fork();
  if (first_ == 0) {
    const auto entered = enter_as_first();
    const std::string text = entered.ok() ? "" : entered.error().message;
    (void)!write(report[1], text.data(), text.size());
    if (!text.empty()) _exit(1);
    be_first_process();
  }
  close(report[1]);
  char text[512];
  const ssize_t got = first_ < 0 ? -1 : read(report[0], text, sizeof text);
  close(report[0]);
  if (got == 0) return true;
  problem = got > 0 ? std::string(text, static_cast<std::size_t>(got)) : std::string("cannot start the first process");
  return false;
}

bool NodeInit::start_daemon(std::string& problem) {
  if (daemon_ != 0) return true;
  int report[2];  // carries errno when the program cannot be executed
  if (pipe2(report, O_CLOEXEC) != 0) {
    problem = strerror(errno);
    return false;
  }
  std::vector<std::string> words = options_.daemon;
  words.insert(words.end(), {"--boot-id", boot_id_});
  const pid_t child = fork();
  if (child == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    for (const int number : {SIGCHLD, SIGPIPE, SIGINT, SIGTERM, SIGHUP}) signal(number, SIG_DFL);
    setsid();
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    const int failure = errno;
    (void)!write(report[1], &failure, sizeof failure);
    _exit(127);
  }
  close(report[1]);
  int failure = child < 0 ? errno : 0;
  if (child > 0 && read(report[0], &failure, sizeof failure) != static_cast<ssize_t>(sizeof failure)) failure = 0;
  close(report[0]);
  if (failure != 0) {
    problem = "cannot start " + words[0] + ": " + strerror(failure);
    return false;
  }
  daemon_ = child;
  return true;
}

void NodeInit::reap() {
  int status = 0;
  for (pid_t pid = waitpid(-1, &status, WNOHANG); pid > 0; pid = waitpid(-1, &status, WNOHANG)) {
    if (pid == daemon_) {
      fprintf(stderr, "muster-nodeinit: %s: the daemon (pid %d) ended, %s %d\n", options_.name.c_str(), pid,
              WIFSIGNALED(status) ? "signal" : "exit code",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
      daemon_ = 0;
    }
    if (pid == first_) ended_ = true;
  }
}

void NodeInit::cut_power() {
  if (first_ > 0) {
    // The kernel ends all processes of the namespace with its first one. That one is gone only when all of them are
    // reaped, the daemon, which is a child of this process, among them.
    kill(first_, SIGKILL);
    while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
    }
  } else {
    // Everything the node ever started descends from here, because orphans come to their subreaper. Stop all before
    // killing any would race with forks just the same, so it is repeated until nothing is left.
    while (true) {
      std::vector<pid_t> tree;
      collect_children(getpid(), tree);
      for (const pid_t pid : tree) kill(pid, SIGKILL);
      const pid_t reaped = waitpid(-1, nullptr, tree.empty() ? WNOHANG : 0);
      if (reaped < 0 && errno == ECHILD) break;
    }
  }
  daemon_ = 0;
  ended_ = true;
}

std::string NodeInit::answer(std::string_view request) {
  std::string problem;
  reap();  // a daemon that has ended since the last look does not run
  if (request == "start") {
    if (!start_daemon(problem)) return "error " + problem;
    return "ok " + std::to_string(daemon_);
  }
  if (request == "status") return "ok " + std::to_string(daemon_);
  if (request == "boot") return "ok " + boot_id_;
  if (request == "kill") {
    cut_power();
    return "ok 0";
  }
  return "error unknown request";
}

void NodeInit::serve(int listener) {
  const int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (client < 0) return;
  // A client that says nothing must not hold the node up.
  timeval limit{2, 0};
  setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  std::string line;
  char c = 0;
  while (line.size() < kLineBytesMax && read(client, &c, 1) == 1 && c != '\n') line += c;
  const std::string reply = answer(line) + "\n";
  (void)!write(client, reply.data(), reply.size());
  close(client);
}

volatile sig_atomic_t g_terminate = 0;

int NodeInit::run() {
  if (boot_id_.empty()) return fail("no random numbers: check getrandom(2)");
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  signal(SIGPIPE, SIG_IGN);
  const int listener = listen_at(options_.socket_path);
  if (listener < 0) return fail("cannot listen at " + options_.socket_path + ": " + strerror(errno));

  const NamespaceOptions namespaces{options_.name, options_.hosts_file};
  isolation_ = options_.isolation == "none"   ? Isolation::kNone
               : options_.isolation == "host" ? Isolation::kHost
               : options_.isolation == "full" ? Isolation::kFull
                                              : strongest_isolation(namespaces);
  if (auto entered = enter(isolation_, namespaces); !entered.ok())
    return fail(options_.name + ": " + entered.error().message);
  std::string problem;
  if (isolation_ == Isolation::kFull && !start_first_process(problem)) return fail(options_.name + ": " + problem);
  fprintf(stderr, "muster-nodeinit: %s: isolation %s, boot id %s\n", options_.name.c_str(), to_string(isolation_),
          boot_id_.c_str());

  sigset_t handled, before;
  sigemptyset(&handled);
  sigaddset(&handled, SIGCHLD);
  sigaddset(&handled, SIGTERM);
  sigaddset(&handled, SIGINT);
  sigprocmask(SIG_BLOCK, &handled, &before);
  signal(SIGCHLD, [](int) {});
  for (const int number : {SIGTERM, SIGINT}) signal(number, [](int) { g_terminate = 1; });
  while (!ended_) {
    reap();
    if (ended_) break;
    if (g_terminate != 0) {
      cut_power();
      break;
    }
    pollfd waiting{listener, POLLIN, 0};
    if (ppoll(&waiting, 1, nullptr, &before) > 0) serve(listener);
  }
  close(listener);
  unlink(options_.socket_path.c_str());
  return 0;
}

}  // namespace
}  // namespace muster::nodeinit

int main(int argc, char** argv) {
  muster::nodeinit::Options options;
  std::string problem;
  if (!muster::nodeinit::parse_options(argc, argv, options, problem)) return muster::nodeinit::fail(problem);
  // Not by return: what runs at exit (a leak checker, for one) would look for this process in a /proc that shows only
  // the namespace inside.
  _exit(muster::nodeinit::NodeInit(std::move(options)).run());
}
