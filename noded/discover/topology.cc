#include "noded/discover/topology.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "noded/discover/discover.h"
#include "noded/discover/hwloc_devices.h"
#include "noded/discover/hwloc_source.h"

namespace muster::noded {
namespace {

// Cores of one node: some times what the largest machines have; a description with more is a mistake.
constexpr std::uint64_t kCoresMax = 16'384;

// NUMA nodes that have the same cores.
struct NumaGroup {
  hwloc_const_cpuset_t cpus = nullptr;
  TopologyNuma numa;
};

bool is_gpu_memory(hwloc_obj_t node) {
  return node->subtype != nullptr && std::strcmp(node->subtype, "GPUMemory") == 0;
}

std::vector<NumaGroup> numa_groups(hwloc_topology* t) {
  std::vector<NumaGroup> groups;
  const int count = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
  for (int i = 0; i < count; ++i) {
    hwloc_obj_t node = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, static_cast<unsigned>(i));
    if (hwloc_bitmap_iszero(node->cpuset) != 0 || is_gpu_memory(node) || node->os_index > IndexSet::kIndexMax) {
      continue;
    }
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const NumaGroup& g) { return hwloc_bitmap_isequal(g.cpus, node->cpuset) != 0; });
    if (group == groups.end()) {
      groups.push_back({.cpus = node->cpuset, .numa = {}});
      group = groups.end() - 1;
    }
    group->numa.os_nodes.insert(node->os_index);
    group->numa.mem_mib += node->attr->numanode.local_memory >> 20U;
  }
  return groups;
}

// The smallest group around these CPUs.
std::optional<std::size_t> group_of(const std::vector<NumaGroup>& groups, hwloc_const_cpuset_t cpus) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (hwloc_bitmap_isincluded(cpus, groups[i].cpus) != 0 &&
        (!best || hwloc_bitmap_weight(groups[i].cpus) < hwloc_bitmap_weight(groups[*best].cpus))) {
      best = i;
    }
  }
  return best;
}

// The cache that this core shares with others; null when there is none.
hwloc_obj_t cache_of(hwloc_topology* t, hwloc_obj_t core) {
  if (hwloc_obj_t l3 = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_L3CACHE, core); l3 != nullptr) {
    return l3;
  }
  hwloc_obj_t l2 = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_L2CACHE, core);
  return l2 != nullptr && hwloc_bitmap_isequal(l2->cpuset, core->cpuset) == 0 ? l2 : nullptr;
}

Result<IndexSet> threads_of(hwloc_obj_t object, std::string_view text) {
  IndexSet out;
  for (int pu = hwloc_bitmap_first(object->cpuset); pu >= 0; pu = hwloc_bitmap_next(object->cpuset, pu)) {
    if (static_cast<std::uint32_t>(pu) > IndexSet::kIndexMax) {
      return bad_topology(text, "it numbers a hardware thread " + std::to_string(pu) + ": at most " +
                                    std::to_string(IndexSet::kIndexMax) + " is accepted");
    }
    out.insert(static_cast<std::uint32_t>(pu));
  }
  return out;
}

// Only groups that are nearest to some core count; a machine without NUMA nodes has one.
void number_numa_nodes(std::vector<NumaGroup>& groups, const std::vector<std::optional<std::size_t>>& group_of_core,
                       NodeTopology& out) {
  std::map<std::size_t, std::uint32_t> numbers;
  for (const auto& group : group_of_core) {
    if (group) {
      numbers.emplace(*group, 0);
    }
  }
  for (auto& [group, number] : numbers) {
    number = static_cast<std::uint32_t>(out.numa.size());
    out.numa.push_back(std::move(groups[group].numa));
  }
  if (out.numa.empty()) {
    out.numa.emplace_back();
  }
  for (std::size_t i = 0; i < out.cores.size(); ++i) {
    out.cores[i].numa = group_of_core[i] ? numbers[*group_of_core[i]] : 0;
  }
}

Status add_cores(hwloc_topology* t, std::string_view text, NodeTopology& out) {
  // Some virtual machines show no cores: then each hardware thread is one.
  const hwloc_obj_type_t type = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  const int count = hwloc_get_nbobjs_by_type(t, type);
  if (count <= 0 || static_cast<std::uint64_t>(count) > kCoresMax) {
    return bad_topology(
        text, "it has " + std::to_string(count) + " cores: 1 to " + std::to_string(kCoresMax) + " are accepted");
  }
  std::vector<NumaGroup> groups = numa_groups(t);
  std::vector<std::optional<std::size_t>> group_of_core;
  std::vector<hwloc_obj_t> caches;
  for (int i = 0; i < count; ++i) {
    hwloc_obj_t object = hwloc_get_obj_by_type(t, type, static_cast<unsigned>(i));
    TopologyCore core;
    MUSTER_ASSIGN(core.threads, threads_of(object, text));
    if (core.threads.empty()) {
      continue;
    }
    hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_PACKAGE, object);
    core.package = package != nullptr ? package->logical_index : 0;
    out.packages = std::max(out.packages, core.package + 1);
    out.cores.push_back(std::move(core));
    group_of_core.push_back(group_of(groups, object->cpuset));
    caches.push_back(cache_of(t, object));
  }
  if (out.cores.empty()) {
    return bad_topology(text, "it has no core that may be used");
  }
  number_numa_nodes(groups, group_of_core, out);
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint32_t> domains;
  for (std::size_t i = 0; i < out.cores.size(); ++i) {
    // Without a shared cache the package stands for it, which the NUMA node divides further.
    const std::uint64_t cache = caches[i] != nullptr ? caches[i]->gp_index + out.packages : out.cores[i].package;
    out.cores[i].l3 =
        domains.emplace(std::pair(out.cores[i].numa, cache), static_cast<std::uint32_t>(domains.size())).first->second;
  }
  return ok_status();
}

std::uint64_t memory_of(hwloc_topology* t) {
  std::uint64_t bytes = 0;
  const int count = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
  for (int i = 0; i < count; ++i) {
    hwloc_obj_t node = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, static_cast<unsigned>(i));
    if (hwloc_bitmap_iszero(node->cpuset) == 0 && !is_gpu_memory(node)) {
      bytes += node->attr->numanode.local_memory;
    }
  }
  return bytes >> 20U;
}

// The cores of the object that the device hangs under.
IndexSet cores_near(hwloc_topology* t, hwloc_obj_t device, const NodeTopology& topology) {
  IndexSet out;
  hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(t, device);
  for (std::uint32_t i = 0; near != nullptr && near->cpuset != nullptr && i < topology.cores.size(); ++i) {
    if (hwloc_bitmap_isset(near->cpuset, topology.cores[i].threads.lowest(1).to_vector().front()) != 0) {
      out.insert(i);
    }
  }
  return out;
}

// Where a device is, by the cores that are local to it.
struct Whereabouts {
  IndexSet numa;
  IndexSet packages;
};

Whereabouts whereabouts(const NodeTopology& t, const IndexSet& cores) {
  Whereabouts out;
  for (const std::uint32_t core : cores.to_vector()) {
    out.numa.insert(t.cores[core].numa);
    out.packages.insert(t.cores[core].package);
  }
  return out;
}

// The nearest that two devices can be by their cores alone.
PcieTier tier_by_cores(const Whereabouts& a, const Whereabouts& b) {
  if (a.numa.intersects(b.numa)) {
    return PcieTier::kSameNuma;
  }
  return a.packages.intersects(b.packages) ? PcieTier::kOtherNuma : PcieTier::kOtherPackage;
}

void add_devices(hwloc_topology* t, NodeTopology& out) {
  const std::vector<FoundGpu> gpus = find_gpus(t);
  std::vector<Whereabouts> places;
  for (const FoundGpu& found : gpus) {
    out.gpus.push_back(found.gpu);
    out.gpus.back().cores = cores_near(t, found.pci, out);
    places.push_back(whereabouts(out, out.gpus.back().cores));
  }
  const std::vector<std::uint32_t> bandwidths = link_bandwidths(t, gpus);
  for (std::size_t a = 0; a < gpus.size(); ++a) {
    for (std::size_t b = 0; b < gpus.size(); ++b) {
      out.links.push_back(
          {.bandwidth_mbps = bandwidths[a * gpus.size() + b],
           .tier = std::max(bridge_tier(gpus[a].pci, gpus[b].pci), tier_by_cores(places[a], places[b]))});
    }
  }
  for (const FoundNic& found : find_nics(t)) {
    TopologyNic nic = found.nic;
    nic.cores = cores_near(t, found.pci, out);
    const Whereabouts place = whereabouts(out, nic.cores);
    for (std::size_t g = 0; g < gpus.size(); ++g) {
      nic.to_gpu.push_back(std::max(bridge_tier(found.pci, gpus[g].pci), tier_by_cores(place, places[g])));
    }
    out.nics.push_back(std::move(nic));
  }
}

// They come behind those that are there, spread over the NUMA nodes, a host bridge each.
void add_pretended_gpus(std::uint64_t count, NodeTopology& out) {
  const std::size_t real = out.gpus.size();
  const std::size_t all = real + count;
  for (std::uint64_t i = 0; i < count; ++i) {
    TopologyGpu gpu;
    char address[32];
    std::snprintf(address, sizeof(address), "ffff:%02x:00.0", static_cast<unsigned>(i + 1));
    gpu.pci_address = address;
    gpu.model = "pretended";
    gpu.vendor_index = static_cast<std::uint32_t>(real + i);
    const std::uint64_t numa = i * out.numa.size() / count;
    for (std::uint32_t c = 0; c < out.cores.size(); ++c) {
      if (out.cores[c].numa == numa) {
        gpu.cores.insert(c);
      }
    }
    out.gpus.push_back(std::move(gpu));
  }
  std::vector<Whereabouts> places;
  for (const TopologyGpu& gpu : out.gpus) {
    places.push_back(whereabouts(out, gpu.cores));
  }
  std::vector<GpuLink> links(all * all);
  for (std::size_t a = 0; a < all; ++a) {
    for (std::size_t b = 0; b < all; ++b) {
      GpuLink& link = links[a * all + b];
      if (a < real && b < real) {
        link = out.links[a * real + b];
      } else if (a == b) {
        link.tier = PcieTier::kSameDevice;
      } else {
        link.tier = tier_by_cores(places[a], places[b]);
      }
    }
  }
  out.links = std::move(links);
  for (TopologyNic& nic : out.nics) {
    const Whereabouts place = whereabouts(out, nic.cores);
    for (std::size_t g = real; g < all; ++g) {
      nic.to_gpu.push_back(tier_by_cores(place, places[g]));
    }
  }
}

}  // namespace

Result<NodeTopology> discover_topology(std::string_view topology, std::uint64_t memory_mib) {
  MUSTER_ASSIGN(const TopologySource source, parse_source(topology));
  MUSTER_ASSIGN(const HwlocTopology loaded, load(source));
  NodeTopology out;
  out.pretended = !source.description.empty();
  MUSTER_TRY(add_cores(loaded.get(), topology, out));
  add_devices(loaded.get(), out);
  if (source.extra_gpus > 0) {
    add_pretended_gpus(source.extra_gpus, out);
  }
  // hwloc gives each NUMA node of a synthetic description 1 GiB when it names no memory.
  const bool names_none = out.pretended && !source.is_file && source.description.find("memory=") == std::string::npos;
  out.mem_mib = names_none ? 0 : memory_of(loaded.get());
  if (memory_mib != 0) {
    out.mem_mib = memory_mib;
  } else if (out.mem_mib == 0 && out.pretended) {
    out.mem_mib = kPretendedMemoryMib;
  } else if (out.mem_mib == 0) {
    return make_error(ErrorCode::kRefused, "this machine's memory cannot be found out: set [node] memory");
  }
  if (const std::string problem = check_node_topology(out); !problem.empty()) {
    return bad_topology(topology, problem + ": make the file again with lstopo --of xml");
  }
  return out;
}

}  // namespace muster::noded
