// A node's topology as text for people: the tree of packages, NUMA nodes and L3s, and how GPUs and adapters are connected,
// in the words of `nvidia-smi topo -m`.
#pragma once

#include <string>

#include "lib/model/node_topology.h"

namespace muster::noded {

std::string show_topology(const NodeTopology& topology);

}  // namespace muster::noded
