#include "noded/job_environment.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "lib/base/text.h"

namespace muster::noded {
namespace {

// Ours, apart from SLURM_*: dropped from what was submitted, because it may come from an outer job. Other MUSTER_*
// names (MUSTER_CONFIG, MUSTER_KEY, input options) are the user's.
constexpr std::array kOwnNames{
    "MUSTER_JOB_ID",       "MUSTER_ARRAY_JOB_ID", "MUSTER_ARRAY_TASK_ID", "MUSTER_JOB_NAME",
    "MUSTER_NODELIST",     "MUSTER_NNODES",       "MUSTER_NTASKS",        "MUSTER_NODEID",
    "MUSTER_PROCID",       "MUSTER_LOCALID",      "MUSTER_CPUS_PER_TASK", "MUSTER_GPUS",
    "MUSTER_SUBMIT_DIR",   "MUSTER_STEP_ID",      "MUSTER_ATTEMPT",       "MUSTER_CHECKPOINT_DIR",
    "MUSTER_RESTORE_DIR",  "MUSTER_TICKET_FILE",  "MUSTER_NODE_ENDPOINT", "MUSTER_NODE_KEY",
    "MUSTER_NODE_NAME",    "MUSTER_CLUSTER",      "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",  "ZE_AFFINITY_MASK",
};

// Set for training launchers in tasks, unless the user set them.
constexpr std::array kTrainingNames{"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE",      "RANK",
                                    "LOCAL_RANK",  "NODE_RANK",   "LOCAL_WORLD_SIZE"};

// Where a login shell would look, for environments without a PATH (--export NONE).
constexpr std::string_view kDefaultPath = "/usr/local/bin:/usr/bin:/bin";
constexpr std::string_view kRootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string_view name_of(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

bool is_own(std::string_view name) {
  return name.starts_with("SLURM_") || name.starts_with("SLURMD_") ||
         std::find(kOwnNames.begin(), kOwnNames.end(), name) != kOwnNames.end();
}

bool has(const std::vector<std::string>& environment, std::string_view name) {
  return std::any_of(environment.begin(), environment.end(),
                     [&](const std::string& variable) { return name_of(variable) == name; });
}

// Tasks of an outer step have these from us; a user who sets them does so outside, or in the batch script.
bool is_inherited_training_name(const std::vector<std::string>& submitted, std::string_view name) {
  return has(submitted, "MUSTER_STEP_ID") &&
         std::find(kTrainingNames.begin(), kTrainingNames.end(), name) != kTrainingNames.end();
}

void set_default(std::vector<std::string>& environment, std::string_view name, std::string_view value) {
  if (!value.empty() && !has(environment, name)) {
    set_variable(environment, name, value);
  }
}

// Appends without looking: only for names that users_part() has removed.
class Adder {
 public:
  explicit Adder(std::vector<std::string>& environment) : environment_(environment) {}
  void operator()(std::string_view name, std::string_view value) {
    std::string variable(name);
    variable += '=';
    variable += value;
    environment_.push_back(std::move(variable));
  }
  void operator()(std::string_view name, std::uint64_t value) { (*this)(name, std::to_string(value)); }
  // Under both spellings.
  template <typename T>
  void both(std::string_view rest, T value) {
    (*this)("MUSTER_" + std::string(rest), value);
    (*this)("SLURM_" + std::string(rest), value);
  }

 private:
  std::vector<std::string>& environment_;
};

std::vector<std::string> users_part(const std::vector<std::string>& submitted) {
  std::vector<std::string> out;
  out.reserve(submitted.size() + 64);
  for (const std::string& variable : submitted) {
    const std::string_view name = name_of(variable);
    if (!is_own(name) && !is_inherited_training_name(submitted, name)) {
      out.push_back(variable);
    }
  }
  return out;
}

bool contains_dir(std::string_view path, std::string_view dir) {
  const auto parts = split(path, ':');
  return std::find(parts.begin(), parts.end(), dir) != parts.end();
}

void set_path(std::vector<std::string>& environment, const JobEnvironmentContext& context, std::uint32_t uid) {
  std::string path(environment_value(environment, "PATH"));
  if (path.empty()) {
    path = uid == 0 ? kRootPath : kDefaultPath;
  }
  // First, or mpirun finds another srun, or none, and falls back to ssh.
  if (const std::string& dir = context.identity.slurm_dir; !dir.empty() && !path.starts_with(dir + ":")) {
    path = dir + ":" + path;
  }
  // Last: `muster` is found also where it is not installed, and hides nothing of the user's.
  if (const std::string& dir = context.identity.bin_dir; !dir.empty() && !contains_dir(path, dir)) {
    path += ":" + dir;
  }
  set_variable(environment, "PATH", path);
}

void set_user(std::vector<std::string>& environment, const JobEnvironmentContext& context) {
  set_default(environment, "HOME", context.user.home);
  set_default(environment, "USER", context.user.name);
  set_default(environment, "LOGNAME", context.user.name);
  set_default(environment, "SHELL", context.user.shell);
  set_default(environment, "TMPDIR", "/tmp");
}

void set_gpus(Adder& add, const LaunchOrder& order, const NodeIdentity& node, std::vector<std::string>& environment) {
  if (node.hardware.gpus.empty()) {
    return;
  }
  for (std::string& variable : gpu_variables(node, order.share.gpus)) {
    environment.push_back(std::move(variable));
  }
  const std::string list = gpu_list(node, order.share.gpus);
  // The numbers are those of nvidia-smi, which CUDA counts by only when it is told so.
  set_default(environment, "CUDA_DEVICE_ORDER", "PCI_BUS_ID");
  if (!list.empty()) {
    add("MUSTER_GPUS", list);
    add("SLURM_JOB_GPUS", list);
    add("SLURM_GPUS_ON_NODE", order.share.gpus.count());
  }
}

void set_request(Adder& add, const LaunchOrder& order) {
  const JobSpec& spec = *order.spec;
  if (spec.ntasks_per_node > 0) {
    add("SLURM_NTASKS_PER_NODE", spec.ntasks_per_node);
  }
  if (spec.cpus_per_task > 1) {
    add("SLURM_CPUS_PER_TASK", spec.cpus_per_task);
  }
  if (spec.mem_per_node_mib > 0) {
    add("SLURM_MEM_PER_NODE", spec.mem_per_node_mib);
  }
  if (spec.mem_per_cpu_mib > 0) {
    add("SLURM_MEM_PER_CPU", spec.mem_per_cpu_mib);
  }
  if (spec.mem_per_gpu_mib > 0) {
    add("SLURM_MEM_PER_GPU", spec.mem_per_gpu_mib);
  }
  if (spec.gpus > 0) {
    add("SLURM_GPUS", spec.gpus);
  }
  if (spec.gpus_per_node > 0) {
    add("SLURM_GPUS_PER_NODE", spec.gpus_per_node);
  }
  if (spec.gpus_per_task > 0) {
    add("SLURM_GPUS_PER_TASK", spec.gpus_per_task);
  }
  if (!spec.account.empty()) {
    add("SLURM_JOB_ACCOUNT", spec.account);
  }
  if (!spec.qos.empty()) {
    add("SLURM_JOB_QOS", spec.qos);
  }
  if (!spec.export_mode.empty() && spec.export_mode != "ALL") {
    add("SLURM_EXPORT_ENV", spec.export_mode);
  }
  if (spec.export_mode == "NONE") {
    add("SLURM_GET_USER_ENV", 1);
  }
}

void set_array(Adder& add, const LaunchOrder& order) {
  if (order.array.value == 0 || !order.spec->array) {
    return;
  }
  const ArraySpec& array = *order.spec->array;
  add.both("ARRAY_JOB_ID", order.array.value);
  add.both("ARRAY_TASK_ID", order.array_index);
  add("SLURM_ARRAY_TASK_COUNT", array.size());
  add("SLURM_ARRAY_TASK_MIN", array.min_index());
  add("SLURM_ARRAY_TASK_MAX", array.max_index());
  add("SLURM_ARRAY_TASK_STEP", array.ranges.empty() ? 1 : array.ranges.front().step);
}

std::vector<std::string> names_of(const LaunchOrder& order) {
  std::vector<std::string> names;
  names.reserve(order.peers.size());
  for (const Peer& peer : order.peers) {
    names.push_back(peer.name);
  }
  return names;
}

// What batch script and steps have in common.
void set_job(std::vector<std::string>& environment, const LaunchOrder& order, const JobEnvironmentContext& context) {
  const JobSpec& spec = *order.spec;
  const NodeIdentity& node = context.identity;
  Adder add(environment);
  const std::string nodelist = fold_node_list(names_of(order));
  std::vector<std::uint32_t> cpus;
  for (const Peer& peer : order.peers) {
    cpus.push_back(peer.cpus);
  }
  add.both("JOB_ID", order.key.job.value);
  add("SLURM_JOBID", order.key.job.value);
  add.both("JOB_NAME", spec.name);
  add("MUSTER_ATTEMPT", order.key.attempt.value);
  if (order.key.attempt.value > 1) {
    add("SLURM_RESTART_COUNT", order.key.attempt.value - 1);
  }
  add("MUSTER_NODELIST", nodelist);
  add("SLURM_JOB_NODELIST", nodelist);
  add("SLURM_JOB_NUM_NODES", order.peers.size());
  add("SLURM_JOB_CPUS_PER_NODE", fold_counts(cpus));
  add("SLURM_CPUS_ON_NODE", order.share.cores.count());
  add("MUSTER_CPUS_PER_TASK", std::max(spec.cpus_per_task, 1U));
  set_array(add, order);
  set_request(add, order);
  set_gpus(add, order, node, environment);
  add("SLURM_JOB_PARTITION", spec.queue);
  add("SLURM_JOB_USER", spec.user);
  add("SLURM_JOB_UID", spec.uid);
  add("SLURM_JOB_GID", spec.gid);
  add.both("SUBMIT_DIR", spec.work_dir);
  add("SLURM_SUBMIT_HOST", spec.submit_host);
  add("SLURM_CLUSTER_NAME", node.cluster);
  add("MUSTER_CLUSTER", node.cluster);
  add("SLURMD_NODENAME", node.name);
  add("MUSTER_NODE_NAME", node.name);
  add("SLURM_TOPOLOGY_ADDR", node.name);
  add("SLURM_TOPOLOGY_ADDR_PATTERN", "node");
  add("SLURM_NODE_ALIASES", "(null)");
  add("SLURM_PRIO_PROCESS", 0);
  add("MUSTER_NODE_ENDPOINT", node.endpoint);
  add("MUSTER_NODE_KEY", node.public_key);
  if (!context.ticket_path.empty()) {
    add("MUSTER_TICKET_FILE", context.ticket_path);
  }
  set_user(environment, context);
  set_path(environment, context, spec.uid);
}

// How the launchers of MPI libraries say that their srun starts daemons, as Slurm from 23.11 tells them.
void set_launchers(std::vector<std::string>& environment, const JobEnvironmentContext& context) {
  if (context.identity.slurm_dir.empty()) {
    return;
  }
  for (const char* name : {"OMPI_MCA_plm_slurm_args", "PRTE_MCA_plm_slurm_args", "HYDRA_LAUNCHER_EXTRA_ARGS",
                           "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS"}) {
    set_default(environment, name, "--external-launcher");
  }
  set_default(environment, "HYDRA_BOOTSTRAP", "slurm");
  set_default(environment, "I_MPI_HYDRA_BOOTSTRAP", "slurm");
}

}  // namespace

std::vector<std::string> split_environment(std::string_view blob) {
  std::vector<std::string> out;
  for (const std::string_view variable : split(blob, '\0')) {
    const auto equals = variable.find('=');
    if (equals != std::string_view::npos && equals > 0) {
      out.emplace_back(variable);
    }
  }
  return out;
}

std::string_view environment_value(const std::vector<std::string>& environment, std::string_view name) {
  for (const std::string& variable : environment) {
    if (name_of(variable) == name) {
      return std::string_view(variable).substr(name.size() + 1);
    }
  }
  return {};
}

void set_variable(std::vector<std::string>& environment, std::string_view name, std::string_view value) {
  std::string text(name);
  text += '=';
  text += value;
  for (std::string& variable : environment) {
    if (name_of(variable) == name) {
      variable = std::move(text);
      return;
    }
  }
  environment.push_back(std::move(text));
}

std::string fold_counts(const std::vector<std::uint32_t>& counts) {
  std::string out;
  for (std::size_t i = 0; i < counts.size();) {
    std::size_t j = i;
    while (j < counts.size() && counts[j] == counts[i]) {
      ++j;
    }
    out += (out.empty() ? "" : ",") + std::to_string(counts[i]);
    if (j - i > 1) {
      out += "(x" + std::to_string(j - i) + ")";
    }
    i = j;
  }
  return out;
}

std::string gpu_list(const NodeIdentity& node, const IndexSet& gpus) {
  std::string list;
  for (const std::uint32_t number : gpus.to_vector()) {
    if (number < node.hardware.gpus.size()) {
      list += (list.empty() ? "" : ",") + std::to_string(node.hardware.gpus[number].vendor_index);
    }
  }
  return list;
}

// NVIDIA's partitions are known by their UUIDs alone: those of these GPUs, or nothing where one has none.
static std::string partition_list(const NodeIdentity& node, const IndexSet& gpus) {
  std::string list;
  for (const std::uint32_t number : gpus.to_vector()) {
    if (node.topology == nullptr || number >= node.topology->gpus.size()) {
      return "";
    }
    const TopologyGpu& gpu = node.topology->gpus[number];
    if (gpu.partition.empty() || gpu.uuid.empty()) {
      return "";
    }
    list += (list.empty() ? "" : ",") + gpu.uuid;
  }
  return list;
}

std::vector<std::string> gpu_variables(const NodeIdentity& node, const IndexSet& gpus) {
  const std::string list = gpu_list(node, gpus);
  const std::string partitions = partition_list(node, gpus);
  std::vector<std::string> out;
  // Also when it is empty: a job without GPUs must not use those of others.
  for (const char* name : {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"}) {
    out.push_back(std::string(name) + "=" + list);
  }
  if (!partitions.empty()) {
    out.front() = "CUDA_VISIBLE_DEVICES=" + partitions;
  }
  return out;
}

std::vector<std::string> batch_environment(const LaunchOrder& order, const JobEnvironmentContext& context,
                                           const std::vector<std::string>& submitted) {
  std::vector<std::string> environment = users_part(submitted);
  set_job(environment, order, context);
  set_launchers(environment, context);
  Adder add(environment);
  std::vector<std::uint32_t> tasks;
  for (const Peer& peer : order.peers) {
    tasks.push_back(peer.tasks);
  }
  const auto ntasks = std::accumulate(tasks.begin(), tasks.end(), std::uint64_t{0});
  add("SLURM_NODELIST", environment_value(environment, "SLURM_JOB_NODELIST"));
  add("MUSTER_NNODES", order.peers.size());
  add("SLURM_NNODES", order.peers.size());
  add.both("NTASKS", ntasks);
  add("SLURM_NPROCS", ntasks);
  add("SLURM_TASKS_PER_NODE", fold_counts(tasks));
  add.both("NODEID", std::uint64_t{order.node_rank});
  add.both("PROCID", std::uint64_t{0});
  add.both("LOCALID", std::uint64_t{0});
  add("SLURM_GTIDS", "0");
  set_variable(environment, "HOSTNAME", context.identity.name);
  return environment;
}

std::vector<std::string> login_environment(const LaunchOrder& order, const JobEnvironmentContext& context) {
  // What tells daemons of launchers on which node they are.
  constexpr std::array kOfTheNode{"SLURM_TOPOLOGY_ADDR", "SLURM_TOPOLOGY_ADDR_PATTERN", "SLURM_PRIO_PROCESS"};
  std::vector<std::string> environment = batch_environment(order, context, {});
  std::vector<std::string> launchers;
  set_launchers(launchers, context);
  std::erase_if(environment, [&](const std::string& variable) {
    const std::string_view name = name_of(variable);
    return !has(launchers, name) && ((!name.starts_with("MUSTER_") && !name.starts_with("SLURM_")) ||
                                     std::find(kOfTheNode.begin(), kOfTheNode.end(), name) != kOfTheNode.end());
  });
  return environment;
}

std::vector<std::string> step_environment(const LaunchOrder& order, const JobEnvironmentContext& context,
                                          const std::vector<std::string>& submitted, const StepLayout& layout,
                                          std::uint32_t node_index) {
  std::vector<std::string> environment = users_part(submitted);
  set_job(environment, order, context);
  Adder add(environment);
  const std::string nodelist = fold_node_list(layout.nodes);
  const auto ntasks = std::accumulate(layout.tasks.begin(), layout.tasks.end(), std::uint64_t{0});
  const std::uint32_t here = node_index < layout.tasks.size() ? layout.tasks[node_index] : 0;
  add.both("STEP_ID", std::uint64_t{layout.step});
  add("SLURM_STEPID", layout.step);
  add("SLURM_NODELIST", nodelist);
  add("SLURM_STEP_NODELIST", nodelist);
  add("SLURM_STEP_NUM_NODES", layout.nodes.size());
  add("SLURM_STEP_NUM_TASKS", ntasks);
  add("SLURM_STEP_TASKS_PER_NODE", fold_counts(layout.tasks));
  add("SLURM_TASKS_PER_NODE", fold_counts(layout.tasks));
  add.both("NNODES", std::uint64_t{layout.nodes.size()});
  add.both("NTASKS", ntasks);
  add("SLURM_NPROCS", ntasks);
  add.both("NODEID", std::uint64_t{node_index});
  std::string ranks;
  for (const std::uint32_t rank : layout.ranks) {
    ranks += (ranks.empty() ? "" : ",") + std::to_string(rank);
  }
  add("SLURM_GTIDS", ranks);
  if (layout.cpus_per_task > 0) {
    set_variable(environment, "SLURM_CPUS_PER_TASK", std::to_string(layout.cpus_per_task));
    set_variable(environment, "MUSTER_CPUS_PER_TASK", std::to_string(layout.cpus_per_task));
  }
  if (!order.share.gpus.empty()) {
    add("SLURM_STEP_GPUS", environment_value(environment, "SLURM_JOB_GPUS"));
  }
  set_variable(environment, "HOSTNAME", context.identity.name);
  if (!layout.master_address.empty()) {
    set_default(environment, "MASTER_ADDR", layout.master_address);
    set_default(environment, "MASTER_PORT", std::to_string(layout.master_port));
  }
  set_default(environment, "WORLD_SIZE", std::to_string(ntasks));
  set_default(environment, "NODE_RANK", std::to_string(node_index));
  set_default(environment, "LOCAL_WORLD_SIZE", std::to_string(here));
  return environment;
}

std::vector<std::string> hook_environment(const LaunchOrder& order, const JobEnvironmentContext& context) {
  std::vector<std::string> environment = batch_environment(order, context, {});
  std::erase_if(environment, [](const std::string& variable) {
    constexpr std::array kUsers{"HOME=", "SHELL=", "MUSTER_TICKET_FILE="};
    return std::any_of(kUsers.begin(), kUsers.end(),
                       [&variable](const char* name) { return variable.starts_with(name); });
  });
  const JobSpec& spec = *order.spec;
  set_variable(environment, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  set_variable(environment, "MUSTER_NODEID", std::to_string(order.node_rank));
  set_variable(environment, "MUSTER_NODE_NAME", order.node);
  set_variable(environment, "MUSTER_JOB_USER", spec.user);
  set_variable(environment, "MUSTER_JOB_UID", std::to_string(spec.uid));
  set_variable(environment, "MUSTER_JOB_GID", std::to_string(spec.gid));
  set_variable(environment, "MUSTER_JOB_ACCOUNT", spec.account);
  set_variable(environment, "MUSTER_JOB_QUEUE", spec.queue);
  return environment;
}

std::vector<std::string> task_environment(const std::vector<std::string>& submitted, const StepLayout& /*layout*/,
                                          std::uint32_t /*node_index*/, std::uint32_t rank, std::uint32_t local_rank) {
  std::vector<std::string> environment;
  Adder add(environment);
  add.both("PROCID", std::uint64_t{rank});
  add.both("LOCALID", std::uint64_t{local_rank});
  const std::pair<const char*, std::uint32_t> training[] = {{"RANK", rank}, {"LOCAL_RANK", local_rank}};
  for (const auto& [name, value] : training) {
    if (!has(submitted, name) || is_inherited_training_name(submitted, name)) {
      add(name, value);
    }
  }
  return environment;
}

}  // namespace muster::noded
