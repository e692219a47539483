// Features and network from their sections.
#include <algorithm>

#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/model/constraint.h"

namespace muster::config {
namespace {

Result<std::vector<std::string>> names_in(const std::string& list) {
  if (list.empty()) return std::vector<std::string>();
  return expand_node_list(list);
}

std::string in_file(const Config& config) {
  return config.path.empty() ? "" : " in " + printable(config.path);
}

Result<std::vector<std::uint32_t>> block_sizes_of(const Config& config) {
  std::vector<std::uint32_t> sizes;
  if (config.topology.block_sizes.empty()) return sizes;
  for (const std::string_view item : split(config.topology.block_sizes, ',')) {
    const auto size = parse_count(trim(item), "block_sizes", {1, kNodeListMax});
    if (!size.ok()) {
      return invalid_argument("block_sizes in [topology]" + in_file(config) + " has \"" +
                              printable(item.substr(0, 40)) + "\", which is no number of nodes from 1 to " +
                              std::to_string(kNodeListMax) + ": write for example 4,8,16");
    }
    sizes.push_back(static_cast<std::uint32_t>(*size));
  }
  return sizes;
}

}  // namespace

Result<Topology> topology_of(const Config& config) {
  Topology topology;
  if (config.topology.kind == "tree") {
    topology.kind = TopologyKind::kTree;
    for (const auto& [name, in] : config.switches) {
      Topology::Switch out{name, {}, {}, in.place};
      MUSTER_ASSIGN(out.nodes, names_in(in.nodes));
      MUSTER_ASSIGN(out.switches, names_in(in.switches));
      topology.switches.push_back(std::move(out));
    }
    std::sort(topology.switches.begin(), topology.switches.end(),
              [](const auto& a, const auto& b) { return natural_less(a.name, b.name); });
  } else if (config.topology.kind == "block") {
    topology.kind = TopologyKind::kBlock;
    for (const std::string& name : config.block_order) {
      const BlockSection& in = config.blocks.at(name);
      Topology::Block out{name, {}, in.place};
      MUSTER_ASSIGN(out.nodes, names_in(in.nodes));
      topology.blocks.push_back(std::move(out));
    }
    MUSTER_ASSIGN(topology.block_sizes, block_sizes_of(config));
  }
  MUSTER_TRY(check_topology(topology));
  return topology;
}

Result<std::map<std::string, std::vector<std::string>>> features_of(const Config& config) {
  std::map<std::string, std::vector<std::string>> features;
  for (const auto& [name, in] : config.features) {
    MUSTER_ASSIGN(features[name], names_in(in.nodes));
  }
  return features;
}

Result<std::vector<std::string>> node_features_of(const Config& config) {
  std::vector<std::string> features;
  if (config.node.features.empty()) return features;
  for (const std::string_view item : split(config.node.features, ',')) {
    const std::string name(trim(item));
    if (!is_valid_feature(name)) {
      return invalid_argument("features in [node]" + in_file(config) + " has \"" + printable(name.substr(0, 70)) +
                              "\", which is no name of a feature: use 1 to 63 letters, digits, '_', '.', '-', ':', "
                              "separated by commas");
    }
    if (std::find(features.begin(), features.end(), name) == features.end()) features.push_back(name);
  }
  return features;
}

}  // namespace muster::config
