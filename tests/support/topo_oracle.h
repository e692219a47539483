// What a choice must keep, and what it costs, worked out from the topology alone and as simply as it can be said: to hold
// core/topo against.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/topo/choose.h"

namespace muster::test {

inline std::uint32_t core_distance(const NodeTopology& t, std::uint32_t gpu, std::uint32_t core) {
  const IndexSet& local = t.gpus[gpu].cores;
  if (local.contains(core)) {
    return 0;
  }
  std::uint32_t best = 10;
  for (const std::uint32_t other : local.to_vector()) {
    if (t.cores[other].numa == t.cores[core].numa) {
      return 1;
    }
    best = t.cores[other].package == t.cores[core].package ? 2 : best;
  }
  return best;
}

// Tasks as pairs of cores and GPUs.
using PlainTask = std::pair<std::vector<std::uint32_t>, std::vector<std::uint32_t>>;

inline std::vector<PlainTask> plain(const std::vector<topo::ChosenTask>& tasks) {
  std::vector<PlainTask> out;
  for (const topo::ChosenTask& task : tasks) {
    out.emplace_back(task.cores.to_vector(), task.gpus.to_vector());
  }
  return out;
}
inline std::vector<PlainTask> plain(const topo::NodeClass& node, const std::vector<topo::TaskPlacement>& tasks) {
  std::vector<PlainTask> out;
  for (const topo::TaskPlacement& task : tasks) {
    out.emplace_back(node.to_cores(task.cores).to_vector(), task.gpus);
  }
  return out;
}

// The cost list up to the bandwidth of the job's GPUs; lower is better in each place.
using PlainCost = std::tuple<std::uint32_t, std::uint64_t, std::int64_t, std::int64_t>;

inline PlainCost plain_cost(const NodeTopology& t, const std::vector<PlainTask>& tasks) {
  std::uint32_t without = 0;
  std::uint64_t distance = 0;
  std::set<std::uint32_t> gpus;
  for (const auto& [cores, mine] : tasks) {
    gpus.insert(mine.begin(), mine.end());
    bool local = mine.empty();
    for (const std::uint32_t core : cores) {
      std::uint32_t nearest = mine.empty() ? 0 : 10;
      for (const std::uint32_t gpu : mine) {
        nearest = std::min(nearest, core_distance(t, gpu, core));
      }
      local = local || nearest == 0;
      distance += nearest;
    }
    without += local ? 0U : 1U;
  }
  std::int64_t bottleneck = INT64_MAX;
  std::int64_t sum = 0;
  for (const std::uint32_t a : gpus) {
    for (const std::uint32_t b : gpus) {
      if (a < b) {
        const GpuLink& link = t.link(a, b);
        const std::int64_t value = std::int64_t{link.bandwidth_mbps} * (1 << 20) + static_cast<std::int64_t>(link.tier);
        bottleneck = std::min(bottleneck, value);
        sum += value;
      }
    }
  }
  return {without, distance, -bottleneck, -sum};
}

// No core twice, only free ones, as many as asked; every task its GPUs; hardware threads of whole cores; true grades.
inline void check_choice(const NodeTopology& t, const topo::NodeUse& use, const topo::Request& request,
                         const topo::Choice& choice) {
  ASSERT_EQ(choice.tasks.size(), request.tasks);
  IndexSet cores;
  IndexSet gpus;
  for (const topo::ChosenTask& task : choice.tasks) {
    ASSERT_EQ(task.cores.count(), request.cores_per_task);
    ASSERT_FALSE(task.cores.intersects(cores)) << "a core is given twice";
    cores |= task.cores;
    ASSERT_TRUE(request.gpus == 0 || !task.gpus.empty()) << "a task has no GPU";
    ASSERT_TRUE(request.tasks > request.gpus || !task.gpus.intersects(gpus)) << "a GPU is given twice";
    gpus |= task.gpus;
    IndexSet threads;
    IndexSet numa;
    std::uint32_t farthest = 0;
    for (const std::uint32_t core : task.cores.to_vector()) {
      threads |= t.cores[core].threads;
      numa.insert(t.cores[core].numa);
      std::uint32_t nearest = task.gpus.empty() ? 0 : 10;
      for (const std::uint32_t gpu : task.gpus.to_vector()) {
        nearest = std::min(nearest, core_distance(t, gpu, core));
      }
      farthest = std::max(farthest, nearest);
    }
    ASSERT_EQ(task.threads, threads);
    ASSERT_EQ(task.numa, numa);
    ASSERT_EQ(task.grades, (topo::Grades{.device = farthest == 0, .numa = farthest <= 1, .package = farthest <= 2}));
    ASSERT_TRUE(t.nics.empty() || !task.nics.empty());
  }
  ASSERT_EQ(cores, choice.cores);
  ASSERT_EQ(gpus, choice.gpus);
  ASSERT_TRUE(cores.is_subset_of(use.free_cores & use.usable_cores));
  ASSERT_TRUE(gpus.is_subset_of(use.free_gpus));
  ASSERT_EQ(gpus.count(), request.gpus);
}

}  // namespace muster::test
