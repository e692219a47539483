#include "noded/shepherd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "lib/base/text.h"
#include "noded/shepherd_util.h"

namespace muster::noded {
namespace {

// At the end of the attempt, what the pipes still hold is read in any case; this bounds the memory for it.
constexpr std::size_t kOutFinalBytesMax = 64U << 20U;
// The last frames are offered to noded for so long; the outcome is on disk anyway.
constexpr int kFinalFlushMs = 2'000;
// How often an outcome is written again that the disk had no room for, and how often a shepherd that no noded is
// connected to looks whether one can still find it.
constexpr std::int64_t kAgainUs = 1'000'000;
constexpr int kReapedAtOnceMax = 64;
// How often an attempt that is to end is looked at for refused forks.
constexpr std::int64_t kLookForBombUs = 100'000;
// Between TERM and KILL for an attempt that has been at its limit of processes: a fork bomb would use more to fork on.
constexpr std::int64_t kBombGraceUs = 300'000;

Outcome outcome_of(int wait_status) {
  Outcome outcome;
  if (WIFSIGNALED(wait_status)) {
    outcome.cause = EndCause::kSignalled;
    outcome.signal = WTERMSIG(wait_status);
  } else {
    outcome.cause = EndCause::kExited;
    outcome.exit_code = WEXITSTATUS(wait_status);
  }
  return outcome;
}

// Whether any child is left, living or not yet reaped.
bool has_children() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

}  // namespace

Shepherd::Shepherd(int connection) : connection_(connection) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGCHLD);
  sigaddset(&wanted, SIGTERM);
  signals_ = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
  MUSTER_CHECK(epoll_ >= 0 && signals_ >= 0);
  fcntl(connection_, F_SETFD, FD_CLOEXEC);
  fcntl(connection_, F_SETFL, fcntl(connection_, F_GETFL) | O_NONBLOCK);
  add_to_epoll(signals_, Token::kSignals, 0, EPOLLIN);
  add_to_epoll(connection_, Token::kConnection, 0, EPOLLIN);
}

Shepherd::~Shepherd() {
  for (auto& [number, task] : tasks_) {
    close_fd(task.status_fd);
    close_fd(task.in);
    close_fd(task.outputs[0].fd);
    close_fd(task.outputs[1].fd);
  }
  close_fd(hook_.status_fd);
  close_fd(hook_.output_fd);
  close_fd(connection_);
  close_fd(record_);
  close_fd(listener_);
  close_fd(timer_);
  close_fd(signals_);
  close_fd(epoll_);
}

int Shepherd::run() {
  while (!done_) {
    if (!launch_ && connection_ < 0) {
      return 0;  // noded went away before it said what to start: a later noded starts the attempt
    }
    epoll_event events[32];
    const int n = epoll_wait(epoll_, events, 32, more_to_reap_ ? 0 : -1);
    for (int i = 0; i < n && !done_; ++i) {
      const auto token = static_cast<Token>(events[i].data.u64 >> 56U);
      const std::uint64_t index = events[i].data.u64 & ((1ULL << 56U) - 1);
      switch (token) {
        case Token::kConnection:
          on_connection(events[i].events);
          break;
        case Token::kListener:
          on_listener();
          break;
        case Token::kSignals:
          on_signals();
          break;
        case Token::kTimer:
          on_timer();
          break;
        case Token::kStatus:
          on_status(index);
          break;
        case Token::kIn:
          write_input(index);
          break;
        case Token::kOut:
          on_output(index, 0);
          break;
        case Token::kErr:
          on_output(index, 1);
          break;
        case Token::kHook:
          read_hook_output();
          break;
      }
    }
    if (more_to_reap_) {
      reap();
    }
    if (launch_ && !done_) {
      settle();
      flush();
    }
  }
  return 0;
}

// ---------------------------------------------------------------- frames

void Shepherd::on_frame(const Frame& frame) {
  if (const auto* f = std::get_if<LaunchFrame>(&frame)) {
    if (!launch_) {
      launch(*f);
    }
    return;
  }
  if (!launch_ || done_) {
    return;
  }
  if (const auto* stop = std::get_if<StopFrame>(&frame)) {
    on_stop(*stop);
  } else if (const auto* notice = std::get_if<NoticeFrame>(&frame)) {
    on_notice(*notice);
  } else if (const auto* suspend = std::get_if<SuspendFrame>(&frame)) {
    on_suspend(suspend->suspend);
  } else if (const auto* still = std::get_if<StandStillFrame>(&frame)) {
    on_stand_still(*still);
  } else if (const auto* end = std::get_if<FinishFrame>(&frame)) {
    if (!decided_ && !ending_) {
      decide(end->outcome);
      begin_end(end->outcome.cause, launch_->kill_grace_us);
    }
  } else if (auto* programs = std::get_if<StepProgramsFrame>(&frame)) {
    take_programs(*programs);
  } else if (const auto* start = std::get_if<StepStartFrame>(&frame)) {
    start_step(*start);
  } else if (const auto* input = std::get_if<StepInputFrame>(&frame)) {
    on_input(*input);
  } else if (const auto* signal = std::get_if<StepSignalFrame>(&frame)) {
    on_step_signal(*signal);
  } else if (const auto* credit = std::get_if<StepCreditFrame>(&frame)) {
    on_credit(*credit);
  } else if (const auto* resume = std::get_if<StepResumeFrame>(&frame)) {
    on_resume(*resume);
  } else if (const auto* forget = std::get_if<StepForgetFrame>(&frame)) {
    on_forget(*forget);
  } else if (const auto* limit = std::get_if<LimitFrame>(&frame)) {
    on_limit(*limit);
  } else if (const auto* attach = std::get_if<AttachFrame>(&frame)) {
    noded_version_ = attach->version;
    on_attach();
  }
}

void Shepherd::launch(const LaunchFrame& frame) {
  noded_version_ = frame.version;
  launch_ = frame;
  launched_us_ = now_us();
  tree_ = std::make_unique<ProcessTree>(
      frame.cgroup_parent.empty() ? std::string() : frame.cgroup_parent + "/" + frame.name,
      Enforcer::freezer_of(frame));
  if (!frame.prolog.empty()) {
    mark_prolog();  // before the record: whoever finds that looks for this
  }
  if (!take_mark()) {
    return;
  }
  if (!start_hook(false)) {
    begin_job();
  }
}

// What users wait for, and what their limits are about: a prolog is in none of its groups, and the job sees what it mounted.
void Shepherd::begin_job() {
  const LaunchFrame& frame = *launch_;
  launched_us_ = now_us();
  if (std::string failure = enforce(frame); !failure.empty()) {
    decide(Outcome{
        .cause = EndCause::kLaunchFailed, .exit_code = 0, .signal = 0, .detail = std::move(failure), .ran = {}});
    return;
  }
  set_limit(frame.time_limit_us);
  if (!frame.has_script) {
    started_ = true;
    send(StartedFrame{0});
    return;
  }
  const std::uint64_t number = next_task_++;
  Task& task = tasks_[number];
  task.spec = base_spec();
  task.spec.argv.push_back(frame.script);
  task.spec.argv.insert(task.spec.argv.end(), frame.args.begin(), frame.args.end());
  task.spec.environment = frame.environment;
  task.spec.work_dir = frame.work_dir;
  task.spec.umask = static_cast<mode_t>(frame.umask);
  task.spec.in.path = frame.stdin_path;
  task.spec.out.path = frame.stdout_path;
  task.spec.err.path = frame.stderr_path;
  task.spec.err_with_out = frame.stderr_path.empty() || frame.stderr_path == frame.stdout_path;
  task.spec.append = frame.append;
  task.spec.cgroup_fd = tree_->open_group(ProcessTree::kNoStep);
  auto started = start_task(task.spec);
  close_fd(task.spec.cgroup_fd);
  if (!started.ok()) {
    tasks_.erase(number);
    decide(Outcome{
        .cause = EndCause::kLaunchFailed, .exit_code = 0, .signal = 0, .detail = started.error().message, .ran = {}});
    return;
  }
  script_running_ = true;
  task.pid = started->pid;
  task.status_fd = started->status_fd;
  add_to_epoll(task.status_fd, Token::kStatus, number, EPOLLIN);
}

// Empty, or why what was ordered cannot be.
std::string Shepherd::enforce(const LaunchFrame& frame) {
  enforcer_ = std::make_unique<Enforcer>(frame, tree_->cgroup());
  if (!enforcer_->failure().empty()) {
    return "its limits cannot be enforced: " + enforcer_->failure();
  }
  if (frame.isolate) {
    namespace_ = std::make_unique<JobNamespace>(frame);
    if (!namespace_->failure().empty()) {
      return "it cannot be isolated: " + namespace_->failure();
    }
  }
  return {};
}

TaskSpec Shepherd::base_spec() const {
  TaskSpec spec;
  spec.uid = launch_->uid;
  spec.gid = launch_->gid;
  spec.groups = launch_->groups;
  spec.cpus = launch_->cpus;
  spec.tells_place = true;
  spec.cgroup = tree_->cgroup();
  spec.joins = enforcer_->joins();
  spec.needs_cgroup = enforcer_->needs_tree();
  spec.memory_nodes = launch_->limits.memory_nodes;
  spec.data_bytes_max = enforcer_->data_bytes_max();
  if (namespace_ != nullptr) {
    spec.mount_namespace = namespace_->mounts();
    spec.ipc_namespace = namespace_->ipc();
  }
  return spec;
}

void Shepherd::on_stop(const StopFrame& frame) {
  if (frame.signal == 0) {
    if (!ending_) {
      stopping_ = true;
      begin_end(EndCause::kCancelled, frame.grace_us);
    }
    return;
  }
  send_signal(frame.signal);
}

void Shepherd::send_signal(int signal) {
  if (signal == SIGCONT && gives_cpus_) {
    return;  // others have its CPUs
  }
  if (hook_.pid > 0) {
    return;  // nothing of the job runs
  }
  if (goes_to_everything(signal)) {
    tree_->signal_all(signal);
    return;
  }
  for (const auto& [number, task] : tasks_) {
    if (!task.exited && task.pid > 0) {
      kill(task.pid, signal);
    }
  }
}

void Shepherd::on_notice(const NoticeFrame& frame) {
  if (ending_ || stop_at_us_ != 0) {
    return;
  }
  if (gives_cpus_) {
    on_stop(StopFrame{0, frame.grace_us});
    return;
  }
  on_suspend(false);  // it must be able to act on it
  stop_at_us_ = now_us() + std::max<std::int64_t>(frame.notice_us, 1);
  stop_grace_us_ = frame.grace_us;
  if (frame.signal != 0) {
    send_signal(frame.signal);
  }
  arm_timer();
}

void Shepherd::on_suspend(bool suspend) {
  if (suspend == (suspended_at_us_ != 0) || ending_ || (suspend && stop_at_us_ != 0)) {
    return;
  }
  if (suspend) {
    suspended_at_us_ = now_us();
    tree_->freeze();
  } else {
    gives_cpus_ = false;
    const std::int64_t stood_us = now_us() - std::exchange(suspended_at_us_, 0);
    stood_us_ += stood_us;
    for (std::int64_t* at : {&limit_at_us_, &warn_at_us_}) {
      *at += *at != 0 ? stood_us : 0;
    }
    tree_->thaw();
  }
  arm_timer();
}

void Shepherd::on_stand_still(const StandStillFrame& frame) {
  on_suspend(true);
  if (suspended_at_us_ != 0) {
    gives_cpus_ = true;
    send(StoodStillFrame{frame.number});
  }
}

// --signal, shortly before the time limit.
void Shepherd::warn() {
  for (const auto& [number, task] : tasks_) {
    if (!task.exited && task.pid > 0 && (task.step == ProcessTree::kNoStep) == launch_->warn_batch_only) {
      kill(task.pid, launch_->warn_signal);
    }
  }
}

void Shepherd::on_limit(const LimitFrame& frame) {
  launch_->time_limit_us = frame.time_limit_us;
  if (hook_.pid == 0) {
    set_limit(frame.time_limit_us);  // a prolog's end does it otherwise
  }
}

// Counts from the start, without the time in which the job stood still. The warning comes once, however often the limit is
// set anew.
void Shepherd::set_limit(std::int64_t limit_us) {
  limit_at_us_ = limit_us > 0 ? launched_us_ + stood_us_ + limit_us : 0;
  const bool warns = limit_at_us_ != 0 && launch_->warn_signal != 0 && !warned_;
  warn_at_us_ = warns ? std::max(launched_us_ + 1, limit_at_us_ - launch_->warn_before_us) : 0;
  arm_timer();
}

// ---------------------------------------------------------------- things that happen

void Shepherd::on_signals() {
  signalfd_siginfo info[16];
  bool terminate = false;
  while (true) {
    const ssize_t n = read(signals_, info, sizeof(info));
    if (n <= 0) {
      break;
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(n) / sizeof(info[0]); ++i) {
      terminate = terminate || info[i].ssi_signo == SIGTERM;
    }
  }
  if (!launch_) {
    done_ = done_ || terminate;
    return;
  }
  if (terminate && !ending_) {
    stopping_ = true;
    end_detail_ = "its shepherd was asked to terminate (the node is being shut down)";
    begin_end(EndCause::kCancelled, launch_->kill_grace_us);
  }
  reap();
}

// Some at a time: those of a fork bomb come as fast as they are taken, and an order to end it must be heard.
void Shepherd::reap() {
  more_to_reap_ = false;
  for (int i = 0; i < kReapedAtOnceMax; ++i) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) {
      return;
    }
    ++reaped_;
    if (pid == hook_.pid) {
      on_hook_ended(status);
      continue;
    }
    for (auto& [number, task] : tasks_) {
      if (task.pid != pid || task.exited) {
        continue;
      }
      // All that it said: where it is bound, and that it failed after that.
      while (task.status_fd >= 0) {
        on_status(number);
      }
      task.exited = true;
      task.wait_status = status;
      if (!task.failed) {
        task.outcome = outcome_of(status);
        if (task.step != ProcessTree::kNoStep) {
          blame_time_limit(task.outcome);
          blame_memory(task.outcome);
        }
      }
      close_input(task);
      if (task.step == ProcessTree::kNoStep) {
        script_running_ = false;
        if (task.failed || !stopping_) {
          decide(task.outcome);
        } else {
          outcome_ = task.outcome;
        }
        if (!ending_) {
          begin_end(task.outcome.cause, launch_->kill_grace_us);
        }
      }
      break;
    }
  }
  more_to_reap_ = true;
}

void Shepherd::on_status(std::uint64_t index) {
  auto found = tasks_.find(index);
  if (found == tasks_.end() || found->second.status_fd < 0) {
    return;
  }
  Task& task = found->second;
  StartNews news = read_start_news(task.status_fd, task.spec);
  if (news.what == StartNews::What::kBound) {
    send_bound(task, std::move(news.place));
    return;
  }
  task.failed = news.what == StartNews::What::kFailed;
  if (task.failed) {
    task.outcome = std::move(news.outcome);
  }
  close_fd(task.status_fd);
  task.spec = TaskSpec{};
  if (task.step == ProcessTree::kNoStep && !task.failed) {
    started_ = true;
    send(StartedFrame{static_cast<std::uint32_t>(task.pid)});
  }
}

void Shepherd::on_timer() {
  std::uint64_t expirations = 0;
  const ssize_t ignored = read(timer_, &expirations, sizeof(expirations));
  static_cast<void>(ignored);
  timer_at_us_ = 0;
  const std::int64_t now = now_us();
  const bool runs = suspended_at_us_ == 0;
  if (warn_at_us_ != 0 && runs && now >= warn_at_us_) {
    warn_at_us_ = 0;
    warned_ = true;
    if (!ending_) {
      warn();
    }
  }
  if (stop_at_us_ != 0 && now >= stop_at_us_) {
    stop_at_us_ = 0;
    if (!ending_) {
      stopping_ = true;
      begin_end(EndCause::kCancelled, stop_grace_us_);
    }
  }
  if (limit_at_us_ != 0 && runs && now >= limit_at_us_) {
    limit_at_us_ = 0;
    if (!ending_) {
      stopping_ = true;
      begin_end(EndCause::kTimeLimit, launch_->kill_grace_us);
    }
  }
  if (look_at_us_ != 0 && now >= look_at_us_) {
    look_for_bomb(now);
  }
  if (kill_at_us_ != 0 && now >= kill_at_us_) {
    tree_->kill_all();
    kill_at_us_ = now + kKillAgainUs;
  }
  if (hook_.deadline_us != 0 && now >= hook_.deadline_us) {
    on_hook_deadline();
  }
  if (again_at_us_ != 0 && now >= again_at_us_) {
    again_at_us_ = 0;  // settle() does what is to be done again
  }
  for (auto& [number, step] : steps_) {
    if (step.kill_at_us != 0 && now >= step.kill_at_us) {
      tree_->kill_step(number, living_tasks(step));
      step.kill_at_us = now + kKillAgainUs;
      step.looked_at = UINT64_MAX;
    }
  }
  arm_timer();
}

// ---------------------------------------------------------------- the end

void Shepherd::decide(const Outcome& outcome) {
  if (!decided_) {
    decided_ = true;
    outcome_ = outcome;
  }
}

void Shepherd::begin_end(EndCause cause, std::int64_t grace_us) {
  if (gives_cpus_) {
    tree_->kill_all();  // on others' CPUs nothing of it may run, not even to end
    grace_us = 0;
  }
  on_suspend(false);
  stop_at_us_ = 0;
  ending_ = true;
  end_cause_ = cause;
  // The common case costs nothing: the script was the last process.
  if (!script_running_ && !has_children()) {
    return;
  }
  tree_->signal_all(SIGTERM);
  tree_->signal_all(SIGCONT);  // a stopped process sees TERM only when it goes on
  if (hook_.pid > 0) {
    kill(hook_.pid, SIGTERM);  // it is in no group of the job's
  }
  kill_at_us_ = now_us() + grace_us;
  look_for_bomb(now_us());
  arm_timer();
}

// What has been at its limit of processes, or comes there while it is to end, would use the whole grace to fork on.
void Shepherd::look_for_bomb(std::int64_t now) {
  look_at_us_ = 0;
  if (enforcer_ == nullptr || launch_->limits.processes == 0) {
    return;
  }
  if (enforcer_->forks_refused() != 0) {
    kill_at_us_ = std::min(kill_at_us_, now + kBombGraceUs);
  } else if (now + kLookForBombUs < kill_at_us_) {
    look_at_us_ = now + kLookForBombUs;
  }
}

// Signal 15 alone would leave the step's user guessing who sent it.
void Shepherd::blame_time_limit(Outcome& outcome) const {
  if (stopping_ && end_cause_ == EndCause::kTimeLimit && (outcome.signal != 0 || outcome.exit_code != 0)) {
    outcome.cause = EndCause::kTimeLimit;
    outcome.detail = "job " + launch_->name.substr(0, launch_->name.find('.')) + " reached its time limit of " +
                     format_duration(Duration::from_us(launch_->time_limit_us));
  }
}

// A task that the kernel killed for memory, one for each kill. A kill of a process below a task may so be told of another
// task that was killed.
void Shepherd::blame_memory(Outcome& outcome) {
  if (outcome.cause != EndCause::kSignalled || outcome.signal != SIGKILL) {
    return;
  }
  const std::uint64_t kills = enforcer_->oom_kills();
  if (kills > oom_kills_seen_) {
    ++oom_kills_seen_;
    outcome.cause = EndCause::kOutOfMemory;
    outcome.detail = enforcer_->explain_oom(enforcer_->usage());
  }
}

// What is known when nothing is left. A kill for memory decides, also when the script took no notice of it; an ordered
// end keeps its cause, and the controller sees the usage.
void Shepherd::take_usage() {
  if (enforcer_ == nullptr || !marked_) {
    return;
  }
  outcome_.usage = enforcer_->usage();
  const bool by_itself = outcome_.cause == EndCause::kExited || outcome_.cause == EndCause::kSignalled;
  if (outcome_.usage.oom_kills != 0 && (by_itself || outcome_.detail.empty())) {
    outcome_.cause = by_itself ? EndCause::kOutOfMemory : outcome_.cause;
    outcome_.detail = enforcer_->explain_oom(outcome_.usage);
    return;
  }
  const bool badly = outcome_.cause == EndCause::kSignalled || outcome_.exit_code != 0;
  if (const std::string reached = enforcer_->explain_processes(); by_itself && badly && !reached.empty()) {
    const std::string how = outcome_.cause == EndCause::kSignalled ? "signal " + std::to_string(outcome_.signal)
                                                                   : "exit code " + std::to_string(outcome_.exit_code);
    outcome_.detail = (outcome_.detail.empty() ? how : outcome_.detail) + "; " + reached;
  }
}

void Shepherd::settle() {
  for (auto it = steps_.begin(); it != steps_.end();) {
    settle_step(it->first, it->second);
    if (!it->second.ended || !it->second.forgotten) {
      ++it;
      continue;
    }
    for (const std::uint64_t index : it->second.tasks) {
      tasks_.erase(index);
    }
    it = steps_.erase(it);
  }
  if (!ending_ && !decided_) {
    look_for_noded();
    if (!ending_) {
      return;
    }
  }
  if (has_children()) {
    reap();
    if (has_children()) {
      return;
    }
  }
  finish();
}

// An attempt without a script waits for noded's next order. When none is connected and the record is gone, none will
// ever come.
void Shepherd::look_for_noded() {
  if (script_running_ || (connection_ >= 0 && attached_) || again_at_us_ != 0) {
    return;
  }
  if (is_forgotten()) {
    stopping_ = true;
    end_detail_ = "the node's spool was removed";
    begin_end(EndCause::kCancelled, launch_->kill_grace_us);
    return;
  }
  again_at_us_ = now_us() + kAgainUs;
  arm_timer();
}

// No process is left. May be called again until done_.
void Shepherd::finish() {
  if (marked_ && !std::exchange(epilog_began_, true)) {
    kill_at_us_ = 0;  // what is killed from now on is the epilog's
    look_at_us_ = 0;
    settle_outcome();
    if (start_hook(true) && has_children()) {
      return;
    }
  }
  if (!std::exchange(finished_, true)) {
    conclude();
  }
  if (!std::exchange(end_sent_, true)) {
    send(EndedFrame{outcome_});
  }
  if (!write_outcome() && outcome_is_wanted()) {
    // The disk is full. That a noded was sent the outcome says nothing: it may be killed before it reads it.
    again_at_us_ = now_us() + kAgainUs;
    arm_timer();
    return;
  }
  done_ = true;
  if (connection_ < 0) {  // the last one without a noded cleans up; fails when others are there
    if (!launch_->cgroup_parent.empty()) {
      rmdir(launch_->cgroup_parent.c_str());
    }
    for (const Control& control : launch_->controls) {
      rmdir(control.group.c_str());
    }
  }
  pollfd poller{connection_, POLLOUT, 0};
  const std::int64_t until = now_us() + kFinalFlushMs * 1000;
  for (flush(); connection_ >= 0 && attached_ && !out_.empty() && now_us() < until; flush()) {
    poll(&poller, 1, 100);
  }
}

void Shepherd::conclude() {
  // What the steps' pipes hold is still theirs.
  for (auto& [number, step] : steps_) {
    if (step.ended) {
      continue;
    }
    for (const std::uint64_t index : step.tasks) {
      Task& task = tasks_[index];
      for (unsigned stream = 0; stream < 2; ++stream) {
        while (task.outputs[stream].fd >= 0) {
          char buffer[kOutputChunkBytes];
          const ssize_t n = read(task.outputs[stream].fd, buffer, sizeof(buffer));
          if (n > 0 && out_bytes_ < kOutFinalBytesMax) {
            send_output(task, step, stream, std::string(buffer, static_cast<std::size_t>(n)), false);
          } else {
            close_fd(task.outputs[stream].fd);
            send_output(task, step, stream, {}, true);
          }
        }
      }
      settle_task(task);
    }
    step.ended = true;
    if (!step.muted) {
      send(StepEndedFrame{number});
    }
  }
  limit_at_us_ = 0;
  kill_at_us_ = 0;
  look_at_us_ = 0;
  settle_outcome();
  // A group just emptied may be busy for a moment.
  for (int i = 0; i < 50 && !remove_groups(); ++i) {
    poll(nullptr, 0, 2);
  }
}

// How the attempt ended, and what it used, is known: nothing of it is left. An epilog takes its time after that.
void Shepherd::settle_outcome() {
  if (std::exchange(settled_, true)) {
    return;
  }
  if (stopping_ && !decided_) {
    outcome_.cause = end_cause_;
    outcome_.detail = end_detail_;
  }
  decided_ = true;
  take_usage();
  if (namespace_ != nullptr) {
    namespace_->remove();
  }
  if (outcome_.ran.us == 0) {
    outcome_.ran = Duration::from_us(now_us() - launched_us_);
  }
}

bool Shepherd::remove_groups() {
  const bool limits = enforcer_ == nullptr || enforcer_->remove();
  return tree_->remove() && limits;
}

// ---------------------------------------------------------------- help

void Shepherd::add_to_epoll(int fd, Token token, std::uint64_t index, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = (static_cast<std::uint64_t>(token) << 56U) | index;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

void Shepherd::change_epoll(int fd, Token token, std::uint64_t index, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = (static_cast<std::uint64_t>(token) << 56U) | index;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

void Shepherd::close_fd(int& fd) {
  if (fd >= 0) {
    // Explicitly: a child before its exec may hold a copy, which would keep the watch alive.
    epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
    close(fd);
    fd = -1;
  }
}

void Shepherd::arm_timer() {
  std::int64_t at = suspended_at_us_ == 0 ? limit_at_us_ : 0;
  const auto sooner = [&](std::int64_t candidate) {
    if (candidate != 0 && (at == 0 || candidate < at)) {
      at = candidate;
    }
  };
  sooner(suspended_at_us_ == 0 ? warn_at_us_ : 0);
  sooner(stop_at_us_);
  sooner(kill_at_us_);
  sooner(look_at_us_);
  sooner(again_at_us_);
  sooner(hook_.deadline_us);
  for (const auto& [number, step] : steps_) {
    sooner(step.kill_at_us);
  }
  if (at == timer_at_us_) {
    return;
  }
  timer_at_us_ = at;
  if (timer_ < 0) {
    timer_ = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    add_to_epoll(timer_, Token::kTimer, 0, EPOLLIN);
  }
  itimerspec spec{};
  if (at != 0) {
    spec.it_value.tv_sec = at / 1'000'000;
    spec.it_value.tv_nsec = (at % 1'000'000) * 1000 + 1;
  }
  timerfd_settime(timer_, TFD_TIMER_ABSTIME, &spec, nullptr);
}

}  // namespace muster::noded
