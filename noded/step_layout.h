// Which tasks of a step run on which nodes of its job. Pure.
//
// Nodes keep the job's order and ranks are dealt out over them as --distribution says, else in blocks: the first node has
// ranks 0..k-1. Without wishes a step has the job's own layout. What a step gets on its nodes is decided by step_shares.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace muster::noded {

// A node of the job, in the job's order.
struct JobNode {
  std::string name;
  std::uint32_t tasks = 1;  // of the job's own layout
  std::uint32_t cpus = 1;   // physical cores that the job holds there
  std::uint32_t gpus = 0;
};

// The wishes of one step; 0 and empty: none.
struct StepWish {
  std::uint32_t nodes = 0;      // --nodes MIN
  std::uint32_t nodes_max = 0;  // --nodes MAX; 0: equals `nodes`
  std::uint32_t ntasks = 0;
  std::uint32_t ntasks_per_node = 0;
  std::uint32_t cpus_per_task = 0;
  std::vector<std::string> nodelist = {};  // names
  std::vector<std::string> exclude = {};   // names; those that are not the job's are ignored
  std::uint32_t relative = 0;              // nodes to leave out at the head of the job
  std::uint32_t plane = 0;                 // --distribution: tasks of each node in turn (step_ranks.h); 0: in blocks
};

struct StepPlan {
  struct Entry {
    std::size_t job_node = 0;          // position in the job's nodes
    std::uint32_t tasks = 0;           // at least 1
    std::vector<std::uint32_t> ranks;  // as many as tasks
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  std::vector<Entry> nodes;
  std::uint32_t ntasks = 0;
  friend bool operator==(const StepPlan&, const StepPlan&) = default;
};

// At most this many tasks in one step: each has a record in its coordinator and pipes on its node.
inline constexpr std::uint64_t kTasksPerStepMax = 1'000'000;

// kRefused when the wishes do not fit into the job; the message names the option.
Result<StepPlan> plan_step(const std::vector<JobNode>& job, const StepWish& wish);

}  // namespace muster::noded
