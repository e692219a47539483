#include "core/sched/place.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <set>

namespace muster::sched {
namespace {

// What counts as there on one node.
struct Offer {
  NodeIndex index;
  std::size_t rank = 0;  // the node's place in the ledger's order
  const NodeCapacity* node = nullptr;
  const IndexSet* cores = nullptr;
  const IndexSet* gpus = nullptr;
  std::uint64_t mem_mib = 0;
  bool whole = false;         // nothing on it is held: an exclusive job may have it
  std::uint32_t capacity = 0; // tasks of the job that fit
  std::uint32_t tasks = 0;    // tasks given
};

std::uint64_t share_of_memory(const NodeCapacity& node, std::uint64_t cores) {
  const std::uint64_t all = node.all_cores.count();
  return all == 0 ? 0 : node.mem_mib / all * cores + node.mem_mib % all * cores / all;
}

NodeNeed need_of(const JobSpec& spec, const NodeCapacity& node, std::uint64_t tasks, std::uint32_t total_gpu_share) {
  NodeNeed need;
  const std::uint64_t cores = spec.exclusive ? node.all_cores.count() : tasks * spec.cpus_per_task;
  need.cores = static_cast<std::uint32_t>(std::min<std::uint64_t>(cores, UINT32_MAX));
  const std::uint64_t gpus = spec.gpus_per_node + tasks * spec.gpus_per_task + total_gpu_share;
  need.gpus = static_cast<std::uint32_t>(std::min<std::uint64_t>(gpus, UINT32_MAX));
  if (spec.mem_per_node_mib != 0) {
    need.mem_mib = spec.mem_per_node_mib;
  } else if (spec.mem_per_cpu_mib != 0) {
    need.mem_mib = spec.mem_per_cpu_mib * need.cores;
  } else if (spec.mem_per_gpu_mib != 0) {
    need.mem_mib = spec.mem_per_gpu_mib * need.gpus;
  } else {
    need.mem_mib = share_of_memory(node, need.cores);
  }
  return need;
}

bool fits(const Offer& offer, const NodeNeed& need, const JobSpec& spec) {
  return need.cores <= offer.cores->count() && need.gpus <= offer.gpus->count() && need.mem_mib <= offer.mem_mib &&
         (!spec.exclusive || offer.whole);
}

std::uint32_t capacity_of(const Offer& offer, const JobSpec& spec) {
  std::uint64_t most = spec.ntasks_per_node != 0 ? spec.ntasks_per_node : spec.ntasks;
  most = std::min<std::uint64_t>(most, spec.ntasks);
  // A request for GPUs in total is split after the tasks are spread; here a node must be able to give one of them.
  const std::uint32_t some_gpu = spec.gpus != 0 && spec.nodes_min == 1 && spec.nodes_max == 1 ? spec.gpus : 0;
  std::uint64_t low = 0;
  std::uint64_t high = std::min<std::uint64_t>(most, offer.cores->count() / std::max<std::uint32_t>(1, spec.cpus_per_task));
  while (low < high) {  // the largest count that fits: needs grow with the tasks
    const std::uint64_t middle = low + (high - low + 1) / 2;
    if (fits(offer, need_of(spec, *offer.node, middle, some_gpu), spec)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return static_cast<std::uint32_t>(low);
}

// Which nodes a job may use, and what they offer it, in node order.
class Offers {
 public:
  Offers(const Draft& draft, const JobSpec& spec, const std::vector<std::string>& allowed, Assume assume)
      : draft_(draft), spec_(spec), assume_(assume), allowed_(allowed.begin(), allowed.end()),
        excluded_(spec.exclude.begin(), spec.exclude.end()) {}

  // The offer of the node at `rank` in the order; nothing when the job may not use it.
  [[nodiscard]] std::optional<Offer> at(std::size_t rank) const {
    const NodeIndex index = draft_.order()[rank];
    const NodeCapacity& n = draft_.node(index.value);
    if (!n.known || (assume_ != Assume::kAllEmpty && !n.usable) ||
        (!allowed_.empty() && !allowed_.contains(n.name)) || (!excluded_.empty() && excluded_.contains(n.name))) {
      return std::nullopt;
    }
    Offer o;
    o.index = index;
    o.rank = rank;
    o.node = &n;
    const bool now = assume_ == Assume::kFreeNow;
    o.cores = now ? &n.free_cores : &n.all_cores;
    o.gpus = now ? &n.free_gpus : &n.all_gpus;
    o.mem_mib = now ? n.free_mem_mib : n.mem_mib;
    o.whole = !now || (n.free_cores == n.all_cores && n.free_gpus == n.all_gpus && n.free_mem_mib == n.mem_mib);
    o.capacity = capacity_of(o, spec_);
    return o;
  }
  [[nodiscard]] std::vector<Offer> all() const {
    std::vector<Offer> out;
    for (std::size_t i = 0; i < size(); ++i) {
      if (std::optional<Offer> o = at(i)) {
        out.push_back(*o);
      }
    }
    return out;
  }
  [[nodiscard]] std::size_t size() const { return draft_.order().size(); }

 private:
  const Draft& draft_;
  const JobSpec& spec_;
  Assume assume_;
  std::set<std::string, std::less<>> allowed_;
  std::set<std::string, std::less<>> excluded_;
};

std::string plural(std::uint64_t n, const char* one, const char* many) {
  return std::to_string(n) + " " + (n == 1 ? one : many);
}

std::string describe_request(const JobSpec& spec) {
  std::string text = plural(spec.nodes_min, "node", "nodes") + " with " + plural(spec.ntasks, "task", "tasks") + " of " +
                     plural(spec.cpus_per_task, "CPU", "CPUs");
  if (spec.exclusive) {
    text += ", whole nodes";
  }
  if (spec.gpus_per_node != 0) {
    text += ", " + plural(spec.gpus_per_node, "GPU", "GPUs") + " a node";
  }
  if (spec.gpus_per_task != 0) {
    text += ", " + plural(spec.gpus_per_task, "GPU", "GPUs") + " a task";
  }
  if (spec.gpus != 0) {
    text += ", " + plural(spec.gpus, "GPU", "GPUs") + " in total";
  }
  if (spec.mem_per_node_mib != 0) {
    text += ", " + std::to_string(spec.mem_per_node_mib) + " MiB a node";
  } else if (spec.mem_per_cpu_mib != 0) {
    text += ", " + std::to_string(spec.mem_per_cpu_mib) + " MiB a CPU";
  } else if (spec.mem_per_gpu_mib != 0) {
    text += ", " + std::to_string(spec.mem_per_gpu_mib) + " MiB a GPU";
  }
  return text;
}

// Counts, over the offers, what each lacks for one task, and says it with numbers.
PlaceResult refusal(const std::vector<Offer>& offers, const JobSpec& spec, Assume assume) {
  std::uint64_t lack_cores = 0;
  std::uint64_t lack_gpus = 0;
  std::uint64_t lack_memory = 0;
  std::uint64_t busy = 0;
  std::uint64_t fit = 0;
  std::uint64_t tasks_that_fit = 0;
  std::uint64_t gpus_there = 0;
  for (const Offer& o : offers) {
    const NodeNeed need = need_of(spec, *o.node, 1, 0);
    tasks_that_fit += o.capacity;
    gpus_there += o.gpus->count();
    if (o.capacity >= 1) {
      ++fit;
    } else if (need.cores > o.cores->count()) {
      ++lack_cores;
    } else if (need.gpus > o.gpus->count()) {
      ++lack_gpus;
    } else if (need.mem_mib > o.mem_mib) {
      ++lack_memory;
    } else {
      ++busy;
    }
  }
  PlaceResult r;
  r.detail = "asks for " + describe_request(spec) + "; of " + plural(offers.size(), "node", "nodes");
  r.detail += assume == Assume::kAllEmpty ? "" : assume == Assume::kUsableEmpty ? " in service" : " in service now";
  std::string parts;
  const auto add = [&parts](std::uint64_t n, const std::string& what) {
    if (n != 0) {
      parts += (parts.empty() ? " " : ", ") + std::to_string(n) + what;
    }
  };
  const char* few = assume == Assume::kFreeNow ? "too few free " : "too few ";
  add(lack_cores, (lack_cores == 1 ? " has " : " have ") + std::string(few) + "CPUs");
  add(lack_gpus, (lack_gpus == 1 ? " has " : " have ") + std::string(few) + "GPUs");
  add(lack_memory, (lack_memory == 1 ? " has too little " : " have too little ") +
                       std::string(assume == Assume::kFreeNow ? "free memory" : "memory"));
  add(busy, busy == 1 ? " is not wholly free" : " are not wholly free");
  if (fit != 0 && fit < spec.nodes_min) {
    add(fit, fit == 1 ? " can take a task of it, which is too few nodes" : " can take a task of it, which are too few nodes");
  } else if (tasks_that_fit < spec.ntasks) {
    add(fit, (fit == 1 ? " has room for " : " have room for ") + plural(tasks_that_fit, "task", "tasks") + " of it");
  } else if (spec.gpus > gpus_there) {
    parts += (parts.empty() ? " all have " : ", all together have ") + plural(gpus_there, "GPU", "GPUs");
  } else {
    add(fit, fit == 1 ? " could take a part of it" : " could take parts of it");
  }
  r.detail += parts.empty() ? " none fits" : parts;
  r.obstacle = lack_cores != 0   ? Obstacle::kCores
               : lack_gpus != 0  ? Obstacle::kGpus
               : lack_memory != 0 ? Obstacle::kMemory
                                  : Obstacle::kTooManyNodes;
  return r;
}

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
      if (fits(o, need_of(spec, *o.node, o.tasks, given[i] + 1), spec)) {
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

std::vector<NodeShare> shares_of(const std::vector<Offer*>& chosen, const JobSpec& spec) {
  std::vector<NodeShare> out;
  const std::vector<std::uint32_t> total_gpus = split_gpus(chosen, spec);
  if (total_gpus.empty()) {
    return {};
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const Offer& o = *chosen[i];
    const NodeNeed need = need_of(spec, *o.node, o.tasks, total_gpus[i]);
    if (!fits(o, need, spec)) {
      return {};
    }
    out.push_back(NodeShare{.node = o.index,
                            .cores = o.cores->lowest(need.cores),
                            .gpus = o.gpus->lowest(need.gpus),
                            .mem_mib = need.mem_mib,
                            .tasks = o.tasks});
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

// The first node that holds the whole job, which is better than several. Looks no further than it must.
std::vector<NodeShare> on_one_node(const Offers& offers, const JobSpec& spec) {
  for (std::size_t i = 0; i < offers.size(); ++i) {
    std::optional<Offer> o = offers.at(i);
    if (o && o->capacity >= spec.ntasks) {
      o->tasks = spec.ntasks;
      std::vector<NodeShare> shares = shares_of({&*o}, spec);
      if (!shares.empty()) {
        return shares;
      }
    }
  }
  return {};
}

}  // namespace

PlaceResult place(const Draft& draft, const JobSpec& spec, const std::vector<std::string>& allowed, Assume assume) {
  const Offers all_offers(draft, spec, allowed, assume);
  if (spec.nodes_min <= 1 && spec.nodelist.empty()) {
    if (std::vector<NodeShare> shares = on_one_node(all_offers, spec); !shares.empty()) {
      return PlaceResult{.shares = std::move(shares), .obstacle = Obstacle::kNone, .detail = {}};
    }
  }
  std::vector<Offer> offers = all_offers.all();
  if (offers.empty()) {
    PlaceResult r;
    r.obstacle = Obstacle::kNoNodes;
    r.detail = assume == Assume::kAllEmpty ? "no node that it may use has ever registered"
                                           : "no node that it may use is in service";
    return r;
  }
  std::vector<Offer*> chosen;
  std::string missing;
  if (!take_named(offers, spec, chosen, missing)) {
    PlaceResult r = refusal(offers, spec, assume);
    r.obstacle = Obstacle::kNodeList;
    r.detail = "node " + missing + ", asked for by name, is not available to it: " + r.detail;
    return r;
  }
  const std::size_t nodes_min = std::max<std::size_t>({1, spec.nodes_min, chosen.size()});
  const std::size_t nodes_max = spec.nodes_max == 0 ? offers.size() : spec.nodes_max;

  std::vector<Offer*> others;
  for (Offer& o : offers) {
    if (o.capacity != 0 && std::find(chosen.begin(), chosen.end(), &o) == chosen.end()) {
      others.push_back(&o);
    }
  }
  const auto sum = [](const std::vector<Offer*>& v) {
    std::uint64_t s = 0;
    for (const Offer* o : v) {
      s += o->capacity;
    }
    return s;
  };
  // First fit in node order, else the nodes with most room, else those with most GPUs; as few nodes as hold all tasks.
  std::vector<std::vector<Offer*>> orders = {others, others};
  std::stable_sort(orders[1].begin(), orders[1].end(),
                   [](const Offer* a, const Offer* b) { return a->capacity > b->capacity; });
  if (spec.gpus != 0) {
    orders.push_back(orders[1]);
    std::stable_sort(orders[2].begin(), orders[2].end(),
                     [](const Offer* a, const Offer* b) { return a->gpus->count() > b->gpus->count(); });
  }
  for (std::size_t k = nodes_min; k <= nodes_max && k <= chosen.size() + others.size() && k <= spec.ntasks; ++k) {
    const auto extra = static_cast<std::ptrdiff_t>(k - chosen.size());
    for (const std::vector<Offer*>& order : orders) {
      std::vector<Offer*> pick = chosen;
      pick.insert(pick.end(), order.begin(), order.begin() + extra);
      if (sum(pick) < spec.ntasks) {
        continue;
      }
      std::sort(pick.begin(), pick.end(), [](const Offer* a, const Offer* b) { return a->rank < b->rank; });
      spread(pick, spec.ntasks);
      std::vector<NodeShare> shares = shares_of(pick, spec);
      if (!shares.empty()) {
        return PlaceResult{.shares = std::move(shares), .obstacle = Obstacle::kNone, .detail = {}};
      }
      for (Offer* o : pick) {
        o->tasks = 0;
      }
    }
  }
  return refusal(offers, spec, assume);
}

}  // namespace muster::sched
