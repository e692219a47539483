#include "core/sched/choose.h"

#include <algorithm>
#include <cstddef>

#include "core/sched/request.h"

namespace muster::sched {

Offer make_offer(const Draft& draft, const JobSpec& spec, NodeIndex index, Amount free) {
  Offer o;
  o.index = index;
  o.rank = draft.base().rank(index);
  o.node = &draft.node(index.value);
  o.free = free;
  o.capacity = tasks_that_fit(spec, *o.node, free);
  return o;
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

// The nodes that the user named come first, whatever their number.
bool take_named(std::vector<Offer>& offers, const JobSpec& spec, std::vector<Offer*>& chosen, std::string& missing) {
  for (const std::string& name : spec.nodelist) {
    const auto it = std::find_if(offers.begin(), offers.end(), [&](const Offer& o) { return o.node->name == name; });
    if (it == offers.end() || it->capacity == 0) {
      missing = name;
      return false;
    }
    chosen.push_back(&*it);
  }
  return true;
}

}  // namespace

std::vector<Slot> spread_over(std::vector<Offer*>& chosen, const JobSpec& spec) {
  for (Offer* o : chosen) {
    o->tasks = 0;
  }
  spread(chosen, spec.ntasks);
  return slots_of(chosen, spec);
}

std::vector<Slot> choose(std::vector<Offer>& offers, const JobSpec& spec, std::string& missing) {
  std::vector<Offer*> chosen;
  if (!take_named(offers, spec, chosen, missing)) {
    return {};
  }
  if (chosen.empty() && spec.nodes_min <= 1) {
    for (Offer& o : offers) {  // one node that holds the whole job is better than several
      const Amount need = need_of(spec, *o.node, spec.ntasks, spec.gpus);
      if (o.capacity >= spec.ntasks && o.free.covers(need)) {
        return {Slot{.node = o.index, .amount = need, .tasks = spec.ntasks}};
      }
    }
  }
  const std::size_t nodes_min = std::max<std::size_t>({1, spec.nodes_min, chosen.size()});
  const std::size_t nodes_max = spec.nodes_max == 0 ? offers.size() : spec.nodes_max;
  std::vector<Offer*> others;
  for (Offer& o : offers) {
    if (o.capacity != 0 && std::find(chosen.begin(), chosen.end(), &o) == chosen.end()) {
      others.push_back(&o);
    }
  }
  std::vector<std::vector<Offer*>> orders = {others, others};
  std::stable_sort(orders[1].begin(), orders[1].end(),
                   [](const Offer* a, const Offer* b) { return a->capacity > b->capacity; });
  if (spec.gpus != 0) {
    orders.push_back(orders[1]);
    std::stable_sort(orders[2].begin(), orders[2].end(),
                     [](const Offer* a, const Offer* b) { return a->free.gpus > b->free.gpus; });
  }
  std::uint64_t of_chosen = 0;
  for (const Offer* o : chosen) {
    of_chosen += o->capacity;
  }
  // Tasks that the first i nodes of each order hold, and GPUs that they have.
  std::uint64_t gpus_of_chosen = 0;
  for (const Offer* o : chosen) {
    gpus_of_chosen += static_cast<std::uint64_t>(o->free.gpus);
  }
  std::vector<std::vector<std::uint64_t>> sums;
  std::vector<std::vector<std::uint64_t>> gpu_sums;
  for (const std::vector<Offer*>& order : orders) {
    std::vector<std::uint64_t> sum = {of_chosen};
    std::vector<std::uint64_t> gpus = {gpus_of_chosen};
    for (const Offer* o : order) {
      sum.push_back(sum.back() + o->capacity);
      gpus.push_back(gpus.back() + static_cast<std::uint64_t>(o->free.gpus));
    }
    sums.push_back(std::move(sum));
    gpu_sums.push_back(std::move(gpus));
  }
  for (std::size_t k = nodes_min; k <= nodes_max && k <= chosen.size() + others.size() && k <= spec.ntasks; ++k) {
    const std::size_t extra = k - chosen.size();
    for (std::size_t i = 0; i < orders.size(); ++i) {
      if (sums[i][extra] < spec.ntasks || gpu_sums[i][extra] < spec.gpus) {
        continue;
      }
      std::vector<Offer*> pick = chosen;
      pick.insert(pick.end(), orders[i].begin(), orders[i].begin() + static_cast<std::ptrdiff_t>(extra));
      std::sort(pick.begin(), pick.end(), [](const Offer* a, const Offer* b) { return a->rank < b->rank; });
      std::vector<Slot> slots = spread_over(pick, spec);
      if (!slots.empty()) {
        return slots;
      }
    }
  }
  return {};
}

}  // namespace muster::sched
