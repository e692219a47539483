// By which means this node limits its jobs: chosen once at the daemon's start, for each function on its own, because a
// machine may have some of the kernel's controllers as cgroup v1 and others in the cgroup2 tree (docs/enforcement.md).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/model/hardware.h"
#include "noded/shepherd_protocol.h"

namespace muster::noded {

struct EnforcementOptions {
  std::string cgroup = "auto";  // [node] cgroup: auto, v1, v2, off, or the path of a delegated cgroup2 group
  std::string spool_dir;
  bool cpus = false;   // the node's cores are this machine's
  bool memory = true;  // jobs are limited to their memory
  bool processes = true;
  bool devices = false;  // GPUs have device files
  bool isolate = false;  // jobs get namespaces of their own
  std::string mounts = "/proc/self/mountinfo";
  std::string own_groups = "/proc/self/cgroup";
};

struct Enforcement {
  std::string tree;               // this node's group of the cgroup2 tree; empty: none
  std::vector<Control> controls;  // in the order in which a shepherd makes them
  std::vector<EnforcedBy> statement;
  bool isolate = false;  // wanted, and the kernel gives namespaces
};

// Told of all groups that will be in use before the next of them is made, so that a note of them can be left for whoever
// cleans up after a process that was killed right then. The first is of the cgroup2 tree; empty: none.
using AnnounceGroups = std::function<void(const std::string& tree, const std::vector<std::string>& others)>;

// Makes the node's own group, muster-<hash of the spool directory>, wherever a function needs one. What cannot be had is in
// the statement with its reason; only a group that the configuration names and that cannot be used is an error.
Result<Enforcement> choose_enforcement(const EnforcementOptions& options, const AnnounceGroups& announce);

}  // namespace muster::noded
