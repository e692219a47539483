#include "core/sched/promise.h"

namespace muster::sched {

std::vector<Slot> slots_of(const std::vector<PlannedShare>& place) {
  std::vector<Slot> slots;
  slots.reserve(place.size());
  for (const PlannedShare& s : place) {
    slots.push_back(
        Slot{.node = s.node,
             .amount = Amount{.cores = s.cores, .gpus = s.gpus, .mem_mib = static_cast<std::int64_t>(s.mem_mib)},
             .tasks = s.tasks});
  }
  return slots;
}

std::vector<PlannedShare> place_of(const std::vector<Slot>& slots) {
  std::vector<PlannedShare> place;
  place.reserve(slots.size());
  for (const Slot& s : slots) {
    place.push_back(PlannedShare{.node = s.node,
                                 .tasks = s.tasks,
                                 .cores = static_cast<std::uint32_t>(s.amount.cores),
                                 .gpus = static_cast<std::uint32_t>(s.amount.gpus),
                                 .mem_mib = static_cast<std::uint64_t>(s.amount.mem_mib)});
  }
  return place;
}

}  // namespace muster::sched
