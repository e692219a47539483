// The device files of a node's GPUs: what a job without a GPU must not be able to open.
#pragma once

#include <string>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/base/result.h"
#include "lib/model/hardware.h"
#include "noded/shepherd_protocol.h"

namespace muster::noded {

// For each GPU of the node its character devices. `setting` is [node] gpu_devices: paths in the order of the GPUs,
// separated by commas, several of one GPU by '+'; empty: found by their PCI addresses, none on a pretended node. Devices
// that belong to all GPUs together (nvidiactl, kfd) are nobody's.
Result<std::vector<std::vector<DeviceNumber>>> gpu_devices(const NodeHardware& hardware, const std::string& setting);

// The paths that `setting` names, all of them.
std::vector<std::string> gpu_device_paths(const std::string& setting);

// Those of the others, for a job that holds these GPUs. One that parts of a GPU share is denied to who has none of them.
std::vector<DeviceNumber> denied_devices(const std::vector<std::vector<DeviceNumber>>& devices, const IndexSet& held);

}  // namespace muster::noded
