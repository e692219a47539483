// Timeline: what is free on every node from now on, when running attempts end as their time limits say and what a pass
// has started and promised is taken away. Made for one pass over a ledger and a horizon that must not change meanwhile.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/sched/horizon.h"
#include "core/sched/ledger.h"
#include "core/sched/promise.h"
#include "lib/base/time.h"

namespace muster::sched {

class Timeline {
 public:
  struct Step {
    Instant from;
    Amount free;
  };

  Timeline(const Ledger& ledger, const Horizon& horizon, Instant now);

  [[nodiscard]] Instant now() const { return now_; }
  [[nodiscard]] const Draft& draft() const { return draft_; }

  // Nodes that were looked at for a job: a measure of work.
  void look() const { ++looked_at_; }
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_; }

  // Takes what is free now, until then.
  void start(const std::vector<NodeShare>& shares, Instant until);
  // Takes an amount of each node in [from, until).
  void hold(const std::vector<Slot>& slots, Instant from, Instant until);
  // Undoes a hold().
  void drop(const std::vector<Slot>& slots, Instant from, Instant until);

  // The least that is free on the node at any instant of [from, until); nothing on a node that is not usable. Can be
  // negative where a promise was made on a node that lost hardware since.
  [[nodiscard]] Amount free(NodeIndex node, Instant from, Instant until) const;
  // The free amounts of a node as they change; the first step begins now, the last one lasts for ever.
  [[nodiscard]] const std::vector<Step>& steps(NodeIndex node) const;
  // Whether what is free on the node never shrinks, because nothing is promised there.
  [[nodiscard]] bool only_grows(NodeIndex node) const { return !held_[node.value]; }
  // When what was given to hold() begins, also what was dropped again; in no order.
  [[nodiscard]] const std::vector<Instant>& hold_starts() const { return hold_starts_; }

 private:
  void add(NodeIndex node, Instant from, Instant until, Amount change);

  Draft draft_;
  const Horizon* horizon_;
  Instant now_;
  mutable std::uint64_t looked_at_ = 0;
  std::vector<bool> held_;  // by node index
  std::vector<Instant> hold_starts_;
  // Made when they are asked for; empty: not yet.
  mutable std::vector<std::vector<Step>> steps_;
  std::map<std::uint32_t, std::vector<Horizon::Hold>> started_;  // by this pass
};

}  // namespace muster::sched
