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
// that belong to all GPUs together (nvidiactl, kfd) are nobody's. A file that is not there is left out: the node's checks
// drain it until the file is there.
Result<std::vector<std::vector<DeviceNumber>>> gpu_devices(const NodeHardware& hardware, const std::string& setting);

// As gpu_devices(), some time after that found `known`: files that `setting` names may be there only now. Those of a GPU of
// which none is there are the known ones.
std::vector<std::vector<DeviceNumber>> gpu_devices_now(const NodeHardware& hardware, const std::string& setting,
                                                       const std::vector<std::vector<DeviceNumber>>& known);

// The paths that `setting` names, all of them.
std::vector<std::string> gpu_device_paths(const std::string& setting);

// Those of the others, for a job that holds these GPUs. One that parts of a GPU share is denied to who has none of them.
std::vector<DeviceNumber> denied_devices(const std::vector<std::vector<DeviceNumber>>& devices, const IndexSet& held);

}  // namespace muster::noded
