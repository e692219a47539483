#include "core/topo/choose.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "core/topo/finish.h"
#include "core/topo/gpu_pick.h"
#include "core/topo/task_cores.h"
#include "core/topo/task_gpus.h"
#include "lib/base/check.h"

namespace muster::topo {
namespace {

// Sets of GPUs that are tried in full before --locality=require is refused.
constexpr std::size_t kRequireTriesMax = 64;

// A placement with what it costs.
struct Candidate {
  std::vector<TaskPlacement> tasks;
  Cost cost;
};

bool acceptable(const Cost& cost) {
  return cost.tasks_without_local_gpu == 0 && cost.distance_max <= kDistanceNuma;
}

std::vector<std::uint32_t> difference(const std::vector<std::uint32_t>& a, const std::vector<std::uint32_t>& b) {
  std::vector<std::uint32_t> out;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}

class Chooser {
 public:
  Chooser(const NodeClass& node, Supply supply, const Request& request)
      : node_(node), supply_(std::move(supply)), request_(request) {}

  // The best that was found; for kRequire one that is acceptable, if any is.
  Candidate best() {
    if (request_.gpus == 0) {
      return without_gpus();
    }
    Candidate chosen = with_gpus(sets(1).front());
    // Partitions have a rule of their own, which costs do not know.
    if (request_.locality == Locality::kNone || !request_.gpu_partition.empty()) {
      return chosen;
    }
    improve_on_plain_order(chosen);
    if (request_.locality == Locality::kRequire && !acceptable(chosen.cost)) {
      for (const auto& set : sets(kRequireTriesMax)) {
        if (Candidate other = with_gpus(set); acceptable(other.cost)) {
          return other;
        }
      }
    }
    return chosen;
  }

 private:
  [[nodiscard]] std::vector<std::vector<std::uint32_t>> sets(std::size_t max) const {
    return pick_gpus(node_, supply_,
                     {.count = request_.gpus,
                      .partition = request_.gpu_partition,
                      .sizes = request_.sizes_asked,
                      .tasks = request_.tasks,
                      .cores_per_task = request_.cores_per_task,
                      .near_cores = request_.locality != Locality::kNone},
                     max);
  }

  Candidate finished(std::vector<TaskPlacement> tasks) const {
    order_tasks(node_, request_.distribution, tasks);
    choose_nics(node_, tasks);
    const Cost cost = cost_of(node_, supply_, tasks, request_.sizes_asked);
    return {.tasks = std::move(tasks), .cost = cost};
  }

  Candidate without_gpus() const {
    std::optional<Candidate> best;
    const auto consider = [&](std::vector<TaskPlacement> tasks) {
      Candidate made = finished(std::move(tasks));
      if (!best || compare(made.cost, best->cost) < 0) {
        best = std::move(made);
      }
      // Nothing costs less than nothing.
      return compare(Cost{.bottleneck = UINT64_MAX, .task_bottleneck = UINT64_MAX}, best->cost) < 0;
    };
    bool more = true;
    pack_cores(node_, supply_.cores, supply_.gpus, request_.tasks, request_.cores_per_task,
               [&](std::vector<SlotSet> cores) {
                 std::vector<TaskPlacement> tasks;
                 for (SlotSet& c : cores) {
                   tasks.push_back({.cores = std::move(c), .gpus = {}, .nics = {}});
                 }
                 return more = consider(std::move(tasks));
               });
    if (more) {
      consider(plain_order(node_, supply_, request_));
    }
    return std::move(*best);
  }

  Candidate with_gpus(const std::vector<std::uint32_t>& set) const {
    const std::vector<std::uint32_t> others = difference(supply_.gpus, set);
    const std::vector<std::uint32_t> sizes(request_.tasks, request_.cores_per_task);
    SlotSet cores = supply_.cores;
    if (request_.locality == Locality::kNone) {
      // Where the cores are is decided without a look at the job's own GPUs; the tasks still get the nearest of them.
      pack_cores(node_, supply_.cores, others, request_.tasks, request_.cores_per_task,
                 [&](const std::vector<SlotSet>& packed) {
                   cores = SlotSet(node_.slots());
                   for (const SlotSet& task : packed) {
                     cores |= task;
                   }
                   return false;
                 });
    }
    return finished(place_beside(node_, cores, set, sizes, penalties_near(node_, others)));
  }

  // J looks at what stays free as well, so its set may be the worse one for the job itself. Costs count the job first:
  // where the plain order is better by them, its GPUs are taken, with cores as near as they come.
  void improve_on_plain_order(Candidate& chosen) const {
    Candidate plain = finished(plain_order(node_, supply_, request_));
    if (compare(plain.cost, chosen.cost) >= 0) {
      return;
    }
    std::vector<std::uint32_t> set;
    for (const TaskPlacement& task : plain.tasks) {
      set.insert(set.end(), task.gpus.begin(), task.gpus.end());
    }
    std::sort(set.begin(), set.end());
    set.erase(std::unique(set.begin(), set.end()), set.end());
    chosen = with_gpus(set);
    if (compare(plain.cost, chosen.cost) < 0) {
      chosen = std::move(plain);
    }
  }

  const NodeClass& node_;
  Supply supply_;
  const Request& request_;
};

std::string counted(std::uint64_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

// Why the request does not fit by numbers; empty when it does.
std::string shortage(const NodeClass& node, const Supply& supply, const Request& request) {
  const std::uint64_t cores = std::uint64_t{request.tasks} * request.cores_per_task;
  if (const std::uint32_t there = supply.cores.count(); cores > there) {
    return counted(cores, "core") + " wanted, " + std::to_string(there) + " there";
  }
  const auto gpus = gpus_of_kind(node, supply.gpus, request.gpu_partition).size();
  if (request.gpus > gpus) {
    const std::string wanted = request.gpu_partition.empty()
                                   ? counted(request.gpus, "GPU")
                                   : counted(request.gpus, "GPU partition") + " " + request.gpu_partition;
    return wanted + " wanted, " + std::to_string(gpus) + " there";
  }
  return "";
}

std::string far_away(const NodeClass& node, const Candidate& candidate) {
  std::uint32_t far = 0;
  for (const TaskPlacement& task : candidate.tasks) {
    far += grades_of(node, task).numa ? 0U : 1U;
  }
  if (far > 0) {
    return "--locality=require: " + std::to_string(far) + " of " + counted(candidate.tasks.size(), "task") +
           " would have cores beyond the NUMA nodes of their GPUs";
  }
  return "--locality=require: " + std::to_string(candidate.cost.tasks_without_local_gpu) + " of " +
         counted(candidate.tasks.size(), "task") + " would have no core that is local to a GPU of theirs";
}

struct Attempt {
  std::optional<Candidate> candidate;
  std::string reason;  // when there is none
};

Attempt attempt(const NodeClass& node, const Supply& supply, const Request& request) {
  Attempt out;
  out.reason = shortage(node, supply, request);
  if (!out.reason.empty()) {
    return out;
  }
  Candidate best = Chooser(node, supply, request).best();
  if (request.locality == Locality::kRequire && !acceptable(best.cost)) {
    out.reason = far_away(node, best);
    return out;
  }
  out.candidate = std::move(best);
  return out;
}

}  // namespace

std::variant<Choice, Refusal> choose(const NodeClass& node, const NodeUse& use, const Request& request) {
  MUSTER_CHECK(request.tasks >= 1 && request.cores_per_task >= 1);
  const Supply supply{.cores = node.to_slots(use.free_cores & use.usable_cores), .gpus = use.free_gpus.to_vector()};
  Attempt now = attempt(node, supply, request);
  if (!now.candidate) {
    std::vector<std::uint32_t> all(node.gpus());
    std::iota(all.begin(), all.end(), 0U);
    const Attempt empty = attempt(node, {.cores = node.to_slots(use.usable_cores), .gpus = std::move(all)}, request);
    return Refusal{.for_ever = !empty.candidate, .reason = empty.candidate ? now.reason : empty.reason};
  }
  Choice out;
  SlotSet held(node.slots());
  for (const TaskPlacement& task : now.candidate->tasks) {
    held |= task.cores;
  }
  out.cost = now.candidate->cost;
  const CpuBindKind bind = request.cpu_bind.kind;
  const bool has_list = bind == CpuBindKind::kMapCpu || bind == CpuBindKind::kMaskCpu;
  out.tasks = finish(node, held, now.candidate->tasks, has_list ? CpuBindKind::kCores : bind, request.threads_per_core);
  out.cores = node.to_cores(held);
  for (const ChosenTask& task : out.tasks) {
    out.gpus |= task.gpus;
  }
  return out;
}

std::vector<TaskPlacement> plain_order(const NodeClass& node, const Supply& supply, const Request& request) {
  std::vector<std::uint32_t> gpus = gpus_of_kind(node, supply.gpus, request.gpu_partition);
  MUSTER_CHECK(request.gpus <= gpus.size());
  gpus.resize(request.gpus);
  return place_in_order(node, supply.cores, gpus, std::vector<std::uint32_t>(request.tasks, request.cores_per_task));
}

IndexSet system_cores(const NodeClass& node, std::uint32_t count) {
  IndexSet out;
  std::uint32_t left = std::min(count, node.slots());
  for (std::uint32_t round = 0; left > 0; ++round) {
    for (const Domain& l3 : node.domains(Level::kL3)) {
      if (round < l3.size() && left > 0) {
        out.insert(node.core_of(l3.first + round));
        --left;
      }
    }
  }
  return out;
}

}  // namespace muster::topo
