// The order that starts an attempt on one of its nodes.
#pragma once

#include <cstddef>

#include "core/engine/state.h"
#include "lib/model/orders.h"

namespace muster::engine {

// `rank` is the node's place in active.nodes.
LaunchOrder launch_order(const State& state, const Job& job, const Active& active, std::size_t rank);

}  // namespace muster::engine
