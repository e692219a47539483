#include "core/sched/share.h"

#include <utility>
#include <variant>

#include "core/topo/choose.h"
#include "lib/base/check.h"

namespace muster::sched {
namespace {

topo::Request request_for(const NodeCapacity& node, const JobSpec& spec, std::uint32_t tasks, std::uint32_t cores,
                          std::uint32_t gpus) {
  topo::Request request;
  // Cores that do not go to the tasks evenly are there because the job has the whole node; they are placed as one task's.
  const bool even = tasks != 0 && cores % tasks == 0;
  request.tasks = even ? tasks : 1;
  request.cores_per_task = cores / request.tasks;
  request.gpus = gpus;
  request.locality = spec.locality;
  // A node whose GPUs are divided has nothing but partitions, all of one kind.
  if (const auto& there = node.node_class.get()->topology().gpus; !there.empty()) {
    request.gpu_partition = there.front().partition;
  }
  // It was checked at the submission; a later release may know more.
  if (auto distribution = parse_distribution(spec.distribution); distribution.ok()) {
    request.distribution = *distribution;
  }
  return request;
}

std::variant<topo::Choice, topo::Refusal> choose(const NodeCapacity& node, const topo::Request& request) {
  return topo::choose(*node.node_class.get(),
                      {.usable_cores = node.all_cores, .free_cores = node.free_cores, .free_gpus = node.free_gpus},
                      request);
}

bool is_all_that_is_free(const NodeCapacity& node, std::uint32_t cores, std::uint32_t gpus) {
  return cores == node.free_cores.count() && (gpus == 0 || gpus == node.free_gpus.count());
}

// As many cores that are nobody's as the plan gives it. Nothing where a choice before took them, which one by nearness may.
std::optional<NodeShare> choose_beside(const NodeCapacity& node, const NodeShare& wanted, const JobSpec& spec,
                                       const IndexSet& others) {
  const IndexSet planned = wanted.cores & others & node.free_cores;
  NodeCapacity without = node;
  without.free_cores -= others;
  const std::uint32_t rest = wanted.cores.count() - planned.count();
  if (rest > without.free_cores.count()) {
    return std::nullopt;
  }
  if (planned.empty() || spec.locality == Locality::kRequire) {
    without.free_cores |= planned;
    return choose_share(without, wanted, spec);
  }
  NodeShare share = wanted;
  share.cores = planned | without.free_cores.lowest(rest);
  share.gpus = wanted.gpus.is_subset_of(node.free_gpus) ? wanted.gpus : node.free_gpus.lowest(wanted.gpus.count());
  return share;
}

}  // namespace

std::optional<NodeShare> choose_share(const NodeCapacity& node, const NodeShare& wanted, const JobSpec& spec,
                                      const IndexSet& others) {
  if (others.intersects(node.free_cores)) {
    if (auto chosen = choose_beside(node, wanted, spec, others)) {
      return chosen;
    }
  }
  const std::uint32_t cores = wanted.cores.count();
  const std::uint32_t gpus = wanted.gpus.count();
  MUSTER_CHECK(cores <= node.free_cores.count() && gpus <= node.free_gpus.count());
  const bool requires_near = spec.locality == Locality::kRequire && gpus != 0;
  NodeShare share = wanted;
  if (node.node_class.get() != nullptr && cores != 0 && !is_all_that_is_free(node, cores, gpus)) {
    const auto chosen = choose(node, request_for(node, spec, wanted.tasks, cores, gpus));
    // Refused are GPUs of other kinds than whole ones, which the numbers do not tell apart.
    if (const auto* choice = std::get_if<topo::Choice>(&chosen)) {
      share.cores = choice->cores;
      share.gpus = choice->gpus;
      return share;
    }
    if (requires_near) {
      return std::nullopt;
    }
  }
  if (requires_near &&
      why_not_near(node,
                   Slot{.node = wanted.node, .amount = Amount{.cores = cores, .gpus = gpus}, .tasks = wanted.tasks},
                   spec)) {
    return std::nullopt;
  }
  share.cores = node.free_cores.lowest(cores);
  share.gpus = node.free_gpus.lowest(gpus);
  return share;
}

std::optional<std::string> why_not_near(const NodeCapacity& node, const Slot& wanted, const JobSpec& spec) {
  if (wanted.amount.gpus <= 0 || wanted.amount.cores <= 0) {
    return std::nullopt;
  }
  if (node.node_class.get() == nullptr) {
    return "--locality=require: it is not known of node " + node.name + " which cores are near its GPUs";
  }
  // What a task asked for must be near, whatever else of the node the job has.
  topo::Request request = request_for(node, spec, wanted.tasks, wanted.tasks * spec.cpus_per_task,
                                      static_cast<std::uint32_t>(wanted.amount.gpus));
  request.locality = Locality::kRequire;
  auto chosen = choose(node, request);
  if (auto* refusal = std::get_if<topo::Refusal>(&chosen)) {
    return std::move(refusal->reason);
  }
  return std::nullopt;
}

}  // namespace muster::sched
