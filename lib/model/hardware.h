// What a node has, as its daemon discovered it (or as a declared topology pretends), and what of it an attempt holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/model/ids.h"

namespace muster {

// A physical core. A core's number is its position in NodeHardware::cores (hwloc's logical order).
struct Core {
  std::uint32_t package = 0;
  std::uint32_t numa = 0;
  IndexSet threads;  // OS numbers of its hardware threads
  friend bool operator==(const Core&, const Core&) = default;
};

// A GPU's number is its position in NodeHardware::gpus; its identity is the PCI address, and the UUID where known.
struct Gpu {
  std::string pci_address;  // "0000:17:00.0"
  std::string uuid;         // empty when unknown
  std::string model;
  std::uint32_t vendor_index = 0;
  std::uint32_t numa = 0;
  friend bool operator==(const Gpu&, const Gpu&) = default;
};

// A network adapter with a driver.
struct Nic {
  std::string pci_address;
  std::vector<std::string> names;  // of its OS devices, such as "ib0" and "mlx5_0"
  friend bool operator==(const Nic&, const Nic&) = default;
};

struct NodeHardware {
  std::uint32_t packages = 1;
  std::uint32_t numa_nodes = 1;
  std::vector<Core> cores;
  std::vector<Gpu> gpus;
  std::uint64_t mem_mib = 0;
  bool pretended = false;                        // declared by a topology, not this machine's own
  std::vector<Nic> nics = {};                    // by PCI address
  std::vector<std::uint64_t> numa_mem_mib = {};  // one for each NUMA node; empty: not known
  friend bool operator==(const NodeHardware&, const NodeHardware&) = default;
};

// By which means a node performs a function of enforcement, for people: "memory", "cgroup v1"; where it cannot, `by` begins
// with "none: " and the reason.
struct EnforcedBy {
  std::string function;
  std::string by;
  friend bool operator==(const EnforcedBy&, const EnforcedBy&) = default;
};
// More would be no node's.
inline constexpr std::size_t kEnforcedByMax = 64;

// What one attempt holds of one node.
struct NodeShare {
  NodeIndex node;
  IndexSet cores;  // numbers of cores
  IndexSet gpus;   // numbers of GPUs
  std::uint64_t mem_mib = 0;
  std::uint32_t tasks = 1;  // tasks of the job's layout on this node
  friend bool operator==(const NodeShare&, const NodeShare&) = default;
};

// The part of one node that is kept for a job which waits. Counts: which cores and GPUs they are is chosen when it starts.
struct PlannedShare {
  NodeIndex node;
  std::uint32_t tasks = 0;
  std::uint32_t cores = 0;
  std::uint32_t gpus = 0;
  std::uint64_t mem_mib = 0;
  friend bool operator==(const PlannedShare&, const PlannedShare&) = default;
};

}  // namespace muster
