// What a node registers with, checked before anything is believed of it.
#pragma once

#include <string>

#include "core/engine/state.h"
#include "lib/base/result.h"
#include "lib/model/orders.h"

namespace muster::engine {

// kInvalidArgument, with the node's name, where a part of it cannot be.
Status check_registration(const State& state, const NodeRegistration& registration);

// Which of its GPUs a known node does not name any more, as a sentence; empty: none.
std::string missing_gpus(const Node& known, const NodeRegistration& registration);

}  // namespace muster::engine
