// What a site decides about a node's hardware: cores that jobs never get, hardware threads that stay idle, GPUs that are
// divided. What is decided away is not there for anybody, the controller included. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "lib/base/result.h"
#include "lib/model/node_topology.h"

namespace muster::noded {

// As the keys of the section [node] have it; the values here decide nothing.
struct SiteChoices {
  std::uint64_t system_cores = 0;        // the first core of each L3 in turn, so that what is left of them stays alike
  bool leave_siblings = false;           // smt = "leave": of each core the first hardware thread alone
  std::string gpu_partitions = {};       // "1g.10gb*7": each GPU is so many partitions with this profile; empty: whole
  std::string gpu_partition_uuids = {};  // separated by commas, those of the first GPU first; empty: they have none
};

// Partitions of one node, at most.
inline constexpr std::uint64_t kGpuPartitionsMax = 4'096;

// The error names the key.
Result<NodeTopology> with_site_choices(NodeTopology topology, const SiteChoices& choices);

}  // namespace muster::noded
