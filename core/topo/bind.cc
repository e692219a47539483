#include "core/topo/bind.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/topo/finish.h"
#include "core/topo/task_cores.h"
#include "core/topo/task_gpus.h"
#include "lib/base/check.h"

namespace muster::topo {
namespace {

Error refused(std::string message) {
  return make_error(ErrorCode::kRefused, std::move(message));
}

// The cores of each task: what was asked, or what is held divided by the tasks; what is over then is not in it.
Result<std::uint32_t> size_of_tasks(const StepWish& wish, std::uint32_t held) {
  const std::uint32_t size = wish.cores_per_task != 0 ? wish.cores_per_task : held / wish.tasks;
  const std::uint64_t wanted = std::uint64_t{wish.tasks} * std::max(size, 1U);
  if (wanted > held) {
    return refused("the step's " + std::to_string(wish.tasks) + " tasks want " + std::to_string(wanted) +
                   " cores and the job holds " + std::to_string(held) +
                   " on the node: ask for fewer tasks or --cpus-per-task, or use --cpu-bind=none");
  }
  return size;
}

// How far the task's cores are from the GPU, as a level from 0 to 3.
std::size_t level_between(const NodeClass& node, const SlotSet& cores, std::uint32_t gpu) {
  for (std::size_t level = 0; level < 3; ++level) {
    if (cores.intersects(node.near(gpu, level))) {
      return level;
    }
  }
  return 3;
}

// Gives out what fair shares leave over: each core to the task that is nearest, by its GPUs and then by its cores, and
// that has not got one yet.
void give_left_over(const NodeClass& node, const SlotSet& held, std::vector<TaskPlacement>& tasks) {
  SlotSet left = held;
  for (const TaskPlacement& task : tasks) {
    left -= task.cores;
  }
  std::vector<bool> served(tasks.size(), false);
  left.for_each([&](std::uint32_t slot) {
    SlotSet core(node.slots());
    core.insert(slot);
    const auto distance = [&](const TaskPlacement& task) {
      std::size_t by_gpus = task.gpus.empty() ? 0 : 3;
      for (const std::uint32_t gpu : task.gpus) {
        by_gpus = std::min(by_gpus, level_between(node, core, gpu));
      }
      std::size_t by_cores = 0;
      for (const Level level : {Level::kPackage, Level::kNuma, Level::kL3}) {
        const Domain& domain = node.domains(level)[node.domain_of(level, slot)];
        by_cores += task.cores.count(domain.first, domain.last) == 0 ? 1 : 0;
      }
      return std::pair(by_gpus, by_cores);
    };
    std::size_t best = tasks.size();
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      if (!served[t] && (best == tasks.size() || distance(tasks[t]) < distance(tasks[best]))) {
        best = t;
      }
    }
    served[best] = true;
    tasks[best].cores.insert(slot);
  });
}

// The cores that each task's hardware threads belong to. Several tasks may share a core: whoever writes numbers means it.
struct Named {
  std::vector<SlotSet> cores;
  std::vector<IndexSet> threads;
};

Result<Named> named_cores(const NodeClass& node, const SlotSet& held, const StepWish& wish) {
  const char* option = wish.cpu_bind.kind == CpuBindKind::kMapCpu ? "--cpu-bind=map_cpu" : "--cpu-bind=mask_cpu";
  Named out;
  if (wish.cpu_bind.list.empty()) {
    return refused(std::string(option) + " names no hardware threads: write them behind a colon");
  }
  for (std::uint32_t i = 0; i < wish.tasks; ++i) {
    const IndexSet& threads = wish.cpu_bind.list[i % wish.cpu_bind.list.size()];
    SlotSet cores(node.slots());
    IndexSet found;
    held.for_each([&](std::uint32_t slot) {
      const IndexSet& here = node.topology().cores[node.core_of(slot)].threads;
      if (here.intersects(threads)) {
        cores.insert(slot);
        found |= here & threads;
      }
    });
    if (!(found == threads)) {
      return refused(std::string(option) + ": task " + std::to_string(i) + " is bound to hardware threads " +
                     (threads - found).to_string() + ", which the job does not hold: name some of " +
                     threads_of(node, held, 0).to_string());
    }
    out.cores.push_back(std::move(cores));
    out.threads.push_back(threads);
  }
  return out;
}

// Cores by the order of tasks and cores, as --cpu-bind=rank says; the first tasks get what is over.
std::vector<SlotSet> cores_by_rank(const NodeClass& node, const IndexSet& held, const StepWish& wish,
                                   std::uint32_t size) {
  const std::vector<std::uint32_t> cores = held.to_vector();
  const std::size_t over = wish.cores_per_task == 0 ? cores.size() % wish.tasks : 0;
  std::vector<SlotSet> out;
  std::size_t next = 0;
  for (std::uint32_t t = 0; t < wish.tasks; ++t) {
    IndexSet mine;
    for (const std::size_t last = next + size + (t < over ? 1 : 0); next < last; ++next) {
      mine.insert(cores[next]);
    }
    out.push_back(node.to_slots(mine));
  }
  return out;
}

// What one side of an assignment may still get: as many as everyone, and one more as long as there are some over.
class Quota {
 public:
  Quota(std::size_t members, std::size_t all)
      : left_(members, all / members), extra_(members, true), extras_left_(all % members) {}
  [[nodiscard]] bool open(std::size_t member) const {
    return left_[member] > 0 || (extra_[member] && extras_left_ > 0);
  }
  void take(std::size_t member) {
    if (left_[member] > 0) {
      --left_[member];
    } else {
      extra_[member] = false;
      --extras_left_;
    }
  }

 private:
  std::vector<std::size_t> left_;
  std::vector<bool> extra_;
  std::size_t extras_left_;
};

// Gives each task its share of the GPUs, or each GPU its share of the tasks, the nearest pairs first. Levels are nested
// domains, so taking what is nearest never makes the sum worse.
void assign_nearest_gpus(const NodeClass& node, const std::vector<std::uint32_t>& gpus,
                         std::vector<TaskPlacement>& tasks) {
  if (gpus.empty()) {
    return;
  }
  Quota of_tasks(tasks.size(), std::max(tasks.size(), gpus.size()));
  Quota of_gpus(gpus.size(), std::max(tasks.size(), gpus.size()));
  for (std::size_t level = 0; level < 4; ++level) {
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      for (std::size_t g = 0; g < gpus.size(); ++g) {
        if (of_tasks.open(t) && of_gpus.open(g) && level_between(node, tasks[t].cores, gpus[g]) == level) {
          tasks[t].gpus.push_back(gpus[g]);
          of_tasks.take(t);
          of_gpus.take(g);
        }
      }
    }
  }
  for (TaskPlacement& task : tasks) {
    std::sort(task.gpus.begin(), task.gpus.end());
  }
}

std::vector<TaskPlacement> with_cores(std::vector<SlotSet> cores) {
  std::vector<TaskPlacement> out;
  for (SlotSet& c : cores) {
    out.push_back({.cores = std::move(c), .gpus = {}, .nics = {}});
  }
  return out;
}

Result<std::vector<std::vector<std::uint32_t>>> listed_gpus(const Held& held, const StepWish& wish) {
  std::vector<std::vector<std::uint32_t>> out;
  for (std::uint32_t i = 0; i < wish.tasks; ++i) {
    const IndexSet& gpus = wish.gpu_list[i % wish.gpu_list.size()];
    if (!gpus.is_subset_of(held.gpus)) {
      return refused("--gpu-bind: task " + std::to_string(i) + " is given GPUs " + (gpus - held.gpus).to_string() +
                     ", which the job does not hold: name some of " + held.gpus.to_string());
    }
    out.push_back(gpus.to_vector());
  }
  return out;
}

// Tasks whose cores are named: with the GPUs that are listed, else the nearest.
Result<std::vector<TaskPlacement>> beside_cores(const NodeClass& node, const Held& held, const StepWish& wish,
                                                std::vector<SlotSet> cores) {
  std::vector<TaskPlacement> out = with_cores(std::move(cores));
  if (wish.gpu_list.empty()) {
    assign_nearest_gpus(node, held.gpus.to_vector(), out);
    return out;
  }
  MUSTER_ASSIGN(auto gpus, listed_gpus(held, wish));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i].gpus = std::move(gpus[i]);
  }
  return out;
}

// Tasks with the GPUs that are listed: cores near these.
Result<std::vector<TaskPlacement>> beside_listed(const NodeClass& node, const Held& held, const StepWish& wish,
                                                 std::uint32_t size) {
  MUSTER_ASSIGN(const auto gpus, listed_gpus(held, wish));
  std::vector<TaskDemand> demands;
  for (std::size_t i = 0; i < gpus.size(); ++i) {
    demands.push_back({.gpus = gpus[i], .cores = size});
  }
  CorePool pool(node, node.to_slots(held.cores));
  std::vector<TaskPlacement> out = with_cores(cores_near_gpus(node, pool, demands, no_penalties(node)));
  for (std::size_t i = 0; i < gpus.size(); ++i) {
    out[i].gpus = gpus[i];
  }
  return out;
}

// Tasks of which nobody said where they run.
Result<std::vector<TaskPlacement>> placed(const NodeClass& node, const Held& held, const StepWish& wish) {
  const SlotSet cores = node.to_slots(held.cores);
  if (wish.cpu_bind.kind == CpuBindKind::kNone && wish.tasks > held.cores.count()) {
    // Unbound tasks may be more than there are cores: all of them have all.
    return beside_cores(node, held, wish, std::vector<SlotSet>(wish.tasks, cores));
  }
  MUSTER_ASSIGN(const std::uint32_t size, size_of_tasks(wish, held.cores.count()));
  const std::vector<std::uint32_t> sizes(wish.tasks, size);
  std::vector<TaskPlacement> out;
  if (!wish.gpu_list.empty()) {
    MUSTER_ASSIGN(out, beside_listed(node, held, wish, size));
  } else if (held.gpus.empty()) {
    out = with_cores(divide_cores(node, cores, sizes));
  } else {
    out = place_beside(node, cores, held.gpus.to_vector(), sizes, no_penalties(node));
  }
  if (wish.cores_per_task == 0) {
    give_left_over(node, cores, out);
  }
  if (wish.gpu_list.empty()) {
    order_tasks(node, wish.distribution, out);
  }
  return out;
}

}  // namespace

Result<std::vector<ChosenTask>> bind(const NodeClass& node, const Held& held, const StepWish& wish) {
  MUSTER_CHECK(wish.tasks >= 1 && !held.cores.empty());
  const SlotSet cores = node.to_slots(held.cores);
  const CpuBindKind kind = wish.cpu_bind.kind;
  const bool has_list = kind == CpuBindKind::kMapCpu || kind == CpuBindKind::kMaskCpu;
  std::vector<TaskPlacement> tasks;
  Named named;
  if (has_list) {
    MUSTER_ASSIGN(named, named_cores(node, cores, wish));
    MUSTER_ASSIGN(tasks, beside_cores(node, held, wish, named.cores));
  } else if (kind == CpuBindKind::kRank) {
    MUSTER_ASSIGN(const std::uint32_t size, size_of_tasks(wish, held.cores.count()));
    MUSTER_ASSIGN(tasks, beside_cores(node, held, wish, cores_by_rank(node, held.cores, wish, size)));
  } else {
    MUSTER_ASSIGN(tasks, placed(node, held, wish));
  }
  choose_nics(node, tasks);
  std::vector<ChosenTask> out =
      finish(node, cores, tasks, has_list ? CpuBindKind::kCores : kind, wish.threads_per_core);
  for (std::size_t i = 0; has_list && i < out.size(); ++i) {
    out[i].threads = named.threads[i];
  }
  return out;
}

Grades grades_of_threads(const NodeClass& node, const IndexSet& threads, const IndexSet& gpus) {
  TaskPlacement task{.cores = SlotSet(node.slots()), .gpus = {}, .nics = {}};
  for (std::uint32_t slot = 0; slot < node.slots(); ++slot) {
    if (node.topology().cores[node.core_of(slot)].threads.intersects(threads)) {
      task.cores.insert(slot);
    }
  }
  task.gpus = (gpus & IndexSet::range(0, node.gpus())).to_vector();
  return grades_of(node, task);
}

}  // namespace muster::topo
