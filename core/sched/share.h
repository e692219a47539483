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
// requires its tasks to be near their GPUs, and they cannot be. The cores in `others` stand still with somebody who needs
// these very ones to go on: it gets those of them that `wanted` names, because the plan puts it before their owner, and no
// others, so that what the plan leaves to them and to jobs behind is left.
std::optional<NodeShare> choose_share(const NodeCapacity& node, const NodeShare& wanted, const JobSpec& spec,
                                      const IndexSet& others = {});

// Why the tasks of a job cannot be near their GPUs with that much of what is free on the node, in words; nothing when they
// can be.
std::optional<std::string> why_not_near(const NodeCapacity& node, const Slot& wanted, const JobSpec& spec);

}  // namespace muster::sched
