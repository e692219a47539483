// Which of a node's free GPUs a job gets. Internal to topo.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/topo/placement.h"

namespace muster::topo {

struct GpuWish {
  std::uint32_t count = 0;           // at least 1
  std::string partition;             // profile of partitions; empty: whole GPUs
  SizeMask sizes = 0;                // that the queue asks for; 0: unknown
  std::uint32_t tasks = 1;           // at least 1
  std::uint32_t cores_per_task = 1;  // near the GPUs, where there are any
  bool near_cores = true;            // whether it matters where free cores are
};

// The free GPUs of the wanted kind, ascending.
std::vector<std::uint32_t> gpus_of_kind(const NodeClass& node, const std::vector<std::uint32_t>& free,
                                        const std::string& partition);

// Sets of `count` of `free`, which are of one kind, the best first; at least one, at most `sets_max`. First those whose
// tasks find most cores near, then by GpuSets; partitions fill the GPU of which least is free.
std::vector<std::vector<std::uint32_t>> pick_gpus(const NodeClass& node, const Supply& supply, const GpuWish& wish,
                                                  std::size_t sets_max);

}  // namespace muster::topo
