// Prolog and epilog: programs of the administrator that the shepherd runs, as the user it runs as itself, before the
// attempt's first process on this node and after its last one.
//
// A prolog that fails ends the attempt before anything of it ran here. An epilog that fails changes nothing of how the
// attempt ended. Both are told in Outcome::fault, by which the controller takes the node out of service. What one of them
// leaves running is killed.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "lib/base/text.h"
#include "noded/shepherd.h"
#include "noded/shepherd_util.h"

namespace muster::noded {
namespace {

// The end of a hook's output is kept, for its last line; and of that line so much.
constexpr std::size_t kHookOutputKept = 8U << 10U;
constexpr std::size_t kHookLineMax = 300;

std::string last_words(std::string_view output) {
  std::string_view line;
  for (const std::string_view each : split(output, '\n')) {
    if (!trim(each).empty()) {
      line = trim(each);
    }
  }
  return printable(line.substr(0, kHookLineMax));
}

bool has_any_child() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

// Not by the job's group: what is cloned into a group that was killed before is killed, too.
void kill_descendants() {
  for (const int signal : {SIGSTOP, SIGKILL}) {
    for (const pid_t pid : descendants_of(getpid())) {
      kill(pid, signal);
    }
  }
}

std::string duration_text(std::int64_t us) {
  return std::to_string(us / 1'000'000) + " s";
}

}  // namespace

bool Shepherd::start_hook(bool epilog) {
  const std::string& program = epilog ? launch_->epilog : launch_->prolog;
  if (program.empty()) {
    return false;
  }
  hook_ = Hook{};
  hook_.epilog = epilog;
  TaskSpec spec;
  spec.argv = {program};
  spec.environment = launch_->hook_environment;
  spec.environment.push_back(std::string("MUSTER_HOOK=") + (epilog ? "epilog" : "prolog"));
  if (epilog) {
    spec.environment.push_back("MUSTER_JOB_EXIT_CODE=" + std::to_string(outcome_.exit_code));
    spec.environment.push_back("MUSTER_JOB_EXIT_SIGNAL=" + std::to_string(outcome_.signal));
  }
  spec.search_path = true;  // an absolute path, and a script needs no interpreter of its own
  spec.work_dir = "/";
  spec.uid = geteuid();
  spec.gid = getegid();
  spec.err_with_out = true;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    fail_hook("a pipe for its output cannot be made: " + text_of_errno(errno));
    return true;
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  spec.out.fd = ends[1];
  auto started = start_task(spec);
  close(ends[1]);
  if (!started.ok()) {
    close(ends[0]);
    fail_hook(started.error().message);
    return true;
  }
  hook_.pid = started->pid;
  hook_.status_fd = started->status_fd;
  hook_.output_fd = ends[0];
  hook_.spec = std::move(spec);
  hook_.deadline_us = now_us() + (epilog ? launch_->epilog_timeout_us : launch_->prolog_timeout_us);
  add_to_epoll(hook_.output_fd, Token::kHook, 0, EPOLLIN);
  arm_timer();
  return true;
}

void Shepherd::read_hook_output() {
  char buffer[4096];
  while (hook_.output_fd >= 0) {
    const ssize_t n = read(hook_.output_fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      if (n == 0) {
        close_fd(hook_.output_fd);
      }
      return;
    }
    hook_.output.append(buffer, static_cast<std::size_t>(n));
    if (hook_.output.size() > 2 * kHookOutputKept) {
      hook_.output.erase(0, hook_.output.size() - kHookOutputKept);
    }
  }
}

// The program itself has ended; what it left may hold its pipe open.
void Shepherd::on_hook_ended(int wait_status) {
  read_hook_output();
  close_fd(hook_.output_fd);
  const StartNews news = read_start_news(hook_.status_fd, hook_.spec);
  close_fd(hook_.status_fd);
  hook_.pid = 0;
  hook_.deadline_us = 0;
  kill_descendants();  // what it left
  std::string words = last_words(hook_.output);
  words = words.empty() ? "" : ": " + words;
  const std::string& program = hook_.epilog ? launch_->epilog : launch_->prolog;
  if (news.what == StartNews::What::kFailed) {
    fail_hook(news.outcome.detail);
  } else if (hook_.timed_out) {
    const std::int64_t timeout_us = hook_.epilog ? launch_->epilog_timeout_us : launch_->prolog_timeout_us;
    fail_hook(program + " did not end within " + duration_text(timeout_us) + " and was killed" + words);
  } else if (!hook_.epilog && ending_) {
    forget_prolog();  // it was ended with its attempt, which says nothing of it
  } else if (WIFSIGNALED(wait_status)) {
    fail_hook(program + " was ended by signal " + std::to_string(WTERMSIG(wait_status)) + words);
  } else if (WEXITSTATUS(wait_status) != 0) {
    fail_hook(program + " ended with exit code " + std::to_string(WEXITSTATUS(wait_status)) + words);
  } else if (!hook_.epilog) {
    forget_prolog();
    begin_job();
  }
  if (hook_.epilog && has_any_child()) {
    kill_at_us_ = now_us() + kKillAgainUs;  // it may have forked meanwhile
  }
  arm_timer();
}

void Shepherd::fail_hook(std::string text) {
  if (!hook_.epilog) {
    forget_prolog();
    decide(Outcome{.cause = EndCause::kLaunchFailed,
                   .exit_code = 0,
                   .signal = 0,
                   .detail = "prolog: " + text,
                   .ran = {},
                   .fault = NodeFault::kProlog,
                   .fault_text = std::move(text)});
    begin_end(EndCause::kLaunchFailed, 0);
    return;
  }
  if (outcome_.fault == NodeFault::kNone) {
    outcome_.fault = NodeFault::kEpilog;
    outcome_.fault_text = std::move(text);
  }
}

void Shepherd::on_hook_deadline() {
  hook_.timed_out = true;
  hook_.deadline_us = now_us() + kKillAgainUs;
  kill_descendants();
}

// ---------------------------------------------------------------- the mark of a prolog that runs

// A restarted noded must not take an attempt for one that runs whose prolog has not ended.
void Shepherd::mark_prolog() {
  const int fd = open(prolog_mark().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0) {
    close(fd);
  }
}

void Shepherd::forget_prolog() {
  unlink(prolog_mark().c_str());
}

std::string Shepherd::prolog_mark() const {
  return launch_->directory + "/" + kPrologPrefix + std::to_string(getpid());
}

}  // namespace muster::noded
