// A node's topology as text for people: the tree of packages, NUMA nodes and L3s, and how GPUs and adapters are connected,
// in the words of `nvidia-smi topo -m`.
#pragma once

#include <string>

#include "lib/model/node_topology.h"

namespace muster {

std::string show_topology(const NodeTopology& topology);

// 32 hexadecimal digits.
std::string format_topology_hash(const TopologyHash& hash);
// How a GPU is connected: "NV4", "PIX", ..., as `nvidia-smi topo -m` says it.
std::string gpu_link_name(const GpuLink& link);

}  // namespace muster
