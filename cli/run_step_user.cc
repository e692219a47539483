// The user's side of a step: input, signals, and what is told about output and tasks.
#include <fcntl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/run_step.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr std::size_t kInputChunkBytes = 32U << 10U;

constexpr int kForwarded[] = {SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

}  // namespace

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  for (const int number : kForwarded) {
    sigaddset(&set, number);
  }
  return set;
}

void note(const std::string& text) {
  const std::string line = std::string(program_name()) + ": " + printable(text) + "\n";
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

std::string fold_numbers(const std::vector<std::uint32_t>& sorted) {
  std::string text;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t end = i + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) {
      ++end;
    }
    text += (text.empty() ? "" : ",") + std::to_string(sorted[i]);
    if (end - i > 1) {
      text += "-" + std::to_string(sorted[end - 1]);
    }
    i = end;
  }
  return text;
}

// What is left of the output goes out, however slow its reader is; signals may end us meanwhile.
void StepRun::drain() {
  const sigset_t signals = handled_signals();
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  if (output_) {
    output_->drain();
  }
  report_write_failures();
}

void StepRun::report_write_failures() {
  for (std::string why; output_ && !(why = output_->take_failure()).empty();) {
    output_lost_ = true;
    error_line((options_.srun_style ? "error: " : "") + why + ": the rest of that output is lost");
  }
}

Status StepRun::open_input() {
  input_mode_ = options_.input == InputMode::kOneRank ? 0 : options_.input == InputMode::kAll ? 1 : 2;
  if (options_.input == InputMode::kNone) {
    input_over_ = true;
    return ok_status();
  }
  if (!options_.input_path.empty()) {
    input_owner_.reset(::open(options_.input_path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (!input_owner_.valid()) {
      return io::errno_error("open the input", options_.input_path, errno);
    }
    input_fd_ = input_owner_.get();
    return ok_status();
  }
  input_fd_ = STDIN_FILENO;
  if (::fcntl(STDIN_FILENO, F_GETFD) < 0) {  // closed
    input_over_ = true;
    input_mode_ = 2;
  }
  return ok_status();
}

// Tells how tasks ended that did not end well; those of one node with the same end in one line.
void StepRun::report_ends() {
  std::stable_sort(ends_.begin(), ends_.end(), [](const TaskEnd& a, const TaskEnd& b) { return a.rank < b.rank; });
  for (std::size_t i = 0; i < ends_.size();) {
    const TaskEnd& first = ends_[i];
    std::vector<std::uint32_t> ranks;
    std::size_t end = i;
    while (end < ends_.size() && ends_[end].node == first.node &&
           ends_[end].outcome.exit_code == first.outcome.exit_code &&
           ends_[end].outcome.signal == first.outcome.signal && ends_[end].outcome.detail == first.outcome.detail) {
      ranks.push_back(ends_[end].rank);
      ++end;
    }
    i = end;
    const std::string tasks = (ranks.size() == 1 ? "task " : "tasks ") + fold_numbers(ranks);
    const Outcome& outcome = first.outcome;
    const std::string why = outcome.detail;
    if (options_.srun_style) {
      if (!why.empty()) {
        error_line("error: " + first.node + ": " + tasks + ": " + why);
      }
      if (outcome.signal != 0) {
        error_line("error: " + first.node + ": " + tasks + ": " + ::strsignal(outcome.signal));
      } else {
        error_line("error: " + first.node + ": " + tasks + ": Exited with exit code " +
                   std::to_string(outcome.exit_code));
      }
    } else if (outcome.signal != 0) {
      error_line(tasks + " on " + first.node + " ended by signal " + std::to_string(outcome.signal) + " (" +
                 ::strsignal(outcome.signal) + ")" + (why.empty() ? "" : ": " + why));
    } else {
      error_line(tasks + " on " + first.node + " ended with exit code " + std::to_string(outcome.exit_code) +
                 (why.empty() ? "" : ": " + why));
    }
  }
  ends_.clear();
}

void StepRun::send_signal(int number) {
  pb::NodeRequest request;
  request.mutable_signal()->set_signal(number);
  (void)stream_.send(request);
}

bool StepRun::on_signals() {
  signalfd_siginfo info{};
  while (::read(signal_fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const int number = static_cast<int>(info.ssi_signo);
    if (!started_ && !waits_.empty() && interrupted_waiting_ == 0) {  // the node forgets it, and says so
      interrupted_waiting_ = number;
      note("interrupted before the step started");
      send_signal(SIGKILL);
      continue;
    }
    if (number != SIGINT) {
      if (started_) {
        send_signal(number);
      } else {
        return fail("interrupted by " + std::string(::strsignal(number)) + " before the step started", 128 + number);
      }
      continue;
    }
    const Duration now = io::boottime_now();
    const bool twice = now - last_interrupt_ <= kTwiceWithin;
    last_interrupt_ = now;
    if (!started_) {
      return fail("interrupted before the step started", 128 + SIGINT);
    }
    if (!twice && interrupts_ < 2) {
      interrupts_ = 1;
      const std::size_t left = ended_.size() - ended_count_;
      note("interrupt (one more within 1 sec to abort): " + std::to_string(left) +
           (left == 1 ? " task runs" : " tasks run"));
      continue;
    }
    ++interrupts_;
    if (interrupts_ > 3) {  // the node does not answer; it ends the step when it misses our keepalives
      return fail("interrupted", 128 + SIGINT);
    }
    note("aborting step " + std::to_string(access_.job) + "." + std::to_string(step_));
    send_signal(SIGKILL);
  }
  return true;
}

bool StepRun::wants_input() const {
  // A job of a shell in the background must not read from the terminal, or it is stopped.
  return started_ && !input_over_ && input_allowed_ > input_sent_ && input_fd_ >= 0 &&
         (::isatty(input_fd_) == 0 || ::tcgetpgrp(input_fd_) == ::getpgrp());
}

void StepRun::read_input() {
  std::string data(static_cast<std::size_t>(std::min<std::uint64_t>(kInputChunkBytes, input_allowed_ - input_sent_)),
                   '\0');
  const ssize_t n = ::read(input_fd_, data.data(), data.size());
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
    return;
  }
  data.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  pb::NodeRequest request;
  input_over_ = data.empty();
  request.mutable_input()->set_eof(input_over_);
  input_sent_ += data.size();
  request.mutable_input()->set_data(std::move(data));
  (void)stream_.send(request);
}

void StepRun::credit() {
  if (!output_) {
    return;
  }
  if (!output_->flush() && !reader_gone_) {
    reader_gone_ = true;  // as a program at a closed pipe would be told
    report_write_failures();
    send_signal(SIGPIPE);
  }
  if (const std::uint64_t bytes = output_->take_credit(); bytes > 0) {
    pb::NodeRequest request;
    request.mutable_credit()->set_bytes(bytes);
    (void)stream_.send(request);
  }
}

}  // namespace muster::cli
