#include "lib/model/node_topology.h"

#include <algorithm>

namespace muster {
namespace {

// FNV-1a with 64 bits, twice with different starts, and a last mix of each half (Stafford's variant 13 of the finalizer
// of MurmurHash3). Not a defence against an attacker: whoever looks up a class by it compares the values as well.
class Hasher {
 public:
  void add(std::uint64_t value) {
    for (int i = 0; i < 8; ++i) {
      const std::uint64_t byte = (value >> (8 * i)) & 0xffU;
      high_ = (high_ ^ byte) * kPrime;
      low_ = (low_ ^ (byte + 0x55U)) * kPrime;
    }
  }
  void add(const IndexSet& set) {
    add(set.words().size());
    for (const std::uint64_t word : set.words()) {
      add(word);
    }
  }
  void add(std::string_view text) {
    add(text.size());
    for (const char c : text) {
      add(static_cast<std::uint64_t>(static_cast<unsigned char>(c)));
    }
  }
  [[nodiscard]] TopologyHash result() const { return {mix(high_), mix(low_)}; }

 private:
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31U);
  }
  static constexpr std::uint64_t kPrime = 0x100000001b3U;
  std::uint64_t high_ = 0xcbf29ce484222325U;
  std::uint64_t low_ = 0x84222325cbf29ce4U;
};

// Replaces each address by its place in their order: "0" for the lowest. Equal addresses stay equal.
void number_addresses(std::vector<std::string*>& addresses) {
  std::sort(addresses.begin(), addresses.end(),
            [](const std::string* a, const std::string* b) { return pci_less(*a, *b); });
  std::size_t number = 0;
  std::string before;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    if (i > 0 && *addresses[i] != before) {
      ++number;
    }
    before = *addresses[i];
    *addresses[i] = std::to_string(number);
  }
}

}  // namespace

std::string_view pcie_tier_name(PcieTier tier) {
  switch (tier) {
    case PcieTier::kOtherPackage:
    case PcieTier::kOtherNuma:
      return "SYS";
    case PcieTier::kSameNuma:
      return "NODE";
    case PcieTier::kHostBridge:
      return "PHB";
    case PcieTier::kSwitches:
      return "PXB";
    case PcieTier::kSwitch:
      return "PIX";
    case PcieTier::kSameDevice:
      return "X";
  }
  return "?";
}

bool pci_less(std::string_view a, std::string_view b) {
  const auto domain_length = [](std::string_view s) { return std::min(s.find(':'), s.size()); };
  const std::size_t length_a = domain_length(a);
  const std::size_t length_b = domain_length(b);
  return length_a != length_b ? length_a < length_b : a < b;
}

NodeTopology class_of(const NodeTopology& topology) {
  NodeTopology out = topology;
  std::vector<std::string*> gpu_addresses;
  for (TopologyGpu& gpu : out.gpus) {
    gpu.uuid.clear();
    gpu.model.clear();
    gpu_addresses.push_back(&gpu.pci_address);
  }
  number_addresses(gpu_addresses);
  std::vector<std::string*> nic_addresses;
  for (TopologyNic& nic : out.nics) {
    nic.names.clear();
    nic_addresses.push_back(&nic.pci_address);
  }
  number_addresses(nic_addresses);
  for (TopologyNuma& numa : out.numa) {
    numa.mem_mib = 0;
  }
  out.mem_mib = 0;
  out.pretended = false;
  return out;
}

TopologyHash topology_hash(const NodeTopology& topology) {
  const NodeTopology value = class_of(topology);
  Hasher hasher;
  hasher.add(kTopologyHashVersion);
  hasher.add(value.packages);
  hasher.add(value.numa.size());
  for (const TopologyNuma& numa : value.numa) {
    hasher.add(numa.os_nodes);
  }
  hasher.add(value.cores.size());
  for (const TopologyCore& core : value.cores) {
    hasher.add(core.package);
    hasher.add(core.numa);
    hasher.add(core.l3);
    hasher.add(core.threads);
  }
  hasher.add(value.gpus.size());
  for (const TopologyGpu& gpu : value.gpus) {
    hasher.add(gpu.pci_address);
    hasher.add(gpu.vendor_index);
    hasher.add(gpu.partition);
    hasher.add(gpu.cores);
  }
  for (const GpuLink& link : value.links) {
    hasher.add(link.bandwidth_mbps);
    hasher.add(static_cast<std::uint64_t>(link.tier));
  }
  hasher.add(value.nics.size());
  for (const TopologyNic& nic : value.nics) {
    hasher.add(nic.pci_address);
    hasher.add(nic.fabric ? 1U : 0U);
    hasher.add(nic.speed_mbps);
    hasher.add(nic.cores);
    for (const PcieTier tier : nic.to_gpu) {
      hasher.add(static_cast<std::uint64_t>(tier));
    }
  }
  return hasher.result();
}

namespace {

std::string check_cores(const NodeTopology& t) {
  IndexSet threads;
  for (std::size_t i = 0; i < t.cores.size(); ++i) {
    const TopologyCore& core = t.cores[i];
    const std::string name = "core " + std::to_string(i);
    if (core.threads.empty()) {
      return name + " has no hardware thread";
    }
    if (threads.intersects(core.threads)) {
      return name + " has a hardware thread of another core";
    }
    if (core.package >= t.packages || core.numa >= t.numa.size()) {
      return name + " is in a package or NUMA node that is not there";
    }
    threads |= core.threads;
  }
  return t.cores.empty() ? "it has no core" : "";
}

std::string check_devices(const NodeTopology& t) {
  const auto all_cores = IndexSet::range(0, static_cast<std::uint32_t>(t.cores.size()));
  if (t.links.size() != t.gpus.size() * t.gpus.size()) {
    return "its link matrix is not square";
  }
  for (std::size_t a = 0; a < t.gpus.size(); ++a) {
    if (t.gpus[a].pci_address.empty() || !t.gpus[a].cores.is_subset_of(all_cores)) {
      return "GPU " + std::to_string(a) + " has no PCI address, or cores that are not there";
    }
    for (std::size_t b = 0; b < a; ++b) {
      if (!(t.link(a, b) == t.link(b, a))) {
        return "its link matrix is not symmetric";
      }
      const bool one_device = t.gpus[a].pci_address == t.gpus[b].pci_address;
      if (one_device && (t.gpus[a].partition.empty() || t.gpus[b].partition.empty())) {
        return "GPU " + t.gpus[a].pci_address + " is there twice";
      }
    }
  }
  for (const TopologyNic& nic : t.nics) {
    if (nic.to_gpu.size() != t.gpus.size() || !nic.cores.is_subset_of(all_cores)) {
      return "network adapter " + nic.pci_address + " does not fit the GPUs and cores";
    }
  }
  return "";
}

}  // namespace

std::string check_node_topology(const NodeTopology& topology) {
  std::string problem = check_cores(topology);
  return problem.empty() ? check_devices(topology) : problem;
}

NodeHardware hardware_of(const NodeTopology& topology) {
  NodeHardware out;
  out.packages = topology.packages;
  out.numa_nodes = static_cast<std::uint32_t>(topology.numa.size());
  for (const TopologyCore& core : topology.cores) {
    out.cores.push_back({.package = core.package, .numa = core.numa, .threads = core.threads});
  }
  for (const TopologyGpu& gpu : topology.gpus) {
    const std::vector<std::uint32_t> near = gpu.cores.lowest(1).to_vector();
    out.gpus.push_back({.pci_address = gpu.pci_address,
                        .uuid = gpu.uuid,
                        .model = gpu.model,
                        .vendor_index = gpu.vendor_index,
                        .numa = near.empty() ? 0 : topology.cores[near.front()].numa});
  }
  for (const TopologyNic& nic : topology.nics) {
    out.nics.push_back({.pci_address = nic.pci_address, .names = nic.names});
  }
  for (const TopologyNuma& numa : topology.numa) {
    out.numa_mem_mib.push_back(numa.mem_mib);
  }
  out.mem_mib = topology.mem_mib;
  out.pretended = topology.pretended;
  return out;
}

std::string check_same_node(const NodeTopology& topology, const NodeHardware& hardware) {
  if (topology.cores.size() != hardware.cores.size() || topology.gpus.size() != hardware.gpus.size() ||
      topology.nics.size() != hardware.nics.size() || topology.numa.size() != hardware.numa_nodes ||
      topology.numa.size() != hardware.numa_mem_mib.size()) {
    return "it has other numbers of cores, NUMA nodes, GPUs or network adapters than the hardware";
  }
  for (std::size_t i = 0; i < topology.cores.size(); ++i) {
    if (!(topology.cores[i].threads == hardware.cores[i].threads)) {
      return "its core " + std::to_string(i) + " has other hardware threads than the hardware's";
    }
  }
  return "";
}

NodeTopology of_node(NodeTopology node_class, const NodeHardware& hardware) {
  for (std::size_t i = 0; i < node_class.gpus.size(); ++i) {
    node_class.gpus[i].pci_address = hardware.gpus[i].pci_address;
    node_class.gpus[i].uuid = hardware.gpus[i].uuid;
    node_class.gpus[i].model = hardware.gpus[i].model;
  }
  for (std::size_t i = 0; i < node_class.nics.size(); ++i) {
    node_class.nics[i].pci_address = hardware.nics[i].pci_address;
    node_class.nics[i].names = hardware.nics[i].names;
  }
  for (std::size_t i = 0; i < node_class.numa.size(); ++i) {
    node_class.numa[i].mem_mib = hardware.numa_mem_mib[i];
  }
  node_class.mem_mib = hardware.mem_mib;
  node_class.pretended = hardware.pretended;
  return node_class;
}

}  // namespace muster
