#include "core/topo/task_gpus.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "core/topo/task_cores.h"
#include "lib/base/check.h"

namespace muster::topo {
namespace {

using Groups = std::vector<std::vector<std::uint32_t>>;

std::vector<std::uint32_t> by_place(const NodeClass& node, std::vector<std::uint32_t> gpus) {
  std::sort(gpus.begin(), gpus.end(),
            [&](std::uint32_t a, std::uint32_t b) { return node.place_of_gpu(a) < node.place_of_gpu(b); });
  return gpus;
}

// Groups of equal size, the first ones one larger when it does not come out even.
Groups groups_by_links(const NodeClass& node, const std::vector<std::uint32_t>& gpus, std::uint32_t tasks) {
  Groups out;
  if (node.gpus() <= kTableGpusMax) {
    for (const GpuMask group : node.gpu_sets().split(mask_of(node, gpus), tasks)) {
      out.push_back(gpus_of(node, group));
    }
    return out;
  }
  // Neighbours by address: with so many GPUs those of one switch or NUMA node follow each other.
  const std::vector<std::uint32_t> order = by_place(node, gpus);
  auto next = order.begin();
  for (std::uint32_t i = 0; i < tasks; ++i) {
    const std::size_t size = gpus.size() / tasks + (i < gpus.size() % tasks ? 1 : 0);
    out.emplace_back(next, next + static_cast<std::ptrdiff_t>(size));
    std::sort(out.back().begin(), out.back().end());
    next += static_cast<std::ptrdiff_t>(size);
  }
  return out;
}

// The free cores near each GPU, while tasks take them.
class NearSupply {
 public:
  NearSupply(const NodeClass& node, const SlotSet& free, const std::vector<std::uint32_t>& gpus) : node_(node) {
    for (std::size_t level = 0; level < left_.size(); ++level) {
      left_[level].assign(node.gpus(), 0);
      for (const std::uint32_t gpu : gpus) {
        left_[level][node.gpu_domain(gpu, level)] = node.near(gpu, level).count_and(free);
      }
    }
  }
  // What a task of `cores` beside this GPU would lack at each level; lower is better.
  [[nodiscard]] std::tuple<bool, std::uint32_t, std::uint32_t, std::uint32_t> lack(std::uint32_t gpu,
                                                                                   std::uint32_t cores) const {
    const auto missing = [&](std::size_t level) { return cores - std::min(cores, left(gpu, level)); };
    return {left(gpu, 0) == 0, missing(0), missing(1), missing(2)};
  }
  void take(std::uint32_t gpu, std::uint32_t cores) {
    for (std::size_t level = 0; level < left_.size(); ++level) {
      std::uint32_t& here = left_[level][node_.gpu_domain(gpu, level)];
      here -= std::min(cores, here);
    }
  }
  // The one of `gpus` beside which a task lacks least, the first of equals.
  [[nodiscard]] std::uint32_t best(const std::vector<std::uint32_t>& gpus, std::uint32_t cores) const {
    return *std::min_element(gpus.begin(), gpus.end(),
                             [&](std::uint32_t a, std::uint32_t b) { return lack(a, cores) < lack(b, cores); });
  }

 private:
  [[nodiscard]] std::uint32_t left(std::uint32_t gpu, std::size_t level) const {
    return left_[level][node_.gpu_domain(gpu, level)];
  }
  const NodeClass& node_;
  std::array<std::vector<std::uint32_t>, 3> left_;  // by level and domain
};

std::uint64_t gain(const NodeClass& node, const std::vector<std::uint32_t>& group, std::uint32_t gpu) {
  std::uint64_t out = 0;
  for (const std::uint32_t other : group) {
    const GpuLink& link = node.topology().link(other, gpu);
    out += (std::uint64_t{link.bandwidth_mbps} << 8U) + static_cast<std::uint64_t>(link.tier);
  }
  return out;
}

// Each task gets one GPU that has cores beside it, and then what is left over goes where its links are best.
Groups groups_by_cores(const NodeClass& node, const SlotSet& free, const std::vector<std::uint32_t>& gpus,
                       const std::vector<std::uint32_t>& sizes) {
  NearSupply supply(node, free, gpus);
  std::vector<std::uint32_t> left = by_place(node, gpus);
  Groups out;
  for (const std::uint32_t cores : sizes) {
    const std::uint32_t anchor = supply.best(left, cores);
    supply.take(anchor, cores);
    left.erase(std::find(left.begin(), left.end(), anchor));
    out.push_back({anchor});
  }
  const std::size_t size = gpus.size() / sizes.size();
  std::size_t larger_left = gpus.size() % sizes.size();
  for (const std::uint32_t gpu : left) {
    std::vector<std::uint32_t>* best = nullptr;
    std::uint64_t best_gain = 0;
    for (auto& group : out) {
      const bool room = group.size() < size || (group.size() == size && larger_left > 0);
      if (const std::uint64_t here = gain(node, group, gpu); room && (best == nullptr || here > best_gain)) {
        best = &group;
        best_gain = here;
      }
    }
    MUSTER_CHECK(best != nullptr);
    best->push_back(gpu);
    larger_left -= best->size() > size ? 1U : 0U;
  }
  for (auto& group : out) {
    std::sort(group.begin(), group.end());
  }
  return out;
}

// One GPU for each task, as many tasks for each as for the others; those that are over go where most cores are.
Groups shared_gpus(const NodeClass& node, const SlotSet& free, const std::vector<std::uint32_t>& gpus,
                   const std::vector<std::uint32_t>& sizes) {
  const std::vector<std::uint32_t> order = by_place(node, gpus);
  const auto tasks = static_cast<std::uint32_t>(sizes.size());
  const auto count = static_cast<std::uint32_t>(order.size());
  std::vector<std::uint32_t> served(node.gpus(), tasks / count);
  NearSupply supply(node, free, gpus);
  for (const std::uint32_t gpu : order) {
    supply.take(gpu, served[gpu] * sizes.back());
  }
  std::vector<std::uint32_t> left = order;
  for (std::uint32_t i = 0; i < tasks % count; ++i) {
    const std::uint32_t gpu = supply.best(left, sizes.back());
    supply.take(gpu, sizes.back());
    left.erase(std::find(left.begin(), left.end(), gpu));
    ++served[gpu];
  }
  Groups out;
  for (const std::uint32_t gpu : order) {
    out.insert(out.end(), served[gpu], {gpu});
  }
  return out;
}

std::vector<TaskPlacement> place(const NodeClass& node, const SlotSet& free, const Groups& groups,
                                 const std::vector<std::uint32_t>& sizes, const Penalties& penalties) {
  std::vector<TaskDemand> demands;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    demands.push_back({.gpus = groups[i], .cores = sizes[i]});
  }
  CorePool pool(node, free);
  std::vector<SlotSet> cores = cores_near_gpus(node, pool, demands, penalties);
  std::vector<TaskPlacement> out;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    out.push_back({.cores = std::move(cores[i]), .gpus = groups[i], .nics = {}});
  }
  return out;
}

}  // namespace

std::vector<TaskPlacement> place_beside(const NodeClass& node, const SlotSet& free,
                                        const std::vector<std::uint32_t>& gpus, const std::vector<std::uint32_t>& sizes,
                                        const Penalties& penalties) {
  MUSTER_CHECK(!gpus.empty() && !sizes.empty());
  const auto tasks = static_cast<std::uint32_t>(sizes.size());
  const bool shared = tasks > gpus.size();
  std::vector<TaskPlacement> best = place(
      node, free, shared ? shared_gpus(node, free, gpus, sizes) : groups_by_links(node, gpus, tasks), sizes, penalties);
  const auto lack = [&](const std::vector<TaskPlacement>& placement) {
    const Distances distances = distances_of(node, placement);
    return std::tuple(distances.tasks_without_local_gpu, distances.sum);
  };
  auto least = lack(best);
  const auto consider = [&](std::vector<TaskPlacement> other) {
    if (const auto here = lack(other); here < least) {
      best = std::move(other);
      least = here;
    }
  };
  if (least != std::tuple(0U, std::uint64_t{0})) {
    if (tasks < gpus.size()) {
      consider(place(node, free, groups_by_cores(node, free, gpus, sizes), sizes, penalties));
    }
    consider(place_in_order(node, free, gpus, sizes));
  }
  return best;
}

std::vector<TaskPlacement> place_in_order(const NodeClass& node, const SlotSet& free,
                                          const std::vector<std::uint32_t>& gpus,
                                          const std::vector<std::uint32_t>& sizes) {
  const std::vector<std::uint32_t> cores = node.to_cores(free).to_vector();
  const std::size_t tasks = sizes.size();
  std::vector<TaskPlacement> out;
  std::size_t next_core = 0;
  auto next_gpu = gpus.begin();
  for (std::size_t t = 0; t < tasks; ++t) {
    MUSTER_CHECK(next_core + sizes[t] <= cores.size());
    IndexSet mine;
    for (std::uint32_t c = 0; c < sizes[t]; ++c) {
      mine.insert(cores[next_core++]);
    }
    TaskPlacement task{.cores = node.to_slots(mine), .gpus = {}, .nics = {}};
    if (gpus.size() >= tasks) {
      const auto count = static_cast<std::ptrdiff_t>(gpus.size() / tasks + (t < gpus.size() % tasks ? 1 : 0));
      task.gpus.assign(next_gpu, next_gpu + count);
      next_gpu += count;
    } else if (!gpus.empty()) {
      task.gpus.push_back(gpus[t * gpus.size() / tasks]);
    }
    out.push_back(std::move(task));
  }
  return out;
}

}  // namespace muster::topo
