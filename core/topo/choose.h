// The choice of GPUs and cores for a job on one node, and of each task's share of them: one decision. Pure; a function of
// the node's class, what is free, and what is asked.
//
//   GPUs         gpu_pick.h: near free cores first, then by the tables of gpu_sets.h
//   groups       one for each task, or several tasks for each GPU
//   cores        task_cores.h: near the group's GPUs; for jobs without GPUs away from the free ones
//   adapters     placement.h: nearest to the GPUs
//   comparison   by Cost (placement.h), last with the plain order, which is taken where it costs less
//
// Numbers in requests and answers are positions in the node's NodeTopology; hardware threads are OS numbers.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "core/topo/placement.h"
#include "lib/base/index_set.h"
#include "lib/model/binding.h"

namespace muster::topo {

struct Request {
  std::uint32_t tasks = 1;           // on this node, at least 1
  std::uint32_t cores_per_task = 1;  // at least 1
  std::uint32_t gpus = 0;            // on this node, for all tasks together
  std::string gpu_partition;         // profile of partitions; empty: whole GPUs
  // The numbers of GPUs that jobs of the queue ask of a node, bit s for s; 0: unknown, taken for the same as `gpus`.
  SizeMask sizes_asked = 0;
  Locality locality = Locality::kPrefer;
  std::uint32_t threads_per_core = 0;  // the first so many of each core; 0: all
  CpuBind cpu_bind;                    // with a list: bind() (bind.h) alone knows what to do with one
  Distribution distribution;
};

// What is there of a node. `usable` is everything that jobs may have at all, `free` what they may have now.
struct NodeUse {
  IndexSet usable_cores;  // all but those reserved for the system
  IndexSet free_cores;
  IndexSet free_gpus;
};

struct ChosenTask {
  IndexSet cores;
  IndexSet threads;  // that it may run on
  IndexSet gpus;
  IndexSet numa;  // positions in NodeTopology::numa: memory follows the cores
  IndexSet nics;
  Grades grades;
  friend bool operator==(const ChosenTask&, const ChosenTask&) = default;
};

struct Choice {
  IndexSet cores;
  IndexSet gpus;
  std::vector<ChosenTask> tasks;  // by their number on the node
  Cost cost;
  friend bool operator==(const Choice&, const Choice&) = default;
};

struct Refusal {
  bool for_ever = false;  // the empty node could not do it either
  std::string reason;     // what is missing, with numbers
};

std::variant<Choice, Refusal> choose(const NodeClass& node, const NodeUse& use, const Request& request);

// The straightforward order: free cores and GPUs by their numbers, task i gets the i-th share of both. What choose() is
// compared with. The request must fit.
std::vector<TaskPlacement> plain_order(const NodeClass& node, const Supply& supply, const Request& request);

// The cores to keep from jobs when `count` are reserved for the system: the first core of each L3 in turn, then the second
// ones, so that what is left of them stays alike.
IndexSet system_cores(const NodeClass& node, std::uint32_t count);

}  // namespace muster::topo
