#include "noded/discover/discover.h"

#include "noded/discover/topology.h"

namespace muster::noded {

Result<NodeHardware> discover(std::string_view topology, std::uint64_t memory_mib) {
  MUSTER_ASSIGN(const NodeTopology found, discover_topology(topology, memory_mib));
  return hardware_of(found);
}

}  // namespace muster::noded
