// A node's topology as JSON, for `muster show node --topology --json`. Included by cli/json.cc alone.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "lib/model/node_topology.h"

namespace muster::cli {

nlohmann::ordered_json topology_json(const NodeTopology& topology);

}  // namespace muster::cli
