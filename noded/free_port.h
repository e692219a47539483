// A TCP port of this machine that nobody listens on.
#pragma once

#include <cstdint>
#include <set>

namespace muster::noded {

// The first port from `wanted` on, within [first, first + count), to which a socket can be bound now; after the last comes
// the first. Tries 100. `wanted` when none of them is free. Somebody else may take it before it is used.
// `taken`: those that were given to somebody who may not have bound them yet.
std::uint32_t free_port(std::uint32_t wanted, std::uint32_t first, std::uint32_t count,
                        const std::set<std::uint32_t>& taken);

}  // namespace muster::noded
