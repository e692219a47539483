// Tasks beside the GPUs of their job: which GPUs each task has, and with them its cores. Internal to topo.
#pragma once

#include <cstdint>
#include <vector>

#include "core/topo/core_pool.h"
#include "core/topo/placement.h"

namespace muster::topo {

// A placement of tasks with `sizes` cores each on `gpus`, at least one, out of `free` cores, which are enough. With as many
// GPUs as tasks or more, each task has a group that belongs together by links; with fewer, each GPU serves several tasks.
// Where that leaves tasks far from their GPUs, groups are also made by where cores are, and in the plain order, and the
// nearest placement is taken. Tasks are in no particular order and have no adapters yet.
std::vector<TaskPlacement> place_beside(const NodeClass& node, const SlotSet& free,
                                        const std::vector<std::uint32_t>& gpus, const std::vector<std::uint32_t>& sizes,
                                        const Penalties& penalties);

// The straightforward order: cores and GPUs by their numbers, task i gets the i-th share of both.
std::vector<TaskPlacement> place_in_order(const NodeClass& node, const SlotSet& free,
                                          const std::vector<std::uint32_t>& gpus,
                                          const std::vector<std::uint32_t>& sizes);

}  // namespace muster::topo
