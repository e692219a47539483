// fit_now() and earliest_fit(): where a job goes in a pass.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <queue>
#include <set>
#include <tuple>
#include <utility>

#include "core/sched/choose.h"
#include "core/sched/domains.h"
#include "core/sched/near.h"
#include "core/sched/place.h"
#include "core/sched/request.h"
#include "lib/base/check.h"

namespace muster::sched {
namespace {

// When an attempt without a time limit ends: a start then is none.
constexpr Instant kNever{INT64_MAX / 2};

bool fits_one_node(const JobSpec& spec) {
  return spec.nodes_min <= 1 && spec.nodelist.empty();
}

// The least that the nodes of a job with these tasks have free, whatever their memory is.
FitIndex::Free least_bucket(const JobSpec& spec, std::uint64_t tasks, std::uint64_t total_gpus) {
  const std::uint64_t cores = std::min<std::uint64_t>(tasks * spec.cpus_per_task, UINT32_MAX);
  const std::uint64_t gpus =
      std::min<std::uint64_t>(spec.gpus_per_node + tasks * spec.gpus_per_task + total_gpus, UINT32_MAX);
  return FitIndex::Free{static_cast<std::uint32_t>(gpus), static_cast<std::uint32_t>(cores)};
}

// The buckets of nodes with at least so much free now, in the order of filling.
std::vector<const FitIndex::Bucket*> buckets_for(const Draft& draft, const JobSpec& spec, bool spread,
                                                 FitIndex::Free least) {
  std::vector<std::pair<FitIndex::Free, const FitIndex::Bucket*>> found;
  const FitIndex::Buckets& buckets = draft.fit_index().buckets();
  for (auto it = buckets.lower_bound(FitIndex::Free{least.gpus, 0}); it != buckets.end(); ++it) {
    if (it->first.cores >= least.cores) {
      found.emplace_back(it->first, &it->second);
    }
  }
  if (spread) {
    const bool for_gpus = spec.gpus != 0 || spec.gpus_per_node != 0 || spec.gpus_per_task != 0;
    std::stable_sort(found.begin(), found.end(), [for_gpus](const auto& a, const auto& b) {
      return for_gpus ? b.first < a.first
                      : std::pair(b.first.cores, a.first.gpus) < std::pair(a.first.cores, b.first.gpus);
    });
  }
  std::vector<const FitIndex::Bucket*> out;
  out.reserve(found.size());
  for (const auto& [free, bucket] : found) {
    out.push_back(bucket);
  }
  return out;
}

// Calls `fn` with each of the ranks until it returns true; returns whether it did.
template <typename Fn>
bool each_rank(const IndexSet& ranks, Fn fn) {
  const std::vector<std::uint64_t>& words = ranks.words();
  for (std::size_t w = 0; w < words.size(); ++w) {
    for (std::uint64_t bits = words[w]; bits != 0; bits &= bits - 1) {
      if (fn(static_cast<std::uint32_t>(w * 64 + static_cast<std::size_t>(std::countr_zero(bits))))) {
        return true;
      }
    }
  }
  return false;
}

Offer offer_at(const Timeline& timeline, const JobSpec& spec, std::uint32_t rank, Instant start, Instant until) {
  const Draft& draft = timeline.draft();
  const NodeIndex index = draft.order()[rank];
  timeline.look();
  return make_offer(draft, spec, index, timeline.free(index, start, until, spec.reservation));
}

// Of a bucket's nodes, which are equally free: first those whose leaf of the network has the fewest of them, so that
// whole leaves stay free.
template <typename Fn>
bool each_by_leaf(const Places& places, const IndexSet& ranks, Fn fn) {
  std::map<std::uint32_t, std::vector<std::uint32_t>> by_leaf;
  each_rank(ranks, [&](std::uint32_t rank) {
    by_leaf[places.leaf[rank]].push_back(rank);
    return false;
  });
  std::vector<std::pair<std::size_t, std::uint32_t>> order;
  for (const auto& [leaf, list] : by_leaf) {
    order.emplace_back(list.size(), leaf);
  }
  std::sort(order.begin(), order.end());
  return std::any_of(order.begin(), order.end(), [&](const auto& one) {
    const auto& list = by_leaf.at(one.second);
    return std::any_of(list.begin(), list.end(), fn);
  });
}

// Calls `take` with the offers of the nodes that have at least so much free now, in the order of filling, until it says
// that it has enough.
template <typename Take>
void each_tight_offer(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, FitIndex::Free least,
                      Take take) {
  const Instant until = end_of(timeline.now(), spec.time_limit);
  const auto offer = [&](std::uint32_t rank) { return take(offer_at(timeline, spec, rank, timeline.now(), until)); };
  const std::vector<const FitIndex::Bucket*> buckets = buckets_for(timeline.draft(), spec, filter.spread, least);
  const auto look_at = [&](const IndexSet& ranks) {
    return filter.places != nullptr ? each_by_leaf(*filter.places, ranks, offer) : each_rank(ranks, offer);
  };
  const IndexSet& suspects = timeline.draft().base().suspects();
  if (suspects.empty()) {
    for (const FitIndex::Bucket* bucket : buckets) {
      if (filter.all ? look_at(bucket->ranks) : look_at(bucket->ranks & filter.ranks)) {
        return;
      }
    }
    return;
  }
  for (const bool suspect : {false, true}) {
    for (const FitIndex::Bucket* bucket : buckets) {
      const IndexSet allowed = filter.all ? bucket->ranks : bucket->ranks & filter.ranks;
      if (look_at(suspect ? allowed & suspects : allowed - suspects)) {
        return;
      }
    }
  }
}

std::vector<Slot> fit_one_node_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter) {
  std::vector<Slot> slots;
  each_tight_offer(timeline, spec, filter, least_bucket(spec, spec.ntasks, spec.gpus), [&](const Offer& o) {
    if (o.capacity < spec.ntasks) {
      return false;
    }
    const Amount need = need_of(spec, *o.node, spec.ntasks, spec.gpus);
    if (!o.free.covers(need)) {
      return false;
    }
    slots.push_back(Slot{.node = o.index, .amount = need, .tasks = spec.ntasks});
    return true;
  });
  return slots;
}

// How many nodes have at least so much free, whatever their memory is.
std::uint64_t nodes_with(const Draft& draft, FitIndex::Free least) {
  std::uint64_t nodes = 0;
  const FitIndex::Buckets& buckets = draft.fit_index().buckets();
  for (auto it = buckets.lower_bound(FitIndex::Free{least.gpus, 0}); it != buckets.end(); ++it) {
    nodes += it->first.cores < least.cores ? 0 : it->second.nodes;
  }
  return nodes;
}

// The fewest nodes that the request allows, each with an equal part of the tasks.
std::vector<Slot> fit_evenly_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter) {
  const std::uint32_t nodes = spec.nodes_min;
  const std::uint32_t each = (spec.ntasks + nodes - 1) / nodes;
  if (nodes_with(timeline.draft(), least_bucket(spec, each, 0)) < nodes) {
    return {};
  }
  std::vector<Offer> picked;
  each_tight_offer(timeline, spec, filter, least_bucket(spec, each, 0), [&](const Offer& o) {
    if (o.capacity >= each) {
      picked.push_back(o);
    }
    return picked.size() == nodes;
  });
  if (picked.size() < nodes) {
    return {};
  }
  std::sort(picked.begin(), picked.end(), [](const Offer& a, const Offer& b) { return a.rank < b.rank; });
  std::vector<Offer*> pick;
  for (Offer& o : picked) {
    pick.push_back(&o);
  }
  return spread_over(pick, spec);
}

// The most that nodes with so much free can hold of a job, whatever their memory is.
struct Bound {
  std::uint64_t tasks = 0;
  std::uint64_t gpus = 0;  // of those that it asks for in total
};
Bound bound_of(const JobSpec& spec, FitIndex::Free free) {
  if (free.gpus < spec.gpus_per_node) {
    return {};
  }
  const std::uint32_t gpus = free.gpus - spec.gpus_per_node;
  std::uint64_t tasks = free.cores / std::max<std::uint32_t>(1, spec.cpus_per_task);
  tasks = spec.ntasks_per_node == 0 ? tasks : std::min<std::uint64_t>(tasks, spec.ntasks_per_node);
  tasks = spec.gpus_per_task == 0 ? tasks : std::min<std::uint64_t>(tasks, gpus / spec.gpus_per_task);
  return tasks == 0 ? Bound{} : Bound{std::min<std::uint64_t>(tasks, spec.ntasks), gpus};
}

// The largest sum of so many of the values, each of which there are some of; the largest come first.
template <typename Values>
std::uint64_t sum_of_most_sorted(const Values& counts, std::uint64_t most) {
  std::uint64_t sum = 0;
  for (const auto& [value, count] : counts) {
    const std::uint64_t taken = std::min<std::uint64_t>(count, most);
    sum += static_cast<std::uint64_t>(value) * taken;
    most -= taken;
  }
  return sum;
}

using Counted = std::pair<std::uint64_t, std::uint64_t>;
std::uint64_t sum_of_most(std::vector<Counted>& counts, std::uint64_t most) {
  std::sort(counts.begin(), counts.end(), std::greater<>());
  return sum_of_most_sorted(counts, most);
}

std::uint64_t most_nodes(const JobSpec& spec) {
  return std::min<std::uint64_t>(spec.nodes_max == 0 ? UINT64_MAX : spec.nodes_max, spec.ntasks);
}

// Whether the counts of free cores and GPUs alone, without memory, filter and promises, already refuse the job.
bool too_little_is_free(const Draft& draft, const JobSpec& spec) {
  std::uint64_t nodes = 0;
  std::uint64_t all_tasks = 0;
  std::vector<Counted> tasks;
  std::vector<Counted> gpus;
  for (const auto& [free, bucket] : draft.fit_index().buckets()) {
    const Bound bound = bound_of(spec, free);
    if (bound.tasks != 0) {
      nodes += bucket.nodes;
      all_tasks += bound.tasks * bucket.nodes;
      tasks.emplace_back(bound.tasks, bucket.nodes);
      if (spec.gpus != 0) {
        gpus.emplace_back(bound.gpus, bucket.nodes);
      }
    }
  }
  if (nodes < std::max<std::uint64_t>(1, spec.nodes_min) || all_tasks < spec.ntasks) {
    return true;
  }
  const std::uint64_t most = most_nodes(spec);
  return (most < nodes && sum_of_most(tasks, most) < spec.ntasks) ||
         (spec.gpus != 0 && sum_of_most(gpus, most) < spec.gpus);
}

// Whether the nodes with most room hold the tasks of a job that may use any of them. Looks at the roomiest nodes first and
// at no more than are needed to know it.
bool roomiest_hold_it(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter) {
  std::map<std::uint64_t, std::vector<const FitIndex::Bucket*>, std::greater<std::uint64_t>> by_bound;
  for (const auto& [free, bucket] : timeline.draft().fit_index().buckets()) {
    if (const Bound bound = bound_of(spec, free); bound.tasks != 0) {
      by_bound[bound.tasks].push_back(&bucket);
    }
  }
  const Instant until = end_of(timeline.now(), spec.time_limit);
  const std::uint64_t most = most_nodes(spec);
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<std::uint64_t>> roomiest;
  std::uint64_t nodes = 0;
  std::uint64_t tasks = 0;
  const auto take = [&](std::uint32_t rank) {
    const Offer o = offer_at(timeline, spec, rank, timeline.now(), until);
    if (o.capacity != 0) {
      ++nodes;
      tasks += o.capacity;
      roomiest.push(o.capacity);
      if (roomiest.size() > most) {
        tasks -= roomiest.top();
        roomiest.pop();
      }
    }
    return tasks >= spec.ntasks && nodes >= spec.nodes_min;
  };
  for (const auto& [bound, buckets] : by_bound) {
    if (roomiest.size() == most && roomiest.top() >= bound && nodes >= spec.nodes_min) {
      return false;  // none of the rest has more room than those
    }
    for (const FitIndex::Bucket* bucket : buckets) {
      const IndexSet allowed = filter.all ? IndexSet{} : bucket->ranks & filter.ranks;
      if (each_rank(filter.all ? bucket->ranks : allowed, take)) {
        return true;
      }
    }
  }
  return false;
}

// How much of a job a node can take when it starts at each of some instants, because of what changes on the node.
struct Change {
  Instant at;
  NodeIndex node;
  std::uint32_t capacity = 0;
  std::int64_t gpus = 0;
};

// The instants at which what a node offers for the length of the job may change, ascending: when something becomes free,
// and when the job's end would reach into something that is held; where windows of reservations begin and end, up to
// `windows_until`.
std::vector<Instant> instants_of(const Timeline& timeline, NodeIndex node, const JobSpec& spec, Instant not_before,
                                 Instant windows_until) {
  const Duration limit = spec.time_limit;
  std::vector<Instant> out = {not_before};
  const bool grows = timeline.only_grows(node);
  for (const Timeline::Step& step : timeline.steps(node)) {
    if (step.from > not_before) {
      out.push_back(step.from);
    }
    if (!grows && !limit.is_infinite()) {
      const Instant last = step.from - limit + Duration::from_us(1);
      if (last > not_before) {
        out.push_back(last);
      }
    }
  }
  if (timeline.has_windows(node, spec.reservation)) {
    timeline.windows()->changes(node, not_before, windows_until, limit, out);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// The earliest start on one node. Walks its steps once: `from` moves behind each step that is too small.
std::optional<Instant> earliest_outside_windows(const Timeline& timeline, NodeIndex node, const Amount& need,
                                                Duration limit, Instant not_before) {
  Instant from = not_before;
  bool open = false;  // whether `from` begins a stretch that has been large enough up to here
  const std::vector<Timeline::Step>& steps = timeline.steps(node);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const bool last = i + 1 == steps.size();
    if (!last && steps[i + 1].from <= not_before) {
      continue;
    }
    if (open && steps[i].from >= end_of(from, limit)) {
      return from;
    }
    if (!steps[i].free.covers(need)) {
      open = false;
      continue;
    }
    if (!open) {
      from = std::max(steps[i].from, not_before);
      open = true;
    }
  }
  return open ? std::optional(from) : std::nullopt;
}

std::optional<Instant> earliest_on(const Timeline& timeline, NodeIndex node, const Amount& need, const JobSpec& spec,
                                   Instant not_before) {
  const Duration limit = spec.time_limit;
  if (!timeline.has_windows(node, spec.reservation)) {
    return earliest_outside_windows(timeline, node, need, limit, not_before);
  }
  // What is free and what the windows allow move the start on in turn.
  std::optional<Instant> at = not_before;
  while (true) {
    at = timeline.windows()->next_start(node, *at, limit, spec.reservation);
    const auto free = at ? earliest_outside_windows(timeline, node, need, limit, *at) : std::nullopt;
    if (!free || *free == *at) {
      return free;
    }
    at = free;
  }
}

std::optional<Spot> earliest_on_one_node(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                         Instant not_before) {
  std::optional<Spot> best;
  const Draft& draft = timeline.draft();
  for (std::size_t rank = 0; rank < draft.order().size(); ++rank) {
    const NodeIndex index = draft.order()[rank];
    const NodeCapacity& n = draft.node(index.value);
    if (!n.usable || !filter.allows(static_cast<std::uint32_t>(rank))) {
      continue;
    }
    const Amount need = need_of(spec, n, spec.ntasks, spec.gpus);
    if (!n.all.covers(need)) {
      continue;
    }
    const auto at = earliest_on(timeline, index, need, spec, not_before);
    if (at && *at < (best ? best->start : kNever)) {
      best = Spot{.start = *at, .slots = {Slot{.node = index, .amount = need, .tasks = spec.ntasks}}};
      if (*at == not_before) {
        break;
      }
    }
  }
  return best;
}

// What all nodes together offer at one instant, kept while the instants go by.
class Offered {
 public:
  void set(std::uint32_t was, std::uint32_t now) { change(capacities_, was, now); }
  void set_gpus(std::int64_t was, std::int64_t now) { change(gpus_, was, now); }
  // Whether the nodes with most room can hold the tasks, and those with most GPUs give the total.
  [[nodiscard]] bool suffices(const JobSpec& spec) const {
    const std::uint64_t most = spec.nodes_max == 0 ? UINT64_MAX : spec.nodes_max;
    std::uint64_t nodes = 0;
    for (const auto& [capacity, count] : capacities_) {
      nodes += count;
    }
    return nodes >= std::max<std::uint64_t>(1, spec.nodes_min) &&
           sum_of_most_sorted(capacities_, most) >= spec.ntasks &&
           (spec.gpus == 0 || sum_of_most_sorted(gpus_, most) >= spec.gpus);
  }

 private:
  template <typename Key>
  using Counts = std::map<Key, std::uint64_t, std::greater<Key>>;

  template <typename Key>
  static void change(Counts<Key>& counts, Key was, Key now) {
    if (was != 0 && --counts[was] == 0) {
      counts.erase(was);
    }
    if (now != 0) {
      ++counts[now];
    }
  }
  Counts<std::uint32_t> capacities_;
  Counts<std::int64_t> gpus_;
};

// Every rank that the filter allows.
IndexSet allowed_ranks(const Draft& draft, const NodeFilter& filter) {
  return filter.all ? IndexSet::range(0, static_cast<std::uint32_t>(draft.order().size())) : filter.ranks;
}

std::vector<Slot> choose_at(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, Instant start,
                            bool any_switches) {
  const Draft& draft = timeline.draft();
  const Instant until = end_of(start, spec.time_limit);
  std::vector<Offer> offers;
  each_rank(allowed_ranks(draft, filter), [&](std::uint32_t rank) {
    if (draft.node(draft.order()[rank].value).usable) {
      Offer o = offer_at(timeline, spec, rank, start, until);
      if (o.capacity != 0) {
        offers.push_back(o);
      }
    }
    return false;
  });
  return choose_suitable(std::move(offers), spec, filter, any_switches);
}

// What is on offer now, looked at only where it is asked for.
Supply supply_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter) {
  Supply supply;
  for (const FitIndex::Bucket* bucket : buckets_for(timeline.draft(), spec, false, least_bucket(spec, 1, 0))) {
    supply.plausible |= bucket->ranks;
  }
  if (!filter.all) {
    supply.plausible &= filter.ranks;
  }
  supply.offers = [&timeline, &spec, &filter](const IndexSet& ranks) {
    const Instant until = end_of(timeline.now(), spec.time_limit);
    std::vector<Offer> offers;
    each_rank(ranks, [&](std::uint32_t rank) {
      Offer o = offer_at(timeline, spec, rank, timeline.now(), until);
      if (o.capacity != 0) {
        offers.push_back(o);
      }
      return false;
    });
    sort_for_filling(offers, spec, filter.spread);
    return offers;
  };
  return supply;
}

// Where no rule binds the nodes to each other.
std::vector<Slot> fit_freely_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter) {
  if (fits_one_node(spec)) {
    std::vector<Slot> slots = fit_one_node_now(timeline, spec, filter);
    if (!slots.empty() || spec.nodes_max == 1 || spec.ntasks == 1) {
      return slots;
    }
  }
  if (too_little_is_free(timeline.draft(), spec)) {
    return {};
  }
  if (spec.nodelist.empty() && spec.nodes_min > 1 && spec.gpus == 0) {
    std::vector<Slot> slots = fit_evenly_now(timeline, spec, filter);
    if (!slots.empty() || is_even(spec)) {
      return slots;
    }
  }
  if (spec.nodelist.empty() && !roomiest_hold_it(timeline, spec, filter)) {
    return {};
  }
  std::vector<Offer> offers;
  each_tight_offer(timeline, spec, filter, least_bucket(spec, 1, 0), [&offers](const Offer& o) {
    if (o.capacity != 0) {
      offers.push_back(o);
    }
    return false;
  });
  std::string missing;
  return choose(offers, spec, missing);
}

// A single node must satisfy every count by itself; nothing when it cannot.
std::optional<NodeFilter> for_one_node(const NodeFilter& filter) {
  NodeFilter one = filter;
  for (const NodeFilter::Quota& quota : filter.quotas) {
    if (quota.nodes > 1) {
      return std::nullopt;
    }
    one.narrow(quota.ranks);
  }
  one.quotas.clear();
  return one;
}

std::vector<Slot> fit_together_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                   bool any_switches) {
  if (filter.quotas.empty() && !has_hard_domains(spec, filter, any_switches)) {
    // The network only says which places are better, so what fits nowhere is known without it.
    std::vector<Slot> slots = fit_freely_now(timeline, spec, filter);
    if (slots.size() <= 1) {
      return slots;
    }
  } else if (fits_one_node(spec)) {
    const auto one = for_one_node(filter);
    std::vector<Slot> slots = one ? fit_one_node_now(timeline, spec, *one) : std::vector<Slot>{};
    if (!slots.empty() || spec.nodes_max == 1 || spec.ntasks == 1) {
      return slots;
    }
  }
  if (too_little_is_free(timeline.draft(), spec)) {
    return {};
  }
  return choose_together(supply_now(timeline, spec, filter), spec, filter, any_switches);
}

// What the rules that bind the nodes of a job to each other need at least, kept while the instants go by: choose_at()
// is not asked in vain at every one of them.
class Suited {
 public:
  Suited(const JobSpec& spec, const NodeFilter& filter, bool any_switches)
      : spec_(spec), filter_(filter), limited_(spec.switches != 0 && !any_switches), have_(filter.quotas.size(), 0) {
    if (filter.places != nullptr && (limited_ || spec.segment != 0)) {
      leaf_nodes_.assign(filter.places->domains.size(), 0);
      leaf_tasks_.assign(filter.places->domains.size(), 0);
    }
  }

  void set(std::uint32_t rank, std::uint32_t was, std::uint32_t now) {
    const std::int64_t nodes = (now != 0 ? 1 : 0) - (was != 0 ? 1 : 0);
    for (std::size_t i = 0; i < have_.size() && nodes != 0; ++i) {
      have_[i] += filter_.quotas[i].ranks.contains(rank) ? nodes : 0;
    }
    if (!leaf_nodes_.empty() && filter_.places->leaf[rank] != Places::kNowhere) {
      leaf_nodes_[filter_.places->leaf[rank]] += nodes;
      leaf_tasks_[filter_.places->leaf[rank]] += static_cast<std::int64_t>(now) - was;
    }
  }

  [[nodiscard]] bool possible() const {
    for (std::size_t i = 0; i < have_.size(); ++i) {
      if (have_[i] < static_cast<std::int64_t>(filter_.quotas[i].nodes)) {
        return false;
      }
    }
    if (leaf_nodes_.empty() || spec_.nodes_min <= 1) {
      return true;
    }
    if (filter_.places->kind == TopologyKind::kBlock) {
      std::int64_t segments = 0;
      for (const std::int64_t nodes : leaf_nodes_) {
        segments += nodes / spec_.segment;
      }
      return segments * spec_.segment >= static_cast<std::int64_t>(spec_.nodes_min);
    }
    return !limited_ || (sum_of_most(leaf_nodes_) >= static_cast<std::int64_t>(spec_.nodes_min) &&
                         sum_of_most(leaf_tasks_) >= static_cast<std::int64_t>(spec_.ntasks));
  }

 private:
  [[nodiscard]] std::int64_t sum_of_most(std::vector<std::int64_t> values) const {
    const auto most = static_cast<std::ptrdiff_t>(std::min<std::size_t>(spec_.switches, values.size()));
    std::nth_element(values.begin(), values.begin() + (most == 0 ? 0 : most - 1), values.end(), std::greater<>());
    return std::accumulate(values.begin(), values.begin() + most, std::int64_t{0});
  }

  const JobSpec& spec_;
  const NodeFilter& filter_;
  bool limited_;
  std::vector<std::int64_t> have_;  // nodes with room, by quota
  std::vector<std::int64_t> leaf_nodes_;
  std::vector<std::int64_t> leaf_tasks_;
};

// Behind this instant only windows that recur change what the nodes offer, and two of the longest periods show all that
// they do.
Instant windows_end(const Timeline& timeline, const NodeFilter& filter, Instant not_before) {
  if (timeline.windows() == nullptr) {
    return not_before;
  }
  const Draft& draft = timeline.draft();
  Instant last = std::max(not_before, timeline.windows()->regular_from());
  each_rank(allowed_ranks(draft, filter), [&](std::uint32_t rank) {
    const NodeIndex index = draft.order()[rank];
    if (draft.node(index.value).usable) {
      last = std::max(last, timeline.steps(index).back().from);
    }
    return false;
  });
  const Duration period = timeline.windows()->longest_period();
  return end_of(end_of(last, period), period);
}

std::vector<Change> changes_on(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                               Instant not_before) {
  const Draft& draft = timeline.draft();
  std::vector<Change> changes;
  const Instant windows_until = windows_end(timeline, filter, not_before);
  each_rank(allowed_ranks(draft, filter), [&](std::uint32_t rank) {
    const NodeIndex index = draft.order()[rank];
    const NodeCapacity& n = draft.node(index.value);
    timeline.look();
    if (n.usable && tasks_that_fit(spec, n, n.all) != 0) {
      for (const Instant at : instants_of(timeline, index, spec, not_before, windows_until)) {
        const Amount free = timeline.free(index, at, end_of(at, spec.time_limit), spec.reservation);
        const std::uint32_t capacity = tasks_that_fit(spec, n, free);
        const std::int64_t gpus = capacity == 0 || spec.gpus == 0 ? 0 : gpus_that_fit(spec, free);
        changes.push_back(Change{at, index, capacity, gpus});
      }
    }
    return false;
  });
  std::sort(changes.begin(), changes.end(),
            [](const Change& a, const Change& b) { return std::tie(a.at, a.node) < std::tie(b.at, b.node); });
  return changes;
}

// Goes through the instants at which any node's offer changes, up to `before`, and tries when the sums say that it may
// fit.
std::optional<Spot> earliest_on_several(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                        Instant not_before, Instant before, bool any_switches) {
  const Draft& draft = timeline.draft();
  // The nodes that it names must all have room, or choose() would be asked in vain at every instant.
  std::set<NodeIndex> named;
  for (const std::string& name : spec.nodelist) {
    if (const NodeIndex* index = draft.base().find(name)) {
      named.insert(*index);
    }
  }
  if (named.size() < spec.nodelist.size()) {
    return std::nullopt;
  }
  const std::vector<Change> changes = changes_on(timeline, spec, filter, not_before);
  auto named_missing = static_cast<std::int64_t>(named.size());
  Offered offered;
  Suited suited(spec, filter, any_switches);
  std::vector<std::pair<std::uint32_t, std::int64_t>> last(draft.size());
  for (std::size_t i = 0; i < changes.size();) {
    const Instant at = changes[i].at;
    if (at >= before) {
      break;
    }
    for (; i < changes.size() && changes[i].at == at; ++i) {
      auto& [capacity, gpus] = last[changes[i].node.value];
      if (named.contains(changes[i].node)) {
        named_missing += (changes[i].capacity == 0 ? 1 : 0) - (capacity == 0 ? 1 : 0);
      }
      if (filter.binds()) {
        suited.set(draft.base().rank(changes[i].node), capacity, changes[i].capacity);
      }
      offered.set(capacity, changes[i].capacity);
      offered.set_gpus(gpus, changes[i].gpus);
      capacity = changes[i].capacity;
      gpus = changes[i].gpus;
    }
    if (named_missing == 0 && offered.suffices(spec) && suited.possible()) {
      std::vector<Slot> slots = choose_at(timeline, spec, filter, at, any_switches);
      if (!slots.empty()) {
        return Spot{.start = at, .slots = std::move(slots)};
      }
    }
  }
  return std::nullopt;
}

void keep_earlier(std::optional<Spot>& best, std::optional<Spot> other) {
  if (other && (!best || other->start < best->start)) {
    best = std::move(other);
  }
}

// Without choices, and with a limit of switches that either counts or does not.
std::optional<Spot> earliest_of_one_rule(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                         Instant not_before, bool any_switches) {
  std::optional<Spot> best;
  if (fits_one_node(spec)) {
    const auto one = for_one_node(filter);
    best = one ? earliest_on_one_node(timeline, spec, *one, not_before) : std::nullopt;
    if (spec.nodes_max == 1 || spec.ntasks == 1 || (best && best->start == not_before)) {
      return best;
    }
  }
  const auto before = [&best] { return best ? best->start : kNever; };
  const std::vector<HardDomain> whole =
      has_hard_domains(spec, filter, any_switches) ? domains_for_whole(spec, filter) : std::vector<HardDomain>{};
  if (whole.empty()) {
    keep_earlier(best, earliest_on_several(timeline, spec, filter, not_before, before(), any_switches));
    return best;
  }
  if (spec.nodes_min <= 1 && spec.nodelist.size() == 1) {  // a single node is in a domain of its own
    NodeFilter inside = filter;
    inside.narrow(timeline.draft().base().ranks_of(spec.nodelist));
    keep_earlier(best, earliest_on_several(timeline, spec, inside, not_before, before(), any_switches));
  }
  // Each by itself: all together may have enough at many instants at which none of them has.
  for (const HardDomain& domain : whole) {
    NodeFilter inside = filter;
    inside.narrow(*domain.ranks);
    if (inside.ranks.count() >= spec.nodes_min) {
      keep_earlier(best, earliest_on_several(timeline, spec, inside, not_before, before(), any_switches));
    }
  }
  return best;
}

}  // namespace

std::vector<Slot> fit_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, bool any_switches) {
  if (requires_near(spec)) {
    return fit_near_now(timeline, spec, filter, any_switches);
  }
  if (!timeline.licenses().covers(spec.licenses, timeline.now(), end_of(timeline.now(), spec.time_limit))) {
    return {};
  }
  if (filter.choices.empty()) {
    return filter.binds() ? fit_together_now(timeline, spec, filter, any_switches)
                          : fit_freely_now(timeline, spec, filter);
  }
  for (const IndexSet& choice : filter.choices) {
    NodeFilter one = filter;
    one.choices.clear();
    one.narrow(choice);
    std::vector<Slot> slots = fit_now(timeline, spec, one, any_switches);
    if (!slots.empty()) {
      return slots;
    }
  }
  return {};
}

namespace {

// Without regard to licences.
std::optional<Spot> earliest_on_nodes(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                      Instant not_before, Instant lapse) {
  std::optional<Spot> best;
  if (!filter.choices.empty()) {
    for (const IndexSet& choice : filter.choices) {
      NodeFilter one = filter;
      one.choices.clear();
      one.narrow(choice);
      keep_earlier(best, earliest_on_nodes(timeline, spec, one, not_before, lapse));
    }
    return best;
  }
  const bool limited = spec.switches != 0 && filter.places != nullptr && filter.places->kind == TopologyKind::kTree;
  if (!limited || lapse <= not_before) {
    return earliest_of_one_rule(timeline, spec, filter, not_before, true);
  }
  best = earliest_of_one_rule(timeline, spec, filter, not_before, false);
  if (lapse < kNever && (!best || lapse < best->start)) {
    keep_earlier(best, earliest_of_one_rule(timeline, spec, filter, lapse, true));
  }
  return best;
}

}  // namespace

std::optional<Spot> earliest_fit(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                 Instant not_before, Instant lapse) {
  if (requires_near(spec)) {
    return earliest_near(timeline, spec, filter, not_before, lapse);
  }
  if (spec.licenses.empty()) {
    return earliest_on_nodes(timeline, spec, filter, not_before, lapse);
  }
  // Nodes and licences move the start on in turn; each time by a step of theirs, of which there are finitely many.
  std::optional<Instant> at = not_before;
  while (true) {
    at = timeline.licenses().earliest(spec.licenses, spec.time_limit, *at);
    std::optional<Spot> spot = at ? earliest_on_nodes(timeline, spec, filter, *at, lapse) : std::nullopt;
    if (!spot || timeline.licenses().covers(spec.licenses, spot->start, end_of(spot->start, spec.time_limit))) {
      return spot;
    }
    at = spot->start;
  }
}

std::vector<Slot> choose_suitable(std::vector<Offer> offers, const JobSpec& spec, const NodeFilter& filter,
                                  bool any_switches) {
  sort_for_filling(offers, spec, filter.spread);
  if (!filter.choices.empty()) {
    for (const IndexSet& choice : filter.choices) {
      NodeFilter one = filter;
      one.choices.clear();
      std::vector<Offer> some = offers;
      std::erase_if(some, [&choice](const Offer& o) { return !choice.contains(o.rank); });
      std::vector<Slot> slots = choose_suitable(std::move(some), spec, one, any_switches);
      if (!slots.empty()) {
        return slots;
      }
    }
    return {};
  }
  if (!filter.binds()) {
    std::string missing;
    return choose(offers, spec, missing);
  }
  Supply supply;
  for (const Offer& o : offers) {
    supply.plausible.insert(o.rank);
  }
  supply.offers = [&offers](const IndexSet& ranks) {
    std::vector<Offer> some;
    std::copy_if(offers.begin(), offers.end(), std::back_inserter(some),
                 [&ranks](const Offer& o) { return ranks.contains(o.rank) && o.capacity != 0; });
    return some;
  };
  return choose_together(supply, spec, filter, any_switches);
}

}  // namespace muster::sched
