#include "noded/health_runner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "noded/process_tree.h"

namespace muster::noded {
namespace {

// Of the program's output, the last of which is kept; and of one line that the daemon reads.
constexpr std::size_t kOutputKept = 8U << 10U;
constexpr std::size_t kLineMax = 16U << 10U;
constexpr int kPollMs = 100;

volatile std::sig_atomic_t terminated = 0;

void on_terminate(int) {
  terminated = 1;
}
void on_child(int) {}  // it interrupts the poll

void on_signal(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  ::sigaction(number, &action, nullptr);
}

struct Child {
  pid_t pid = -1;
  io::Fd output;
  std::string text;
  bool keeps_all = false;  // else only the end of its output
  std::optional<int> status;
};

// The child's standard output, and with `with_errors` its standard error, come through a pipe. False in the child.
Result<bool> fork_child(Child& child, bool with_errors) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return io::errno_error("make", "a pipe", errno);
  }
  io::Fd ours(ends[0]);
  io::Fd theirs(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) {
    return io::errno_error("fork", "a process for the checks", errno);
  }
  if (pid == 0) {
    ::setpgid(0, 0);
    for (const int number : {SIGTERM, SIGCHLD, SIGPIPE}) {
      ::signal(number, SIG_DFL);
    }
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::dup2(null, 0);
    ::dup2(theirs.get(), 1);
    ::dup2(with_errors ? theirs.get() : null, 2);
    (void)ours.release();  // closed by the exec, or with the process
    (void)theirs.release();
    return false;
  }
  ::setpgid(pid, pid);
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  child.pid = pid;
  child.output = std::move(ours);
  return true;
}

[[noreturn]] void execute(const HealthChecks& checks) {
  std::string program = checks.program;
  char* argv[] = {program.data(), nullptr};
  std::vector<std::string> environment = checks.program_environment;
  std::vector<char*> envp;
  for (std::string& entry : environment) {
    envp.push_back(entry.data());
  }
  envp.push_back(nullptr);
  if (::chdir("/") == 0) {
    ::execve(program.c_str(), argv, envp.data());
  }
  const std::string why = io::errno_text("run", program, errno) + ": correct [node] health_program\n";
  const ssize_t ignored = ::write(1, why.data(), why.size());
  static_cast<void>(ignored);
  ::_exit(127);
}

// What has come of its output. A process that it left behind may hold the pipe open, so the end of it is no condition.
void read_output(Child& child) {
  char buffer[4096];
  while (child.output.valid()) {
    const ssize_t n = ::read(child.output.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      if (n == 0) {
        child.output.reset();
      }
      return;
    }
    child.text.append(buffer, static_cast<std::size_t>(n));
    if (!child.keeps_all && child.text.size() > 2 * kOutputKept) {
      child.text.erase(0, child.text.size() - kOutputKept);
    }
  }
}

// Until both have ended, or the time is over.
void wait_for(std::vector<Child*> children, Duration timeout) {
  const Duration until = io::boottime_now() + timeout;
  while (terminated == 0) {
    bool all = true;
    std::vector<pollfd> fds;
    for (Child* child : children) {
      int status = 0;
      if (!child->status && ::waitpid(child->pid, &status, WNOHANG) == child->pid) {
        child->status = status;
      }
      read_output(*child);
      all = all && child->status;
      if (child->output.valid() && !child->status) {
        fds.push_back({child->output.get(), POLLIN, 0});
      }
    }
    if (all || io::boottime_now() >= until) {
      return;
    }
    // Signals come only here, so that the end of a child is not missed in between.
    sigset_t none;
    ::sigemptyset(&none);
    const timespec pause{.tv_sec = 0, .tv_nsec = kPollMs * 1'000'000L};
    ::ppoll(fds.data(), fds.size(), &pause, &none);
  }
}

// What the program left behind is a child of this process, or a descendant of one.
void kill_the_rest() {
  for (const pid_t pid : descendants_of(::getpid())) {
    ::kill(pid, SIGKILL);
  }
}

std::string seconds_text(std::int64_t seconds) {
  return std::to_string(seconds) + " s";
}

void judge_program(const HealthChecks& checks, const Child& child, std::vector<HealthProblem>& out) {
  const std::string line = last_line(child.text);
  const std::string said = line.empty() ? "" : ": " + line;
  if (!child.status) {
    out.push_back({"program", checks.program + " did not end within " + seconds_text(checks.timeout_s) +
                                  " and was killed" + said});
  } else if (WIFSIGNALED(*child.status)) {
    out.push_back(
        {"program", checks.program + " was ended by signal " + std::to_string(WTERMSIG(*child.status)) + said});
  } else if (WEXITSTATUS(*child.status) != 0) {
    out.push_back(
        {"program",
         line.empty() ? checks.program + " ended with exit code " + std::to_string(WEXITSTATUS(*child.status)) : line});
  }
}

void judge_checks(const HealthChecks& checks, const Child& child, std::vector<HealthProblem>& out) {
  HealthReader found;
  found.append(child.text);
  out.insert(out.end(), found.problems().begin(), found.problems().end());
  if (!found.done()) {
    std::string dirs;
    for (const std::string& dir : checks.dirs) {
      dirs += (dirs.empty() ? "" : ", ") + dir;
    }
    out.push_back({"disk", child.status ? "the checks ended before they were done"
                                        : "the checks did not end within " + seconds_text(checks.timeout_s) +
                                              ": a file system hangs (" + dirs + ")"});
  }
}

void write_all(const std::string& text) {
  std::size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t n = ::write(1, text.data() + sent, text.size() - sent);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return;  // nobody reads: the daemon is gone
    }
    sent += static_cast<std::size_t>(n);
  }
}

[[noreturn]] void look(const HealthChecks& checks) {
  std::string text;
  for (const HealthProblem& problem : run_checks(checks)) {
    text += encode_problem(problem);
  }
  write_all(text + "done\n");
  ::_exit(0);
}

}  // namespace

std::string last_line(std::string_view output) {
  std::string_view line;
  for (const std::string_view each : split(output, '\n')) {
    if (!trim(each).empty()) {
      line = trim(each);
    }
  }
  return health_text(line);
}

std::string encode_problem(const HealthProblem& problem) {
  return "problem " + problem.check + " " + health_text(problem.text) + "\n";
}

void HealthReader::append(std::string_view bytes) {
  rest_ += bytes;
  for (auto end = rest_.find('\n'); end != std::string::npos && !done_; end = rest_.find('\n')) {
    const std::string line = rest_.substr(0, end);
    rest_.erase(0, end + 1);
    constexpr std::string_view kProblem = "problem ";
    if (line == "done") {
      done_ = true;
    } else if (line.starts_with(kProblem) && problems_.size() < kHealthProblemsMax) {
      const std::string said = line.substr(kProblem.size());
      const auto blank = said.find(' ');
      problems_.push_back({said.substr(0, blank), blank == std::string::npos ? "" : said.substr(blank + 1)});
    }
  }
  if (rest_.size() > kLineMax) {
    rest_.clear();
  }
}

int run_health_checks(const HealthChecks& checks) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  on_signal(SIGTERM, on_terminate);
  on_signal(SIGCHLD, on_child);
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::sigaddset(&blocked, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &blocked, nullptr);
  Child looks;
  Child program;
  looks.keeps_all = true;
  std::vector<HealthProblem> out;
  std::vector<Child*> children;
  const auto start = [&](Child& child, bool with_errors, auto what) {
    const auto forked = fork_child(child, with_errors);
    if (!forked.ok()) {
      out.push_back({"program", forked.error().message});
    } else if (!*forked) {
      what();
    } else {
      children.push_back(&child);
    }
  };
  start(looks, false, [&] { look(checks); });
  if (!checks.program.empty()) {
    start(program, true, [&] { execute(checks); });
  }
  wait_for(children, Duration::from_s(checks.timeout_s));
  if (looks.pid > 0) {
    judge_checks(checks, looks, out);
  }
  if (program.pid > 0) {
    judge_program(checks, program, out);
  }
  std::string text;
  for (std::size_t i = 0; i < std::min(out.size(), kHealthProblemsMax) && terminated == 0; ++i) {
    text += encode_problem(out[i]);
  }
  if (terminated == 0) {
    write_all(text + "done\n");
  }
  // One that the kernel does not let go keeps this process, and so the next checks, waiting.
  ::sigprocmask(SIG_UNBLOCK, &blocked, nullptr);
  constexpr int kSoonTries = 500;
  for (int tries = 0; terminated == 0 || tries < kSoonTries; ++tries) {
    kill_the_rest();
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    if (::waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD) {
      break;
    }
    ::poll(nullptr, 0, tries < kSoonTries ? 2 : 1'000);
  }
  return 0;
}

}  // namespace muster::noded
