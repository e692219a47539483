#include "core/sched/near.h"

#include <algorithm>
#include <utility>

#include "core/sched/request.h"
#include "core/sched/share.h"

namespace muster::sched {
namespace {

// Places that are tried with what is free now before only whole nodes are. Each trial asks core/topo once for each node.
constexpr int kTriesMax = 16;

// Why the job's tasks are not near their GPUs with that on the node; nothing when they are.
std::optional<std::string> why_far(const NodeCapacity& node, const JobSpec& spec, const Slot& slot, bool empty) {
  NodeCapacity there = node;
  if (empty) {
    there.free_cores = there.all_cores;
    there.free_gpus = there.all_gpus;
  }
  return why_not_near(there, slot, spec);
}

// The slot without what it has only because it is to have the whole node.
Slot shrunk(const NodeCapacity& node, const JobSpec& spec, const Slot& whole, std::uint64_t gpus_of_total) {
  return Slot{.node = whole.node, .amount = need_of(spec, node, whole.tasks, gpus_of_total), .tasks = whole.tasks};
}

bool same_hardware(const NodeCapacity& a, const NodeCapacity& b) {
  return a.node_class.get() == b.node_class.get() && a.all_cores == b.all_cores && a.all_gpus == b.all_gpus &&
         a.mem_mib == b.mem_mib;
}

// Of a request that needs no locality: that is for what is free now, or asks for whole nodes with whatever they have.
JobSpec counted(const JobSpec& spec, bool whole_nodes) {
  JobSpec out = spec;
  out.locality = Locality::kPrefer;
  if (whole_nodes) {
    out.exclusive = true;
    out.mem_per_node_mib = 0;
    out.mem_per_cpu_mib = 0;
    out.mem_per_gpu_mib = 0;
  }
  return out;
}

void leave_out(const Draft& draft, const IndexSet& ranks, NodeFilter& filter) {
  IndexSet rest = IndexSet::range(0, static_cast<std::uint32_t>(draft.order().size()));
  rest -= ranks;
  filter.narrow(rest);
}

// The ranks of the nodes that are like one of those on which the whole-node slots are of no use.
IndexSet useless_classes(const Draft& draft, const JobSpec& spec, const std::vector<Slot>& slots) {
  IndexSet out;
  for (const Slot& slot : slots) {
    const NodeCapacity& node = draft.node(slot.node.value);
    const Slot needed = shrunk(node, spec, slot, slots.size() == 1 ? spec.gpus : 0);
    if (node.all.covers(needed.amount) && !why_far(node, spec, needed, true)) {
      continue;
    }
    for (std::uint32_t rank = 0; rank < draft.order().size(); ++rank) {
      if (same_hardware(draft.node(draft.order()[rank].value), node)) {
        out.insert(rank);
      }
    }
  }
  return out;
}

// What is free now of nodes from which this pass has not taken anything: what that would leave is chosen when the plan
// is applied.
IndexSet useless_now(const Draft& draft, const JobSpec& spec, const std::vector<Slot>& slots) {
  IndexSet out;
  for (const Slot& slot : slots) {
    const NodeCapacity& node = draft.base().nodes()[slot.node.value];
    if (!(draft.node(slot.node.value).free == node.free) || why_far(node, spec, slot, false)) {
      out.insert(draft.base().rank(slot.node));
    }
  }
  return out;
}

}  // namespace

bool requires_near(const JobSpec& spec) {
  return spec.locality == Locality::kRequire && (spec.gpus != 0 || spec.gpus_per_node != 0 || spec.gpus_per_task != 0);
}

std::vector<Slot> fit_near_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                               bool any_switches) {
  const Draft& draft = timeline.draft();
  const JobSpec plain = counted(spec, false);
  NodeFilter left = filter;
  for (int i = 0; i < kTriesMax; ++i) {
    std::vector<Slot> slots = fit_now(timeline, plain, left, any_switches);
    const IndexSet useless = useless_now(draft, spec, slots);
    if (useless.empty()) {
      if (!slots.empty()) {
        return slots;
      }
      break;
    }
    leave_out(draft, useless, left);
  }
  const JobSpec whole = counted(spec, true);
  left = filter;
  while (true) {
    std::vector<Slot> slots = fit_now(timeline, whole, left, any_switches);
    // GPUs in total are dealt out over several nodes by rules that whole nodes do not follow.
    if (slots.empty() || (spec.gpus != 0 && slots.size() > 1)) {
      return {};
    }
    const IndexSet useless = useless_classes(draft, spec, slots);
    if (useless.empty()) {
      for (Slot& slot : slots) {
        slot = shrunk(draft.node(slot.node.value), spec, slot, spec.gpus);
      }
      return slots;
    }
    leave_out(draft, useless, left);
  }
}

std::optional<Spot> earliest_near(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                  Instant not_before, Instant lapse) {
  const JobSpec whole = counted(spec, true);
  NodeFilter left = filter;
  while (true) {
    std::optional<Spot> spot = earliest_fit(timeline, whole, left, not_before, lapse);
    if (!spot) {
      return std::nullopt;
    }
    const IndexSet useless = useless_classes(timeline.draft(), spec, spot->slots);
    if (useless.empty()) {
      return spot;
    }
    leave_out(timeline.draft(), useless, left);
  }
}

bool drop_far_offers(const Draft& draft, const JobSpec& spec, const std::vector<Slot>& slots, Assume assume,
                     std::vector<Offer>& offers, std::string& why) {
  const bool empty = assume != Assume::kFreeNow;
  bool dropped = false;
  for (const Slot& slot : slots) {
    const NodeCapacity& node = draft.node(slot.node.value);
    std::optional<std::string> far = why_far(node, spec, slot, empty);
    if (!far) {
      continue;
    }
    why = std::move(*far);
    dropped = true;
    std::erase_if(offers, [&](const Offer& o) {
      return o.index == slot.node || (empty && same_hardware(draft.node(o.index.value), node));
    });
  }
  return dropped;
}

}  // namespace muster::sched
