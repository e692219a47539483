// Accounts, users and QOS: what administrators change, and what a submission may use.
#pragma once

#include <cstdint>

#include "core/engine/engine.h"
#include "core/sched/schedule.h"
#include "lib/base/result.h"
#include "lib/model/command.h"

namespace muster::engine {

// The facts of the change, or why it is refused. Jobs that wait and could never start after it are named in the notes.
Result<Decision> change_accounting(const State& state, const ChangeAccounting& change, Instant now);

// Fills in the default account and QOS of a request whose size is known, and refuses what its user may not use and what
// no limit will ever let start.
Status fill_account(const State& state, const sched::Policy& policy, JobSpec& spec, const JobSpec* before);

// Refuses a job with so many tasks that wait when too many wait already, or after the same command's `moved`. `before` is
// what a job that waits and is changed had asked for; null: it is new.
Status check_pending_limits(const State& state, const JobSpec& spec, std::uint64_t tasks,
                            const sched::PendingMoves& moved = {}, const JobSpec* before = nullptr);

}  // namespace muster::engine
