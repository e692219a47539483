// Which part of its job a step gets, and what it waits for. Pure.
//
// A step gets all that the job holds on its nodes and runs beside others (kWhole), unless it asks for less: an exact
// step gets as many cores and GPUs as it asks for, none of which another exact step has; an exclusive one in addition has its
// nodes' other steps kept off, so it waits for whole steps there and they for it. An overlapping step waits for nobody
// and nobody for it. Who waits is served in order: nobody takes from a node that somebody before waits for.
//
// Cores and GPUs are places among those that the job has on the node, counted from 0, because a job's first node knows of the
// other nodes only how many there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/base/result.h"
#include "lib/model/step_sharing.h"
#include "noded/step_layout.h"

namespace muster::noded {

// What a step has on one node.
struct StepNodeUse {
  std::size_t job_node = 0;
  IndexSet cores;  // of exact and exclusive steps; else empty
  IndexSet gpus;   // likewise
  friend bool operator==(const StepNodeUse&, const StepNodeUse&) = default;
};

// A step that runs.
struct StepUse {
  std::uint32_t step = 0;
  StepSharing sharing = StepSharing::kWhole;
  std::vector<StepNodeUse> nodes;
};

struct StepShareWish {
  StepSharing sharing = StepSharing::kWhole;
  StepWish layout = {};    // cpus_per_task: 0 for whole and overlapping steps that do not say
  std::uint32_t gpus = 0;  // in total
  std::uint32_t gpus_per_node = 0;
  std::uint32_t gpus_per_task = 0;
};

// The nodes that steps before wait for.
struct StepsAhead {
  IndexSet wanted = {};     // by exact and exclusive ones
  IndexSet exclusive = {};  // by exclusive ones
};

// It can start: its layout, and what it gets on the nodes of the layout.
struct StepGrant {
  StepPlan plan;
  std::vector<StepNodeUse> nodes;
};
struct StepDelay {
  std::string reason;  // "step 42.1 holds 4 of 4 cores of n1"
  IndexSet nodes;      // those that it may run on
};
using StepDecision = std::variant<StepGrant, StepDelay>;

// kRefused when the step could not start if it were alone in the job; the message names the option. `job_id` is for reasons.
Result<StepDecision> share_step(std::uint64_t job_id, const std::vector<JobNode>& job,
                                const std::vector<StepUse>& running, const StepsAhead& ahead,
                                const StepShareWish& wish);

}  // namespace muster::noded
