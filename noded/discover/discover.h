// What hardware a node has: of this machine, or of one that it pretends to be. The home of hwloc.
//
// Counting rules: a core is a physical core with all its hardware threads; NUMA nodes with the same CPUs are one, and
// those without CPUs (memory of GPUs) are none; a GPU is a PCI device of class 0300, 0302, 0380 or 1200, once for each
// address, whatever number of OS devices hwloc shows for it. The video chips of management controllers and of virtual
// machines are not GPUs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/model/hardware.h"

namespace muster::noded {

// Memory of a pretended machine whose description names none.
inline constexpr std::uint64_t kPretendedMemoryMib = 64U << 10U;
// Pretended GPUs of one node; they get PCI addresses of one domain, a bus each.
inline constexpr std::uint64_t kPretendedGpusMax = 200;

// `topology` is empty (this machine), the path of an hwloc XML file, or an hwloc synthetic description such as
// "package:2 core:16 pu:1"; the last two optionally with "+gpu:K". `memory_mib` replaces what was found unless it is 0.
Result<NodeHardware> discover(std::string_view topology, std::uint64_t memory_mib);

}  // namespace muster::noded
