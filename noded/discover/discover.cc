#include "noded/discover/discover.h"

#include "noded/discover/topology.h"

namespace muster::noded {

Result<NodeHardware> discover(std::string_view topology, std::uint64_t memory_mib) {
  MUSTER_ASSIGN(const NodeTopology found, discover_topology(topology, memory_mib));
  NodeHardware out;
  out.packages = found.packages;
  out.numa_nodes = static_cast<std::uint32_t>(found.numa.size());
  for (const TopologyCore& core : found.cores) {
    out.cores.push_back({.package = core.package, .numa = core.numa, .threads = core.threads});
  }
  for (const TopologyGpu& gpu : found.gpus) {
    const std::vector<std::uint32_t> near = gpu.cores.lowest(1).to_vector();
    out.gpus.push_back({.pci_address = gpu.pci_address,
                        .uuid = gpu.uuid,
                        .model = gpu.model,
                        .vendor_index = gpu.vendor_index,
                        .numa = near.empty() ? 0 : found.cores[near.front()].numa});
  }
  out.mem_mib = found.mem_mib;
  out.pretended = found.pretended;
  return out;
}

}  // namespace muster::noded
