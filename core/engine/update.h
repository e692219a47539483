// `muster update`: what becomes of jobs that are changed after their submission.
#pragma once

#include "core/engine/engine.h"

namespace muster::engine {

// A job that waits is checked as if it were submitted anew and keeps its age; its promise only where the planner cannot
// tell the change. Of one that runs, the time limit may change (its user may only lower it), and what is only told.
Result<Decision> decide_update(const State& state, const sched::Policy& policy, const UpdateJobs& command, Instant now);

// The priority that users see: a queue's counts a million times more than --nice.
[[nodiscard]] std::int64_t priority_of(const sched::Policy& policy, const JobSpec& spec);

// Only an administrator raises a job above others.
Status check_nice(const JobSpec& spec, const Caller& caller);

}  // namespace muster::engine
