// The topology of a node as core/topo needs it: of this machine, or of one that it pretends to be.
//
// What counts as a core, a NUMA node and a GPU is said in discover.h, which is made from this. A core's cache domain is
// its L3, else an L2 that several cores share, else its NUMA node; an L3 that spans several NUMA nodes counts in each.
// GPUs are local to the cores of the object that hwloc puts their host bridge under. Links are NVLink and Xe Link with
// the bandwidth that the topology names; everything else is known by the PCI bridges between two devices.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/base/result.h"
#include "lib/model/node_topology.h"

namespace muster::noded {

// The arguments are those of discover(). This machine's GPU links are not among what hwloc can tell without the vendor's
// library, so there the PCIe tiers decide.
Result<NodeTopology> discover_topology(std::string_view topology, std::uint64_t memory_mib);

}  // namespace muster::noded
