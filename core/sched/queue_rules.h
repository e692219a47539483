// What a queue allows: limits of time and size, and whom it admits. Checked when a job is submitted, when it or the queue
// is changed, and again before it starts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/sched/schedule.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

struct QueueRefusal {
  std::string word;  // Slurm's: "PartitionTimeLimit", "PartitionNodeLimit", "PartitionConfig", "AccountNotAllowed", ...
  std::string text;  // names the option, its value, the limit and the queue
};
// Why the queue does not let the job in; nothing when it does. The spec must be normalised. Cheap: called for each group
// of a pass.
std::optional<QueueRefusal> refusal_of(const QueuePolicy& queue, const JobSpec& spec);
// Every reason.
std::vector<QueueRefusal> refusals_of(const QueuePolicy& queue, const JobSpec& spec);

// The most nodes and GPUs that the job may come to use.
[[nodiscard]] std::uint64_t nodes_most(const JobSpec& spec);
[[nodiscard]] std::uint64_t gpus_most(const JobSpec& spec);

}  // namespace muster::sched
