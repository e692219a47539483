#include "cli/allocation.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/report.h"
#include "cli/run_step.h"
#include "cli/run_wait.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/process.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr Duration kConnectTimeout = Duration::from_ms(500);
constexpr Duration kAskNodeAgain = Duration::from_ms(200);
// A node that does not answer: when the controller is asked what became of the job, and how often.
constexpr Duration kAskAfter = Duration::from_s(2);
constexpr Duration kAskEvery = Duration::from_s(5);
// The controller hears of the end of a job about when its client does.
constexpr Duration kEndPatience = Duration::from_s(2);
// A command that is to end gets SIGHUP, SIGTERM after this time, and SIGKILL after the same again.
constexpr Duration kCommandPatience = Duration::from_s(5);
// A node that cannot be told that the command has ended: then the controller is, and then it is left to the node, which
// ends the job when it misses our keepalives.
constexpr Duration kReleasePatience = Duration::from_s(5);
// How long node and controller together may be away before a running command is ended; the node's patience is shorter.
constexpr Duration kLostPatience = Duration::from_s(90);
constexpr Duration kTicketFresh = Duration::from_s(30 * 60);

std::string name_of(const std::string& variable) {
  return variable.substr(0, variable.find('='));
}

void set(std::vector<std::string>& environment, const std::string& variable) {
  const std::string name = name_of(variable);
  std::erase_if(environment, [&](const std::string& one) { return name_of(one) == name; });
  environment.push_back(variable);
}

std::string value_of(const std::vector<std::string>& environment, const std::string& name) {
  for (const std::string& one : environment) {
    if (name_of(one) == name) return one.substr(name.size() + 1);
  }
  return "";
}

// What described a job around, if we run in one, does not describe this one.
std::vector<std::string> callers_environment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    if (!variable.starts_with("SLURM_") && !variable.starts_with("SLURMD_") && variable.find('=') != variable.npos) {
      out.emplace_back(variable);
    }
  }
  std::erase_if(out, [](const std::string& variable) {
    constexpr std::string_view kOfAJob[] = {"MUSTER_ARRAY_JOB_ID", "MUSTER_ARRAY_TASK_ID",  "MUSTER_GPUS",
                                            "MUSTER_STEP_ID",      "MUSTER_CHECKPOINT_DIR", "MUSTER_RESTORE_DIR",
                                            "MUSTER_MEMORY"};
    const std::string name = name_of(variable);
    return std::find(std::begin(kOfAJob), std::end(kOfAJob), name) != std::end(kOfAJob);
  });
  return out;
}

Outcome outcome_of(int status) {
  Outcome outcome;
  if (WIFSIGNALED(status)) {
    outcome.cause = EndCause::kSignalled;
    outcome.signal = WTERMSIG(status);
  } else {
    outcome.exit_code = WEXITSTATUS(status);
  }
  return outcome;
}

std::string text_of(const Outcome& outcome) {
  switch (outcome.cause) {
    case EndCause::kTimeLimit:
      return "its time limit is reached";
    case EndCause::kCancelled:
      return outcome.detail.empty() ? "it was cancelled" : outcome.detail;
    default:
      return outcome.detail.empty() ? std::string(to_string(outcome.cause)) : outcome.detail;
  }
}

}  // namespace

// The variables of the job, over the caller's.
Result<std::vector<std::string>> Allocation::environment_of(const pb::NodeReply& reply) {
  std::vector<std::string> environment = callers_environment();
  for (const std::string& variable : reply.allocation_held().environment()) {
    if (variable.find('=') != std::string::npos) set(environment, variable);
  }
  const std::string& ticket = reply.allocation_held().ticket();
  ticket_.reset(::memfd_create("muster-ticket", MFD_CLOEXEC));
  if (!ticket_.valid() || ::write(ticket_.get(), ticket.data(), ticket.size()) != static_cast<ssize_t>(ticket.size())) {
    return io::errno_error("keep", "the job's ticket", errno);
  }
  set(environment, "MUSTER_TICKET_FILE=/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(ticket_.get()));
  if (!options_.connect.config_path.empty()) set(environment, "MUSTER_CONFIG=" + options_.connect.config_path);
  if (!options_.connect.key_path.empty()) set(environment, "MUSTER_KEY=" + options_.connect.key_path);
  // As in a job: launchers must find our srun before another.
  const std::string bin = io::program_dir();
  const std::string slurm = bin + "/../libexec/muster/slurm";
  std::string path = value_of(environment, "PATH");
  if (::access(slurm.c_str(), X_OK) == 0) path = slurm + ":" + path;
  if ((":" + path + ":").find(":" + bin + ":") == std::string::npos) path += ":" + bin;
  set(environment, "PATH=" + path);
  return environment;
}

void Allocation::start_command(const pb::NodeReply& reply) {
  started_ = true;
  auto environment = environment_of(reply);
  Status status = environment ? ok_status() : Status(environment.error());
  if (environment) {
    if (!options_.quiet) {
      note("Job " + std::to_string(access_.job) + " has nodes " + value_of(*environment, "MUSTER_NODELIST"));
    }
    status = command_.start(options_.argv, *environment, options_.work_dir, mask_);
  }
  if (!status) {
    error_line(status.error().message);
    status_ = kExitUsage;
    Outcome outcome;
    outcome.exit_code = status_;
    release(outcome);
  }
}

void Allocation::release(const Outcome& outcome) {
  release_ = outcome;
  release_since_ = io::boottime_now();
  pb::NodeRequest request;
  wire::to_pb(outcome, *request.mutable_release_allocation()->mutable_outcome());
  if (!over_ && stream_.connected()) {
    (void)stream_.send(request);
  }
}

void Allocation::send_hold() {
  hold_at_.reset();
  if (access_.renew && io::boottime_now() - access_.obtained > kTicketFresh) {
    auto ticket = access_.renew();
    ticket_is_old_ = !ticket.ok();
    if (ticket) {
      access_.ticket = std::move(*ticket);
      access_.obtained = io::boottime_now();
    }
  }
  pb::NodeRequest request;
  (void)request.mutable_hold_allocation()->mutable_ticket()->ParseFromString(access_.ticket);
  (void)stream_.send(request);
}

void Allocation::tell_command(const std::string& why) {
  if (!command_.running() || told_) {
    return;
  }
  told_ = true;
  if (!why.empty()) {
    note("Job " + std::to_string(access_.job) + " has ended (" + why + "): the command is told to end");
  }
  command_.signal(SIGHUP);
  command_.signal(SIGCONT);
  next_signal_ = SIGTERM;
  signal_at_ = io::boottime_now() + kCommandPatience;
}

void Allocation::job_ended(const std::string& why) {
  if (over_) {
    return;
  }
  over_ = true;
  if (release_) {
    return;
  }
  ended_early_ = true;
  if (command_.running()) {
    tell_command(why);
  } else {
    error_line(job_text() + " has ended (" + why + ")");
    status_ = kExitRefused;
  }
}

void Allocation::ask_controller(Duration wait) {
  asked_ = io::boottime_now();
  const auto end = access_.job_end(wait);
  if (end && *end) {
    // "job 42 has ended (timeout): ..."
    std::string why = **end;
    const std::string prefix = job_text() + " has ended (";
    const std::size_t close = why.find(')');
    if (why.starts_with(prefix) && close != std::string::npos) {
      why = why.substr(prefix.size(), close - prefix.size()) + why.substr(close + 1);
    }
    job_ended(why);
  }
  if (end && !*end && lost_since_) {
    lost_since_ = asked_ - kAskAfter;  // the job goes on, so the node is waited for
  }
}

void Allocation::on_refused(const pb::ErrorInfo& error) {
  const auto code = error.code() > static_cast<std::uint32_t>(ErrorCode::kInternal)
                        ? ErrorCode::kInternal
                        : static_cast<ErrorCode>(error.code());
  if (code == ErrorCode::kUnavailable) {  // the node's daemon was restarted, or the job is being stopped
    hold_at_ = io::boottime_now() + kAskNodeAgain;
    return;
  }
  if (code == ErrorCode::kPermissionDenied && ticket_is_old_ && started_) {
    // The controller, which gives new ones, is away. The node waits for us no longer than for any client.
    hold_at_ = io::boottime_now() + kAskEvery;
    return;
  }
  if (code == ErrorCode::kNotFound) {
    hold_at_ = io::boottime_now() + kAskNodeAgain;
    if (io::boottime_now() - asked_ > kAskAfter) {
      ask_controller(kEndPatience);
    }
    return;
  }
  cancel_job(options_.connect, access_.job);
  job_ended(error.message());
}

void Allocation::on_reply(const pb::NodeReply& reply) {
  switch (reply.body_case()) {
    case pb::NodeReply::kRefused:
      return on_refused(reply.refused());
    case pb::NodeReply::kRedirect:
      stream_.redirect({.name = reply.redirect().node(),
                        .endpoint = reply.redirect().endpoint(),
                        .public_key = reply.redirect().public_key()});
      return;
    case pb::NodeReply::kAllocationHeld:
      if (!started_) {
        start_command(reply);
      } else if (release_) {
        release(*release_);
      }
      return;
    case pb::NodeReply::kAllocationEnded: {
      const auto outcome = wire::from_pb(reply.allocation_ended().outcome());
      job_ended(outcome ? text_of(*outcome) : "its node does not say how");
      return;
    }
    default:
      return;
  }
}

void Allocation::receive_all() {
  while (!over_) {
    auto reply = stream_.receive();
    if (!reply) {
      cancel_job(options_.connect, access_.job);
      return job_ended(reply.error().message);
    }
    if (!*reply) {
      return;
    }
    on_reply(**reply);
  }
}

void Allocation::reach_node(Duration now) {
  if (stream_.connected()) {
    if (hold_at_ && now >= *hold_at_) {
      send_hold();
    }
    stream_.keep_alive();
    return;
  }
  if (!lost_since_) {
    lost_since_ = now;
  }
  if (stream_.open(kConnectTimeout)) {
    lost_since_.reset();
    send_hold();
    return;
  }
  if (now - *lost_since_ > kAskAfter && now - asked_ > kAskEvery) {
    ask_controller({});
  }
}

void Allocation::give_up_if_late(Duration now) {
  if (signal_at_ && now >= *signal_at_) {
    command_.signal(next_signal_);
    signal_at_ = next_signal_ == SIGTERM ? std::optional(now + kCommandPatience) : std::nullopt;
    next_signal_ = SIGKILL;
  }
  if (over_) {
    return;
  }
  if (release_ && now - release_since_ > kReleasePatience) {
    ask_controller({});
    if (!over_) {
      note(stream_.address().name + " does not answer: " + job_text() + " is cancelled");
      cancel_job(options_.connect, access_.job);
      over_ = true;
    }
    return;
  }
  if (!release_ && lost_since_ && now - *lost_since_ > kLostPatience) {
    job_ended("neither its node nor the controller can be reached");
  }
}

void Allocation::on_child() {
  const std::optional<int> ended = command_.reap();
  if (!ended) {
    return;
  }
  signal_at_.reset();
  const Outcome outcome = outcome_of(*ended);
  status_ = outcome.signal != 0 ? 128 + outcome.signal : outcome.exit_code;
  if (ended_early_ && status_ == 0) {
    status_ = kExitRefused;
  }
  release(outcome);
}

void Allocation::on_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const int number = static_cast<int>(info.ssi_signo);
    if (number == SIGCHLD) {
      on_child();
    } else if (number == SIGCONT) {
      command_.give_terminal();
    } else if (!command_.running()) {
      if (!started_) {
        started_ = true;
        status_ = 128 + number;
        note(job_text() + " is given back: " + ::strsignal(number));
        Outcome outcome;
        outcome.cause = EndCause::kCancelled;
        outcome.detail = "its client was interrupted before its command began";
        release(outcome);
      }
    } else if (number == SIGTERM || number == SIGHUP) {
      tell_command("");
    } else {
      command_.signal(number);
    }
  }
}

int Allocation::run(const sigset_t& mask) {
  mask_ = mask;
  ::signal(SIGCHLD, SIG_DFL);
  sigset_t signals = handled_signals();
  sigaddset(&signals, SIGCHLD);
  sigaddset(&signals, SIGCONT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signals_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  while (!done()) {
    const Duration now = io::boottime_now();
    if (!over_) {
      reach_node(now);
      receive_all();
    }
    give_up_if_late(now);
    on_signals();
    if (done()) {
      break;
    }
    pollfd polls[] = {{signals_.get(), POLLIN, 0}, {over_ ? -1 : stream_.fd(), POLLIN, 0}};
    (void)::poll(polls, 2, hold_at_ ? static_cast<int>(kAskNodeAgain.ms()) : 500);
  }
  return status_;
}

}  // namespace muster::cli
