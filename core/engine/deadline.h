// --deadline: what can no longer end in time is given up while it waits, and stopped while it runs.
#pragma once

#include "core/engine/engine.h"

namespace muster::engine {

// Whether a job with this request could still end by its deadline if it started as soon as it may.
Status check_deadline(const JobSpec& spec, Instant now);

// The facts that the clock makes true: jobs that wait too long end, those that run too long are stopped.
void settle_deadlines(const State& state, Instant now, Decision& decision);

// When settle_deadlines() has something to do next; nothing when no job has a deadline.
[[nodiscard]] std::optional<Instant> next_deadline(const State& state);

}  // namespace muster::engine
