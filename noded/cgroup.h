// Where this node makes the cgroups of its attempts.
#pragma once

#include <functional>
#include <string>

#include "lib/base/result.h"

namespace muster::noded {

// `setting` is [node] cgroup: "off", "auto" (a group below any cgroup2 tree that this process may write), or the path
// of a delegated group. Makes the node's own group, muster-<hash of the spool directory>, and returns its path; empty:
// none, descendants are then found by the process tree. A named group that cannot be used is an error.
//
// `announce` is told of a group before it is made, so that a note of it can be left for whoever cleans up after a
// process that was killed right then.
using AnnounceGroup = std::function<void(const std::string& group)>;
// `prefers` says whether a group of "auto" is as good as one can be; where none is, the first one that can be used is taken.
using PreferGroup = std::function<bool(const std::string& group)>;
Result<std::string> make_node_cgroup(const std::string& setting, const std::string& spool_dir,
                                     const AnnounceGroup& announce, const PreferGroup& prefers = {});

}  // namespace muster::noded
