#include "core/sched/horizon.h"

#include <algorithm>
#include <tuple>

#include "lib/base/check.h"

namespace muster::sched {

Amount& Amount::operator+=(const Amount& o) {
  cores += o.cores;
  gpus += o.gpus;
  mem_mib += o.mem_mib;
  return *this;
}

Amount& Amount::operator-=(const Amount& o) {
  cores -= o.cores;
  gpus -= o.gpus;
  mem_mib -= o.mem_mib;
  return *this;
}

Amount amount_of(const NodeShare& share) {
  return Amount{static_cast<std::int64_t>(share.cores.count()), static_cast<std::int64_t>(share.gpus.count()),
                static_cast<std::int64_t>(share.mem_mib)};
}

Amount least(const Amount& a, const Amount& b) {
  return Amount{std::min(a.cores, b.cores), std::min(a.gpus, b.gpus), std::min(a.mem_mib, b.mem_mib)};
}

void Horizon::hold(const NodeShare& share, Instant until) {
  if (share.node.value >= nodes_.size()) {
    nodes_.resize(share.node.value + 1);
  }
  std::vector<Hold>& holds = nodes_[share.node.value];
  const auto at =
      std::upper_bound(holds.begin(), holds.end(), until, [](Instant t, const Hold& h) { return t < h.until; });
  holds.insert(at, Hold{until, amount_of(share)});
}

void Horizon::release(const NodeShare& share, Instant until) {
  MUSTER_CHECK(share.node.value < nodes_.size());
  std::vector<Hold>& holds = nodes_[share.node.value];
  const Hold gone{until, amount_of(share)};
  auto at = std::lower_bound(holds.begin(), holds.end(), until, [](const Hold& h, Instant t) { return h.until < t; });
  at = std::find(at, holds.end(), gone);
  MUSTER_CHECK(at != holds.end());
  holds.erase(at);
}

const std::vector<Horizon::Hold>& Horizon::on(NodeIndex node) const {
  static const std::vector<Hold> kNone;
  return node.value < nodes_.size() ? nodes_[node.value] : kNone;
}

// Holds that end at the same instant may stand in any order, and a node that holds nothing may be missing.
bool operator==(const Horizon& a, const Horizon& b) {
  const std::size_t n = std::max(a.nodes_.size(), b.nodes_.size());
  const auto sorted = [](std::vector<Horizon::Hold> holds) {
    std::sort(holds.begin(), holds.end(), [](const Horizon::Hold& x, const Horizon::Hold& y) {
      return std::tie(x.until, x.amount.cores, x.amount.gpus, x.amount.mem_mib) <
             std::tie(y.until, y.amount.cores, y.amount.gpus, y.amount.mem_mib);
    });
    return holds;
  };
  for (std::size_t i = 0; i < n; ++i) {
    const NodeIndex node{static_cast<std::uint32_t>(i)};
    if (sorted(a.on(node)) != sorted(b.on(node))) {
      return false;
    }
  }
  return true;
}

Instant end_of(Instant start, Duration limit) {
  return limit.is_infinite() || start.us > INT64_MAX / 2 - limit.us ? Instant{INT64_MAX / 2} : start + limit;
}

NodeShare cores_of(const NodeShare& share) {
  return NodeShare{.node = share.node, .cores = share.cores, .gpus = {}, .mem_mib = 0, .tasks = share.tasks};
}

NodeShare without_cores(const NodeShare& share) {
  return NodeShare{.node = share.node, .cores = {}, .gpus = share.gpus, .mem_mib = share.mem_mib, .tasks = share.tasks};
}

NodeShare held_share(const AttemptOnNode& on) {
  return on.stands_still ? without_cores(on.share) : on.share;
}

std::vector<HeldPart> held_parts(const Active& active, const AttemptOnNode& on) {
  const Instant end = believed_end(active);
  // The node is about to say that it stands still. What it keeps then, it keeps until it has gone on and ended.
  if (active.suspension.room_for != JobId{} && active.stop == StopCause::kNone && !on.stands_still) {
    return {{cores_of(on.share), active.suspension.since}, {without_cores(on.share), end}};
  }
  return {{held_share(on), end}};
}

Duration ran_for(const Active& active, Instant now) {
  const Instant until = active.suspension.since.is_set() ? active.suspension.since : now;
  return std::max(Duration{}, until - active.start_time - active.suspension.earlier);
}

Instant believed_end(const Active& active) {
  const Instant limit = active.suspension.since.is_set()
                            ? end_of(active.start_time, Duration::infinite())  // nobody knows when it goes on
                            : end_of(end_of(active.start_time, active.suspension.earlier), active.time_limit);
  if (active.stop == StopCause::kNone || !active.stop_time.is_set()) {
    return limit;
  }
  return std::min(limit, end_of(active.stop_time, active.terms.notice));
}

}  // namespace muster::sched
