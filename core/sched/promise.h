// Planned starts: values.
#pragma once

#include <cstdint>
#include <vector>

#include "core/sched/horizon.h"
#include "lib/base/time.h"
#include "lib/model/hardware.h"
#include "lib/model/ids.h"

namespace muster::sched {

// The part of one node in a planned start.
struct Slot {
  NodeIndex node;
  Amount amount;
  std::uint32_t tasks = 0;
  friend bool operator==(const Slot&, const Slot&) = default;
};

// When a job that waits will start at the latest if no job before it comes, no node is lost and every job keeps its limit.
struct Promise {
  JobId job;
  Instant start;
  std::vector<Slot> slots;
  friend bool operator==(const Promise&, const Promise&) = default;
};

[[nodiscard]] std::vector<Slot> slots_of(const std::vector<PlannedShare>& place);
[[nodiscard]] std::vector<PlannedShare> place_of(const std::vector<Slot>& slots);

}  // namespace muster::sched
