// GPUs and network adapters as hwloc shows them, and how near they are to each other. Internal to noded/discover.
#pragma once

#include <hwloc.h>

#include <map>
#include <vector>

#include "lib/model/node_topology.h"

namespace muster::noded {

// A device under its address, with hwloc's object, which lives as long as the topology.
struct FoundGpu {
  TopologyGpu gpu;
  hwloc_obj_t pci = nullptr;
  int source = -1;  // of the vendor index; larger is better
};
struct FoundNic {
  TopologyNic nic;
  hwloc_obj_t pci = nullptr;
};

// Once for each PCI address, whatever number of OS devices hwloc shows for it; by vendor index. Cores are not filled in.
std::vector<FoundGpu> find_gpus(hwloc_topology* t);
// Those with a driver, by PCI address. Cores and tiers are not filled in.
std::vector<FoundNic> find_nics(hwloc_topology* t);

// How near two PCI devices are as far as bridges tell: kOtherPackage when no bridge is above both.
PcieTier bridge_tier(hwloc_obj_t a, hwloc_obj_t b);

// Bandwidth of direct links between GPUs in MB/s, row by row; all 0 when the topology says nothing.
std::vector<std::uint32_t> link_bandwidths(hwloc_topology* t, const std::vector<FoundGpu>& gpus);

}  // namespace muster::noded
