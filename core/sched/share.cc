#include "core/sched/share.h"

#include <variant>

#include "core/topo/choose.h"
#include "lib/base/check.h"

namespace muster::sched {
namespace {

topo::Request request_for(const JobSpec& spec, std::uint32_t tasks, std::uint32_t cores, std::uint32_t gpus) {
  topo::Request request;
  // Cores that do not go to the tasks evenly are there because the job has the whole node; they are placed as one task's.
  const bool even = tasks != 0 && cores % tasks == 0;
  request.tasks = even ? tasks : 1;
  request.cores_per_task = cores / request.tasks;
  request.gpus = gpus;
  request.locality = spec.locality;
  // It was checked at the submission; a later release may know more.
  if (auto distribution = parse_distribution(spec.distribution); distribution.ok()) {
    request.distribution = *distribution;
  }
  return request;
}

}  // namespace

NodeShare choose_share(const NodeCapacity& node, const NodeShare& wanted, const JobSpec& spec) {
  const std::uint32_t cores = wanted.cores.count();
  const std::uint32_t gpus = wanted.gpus.count();
  const std::uint32_t free_cores = node.free_cores.count();
  const std::uint32_t free_gpus = node.free_gpus.count();
  MUSTER_CHECK(cores <= free_cores && gpus <= free_gpus);
  NodeShare share = wanted;
  const topo::NodeClass* node_class = node.node_class.get();
  const bool all = cores == free_cores && (gpus == 0 || gpus == free_gpus);
  if (node_class != nullptr && cores != 0 && !all) {
    const auto chosen = topo::choose(
        *node_class, {.usable_cores = node.all_cores, .free_cores = node.free_cores, .free_gpus = node.free_gpus},
        request_for(spec, wanted.tasks, cores, gpus));
    // Refused are GPUs of other kinds than whole ones, which the numbers do not tell apart.
    if (const auto* choice = std::get_if<topo::Choice>(&chosen)) {
      share.cores = choice->cores;
      share.gpus = choice->gpus;
      return share;
    }
  }
  share.cores = node.free_cores.lowest(cores);
  share.gpus = node.free_gpus.lowest(gpus);
  return share;
}

}  // namespace muster::sched
