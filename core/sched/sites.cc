#include "core/sched/sites.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string_view>

#include "lib/base/check.h"

namespace muster::sched {
namespace {

using RankByName = std::map<std::string_view, std::uint32_t>;

IndexSet ranks_of(const RankByName& rank_by_name, const std::vector<std::string>& names) {
  IndexSet ranks;
  for (const std::string& name : names) {
    if (const auto it = rank_by_name.find(name); it != rank_by_name.end()) {
      ranks.insert(it->second);
    }
  }
  return ranks;
}

// Leaves come before the switches above them, and in the order in which a walk from the top meets them.
class TreeOrder {
 public:
  TreeOrder(const Topology& topology, const RankByName& rank_by_name, Places& out)
      : topology_(topology), rank_by_name_(rank_by_name), out_(out) {
    std::map<std::string_view, bool> has_parent;
    for (std::size_t i = 0; i < topology.switches.size(); ++i) {
      index_.emplace(topology.switches[i].name, i);
      for (const std::string& child : topology.switches[i].switches) {
        has_parent[child] = true;
      }
    }
    for (std::size_t i = 0; i < topology.switches.size(); ++i) {
      if (!has_parent.contains(topology.switches[i].name)) {
        walk(i, "");
      }
    }
    std::stable_sort(out_.domains.begin(), out_.domains.end(),
                     [](const Places::Domain& a, const Places::Domain& b) { return a.level < b.level; });
  }

 private:
  struct Below {
    IndexSet ranks;
    std::uint32_t height = 0;
  };
  // The way down is bounded by kTopologyHeightMax.
  Below walk(std::size_t i, const std::string& above) {
    const Topology::Switch& here = topology_.switches[i];
    const std::string name = above.empty() ? here.name : above + "." + here.name;
    Below below;
    below.ranks = ranks_of(rank_by_name_, here.nodes);
    for (const std::string& child : here.switches) {
      const Below one = walk(index_.at(child), name);
      below.ranks |= one.ranks;
      below.height = std::max(below.height, one.height + 1);
    }
    out_.domains.push_back(Places::Domain{name, below.ranks, below.height, UINT32_MAX});
    return below;
  }

  const Topology& topology_;
  const RankByName& rank_by_name_;
  Places& out_;
  std::map<std::string_view, std::size_t> index_;
};

void add_blocks(const Topology& topology, const RankByName& rank_by_name, Places& out) {
  for (const Topology::Block& block : topology.blocks) {
    out.domains.push_back(
        Places::Domain{block.name, ranks_of(rank_by_name, block.nodes), 0, topology.block_sizes.front()});
  }
  const std::size_t blocks = topology.blocks.size();
  for (std::size_t level = 1; level < topology.block_sizes.size(); ++level) {
    const std::size_t together = topology.block_sizes[level] / topology.block_sizes.front();
    for (std::size_t first = 0; first < blocks; first += together) {
      const std::size_t last = std::min(first + together, blocks) - 1;
      Places::Domain group;
      group.name = out.domains[first].name + ".." + out.domains[last].name;
      for (std::size_t i = first; i <= last; ++i) {
        group.ranks |= out.domains[i].ranks;
      }
      group.level = static_cast<std::uint32_t>(level);
      group.nodes_max = topology.block_sizes[level];
      out.domains.push_back(std::move(group));
    }
  }
}

}  // namespace

IndexSet Places::nodes_with(const FeatureExpr& expr) const {
  IndexSet ranks;
  switch (expr.kind) {
    case FeatureExpr::Kind::kName:
      if (const auto it = features.find(expr.name); it != features.end()) {
        ranks = it->second;
      }
      break;
    case FeatureExpr::Kind::kAll:
      ranks = nodes_with(expr.children.front());
      for (std::size_t i = 1; i < expr.children.size(); ++i) {
        ranks &= nodes_with(expr.children[i]);
      }
      break;
    case FeatureExpr::Kind::kAny:
      for (const FeatureExpr& child : expr.children) {
        ranks |= nodes_with(child);
      }
      break;
  }
  return ranks;
}

std::string Places::address_of(std::uint32_t rank) const {
  return rank < leaf.size() && leaf[rank] != kNowhere ? domains[leaf[rank]].name : "";
}

Places make_places(const Sites* sites, const std::vector<PlacedNode>& nodes) {
  Places out;
  RankByName rank_by_name;
  for (std::uint32_t rank = 0; rank < nodes.size(); ++rank) {
    rank_by_name.emplace(nodes[rank].name, rank);
    for (const std::string& feature : *nodes[rank].features) {
      out.features[feature].insert(rank);
    }
  }
  out.leaf.assign(nodes.size(), Places::kNowhere);
  out.position.resize(nodes.size());
  std::iota(out.position.begin(), out.position.end(), 0);
  if (sites == nullptr) {
    return out;
  }
  for (const auto& [feature, names] : sites->features) {
    out.features[feature] |= ranks_of(rank_by_name, names);
  }
  out.kind = sites->topology.kind;
  switch (out.kind) {
    case TopologyKind::kNone:
      return out;
    case TopologyKind::kTree:
      TreeOrder(sites->topology, rank_by_name, out);
      break;
    case TopologyKind::kBlock:
      add_blocks(sites->topology, rank_by_name, out);
      break;
  }
  std::vector<std::uint32_t> listed;
  for (std::uint32_t i = 0; i < out.domains.size() && out.domains[i].level == 0; ++i) {
    for (const std::uint32_t rank : out.domains[i].ranks.to_vector()) {
      out.leaf[rank] = i;
      listed.push_back(rank);
    }
  }
  for (std::uint32_t rank = 0; rank < nodes.size(); ++rank) {
    if (out.leaf[rank] == Places::kNowhere) {
      listed.push_back(rank);
    }
  }
  for (std::uint32_t i = 0; i < listed.size(); ++i) {
    out.position[listed[i]] = i;
  }
  return out;
}

}  // namespace muster::sched
