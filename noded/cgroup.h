// Where this node makes the cgroups of its attempts.
#pragma once

#include <string>

#include "lib/base/result.h"

namespace muster::noded {

// `setting` is [node] cgroup: "off", "auto" (a group below any cgroup2 tree that this process may write), or the path
// of a delegated group. Makes the node's own group, muster-<hash of the spool directory>, and returns its path; empty:
// none, descendants are then found by the process tree. A named group that cannot be used is an error.
Result<std::string> make_node_cgroup(const std::string& setting, const std::string& spool_dir);

}  // namespace muster::noded
