#include "cli/allocation_command.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lib/base/text.h"
#include "lib/io/files.h"

extern char** environ;

namespace muster::cli {
namespace {

// What the child could not do, by a pipe that exec closes.
struct ChildFailure {
  int error = 0;
  bool in_directory = false;
};

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    out.push_back(text.data());
  }
  out.push_back(nullptr);
  return out;
}

bool has_terminal() {
  return ::isatty(STDIN_FILENO) == 1 && ::tcgetpgrp(STDIN_FILENO) == ::getpgrp();
}

[[noreturn]] void run_child(char* const* argv, char** environment, const char* work_dir, const sigset_t& mask,
                            bool terminal, pid_t parent, int failure_fd) {
  ::setpgid(0, 0);
  if (terminal) {
    ::tcsetpgrp(STDIN_FILENO, ::getpid());  // SIGTTOU is ignored here, as in our parent
  }
  for (const int number : {SIGTTOU, SIGTTIN, SIGTSTP, SIGPIPE}) {  // those that we ignore
    ::signal(number, SIG_DFL);
  }
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  ChildFailure failure;
  if (::prctl(PR_SET_PDEATHSIG, SIGHUP) != 0 || ::getppid() != parent) {
    ::_exit(128 + SIGHUP);
  }
  if (::chdir(work_dir) != 0) {
    failure = {.error = errno, .in_directory = true};
  } else {
    environ = environment;
    ::execvp(argv[0], argv);
    failure.error = errno;
  }
  (void)!::write(failure_fd, &failure, sizeof failure);
  ::_exit(127);
}

}  // namespace

AllocationCommand::~AllocationCommand() {
  if (running()) {
    signal(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

Status AllocationCommand::start(const std::vector<std::string>& argv, const std::vector<std::string>& environment,
                                const std::string& work_dir, const sigset_t& mask) {
  std::vector<std::string> words = argv;
  std::vector<std::string> variables = environment;
  const std::vector<char*> word_pointers = pointers(words);
  std::vector<char*> variable_pointers = pointers(variables);
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) {
    return io::errno_error("make a pipe for", argv.front(), errno);
  }
  const io::Fd reader(pipe[0]);
  io::Fd writer(pipe[1]);
  const bool terminal = has_terminal();
  ::signal(SIGTTOU, SIG_IGN);
  ::signal(SIGTTIN, SIG_IGN);
  ::signal(SIGTSTP, SIG_IGN);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) {
    return io::errno_error("start", argv.front(), errno);
  }
  if (pid == 0) {
    run_child(word_pointers.data(), variable_pointers.data(), work_dir.c_str(), mask, terminal, parent, writer.get());
  }
  pid_ = pid;
  ::setpgid(pid, pid);  // whoever of us comes first
  writer.reset();
  ChildFailure failure;
  ssize_t n = 0;
  while ((n = ::read(reader.get(), &failure, sizeof failure)) < 0 && errno == EINTR) {
  }
  if (n != static_cast<ssize_t>(sizeof failure)) {
    return ok_status();
  }
  ::waitpid(pid, nullptr, 0);
  pid_ = 0;
  take_terminal();
  const std::string why = std::string(": ") + ::strerror(failure.error);
  if (failure.in_directory) {
    return make_error(ErrorCode::kInvalidArgument, "cannot change to the directory " + printable(work_dir) + why);
  }
  return make_error(ErrorCode::kInvalidArgument, "cannot run " + printable(argv.front()) + why);
}

void AllocationCommand::signal(int number) const {
  if (running()) {
    ::kill(-pid_, number);
  }
}

void AllocationCommand::take_terminal() const {
  // The group in the foreground has no process left, or it is the command's: a shell that was killed gives nothing back.
  if (::isatty(STDIN_FILENO) == 1) {
    const pid_t group = ::tcgetpgrp(STDIN_FILENO);
    if (group > 0 && group != ::getpgrp() && (group == pid_ || (::kill(-group, 0) != 0 && errno == ESRCH))) {
      ::tcsetpgrp(STDIN_FILENO, ::getpgrp());
    }
  }
}

void AllocationCommand::give_terminal() const {
  if (running() && has_terminal()) {
    ::tcsetpgrp(STDIN_FILENO, pid_);
  }
  signal(SIGCONT);
}

std::optional<int> AllocationCommand::reap() {
  int status = 0;
  while (running() && ::waitpid(pid_, &status, WNOHANG | WUNTRACED) == pid_) {
    if (!WIFSTOPPED(status)) {
      take_terminal();
      pid_ = 0;
      return status;
    }
    if (WSTOPSIG(status) == SIGTSTP) {
      signal(SIGCONT);
    }
  }
  return std::nullopt;
}

}  // namespace muster::cli
