#include "cli/topology_json.h"

#include <nlohmann/json.hpp>

#include "lib/model/node_topology_text.h"

namespace muster::cli {
namespace {

using Json = nlohmann::ordered_json;

// Cores that share a last-level cache.
Json caches_json(const NodeTopology& t) {
  Json list = Json::array();
  for (std::size_t first = 0; first < t.cores.size();) {
    const TopologyCore& core = t.cores[first];
    std::size_t last = first;
    IndexSet threads;
    while (last < t.cores.size() && t.cores[last].l3 == core.l3 && t.cores[last].package == core.package) {
      threads |= t.cores[last++].threads;
    }
    Json one;
    one["package"] = core.package;
    one["numa"] = core.numa;
    one["l3"] = core.l3;
    one["cores"] =
        IndexSet::range(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last - first)).to_string();
    one["cpus"] = threads.to_string();
    list.push_back(std::move(one));
    first = last;
  }
  return list;
}

Json numa_json(const NodeTopology& t) {
  Json list = Json::array();
  for (const TopologyNuma& numa : t.numa) {
    list.push_back({{"os", numa.os_nodes.to_string()}, {"mem_mib", numa.mem_mib}});
  }
  return list;
}

Json gpus_json(const NodeTopology& t) {
  Json list = Json::array();
  for (std::size_t a = 0; a < t.gpus.size(); ++a) {
    const TopologyGpu& gpu = t.gpus[a];
    Json one;
    one["pci_address"] = gpu.pci_address;
    if (!gpu.uuid.empty()) one["uuid"] = gpu.uuid;
    if (!gpu.model.empty()) one["model"] = gpu.model;
    one["index"] = gpu.vendor_index;
    if (!gpu.partition.empty()) one["partition"] = gpu.partition;
    one["cores"] = gpu.cores.to_string();
    Json links = Json::array();
    for (std::size_t b = 0; b < t.gpus.size(); ++b) {
      links.push_back({{"type", gpu_link_name(t.link(a, b))}, {"mb_per_s", t.link(a, b).bandwidth_mbps}});
    }
    one["links"] = std::move(links);
    list.push_back(std::move(one));
  }
  return list;
}

Json nics_json(const NodeTopology& t) {
  Json list = Json::array();
  for (const TopologyNic& nic : t.nics) {
    Json one;
    one["pci_address"] = nic.pci_address;
    one["names"] = nic.names;
    one["fabric"] = nic.fabric;
    one["cores"] = nic.cores.to_string();
    Json links = Json::array();
    for (const PcieTier tier : nic.to_gpu) links.push_back(pcie_tier_name(tier));
    one["gpu_links"] = std::move(links);
    list.push_back(std::move(one));
  }
  return list;
}

}  // namespace

Json topology_json(const NodeTopology& topology) {
  Json out;
  out["class"] = format_topology_hash(topology_hash(topology));
  out["packages"] = topology.packages;
  out["numa"] = numa_json(topology);
  out["l3"] = caches_json(topology);
  out["gpus"] = gpus_json(topology);
  out["nics"] = nics_json(topology);
  return out;
}

}  // namespace muster::cli
