// The tasks of one step on what its job holds of a node: who runs where, and beside which GPUs. Pure.
//
// Without wishes tasks get fair, contiguous shares beside their GPUs, as choose() gives them. A binding by numbers
// (rank, map_cpu, mask_cpu) says where the tasks run, and each gets the nearest GPUs; a list of GPUs (`gpu_list`) says
// whose they are, and each task's cores are near them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/topo/choose.h"
#include "lib/base/result.h"

namespace muster::topo {

struct Held {
  IndexSet cores;
  IndexSet gpus;
};

struct StepWish {
  std::uint32_t tasks = 1;           // on this node, at least 1
  std::uint32_t cores_per_task = 0;  // 0: what is held, in fair shares
  std::uint32_t threads_per_core = 0;
  CpuBind cpu_bind;
  Distribution distribution;
  // The GPUs of task 0, 1, ... by their numbers, instead of a choice; tasks then keep that order. Empty: none.
  std::vector<IndexSet> gpu_list;
};

// By the number of the task on the node. kRefused where the wishes do not fit what is held; the message names the option.
Result<std::vector<ChosenTask>> bind(const NodeClass& node, const Held& held, const StepWish& wish);

// How near hardware threads, by their OS numbers, are to the nearest of these GPUs each; those that the node does not have do
// not count.
Grades grades_of_threads(const NodeClass& node, const IndexSet& threads, const IndexSet& gpus);

}  // namespace muster::topo
