// normalise(): a submitted request with every default filled in, or why it can never run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/engine/state.h"
#include "core/sched/schedule.h"
#include "lib/base/result.h"
#include "lib/model/job_spec.h"

namespace muster::engine {

// Limits on what one job may ask for. They bound what State and the wire must carry; none is near a real machine's size.
inline constexpr std::uint32_t kNodesMax = 100'000;
inline constexpr std::uint32_t kTasksMax = 10'000'000;
inline constexpr std::uint32_t kCpusPerTaskMax = 65'536;
inline constexpr std::uint32_t kThreadsPerCoreMax = 64;        // no processor has more
inline constexpr std::int32_t kSignalMax = 64;                 // Linux's SIGRTMAX
inline constexpr std::uint64_t kMemMibMax = 1ULL << 40U;       // 1 EiB
inline constexpr std::size_t kNameBytesMax = 1'024;            // names of jobs, users, queues, accounts, hosts
inline constexpr std::size_t kPathBytesMax = 4'096;            // Linux's PATH_MAX
inline constexpr std::size_t kCommentBytesMax = 64U << 10U;    // also --export's list
inline constexpr std::size_t kArgumentBytesMax = 128U << 10U;  // Linux's MAX_ARG_STRLEN
inline constexpr std::size_t kArgumentsBytesMax = 2U << 20U;   // Linux's usual ARG_MAX

// Lengths and bytes of the texts of a job.
Status check_texts(const JobSpec& spec);

// Fills in queue, time limit, node and task counts, account, QOS and file names. kRefused or kInvalidArgument names the option. `before`
// is what a job that waits and is changed had asked for; what was true of that already is no reason to refuse.
Result<JobSpecPtr> normalise(const State& state, const sched::Policy& policy, const JobSpec& asked, Instant now,
                             const JobSpec* before = nullptr);

}  // namespace muster::engine
