// NodeTopology: what of a machine decides where tasks run: cores and the domains that they share, GPUs, how these are
// connected, network adapters. A value; noded/discover makes it, core/topo chooses with it.
//
// Numbers are positions in the vectors here. The cores and GPUs of a node have the same numbers in its NodeHardware.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/model/hardware.h"

namespace muster {

// A physical core.
struct TopologyCore {
  std::uint32_t package = 0;
  std::uint32_t numa = 0;  // position in NodeTopology::numa
  // Cores of one NUMA node with the same number share their last-level cache; numbers are unique in the node.
  std::uint32_t l3 = 0;
  IndexSet threads;  // OS numbers of its hardware threads
  friend bool operator==(const TopologyCore&, const TopologyCore&) = default;
};

// NUMA nodes with the same cores count as one. Those without cores and the memory of GPUs are not here.
struct TopologyNuma {
  IndexSet os_nodes;  // OS numbers, for binding memory
  std::uint64_t mem_mib = 0;
  friend bool operator==(const TopologyNuma&, const TopologyNuma&) = default;
};

// How near two PCI devices are, in nvidia-smi's vocabulary; the larger the nearer.
enum class PcieTier : std::uint8_t {
  kOtherPackage,  // SYS
  kOtherNuma,     // SYS as well, but in one package
  kSameNuma,      // NODE: several host bridges of one NUMA node
  kHostBridge,    // PHB: under one host bridge
  kSwitches,      // PXB: several PCIe bridges, no host bridge
  kSwitch,        // PIX: one PCIe switch
  kSameDevice,    // X
};
// "SYS", "NODE", "PHB", "PXB", "PIX" or "X".
std::string_view pcie_tier_name(PcieTier tier);

struct GpuLink {
  std::uint32_t bandwidth_mbps = 0;  // MB/s of direct links and of switches between the two; 0: only PCIe
  PcieTier tier = PcieTier::kOtherPackage;
  friend bool operator==(const GpuLink&, const GpuLink&) = default;
};

// A GPU, or a partition of one. Partitions of one GPU share its PCI address.
struct TopologyGpu {
  std::string pci_address;  // "0000:17:00.0"
  std::string uuid;         // empty when unknown
  std::string model;
  std::uint32_t vendor_index = 0;
  std::string partition;  // profile such as "1g.10gb"; empty: the whole GPU
  IndexSet cores;         // numbers of the cores that are local to it; empty when unknown
  friend bool operator==(const TopologyGpu&, const TopologyGpu&) = default;
};

struct TopologyNic {
  std::string pci_address;
  std::vector<std::string> names;  // of its OS devices, such as "ib0" and "mlx5_0"
  bool fabric = false;             // made for messages between nodes: InfiniBand, Slingshot, Omni-Path, EFA
  std::uint32_t speed_mbps = 0;    // of its PCIe link; 0 when unknown
  IndexSet cores;                  // as TopologyGpu::cores
  std::vector<PcieTier> to_gpu;    // one for each GPU
  friend bool operator==(const TopologyNic&, const TopologyNic&) = default;
};

struct NodeTopology {
  std::uint32_t packages = 1;
  std::vector<TopologyNuma> numa;
  std::vector<TopologyCore> cores;  // in hwloc's logical order: neighbours in the machine are neighbours here
  std::vector<TopologyGpu> gpus;    // by vendor index
  std::vector<GpuLink> links;       // row by row, gpus.size() squared, symmetric
  std::vector<TopologyNic> nics;    // by PCI address
  std::uint64_t mem_mib = 0;
  bool pretended = false;  // declared by a topology, not this machine's own

  [[nodiscard]] const GpuLink& link(std::size_t a, std::size_t b) const { return links[a * gpus.size() + b]; }
  friend bool operator==(const NodeTopology&, const NodeTopology&) = default;
};

// Order of PCI addresses: by domain, bus, device and function. Domains of more than four digits are larger.
bool pci_less(std::string_view a, std::string_view b);

// Names what decides placements: equal for nodes on which every choice comes out alike. UUIDs, models, names and sizes
// of memory do not count, and of PCI addresses only their order does. The value is the same in every build and release
// that has the same kTopologyHashVersion.
struct TopologyHash {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  [[nodiscard]] bool is_set() const { return high != 0 || low != 0; }
  friend auto operator<=>(const TopologyHash&, const TopologyHash&) = default;
};
inline constexpr std::uint64_t kTopologyHashVersion = 1;
TopologyHash topology_hash(const NodeTopology& topology);
// `topology` without what topology_hash() leaves out: equal exactly for nodes of one class.
NodeTopology class_of(const NodeTopology& topology);

// Why a topology cannot be used, as a sentence; empty when it can. Everything in core/topo expects one that passes.
std::string check_node_topology(const NodeTopology& topology);

// What a node has, without how it hangs together.
NodeHardware hardware_of(const NodeTopology& topology);
// Why the topology is not that of a node with this hardware, as a sentence; empty when it can be.
std::string check_same_node(const NodeTopology& topology, const NodeHardware& hardware);
// The topology of one node of the class: with the names, addresses and sizes that class_of() leaves out. The two must pass
// check_same_node().
NodeTopology of_node(NodeTopology node_class, const NodeHardware& hardware);

}  // namespace muster
