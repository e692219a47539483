// What step_shares.h decides about, made from a job's launch order, the requests for its steps and their records. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "lib/model/orders.h"
#include "noded/step_records.h"
#include "noded/step_shares.h"

namespace muster::pb {
class StepSpec;
}  // namespace muster::pb

namespace muster::noded {

// What the job's first node knows of the job's nodes.
std::vector<JobNode> job_nodes(const LaunchOrder& order);
// Of a request that is not well-formed the parts say so.
StepShareWish share_wish(const LaunchOrder& order, const pb::StepSpec& spec);
// What a step that runs has. Nothing where the record names nodes that are not the job's.
std::optional<StepUse> use_of(const LaunchOrder& order, const StepRecord& record);

// The nodes that those before wait for, when one more has to wait.
void wait_before(const IndexSet& nodes, StepSharing sharing, StepsAhead& ahead);

}  // namespace muster::noded
