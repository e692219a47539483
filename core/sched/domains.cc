#include "core/sched/domains.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "core/sched/request.h"

namespace muster::sched {
namespace {

// How many of `set` each leaf domain has. The last entry counts those that are in none.
std::vector<std::uint32_t> count_by_leaf(const Places& places, const IndexSet& set) {
  std::uint32_t leaves = 0;
  while (leaves < places.domains.size() && places.domains[leaves].level == 0) {
    ++leaves;
  }
  std::vector<std::uint32_t> counts(leaves + 1, 0);
  const std::vector<std::uint64_t>& words = set.words();
  for (std::size_t w = 0; w < words.size(); ++w) {
    for (std::uint64_t bits = words[w]; bits != 0; bits &= bits - 1) {
      const std::uint32_t leaf = places.leaf[w * 64 + static_cast<std::size_t>(std::countr_zero(bits))];
      ++counts[std::min(leaf, leaves)];
    }
  }
  return counts;
}

// Which offers are taken first so that each count of features is reached: for every way to do so by classes of nodes with
// the same features, those of each class with most room. Taking more than these is left to choose_from().
class Covers {
 public:
  Covers(std::vector<Offer>& offers, std::vector<Offer*> named, const std::vector<NodeFilter::Quota>& quotas,
         std::size_t nodes_max)
      : named_(std::move(named)), nodes_max_(nodes_max) {
    for (const NodeFilter::Quota& quota : quotas) {
      missing_.push_back(quota.nodes);
    }
    const auto mask_of = [&quotas](const Offer& o) {
      std::uint32_t mask = 0;
      for (std::size_t i = 0; i < quotas.size(); ++i) {
        mask |= quotas[i].ranks.contains(o.rank) ? 1U << i : 0U;
      }
      return mask;
    };
    for (const Offer* o : named_) {
      take(mask_of(*o), 1);
    }
    std::map<std::uint32_t, std::vector<Offer*>> by_mask;
    for (Offer& o : offers) {
      const std::uint32_t mask = mask_of(o);
      if (mask != 0 && o.capacity != 0 && std::find(named_.begin(), named_.end(), &o) == named_.end()) {
        by_mask[mask].push_back(&o);
      }
    }
    for (auto& [mask, list] : by_mask) {
      std::stable_sort(list.begin(), list.end(),
                       [](const Offer* a, const Offer* b) { return a->capacity > b->capacity; });
      classes_.emplace_back(mask, std::move(list));
    }
    std::stable_sort(classes_.begin(), classes_.end(),
                     [](const auto& a, const auto& b) { return std::popcount(a.first) > std::popcount(b.first); });
  }

  // Calls `attempt` with each cover until it gives slots.
  template <typename Attempt>
  std::vector<Slot> each(Attempt attempt) {
    return descend(0, named_, attempt);
  }

 private:
  // A bound on work: more covers than this differ in nothing that matters in practice.
  static constexpr int kTriesMax = 1'000;

  void take(std::uint32_t mask, std::int64_t nodes) {
    for (std::size_t i = 0; i < missing_.size(); ++i) {
      missing_[i] -= (mask >> i & 1U) != 0 ? nodes : 0;
    }
  }

  template <typename Attempt>
  std::vector<Slot> descend(std::size_t at, const std::vector<Offer*>& taken, Attempt& attempt) {
    const std::int64_t most = *std::max_element(missing_.begin(), missing_.end());
    if (taken.size() > nodes_max_ || --tries_ < 0) {
      return {};
    }
    if (most <= 0) {
      return attempt(taken);
    }
    if (at == classes_.size()) {
      return {};
    }
    const auto& [mask, list] = classes_[at];
    // More of a class than the largest of its counts needs is never of use for the counts.
    std::int64_t useful = 0;
    for (std::size_t i = 0; i < missing_.size(); ++i) {
      useful = (mask >> i & 1U) != 0 ? std::max(useful, missing_[i]) : useful;
    }
    const auto top = std::min<std::int64_t>(useful, static_cast<std::int64_t>(list.size()));
    for (std::int64_t n = top; n >= 0; --n) {
      std::vector<Offer*> more = taken;
      more.insert(more.end(), list.begin(), list.begin() + n);
      take(mask, n);
      std::vector<Slot> slots = descend(at + 1, more, attempt);
      take(mask, -n);
      if (!slots.empty()) {
        return slots;
      }
    }
    return {};
  }

  std::vector<Offer*> named_;
  std::size_t nodes_max_;
  std::vector<std::int64_t> missing_;  // by quota
  std::vector<std::pair<std::uint32_t, std::vector<Offer*>>> classes_;
  int tries_ = kTriesMax;
};

class Together {
 public:
  Together(const Supply& supply, const JobSpec& spec, const NodeFilter& filter, bool any_switches)
      : supply_(supply), spec_(spec), filter_(filter), any_switches_(any_switches || spec.switches == 0) {}

  std::vector<Slot> choose() {
    if (filter_.places == nullptr) {
      return among(supply_.plausible, node_counts(spec_));
    }
    counts_ = count_by_leaf(*filter_.places, supply_.plausible);
    switch (filter_.places->kind) {
      case TopologyKind::kNone:
        return among(supply_.plausible, node_counts(spec_));
      case TopologyKind::kTree:
        return in_tree();
      case TopologyKind::kBlock: {
        if (spec_.segment == 0) {
          return in_blocks();
        }
        std::vector<Slot> slots = in_segments(true);
        return slots.empty() ? in_segments(false) : slots;
      }
    }
    return {};
  }

 private:
  [[nodiscard]] const std::vector<Places::Domain>& domains() const { return filter_.places->domains; }
  [[nodiscard]] std::size_t leaves() const { return counts_.size() - 1; }
  [[nodiscard]] std::uint32_t nodes_min() const { return std::max(1U, spec_.nodes_min); }

  // Of these nodes, whatever the network.
  std::vector<Slot> among(const IndexSet& ranks, NodeCounts nodes) { return pick(offers(ranks), nodes); }

  std::vector<Offer> offers(const IndexSet& ranks) {
    std::vector<Offer> out = supply_.offers(ranks & supply_.plausible);
    if (filter_.places != nullptr) {
      for (Offer& o : out) {
        o.position = filter_.places->position[o.rank];
      }
    }
    return out;
  }

  std::vector<Slot> pick(std::vector<Offer> offers, NodeCounts nodes) {
    std::string missing;
    auto named = named_offers(offers, spec_, missing);
    if (!named) {
      return {};
    }
    if (filter_.quotas.empty()) {
      return choose_from(offers, std::move(*named), spec_, nodes);
    }
    return Covers(offers, std::move(*named), filter_.quotas, std::min<std::uint64_t>(nodes.max, offers.size()))
        .each([&](const std::vector<Offer*>& taken) { return choose_from(offers, taken, spec_, nodes); });
  }

  // The domains of a level that have enough plausible nodes, the ones with fewest first.
  [[nodiscard]] std::vector<std::size_t> candidates(std::size_t first, std::size_t end) const {
    std::vector<std::pair<std::uint32_t, std::size_t>> found;
    for (std::size_t i = first; i < end; ++i) {
      const std::uint32_t count = i < leaves() ? counts_[i] : (domains()[i].ranks & supply_.plausible).count();
      if (count >= nodes_min()) {
        found.emplace_back(count, i);
      }
    }
    std::sort(found.begin(), found.end());
    std::vector<std::size_t> out;
    out.reserve(found.size());
    for (const auto& [count, i] : found) {
      out.push_back(i);
    }
    return out;
  }
  [[nodiscard]] std::size_t end_of_level(std::size_t first) const {
    std::size_t end = first;
    while (end < domains().size() && domains()[end].level == domains()[first].level) {
      ++end;
    }
    return end;
  }

  // The lowest switch that has room, of these the one with the least.
  std::vector<Slot> in_tree() {
    const std::size_t leaves_max = any_switches_ ? SIZE_MAX : spec_.switches;
    if (nodes_min() == 1 && leaves_max != SIZE_MAX) {  // a single node may also be on no switch
      std::vector<Slot> slots = among(supply_.plausible, {1, 1});
      if (!slots.empty()) {
        return slots;
      }
    }
    for (std::size_t first = 0; first < domains().size(); first = end_of_level(first)) {
      if (first != 0 && leaves_max == 1) {
        return {};
      }
      for (const std::size_t i : candidates(first, end_of_level(first))) {
        std::vector<Slot> slots =
            first == 0 ? among(domains()[i].ranks, node_counts(spec_)) : over_leaves(domains()[i].ranks, leaves_max);
        if (!slots.empty()) {
          return slots;
        }
      }
    }
    std::vector<Slot> slots = over_leaves(supply_.plausible, leaves_max);
    return slots.empty() && any_switches_ ? among(supply_.plausible, node_counts(spec_)) : slots;
  }

  // As few leaves of `ranks` as hold the job: the fullest of them whole, and the smallest one that takes the rest.
  std::vector<Slot> over_leaves(const IndexSet& ranks, std::size_t leaves_max) {
    const IndexSet nodes = ranks & supply_.plausible;
    const std::vector<std::uint32_t> counts = count_by_leaf(*filter_.places, nodes);
    // By plausible nodes, and, where those are not alike, by the tasks that they hold.
    std::vector<std::size_t> by_nodes(leaves());
    std::iota(by_nodes.begin(), by_nodes.end(), 0);
    std::erase_if(by_nodes, [&counts](std::size_t leaf) { return counts[leaf] == 0; });
    std::stable_sort(by_nodes.begin(), by_nodes.end(),
                     [&counts](std::size_t a, std::size_t b) { return counts[a] > counts[b]; });
    std::vector<Slot> slots = fewest_leaves(by_nodes, counts, nodes, leaves_max);
    if (!slots.empty() || leaves_max >= by_nodes.size()) {
      return slots;
    }
    std::vector<std::uint64_t> tasks(leaves() + 1, 0);
    for (const Offer& o : offers(nodes)) {
      tasks[std::min<std::size_t>(filter_.places->leaf[o.rank], leaves())] += o.capacity;
    }
    std::stable_sort(by_nodes.begin(), by_nodes.end(),
                     [&tasks](std::size_t a, std::size_t b) { return tasks[a] > tasks[b]; });
    return some_of(by_nodes, leaves_max, [&](const std::vector<std::size_t>& some) { return of_leaves(some, nodes); });
  }

  // Tries sets of so many domains, those that come first in `order` first, until one gives slots: a bound on work keeps
  // it from all of them where there are many.
  template <typename Attempt>
  static std::vector<Slot> some_of(const std::vector<std::size_t>& order, std::size_t count, Attempt attempt) {
    int tries = 300;
    const std::size_t n = order.size();
    count = std::min(count, n);
    std::vector<std::size_t> at(count);
    std::iota(at.begin(), at.end(), 0);
    while (tries-- > 0) {
      std::vector<std::size_t> some;
      for (const std::size_t i : at) {
        some.push_back(order[i]);
      }
      std::vector<Slot> slots = attempt(some);
      if (!slots.empty()) {
        return slots;
      }
      std::size_t i = count;
      while (i > 0 && at[i - 1] == n - count + i - 1) {
        --i;
      }
      if (i == 0) {
        break;
      }
      ++at[i - 1];
      std::iota(at.begin() + static_cast<std::ptrdiff_t>(i), at.end(), at[i - 1] + 1);
    }
    return {};
  }

  std::vector<Slot> fewest_leaves(const std::vector<std::size_t>& order, const std::vector<std::uint32_t>& counts,
                                  const IndexSet& nodes, std::size_t leaves_max) {
    // Beyond the fewest that have enough nodes, so many more are tried, each time twice as many.
    const std::size_t most = std::min(leaves_max, order.size());
    std::uint64_t before = 0;
    std::size_t used = 0;
    while (used < most && before + counts[order[used]] < nodes_min()) {
      before += counts[order[used++]];
    }
    for (std::size_t step = 1; used < most; used = std::min(most, used + step), step *= 2) {
      std::vector<std::size_t> leaves(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(used));
      // The smallest leaf that completes it; they stand by falling counts.
      std::size_t last = used;
      while (last + 1 < order.size() && before + counts[order[last + 1]] >= nodes_min()) {
        ++last;
      }
      for (const std::size_t each : {last, used}) {
        leaves.push_back(order[each]);
        std::vector<Slot> slots = of_leaves(leaves, nodes);
        if (!slots.empty()) {
          return slots;
        }
        leaves.pop_back();
      }
      before += counts[order[used]];
    }
    return of_leaves({order.begin(), order.begin() + static_cast<std::ptrdiff_t>(most)}, nodes);
  }

  // One leaf after the other is filled.
  std::vector<Slot> of_leaves(const std::vector<std::size_t>& leaves, const IndexSet& nodes) {
    std::vector<Offer> together;
    for (const std::size_t leaf : leaves) {
      std::vector<Offer> some = offers(domains()[leaf].ranks & nodes);
      together.insert(together.end(), some.begin(), some.end());
    }
    return pick(std::move(together), node_counts(spec_));
  }

  // The smallest group of blocks that is meant for so many nodes, of these the one with the least room.
  std::vector<Slot> in_blocks() {
    NodeCounts counts = node_counts(spec_);
    if (counts.min == 1) {  // a single node needs no group
      std::vector<Slot> slots = among(supply_.plausible, {1, 1});
      if (!slots.empty()) {
        return slots;
      }
      counts.min = 2;
    }
    for (std::size_t first = 0; first < domains().size() && counts.min <= counts.max; first = end_of_level(first)) {
      const std::uint64_t size = domains()[first].nodes_max;
      if (size < counts.min) {
        continue;
      }
      for (const std::size_t i : candidates(first, end_of_level(first))) {
        std::vector<Slot> slots = among(domains()[i].ranks, {counts.min, std::min(counts.max, size)});
        if (!slots.empty()) {
          return slots;
        }
      }
      counts.min = size + 1;  // fewer nodes are for this level
    }
    return counts.min <= counts.max ? in_several_groups(counts) : std::vector<Slot>{};
  }

  // More nodes than the largest group is meant for: as few of the largest groups as are meant for them.
  std::vector<Slot> in_several_groups(NodeCounts counts) {
    const std::uint64_t size = domains().back().nodes_max;
    std::vector<std::pair<std::uint64_t, std::size_t>> by_count;
    for (std::size_t i = domains().size(); i-- > 0 && domains()[i].level == domains().back().level;) {
      by_count.emplace_back((domains()[i].ranks & supply_.plausible).count(), i);
    }
    std::sort(by_count.begin(), by_count.end(),
              [](const auto& a, const auto& b) { return std::pair(b.first, a.second) < std::pair(a.first, b.second); });
    std::vector<std::size_t> groups;
    for (const auto& [count, i] : by_count) {
      groups.push_back(i);
    }
    counts.max = std::min<std::uint64_t>({counts.max, spec_.ntasks, supply_.plausible.count()});
    for (std::uint64_t used = (counts.min + size - 1) / size; (used - 1) * size < counts.max; ++used) {
      const NodeCounts nodes{std::max(counts.min, (used - 1) * size + 1), std::min(counts.max, used * size)};
      std::vector<Slot> slots = some_of(groups, used, [&](const std::vector<std::size_t>& some) {
        IndexSet ranks;
        for (const std::size_t i : some) {
          ranks |= domains()[i].ranks;
        }
        return among(ranks, nodes);
      });
      if (!slots.empty()) {
        return slots;
      }
    }
    return {};
  }

  // The count of nodes is fixed, and each segment is a part of a block's nodes with most room. The segments with most
  // room are taken, and of equal ones those of the blocks that have most of them. `equal`: what a node holds beyond an
  // equal share does not count.
  std::vector<Slot> in_segments(bool equal) {
    struct Segment {
      std::uint64_t tasks = 0;
      std::size_t block = 0;
      std::size_t number = 0;  // within the block
    };
    const std::uint32_t each = (spec_.ntasks + spec_.nodes_min - 1) / spec_.nodes_min;
    std::vector<std::vector<Offer>> blocks(leaves());
    std::vector<Segment> segments;
    std::vector<std::size_t> segments_of(leaves(), 0);
    for (std::size_t b = 0; b < leaves(); ++b) {
      if (counts_[b] < spec_.segment) {
        continue;
      }
      blocks[b] = offers(domains()[b].ranks);
      const auto worth = [&](const Offer& o) { return equal ? std::min(o.capacity, each) : o.capacity; };
      std::stable_sort(blocks[b].begin(), blocks[b].end(),
                       [&](const Offer& x, const Offer& y) { return worth(x) > worth(y); });
      segments_of[b] = blocks[b].size() / spec_.segment;
      for (std::size_t n = 0; n < segments_of[b]; ++n) {
        Segment segment{0, b, n};
        for (std::size_t i = n * spec_.segment; i < (n + 1) * spec_.segment; ++i) {
          segment.tasks += worth(blocks[b][i]);
        }
        segments.push_back(segment);
      }
    }
    const std::size_t wanted = spec_.nodes_min / spec_.segment;
    if (segments.size() < wanted) {
      return {};
    }
    // A block that can take all that is wanted is better than a larger one.
    const auto fits = [&](std::size_t b) { return segments_of[b] >= wanted; };
    std::stable_sort(segments.begin(), segments.end(), [&](const Segment& x, const Segment& y) {
      const auto key = [&](const Segment& s) {
        const auto have = static_cast<std::int64_t>(segments_of[s.block]);
        return std::tuple(-static_cast<std::int64_t>(s.tasks), !fits(s.block), fits(s.block) ? have : -have, s.block,
                          s.number);
      };
      return key(x) < key(y);
    });
    std::vector<Offer*> pick;
    for (std::size_t i = 0; i < wanted; ++i) {
      const Segment& s = segments[i];
      for (std::size_t k = s.number * spec_.segment; k < (s.number + 1) * spec_.segment; ++k) {
        pick.push_back(&blocks[s.block][k]);
      }
    }
    std::uint64_t room = 0;
    for (const Offer* o : pick) {
      room += o->capacity;
    }
    std::sort(pick.begin(), pick.end(), [](const Offer* a, const Offer* b) { return a->position < b->position; });
    return room < spec_.ntasks ? std::vector<Slot>{} : spread_over(pick, spec_);
  }

  const Supply& supply_;
  const JobSpec& spec_;
  const NodeFilter& filter_;
  bool any_switches_;
  std::vector<std::uint32_t> counts_;
};

}  // namespace

std::vector<Slot> choose_together(const Supply& supply, const JobSpec& spec, const NodeFilter& filter,
                                  bool any_switches) {
  return Together(supply, spec, filter, any_switches).choose();
}

bool has_hard_domains(const JobSpec& spec, const NodeFilter& filter, bool any_switches) {
  if (filter.places == nullptr) {
    return false;
  }
  return filter.places->kind == TopologyKind::kBlock || (spec.switches != 0 && !any_switches);
}

std::vector<HardDomain> domains_for_whole(const JobSpec& spec, const NodeFilter& filter) {
  std::vector<HardDomain> out;
  const std::vector<Places::Domain>& domains = filter.places->domains;
  const bool tree = filter.places->kind == TopologyKind::kTree;
  if (spec.segment != 0 || (tree && spec.switches != 1)) {
    return out;
  }
  const std::uint32_t most = std::max(1U, spec.nodes_max == 0 ? spec.ntasks : std::min(spec.nodes_max, spec.ntasks));
  if (!tree && most > domains.back().nodes_max) {
    return out;  // it may need several groups
  }
  std::uint32_t below = 0;  // nodes that the level before is meant for
  for (std::size_t i = 0; i < domains.size(); ++i) {
    const Places::Domain& d = domains[i];
    if (i != 0 && d.level != domains[i - 1].level) {
      below = domains[i - 1].nodes_max;
    }
    if (tree ? d.level == 0 : d.nodes_max >= spec.nodes_min && below < most) {
      out.push_back(HardDomain{&d.ranks, tree ? UINT32_MAX : d.nodes_max});
    }
  }
  return out;
}

}  // namespace muster::sched
