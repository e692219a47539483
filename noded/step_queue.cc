#include "noded/step_queue.h"

#include <algorithm>

#include "lib/model/binding.h"
#include "lib/wire/muster.pb.h"

namespace muster::noded {

std::vector<JobNode> job_nodes(const LaunchOrder& order) {
  std::vector<JobNode> out;
  out.reserve(order.peers.size());
  for (const Peer& peer : order.peers) {
    out.push_back({.name = peer.name, .tasks = peer.tasks, .cpus = peer.cpus, .gpus = peer.gpus});
  }
  return out;
}

StepShareWish share_wish(const LaunchOrder& order, const pb::StepSpec& spec) {
  const auto distribution =
      parse_distribution(spec.distribution().empty() ? order.spec->distribution : spec.distribution());
  StepShareWish wish;
  wish.sharing = static_cast<StepSharing>(std::min(spec.sharing(), static_cast<std::uint32_t>(kStepSharingLast)));
  wish.layout = {.nodes = spec.nodes(),
                 .nodes_max = spec.nodes_max(),
                 .ntasks = spec.ntasks(),
                 .ntasks_per_node = spec.ntasks_per_node(),
                 .cpus_per_task = spec.cpus_per_task(),
                 .nodelist = {spec.nodelist().begin(), spec.nodelist().end()},
                 .exclude = {spec.exclude().begin(), spec.exclude().end()},
                 .relative = spec.relative(),
                 .plane = distribution.ok() ? distribution->node_plane : 0};
  if (wish.sharing == StepSharing::kExact || wish.sharing == StepSharing::kExclusive) {
    if (wish.layout.cpus_per_task == 0) {
      wish.layout.cpus_per_task = std::max(order.spec->cpus_per_task, 1U);
    }
    wish.gpus = spec.gpus();
    wish.gpus_per_node = spec.gpus_per_node();
    wish.gpus_per_task = spec.gpus_per_task();
  }
  return wish;
}

std::optional<StepUse> use_of(const LaunchOrder& order, const StepRecord& record) {
  StepUse use{.step = record.step, .sharing = record.sharing, .nodes = {}};
  for (const StepRecord::Node& node : record.nodes) {
    const auto it =
        std::find_if(order.peers.begin(), order.peers.end(), [&](const Peer& peer) { return peer.name == node.name; });
    if (it == order.peers.end()) {
      return std::nullopt;
    }
    use.nodes.push_back(
        {.job_node = static_cast<std::size_t>(it - order.peers.begin()), .cores = node.cores, .gpus = node.gpus});
  }
  return use;
}

void wait_before(const IndexSet& nodes, StepSharing sharing, StepsAhead& ahead) {
  if (sharing == StepSharing::kExact || sharing == StepSharing::kExclusive) {
    ahead.wanted |= nodes;
  }
  if (sharing == StepSharing::kExclusive) {
    ahead.exclusive |= nodes;
  }
}

}  // namespace muster::noded
