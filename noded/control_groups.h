// The groups of one node, below which its attempts have theirs: how they are made so that limits can be set in them.
// Used by muster-noded when it chooses, and by a shepherd that finds the node's group gone. lib/base only.
#pragma once

#include <string>
#include <vector>

#include "noded/shepherd_protocol.h"

namespace muster::noded {

// The name of the kind's controller in the kernel.
const char* controller_of(ControlKind kind);

// A v1 group that may be used as a node's: a cpuset has the CPUs and memory nodes of the one above it. Empty, or why not.
std::string make_v1_group(ControlKind kind, const std::string& path);

// Lets the groups below `path`, a cgroup2 group without processes, have the controller: it is switched on in the group
// above and in `path`. Empty, or why not.
std::string enable_v2_controller(ControlKind kind, const std::string& path);

// Attaches to a cgroup2 group a program that refuses these devices, and leaves all others to whatever else is attached.
// It goes with the group. Empty, or why not.
std::string deny_devices_v2(const std::string& path, const std::vector<DeviceNumber>& devices);
// Empty, or why the kernel would take none for this group.
std::string why_no_device_program(const std::string& path);

}  // namespace muster::noded
