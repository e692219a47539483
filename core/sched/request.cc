#include "core/sched/request.h"

#include <algorithm>

#include "lib/base/text.h"

namespace muster::sched {
namespace {

// Beyond any node, and small enough to be multiplied.
constexpr std::uint64_t kAmountMax = std::uint64_t{1} << 50U;

std::uint64_t share_of_memory(const NodeCapacity& node, std::uint64_t cores) {
  const std::uint64_t all = static_cast<std::uint64_t>(node.all.cores);
  return all == 0 ? 0 : node.mem_mib / all * cores + node.mem_mib % all * cores / all;
}

std::int64_t bounded(std::uint64_t value) {
  return static_cast<std::int64_t>(std::min(value, kAmountMax));
}

}  // namespace

std::uint64_t cpus_of(const JobSpec& spec) {
  return std::max<std::uint64_t>(1, std::uint64_t{spec.ntasks} * spec.cpus_per_task);
}

Amount need_of(const JobSpec& spec, const NodeCapacity& node, std::uint64_t tasks, std::uint64_t gpus_of_total) {
  // A whole node must still have a CPU for each of the tasks' CPUs, and the GPUs that were asked for.
  std::uint64_t cores = tasks * spec.cpus_per_task;
  std::uint64_t gpus = spec.gpus_per_node + tasks * spec.gpus_per_task + gpus_of_total;
  if (spec.exclusive) {
    cores = std::max(cores, static_cast<std::uint64_t>(node.all.cores));
    gpus = std::max(gpus, static_cast<std::uint64_t>(node.all.gpus));
  }
  std::uint64_t mem_mib = 0;
  if (spec.mem_per_node_mib != 0) {
    mem_mib = spec.mem_per_node_mib;
  } else if (spec.mem_per_cpu_mib != 0) {
    mem_mib = cores > kAmountMax / spec.mem_per_cpu_mib ? kAmountMax : spec.mem_per_cpu_mib * cores;
  } else if (spec.mem_per_gpu_mib != 0) {
    mem_mib = gpus > kAmountMax / spec.mem_per_gpu_mib ? kAmountMax : spec.mem_per_gpu_mib * gpus;
  } else {
    mem_mib = share_of_memory(node, cores);
  }
  return Amount{bounded(cores), bounded(gpus), bounded(mem_mib)};
}

std::uint32_t tasks_that_fit(const JobSpec& spec, const NodeCapacity& node, const Amount& free) {
  if (free.cores <= 0 || free.mem_mib < 0 || free.gpus < 0) {
    return 0;
  }
  std::uint64_t most = spec.ntasks_per_node != 0 ? spec.ntasks_per_node : spec.ntasks;
  most = std::min<std::uint64_t>(most, spec.ntasks);
  // A request for GPUs in total is split after the tasks are spread; on a single node all of them fall to it.
  const std::uint32_t total_gpus = spec.nodes_min == 1 && spec.nodes_max == 1 ? spec.gpus : 0;
  std::uint64_t low = 0;
  std::uint64_t high = std::min<std::uint64_t>(
      most, static_cast<std::uint64_t>(free.cores) / std::max<std::uint32_t>(1, spec.cpus_per_task));
  if (high > 0 && free.covers(need_of(spec, node, high, total_gpus))) {
    return static_cast<std::uint32_t>(high);
  }
  while (low < high) {  // the largest count that fits: needs grow with the tasks
    const std::uint64_t middle = low + (high - low + 1) / 2;
    if (free.covers(need_of(spec, node, middle, total_gpus))) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return static_cast<std::uint32_t>(low);
}

std::uint32_t gpus_that_fit(const JobSpec& spec, const Amount& free) {
  const std::int64_t own = std::int64_t{spec.gpus_per_node} + spec.gpus_per_task;
  std::int64_t gpus = free.gpus;
  if (spec.mem_per_node_mib == 0 && spec.mem_per_cpu_mib == 0 && spec.mem_per_gpu_mib != 0) {
    gpus = std::min(gpus, free.mem_mib / static_cast<std::int64_t>(spec.mem_per_gpu_mib));
  }
  return static_cast<std::uint32_t>(std::max<std::int64_t>(0, gpus - own));
}

bool is_even(const JobSpec& spec) {
  return spec.nodes_min == spec.nodes_max && spec.ntasks_per_node != 0 &&
         std::uint64_t{spec.nodes_min} * spec.ntasks_per_node == spec.ntasks;
}

std::string plural(std::uint64_t n, const char* one, const char* many) {
  return std::to_string(n) + " " + (n == 1 ? one : many);
}

std::string describe_request(const JobSpec& spec) {
  std::string text = plural(spec.ntasks, "task", "tasks") + " of " + plural(spec.cpus_per_task, "CPU", "CPUs");
  // How many nodes they need is open where only the least number is given, which is one for nearly everybody.
  if (spec.nodes_max != spec.nodes_min && spec.nodes_max != 0) {
    text = std::to_string(spec.nodes_min) + " to " + plural(spec.nodes_max, "node", "nodes") + " with " + text;
  } else if (spec.nodes_max != 0 || spec.nodes_min > 1) {
    text = plural(spec.nodes_min, "node", "nodes") + (spec.nodes_max == 0 ? " or more with " : " with ") + text;
  }
  if (spec.exclusive) {
    text += ", whole nodes";
  }
  if (spec.gpus_per_node != 0) {
    text += ", " + plural(spec.gpus_per_node, "GPU", "GPUs") + " a node";
  }
  if (spec.gpus_per_task != 0) {
    text += ", " + plural(spec.gpus_per_task, "GPU", "GPUs") + " a task";
  }
  if (spec.gpus != 0) {
    text += ", " + plural(spec.gpus, "GPU", "GPUs") + " in total";
  }
  if (spec.mem_per_node_mib != 0) {
    text += ", " + format_memory_mib(spec.mem_per_node_mib) + " of memory a node";
  } else if (spec.mem_per_cpu_mib != 0) {
    text += ", " + format_memory_mib(spec.mem_per_cpu_mib) + " of memory a CPU";
  } else if (spec.mem_per_gpu_mib != 0) {
    text += ", " + format_memory_mib(spec.mem_per_gpu_mib) + " of memory a GPU";
  }
  if (!spec.constraint.empty()) {
    text += ", features " + spec.constraint;
  }
  if (spec.switches != 0) {
    text += ", at most " + plural(spec.switches, "switch", "switches");
  }
  if (spec.segment != 0) {
    text += ", in segments of " + plural(spec.segment, "node", "nodes");
  }
  return text;
}

}  // namespace muster::sched
