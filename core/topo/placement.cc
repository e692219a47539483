#include "core/topo/placement.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <tuple>

namespace muster::topo {
namespace {

// How many of the task's cores are no farther from one of its GPUs than each level.
std::array<std::uint32_t, 4> cores_within(const NodeClass& node, const TaskPlacement& task) {
  std::array<std::uint32_t, 4> out{};
  for (std::size_t level = 0; level < 3; ++level) {
    if (task.gpus.size() == 1) {
      out[level] = task.cores.count_and(node.near(task.gpus.front(), level));
      continue;
    }
    SlotSet near(node.slots());
    for (const std::uint32_t gpu : task.gpus) {
      near |= node.near(gpu, level);
    }
    out[level] = task.cores.count_and(near);
  }
  out[3] = task.cores.count();
  return out;
}

struct Pairs {
  std::uint64_t bottleneck = UINT64_MAX;
  std::uint64_t sum = 0;
};

void add_pairs(const NodeTopology& topology, const std::vector<std::uint32_t>& gpus, Pairs& pairs) {
  // 8 TB/s, above what any link does: a sum over 200 GPUs stays within 64 bits, and one of tiers below bit 20.
  constexpr std::uint64_t kBandwidthMax = std::uint64_t{1} << 23U;
  for (std::size_t i = 0; i < gpus.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const GpuLink& link = topology.link(gpus[i], gpus[j]);
      const std::uint64_t bandwidth = std::min<std::uint64_t>(link.bandwidth_mbps, kBandwidthMax);
      const std::uint64_t value = (bandwidth << 20U) + static_cast<std::uint64_t>(link.tier);
      pairs.bottleneck = std::min(pairs.bottleneck, value);
      pairs.sum += value;
    }
  }
}

void add_bandwidths(const NodeClass& node, const std::vector<TaskPlacement>& tasks,
                    const std::vector<std::uint32_t>& all, Cost& cost) {
  Pairs job;
  add_pairs(node.topology(), all, job);
  Pairs inside;
  for (const TaskPlacement& task : tasks) {
    add_pairs(node.topology(), task.gpus, inside);
  }
  cost.bottleneck = job.bottleneck;
  cost.bandwidth = job.sum;
  cost.task_bottleneck = inside.bottleneck;
  cost.task_bandwidth = inside.sum;
}

void add_rest(const NodeClass& node, const Supply& supply, const SlotSet& used, const std::vector<std::uint32_t>& taken,
              SizeMask sizes, Cost& cost) {
  std::vector<std::uint32_t> left;
  std::set_difference(supply.gpus.begin(), supply.gpus.end(), taken.begin(), taken.end(), std::back_inserter(left));
  const SlotSet free_after = supply.cores - used;
  SlotSet near_left(node.slots());
  for (const std::uint32_t gpu : left) {
    const SlotSet& local = node.near(gpu, 0);
    near_left |= local;
    cost.rest_starved += static_cast<std::uint32_t>(local.intersects(supply.cores) && !local.intersects(free_after));
  }
  cost.rest_cores = used.count_and(near_left);
  if (!taken.empty() && node.gpus() <= kTableGpusMax) {
    const SizeMask asked = sizes != 0 ? sizes : SizeMask{1} << taken.size();
    cost.rest_value = node.gpu_sets().packing_value(mask_of(node, left), asked);
  }
}

std::uint32_t domains_beyond_one(const NodeClass& node, Level level, const SlotSet& cores) {
  std::uint32_t count = 0;
  std::uint32_t slot = cores.next(0);
  while (slot < cores.end()) {
    ++count;
    slot = cores.next(node.domains(level)[node.domain_of(level, slot)].last);
  }
  return count > 0 ? count - 1 : 0;
}

// A task without GPUs is as near to an adapter as the nearest of its cores.
PcieTier tier_by_cores(const NodeClass& node, std::uint32_t nic, const SlotSet& cores) {
  constexpr std::array kTiers{PcieTier::kHostBridge, PcieTier::kSameNuma, PcieTier::kOtherNuma};
  for (std::size_t level = 0; level < kTiers.size(); ++level) {
    if (node.near_nic(nic, level).intersects(cores)) {
      return kTiers[level];
    }
  }
  return PcieTier::kOtherPackage;
}

}  // namespace

int compare(const Cost& a, const Cost& b) {
  const auto key = [](const Cost& c) {
    // What is better when higher is turned round.
    return std::tuple(c.tasks_without_local_gpu, c.distance, ~c.bottleneck, ~c.bandwidth, ~c.task_bottleneck,
                      ~c.task_bandwidth, -c.rest_value, c.rest_starved, c.rest_cores, c.numa_splits, c.l3_splits,
                      c.nic_steps);
  };
  const auto order = key(a) <=> key(b);
  return order < 0 ? -1 : order > 0 ? 1 : 0;
}

Distances distances_of(const NodeClass& node, const std::vector<TaskPlacement>& tasks) {
  Distances out;
  for (const TaskPlacement& task : tasks) {
    if (task.gpus.empty()) {
      continue;
    }
    const auto within = cores_within(node, task);
    out.tasks_without_local_gpu += within[0] == 0 ? 1U : 0U;
    std::uint32_t counted = 0;
    for (std::size_t level = 0; level < within.size(); ++level) {
      const std::uint32_t here = within[level] - counted;
      counted = within[level];
      out.sum += std::uint64_t{here} * kDistances[level];
      if (here > 0) {
        out.max = std::max(out.max, kDistances[level]);
      }
    }
  }
  return out;
}

Grades grades_of(const NodeClass& node, const TaskPlacement& task) {
  if (task.gpus.empty()) {
    return {};
  }
  const auto within = cores_within(node, task);
  return {.device = within[0] == within[3], .numa = within[1] == within[3], .package = within[2] == within[3]};
}

Cost cost_of(const NodeClass& node, const Supply& supply, const std::vector<TaskPlacement>& tasks, SizeMask sizes) {
  Cost cost;
  const Distances distances = distances_of(node, tasks);
  cost.tasks_without_local_gpu = distances.tasks_without_local_gpu;
  cost.distance = distances.sum;
  cost.distance_max = distances.max;
  SlotSet used(node.slots());
  std::vector<std::uint32_t> taken;
  for (const TaskPlacement& task : tasks) {
    used |= task.cores;
    taken.insert(taken.end(), task.gpus.begin(), task.gpus.end());
    cost.numa_splits += domains_beyond_one(node, Level::kNuma, task.cores);
    cost.l3_splits += domains_beyond_one(node, Level::kL3, task.cores);
    for (const std::uint32_t gpu : task.gpus) {
      PcieTier best = PcieTier::kOtherPackage;
      for (const std::uint32_t nic : task.nics) {
        best = std::max(best, node.topology().nics[nic].to_gpu[gpu]);
      }
      cost.nic_steps += static_cast<std::uint32_t>(PcieTier::kSameDevice) - static_cast<std::uint32_t>(best);
    }
  }
  std::sort(taken.begin(), taken.end());
  taken.erase(std::unique(taken.begin(), taken.end()), taken.end());
  add_bandwidths(node, tasks, taken, cost);
  add_rest(node, supply, used, taken, sizes, cost);
  return cost;
}

void choose_nics(const NodeClass& node, std::vector<TaskPlacement>& tasks) {
  const auto& nics = node.topology().nics;
  const bool some_fabric = std::any_of(nics.begin(), nics.end(), [](const TopologyNic& n) { return n.fabric; });
  std::vector<std::uint32_t> uses(nics.size(), 0);
  const auto nearest = [&](auto tier_of) {
    std::uint32_t best = UINT32_MAX;
    std::tuple<int, std::int64_t, std::uint32_t> best_key;
    for (std::uint32_t i = 0; i < nics.size(); ++i) {
      if (some_fabric && !nics[i].fabric) {
        continue;
      }
      const std::tuple key(-static_cast<int>(tier_of(i)), -std::int64_t{nics[i].speed_mbps}, uses[i]);
      if (best == UINT32_MAX || key < best_key) {
        best = i;
        best_key = key;
      }
    }
    return best;
  };
  for (TaskPlacement& task : tasks) {
    task.nics.clear();
    if (nics.empty()) {
      continue;
    }
    for (const std::uint32_t gpu : task.gpus) {
      task.nics.push_back(nearest([&](std::uint32_t nic) { return nics[nic].to_gpu[gpu]; }));
    }
    if (task.gpus.empty()) {
      task.nics.push_back(nearest([&](std::uint32_t nic) { return tier_by_cores(node, nic, task.cores); }));
    }
    std::sort(task.nics.begin(), task.nics.end());
    task.nics.erase(std::unique(task.nics.begin(), task.nics.end()), task.nics.end());
    for (const std::uint32_t nic : task.nics) {
      ++uses[nic];
    }
  }
}

GpuMask mask_of(const NodeClass& node, const std::vector<std::uint32_t>& gpus) {
  GpuMask out = 0;
  for (const std::uint32_t gpu : gpus) {
    out = static_cast<GpuMask>(out | 1U << node.place_of_gpu(gpu));
  }
  return out;
}

std::vector<std::uint32_t> gpus_of(const NodeClass& node, GpuMask mask) {
  std::vector<std::uint32_t> out;
  for (std::uint32_t place = 0; place < node.gpus(); ++place) {
    if ((mask >> place & 1U) != 0) {
      out.push_back(node.gpus_by_address()[place]);
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace muster::topo
