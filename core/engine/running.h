// What is ordered of jobs that run: to go back to the queue, to stand still, to go on, to make room for another one. The
// checks of decide(), and what evolve() does with the facts.
#pragma once

#include <optional>
#include <string>

#include "core/engine/state.h"
#include "core/sched/schedule.h"
#include "lib/model/command.h"
#include "lib/model/fact.h"

namespace muster::engine {

// A fact, or why there is none; with neither the order is already fulfilled.
struct RunningOrder {
  std::optional<FactBody> fact;
  const char* refusal = nullptr;
};
RunningOrder requeue_order(const Job& job, const Caller& caller);
RunningOrder suspend_order(const Job& job, const Caller& caller);
// Takes the cores of one that stands still for another job from the draft.
RunningOrder continue_order(const Job& job, const Caller& caller, sched::Draft& draft);
// What the planner orders for one that stands still for another job.
RunningOrder go_on_order(const State& state, AttemptKey key, sched::Draft& draft);
// The job that waits must be able to start but for its place.
RunningOrder preempt_order(const State& state, const sched::Policy& policy, const Preemption& preemption, Instant now);

// Whether this is how the stop that was ordered ends an attempt: it was killed, or it gave up when it was warned.
[[nodiscard]] bool ended_by_stop(const Active& active, const Outcome& outcome);
// Whether the end of all of an attempt sends its job back to the queue, and in which state the attempt enters history. An
// attempt that ended by itself before the stop reached it is the end of its job.
std::string preempted_reason(const Active& active);
std::optional<JobRequeued> requeue_at_end(const State& state, const Job& job, const Active& active);

// The number of the attempt that the job, or the task of the array record at this position, starts next.
[[nodiscard]] Attempt next_attempt(const Job& job, std::uint64_t position);
// The entry of an array record for a position that ran before; null: it did not.
[[nodiscard]] const RequeuedTask* find_requeued(const Job& array, std::uint64_t position);

// Used by evolve() only.
void evolve_requeued(State& state, const JobRequeued& fact, Instant at);
void evolve_stop(State& state, Job& job, const StopRequested& fact, Instant at);
void evolve_suspended(State& state, Job& job, JobId room_for, Instant at);
void evolve_stood_still(State& state, Job& job, NodeIndex node);
void evolve_resumed(State& state, Job& job, Instant at);

}  // namespace muster::engine
