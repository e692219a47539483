#include "core/sched/choose.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <tuple>
#include <utility>

#include "core/sched/request.h"

namespace muster::sched {

Offer make_offer(const Draft& draft, const JobSpec& spec, NodeIndex index, Amount free) {
  Offer o;
  o.index = index;
  o.rank = draft.base().rank(index);
  o.position = o.rank;
  o.node = &draft.node(index.value);
  o.free = free;
  o.capacity = tasks_that_fit(spec, *o.node, free);
  if (spec.gpus != 0 && o.capacity != 0) {
    o.gpus = gpus_that_fit(spec, free);
  }
  return o;
}

void sort_for_filling(std::vector<Offer>& offers, const JobSpec& spec, bool spread) {
  const bool for_gpus = spec.gpus != 0 || spec.gpus_per_node != 0 || spec.gpus_per_task != 0;
  const auto key = [&](const Offer& o) {
    const bool last = o.node->suspect;
    return !spread    ? std::tuple(last, o.free.gpus, o.free.cores, o.rank)
           : for_gpus ? std::tuple(last, -o.free.gpus, -o.free.cores, o.rank)
                      : std::tuple(last, -o.free.cores, o.free.gpus, o.rank);
  };
  std::sort(offers.begin(), offers.end(), [&](const Offer& a, const Offer& b) { return key(a) < key(b); });
}

NodeCounts node_counts(const JobSpec& spec) {
  return {std::max(1U, spec.nodes_min), spec.nodes_max == 0 ? UINT64_MAX : spec.nodes_max};
}

namespace {

// Gives `total` tasks one by one to the offers in turn, none above its capacity; their sum must suffice.
void spread(std::vector<Offer*>& chosen, std::uint32_t total) {
  std::uint32_t left = total;
  while (left > 0) {
    for (Offer* o : chosen) {
      if (left > 0 && o->tasks < o->capacity) {
        ++o->tasks;
        --left;
      }
    }
  }
}

// GPUs asked for in total, given one by one to the nodes in turn, as evenly as what they have allows; empty when there
// are too few.
std::vector<std::uint32_t> split_gpus(const std::vector<Offer*>& chosen, const JobSpec& spec) {
  std::vector<std::uint32_t> given(chosen.size(), 0);
  for (std::uint32_t left = spec.gpus; left > 0;) {
    const std::uint32_t before = left;
    for (std::size_t i = 0; i < chosen.size() && left > 0; ++i) {
      const Offer& o = *chosen[i];
      if (o.free.covers(need_of(spec, *o.node, o.tasks, given[i] + 1))) {
        ++given[i];
        --left;
      }
    }
    if (left == before) {
      return {};
    }
  }
  return given;
}

std::vector<Slot> slots_of(const std::vector<Offer*>& chosen, const JobSpec& spec) {
  std::vector<Slot> out;
  const std::vector<std::uint32_t> total_gpus = split_gpus(chosen, spec);
  if (total_gpus.empty()) {
    return {};
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const Offer& o = *chosen[i];
    const Amount need = need_of(spec, *o.node, o.tasks, total_gpus[i]);
    if (!o.free.covers(need)) {
      return {};
    }
    out.push_back(Slot{.node = o.index, .amount = need, .tasks = o.tasks});
  }
  return out;
}

bool by_position(const Offer* a, const Offer* b) {
  return a->position < b->position;
}

std::uint64_t tasks_of(const std::vector<Offer*>& offers) {
  std::uint64_t tasks = 0;
  for (const Offer* o : offers) {
    tasks += o->capacity;
  }
  return tasks;
}
std::uint64_t gpus_of(const std::vector<Offer*>& offers) {
  std::uint64_t gpus = 0;
  for (const Offer* o : offers) {
    gpus += o->gpus;
  }
  return gpus;
}

// A few nodes with room for enough tasks that have enough GPUs in total: which few is a knapsack with two weights, so no
// order of the nodes finds it always. The most tasks for each number of nodes and of GPUs are counted out, where that is
// not too much work.
class ExactPick {
 public:
  // `others` stand in the order of filling, which decides among equals.
  ExactPick(const std::vector<Offer*>& chosen, const std::vector<Offer*>& others, const JobSpec& spec,
            std::size_t nodes_max)
      : chosen_(chosen) {
    const std::uint64_t tasks = tasks_of(chosen);
    const std::uint64_t gpus = gpus_of(chosen);
    tasks_ = spec.ntasks > tasks ? static_cast<std::int64_t>(spec.ntasks - tasks) : 0;
    gpus_ = spec.gpus > gpus ? spec.gpus - static_cast<std::size_t>(gpus) : 0;
    nodes_ = std::min(nodes_max - chosen.size(), others.size());
    // Of nodes with equally many GPUs only those with most room can be of use.
    std::map<std::size_t, std::vector<Offer*>> by_gpus;
    for (Offer* o : others) {
      by_gpus[std::min<std::size_t>(o->gpus, gpus_)].push_back(o);
    }
    for (auto& [n, list] : by_gpus) {
      std::stable_sort(list.begin(), list.end(),
                       [](const Offer* a, const Offer* b) { return a->capacity > b->capacity; });
      items_.insert(items_.end(), list.begin(),
                    list.begin() + static_cast<std::ptrdiff_t>(std::min(nodes_, list.size())));
    }
  }

  // A bound on work, some milliseconds.
  [[nodiscard]] bool affordable() const {
    constexpr std::size_t kStepsMax = 4'000'000;
    return nodes_ != 0 && items_.size() <= kStepsMax / ((nodes_ + 1) * (gpus_ + 1));
  }

  // As few nodes as do, at least nodes_min of them; empty: none do.
  std::vector<Offer*> find(std::size_t nodes_min) {
    count();
    for (std::size_t k = nodes_min > chosen_.size() ? nodes_min - chosen_.size() : 0; k <= nodes_; ++k) {
      if (most_[at(k, gpus_)] >= tasks_) {
        return taken(k);
      }
    }
    return {};
  }

 private:
  [[nodiscard]] std::size_t at(std::size_t nodes, std::size_t gpus) const { return nodes * (gpus_ + 1) + gpus; }

  // most_[nodes, gpus]: the most tasks that so many nodes with at least so many GPUs hold; negative: there are none.
  void count() {
    most_.assign((nodes_ + 1) * (gpus_ + 1), -1);
    most_[at(0, 0)] = 0;
    takes_.assign(items_.size(), std::vector<bool>(most_.size()));
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const std::size_t gives = std::min<std::size_t>(items_[i]->gpus, gpus_);
      for (std::size_t k = std::min(nodes_, i + 1); k > 0; --k) {
        for (std::size_t g = gpus_ + 1; g-- > 0;) {
          // The least that gives g together with this one; at the top, all that is more counts as much.
          const std::int64_t before = most_[at(k - 1, g > gives ? g - gives : 0)];
          if (before >= 0 && before + items_[i]->capacity > most_[at(k, g)]) {
            most_[at(k, g)] = before + items_[i]->capacity;
            takes_[i][at(k, g)] = true;
          }
        }
      }
    }
  }
  std::vector<Offer*> taken(std::size_t k) const {
    std::vector<Offer*> pick = chosen_;
    std::size_t g = gpus_;
    for (std::size_t i = items_.size(); i-- > 0 && k > 0;) {
      if (takes_[i][at(k, g)]) {
        pick.push_back(items_[i]);
        --k;
        const std::size_t gives = std::min<std::size_t>(items_[i]->gpus, gpus_);
        g = g > gives ? g - gives : 0;
      }
    }
    return pick;
  }

  const std::vector<Offer*>& chosen_;
  std::int64_t tasks_ = 0;
  std::size_t gpus_ = 0;
  std::size_t nodes_ = 0;
  std::vector<Offer*> items_;
  std::vector<std::int64_t> most_;
  std::vector<std::vector<bool>> takes_;
};

// The orders in which nodes are taken, with the tasks that the first i of each hold and the GPUs that they have.
struct Taking {
  std::vector<Offer*> offers;
  std::vector<std::uint64_t> tasks;
  std::vector<std::uint64_t> gpus;

  Taking(std::vector<Offer*> order, const std::vector<Offer*>& chosen) : offers(std::move(order)) {
    tasks = {tasks_of(chosen)};
    gpus = {gpus_of(chosen)};
    for (const Offer* o : offers) {
      tasks.push_back(tasks.back() + o->capacity);
      gpus.push_back(gpus.back() + o->gpus);
    }
  }
};

std::vector<Taking> takings(const std::vector<Offer*>& others, const std::vector<Offer*>& chosen, const JobSpec& spec) {
  std::vector<Offer*> roomiest = others;
  std::stable_sort(roomiest.begin(), roomiest.end(),
                   [](const Offer* a, const Offer* b) { return a->capacity > b->capacity; });
  std::vector<Taking> out;
  out.emplace_back(others, chosen);
  out.emplace_back(roomiest, chosen);
  if (spec.gpus != 0) {
    std::stable_sort(roomiest.begin(), roomiest.end(),
                     [](const Offer* a, const Offer* b) { return a->gpus > b->gpus; });
    out.emplace_back(std::move(roomiest), chosen);
  }
  return out;
}

}  // namespace

std::optional<std::vector<Offer*>> named_offers(std::vector<Offer>& offers, const JobSpec& spec, std::string& missing) {
  std::vector<Offer*> chosen;
  for (const std::string& name : spec.nodelist) {
    const auto it = std::find_if(offers.begin(), offers.end(), [&](const Offer& o) { return o.node->name == name; });
    if (it == offers.end() || it->capacity == 0) {
      missing = name;
      return std::nullopt;
    }
    chosen.push_back(&*it);
  }
  return chosen;
}

std::vector<Slot> spread_over(std::vector<Offer*>& chosen, const JobSpec& spec) {
  for (Offer* o : chosen) {
    o->tasks = 0;
  }
  spread(chosen, spec.ntasks);
  return slots_of(chosen, spec);
}

std::vector<Slot> choose(std::vector<Offer>& offers, const JobSpec& spec, std::string& missing) {
  auto chosen = named_offers(offers, spec, missing);
  return chosen ? choose_from(offers, std::move(*chosen), spec, node_counts(spec)) : std::vector<Slot>{};
}

std::vector<Slot> choose_from(std::vector<Offer>& offers, std::vector<Offer*> chosen, const JobSpec& spec,
                              NodeCounts nodes) {
  if (chosen.empty() && nodes.min <= 1) {
    for (const Offer& o : offers) {  // one node that holds the whole job is better than several
      const Amount need = need_of(spec, *o.node, spec.ntasks, spec.gpus);
      if (o.capacity >= spec.ntasks && o.free.covers(need)) {
        return {Slot{.node = o.index, .amount = need, .tasks = spec.ntasks}};
      }
    }
  }
  std::vector<Offer*> others;
  for (Offer& o : offers) {
    if (o.capacity != 0 && std::find(chosen.begin(), chosen.end(), &o) == chosen.end()) {
      others.push_back(&o);
    }
  }
  const std::size_t least = std::max<std::size_t>(nodes.min, chosen.size());
  const std::size_t most = std::min<std::uint64_t>({nodes.max, chosen.size() + others.size(), spec.ntasks});
  const std::vector<Taking> orders = takings(others, chosen, spec);
  const auto slots_with = [&spec](std::vector<Offer*> pick) {
    std::sort(pick.begin(), pick.end(), by_position);
    return spread_over(pick, spec);
  };
  for (std::size_t k = least; k <= most; ++k) {
    const std::size_t extra = k - chosen.size();
    for (const Taking& taking : orders) {
      if (taking.tasks[extra] < spec.ntasks || taking.gpus[extra] < spec.gpus) {
        continue;
      }
      std::vector<Offer*> pick = chosen;
      pick.insert(pick.end(), taking.offers.begin(), taking.offers.begin() + static_cast<std::ptrdiff_t>(extra));
      std::vector<Slot> slots = slots_with(std::move(pick));
      if (!slots.empty()) {
        return slots;
      }
    }
  }
  // Without GPUs in total the nodes with most room are the best there are.
  if (spec.gpus != 0 && least <= most) {
    ExactPick exact(chosen, others, spec, most);
    if (exact.affordable()) {
      std::vector<Offer*> pick = exact.find(least);
      return pick.empty() ? std::vector<Slot>{} : slots_with(std::move(pick));
    }
  }
  return {};
}

}  // namespace muster::sched
