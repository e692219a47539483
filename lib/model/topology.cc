#include "lib/model/topology.h"

#include <algorithm>
#include <map>

#include "lib/base/text.h"

namespace muster {
namespace {

template <typename Domain>
std::string at_place(const Domain& domain) {
  return domain.place.empty() ? "" : " at " + domain.place;
}

// Each node once; `what` is "switch" or "block".
template <typename Domain>
Status check_nodes(const std::vector<Domain>& domains, const std::string& what) {
  std::map<std::string, const Domain*> of;
  for (const Domain& domain : domains) {
    for (const std::string& node : domain.nodes) {
      const auto [it, fresh] = of.emplace(node, &domain);
      if (!fresh) {
        return invalid_argument("[" + what + "." + domain.name + "]" + at_place(domain) + ": node " + printable(node) +
                                " is in " + what + " " + it->second->name + " already: name each node in one " + what);
      }
    }
  }
  return ok_status();
}

class Tree {
 public:
  explicit Tree(const Topology& topology) : switches_(topology.switches) {}

  Status check() {
    for (std::size_t i = 0; i < switches_.size(); ++i) index_.emplace(switches_[i].name, i);
    std::map<std::string, std::string> parent;
    for (const Topology::Switch& each : switches_) {
      if (each.nodes.empty() == each.switches.empty()) {
        return bad(each, each.nodes.empty() ? "it has neither nodes nor switches: give one of them"
                                            : "it has both nodes and switches: give one of them");
      }
      for (const std::string& child : each.switches) {
        MUSTER_TRY(check_child(each, child));
        const auto [it, fresh] = parent.emplace(child, each.name);
        if (!fresh) {
          return bad(each, "switch " + child + " is below switch " + it->second + " already: name it in one switch");
        }
      }
    }
    MUSTER_TRY(check_nodes(switches_, "switch"));
    return check_heights(parent);
  }

 private:
  // Each has one parent at most, so a way up that does not end goes round.
  Status check_heights(const std::map<std::string, std::string>& parent) const {
    for (const Topology::Switch& each : switches_) {
      std::size_t height = 0;
      auto up = parent.find(each.name);
      while (up != parent.end() && height <= switches_.size()) {
        ++height;
        const std::string& above = up->second;
        up = parent.find(above);
        if (height > switches_.size()) {
          return bad(switches_[index_.at(above)], "it is below itself: break the cycle of switches");
        }
      }
      if (height > kTopologyHeightMax) {
        return bad(each, std::to_string(height) + " switches are above it: at most " +
                             std::to_string(kTopologyHeightMax) + " can be");
      }
    }
    return ok_status();
  }

  Status check_child(const Topology::Switch& each, const std::string& child) const {
    if (index_.contains(child)) return ok_status();
    std::vector<std::string> known;
    for (const auto& [name, i] : index_) known.push_back(name);
    const std::string nearest = nearest_word(child, known);
    return bad(each, "it names the unknown switch " + printable(child) +
                         (nearest.empty() ? ": add [switch." + printable(child) + "] or leave it out"
                                          : ": did you mean " + nearest + "?"));
  }
  static Error bad(const Topology::Switch& each, const std::string& problem) {
    return invalid_argument("[switch." + each.name + "]" + at_place(each) + ": " + problem);
  }

  const std::vector<Topology::Switch>& switches_;
  std::map<std::string, std::size_t> index_;
};

Status check_blocks(Topology& topology) {
  std::uint32_t smallest = UINT32_MAX;
  for (const Topology::Block& block : topology.blocks) {
    if (block.nodes.empty()) {
      return invalid_argument("[block." + block.name + "]" + at_place(block) + ": it has no nodes: give some");
    }
    smallest = std::min(smallest, static_cast<std::uint32_t>(block.nodes.size()));
  }
  MUSTER_TRY(check_nodes(topology.blocks, "block"));
  std::vector<std::uint32_t>& sizes = topology.block_sizes;
  if (sizes.empty()) {
    for (std::uint64_t blocks = 1; blocks <= topology.blocks.size(); blocks *= 2) {
      sizes.push_back(static_cast<std::uint32_t>(smallest * blocks));
    }
    return ok_status();
  }
  if (sizes.front() == 0 || sizes.front() > smallest) {
    return invalid_argument("block_sizes in [topology] begins with " + std::to_string(sizes.front()) +
                            ", and the smallest block has " + std::to_string(smallest) +
                            " nodes: begin with at least 1 and at most that");
  }
  for (std::size_t i = 1; i < sizes.size(); ++i) {
    const std::uint32_t times = sizes[i] / sizes.front();
    const bool power = times != 0 && (times & (times - 1)) == 0;
    if (sizes[i] % sizes.front() != 0 || !power || sizes[i] <= sizes[i - 1]) {
      return invalid_argument("block_sizes in [topology] has " + std::to_string(sizes[i]) +
                              ": each must be the first one times 2, 4, 8, .. and larger than the one before it");
    }
  }
  return ok_status();
}

}  // namespace

Status check_topology(Topology& topology) {
  if (topology.switches.size() > kTopologyDomainsMax || topology.blocks.size() > kTopologyDomainsMax) {
    return invalid_argument("[topology] has more than " + std::to_string(kTopologyDomainsMax) +
                            " switches or blocks: leave some out");
  }
  switch (topology.kind) {
    case TopologyKind::kNone:
      return ok_status();
    case TopologyKind::kTree:
      if (topology.switches.empty()) {
        return invalid_argument("kind in [topology] is tree and there is no switch: add [switch.NAME] sections");
      }
      return Tree(topology).check();
    case TopologyKind::kBlock:
      if (topology.blocks.empty()) {
        return invalid_argument("kind in [topology] is block and there is no block: add [block.NAME] sections");
      }
      return check_blocks(topology);
  }
  return ok_status();
}

}  // namespace muster
