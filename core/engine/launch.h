// The order that starts an attempt on one of its nodes.
#pragma once

#include <cstddef>

#include "core/engine/state.h"
#include "lib/model/orders.h"

namespace muster::engine {

// `rank` is the node's place in active.nodes.
LaunchOrder launch_order(const State& state, const Job& job, const Active& active, std::size_t rank);

// Whether the launch on this node may be sent. Where a node of the attempt has a prolog, the first node begins last: when
// nothing can fail any more that would take back what the script has begun.
bool launch_is_due(const State& state, const Active& active, std::size_t rank);

}  // namespace muster::engine
