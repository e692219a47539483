// Which ranks of a step are on which of its nodes. Pure; the same for its coordinator, its nodes and its client.
#pragma once

#include <cstdint>
#include <vector>

namespace muster {

// The ranks of each node, ascending; `tasks` are the nodes' counts. With `plane` 0 they are dealt out in blocks: the first
// node has ranks 0..k-1. Else the nodes get `plane` ranks each in turn, as long as they have tasks without one.
std::vector<std::vector<std::uint32_t>> deal_ranks(const std::vector<std::uint32_t>& tasks, std::uint32_t plane);

}  // namespace muster
