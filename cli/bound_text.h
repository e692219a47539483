// What `run --cpu-bind=verbose` says of a task.
#pragma once

#include <string>

namespace muster::pb {
class StepTaskBound;
}

namespace muster::cli {

// "task 0 on n1: CPUs 0-3 as decided, NUMA node 0, GPUs 2, local to the device", or that it is not as decided.
std::string bound_text(const pb::StepTaskBound& bound);

}  // namespace muster::cli
