// What `run --cpu-bind=verbose` says of a task, and `show job` of all of them.
#pragma once

#include <string>

namespace muster::pb {
class NodePlacement;
class StepTaskBound;
}  // namespace muster::pb

namespace muster::cli {

// "task 0 on n1: CPUs 0-3 as decided, NUMA node 0, GPUs 2, local to the device", or that it is not as decided.
std::string bound_text(const pb::StepTaskBound& bound);

// "n1: 5 tasks read back, as decided", for `show job`; empty when nothing was.
std::string proof_text(const pb::NodePlacement& placement);

}  // namespace muster::cli
