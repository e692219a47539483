// What the tasks of a step get of a node, as the step's and its job's options say it: bind.h with these options read. Pure.
// The node asks it for each step, the controller for the tasks of the job's own layout. A step that says nothing about binding and
// leaves cores of the job unused is spread over all of them, because other steps may run beside it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/topo/bind.h"
#include "lib/base/result.h"
#include "lib/model/hardware.h"
#include "lib/model/job_spec.h"

namespace muster::topo {

// What was asked for the step; 0 and empty: what the job says.
struct StepOptions {
  std::uint32_t tasks = 1;  // on this node
  std::uint32_t cpus_per_task = 0;
  std::string cpu_bind = {};
  std::string gpu_bind = {};
  std::string distribution = {};
  std::uint32_t threads_per_core = 0;
  std::uint32_t gpus_per_task = 0;
};

struct BoundTask {
  ChosenTask chosen;
  bool own_gpus = false;  // it sees `chosen.gpus` alone; else all of the job's on the node
};

// By the task's number on the node. kRefused names the option that does not fit.
Result<std::vector<BoundTask>> bind_step(const NodeClass& node, const JobSpec& job, const NodeShare& share,
                                         const StepOptions& step);

}  // namespace muster::topo
