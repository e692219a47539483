#include "core/topo/bind_step.h"

#include <utility>

#include "lib/model/binding.h"

namespace muster::topo {
namespace {

Error refused(const char* option, const std::string& why) {
  return make_error(ErrorCode::kRefused, std::string(option) + ": " + why);
}

const std::string& first_of(const std::string& steps, const std::string& jobs) {
  return steps.empty() ? jobs : steps;
}

// The job's share as far as this node has it: it may have other hardware than when the job started.
Held held_by(const NodeClass& node, const NodeShare& share) {
  return {.cores = share.cores & IndexSet::range(0, node.slots()),
          .gpus = share.gpus & IndexSet::range(0, node.gpus())};
}

// Places among the job's GPUs as numbers of GPUs.
Result<std::vector<IndexSet>> listed_gpus(const GpuBind& bind, const IndexSet& held) {
  const std::vector<std::uint32_t> gpus = held.to_vector();
  std::vector<IndexSet> out;
  for (const IndexSet& places : bind.list) {
    IndexSet numbers;
    for (const std::uint32_t place : places.to_vector()) {
      if (place >= gpus.size()) {
        return refused("--gpu-bind", "it names GPU " + std::to_string(place) + " and the job has " +
                                         std::to_string(gpus.size()) + " on the node: count them from 0");
      }
      numbers.insert(gpus[place]);
    }
    out.push_back(std::move(numbers));
  }
  return out;
}

// Whether tasks see their own GPUs alone, and of which GPUs these are.
struct GpuRule {
  bool own = false;
  IndexSet gpus;
  std::vector<IndexSet> list;
};

Result<GpuRule> gpu_rule(const JobSpec& job, const StepOptions& wish, const IndexSet& held) {
  const std::string& text = first_of(wish.gpu_bind, job.gpu_bind);
  MUSTER_ASSIGN(const GpuBind bind, parse_gpu_bind(text));
  GpuRule rule{.own = false, .gpus = held, .list = {}};
  std::uint64_t per_task = bind.per_task;
  switch (bind.kind) {
    case GpuBindKind::kDefault:
      per_task = wish.gpus_per_task != 0 ? wish.gpus_per_task : job.gpus_per_task;
      // A step of another layout than the job's may be anything; it sees what the job has.
      rule.own = per_task != 0 && per_task * wish.tasks == held.count();
      return rule;
    case GpuBindKind::kAll:
      return rule;
    case GpuBindKind::kOwn:
      rule.own = !held.empty();
      if (per_task * wish.tasks > held.count()) {
        return refused("--gpu-bind=per_task", std::to_string(per_task) + " GPUs for each of " +
                                                  std::to_string(wish.tasks) + " tasks are more than the " +
                                                  std::to_string(held.count()) + " that the job has on the node");
      }
      if (per_task != 0) {
        rule.gpus = held.lowest(static_cast<std::uint32_t>(per_task * wish.tasks));
      }
      return rule;
    case GpuBindKind::kList: {
      rule.own = true;
      MUSTER_ASSIGN(rule.list, listed_gpus(bind, held));
      return rule;
    }
  }
  return rule;
}

// A task for which there is no core of its own has all of them.
CpuBind cpu_rule(CpuBind bind, std::uint32_t tasks, std::uint32_t cores) {
  if (!bind.chosen && tasks > cores) {
    bind.kind = CpuBindKind::kNone;
  }
  return bind;
}

// 0: a fair share of all that is held. A job that requires its tasks near their GPUs was promised that of what it asked for
// alone, and may hold more.
std::uint32_t cores_per_task(const JobSpec& job, const StepOptions& wish, const CpuBind& cpus, std::uint32_t held) {
  if (cpus.chosen) {
    return wish.cpus_per_task;
  }
  const std::uint32_t asked = wish.cpus_per_task != 0 ? wish.cpus_per_task : job.cpus_per_task;
  const bool fits = std::uint64_t{asked} * wish.tasks <= held;
  return job.locality == Locality::kRequire && fits ? asked : 0;
}

}  // namespace

Result<std::vector<BoundTask>> bind_step(const NodeClass& node, const JobSpec& job, const NodeShare& share,
                                         const StepOptions& wish) {
  const Held held = held_by(node, share);
  if (held.cores.empty()) {
    return std::vector<BoundTask>(wish.tasks);  // nothing to choose from: unbound
  }
  MUSTER_ASSIGN(const GpuRule gpus, gpu_rule(job, wish, held.gpus));
  MUSTER_ASSIGN(const CpuBind cpus, parse_cpu_bind(first_of(wish.cpu_bind, job.cpu_bind)));
  StepWish step;
  step.tasks = wish.tasks;
  step.cpu_bind = cpu_rule(cpus, wish.tasks, held.cores.count());
  step.cores_per_task = cores_per_task(job, wish, cpus, held.cores.count());
  step.threads_per_core = wish.threads_per_core != 0 ? wish.threads_per_core : job.threads_per_core;
  MUSTER_ASSIGN(step.distribution, parse_distribution(first_of(wish.distribution, job.distribution)));
  step.gpu_list = gpus.list;
  MUSTER_ASSIGN(std::vector<ChosenTask> chosen, bind(node, {.cores = held.cores, .gpus = gpus.gpus}, step));
  std::vector<BoundTask> out;
  out.reserve(chosen.size());
  for (ChosenTask& task : chosen) {
    out.push_back({.chosen = std::move(task), .own_gpus = gpus.own});
  }
  return out;
}

}  // namespace muster::topo
