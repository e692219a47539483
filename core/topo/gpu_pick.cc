#include "core/topo/gpu_pick.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "lib/base/check.h"

namespace muster::topo {
namespace {

// What a set of GPUs lacks in free cores near it, before cores are given: tasks without a local GPU, and then the sum of
// distances. An estimate where GPUs of several domains share tasks.
std::uint64_t lack_of(std::uint64_t tasks, std::uint64_t distance) {
  constexpr std::uint64_t kDistanceMax = (std::uint64_t{1} << 40U) - 1;
  return tasks << 40U | std::min(distance, kDistanceMax);
}

// Each level that cannot give a core a place makes it as much farther away.
constexpr std::array<std::uint64_t, 3> kSteps{kDistances[1] - kDistances[0], kDistances[2] - kDistances[1],
                                              kDistances[3] - kDistances[2]};

// std::popcount is a call into a library on processors that the build may not count on, and this is asked most often.
std::uint64_t members(GpuMask mask) {
  std::uint32_t m = mask;
  m = m - (m >> 1U & 0x5555U);
  m = (m & 0x3333U) + (m >> 2U & 0x3333U);
  m = (m + (m >> 4U)) & 0x0f0fU;
  return (m + (m >> 8U)) & 0x1fU;
}

class Nearness {
 public:
  Nearness(const NodeClass& node, const Supply& supply, const std::vector<std::uint32_t>& candidates,
           const GpuWish& wish)
      : together_(wish.tasks < wish.count),
        candidates_(mask_of(node, candidates)),
        count_(wish.count),
        tasks_(together_ ? wish.tasks : (wish.tasks + wish.count - 1) / wish.count),
        cores_(std::uint64_t{tasks_} * wish.cores_per_task) {
    if (!wish.near_cores) {
      return;
    }
    bool enough = together_;
    for (std::size_t level = 0; level < 3; ++level) {
      std::map<std::uint32_t, Group> groups;
      for (const std::uint32_t gpu : candidates) {
        Group& group = groups[node.gpu_domain(gpu, level)];
        group.level = level;
        group.supply = node.near(gpu, level).count_and(supply.cores);
        group.members = static_cast<GpuMask>(group.members | 1U << node.place_of_gpu(gpu));
      }
      for (const auto& [domain, group] : groups) {
        // A domain that has enough for all its GPUs cannot make a set lack anything.
        if (together_ || members(group.members) * cores_ > group.supply) {
          groups_.push_back(group);
        }
        enough = enough && (level > 0 || group.supply >= cores_);
      }
    }
    if (enough) {  // in each locality for the whole job
      groups_.clear();
    }
    if (candidates.size() > kSmall && !groups_.empty()) {
      make_tables();
    }
  }

  // Nothing lacks anything, whichever set it is.
  [[nodiscard]] bool trivial() const { return groups_.empty(); }

  [[nodiscard]] std::uint64_t of(GpuMask set) const {
    if (low_.empty()) {
      Sums sums{};
      for (const Group& group : groups_) {
        add(group, set, sums);
      }
      return lack(sums);
    }
    Sums sums = low_[set & 0xffU];
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] += high_[set >> 8U][i];
    }
    for (const Group& group : in_both_) {
      add(group, set, sums);
    }
    return lack(sums);
  }

  // No set lacks less; where domains overlap without containing each other, perhaps none lacks as little.
  [[nodiscard]] std::uint64_t least() const { return together_ ? least_together() : least_each(); }

 private:
  struct Group {
    GpuMask members = 0;
    std::uint64_t supply = 0;
    std::size_t level = 0;
  };
  // Each GPU has tasks of its own: tasks without a local GPU, and distances. Tasks have several GPUs each and may be near
  // any of them: the cores near the set, by level.
  using Sums = std::array<std::uint64_t, 3>;
  // With no more GPUs there are too few sets for tables to pay.
  static constexpr std::size_t kSmall = 10;

  void add(const Group& group, GpuMask set, Sums& sums) const {
    const std::uint64_t here = members(static_cast<GpuMask>(group.members & set));
    if (together_) {
      sums[group.level] += here != 0 ? group.supply : 0;
      return;
    }
    sums[1] += kSteps[group.level] * (here * cores_ - std::min(here * cores_, group.supply));
    if (group.level == 0) {
      sums[0] += here * tasks_ - std::min(here * tasks_, group.supply);
    }
  }
  [[nodiscard]] std::uint64_t lack(const Sums& sums) const {
    if (!together_) {
      return lack_of(sums[0], sums[1]);
    }
    std::uint64_t distance = 0;
    for (std::size_t level = 0; level < sums.size(); ++level) {
      distance += kSteps[level] * (cores_ - std::min(cores_, sums[level]));
    }
    return lack_of(tasks_ - std::min<std::uint64_t>(tasks_, sums[0]), distance);
  }
  // Lacks are sums of convex functions of how many GPUs a domain gives: the best set is found one GPU at a time.
  [[nodiscard]] std::uint64_t least_each() const {
    GpuMask set = 0;
    std::uint64_t least = 0;
    for (std::uint32_t i = 0; i < count_; ++i) {
      GpuMask best = 0;
      for (auto left = static_cast<GpuMask>(candidates_ ^ set); left != 0;
           left = static_cast<GpuMask>(left & (left - 1))) {
        const auto with = static_cast<GpuMask>(set | (left & -left));
        if (const std::uint64_t here = of(with); best == 0 || here < least) {
          best = with;
          least = here;
        }
      }
      set = best;
    }
    return least;
  }
  // No more than the richest domains of each level can give.
  [[nodiscard]] std::uint64_t least_together() const {
    std::array<std::vector<std::uint64_t>, 3> supplies;
    for (const Group& group : groups_) {
      supplies[group.level].push_back(group.supply);
    }
    Sums sums{};
    for (std::size_t level = 0; level < sums.size(); ++level) {
      auto& here = supplies[level];
      std::sort(here.rbegin(), here.rend());
      here.resize(std::min<std::size_t>(here.size(), count_));
      sums[level] = std::accumulate(here.begin(), here.end(), std::uint64_t{0});
    }
    return lack(sums);
  }

  // What a set lacks is a sum over domains. Most domains have all their GPUs in one half of the order of addresses, so
  // their sum is that of two halves, each with 256 cases.
  void make_tables() {
    low_.assign(256, Sums{});
    high_.assign(256, Sums{});
    for (const Group& group : groups_) {
      const bool in_low = (group.members & 0x00ffU) != 0;
      if (in_low && (group.members & 0xff00U) != 0) {
        in_both_.push_back(group);
        continue;
      }
      for (std::uint32_t half = 0; half < 256; ++half) {
        add(group, static_cast<GpuMask>(in_low ? half : half << 8U), in_low ? low_[half] : high_[half]);
      }
    }
  }

  bool together_;
  GpuMask candidates_;
  std::uint32_t count_;
  std::uint32_t tasks_;  // of each GPU, or of the job
  std::uint64_t cores_;  // the same
  std::vector<Group> groups_;
  std::vector<Sums> low_;
  std::vector<Sums> high_;
  std::vector<Group> in_both_;
};

std::vector<std::vector<std::uint32_t>> pick_by_tables(const NodeClass& node, const Supply& supply,
                                                       const std::vector<std::uint32_t>& candidates,
                                                       const GpuWish& wish, std::size_t sets_max) {
  const std::vector<GpuMask>& ranking = node.gpu_sets().ranking(mask_of(node, candidates), wish.count, wish.sizes);
  const Nearness nearness(node, supply, candidates, wish);
  const std::uint64_t least = nearness.trivial() ? 0 : nearness.least();
  std::vector<std::pair<std::uint64_t, GpuMask>> found;
  for (const GpuMask set : ranking) {
    const std::uint64_t lack = nearness.trivial() ? 0 : nearness.of(set);
    if (sets_max > 1 || found.empty()) {
      found.emplace_back(lack, set);
    } else if (lack < found.front().first) {
      found.front() = {lack, set};
    }
    if (sets_max == 1 && lack <= least) {
      break;
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  found.resize(std::min(sets_max, found.size()));
  std::vector<std::vector<std::uint32_t>> out;
  for (const auto& [lack, set] : found) {
    out.push_back(gpus_of(node, set));
  }
  return out;
}

// Of partitions, those of the GPU of which least is free, so that whole GPUs stay whole; then near free cores.
std::vector<std::uint32_t> pick_partitions(const NodeClass& node, const Supply& supply,
                                           std::vector<std::uint32_t> candidates, const GpuWish& wish) {
  const auto& gpus = node.topology().gpus;
  std::map<std::string, std::uint32_t> free;
  for (const std::uint32_t gpu : supply.gpus) {
    ++free[gpus[gpu].pci_address];
  }
  const auto key = [&](std::uint32_t gpu) {
    const std::uint64_t near = wish.near_cores ? node.near(gpu, 0).count_and(supply.cores) : 0;
    return std::tuple(free[gpus[gpu].pci_address], near < wish.cores_per_task, node.place_of_gpu(gpu));
  };
  std::sort(candidates.begin(), candidates.end(), [&](std::uint32_t a, std::uint32_t b) { return key(a) < key(b); });
  candidates.resize(wish.count);
  std::sort(candidates.begin(), candidates.end());
  return candidates;
}

std::uint64_t pair_value(const GpuLink& link) {
  return (std::uint64_t{link.bandwidth_mbps} << 8U) + static_cast<std::uint64_t>(link.tier);
}

// More GPUs than there are tables for: grown from the first GPU of each locality by the best next one.
class Grower {
 public:
  Grower(const NodeClass& node, const Supply& supply, const std::vector<std::uint32_t>& candidates, const GpuWish& wish)
      : node_(node), candidates_(candidates), wish_(wish) {
    for (const std::uint32_t gpu : candidates) {
      const std::uint32_t domain = node.gpu_domain(gpu, 0);
      supply_[domain] = wish.near_cores ? node.near(gpu, 0).count_and(supply.cores) : UINT32_MAX;
      ++free_in_[domain];
    }
    for (std::uint32_t gpu = 0; gpu < node.gpus(); ++gpu) {
      ++all_in_[node.gpu_domain(gpu, 0)];
    }
  }

  std::vector<std::uint32_t> best() {
    std::vector<std::uint32_t> best;
    std::tuple<std::uint64_t, std::uint64_t, std::uint32_t> best_key;
    std::uint32_t seeds = 0;
    std::map<std::uint32_t, bool> seeded;
    for (const std::uint32_t gpu : by_place(candidates_)) {
      if (seeded[node_.gpu_domain(gpu, 0)] || ++seeds > kSeedsMax) {
        continue;
      }
      seeded[node_.gpu_domain(gpu, 0)] = true;
      std::vector<std::uint32_t> set = grow(gpu);
      const std::tuple key(lack(set), ~value(set), opened(set));
      if (best.empty() || key < best_key) {
        best = std::move(set);
        best_key = key;
      }
    }
    std::sort(best.begin(), best.end());
    return best;
  }

 private:
  static constexpr std::uint32_t kSeedsMax = 32;  // localities of the largest machines

  [[nodiscard]] std::vector<std::uint32_t> by_place(std::vector<std::uint32_t> gpus) const {
    std::sort(gpus.begin(), gpus.end(),
              [&](std::uint32_t a, std::uint32_t b) { return node_.place_of_gpu(a) < node_.place_of_gpu(b); });
    return gpus;
  }
  [[nodiscard]] std::uint64_t cores_for_one() const {
    return (std::uint64_t{wish_.tasks} * wish_.cores_per_task + wish_.count - 1) / wish_.count;
  }
  std::uint64_t lack(const std::vector<std::uint32_t>& set) {
    std::map<std::uint32_t, std::uint64_t> used;
    std::uint64_t out = 0;
    for (const std::uint32_t gpu : set) {
      const std::uint32_t domain = node_.gpu_domain(gpu, 0);
      out += (used[domain] += cores_for_one()) > supply_[domain] ? 1U : 0U;
    }
    return out;
  }
  [[nodiscard]] std::uint64_t value(const std::vector<std::uint32_t>& set) const {
    std::uint64_t out = 0;
    for (std::size_t i = 0; i < set.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        out += pair_value(node_.topology().link(set[i], set[j]));
      }
    }
    return out;
  }
  // Localities that nobody uses and that the set would break into.
  std::uint32_t opened(const std::vector<std::uint32_t>& set) {
    std::map<std::uint32_t, bool> domains;
    std::uint32_t out = 0;
    for (const std::uint32_t gpu : set) {
      const std::uint32_t domain = node_.gpu_domain(gpu, 0);
      if (free_in_[domain] == all_in_[domain] && !domains[domain]) {
        domains[domain] = true;
        ++out;
      }
    }
    return out;
  }
  std::vector<std::uint32_t> grow(std::uint32_t seed) {
    std::vector<std::uint32_t> set{seed};
    std::map<std::uint32_t, std::uint64_t> used{{node_.gpu_domain(seed, 0), cores_for_one()}};
    std::vector<std::uint32_t> left = by_place(candidates_);
    std::vector<std::uint64_t> gain(node_.gpus(), 0);
    std::uint32_t last = seed;
    while (true) {
      left.erase(std::find(left.begin(), left.end(), last));
      if (set.size() == wish_.count) {
        return set;
      }
      std::tuple<bool, std::uint64_t> best_key(true, 0);
      std::uint32_t best = UINT32_MAX;
      for (const std::uint32_t gpu : left) {
        gain[gpu] += pair_value(node_.topology().link(gpu, last));
        const std::uint32_t domain = node_.gpu_domain(gpu, 0);
        const std::tuple key(used[domain] + cores_for_one() > supply_[domain], ~gain[gpu]);
        if (best == UINT32_MAX || key < best_key) {
          best = gpu;
          best_key = key;
        }
      }
      used[node_.gpu_domain(best, 0)] += cores_for_one();
      set.push_back(best);
      last = best;
    }
  }

  const NodeClass& node_;
  const std::vector<std::uint32_t>& candidates_;
  const GpuWish& wish_;
  std::map<std::uint32_t, std::uint64_t> supply_;  // by locality, as the others
  std::map<std::uint32_t, std::uint32_t> free_in_;
  std::map<std::uint32_t, std::uint32_t> all_in_;
};

}  // namespace

std::vector<std::uint32_t> gpus_of_kind(const NodeClass& node, const std::vector<std::uint32_t>& free,
                                        const std::string& partition) {
  std::vector<std::uint32_t> out;
  for (const std::uint32_t gpu : free) {
    if (node.topology().gpus[gpu].partition == partition) {
      out.push_back(gpu);
    }
  }
  return out;
}

std::vector<std::vector<std::uint32_t>> pick_gpus(const NodeClass& node, const Supply& supply, const GpuWish& wish,
                                                  std::size_t sets_max) {
  const std::vector<std::uint32_t> candidates = gpus_of_kind(node, supply.gpus, wish.partition);
  MUSTER_CHECK(wish.count >= 1 && wish.count <= candidates.size() && wish.tasks >= 1 && sets_max >= 1);
  if (!wish.partition.empty()) {
    return {pick_partitions(node, supply, candidates, wish)};
  }
  if (node.gpus() > kTableGpusMax) {
    return {Grower(node, supply, candidates, wish).best()};
  }
  return pick_by_tables(node, supply, candidates, wish, sets_max);
}

}  // namespace muster::topo
