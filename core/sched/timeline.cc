#include "core/sched/timeline.h"

#include <algorithm>
#include <utility>

namespace muster::sched {
namespace {

// An attempt that is over its time is about to be stopped by its node.
constexpr Duration kOverdue = Duration::from_s(1);

std::size_t split(std::vector<Timeline::Step>& steps, Instant at) {
  const auto it =
      std::lower_bound(steps.begin(), steps.end(), at, [](const Timeline::Step& s, Instant t) { return s.from < t; });
  if (it != steps.end() && it->from == at) {
    return static_cast<std::size_t>(it - steps.begin());
  }
  const auto before = static_cast<std::size_t>(it - steps.begin()) - 1;
  steps.insert(it, Timeline::Step{at, steps[before].free});
  return before + 1;
}

}  // namespace

Timeline::Timeline(const Ledger& ledger, const Horizon& horizon, Instant now, const Windows* windows,
                   LicenseLine licenses)
    : draft_(ledger),
      horizon_(&horizon),
      now_(now),
      windows_(windows != nullptr && windows->empty() ? nullptr : windows),
      licenses_(std::move(licenses)),
      held_(ledger.nodes().size()),
      steps_(ledger.nodes().size()) {}

void Timeline::start(const std::vector<NodeShare>& shares, Instant until, const LicenseCounts& licenses) {
  licenses_.take(licenses, now_, until);
  for (const NodeShare& share : shares) {
    draft_.take(share);
    note_start(share, until);
  }
}

void Timeline::go_on(const NodeShare& cores, Instant until) {
  draft_.take_cores(cores.node, cores.cores);
  if (draft_.node(cores.node.value).usable) {
    note_start(cores, until);
  }
}

void Timeline::note_start(const NodeShare& share, Instant until) {
  Amount taken = Amount{};
  taken -= amount_of(share);
  if (!steps_[share.node.value].empty()) {
    add(share.node, now_, until, taken);
  } else {
    started_[share.node.value].push_back(Horizon::Hold{until, amount_of(share)});
  }
}

void Timeline::hold(const std::vector<Slot>& slots, Instant from, Instant until, const LicenseCounts& licenses) {
  hold_starts_.push_back(from);
  licenses_.take(licenses, from, until);
  for (const Slot& slot : slots) {
    static_cast<void>(steps(slot.node));
    held_[slot.node.value] = true;
    Amount taken;
    taken -= slot.amount;
    add(slot.node, from, until, taken);
  }
}

void Timeline::drop(const std::vector<Slot>& slots, Instant from, Instant until, const LicenseCounts& licenses) {
  licenses_.give_back(licenses, from, until);
  for (const Slot& slot : slots) {
    add(slot.node, from, until, slot.amount);
  }
}

void Timeline::give_back(const std::vector<Slot>& slots, Instant from, Instant until) {
  for (const Slot& slot : slots) {
    static_cast<void>(steps(slot.node));
    add(slot.node, from, std::max(until, now_ + kOverdue), slot.amount);
  }
}

void Timeline::take_back(const std::vector<Slot>& slots, Instant from, Instant until) {
  for (const Slot& slot : slots) {
    Amount taken;
    taken -= slot.amount;
    add(slot.node, from, std::max(until, now_ + kOverdue), taken);
  }
}

void Timeline::add(NodeIndex node, Instant from, Instant until, Amount change) {
  std::vector<Step>& steps = steps_[node.value];
  from = std::max(from, now_);
  if (until <= from) {
    return;
  }
  const std::size_t first = split(steps, from);
  const std::size_t last = split(steps, until);
  for (std::size_t i = first; i < last; ++i) {
    steps[i].free += change;
  }
}

const std::vector<Timeline::Step>& Timeline::steps(NodeIndex node) const {
  std::vector<Step>& steps = steps_[node.value];
  if (!steps.empty()) {
    return steps;
  }
  const NodeCapacity& n = draft_.node(node.value);
  if (!n.usable) {
    steps.push_back(Step{now_, Amount{}});
    return steps;
  }
  std::vector<Horizon::Hold> ends = horizon_->on(node);
  if (const auto own = started_.find(node.value); own != started_.end()) {
    ends.insert(ends.end(), own->second.begin(), own->second.end());
    std::stable_sort(ends.begin(), ends.end(),
                     [](const Horizon::Hold& a, const Horizon::Hold& b) { return a.until < b.until; });
  }
  steps.reserve(ends.size() + 1);
  steps.push_back(Step{now_, n.free});
  for (const Horizon::Hold& end : ends) {
    const Instant at = std::max(end.until, now_ + kOverdue);
    if (steps.back().from != at) {
      steps.push_back(Step{at, steps.back().free});
    }
    Amount& free = steps.back().free;
    free += end.amount;
    free = least(free, n.all);  // what is held may be more than a node has since it lost hardware
  }
  return steps;
}

Amount Timeline::free(NodeIndex node, Instant from, Instant until, std::string_view reservation) const {
  const NodeCapacity& n = draft_.node(node.value);
  if (!n.usable || (has_windows(node, reservation) && !windows_->allows(node, from, until, reservation))) {
    return Amount{};
  }
  if (from == now_ && only_grows(node)) {
    return n.free;
  }
  const std::vector<Step>& all = steps(node);
  auto it = std::upper_bound(all.begin(), all.end(), from, [](Instant t, const Step& s) { return t < s.from; });
  it = std::prev(it);  // the first step begins now, and nobody asks about the past
  Amount result = it->free;
  if (only_grows(node)) {
    return result;
  }
  for (++it; it != all.end() && it->from < until; ++it) {
    result = least(result, it->free);
  }
  return result;
}

}  // namespace muster::sched
