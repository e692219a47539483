#include "ctld/task_view.h"

#include "core/topo/bind_step.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {

void fill_tasks(const topo::NodeClass& node_class, const Node& node, const JobSpec& spec, const NodeShare& share,
                pb::NodePlacement& out) {
  const auto tasks =
      topo::bind_step(node_class, spec, share, {.tasks = share.tasks, .cpus_per_task = spec.cpus_per_task});
  if (!tasks.ok()) {
    return;
  }
  std::uint32_t number = 0;
  for (const topo::BoundTask& task : *tasks) {
    pb::TaskPlacement& to = *out.add_task_list();
    to.set_task(number++);
    to.set_cpus(task.chosen.threads.to_string());
    to.set_numa(task.chosen.numa.to_string());
    for (const std::uint32_t gpu : task.chosen.gpus.to_vector()) {
      wire::to_pb(node.hardware.gpus[gpu], *to.add_gpus());
    }
    for (const std::uint32_t nic : task.chosen.nics.to_vector()) {
      wire::to_pb(node.hardware.nics[nic], *to.add_nics());
    }
    to.set_local_device(task.chosen.grades.device);
    to.set_local_numa(task.chosen.grades.numa);
    to.set_local_package(task.chosen.grades.package);
  }
}

}  // namespace muster::ctld
