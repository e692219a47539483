#include "core/topo/finish.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "lib/base/check.h"

namespace muster::topo {
namespace {

IndexSet to_set(const std::vector<std::uint32_t>& numbers) {
  IndexSet out;
  for (const std::uint32_t n : numbers) {
    out.insert(n);
  }
  return out;
}

// What is held of the domains that the task's cores are in.
SlotSet widened(const NodeClass& node, Level level, const SlotSet& cores, const SlotSet& held) {
  SlotSet out(node.slots());
  std::uint32_t slot = cores.next(0);
  while (slot < cores.end()) {
    const Domain& domain = node.domains(level)[node.domain_of(level, slot)];
    for (std::uint32_t s = held.next(domain.first); s < domain.last; s = held.next(s + 1)) {
      out.insert(s);
    }
    slot = cores.next(domain.last);
  }
  return out;
}

IndexSet bound_threads(const NodeClass& node, const SlotSet& held, const SlotSet& cores, CpuBindKind bind,
                       std::uint32_t threads_per_core) {
  switch (bind) {
    case CpuBindKind::kNone:
      return threads_of(node, held, threads_per_core);
    case CpuBindKind::kThreads:
      return threads_of(node, cores, 1);
    case CpuBindKind::kCores:
    case CpuBindKind::kRank:
      return threads_of(node, cores, threads_per_core);
    case CpuBindKind::kL3:
      return threads_of(node, widened(node, Level::kL3, cores, held), threads_per_core);
    case CpuBindKind::kNuma:
      return threads_of(node, widened(node, Level::kNuma, cores, held), threads_per_core);
    case CpuBindKind::kSockets:
      return threads_of(node, widened(node, Level::kPackage, cores, held), threads_per_core);
    case CpuBindKind::kMapCpu:
    case CpuBindKind::kMaskCpu:
      break;
  }
  MUSTER_CHECK(false && "a binding with a list is resolved by bind()");
  return {};
}

}  // namespace

IndexSet threads_of(const NodeClass& node, const SlotSet& cores, std::uint32_t threads_per_core) {
  IndexSet out;
  cores.for_each([&](std::uint32_t slot) {
    const IndexSet& threads = node.topology().cores[node.core_of(slot)].threads;
    out |= threads_per_core == 0 ? threads : threads.lowest(threads_per_core);
  });
  return out;
}

void order_tasks(const NodeClass& node, const Distribution& distribution, std::vector<TaskPlacement>& tasks) {
  // (turn, package, first slot, number): each package gives `plane` tasks a turn; with kBlock there is one turn.
  using Key = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::size_t>;
  std::vector<Key> keys;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    keys.emplace_back(0, 0, tasks[i].cores.next(0), i);
  }
  std::sort(keys.begin(), keys.end());
  if (distribution.kind != DistributionKind::kBlock) {
    const std::uint32_t plane = distribution.kind == DistributionKind::kPlane ? distribution.plane : 1;
    std::vector<std::uint32_t> seen(node.domains(Level::kPackage).size(), 0);
    for (auto& [turn, package, slot, task] : keys) {
      package = node.domain_of(Level::kPackage, slot);
      turn = seen[package]++ / plane;
    }
    std::sort(keys.begin(), keys.end());
  }
  std::vector<TaskPlacement> ordered;
  ordered.reserve(tasks.size());
  for (const Key& key : keys) {
    ordered.push_back(std::move(tasks[std::get<3>(key)]));
  }
  tasks = std::move(ordered);
}

std::vector<ChosenTask> finish(const NodeClass& node, const SlotSet& held, const std::vector<TaskPlacement>& tasks,
                               CpuBindKind bind, std::uint32_t threads_per_core) {
  std::vector<ChosenTask> out;
  out.reserve(tasks.size());
  for (const TaskPlacement& task : tasks) {
    ChosenTask chosen;
    chosen.cores = node.to_cores(task.cores);
    chosen.threads = bound_threads(node, held, task.cores, bind, threads_per_core);
    chosen.gpus = to_set(task.gpus);
    chosen.nics = to_set(task.nics);
    task.cores.for_each(
        [&](std::uint32_t slot) { chosen.numa.insert(node.topology().cores[node.core_of(slot)].numa); });
    chosen.grades = grades_of(node, task);
    out.push_back(std::move(chosen));
  }
  return out;
}

}  // namespace muster::topo
