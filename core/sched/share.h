// Which cores and GPUs a job gets of a node on which it fits by numbers.
#pragma once

#include "core/sched/ledger.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// `wanted` with the sets that core/topo chooses of what is free on its node, as many as it has, or the lowest numbers where
// it is not known how the node hangs together. As many cores and GPUs as `wanted` has must be free.
NodeShare choose_share(const NodeCapacity& node, const NodeShare& wanted, const JobSpec& spec);

}  // namespace muster::sched
