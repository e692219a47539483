#include "noded/discover/site_choices.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "core/topo/choose.h"
#include "lib/base/text.h"

namespace muster::noded {
namespace {

Error bad(const char* key, const std::string& what) {
  return invalid_argument(std::string("[node] ") + key + ": " + what);
}

// The set without the cores that are gone; the others move up.
IndexSet renumbered(const IndexSet& cores, const IndexSet& gone) {
  IndexSet out;
  for (const std::uint32_t core : (cores - gone).to_vector()) {
    out.insert(core - (gone & IndexSet::range(0, core)).count());
  }
  return out;
}

Status reserve_cores(std::uint64_t count, NodeTopology& t) {
  if (count >= t.cores.size()) {
    return bad("system_cores", std::to_string(count) + " cores for the system leave none of the node's " +
                                   std::to_string(t.cores.size()) + " to jobs: keep fewer");
  }
  const IndexSet gone = topo::system_cores(topo::NodeClass(t), static_cast<std::uint32_t>(count));
  for (TopologyGpu& gpu : t.gpus) {
    gpu.cores = renumbered(gpu.cores, gone);
  }
  for (TopologyNic& nic : t.nics) {
    nic.cores = renumbered(nic.cores, gone);
  }
  std::vector<TopologyCore> left;
  for (std::uint32_t i = 0; i < t.cores.size(); ++i) {
    if (!gone.contains(i)) {
      left.push_back(std::move(t.cores[i]));
    }
  }
  t.cores = std::move(left);
  return ok_status();
}

struct Partitions {
  std::string profile;
  std::uint64_t count = 0;
};

Result<Partitions> parse_partitions(const std::string& text) {
  const std::size_t star = text.rfind('*');
  if (star == std::string::npos || star == 0) {
    return bad("gpu_partitions", "'" + printable(text.substr(0, 40)) +
                                     "' is not of the form PROFILE*COUNT: write for example 1g.10gb*7, for all of the "
                                     "node's GPUs");
  }
  MUSTER_ASSIGN(const std::uint64_t count,
                parse_count(text.substr(star + 1), "[node] gpu_partitions", {1, kGpuPartitionsMax}));
  return Partitions{.profile = text.substr(0, star), .count = count};
}

Result<std::vector<std::string>> uuids_of(const std::string& text, std::uint64_t partitions) {
  std::vector<std::string> out;
  for (const std::string_view item : split(text, ',')) {
    out.emplace_back(item);
  }
  if (text.empty()) {
    return std::vector<std::string>(partitions);
  }
  if (out.size() != partitions) {
    return bad("gpu_partition_uuids", "it names " + std::to_string(out.size()) + " and the node has " +
                                          std::to_string(partitions) + " partitions: name all, or none");
  }
  return out;
}

// Each GPU becomes its partitions, which are as near to everything as it was.
Status divide_gpus(const SiteChoices& choices, NodeTopology& t) {
  MUSTER_ASSIGN(const Partitions partitions, parse_partitions(choices.gpu_partitions));
  const std::uint64_t all = partitions.count * t.gpus.size();
  if (t.gpus.empty() || all > kGpuPartitionsMax) {
    return bad("gpu_partitions", t.gpus.empty() ? std::string("the node has no GPU: leave it out")
                                                : "there would be " + std::to_string(all) + " partitions: at most " +
                                                      std::to_string(kGpuPartitionsMax) + " are accepted");
  }
  MUSTER_ASSIGN(const std::vector<std::string> uuids, uuids_of(choices.gpu_partition_uuids, all));
  const NodeTopology whole = std::move(t);
  t = whole;
  t.gpus.clear();
  t.links.clear();
  const auto gpu_of = [&](std::size_t partition) { return partition / partitions.count; };
  for (std::size_t i = 0; i < all; ++i) {
    TopologyGpu gpu = whole.gpus[gpu_of(i)];
    gpu.partition = partitions.profile;
    gpu.uuid = uuids[i];
    gpu.vendor_index = static_cast<std::uint32_t>(i);
    t.gpus.push_back(std::move(gpu));
    for (std::size_t k = 0; k < all; ++k) {
      const bool one = gpu_of(i) == gpu_of(k);
      t.links.push_back(one ? GpuLink{.bandwidth_mbps = 0, .tier = PcieTier::kSameDevice}
                            : whole.link(gpu_of(i), gpu_of(k)));
    }
  }
  for (std::size_t n = 0; n < t.nics.size(); ++n) {
    t.nics[n].to_gpu.clear();
    for (std::size_t i = 0; i < all; ++i) {
      t.nics[n].to_gpu.push_back(whole.nics[n].to_gpu[gpu_of(i)]);
    }
  }
  return ok_status();
}

}  // namespace

Result<NodeTopology> with_site_choices(NodeTopology topology, const SiteChoices& choices) {
  if (choices.system_cores != 0) {
    MUSTER_TRY(reserve_cores(choices.system_cores, topology));
  }
  if (choices.leave_siblings) {
    for (TopologyCore& core : topology.cores) {
      core.threads = core.threads.lowest(1);
    }
  }
  if (!choices.gpu_partitions.empty()) {
    MUSTER_TRY(divide_gpus(choices, topology));
  } else if (!choices.gpu_partition_uuids.empty()) {
    return bad("gpu_partition_uuids", "it names partitions and gpu_partitions has none: set both, or neither");
  }
  if (const std::string problem = check_node_topology(topology); !problem.empty()) {
    return bad(choices.system_cores != 0 ? "system_cores" : "gpu_partitions", problem + ": choose fewer");
  }
  return topology;
}

}  // namespace muster::noded
