#include "core/engine/running.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

#include "core/engine/dependency.h"
#include "core/engine/failures.h"
#include "core/engine/index.h"
#include "core/sched/preempt.h"

namespace muster::engine {
namespace {

constexpr std::int32_t kTermSignal = 15;  // SIGTERM on Linux; the core includes no header of the system's

const Active* active_of(const Job& job) {
  return std::get_if<Active>(&job.phase);
}

std::string by(const std::string& user) {
  return user.empty() ? "" : ": by " + user;
}

// A change of an active job that moves the time at which it is believed to end.
template <typename Change>
void move_end(State& state, Job& job, Change change) {
  auto& active = std::get<Active>(job.phase);
  std::vector<const NodeShare*> held;
  const Instant before = sched::believed_end(active);
  for (const AttemptOnNode& on : active.nodes) {
    if (on.phase != NodePhase::kEnded) {
      held.push_back(&on.share);
      release_parts(state, active, on);
      state.accounts.give_back(job.id, *job.spec, on.share, before, state.now);
    }
  }
  state.accounts.remove_running(job.id, *job.spec, before);
  state.licenses.release(job.spec->licenses, before);
  unindex_room(state, job, active);
  change(active);
  index_room(state, job, active);
  const Instant after = sched::believed_end(active);
  for (const AttemptOnNode& on : active.nodes) {
    if (on.phase != NodePhase::kEnded) {
      hold_parts(state, active, on);
    }
  }
  state.accounts.add_running(job.id, *job.spec, held, after, state.now);
  state.licenses.hold(job.spec->licenses, after);
}

std::vector<RequeuedTask>::const_iterator requeued_at(const Job& array, std::uint64_t position) {
  return std::lower_bound(array.requeued.begin(), array.requeued.end(), position,
                          [](const RequeuedTask& task, std::uint64_t p) { return task.position < p; });
}

// Of the positions of an array, those that wait stand in ranges that do not touch.
void insert_position(Job& array, std::uint64_t position) {
  auto it = std::lower_bound(array.waiting.begin(), array.waiting.end(), position,
                             [](const PositionRange& r, std::uint64_t p) { return r.end < p; });
  if (it != array.waiting.end() && it->end == position) {
    ++it->end;
    const auto next = std::next(it);
    if (next != array.waiting.end() && next->begin == it->end) {
      it->end = next->end;
      array.waiting.erase(next);
    }
  } else if (it != array.waiting.end() && it->begin == position + 1) {
    it->begin = position;
  } else {
    array.waiting.insert(it, PositionRange{position, position + 1});
  }
}

}  // namespace

const RequeuedTask* find_requeued(const Job& array, std::uint64_t position) {
  const auto it = requeued_at(array, position);
  return it == array.requeued.end() || it->position != position ? nullptr : &*it;
}

Attempt next_attempt(const Job& job, std::uint64_t position) {
  if (!job.is_array_record) {
    return Attempt{job.attempt.value + 1};
  }
  const RequeuedTask* before = find_requeued(job, position);
  return Attempt{before == nullptr ? 1 : before->attempt.value + 1};
}

// ---------------------------------------------------------------- what decide() asks

RunningOrder requeue_order(const Job& job, const Caller& caller) {
  const Active* active = active_of(job);
  if (active == nullptr) {
    return {{}, "is pending: there is nothing to requeue"};
  }
  if (job.spec->kind != JobKind::kBatch) {
    return {{},
            job.spec->kind == JobKind::kRun
                ? "is a job of `muster run`, which ends with its command: only batch jobs can be requeued"
                : "is a job of `muster alloc`, which lives for its client: only batch jobs can be requeued"};
  }
  if (job.spec->requeue_given && !job.spec->requeue) {
    return {{}, "was submitted with --no-requeue: cancel it and submit it again"};
  }
  switch (active->stop) {
    case StopCause::kRequeued:
      return {};
    case StopCause::kNone:
    case StopCause::kPreempted:
      break;
    default:
      return {{}, "is ending: submit it again"};
  }
  StopTerms terms;
  terms.room_for = active->terms.room_for;
  terms.requeue = true;
  return {
      StopRequested{
          .key = {job.id, job.attempt}, .cause = StopCause::kRequeued, .signal = 0, .by = caller.user, .terms = terms},
      nullptr};
}

RunningOrder suspend_order(const Job& job, const Caller& caller) {
  const Active* active = active_of(job);
  if (active == nullptr) {
    return {{}, "is pending: only running jobs can be suspended, hold it with muster hold"};
  }
  if (active->stop != StopCause::kNone) {
    return {{}, "is ending: only running jobs can be suspended"};
  }
  if (active->suspension.room_for != JobId{}) {
    return {{}, "is preempted and goes on by itself: cancel it, or suspend it when it runs again"};
  }
  if (active->suspension.since.is_set()) {
    return {};
  }
  return {AttemptSuspended{{job.id, job.attempt}, caller.user}, nullptr};
}

namespace {

// Whether an attempt that stands still for another job can have its cores back; takes them from the draft. Nodes that
// have not said yet that it stands still have given nothing away.
bool take_cores_back(const Active& active, sched::Draft& draft) {
  for (const AttemptOnNode& on : active.nodes) {
    const NodeIndex node = on.share.node;
    if (on.stands_still && (!draft.node(node.value).connected || !draft.has_cores(node, on.share.cores))) {
      return false;
    }
  }
  for (const AttemptOnNode& on : active.nodes) {
    if (on.stands_still) {
      draft.take_cores(on.share.node, on.share.cores);
    }
  }
  return true;
}

}  // namespace

RunningOrder continue_order(const Job& job, const Caller& caller, sched::Draft& draft) {
  const Active* active = active_of(job);
  if (active == nullptr || !active->suspension.since.is_set() || active->stop != StopCause::kNone) {
    return {{}, "is not suspended: there is nothing to continue"};
  }
  // Who goes on is left alone for a while: that is not for its user to earn.
  if (active->suspension.room_for != JobId{} && !caller.admin) {
    return {{}, "is preempted and goes on by itself when its cores are free: only an administrator may let it go on"};
  }
  if (!take_cores_back(*active, draft)) {
    return {{}, "is preempted and its cores are not free: it goes on by itself when they are"};
  }
  return {AttemptResumed{{job.id, job.attempt}, caller.user}, nullptr};
}

RunningOrder go_on_order(const State& state, AttemptKey key, sched::Draft& draft) {
  const Job* job = find_job(state, key.job);
  const Active* active = job == nullptr || job->attempt != key.attempt ? nullptr : active_of(*job);
  if (active == nullptr || active->stop != StopCause::kNone || active->suspension.room_for == JobId{}) {
    return {{}, "does not stand still any more"};
  }
  if (!take_cores_back(*active, draft)) {
    return {{}, "cannot go on: its cores are not free any more"};
  }
  return {AttemptResumed{key, {}}, nullptr};
}

RunningOrder preempt_order(const State& state, const sched::Policy& policy, const Preemption& preemption, Instant now) {
  const Job* array = find_array(state, preemption.job);
  const Job* waiting = array != nullptr ? array : find_job(state, preemption.job);
  if (waiting == nullptr || waiting->is_active() || waiting->held || is_dependent(*waiting) ||
      waiting->spec->begin > now || (array != nullptr && startable(*array).empty())) {
    return {{}, "does not wait any more for the place that the plan would make for it"};
  }
  const Job* victim = find_job(state, preemption.victim.job);
  if (victim == nullptr || victim->attempt != preemption.victim.attempt || !victim->is_active()) {
    return {{}, "has ended before it could be preempted"};
  }
  const auto& active = std::get<Active>(victim->phase);
  if (active.stop != StopCause::kNone) {
    return {{}, "is ending already and need not be preempted"};
  }
  const sched::GivingWay way =
      sched::giving_way(policy, sched::preempt_rules(&state.accounts), *waiting->spec, *victim->spec);
  if (way.mode == sched::PreemptMode::kOff) {
    return {{}, "may not be preempted by the job that the plan would make room for"};
  }
  const sched::QueuePolicy& queue = *policy.find_queue(victim->spec->queue);
  if (now < sched::exempt_until(active, queue)) {
    return {{}, "has not run for the preempt_exempt of its queue yet"};
  }
  if (way.mode == sched::PreemptMode::kSuspend) {
    if (!sched::can_stand_still(active)) {
      return {{}, "cannot be suspended to make room: it has GPUs, or stands still already"};
    }
    return {AttemptSuspended{.key = preemption.victim, .by = {}, .room_for = preemption.job}, nullptr};
  }
  StopTerms terms;
  terms.room_for = preemption.job;
  terms.requeue =
      way.mode != sched::PreemptMode::kCancel && victim->spec->requeue && victim->spec->kind == JobKind::kBatch;
  terms.notice = way.grace;
  if (way.mode == sched::PreemptMode::kCheckpoint && victim->spec->warn_signal != 0) {
    terms.notice_signal = victim->spec->warn_signal;
  } else if (way.grace > Duration{} || way.mode == sched::PreemptMode::kCheckpoint) {
    terms.notice_signal = kTermSignal;
  }
  return {
      StopRequested{.key = preemption.victim, .cause = StopCause::kPreempted, .signal = 0, .by = {}, .terms = terms},
      nullptr};
}

bool ended_by_stop(const Active& active, const Outcome& outcome) {
  if (outcome.cause == EndCause::kCancelled) {
    return true;
  }
  const bool gave_up =
      outcome.cause == EndCause::kSignalled || (outcome.cause == EndCause::kExited && outcome.exit_code != 0);
  return active.terms.notice_signal != 0 && gave_up;
}

std::string preempted_reason(const Active& active) {
  return "Preempted: to make room for job " + std::to_string(active.terms.room_for.value);
}

namespace {

// A node failed it before anything of it ran there. Where a prolog may do so the first node begins last; what another
// node's full spool stopped may have begun elsewhere, and begins again only where the user lets it.
std::optional<JobRequeued> requeue_after_fault(const State& state, const Job& job, const Active& active) {
  if (active.stop == StopCause::kCancelled || active.stop == StopCause::kDeadline) {
    return std::nullopt;  // it was to end, and it did
  }
  const bool begins_again = active.nodes.size() == 1 || (job.spec->kind == JobKind::kBatch && job.spec->requeue);
  for (const AttemptOnNode& on : active.nodes) {
    const NodeFault fault = on.outcome ? on.outcome->fault : NodeFault::kNone;
    if (fault == NodeFault::kProlog || (fault == NodeFault::kSpool && begins_again)) {
      return JobRequeued{.job = job.id,
                         .state = JobState::kNodeFailed,
                         .reason = "NodeFail: " + state.nodes[on.share.node.value].name + ": " + on.outcome->detail,
                         .by_node = true};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<JobRequeued> requeue_at_end(const State& state, const Job& job, const Active& active) {
  if (auto requeued = requeue_after_fault(state, job, active)) {
    return requeued;
  }
  if (!active.terms.requeue || (active.stop != StopCause::kRequeued && active.stop != StopCause::kPreempted)) {
    return std::nullopt;
  }
  const Outcome& outcome = *active.nodes.front().outcome;
  const bool lost = outcome.cause == EndCause::kNodeLost || outcome.cause == EndCause::kShepherdDied;
  if (!lost && !ended_by_stop(active, outcome)) {
    return std::nullopt;
  }
  if (active.stop == StopCause::kRequeued) {
    return JobRequeued{.job = job.id, .state = JobState::kCancelled, .reason = "Requeued" + by(active.stop_by)};
  }
  return JobRequeued{.job = job.id, .state = JobState::kPreempted, .reason = preempted_reason(active)};
}

// ---------------------------------------------------------------- what evolve() does

namespace {

// Far more nodes than fail one job; what is older is another story.
constexpr std::size_t kAvoidMax = 64;

// From now on the job goes to these nodes last. Of an array: all its tasks that wait.
void avoid(Job& job, const std::vector<std::string>& nodes) {
  auto spec = std::make_shared<JobSpec>(*job.spec);
  for (const std::string& node : nodes) {
    std::erase(spec->avoid, node);
    spec->avoid.push_back(node);
  }
  if (spec->avoid.size() > kAvoidMax) {
    spec->avoid.erase(spec->avoid.begin(), spec->avoid.end() - static_cast<std::ptrdiff_t>(kAvoidMax));
  }
  if (spec->avoid != job.spec->avoid) {
    job.spec = std::move(spec);
  }
}

}  // namespace

void evolve_requeued(State& state, const JobRequeued& fact, Instant at) {
  const auto it = state.jobs.find(fact.job);
  if (it == state.jobs.end() || !it->second.is_active()) {
    return;
  }
  Job& job = it->second;
  const std::vector<std::string> suspects = suspects_of(state, std::get<Active>(job.phase));
  if (job.array == JobId{}) {
    unindex_job(state, job);
    job.phase = Pending{};
    avoid(job, suspects);
    job.forget_promise();
    job.eligible_time = std::max(at, job.spec->begin);
    job.last_end = fact.reason;
    job.node_faults = fact.by_node ? job.node_faults + 1 : 0;
    index_job(state, job);
    return;
  }
  const auto found = state.arrays.find(job.array);
  if (found == state.arrays.end()) {
    return;
  }
  Job& array = found->second;
  unindex_job(state, job);
  unindex_job(state, array);
  avoid(array, suspects);
  insert_position(array, job.array_position);
  array.requeued.insert(requeued_at(array, job.array_position),
                        RequeuedTask{.position = job.array_position,
                                     .attempt = job.attempt,
                                     .last_end = fact.reason,
                                     .node_faults = fact.by_node ? job.node_faults + 1 : 0});
  --array.array_running;
  index_job(state, array);
  state.jobs.erase(it);
}

void evolve_stop(State& state, Job& job, const StopRequested& fact, Instant at) {
  move_end(state, job, [&](Active& active) {
    active.stop = fact.cause;
    active.stop_by = fact.by;
    active.stop_time = at;
    active.terms = fact.terms;
  });
}

void evolve_suspended(State& state, Job& job, JobId room_for, Instant at) {
  move_end(state, job, [&](Active& active) {
    Suspension& s = active.suspension;
    if (!s.since.is_set()) {
      ++s.orders;
      s.since = at;
      s.room_for = room_for;
    }
  });
}

void evolve_stood_still(State& state, Job& job, NodeIndex node) {
  auto& active = std::get<Active>(job.phase);
  if (active.suspension.room_for == JobId{}) {
    return;
  }
  for (AttemptOnNode& on : active.nodes) {
    if (on.share.node == node && on.phase != NodePhase::kEnded && !on.stands_still) {
      release_parts(state, active, on);
      on.stands_still = true;
      hold_parts(state, active, on);
      state.ledger.give_back(sched::cores_of(on.share));
    }
  }
}

void evolve_resumed(State& state, Job& job, Instant at) {
  move_end(state, job, [&](Active& active) {
    Suspension& s = active.suspension;
    if (!s.since.is_set()) {
      return;
    }
    ++s.orders;
    s.earlier = s.earlier + (at - s.since);
    s.since = {};
    if (std::exchange(s.room_for, JobId{}) != JobId{}) {
      s.resumed = at;
    }
    for (AttemptOnNode& on : active.nodes) {
      if (std::exchange(on.stands_still, false)) {
        state.ledger.take(sched::cores_of(on.share));
      }
    }
  });
}

}  // namespace muster::engine
