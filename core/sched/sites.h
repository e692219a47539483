// Sites: what the configuration says of nodes by name, and Places: the same over the nodes that are known, by their rank
// in the ledger's order. Values; Sites never changes once it is shared.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/model/constraint.h"
#include "lib/model/topology.h"

namespace muster::sched {

struct Sites {
  std::map<std::string, std::vector<std::string>> features;  // names of the nodes that have each
  Topology topology;                                         // passed check_topology()
};

struct Places {
  std::map<std::string, IndexSet> features;  // ranks of the nodes that have each; also those that nodes say themselves

  TopologyKind kind = TopologyKind::kNone;
  // Domains of nodes that are near each other. Of a tree: its switches, the lowest first. Of blocks: the blocks, then
  // the groups of 2, of 4, ..., as far as block_sizes goes.
  struct Domain {
    std::string name;
    IndexSet ranks;
    std::uint32_t level = 0;      // 0: a leaf switch or a block
    std::uint32_t nodes_max = 0;  // block groups: the most nodes of a job that it is for; else no limit
  };
  std::vector<Domain> domains;
  static constexpr std::uint32_t kNowhere = UINT32_MAX;
  std::vector<std::uint32_t> leaf;  // by rank: the domain of level 0 that the node is in, or kNowhere
  // By rank: the node's place when all are listed domain by domain; those of no domain come last.
  std::vector<std::uint32_t> position;

  [[nodiscard]] IndexSet nodes_with(const FeatureExpr& expr) const;
  // "core.rack1.leaf3", or the block's name; empty for a node in no domain.
  [[nodiscard]] std::string address_of(std::uint32_t rank) const;
};

// One known node, as Places needs it.
struct PlacedNode {
  std::string name;
  const std::vector<std::string>* features = nullptr;
};
// `nodes` in the order of their ranks.
Places make_places(const Sites* sites, const std::vector<PlacedNode>& nodes);

}  // namespace muster::sched
