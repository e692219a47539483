// Which nodes a job may use, and whether given ones suit it.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "core/sched/place.h"
#include "core/sched/request.h"

namespace muster::sched {
namespace {

// The cross product of the lists of choices, each with the nodes that satisfy it.
std::vector<IndexSet> choices_of(const Constraint& constraint, const Places& places) {
  std::vector<IndexSet> choices;
  for (const auto& list : constraint.same) {
    std::vector<IndexSet> both;
    for (const FeatureExpr& expr : list) {
      const IndexSet nodes = places.nodes_with(expr);
      if (choices.empty()) {
        both.push_back(nodes);
      }
      for (const IndexSet& before : choices) {
        both.push_back(before & nodes);
      }
    }
    choices = std::move(both);
  }
  return choices;
}

// Nodes that failed the job are not for it while others in service could take it, now or later.
void avoid_suspects(const Ledger& ledger, const JobSpec& spec, NodeFilter& filter) {
  if (spec.avoid.empty()) {
    return;
  }
  const IndexSet all = IndexSet::range(0, static_cast<std::uint32_t>(ledger.order().size()));
  // What the user names is not avoided.
  const IndexSet avoided = ledger.ranks_of(spec.avoid) - ledger.ranks_of(spec.nodelist);
  const IndexSet others = (filter.all ? all : filter.ranks) - avoided;
  std::uint64_t nodes = 0;
  std::uint64_t tasks = 0;
  for (const std::uint32_t rank : others.to_vector()) {
    const NodeCapacity& n = ledger.nodes()[ledger.order()[rank].value];
    const std::uint32_t fit = n.usable ? tasks_that_fit(spec, n, n.all) : 0;
    nodes += fit != 0 ? 1 : 0;
    tasks += fit;
  }
  if (nodes >= std::max(1U, spec.nodes_min) && tasks >= spec.ntasks) {
    filter.narrow(others);
  }
}

}  // namespace

void NodeFilter::narrow(const IndexSet& to) {
  ranks = all ? to : ranks & to;
  all = false;
}

bool only_named(const JobSpec& spec) {
  return !spec.nodelist.empty() &&
         (spec.ntasks <= spec.nodelist.size() || (spec.nodes_max != 0 && spec.nodes_max <= spec.nodelist.size()));
}

NodeFilter make_filter(const Ledger& ledger, const JobSpec& spec, const std::vector<std::string>& allowed,
                       const std::shared_ptr<const Sites>& sites) {
  NodeFilter filter;
  if (!allowed.empty()) {
    filter.narrow(ledger.ranks_of(allowed));
  }
  if (only_named(spec)) {
    filter.narrow(ledger.ranks_of(spec.nodelist));
  }
  if (!spec.exclude.empty()) {
    if (filter.all) {
      filter.narrow(IndexSet::range(0, static_cast<std::uint32_t>(ledger.order().size())));
    }
    filter.ranks -= ledger.ranks_of(spec.exclude);
  }
  if (sites != nullptr && sites->topology.kind != TopologyKind::kNone) {
    filter.places = ledger.places(sites);
  }
  if (!spec.constraint.empty()) {
    // It was checked at submission; what cannot be read any more allows no node.
    const auto constraint = parse_constraint(spec.constraint, "--constraint");
    const std::shared_ptr<const Places> places = ledger.places(sites);
    if (!constraint.ok()) {
      filter.narrow({});
      return filter;
    }
    for (const FeatureExpr& expr : constraint->every) {
      filter.narrow(places->nodes_with(expr));
    }
    filter.choices = choices_of(*constraint, *places);
    for (const Constraint::Counted& one : constraint->counted) {
      filter.quotas.push_back({places->nodes_with(one.what), one.nodes});
    }
  }
  avoid_suspects(ledger, spec, filter);
  return filter;
}

bool any_switches(const JobSpec& spec, Instant since, Instant at) {
  return spec.switches == 0 || at >= switches_lapse(spec, since);
}

Instant switches_lapse(const JobSpec& spec, Instant since) {
  return end_of(since, spec.switches_wait);
}

namespace {

// Blocks: all in one group of the smallest size that is meant for so many nodes, or in as few of the largest groups as
// are meant for them.
bool suits_blocks(const Places& places, const std::vector<std::uint32_t>& ranks) {
  const auto nodes = static_cast<std::uint32_t>(ranks.size());
  std::uint32_t level = places.domains.back().level;
  for (auto d = places.domains.rbegin(); d != places.domains.rend() && d->nodes_max >= nodes; ++d) {
    level = d->level;
  }
  const bool somewhere = std::all_of(ranks.begin(), ranks.end(),
                                     [&](std::uint32_t rank) { return places.leaf[rank] != Places::kNowhere; });
  std::uint32_t size = 1;
  std::uint32_t groups = 0;
  for (const Places::Domain& d : places.domains) {
    if (d.level == level) {
      size = d.nodes_max;
      groups += std::any_of(ranks.begin(), ranks.end(), [&d](std::uint32_t rank) { return d.ranks.contains(rank); });
    }
  }
  return somewhere && groups <= (nodes + size - 1) / size;
}

const char* unsuitable_network(const Places& places, const JobSpec& spec, const std::vector<std::uint32_t>& ranks,
                               bool any_switches) {
  std::map<std::uint32_t, std::uint32_t> by_leaf;
  for (const std::uint32_t rank : ranks) {
    ++by_leaf[places.leaf[rank]];
  }
  switch (places.kind) {
    case TopologyKind::kNone:
      return nullptr;
    case TopologyKind::kTree:
      if (!any_switches && (by_leaf.size() > spec.switches || by_leaf.contains(Places::kNowhere))) {
        return "its nodes are below more switches than it allows";
      }
      return nullptr;
    case TopologyKind::kBlock:
      if (spec.segment != 0) {
        const bool whole = std::all_of(by_leaf.begin(), by_leaf.end(), [&spec](const auto& one) {
          return one.first != Places::kNowhere && one.second % spec.segment == 0;
        });
        return whole ? nullptr : "its segments are not inside blocks";
      }
      return suits_blocks(places, ranks) ? nullptr : "its nodes are not in one group of blocks";
  }
  return nullptr;
}

}  // namespace

const char* unsuitable(const Ledger& ledger, const JobSpec& spec, const NodeFilter& filter,
                       const std::vector<NodeShare>& shares, bool any_switches) {
  std::vector<std::uint32_t> ranks;
  for (const NodeShare& share : shares) {
    if (share.node.value >= ledger.nodes().size() || !ledger.nodes()[share.node.value].known) {
      return "the plan names an unknown node";
    }
    ranks.push_back(ledger.rank(share.node));
    if (!filter.allows(ranks.back())) {
      return "the plan gives it a node that it may not use";
    }
  }
  const auto inside = [&ranks](const IndexSet& set) {
    return std::count_if(ranks.begin(), ranks.end(), [&set](std::uint32_t rank) { return set.contains(rank); });
  };
  const auto nodes = static_cast<std::ptrdiff_t>(ranks.size());
  if (!filter.choices.empty() && std::none_of(filter.choices.begin(), filter.choices.end(),
                                              [&](const IndexSet& choice) { return inside(choice) == nodes; })) {
    return "its nodes do not all have the same of the features in [ ]";
  }
  for (const NodeFilter::Quota& quota : filter.quotas) {
    if (inside(quota.ranks) < static_cast<std::ptrdiff_t>(quota.nodes)) {
      return "too few of its nodes have a feature that it counts";
    }
  }
  return filter.places == nullptr || ranks.size() == 1 ? nullptr
                                                       : unsuitable_network(*filter.places, spec, ranks, any_switches);
}

}  // namespace muster::sched
