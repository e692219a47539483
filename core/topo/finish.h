// From placements to what is given out: numbers of tasks, hardware threads, adapters, grades. Internal to topo.
#pragma once

#include <vector>

#include "core/topo/choose.h"

namespace muster::topo {

// Numbers the tasks in the order of their cores, and then as the distribution says.
void order_tasks(const NodeClass& node, const Distribution& distribution, std::vector<TaskPlacement>& tasks);

// The usable hardware threads of these cores.
IndexSet threads_of(const NodeClass& node, const SlotSet& cores, std::uint32_t threads_per_core);

// `held` is what the job has of the node; a binding wider than the task's cores stays in it. Not for bindings with a list.
std::vector<ChosenTask> finish(const NodeClass& node, const SlotSet& held, const std::vector<TaskPlacement>& tasks,
                               CpuBindKind bind, std::uint32_t threads_per_core);

}  // namespace muster::topo
