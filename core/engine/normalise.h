// normalise(): a submitted request with every default filled in, or why it can never run.
#pragma once

#include "core/engine/state.h"
#include "core/sched/schedule.h"
#include "lib/base/result.h"
#include "lib/model/job_spec.h"

namespace muster::engine {

// Limits on what one job may ask for. They bound what State and the wire must carry; none is near a real machine's size.
inline constexpr std::uint32_t kNodesMax = 100'000;
inline constexpr std::uint32_t kTasksMax = 10'000'000;
inline constexpr std::uint32_t kCpusPerTaskMax = 65'536;
inline constexpr std::uint64_t kMemMibMax = 1ULL << 40U;  // 1 EiB

// Fills in queue, time limit, node and task counts and file names. kRefused or kInvalidArgument names the option.
Result<JobSpecPtr> normalise(const State& state, const sched::Policy& policy, const JobSpec& asked);

}  // namespace muster::engine
