#include "core/sched/place.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "core/sched/choose.h"
#include "core/sched/domains.h"
#include "core/sched/near.h"
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

// What of the network or of the features no set of nodes satisfies.
std::string together_text(const JobSpec& spec, const NodeFilter& filter) {
  if (!filter.quotas.empty() || !filter.choices.empty()) {
    return "no set of nodes with its features " + spec.constraint + " out";
  }
  if (filter.places != nullptr && filter.places->kind == TopologyKind::kTree) {
    return "no " + plural(spec.switches, "leaf switch", "leaf switches together") + " out";
  }
  return spec.segment != 0 ? "no set of blocks for its segments out" : "no block or group of blocks out";
}

}  // namespace

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

namespace {

// With GPUs in total: on nodes of one class.
bool fits_one_class(const Ledger& ledger, const JobSpec& spec, const NodeFilter& filter) {
  return std::any_of(ledger.classes().begin(), ledger.classes().end(), [&](const Ledger::NodeClass& c) {
    const std::uint64_t there = filter.all ? c.nodes : (c.ranks & filter.ranks).count();
    const std::uint64_t tasks = tasks_that_fit(spec, ledger.nodes()[c.example.value], c.all);
    const std::uint64_t gpus = gpus_that_fit(spec, c.all);
    if (tasks == 0 || gpus == 0 || spec.gpus_per_task != 0) {
      return false;
    }
    const std::uint64_t nodes =
        std::max<std::uint64_t>({1, spec.nodes_min, (spec.ntasks + tasks - 1) / tasks, (spec.gpus + gpus - 1) / gpus});
    return nodes <= std::min<std::uint64_t>(there, spec.ntasks) && (spec.nodes_max == 0 || nodes <= spec.nodes_max);
  });
}

bool surely_fits_empty_freely(const Ledger& ledger, const JobSpec& spec, const NodeFilter& filter) {
  if (!spec.nodelist.empty()) {
    return false;
  }
  if (spec.gpus != 0 && spec.nodes_max != 1) {
    return fits_one_class(ledger, spec, filter);
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

}  // namespace

bool surely_fits_empty(const Ledger& ledger, const JobSpec& spec, const NodeFilter& filter) {
  if (!filter.quotas.empty() || !filter.choices.empty() || requires_near(spec)) {
    return false;
  }
  // A limit of switches that lapses keeps no job from running.
  if (!has_hard_domains(spec, filter, !spec.switches_wait.is_infinite())) {
    return surely_fits_empty_freely(ledger, spec, filter);
  }
  const std::vector<HardDomain> whole = domains_for_whole(spec, filter);
  return std::any_of(whole.begin(), whole.end(), [&](const HardDomain& domain) {
    NodeFilter inside = filter;
    inside.narrow(*domain.ranks);
    return spec.nodes_max != 0 && spec.nodes_max <= domain.nodes_max && surely_fits_empty_freely(ledger, spec, inside);
  });
}

PlaceResult place(const Draft& draft, const JobSpec& spec, const std::vector<std::string>& allowed, Assume assume,
                  const std::shared_ptr<const Sites>& sites) {
  const NodeFilter filter = make_filter(draft.base(), spec, allowed, sites);
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
    r.detail += spec.constraint.empty() ? "" : ", with the features that it asks for (" + spec.constraint + ")";
    return r;
  }
  std::vector<Slot> slots = choose_suitable(offers, spec, filter, !spec.switches_wait.is_infinite());
  std::string far;
  while (requires_near(spec) && !slots.empty() && drop_far_offers(draft, spec, slots, assume, offers, far)) {
    slots = choose_suitable(offers, spec, filter, !spec.switches_wait.is_infinite());
  }
  if (slots.empty() && !far.empty()) {
    r.obstacle = Obstacle::kLocality;
    r.detail = "asks for " + describe_request(spec) + "; " + far;
    return r;
  }
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
  std::string missing;
  const bool together = !choose(offers, spec, missing).empty();
  r = refusal(offers, spec, assume);
  if (together) {
    // The nodes that could take it are there, and not such that suit each other.
    r.obstacle = Obstacle::kTogether;
    r.detail = "asks for " + describe_request(spec) + "; " + together_text(spec, filter) + " of " +
               plural(offers.size(), "node", "nodes") +
               (assume == Assume::kAllEmpty      ? ""
                : assume == Assume::kUsableEmpty ? " in service"
                                                 : " in service now") +
               " has enough";
  } else if (!missing.empty()) {
    r.obstacle = Obstacle::kNodeList;
    r.detail = without_named(missing, spec, allowed) + "; it " + r.detail;
  }
  return r;
}

}  // namespace muster::sched
