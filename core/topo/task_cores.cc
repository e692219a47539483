#include "core/topo/task_cores.h"

#include <algorithm>
#include <map>
#include <utility>

#include "lib/base/check.h"

namespace muster::topo {
namespace {

// Tasks that may use the same cores.
struct Sharers {
  SlotSet near;
  std::vector<std::size_t> tasks;
};

std::vector<Sharers> group_by_domain(const NodeClass& node, const std::vector<TaskDemand>& demands,
                                     const std::vector<std::uint32_t>& missing, std::size_t level) {
  std::map<std::vector<std::uint32_t>, Sharers> groups;
  for (std::size_t t = 0; t < demands.size(); ++t) {
    if (missing[t] == 0) {
      continue;
    }
    std::vector<std::uint32_t> key;
    for (const std::uint32_t gpu : demands[t].gpus) {
      key.push_back(level < 3 ? node.gpu_domain(gpu, level) : 0);
    }
    std::sort(key.begin(), key.end());
    key.erase(std::unique(key.begin(), key.end()), key.end());
    Sharers& group = groups[key];
    if (group.tasks.empty() && level < 3) {
      group.near = SlotSet(node.slots());
      for (const std::uint32_t gpu : demands[t].gpus) {
        group.near |= node.near(gpu, level);
      }
    }
    group.tasks.push_back(t);
  }
  std::vector<Sharers> out;
  for (auto& [key, group] : groups) {
    out.push_back(std::move(group));
  }
  return out;
}

// What each of the tasks gets when together they find `available` cores and that is not enough: fair shares.
std::vector<std::uint32_t> fair_shares(const std::vector<std::size_t>& tasks, const std::vector<std::uint32_t>& missing,
                                       std::uint32_t available) {
  std::vector<std::uint32_t> out(tasks.size(), 0);
  // One round gives everybody the same; what those leave who need less is for the next round.
  for (bool progress = true; available > 0 && progress;) {
    std::uint32_t hungry = 0;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      hungry += out[i] < missing[tasks[i]] ? 1U : 0U;
    }
    progress = hungry > 0;
    const std::uint32_t share = hungry > 0 ? available / hungry : 0;
    for (std::size_t i = 0; i < tasks.size() && available > 0; ++i) {
      const std::uint32_t more = std::min({missing[tasks[i]] - out[i], std::max(share, 1U), available});
      out[i] += more;
      available -= more;
    }
  }
  return out;
}

// The same, but as many tasks as possible get all of it: what is farther away is not worth splitting tasks for.
std::vector<std::uint32_t> shares_in_turn(const std::vector<std::size_t>& tasks,
                                          const std::vector<std::uint32_t>& missing, std::uint32_t available) {
  std::vector<std::uint32_t> out;
  for (const std::size_t task : tasks) {
    out.push_back(std::min(missing[task], available));
    available -= out.back();
  }
  return out;
}

}  // namespace

std::vector<SlotSet> cores_near_gpus(const NodeClass& node, CorePool& pool, const std::vector<TaskDemand>& demands,
                                     const Penalties& penalties) {
  std::vector<SlotSet> out(demands.size(), SlotSet(node.slots()));
  std::vector<std::uint32_t> missing;
  for (const TaskDemand& demand : demands) {
    missing.push_back(demand.cores);
  }
  for (std::size_t level = 0; level < 4; ++level) {
    std::vector<Sharers> groups = group_by_domain(node, demands, missing, level);
    // Who has the smaller choice chooses first.
    for (Sharers& group : groups) {
      group.near = level < 3 ? group.near & pool.free() : pool.free();
    }
    std::stable_sort(groups.begin(), groups.end(), [](const Sharers& a, const Sharers& b) {
      const std::uint32_t free_a = a.near.count();
      const std::uint32_t free_b = b.near.count();
      return free_a != free_b ? free_a < free_b : a.tasks.front() < b.tasks.front();
    });
    for (Sharers& group : groups) {
      Picker picker(node, pool, group.near & pool.free(), penalties);
      const std::vector<std::uint32_t> shares = level == 0 ? fair_shares(group.tasks, missing, picker.available())
                                                           : shares_in_turn(group.tasks, missing, picker.available());
      for (std::size_t i = 0; i < group.tasks.size(); ++i) {
        picker.pick(shares[i], out[group.tasks[i]]);
        missing[group.tasks[i]] -= shares[i];
      }
    }
  }
  MUSTER_CHECK(std::all_of(missing.begin(), missing.end(), [](std::uint32_t m) { return m == 0; }));
  return out;
}

std::vector<SlotSet> divide_cores(const NodeClass& node, const SlotSet& cores,
                                  const std::vector<std::uint32_t>& sizes) {
  std::vector<SlotSet> out(sizes.size(), SlotSet(node.slots()));
  if (std::all_of(sizes.begin(), sizes.end(), [](std::uint32_t size) { return size == 1; })) {
    std::uint32_t slot = cores.next(0);
    for (SlotSet& task : out) {
      task.insert(slot);
      slot = cores.next(slot + 1);
    }
    return out;
  }
  CorePool pool(node, cores);
  const Penalties none = no_penalties(node);
  Picker picker(node, pool, cores, none);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    picker.pick(sizes[i], out[i]);
  }
  return out;
}

namespace {

// The part of `free` that the job may come from, see pack_cores().
SlotSet part_for(const NodeClass& node, const SlotSet& free, const std::vector<std::uint32_t>& free_gpus,
                 std::uint32_t count) {
  SlotSet away = free;
  SlotSet sparing = free;
  std::vector<bool> seen(node.gpus(), false);  // by locality
  for (const std::uint32_t gpu : free_gpus) {
    const SlotSet& local = node.near(gpu, 0);
    away -= local;
    const std::uint32_t locality = node.gpu_domain(gpu, 0);
    if (!seen[locality]) {
      seen[locality] = true;
      // The last one: cores are given from the first on.
      std::uint32_t last = free.end();
      (local & free).for_each([&](std::uint32_t slot) { last = slot; });
      if (last != free.end()) {
        sparing.erase(last);
      }
    }
  }
  return away.count() >= count ? away : sparing.count() >= count ? sparing : free;
}

}  // namespace

void pack_cores(const NodeClass& node, const SlotSet& free, const std::vector<std::uint32_t>& free_gpus,
                std::uint32_t tasks, std::uint32_t cores_per_task,
                const std::function<bool(std::vector<SlotSet>)>& consider) {
  const std::uint32_t count = tasks * cores_per_task;
  const Penalties penalties = penalties_near(node, free_gpus);
  const SlotSet allowed = part_for(node, free, free_gpus, count);
  CorePool pool(node, free);
  SlotSet job(node.slots());
  Picker(node, pool, allowed, penalties).pick(count, job);
  const std::vector<std::uint32_t> sizes(tasks, cores_per_task);
  if (!consider(divide_cores(node, job, sizes)) || tasks == 1 || cores_per_task == 1) {
    return;
  }
  CorePool again(node, free);
  Picker picker(node, again, allowed, penalties);
  std::vector<SlotSet> one_by_one(tasks, SlotSet(node.slots()));
  for (SlotSet& task : one_by_one) {
    picker.pick(cores_per_task, task);
  }
  consider(std::move(one_by_one));
}

}  // namespace muster::topo
