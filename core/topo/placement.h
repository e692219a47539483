// Placement: which cores and GPUs each task of a job has on one node, and what that costs. Internal values of topo;
// choose.h and bind.h give them out.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "core/topo/gpu_sets.h"
#include "core/topo/node_class.h"

namespace muster::topo {

struct TaskPlacement {
  SlotSet cores;
  std::vector<std::uint32_t> gpus;  // numbers, ascending
  std::vector<std::uint32_t> nics;  // numbers, ascending
};

// How near a task's cores are to its GPUs. A task without GPUs has all grades.
struct Grades {
  bool device = true;   // all cores are local to one of its GPUs
  bool numa = true;     // all cores are on the NUMA node of one
  bool package = true;  // all cores are in the package of one
  friend bool operator==(const Grades&, const Grades&) = default;
};

// What a choice costs, in the order in which costs are compared.
struct Cost {
  std::uint32_t tasks_without_local_gpu = 0;  // tasks with GPUs none of whose cores is local to one of them
  std::uint64_t distance = 0;                 // summed over cores, to the nearest of the task's GPUs
  std::uint32_t distance_max = 0;             // of one core; told, not compared
  // Higher is better: of all pairs of the job's GPUs, then of the pairs inside tasks. A pair counts its link bandwidth,
  // then its PCIe tier.
  std::uint64_t bottleneck = 0;
  std::uint64_t bandwidth = 0;
  std::uint64_t task_bottleneck = 0;
  std::uint64_t task_bandwidth = 0;
  // What it costs the rest: the value of the best packing of the GPUs left (higher is better), GPUs left without a free
  // local core that had one before, and cores taken that are local to a GPU left.
  std::int64_t rest_value = 0;
  std::uint32_t rest_starved = 0;
  std::uint32_t rest_cores = 0;
  // NUMA nodes and L3s beyond one, summed over tasks.
  std::uint32_t numa_splits = 0;
  std::uint32_t l3_splits = 0;
  std::uint32_t nic_steps = 0;  // PCIe tiers below the nearest possible, summed over tasks and their GPUs

  friend bool operator==(const Cost&, const Cost&) = default;
};
// Below 0: `a` costs less. Indices do not count: whoever compares keeps the first of equals.
int compare(const Cost& a, const Cost& b);

// What is there for a choice.
struct Supply {
  SlotSet cores;                    // free
  std::vector<std::uint32_t> gpus;  // free, ascending
};

// The first of what a choice costs: how far tasks are from their GPUs.
struct Distances {
  std::uint32_t tasks_without_local_gpu = 0;
  std::uint64_t sum = 0;
  std::uint32_t max = 0;
};
Distances distances_of(const NodeClass& node, const std::vector<TaskPlacement>& tasks);

Grades grades_of(const NodeClass& node, const TaskPlacement& task);
Cost cost_of(const NodeClass& node, const Supply& supply, const std::vector<TaskPlacement>& tasks, SizeMask sizes);

// Gives each task the network adapters nearest to its GPUs, one for each GPU, or the one nearest to its cores. Those made
// for messages between nodes come first; among equally near ones the faster, then the less used one.
void choose_nics(const NodeClass& node, std::vector<TaskPlacement>& tasks);

// The places of these GPUs in the order of addresses, as a mask; at most kTableGpusMax GPUs.
GpuMask mask_of(const NodeClass& node, const std::vector<std::uint32_t>& gpus);
std::vector<std::uint32_t> gpus_of(const NodeClass& node, GpuMask mask);

}  // namespace muster::topo
