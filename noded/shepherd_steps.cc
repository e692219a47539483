// The steps of an attempt: their tasks, their input and output, and what a restarted noded needs to take them up.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "noded/shepherd.h"
#include "noded/shepherd_util.h"

namespace muster::noded {
namespace {

// What a step's tasks leave behind when the last of them has ended gets so long between TERM and KILL.
constexpr std::int64_t kLeftoverGraceUs = 2'000'000;

std::string with_rank(std::string path, std::uint32_t rank) {
  const std::string number = std::to_string(rank);
  for (auto at = path.find("%t"); at != std::string::npos; at = path.find("%t", at + number.size())) {
    path.replace(at, 2, number);
  }
  return path;
}

void merge_environment(std::vector<std::string>& environment, const std::vector<std::string>& changes) {
  for (const std::string& change : changes) {
    const std::string_view name = std::string_view(change).substr(0, change.find('=') + 1);
    auto it = std::find_if(environment.begin(), environment.end(),
                           [&](const std::string& variable) { return variable.starts_with(name); });
    if (it == environment.end()) {
      environment.push_back(change);
    } else {
      *it = change;
    }
  }
}

}  // namespace

void Shepherd::take_programs(const StepProgramsFrame& frame) {
  if (steps_.contains(frame.step) || frame.programs.size() > kStepTasksMax) {
    return;
  }
  programs_.clear();  // the start of the step that these are of comes next
  for (const StepProgramsFrame::Program& program : frame.programs) {
    programs_[{frame.step, program.rank}] = program.argv;
  }
}

void Shepherd::start_step(const StepStartFrame& frame) {
  if (steps_.contains(frame.step)) {
    return;  // asked again by a restarted noded that cannot know: the StepResumeFrame that follows tells it all
  }
  if (ending_ || decided_ || enforcer_ == nullptr || frame.tasks.size() > kStepTasksMax || frame.argv.empty()) {
    const char* why = ending_ || decided_    ? "the job is ending"
                      : enforcer_ == nullptr ? "the job has not begun: its prolog runs"
                                             : "the step cannot be started (tasks or arguments)";
    for (const StepTask& task : frame.tasks) {
      send(StepTaskEndedFrame{
          frame.step, task.rank,
          Outcome{.cause = EndCause::kLaunchFailed, .exit_code = 126, .signal = 0, .detail = why, .ran = {}}});
    }
    send(StepEndedFrame{frame.step});
    return;
  }
  Step& step = steps_[frame.step];
  step.window = frame.credit_bytes;
  step.credit = static_cast<std::int64_t>(std::min<std::uint64_t>(frame.credit_bytes, INT64_MAX));
  for (const StepTask& task : frame.tasks) {
    start_step_task(frame, task, step);
  }
  programs_.clear();
  if (suspended_at_us_ != 0) {
    tree_->freeze();  // where no cgroup holds them
  }
}

void Shepherd::start_step_task(const StepStartFrame& frame, const StepTask& wanted, Step& step) {
  const std::uint64_t number = next_task_++;
  step.tasks.push_back(number);
  Task& task = tasks_[number];
  task.step = frame.step;
  task.rank = wanted.rank;
  TaskSpec& spec = task.spec;
  spec = base_spec();
  spec.argv = frame.argv;
  if (const auto own = programs_.find({frame.step, wanted.rank}); own != programs_.end() && !own->second.empty()) {
    spec.argv = own->second;
  }
  spec.search_path = true;
  spec.environment = frame.environment;
  merge_environment(spec.environment, wanted.environment);
  spec.work_dir = frame.work_dir;
  spec.umask = static_cast<mode_t>(frame.umask);
  spec.append = frame.append;
  if (!wanted.cpus.empty()) {
    spec.cpus = wanted.cpus;
  }
  const bool has_input =
      frame.stdin_mode == StdinMode::kAll || (frame.stdin_mode == StdinMode::kRank && frame.stdin_rank == wanted.rank);
  bool pipes_ok = true;
  if (has_input && !frame.stdin_path.empty()) {
    spec.in.path = with_rank(frame.stdin_path, wanted.rank);
  } else if (has_input) {
    int ends[2];
    pipes_ok = pipe2(ends, O_CLOEXEC) == 0;
    if (pipes_ok) {
      spec.in.fd = ends[0];
      task.in = ends[1];
      fcntl(task.in, F_SETFL, O_NONBLOCK);
    }
  }
  TaskStream* const streams[2] = {&spec.out, &spec.err};
  const std::string* const paths[2] = {&frame.stdout_path, &frame.stderr_path};
  spec.err_with_out = !frame.stdout_path.empty() && frame.stderr_path.empty();
  for (unsigned i = 0; i < 2 && pipes_ok; ++i) {
    if (!paths[i]->empty()) {
      streams[i]->path = with_rank(*paths[i], wanted.rank);
    } else if (i == 0 || !spec.err_with_out) {
      int ends[2];
      pipes_ok = pipe2(ends, O_CLOEXEC) == 0;
      if (pipes_ok) {
        task.outputs[i].fd = ends[0];
        streams[i]->fd = ends[1];
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
      }
    }
  }
  spec.cgroup_fd = tree_->open_group(frame.step);
  auto started = pipes_ok
                     ? start_task(spec)
                     : Result<StartedTask>(make_error(ErrorCode::kIo, "cannot make a pipe: " + text_of_errno(errno)));
  close_fd(spec.cgroup_fd);
  close_fd(spec.in.fd);
  close_fd(spec.out.fd);
  close_fd(spec.err.fd);
  if (!started.ok()) {
    task.exited = true;
    task.failed = true;
    task.outcome = Outcome{
        .cause = EndCause::kLaunchFailed, .exit_code = 126, .signal = 0, .detail = started.error().message, .ran = {}};
    return;
  }
  task.pid = started->pid;
  task.status_fd = started->status_fd;
  add_to_epoll(task.status_fd, Token::kStatus, number, EPOLLIN);
  for (unsigned i = 0; i < 2; ++i) {
    if (task.outputs[i].fd >= 0) {
      task.outputs[i].watched = true;
      add_to_epoll(task.outputs[i].fd, i == 0 ? Token::kOut : Token::kErr, number, EPOLLIN);
    }
  }
}

void Shepherd::on_input(const StepInputFrame& frame) {
  auto found = steps_.find(frame.step);
  if (found == steps_.end()) {
    return;
  }
  for (const std::uint64_t number : found->second.tasks) {
    Task& task = tasks_[number];
    if (frame.rank != kAllRanks && frame.rank != task.rank) {
      continue;
    }
    if (task.in < 0) {
      send_taken(task, frame.data.size(), true);
      continue;
    }
    if (task.in_waiting.size() + frame.data.size() <= kInputWaitingBytesMax) {
      task.in_waiting += frame.data;
    }
    task.in_eof = task.in_eof || frame.eof;
    write_input(number);
  }
}

void Shepherd::on_step_signal(const StepSignalFrame& frame) {
  auto found = steps_.find(frame.step);
  if (found == steps_.end()) {
    return;
  }
  Step& step = found->second;
  if (frame.signal == 0) {
    end_step(frame.step, step);
    return;
  }
  if (frame.signal == SIGCONT && gives_cpus_) {
    return;
  }
  if (goes_to_everything(frame.signal) && frame.rank == kAllRanks) {
    if (frame.signal == SIGKILL) {
      step.ending = true;
      tree_->kill_step(frame.step, living_tasks(step));
      step.kill_at_us = now_us() + kKillAgainUs;
      arm_timer();
    } else {
      tree_->signal_step(frame.step, living_tasks(step), frame.signal);
    }
    return;
  }
  for (const std::uint64_t number : step.tasks) {
    const Task& task = tasks_[number];
    if (!task.exited && task.pid > 0 && (frame.rank == kAllRanks || frame.rank == task.rank)) {
      kill(task.pid, frame.signal);
    }
  }
}

std::vector<pid_t> Shepherd::living_tasks(const Step& step) const {
  std::vector<pid_t> pids;
  for (const std::uint64_t number : step.tasks) {
    const Task& task = tasks_.at(number);
    if (!task.exited && task.pid > 0) {
      pids.push_back(task.pid);
    }
  }
  return pids;
}

void Shepherd::end_step(std::uint32_t number, Step& step) {
  if (step.ending || step.ended) {
    return;
  }
  step.ending = true;
  if (gives_cpus_) {
    tree_->kill_step(number, living_tasks(step));
    step.kill_at_us = now_us() + kKillAgainUs;
  } else {
    tree_->signal_step(number, living_tasks(step), SIGTERM);
    tree_->signal_step(number, living_tasks(step), SIGCONT);
    step.kill_at_us = now_us() + launch_->kill_grace_us;
  }
  arm_timer();
}

void Shepherd::on_credit(const StepCreditFrame& frame) {
  auto found = steps_.find(frame.step);
  if (found == steps_.end() || found->second.muted) {
    return;
  }
  Step& step = found->second;
  // More than was sent cannot have been taken; it would only make the counters run over.
  const std::uint64_t bytes = std::min<std::uint64_t>(frame.bytes, kFrameBytesMax);
  step.credit += static_cast<std::int64_t>(bytes);
  step.credited += bytes;
  while (!step.kept.empty() && step.credited >= step.kept.front().data.size() + kOutputFrameCost) {
    step.credited -= step.kept.front().data.size() + kOutputFrameCost;
    step.kept.pop_front();
  }
  watch_outputs();
}

void Shepherd::on_resume(const StepResumeFrame& frame) {
  auto found = steps_.find(frame.step);
  if (found == steps_.end()) {
    send(StepEndedFrame{frame.step});
    return;
  }
  Step& step = found->second;
  step.muted = false;
  step.credited = 0;
  step.credit = static_cast<std::int64_t>(std::min<std::uint64_t>(step.window, INT64_MAX));
  std::deque<StepOutputFrame> kept;
  for (StepOutputFrame& output : step.kept) {
    std::uint64_t received = 0;
    for (const StepReceived& r : frame.received) {
      received = r.rank == output.rank && r.stream == output.stream ? r.bytes : received;
    }
    // An end without data is said again in any case: nobody can tell that it was heard.
    if (!output.eof && output.offset + output.data.size() <= received) {
      continue;
    }
    step.credit -= static_cast<std::int64_t>(output.data.size() + kOutputFrameCost);
    send(output);
    kept.push_back(std::move(output));
  }
  step.kept = std::move(kept);
  for (const std::uint64_t number : step.tasks) {
    Task& task = tasks_[number];
    if (task.in_taken_muted > 0) {
      send_taken(task, std::exchange(task.in_taken_muted, 0), task.in < 0);
    }
    if (task.reported) {
      send(StepTaskEndedFrame{task.step, task.rank, task.outcome});
    }
  }
  if (step.ended) {
    send(StepEndedFrame{frame.step});
  }
  watch_outputs();
}

void Shepherd::on_forget(const StepForgetFrame& frame) {
  auto found = steps_.find(frame.step);
  if (found == steps_.end()) {
    return;
  }
  Step& step = found->second;
  step.forgotten = true;
  step.muted = true;
  step.credit = INT64_MAX / 2;  // nobody reads it any more: let the tasks write to their end
  step.kept.clear();
  end_step(frame.step, step);
  watch_outputs();
}

void Shepherd::on_output(std::uint64_t index, unsigned stream) {
  auto found = tasks_.find(index);
  if (found == tasks_.end() || found->second.outputs[stream].fd < 0) {
    return;
  }
  Task& task = found->second;
  Step& step = steps_[task.step];
  if (step.credit <= 0 || congested()) {
    watch_outputs();
    return;
  }
  char buffer[kOutputChunkBytes];
  const auto want = std::min<std::uint64_t>(static_cast<std::uint64_t>(step.credit), sizeof(buffer));
  const ssize_t n = read(task.outputs[stream].fd, buffer, want);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  if (n <= 0) {
    close_fd(task.outputs[stream].fd);
    send_output(task, step, stream, {}, true);
    return;
  }
  send_output(task, step, stream, std::string(buffer, static_cast<std::size_t>(n)), false);
  if (step.credit <= 0 || congested()) {
    watch_outputs();
  }
}

void Shepherd::send_output(Task& task, Step& step, unsigned stream, std::string data, bool eof) {
  if (step.forgotten) {
    return;
  }
  StepOutputFrame frame{task.step, task.rank, stream + 1, std::move(data), eof, task.outputs[stream].offset};
  task.outputs[stream].offset += frame.data.size();
  step.credit -= static_cast<std::int64_t>(frame.data.size() + kOutputFrameCost);
  if (!step.muted) {
    send(frame);
  }
  step.kept.push_back(std::move(frame));
}

void Shepherd::send_taken(Task& task, std::uint64_t bytes, bool closed) {
  if (steps_[task.step].muted) {
    task.in_taken_muted += bytes;
    return;
  }
  send(StepInputTakenFrame{task.step, task.rank, bytes, closed});
}

void Shepherd::send_bound(const Task& task, TaskPlace place) {
  const auto step = steps_.find(task.step);
  const bool heard = task.step == ProcessTree::kNoStep || (step != steps_.end() && !step->second.muted);
  if (noded_version_ >= kBoundProtocolVersion && heard) {
    send(StepTaskBoundFrame{.step = task.step,
                            .rank = task.rank,
                            .cpus = std::move(place.cpus),
                            .memory = std::move(place.memory),
                            .memory_policy = place.memory_policy,
                            .group = static_cast<std::uint8_t>(place.group)});
  }
}

void Shepherd::write_input(std::uint64_t index) {
  auto found = tasks_.find(index);
  if (found == tasks_.end() || found->second.in < 0) {
    return;
  }
  Task& task = found->second;
  std::uint64_t taken = 0;
  bool broken = false;
  while (taken < task.in_waiting.size()) {
    const ssize_t n = write(task.in, task.in_waiting.data() + taken, task.in_waiting.size() - taken);
    if (n > 0) {
      taken += static_cast<std::uint64_t>(n);
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else {
      broken = n < 0 && errno != EAGAIN;
      break;
    }
  }
  task.in_waiting.erase(0, taken);
  if (taken > 0) {
    send_taken(task, taken, false);
  }
  if (broken || (task.in_eof && task.in_waiting.empty())) {
    close_input(task);
    return;
  }
  const bool want = !task.in_waiting.empty();
  if (want != task.in_watched) {
    task.in_watched = want;
    if (want) {
      add_to_epoll(task.in, Token::kIn, index, EPOLLOUT);
    } else {
      epoll_ctl(epoll_, EPOLL_CTL_DEL, task.in, nullptr);
    }
  }
}

void Shepherd::close_input(Task& task) {
  if (task.in < 0) {
    return;
  }
  close_fd(task.in);
  send_taken(task, task.in_waiting.size(), true);
  task.in_waiting.clear();
}

void Shepherd::watch_outputs() {
  for (auto& [number, task] : tasks_) {
    if (task.step == ProcessTree::kNoStep) {
      continue;
    }
    const bool want = steps_[task.step].credit > 0 && !congested();
    for (unsigned stream = 0; stream < 2; ++stream) {
      Output& output = task.outputs[stream];
      if (output.fd < 0 || output.watched == want) {
        continue;
      }
      output.watched = want;
      if (want) {
        add_to_epoll(output.fd, stream == 0 ? Token::kOut : Token::kErr, number, EPOLLIN);
      } else {
        epoll_ctl(epoll_, EPOLL_CTL_DEL, output.fd, nullptr);
      }
    }
  }
}

void Shepherd::settle_task(Task& task) {
  if (task.reported || task.step == ProcessTree::kNoStep || !task.exited || task.outputs[0].fd >= 0 ||
      task.outputs[1].fd >= 0) {
    return;
  }
  task.reported = true;
  if (!steps_[task.step].muted) {
    send(StepTaskEndedFrame{task.step, task.rank, task.outcome});
  }
}

void Shepherd::settle_step(std::uint32_t number, Step& step) {
  if (step.ended) {
    return;
  }
  bool all_exited = true;
  bool all_reported = true;
  for (const std::uint64_t index : step.tasks) {
    Task& task = tasks_[index];
    settle_task(task);
    all_exited = all_exited && task.exited;
    all_reported = all_reported && task.reported;
  }
  if (!all_exited) {
    return;
  }
  // Looking may mean to read all of /proc: only when a process has ended since the last time.
  if (!step.empty && step.looked_at != reaped_) {
    step.looked_at = reaped_;
    step.empty = tree_->step_is_empty(number);
  }
  if (!step.empty) {
    if (!step.ending) {
      step.ending = true;
      tree_->signal_step(number, living_tasks(step), SIGTERM);
      tree_->signal_step(number, living_tasks(step), SIGCONT);
      step.kill_at_us = now_us() + std::min(kLeftoverGraceUs, launch_->kill_grace_us);
      arm_timer();
    }
    return;
  }
  if (!all_reported) {
    // Its processes are gone, so the pipes end; unless a process outside the step has inherited one. That one's
    // output does not belong to the step.
    step.kill_at_us = 0;
    return;
  }
  step.ended = true;
  step.kill_at_us = 0;
  if (!step.muted) {
    send(StepEndedFrame{number});
  }
}

}  // namespace muster::noded
