// The proof that tasks are where they were decided to be: what the kernel said of each, compared with the decision and graded.
// Pure.
#pragma once

#include <cstdint>
#include <string>

#include "lib/base/index_set.h"
#include "lib/model/proof.h"
#include "noded/attempts.h"

namespace muster::noded {

// What was decided for a task.
struct Decided {
  IndexSet threads;  // OS numbers; empty: it is not bound
  IndexSet gpus;     // numbers of the node's GPUs
};

// On a node that pretends nothing is compared, and the grades are those of the decision.
Verdict prove(const NodeIdentity& node, const Decided& decided, const StepTaskBoundFrame& read_back);

}  // namespace muster::noded
