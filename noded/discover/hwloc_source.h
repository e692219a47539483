// Loading a topology by hwloc: of this machine, from an XML file, or from a synthetic description. Internal to
// noded/discover.
#pragma once

#include <hwloc.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace muster::noded {

struct HwlocDeleter {
  void operator()(hwloc_topology* t) const { hwloc_topology_destroy(t); }
};
using HwlocTopology = std::unique_ptr<hwloc_topology, HwlocDeleter>;

// What a topology option says, taken apart.
struct TopologySource {
  std::string text;              // as it was given, for messages
  std::string description;       // without "+gpu:K"; empty: this machine
  std::uint64_t extra_gpus = 0;  // K
  bool is_file = false;
};

// An error about the topology that the user named.
Error bad_topology(std::string_view text, const std::string& why);

Result<TopologySource> parse_source(std::string_view text);

// I/O objects are kept. No vendor's library is asked about this machine's GPUs: a sick driver would hang the daemon, and
// the kernel knows their addresses. hwloc imports XML with binding disabled; nothing here binds.
Result<HwlocTopology> load(const TopologySource& source);

}  // namespace muster::noded
