// What each task of a job's own layout gets of a node, for `show job`.
#pragma once

#include "core/topo/node_class.h"
#include "lib/model/job.h"

namespace muster::pb {
class NodePlacement;
}

namespace muster::ctld {

// Nothing where the job's binding fits only steps of another size. The node may have other hardware now than when the job
// ran: what it no longer has is left out.
void fill_tasks(const topo::NodeClass& node_class, const Node& node, const JobSpec& spec, const NodeShare& share,
                pb::NodePlacement& out);

}  // namespace muster::ctld
