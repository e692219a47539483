// fit_now() and earliest_fit(): where a job goes in a pass.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <tuple>

#include "core/sched/choose.h"
#include "core/sched/place.h"
#include "core/sched/request.h"
#include "lib/base/check.h"

namespace muster::sched {
namespace {

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

// Calls `take` with the offers of the nodes that have at least so much free now, the tightest first, until it says that
// it has enough.
template <typename Take>
void each_tight_offer(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, FitIndex::Free least,
                      Take take) {
  const Draft& draft = timeline.draft();
  const Instant until = end_of(timeline.now(), spec.time_limit);
  const FitIndex::Buckets& buckets = draft.fit_index().buckets();
  for (auto it = buckets.lower_bound(FitIndex::Free{least.gpus, 0}); it != buckets.end(); ++it) {
    if (it->first.cores < least.cores) {
      continue;
    }
    const IndexSet ranks = filter.all ? IndexSet{} : it->second.ranks & filter.ranks;
    const std::vector<std::uint64_t>& words = filter.all ? it->second.ranks.words() : ranks.words();
    for (std::size_t w = 0; w < words.size(); ++w) {
      for (std::uint64_t bits = words[w]; bits != 0; bits &= bits - 1) {
        const std::size_t rank = w * 64 + static_cast<std::size_t>(std::countr_zero(bits));
        const NodeIndex index = draft.order()[rank];
        if (take(make_offer(draft, spec, index, timeline.free(index, timeline.now(), until)))) {
          return;
        }
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

// Whether the counts of free cores and GPUs alone, without memory, filter and promises, already refuse the job.
bool too_little_is_free(const Draft& draft, const JobSpec& spec) {
  const FitIndex::Free least = least_bucket(spec, 1, 0);
  std::uint64_t nodes = 0;
  std::uint64_t tasks = 0;
  std::uint64_t gpus = 0;
  for (const auto& [free, bucket] : draft.fit_index().buckets()) {
    gpus += std::uint64_t{free.gpus} * bucket.nodes;
    if (free.gpus < least.gpus || free.cores < least.cores) {
      continue;
    }
    nodes += bucket.nodes;
    tasks += std::uint64_t{free.cores} / std::max<std::uint32_t>(1, spec.cpus_per_task) * bucket.nodes;
    if (nodes >= spec.nodes_min && tasks >= spec.ntasks && gpus >= spec.gpus) {
      return false;
    }
  }
  return nodes < std::max<std::uint64_t>(1, spec.nodes_min) || tasks < spec.ntasks || gpus < spec.gpus;
}

// How much of a job a node can take when it starts at each of some instants, because of what changes on the node.
struct Change {
  Instant at;
  NodeIndex node;
  std::uint32_t capacity = 0;
  std::int64_t gpus = 0;
};

// The instants at which what a node offers for the length of the job may change, ascending: when something becomes free,
// and when the job's end would reach into something that is held.
std::vector<Instant> instants_of(const Timeline& timeline, NodeIndex node, Duration limit, Instant not_before) {
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
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// The earliest start on one node. Walks its steps once: `from` moves behind each step that is too small.
std::optional<Instant> earliest_on(const Timeline& timeline, NodeIndex node, const Amount& need, Duration limit,
                                   Instant not_before) {
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
    const auto at = earliest_on(timeline, index, need, spec.time_limit, not_before);
    if (at && (!best || *at < best->start)) {
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
    return nodes >= std::max<std::uint64_t>(1, spec.nodes_min) && sum_of_most(capacities_, most) >= spec.ntasks &&
           (spec.gpus == 0 || sum_of_most(gpus_, most) >= spec.gpus);
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
  template <typename Key>
  static std::uint64_t sum_of_most(const Counts<Key>& counts, std::uint64_t most) {
    std::uint64_t sum = 0;
    for (const auto& [value, count] : counts) {
      const std::uint64_t taken = std::min<std::uint64_t>(count, most);
      sum += static_cast<std::uint64_t>(value) * taken;
      most -= taken;
    }
    return sum;
  }
  Counts<std::uint32_t> capacities_;
  Counts<std::int64_t> gpus_;
};

std::vector<Slot> choose_at(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, Instant start) {
  const Draft& draft = timeline.draft();
  const Instant until = end_of(start, spec.time_limit);
  std::vector<Offer> offers;
  for (std::size_t rank = 0; rank < draft.order().size(); ++rank) {
    const NodeIndex index = draft.order()[rank];
    if (draft.node(index.value).usable && filter.allows(static_cast<std::uint32_t>(rank))) {
      Offer o = make_offer(draft, spec, index, timeline.free(index, start, until));
      if (o.capacity != 0) {
        offers.push_back(o);
      }
    }
  }
  std::string missing;
  return choose(offers, spec, missing);
}

// Goes through the instants at which any node's offer changes, and tries when the sums say that it may fit.
std::optional<Spot> earliest_on_several(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                        Instant not_before) {
  const Draft& draft = timeline.draft();
  std::vector<Change> changes;
  for (std::size_t rank = 0; rank < draft.order().size(); ++rank) {
    const NodeIndex index = draft.order()[rank];
    const NodeCapacity& n = draft.node(index.value);
    if (!n.usable || !filter.allows(static_cast<std::uint32_t>(rank)) || tasks_that_fit(spec, n, n.all) == 0) {
      continue;
    }
    for (const Instant at : instants_of(timeline, index, spec.time_limit, not_before)) {
      const Amount free = timeline.free(index, at, end_of(at, spec.time_limit));
      const std::uint32_t capacity = tasks_that_fit(spec, n, free);
      changes.push_back(Change{at, index, capacity, capacity == 0 ? 0 : std::max<std::int64_t>(free.gpus, 0)});
    }
  }
  std::sort(changes.begin(), changes.end(),
            [](const Change& a, const Change& b) { return std::tie(a.at, a.node) < std::tie(b.at, b.node); });
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
  auto named_missing = static_cast<std::int64_t>(named.size());
  Offered offered;
  std::vector<std::pair<std::uint32_t, std::int64_t>> last(draft.size());
  for (std::size_t i = 0; i < changes.size();) {
    const Instant at = changes[i].at;
    for (; i < changes.size() && changes[i].at == at; ++i) {
      auto& [capacity, gpus] = last[changes[i].node.value];
      if (named.contains(changes[i].node)) {
        named_missing += (changes[i].capacity == 0 ? 1 : 0) - (capacity == 0 ? 1 : 0);
      }
      offered.set(capacity, changes[i].capacity);
      offered.set_gpus(gpus, changes[i].gpus);
      capacity = changes[i].capacity;
      gpus = changes[i].gpus;
    }
    if (named_missing == 0 && offered.suffices(spec)) {
      std::vector<Slot> slots = choose_at(timeline, spec, filter, at);
      if (!slots.empty()) {
        return Spot{.start = at, .slots = std::move(slots)};
      }
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<Slot> fit_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter) {
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
  return choose_at(timeline, spec, filter, timeline.now());
}

std::optional<Spot> earliest_fit(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                 Instant not_before) {
  if (fits_one_node(spec)) {
    std::optional<Spot> spot = earliest_on_one_node(timeline, spec, filter, not_before);
    if (spec.nodes_max == 1 || spec.ntasks == 1 || (spot && spot->start == not_before)) {
      return spot;
    }
    std::optional<Spot> several = earliest_on_several(timeline, spec, filter, not_before);
    return spot && (!several || spot->start <= several->start) ? spot : several;
  }
  return earliest_on_several(timeline, spec, filter, not_before);
}

}  // namespace muster::sched
