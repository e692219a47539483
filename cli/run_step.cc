#include "cli/run_step.h"

#include <poll.h>
#include <sys/signalfd.h>

#include <algorithm>

#include "cli/bound_text.h"
#include "cli/commands.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/model/step_ranks.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr Duration kConnectTimeout = Duration::from_s(10);
// How long a node's daemon may be away (restarting) before the step is given up.
constexpr Duration kResumePatience = Duration::from_s(60);
// A node that does not answer: when the controller is asked what became of the job, and how often.
constexpr Duration kAskAfter = Duration::from_s(2);
constexpr Duration kAskEvery = Duration::from_s(5);
// The controller hears of the end of a job about when the step's client does.
constexpr Duration kEndPatience = Duration::from_s(2);
constexpr Duration kTicketFresh = Duration::from_s(30 * 60);
// Input that is on its way to the tasks; the nodes say what was taken.
constexpr std::uint64_t kInputWindowBytes = 256U << 10U;
constexpr int kRedirectsMax = 4;
// A step that waits for others this long says so.
constexpr Duration kWaitNotice = Duration::from_s(2);

}  // namespace

std::string StepRun::node_name() const {
  return stream_.address().name.empty() ? stream_.address().endpoint : "node " + stream_.address().name;
}

bool StepRun::fail(const std::string& message, int status) {
  drain();
  report_ends();
  error_line((options_.srun_style ? "error: " : "") + message);
  status_ = status;
  return false;
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
  for (const RankProgram& one : options_.programs) {
    auto& program = *spec.add_programs();
    for (const std::string& word : one.argv) {
      program.add_argv(word);
    }
    for (const auto& [first, last] : one.ranks) {
      program.add_first(first);
      program.add_last(last);
    }
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
  spec.set_threads_per_core(options_.threads_per_core);
  spec.set_sharing(static_cast<std::uint32_t>(options_.sharing));
  spec.set_relative(options_.relative);
  spec.set_gpus(options_.gpus);
  spec.set_gpus_per_node(options_.gpus_per_node);
  spec.set_gpus_per_task(options_.gpus_per_task);
  spec.set_cpu_bind(options_.cpu_bind);
  spec.set_gpu_bind(options_.gpu_bind);
  spec.set_distribution(options_.distribution);
  for (const std::string& name : options_.nodelist) {
    spec.add_nodelist(name);
  }
  for (const std::string& name : options_.exclude) {
    spec.add_exclude(name);
  }
  spec.set_kill_on_bad_exit(options_.kill_on_bad_exit);
  spec.set_stdin_mode(input_mode_);
  spec.set_stdin_rank(options_.input_rank);
  spec.set_wait_us(static_cast<std::uint64_t>(options_.wait.us));
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
  resume.set_rank_plane(rank_plane_);
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
  resume.set_stdin_rank(options_.input_rank);
  resume.set_wait_us(static_cast<std::uint64_t>(options_.wait.us));
  if (input_sent_ + kInputWindowBytes > input_allowed_ && input_sent_ > 0 && !input_over_) {
    // What was on its way may be lost, and input with a hole is worse than input that ends.
    note("warning: the connection was lost while input was on its way: the tasks get no more of it");
    input_over_ = true;
  }
  (void)stream_.send(request);
}

bool StepRun::is_time_to_ask(Duration now) const {
  return access_.job_end && now - lost_since_ > kAskAfter && now - asked_ > kAskEvery;
}

bool StepRun::ask_whether_ended(Duration wait) {
  if (!access_.job_end) {
    return true;
  }
  const auto end = access_.job_end(wait);
  asked_ = io::boottime_now();
  if (end && *end) {
    return fail(**end, status_ != 0 ? status_ : kExitRefused);
  }
  if (end && !stream_.connected()) {
    lost_since_ = asked_ - kAskAfter;  // the job goes on
    if (!said_waiting_) {
      said_waiting_ = true;
      note(node_name() + " does not answer; job " + std::to_string(access_.job) +
           " has not ended: waiting for the node (muster cancel " + std::to_string(access_.job) + " ends the job)");
    }
  }
  return true;
}

StepResult StepRun::result() const {
  StepResult result;
  result.job = access_.job;
  if (started_) {
    result.step = step_;
  }
  result.status = status_;
  result.nodes = nodes_;
  result.tasks = all_ends_;
  return result;
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
  if (interrupts_ >= 2) {
    return fail(node_name() + " does not answer: its tasks may still run, `muster cancel " +
                    std::to_string(access_.job) + "` ends the job",
                128 + SIGINT);
  }
  // As long as the controller says that the job goes on, a node that is away is waited for.
  if (is_time_to_ask(now) && !ask_whether_ended({})) {
    return false;
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
    // A node that restarted has lost what ran there; its daemon alone takes it up again within moments.
    if (started_ && is_time_to_ask(now) && !ask_whether_ended({})) {
      return false;
    }
    if (now - lost_since_ < kResumePatience) {
      if (resume_at_.us == 0) {
        resume_at_ = now + Duration::from_ms(
                               code == ErrorCode::kNotFound && now - lost_since_ < Duration::from_ms(100) ? 1 : 200);
      }
      return true;
    }
  }
  if (started_ && !ask_whether_ended(kEndPatience)) {
    return false;
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
  said_waiting_ = false;
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
  rank_plane_ = started.rank_plane();
  std::uint64_t ranks = 0;
  for (const std::uint32_t tasks : tasks_) {
    ranks += tasks;
  }
  received_[0].assign(ranks, 0);
  received_[1].assign(ranks, 0);
  ended_.assign(ranks, false);
  auto output =
      OutputRouter::make({.label = options_.label,
                          .unbuffered = options_.unbuffered,
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
                          .tasks = tasks_,
                          .rank_plane = rank_plane_});
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
    const std::vector<std::vector<std::uint32_t>> dealt = deal_ranks(tasks_, rank_plane_);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      note("launching StepId=" + std::to_string(access_.job) + "." + std::to_string(step_) + " on host " + nodes_[i] +
           ", " + std::to_string(tasks_[i]) + " tasks: " + fold_numbers(dealt[i]));
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
    case pb::NodeReply::kStepWaits:
      on_waits(reply.step_waits().reason());
      return true;
    case pb::NodeReply::kStarted:
      return on_started(reply.started());
    case pb::NodeReply::kOutput:
      on_output(reply.output());
      return true;
    case pb::NodeReply::kInputCredit:
      input_allowed_ += reply.input_credit().bytes();
      return true;
    case pb::NodeReply::kTaskBound:
      error_line(bound_text(reply.task_bound()));
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
      if (!outcome) {
        return true;
      }
      if (outcome->cause != EndCause::kExited || outcome->exit_code != 0) {
        ends_.push_back({.node = ended.node(), .rank = ended.rank(), .outcome = *outcome});
      }
      if (options_.json) {
        all_ends_.push_back({.node = ended.node(), .rank = ended.rank(), .outcome = *outcome});
      }
      return true;
    }
    case pb::NodeReply::kEnded: {
      drain();
      report_ends();
      if (interrupted_waiting_ != 0) {
        status_ = 128 + interrupted_waiting_;
        return false;
      }
      status_ = std::min(reply.ended().exit_code(), 255);
      if (status_ == 0 && output_lost_) {
        status_ = kExitRefused;
      }
      // The node knows that the job was ended there, the controller why.
      const bool with_job = reply.ended().detail().find("has ended") != std::string::npos;
      if (!reply.ended().detail().empty() && interrupts_ == 0 && (!with_job || ask_whether_ended(kEndPatience))) {
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

// What the step waits for is told when it waits for long.
void StepRun::on_waits(const std::string& reason) {
  waits_ = reason;
  if (waits_since_.us == 0) {
    waits_since_ = io::boottime_now();
  }
}

void StepRun::tell_waits() {
  if (started_ || options_.quiet || waits_.empty() || waits_ == waits_told_ ||
      io::boottime_now() - waits_since_ < kWaitNotice) {
    return;
  }
  waits_told_ = waits_;
  note("the step of job " + std::to_string(access_.job) + " waits: " + waits_);
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
    tell_waits();
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

}  // namespace muster::cli
