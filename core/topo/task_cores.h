// Cores for the tasks of a job on one node. Internal to topo.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/topo/core_pool.h"

namespace muster::topo {

struct TaskDemand {
  std::vector<std::uint32_t> gpus;
  std::uint32_t cores = 1;
};

// Cores near the GPUs: first each task's fair share of the cores that are local to its GPUs, so that nobody is left without
// one; then what is missing on their NUMA nodes, then in their packages, then anywhere, for one task after the other.
// The pool must hold as many cores as all demands together; they are taken from it. The result is by task.
std::vector<SlotSet> cores_near_gpus(const NodeClass& node, CorePool& pool, const std::vector<TaskDemand>& demands,
                                     const Penalties& penalties);

// Cores for tasks without GPUs, in several ways of which the costs decide: packed as one job and then divided, and packed
// task by task. Away from the free GPUs where the cores without any suffice; else with a core left beside each GPU, where
// that suffices. `consider` is given each way, cores by task, until it returns false.
void pack_cores(const NodeClass& node, const SlotSet& free, const std::vector<std::uint32_t>& free_gpus,
                std::uint32_t tasks, std::uint32_t cores_per_task,
                const std::function<bool(std::vector<SlotSet>)>& consider);

// `cores` divided into parts of these sizes, which add up to no more than there are; whole domains where it comes out.
std::vector<SlotSet> divide_cores(const NodeClass& node, const SlotSet& cores, const std::vector<std::uint32_t>& sizes);

}  // namespace muster::topo
