// Timeline: what is free on every node, and of the licences, from now on, when running attempts end as their time limits say and what a pass
// has started and promised is taken away. Made for one pass over a ledger and a horizon that must not change meanwhile.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "core/sched/horizon.h"
#include "core/sched/ledger.h"
#include "core/sched/licenses.h"
#include "core/sched/promise.h"
#include "core/sched/windows.h"
#include "lib/base/time.h"

namespace muster::sched {

class Timeline {
 public:
  struct Step {
    Instant from;
    Amount free;
  };

  // `windows` may be null: there are no reservations.
  Timeline(const Ledger& ledger, const Horizon& horizon, Instant now, const Windows* windows = nullptr,
           LicenseLine licenses = {});

  [[nodiscard]] Instant now() const { return now_; }
  [[nodiscard]] const Draft& draft() const { return draft_; }
  [[nodiscard]] const LicenseLine& licenses() const { return licenses_; }
  // Null where no reservation is.
  [[nodiscard]] const Windows* windows() const { return windows_; }

  // Nodes that were looked at for a job: a measure of work.
  void look() const { ++looked_at_; }
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_; }

  // Takes what is free now, until then.
  void start(const std::vector<NodeShare>& shares, Instant until, const LicenseCounts& licenses);
  // Takes the cores of an attempt that goes on until then, also on nodes where nothing new may start.
  void go_on(const NodeShare& cores, Instant until);
  // Takes an amount of each node in [from, until).
  void hold(const std::vector<Slot>& slots, Instant from, Instant until, const LicenseCounts& licenses);
  // Undoes a hold().
  void drop(const std::vector<Slot>& slots, Instant from, Instant until, const LicenseCounts& licenses);

  // What an attempt holds becomes free at `from`, before `until`, when it was believed to; and undoes that. What is free
  // still never shrinks by it.
  void give_back(const std::vector<Slot>& slots, Instant from, Instant until);
  void take_back(const std::vector<Slot>& slots, Instant from, Instant until);

  // The least that is free on the node at any instant of [from, until); nothing on a node that is not usable, and nothing
  // where a job that names this reservation (empty: none) may not be for all that time. Can be negative where a promise
  // was made on a node that lost hardware since.
  [[nodiscard]] Amount free(NodeIndex node, Instant from, Instant until, std::string_view reservation) const;
  // The free amounts of a node as they change, without regard to windows; the first step begins now, the last one lasts for ever.
  [[nodiscard]] const std::vector<Step>& steps(NodeIndex node) const;
  // Whether what is free on the node never shrinks, because nothing is promised there.
  [[nodiscard]] bool only_grows(NodeIndex node) const { return !held_[node.value]; }
  // When what was given to hold() begins, also what was dropped again; in no order.
  [[nodiscard]] const std::vector<Instant>& hold_starts() const { return hold_starts_; }
  // Whether windows limit when such a job may use the node.
  [[nodiscard]] bool has_windows(NodeIndex node, std::string_view reservation) const {
    return windows_ != nullptr && (!reservation.empty() || windows_->touches(node));
  }

 private:
  void note_start(const NodeShare& share, Instant until);
  void add(NodeIndex node, Instant from, Instant until, Amount change);

  Draft draft_;
  const Horizon* horizon_;
  Instant now_;
  const Windows* windows_;
  LicenseLine licenses_;
  mutable std::uint64_t looked_at_ = 0;
  std::vector<bool> held_;  // by node index
  std::vector<Instant> hold_starts_;
  // Made when they are asked for; empty: not yet.
  mutable std::vector<std::vector<Step>> steps_;
  std::map<std::uint32_t, std::vector<Horizon::Hold>> started_;  // by this pass
};

}  // namespace muster::sched
