// `muster run`: starts a step on the nodes of a job and stands for it: output, input, signals, exit status. Outside of
// a job it submits one first.
//
// The step itself runs under the nodes' daemons; this program is one thread around poll(2).
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "cli/run_options.h"
#include "cli/run_output.h"
#include "cli/run_stream.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/model/outcome.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr Duration kConnectTimeout = Duration::from_s(10);
// How long a node's daemon may be away (restarting) before the step is given up.
constexpr Duration kResumePatience = Duration::from_s(60);
// Two interrupts within this time end the step.
constexpr Duration kTwiceWithin = Duration::from_s(1);
constexpr Duration kTicketFresh = Duration::from_s(30 * 60);
constexpr Duration kQueuedNotice = Duration::from_s(1);
constexpr Duration kWaitSlice = Duration::from_s(30);
// Input that is on its way to the tasks; the nodes say what was taken.
constexpr std::uint64_t kInputWindowBytes = 256U << 10U;
constexpr std::size_t kInputChunkBytes = 32U << 10U;
constexpr std::size_t kTicketFileMax = 64U << 10U;
constexpr int kRedirectsMax = 4;

constexpr int kForwarded[] = {SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

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

// "0-2,5"
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

// What a step needs to begin: a node to speak with and the right to.
struct Access {
  std::string ticket;  // bytes of pb::Ticket
  NodeAddress node;
  ClientKey key;
  std::uint64_t job = 0;
  // Tickets for clients are short-lived: one that a long step needs again after that time is asked for anew. Empty: the
  // job's own ticket, which lives as long as the job.
  std::function<Result<std::string>()> renew;
  Duration obtained;
};

// ---------------------------------------------------------------- the step

class StepRun {
 public:
  StepRun(const RunOptions& options, Access access)
      : options_(options), access_(std::move(access)), stream_(access_.node, access_.key) {}

  // The exit status.
  int run();

 private:
  struct TaskEnd {
    std::string node;
    std::uint32_t rank = 0;
    Outcome outcome;
  };

  Status start();
  Status open_input();
  bool reconnect();
  void send_resume();
  // Each returns false when the step is over for us; status_ is set then.
  bool receive_all();
  bool on_reply(const pb::NodeReply& reply);
  bool on_refused(const pb::ErrorInfo& error);
  bool on_started(const pb::StepStarted& started);
  void on_output(const pb::StepOutput& output);
  bool on_signals();
  [[nodiscard]] bool wants_input() const;
  void read_input();
  void send_signal(int number);
  void credit();
  void report_ends();
  void report_write_failures();
  void drain();
  bool fail(const std::string& message, int status = kExitRefused);
  [[nodiscard]] std::string node_name() const;
  [[nodiscard]] Duration wait_time() const;

  const RunOptions& options_;
  Access access_;
  NodeStream stream_;
  std::unique_ptr<OutputRouter> output_;
  int signal_fd_ = -1;
  io::Fd signal_owner_;
  int input_fd_ = -1;
  io::Fd input_owner_;
  bool input_over_ = false;
  // The node gives the first credit when all tasks have started.
  std::uint64_t input_allowed_ = 0;
  std::uint64_t input_sent_ = 0;
  std::uint32_t input_mode_ = 0;
  bool started_ = false;
  bool run_sent_ = false;
  std::uint32_t step_ = 0;
  std::vector<std::string> nodes_;
  std::vector<std::uint32_t> tasks_;
  std::vector<std::uint64_t> received_[2];
  std::vector<bool> ended_;
  std::size_t ended_count_ = 0;
  std::vector<TaskEnd> ends_;  // not yet reported
  Duration last_interrupt_ = Duration::from_us(-kTwiceWithin.us);
  int interrupts_ = 0;
  Duration lost_since_;
  Duration resume_at_;  // when to ask again; 0: not
  bool reader_gone_ = false;
  bool output_lost_ = false;
  int redirects_ = 0;
  int status_ = 0;
};

std::string StepRun::node_name() const {
  return stream_.address().name.empty() ? stream_.address().endpoint : "node " + stream_.address().name;
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

bool StepRun::fail(const std::string& message, int status) {
  drain();
  report_ends();
  error_line((options_.srun_style ? "error: " : "") + message);
  status_ = status;
  return false;
}

Status StepRun::open_input() {
  input_mode_ = options_.input == InputMode::kRankZero ? 0 : options_.input == InputMode::kAll ? 1 : 2;
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

Status StepRun::start() {
  pb::NodeRequest request;
  auto& run = *request.mutable_run();
  if (!run.mutable_ticket()->ParseFromString(access_.ticket)) {
    return make_error(ErrorCode::kCorrupt, "the job's ticket is damaged");
  }
  auto& spec = *run.mutable_spec();
  for (const std::string& argument : options_.argv) {
    spec.add_argv(argument);
  }
  for (const std::string& variable : options_.environment) {
    spec.add_environment(variable);
  }
  spec.set_work_dir(options_.work_dir);
  spec.set_nodes(options_.nodes);
  spec.set_nodes_max(options_.nodes_max);
  spec.set_ntasks(options_.ntasks);
  spec.set_ntasks_per_node(options_.ntasks_per_node);
  spec.set_cpus_per_task(options_.cpus_per_task);
  for (const std::string& name : options_.nodelist) {
    spec.add_nodelist(name);
  }
  for (const std::string& name : options_.exclude) {
    spec.add_exclude(name);
  }
  spec.set_kill_on_bad_exit(options_.kill_on_bad_exit);
  spec.set_stdin_mode(input_mode_);
  spec.set_name(options_.name);
  spec.set_umask(options_.umask);
  MUSTER_TRY(stream_.open(kConnectTimeout));
  run_sent_ = stream_.send(request);
  return ok_status();
}

void StepRun::send_resume() {
  resume_at_ = {};
  if (!started_) {
    run_sent_ = false;
    if (const Status status = start(); !status) {
      resume_at_ = io::boottime_now() + Duration::from_ms(200);
    }
    return;
  }
  if (access_.renew && io::boottime_now() - access_.obtained > kTicketFresh) {
    if (auto ticket = access_.renew()) {
      access_.ticket = std::move(*ticket);
      access_.obtained = io::boottime_now();
    }
  }
  pb::NodeRequest request;
  auto& resume = *request.mutable_resume();
  (void)resume.mutable_ticket()->ParseFromString(access_.ticket);
  resume.set_step(step_);
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    resume.add_nodes(nodes_[i]);
    resume.add_tasks(tasks_[i]);
  }
  for (std::uint32_t rank = 0; rank < ended_.size(); ++rank) {
    for (std::uint32_t s = 0; s < 2; ++s) {
      if (received_[s][rank] > 0) {
        auto& received = *resume.add_received();
        received.set_rank(rank);
        received.set_stream(s + 1);
        received.set_bytes(received_[s][rank]);
      }
    }
  }
  resume.set_kill_on_bad_exit(options_.kill_on_bad_exit);
  resume.set_stdin_mode(input_mode_);
  if (input_sent_ + kInputWindowBytes > input_allowed_ && input_sent_ > 0 && !input_over_) {
    // What was on its way may be lost, and input with a hole is worse than input that ends.
    note("warning: the connection was lost while input was on its way: the tasks get no more of it");
    input_over_ = true;
  }
  (void)stream_.send(request);
}

// After a lost connection. False: given up.
bool StepRun::reconnect() {
  const Duration now = io::boottime_now();
  if (lost_since_.us == 0) {
    lost_since_ = now;
    if (options_.verbose > 0) {
      note("the connection to " + node_name() + " was lost, connecting again");
    }
  }
  const Status opened = stream_.open(Duration::from_ms(500));
  if (opened) {
    send_resume();
    return true;
  }
  if (now - lost_since_ > kResumePatience) {
    return fail("the connection to " + node_name() + " was lost and cannot be made again (" + opened.error().message +
                "): see `muster queue` whether job " + std::to_string(access_.job) + " still runs");
  }
  return true;
}

bool StepRun::on_refused(const pb::ErrorInfo& error) {
  const auto code = error.code() > static_cast<std::uint32_t>(ErrorCode::kInternal)
                        ? ErrorCode::kInternal
                        : static_cast<ErrorCode>(error.code());
  const bool may_come =
      (code == ErrorCode::kNotFound && started_ && error.message().find("has ended") == std::string::npos) ||
      code == ErrorCode::kUnavailable;
  if (may_come) {
    const Duration now = io::boottime_now();
    if (lost_since_.us == 0) {
      lost_since_ = now;
    }
    if (now - lost_since_ < kResumePatience) {
      if (resume_at_.us == 0) {
        resume_at_ = now + Duration::from_ms(
                               code == ErrorCode::kNotFound && now - lost_since_ < Duration::from_ms(100) ? 1 : 200);
      }
      return true;
    }
  }
  if (!started_ && options_.srun_style) {
    error_line("error: Unable to create step for job " + std::to_string(access_.job) + ": " + error.message());
    status_ = kExitRefused;
    return false;
  }
  return fail(error.message(), exit_status_of(make_error(code, error.message())));
}

bool StepRun::on_started(const pb::StepStarted& started) {
  lost_since_ = {};
  if (started_) {
    return true;
  }
  if (started.nodes_size() != started.tasks_size() || started.nodes_size() == 0) {
    return fail(node_name() + " sent a damaged layout of the step");
  }
  started_ = true;
  step_ = started.step();
  nodes_.assign(started.nodes().begin(), started.nodes().end());
  tasks_.assign(started.tasks().begin(), started.tasks().end());
  std::uint64_t ranks = 0;
  for (const std::uint32_t tasks : tasks_) {
    ranks += tasks;
  }
  received_[0].assign(ranks, 0);
  received_[1].assign(ranks, 0);
  ended_.assign(ranks, false);
  auto output =
      OutputRouter::make({.label = options_.label,
                          .output_path = options_.output_path,
                          .error_path = options_.error_path,
                          .append = options_.append,
                          .work_dir = options_.work_dir,
                          .job = access_.job,
                          .step = step_,
                          // The user database is asked only where a pattern wants it.
                          .user = options_.output_path.empty() && options_.error_path.empty() ? "" : caller_name(),
                          .name = options_.name,
                          .nodes = nodes_,
                          .tasks = tasks_});
  if (!output) {
    send_signal(SIGKILL);
    return fail(output.error().message);
  }
  output_ = std::move(*output);
  if (options_.srun_style && options_.nodes > nodes_.size() && !options_.quiet) {
    note("Warning: can't run " + std::to_string(ranks) + " processes on " + std::to_string(options_.nodes) +
         " nodes, setting nnodes to " + std::to_string(nodes_.size()));
  }
  if (options_.verbose > 0) {
    std::uint32_t first = 0;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      std::vector<std::uint32_t> here(tasks_[i]);
      for (std::uint32_t k = 0; k < tasks_[i]; ++k) {
        here[k] = first + k;
      }
      note("launching StepId=" + std::to_string(access_.job) + "." + std::to_string(step_) + " on host " + nodes_[i] +
           ", " + std::to_string(tasks_[i]) + " tasks: " + fold_numbers(here));
      first += tasks_[i];
    }
  }
  if (interrupts_ >= 2) {
    send_signal(SIGKILL);
  }
  return true;
}

void StepRun::on_output(const pb::StepOutput& output) {
  if (!started_ || output.rank() >= ended_.size() || output.stream() < 1 || output.stream() > 2) {
    return;
  }
  std::uint64_t& have = received_[output.stream() - 1][output.rank()];
  if (output.offset() > have) {
    return;  // what lies between comes with the resume that is under way
  }
  const std::uint64_t known = have - output.offset();
  if (known >= output.data().size()) {
    return;
  }
  const std::string_view fresh = std::string_view(output.data()).substr(known);
  have += fresh.size();
  output_->put(output.rank(), output.stream(), fresh);
}

bool StepRun::on_reply(const pb::NodeReply& reply) {
  switch (reply.body_case()) {
    case pb::NodeReply::kRefused:
      return on_refused(reply.refused());
    case pb::NodeReply::kRedirect: {
      if (++redirects_ > kRedirectsMax) {
        return fail("the nodes of job " + std::to_string(access_.job) + " point at each other: report this as a bug");
      }
      stream_.redirect({.name = reply.redirect().node(),
                        .endpoint = reply.redirect().endpoint(),
                        .public_key = reply.redirect().public_key()});
      if (const Status status = start(); !status) {
        return fail(status.error().message);
      }
      return true;
    }
    case pb::NodeReply::kStarted:
      return on_started(reply.started());
    case pb::NodeReply::kOutput:
      on_output(reply.output());
      return true;
    case pb::NodeReply::kInputCredit:
      input_allowed_ += reply.input_credit().bytes();
      return true;
    case pb::NodeReply::kTaskEnded: {
      const auto& ended = reply.task_ended();
      if (!started_ || ended.rank() >= ended_.size() || ended_[ended.rank()]) {
        return true;
      }
      ended_[ended.rank()] = true;
      ++ended_count_;
      output_->end(ended.rank());
      const auto outcome = wire::from_pb(ended.outcome());
      if (outcome && (outcome->cause != EndCause::kExited || outcome->exit_code != 0)) {
        ends_.push_back({.node = ended.node(), .rank = ended.rank(), .outcome = *outcome});
      }
      return true;
    }
    case pb::NodeReply::kEnded: {
      drain();
      report_ends();
      status_ = std::min(reply.ended().exit_code(), 255);
      if (status_ == 0 && output_lost_) {
        status_ = kExitRefused;
      }
      if (!reply.ended().detail().empty() && interrupts_ == 0) {
        error_line((options_.srun_style ? "error: " : "") +
                   (started_ ? "step " + std::to_string(access_.job) + "." + std::to_string(step_)
                             : "the step of job " + std::to_string(access_.job)) +
                   " was ended: " + reply.ended().detail());
      }
      return false;
    }
    default:
      return true;
  }
}

bool StepRun::receive_all() {
  while (true) {
    auto reply = stream_.receive();
    if (!reply) {
      return fail(reply.error().message);
    }
    if (!*reply) {
      return true;
    }
    if (!on_reply(**reply)) {
      return false;
    }
  }
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

Duration StepRun::wait_time() const {
  Duration wait = Duration::from_ms(500);
  if (resume_at_.us != 0) {
    wait = std::clamp(resume_at_ - io::boottime_now(), Duration::from_ms(1), wait);
  }
  if (!ends_.empty() || (output_ && output_->has_incomplete_lines())) {
    wait = std::min(wait, Duration::from_ms(100));
  }
  return wait;
}

int StepRun::run() {
  const sigset_t signals = handled_signals();
  signal_owner_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  signal_fd_ = signal_owner_.get();
  if (const Status status = open_input(); !status) {
    fail(status.error().message);
    return status_;
  }
  if (const Status status = start(); !status) {
    fail(status.error().message);
    return status_;
  }
  std::vector<pollfd> polls;
  while (true) {
    if (!stream_.connected()) {
      if (!reconnect() || !on_signals()) {
        return status_;
      }
      if (!stream_.connected()) {
        continue;
      }
    }
    if (!receive_all()) {
      return status_;
    }
    credit();
    stream_.keep_alive();
    if (resume_at_.us != 0 && io::boottime_now() >= resume_at_) {
      send_resume();
    }
    // Sending may have taken the edge of the socket's readiness.
    if (!receive_all()) {
      return status_;
    }
    if (!stream_.connected()) {
      continue;
    }
    polls.clear();
    polls.push_back({stream_.fd(), POLLIN, 0});
    polls.push_back({signal_fd_, POLLIN, 0});
    const bool with_input = wants_input();
    if (with_input) {
      polls.push_back({input_fd_, POLLIN, 0});
    }
    if (output_) {
      output_->add_polls(polls);
    }
    const int ready = ::poll(polls.data(), polls.size(), static_cast<int>(wait_time().ms()));
    if (ready == 0) {
      if (output_) {
        output_->idle();
        (void)output_->flush();
      }
      report_ends();
      continue;
    }
    if (polls[1].revents != 0 && !on_signals()) {
      return status_;
    }
    if (with_input && polls[2].revents != 0) {
      read_input();
    }
  }
}

// ---------------------------------------------------------------- inside a job

std::string variable(const char* name) {
  const char* value = ::getenv(name);
  return value != nullptr ? value : "";
}

// The job's own ticket, which its environment names.
Result<Access> access_inside(std::uint64_t job) {
  Access access;
  access.job = job;
  MUSTER_ASSIGN(access.ticket, io::read_file(variable("MUSTER_TICKET_FILE"), kTicketFileMax));
  access.node = {.name = variable("MUSTER_NODE_NAME"),
                 .endpoint = variable("MUSTER_NODE_ENDPOINT"),
                 .public_key = variable("MUSTER_NODE_KEY")};
  if (access.node.name.empty()) {
    access.node.name = variable("SLURMD_NODENAME");
  }
  access.key = make_ephemeral_key();
  return access;
}

bool is_inside(std::uint64_t job) {
  return variable("MUSTER_JOB_ID") == std::to_string(job) && !variable("MUSTER_TICKET_FILE").empty() &&
         !variable("MUSTER_NODE_ENDPOINT").empty();
}

// `client` must live as long as the access.
Result<Access> access_by_controller(Client& client, std::uint64_t job) {
  pb::Request request;
  request.mutable_ticket()->set_job(job);
  request.mutable_ticket()->set_client_key(client.public_key());
  MUSTER_ASSIGN(const pb::Reply reply, client.call(request));
  if (!reply.has_ticket()) {
    return make_error(ErrorCode::kCorrupt, "the controller's answer is of another kind: are both of a like version?");
  }
  Access access;
  access.job = job;
  access.ticket = reply.ticket().ticket().SerializeAsString();
  access.node = {
      .name = reply.ticket().node(), .endpoint = reply.ticket().endpoint(), .public_key = reply.ticket().public_key()};
  access.key = {.public_key = client.public_key(), .secret_key = client.secret_key()};
  access.obtained = io::boottime_now();
  access.renew = [&client, job]() -> Result<std::string> {
    MUSTER_ASSIGN(const Access fresh, access_by_controller(client, job));
    return fresh.ticket;
  };
  return access;
}

// ---------------------------------------------------------------- outside of a job

// Cancels a job that waits when the user interrupts us, in a thread because the wait blocks.
class CancelOnSignal {
 public:
  CancelOnSignal(const ConnectOptions& connect, std::uint64_t job)
      : thread_([this, connect, job] { watch(connect, job); }) {}
  ~CancelOnSignal() {
    stop_ = true;
    thread_.join();
  }
  CancelOnSignal(const CancelOnSignal&) = delete;
  CancelOnSignal& operator=(const CancelOnSignal&) = delete;

 private:
  void watch(const ConnectOptions& connect, std::uint64_t job) {
    const sigset_t signals = handled_signals();
    const timespec slice{0, 50'000'000};
    while (!stop_) {
      const int number = ::sigtimedwait(&signals, nullptr, &slice);
      if (number > 0) {
        cancel(connect, job);
        note("job " + std::to_string(job) + " was cancelled by " + std::string(::strsignal(number)));
        ::_exit(128 + number);
      }
    }
  }

  static void cancel(const ConnectOptions& connect, std::uint64_t job) {
    auto client = Client::open(connect);
    pb::Request request;
    JobSelector selector;
    selector.items.emplace_back().id = JobId(job);
    wire::to_pb(selector, *request.mutable_cancel()->mutable_jobs());
    if (client) {
      (void)(*client)->call(request);
    }
  }

  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// Waits until the job runs. kRefused with its reason when it ended instead.
Status wait_until_started(Client& client, const RunOptions& options, std::uint64_t job) {
  std::unique_ptr<CancelOnSignal> cancel;
  while (true) {
    pb::Request request;
    auto& wait = *request.mutable_wait();
    wait.set_job(job);
    const Duration slice = cancel ? kWaitSlice : kQueuedNotice;
    wait.set_timeout_us(slice.us);
    MUSTER_ASSIGN(const pb::Reply reply, client.call(request, slice + client.timeout()));
    if (reply.jobs().jobs_size() == 0) {
      return make_error(ErrorCode::kNotFound, "job " + std::to_string(job) + " is gone: see `muster history`");
    }
    const pb::JobView& view = reply.jobs().jobs(0);
    const auto state = static_cast<JobState>(view.state());
    if (is_terminal(state)) {
      const std::string why = view.reason_detail().empty() ? view.reason() : view.reason_detail();
      return make_error(ErrorCode::kRefused, "job " + std::to_string(job) + " ended before its step started: " +
                                                 std::string(to_string(state)) + (why.empty() ? "" : ", " + why));
    }
    if (state == JobState::kRunning || state == JobState::kSuspended) {
      if (cancel && !options.quiet) {
        note("job " + std::to_string(job) + " has been allocated resources");
      }
      return ok_status();
    }
    if (!cancel) {
      if (!options.quiet) {
        note("job " + std::to_string(job) + " queued and waiting for resources");
      }
      cancel = std::make_unique<CancelOnSignal>(options.connect, job);
    }
  }
}

int report(const RunOptions& options, const Error& error) {
  if (!options.srun_style) {
    return report_error(error);
  }
  error_line("error: " + error.message);
  return exit_status_of(error);
}

int run_outside(const RunOptions& options) {
  auto client = Client::open(options.connect);
  if (!client) {
    return report(options, client.error());
  }
  const auto submitted = submit_job(**client, options.job, "", "", options.test_only);
  if (!submitted) {
    return report(options, submitted.error());
  }
  if (options.test_only) {
    note("the job would be accepted");
    return kExitOk;
  }
  const std::uint64_t job = submitted->job();
  if (const Status status = wait_until_started(**client, options, job); !status) {
    return report(options, status.error());
  }
  auto access = access_by_controller(**client, job);
  if (!access) {
    return report(options, access.error());
  }
  // The job has the size that was asked for, and its nodes are the named ones: the step is all of it.
  RunOptions step = options;
  step.nodelist.clear();
  step.exclude.clear();
  step.nodes = step.nodes_max = step.ntasks = step.ntasks_per_node = 0;
  return StepRun(step, std::move(*access)).run();
}

int run_to_end(const RunOptions& options) {
  if (options.pty) {
    error_line("--pty is not supported yet: run the command without it");
    return kExitUsage;
  }
  // From here on signals wait until somebody can act on them for the step.
  const sigset_t signals = handled_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  if (options.job_id == 0) {
    return run_outside(options);
  }
  if (options.test_only) {
    note("the step would be started in job " + std::to_string(options.job_id));
    return kExitOk;
  }
  Result<Access> access = make_error(ErrorCode::kInternal, "");
  std::unique_ptr<Client> client;
  if (is_inside(options.job_id)) {
    access = access_inside(options.job_id);
  } else {
    auto opened = Client::open(options.connect);
    if (!opened) {
      return report(options, opened.error());
    }
    client = std::move(*opened);
    access = access_by_controller(*client, options.job_id);
  }
  if (!access) {
    return report(options, access.error());
  }
  return StepRun(options, std::move(*access)).run();
}

}  // namespace

int run_step(const RunOptions& options) {
  const int status = run_to_end(options);
  // All that had to be said was said. The orderly end of ZeroMQ's threads would be a good part of a short step's time.
  ::_exit(status);
}

}  // namespace muster::cli
