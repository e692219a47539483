// Which cores and GPUs a job gets of a node on which it fits by numbers.
#pragma once

#include <optional>
#include <string>

#include "core/sched/ledger.h"
#include "core/sched/timeline.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// `wanted` with the sets that core/topo chooses of what is free on its node, as many as it has, or the lowest numbers where
// it is not known how the node hangs together. As many cores and GPUs as `wanted` has must be free. Nothing: the job
// requires its tasks to be near their GPUs, and they cannot be. Of the cores in `others` it gets none where it can do
// without: those who stand still need these very ones to go on.
std::optional<NodeShare> choose_share(const NodeCapacity& node, const NodeShare& wanted, const JobSpec& spec,
                                      const IndexSet& others = {});

// Why the tasks of a job cannot be near their GPUs with that much of what is free on the node, in words; nothing when they
// can be.
std::optional<std::string> why_not_near(const NodeCapacity& node, const Slot& wanted, const JobSpec& spec);

}  // namespace muster::sched
