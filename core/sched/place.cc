#include "core/sched/place.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "core/sched/choose.h"
#include "core/sched/request.h"

namespace muster::sched {
namespace {

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
    const Amount need = need_of(spec, *o.node, 1, 0);
    tasks_that_fit += o.capacity;
    gpus_there += static_cast<std::uint64_t>(o.free.gpus);
    if (o.capacity >= 1) {
      ++fit;
    } else if (need.cores > o.free.cores) {
      ++lack_cores;
    } else if (need.gpus > o.free.gpus) {
      ++lack_gpus;
    } else if (need.mem_mib > o.free.mem_mib) {
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
    add(fit, fit == 1 ? " can take a task of it, which is too few nodes"
                      : " can take a task of it, which are too few nodes");
  } else if (tasks_that_fit < spec.ntasks) {
    add(fit, (fit == 1 ? " has room for " : " have room for ") + plural(tasks_that_fit, "task", "tasks") + " of it");
  } else if (spec.gpus > gpus_there) {
    parts += (parts.empty() ? " all have " : ", all together have ") + plural(gpus_there, "GPU", "GPUs");
  } else {
    add(fit, fit == 1 ? " could take a part of it" : " could take parts of it");
  }
  r.detail += parts.empty() ? " none fits" : parts;
  r.obstacle = lack_cores != 0    ? Obstacle::kCores
               : lack_gpus != 0   ? Obstacle::kGpus
               : lack_memory != 0 ? Obstacle::kMemory
                                  : Obstacle::kTooManyNodes;
  return r;
}

// Why no node is left to the job although some may have registered, whatever runs there; after "it ".
std::string without_nodes(const Draft& draft, const JobSpec& spec, const std::vector<std::string>& allowed) {
  const auto leaves_some = [&](const JobSpec& asked) {
    const NodeFilter filter = make_filter(draft.base(), asked, allowed);
    return filter.all ? !draft.order().empty() : !filter.ranks.empty();
  };
  JobSpec without = spec;
  without.exclude.clear();
  if (!spec.exclude.empty() && leaves_some(without)) {
    return "may use no node, because --exclude names all that it could";
  }
  without.nodelist.clear();
  if (!spec.nodelist.empty() && leaves_some(without)) {
    return "may use no node, because none of --nodelist is in the queue";
  }
  return "may use no node, because none of the queue's has ever registered";
}

// The same for one node that it asks for by name.
std::string without_named(const std::string& name, const JobSpec& spec, const std::vector<std::string>& allowed) {
  const bool outside = !allowed.empty() && std::find(allowed.begin(), allowed.end(), name) == allowed.end();
  return "asks for node " + name + " by name, which " +
         (outside ? "is not in queue " + spec.queue : std::string("it cannot have"));
}

}  // namespace

bool only_named(const JobSpec& spec) {
  return !spec.nodelist.empty() &&
         (spec.ntasks <= spec.nodelist.size() || (spec.nodes_max != 0 && spec.nodes_max <= spec.nodelist.size()));
}

NodeFilter make_filter(const Ledger& ledger, const JobSpec& spec, const std::vector<std::string>& allowed) {
  NodeFilter filter;
  const bool named = only_named(spec);
  if (allowed.empty() && spec.exclude.empty() && !named) {
    return filter;
  }
  filter.all = false;
  const auto rank_of = [&ledger](const std::string& name) -> std::optional<std::uint32_t> {
    const NodeIndex* index = ledger.find(name);
    return index == nullptr ? std::nullopt : std::optional(ledger.rank(*index));
  };
  if (allowed.empty()) {
    filter.ranks = IndexSet::range(0, static_cast<std::uint32_t>(ledger.order().size()));
  }
  for (const std::string& name : allowed) {
    if (const auto rank = rank_of(name)) {
      filter.ranks.insert(*rank);
    }
  }
  if (named) {
    IndexSet ranks;
    for (const std::string& name : spec.nodelist) {
      if (const auto rank = rank_of(name)) {
        ranks.insert(*rank);
      }
    }
    filter.ranks &= ranks;
  }
  for (const std::string& name : spec.exclude) {
    if (const auto rank = rank_of(name)) {
      filter.ranks.erase(*rank);
    }
  }
  return filter;
}

std::vector<NodeShare> shares_for(const Draft& draft, const std::vector<Slot>& slots) {
  std::vector<NodeShare> shares;
  for (const Slot& slot : slots) {
    const NodeCapacity& n = draft.node(slot.node.value);
    shares.push_back(NodeShare{.node = slot.node,
                               .cores = n.free_cores.lowest(static_cast<std::uint32_t>(slot.amount.cores)),
                               .gpus = n.free_gpus.lowest(static_cast<std::uint32_t>(slot.amount.gpus)),
                               .mem_mib = static_cast<std::uint64_t>(slot.amount.mem_mib),
                               .tasks = slot.tasks});
  }
  return shares;
}

bool surely_fits_empty(const Ledger& ledger, const JobSpec& spec, const NodeFilter& filter) {
  if (!spec.nodelist.empty() || (spec.gpus != 0 && spec.nodes_max != 1)) {
    return false;
  }
  std::vector<std::pair<std::uint32_t, std::uint64_t>> capacities;  // tasks on a node, nodes
  for (const Ledger::NodeClass& c : ledger.classes()) {
    const std::uint64_t nodes = filter.all ? c.nodes : (c.ranks & filter.ranks).count();
    const NodeCapacity& example = ledger.nodes()[c.example.value];
    const std::uint32_t tasks = tasks_that_fit(spec, example, c.all);
    if (tasks != 0 && nodes != 0) {
      capacities.emplace_back(tasks, nodes);
    }
    if (spec.nodes_min <= 1 && nodes != 0 && c.all.covers(need_of(spec, example, spec.ntasks, spec.gpus))) {
      return true;
    }
  }
  std::sort(capacities.rbegin(), capacities.rend());
  std::uint64_t nodes = 0;
  std::uint64_t tasks = 0;
  std::uint64_t left = spec.nodes_max == 0 ? UINT64_MAX : spec.nodes_max;
  for (const auto& [each, count] : capacities) {
    const std::uint64_t used = std::min(left, count);
    nodes += count;
    tasks += each * used;
    left -= used;
  }
  return nodes >= std::max<std::uint64_t>(1, spec.nodes_min) && tasks >= spec.ntasks && spec.gpus == 0;
}

PlaceResult place(const Draft& draft, const JobSpec& spec, const std::vector<std::string>& allowed, Assume assume) {
  const NodeFilter filter = make_filter(draft.base(), spec, allowed);
  std::vector<Offer> offers;
  for (std::size_t rank = 0; rank < draft.order().size(); ++rank) {
    const NodeIndex index = draft.order()[rank];
    const NodeCapacity& n = draft.node(index.value);
    if (filter.allows(static_cast<std::uint32_t>(rank)) && (n.usable || assume == Assume::kAllEmpty)) {
      offers.push_back(make_offer(draft, spec, index, assume == Assume::kFreeNow ? n.free : n.all));
    }
  }
  PlaceResult r;
  if (offers.empty()) {
    r.obstacle = Obstacle::kNoNodes;
    r.detail =
        assume == Assume::kAllEmpty ? without_nodes(draft, spec, allowed) : "no node that it may use is in service";
    return r;
  }
  std::string missing;
  const std::vector<Slot> slots = choose(offers, spec, missing);
  if (!slots.empty()) {
    // As if nothing ran: the lowest cores and GPUs stand for those that it would get.
    for (const Slot& slot : slots) {
      const NodeCapacity& n = draft.node(slot.node.value);
      const bool now = assume == Assume::kFreeNow;
      r.shares.push_back(
          NodeShare{.node = slot.node,
                    .cores = (now ? n.free_cores : n.all_cores).lowest(static_cast<std::uint32_t>(slot.amount.cores)),
                    .gpus = (now ? n.free_gpus : n.all_gpus).lowest(static_cast<std::uint32_t>(slot.amount.gpus)),
                    .mem_mib = static_cast<std::uint64_t>(slot.amount.mem_mib),
                    .tasks = slot.tasks});
    }
    return r;
  }
  r = refusal(offers, spec, assume);
  if (!missing.empty()) {
    r.obstacle = Obstacle::kNodeList;
    r.detail = without_named(missing, spec, allowed) + "; it " + r.detail;
  }
  return r;
}

}  // namespace muster::sched
