// What enforcement adds to a launch: the same launch by muster-shepherd with the control groups that a node of this
// machine would choose, and without any.
#pragma once

#include <cstdint>

namespace muster::bench {

// Prints the medians of so many launches of each kind, made in turn, and of their differences.
int launch_cost(std::uint64_t count);

}  // namespace muster::bench
