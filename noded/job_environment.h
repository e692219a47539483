// The environment variables of a job: pure functions of the launch order and of what the user submitted.
//
// Names and formats: docs of the command line ("Environment of a job") and the SLURM_* set that launchers and
// training programs detect. Both functions return NAME=value in the order: the user's own variables first, then
// ours, each name once. MUSTER_*, SLURM_* and device variables are ours and replace what was inherited from an outer
// job; MASTER_ADDR, RANK and the like stay as the user set them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/orders.h"
#include "noded/attempts.h"

namespace muster::noded {

// What the functions below need beside the order.
struct JobEnvironmentContext {
  NodeIdentity identity;
  UserInfo user;
  std::string ticket_path;  // MUSTER_TICKET_FILE
};

// Splits a submission's environment blob, NAME=value\0...; entries without a name or '=' are dropped.
std::vector<std::string> split_environment(std::string_view blob);

// The value of NAME, or "" when it is not there.
std::string_view environment_value(const std::vector<std::string>& environment, std::string_view name);

// Sets or replaces one NAME=value.
void set_variable(std::vector<std::string>& environment, std::string_view name, std::string_view value);

// "4(x2),3": equal neighbours folded, as SLURM_TASKS_PER_NODE and SLURM_JOB_CPUS_PER_NODE want it.
std::string fold_counts(const std::vector<std::uint32_t>& counts);

// "0,2,3": the vendor's indices of those of these GPUs that the node has.
std::string gpu_list(const NodeIdentity& node, const IndexSet& gpus);
// The variables by which libraries of GPU vendors learn which GPUs they may use: these, by the vendor's indices.
std::vector<std::string> gpu_variables(const NodeIdentity& node, const IndexSet& gpus);

// For the batch script (on the first node), from the environment that was submitted.
std::vector<std::string> batch_environment(const LaunchOrder& order, const JobEnvironmentContext& context,
                                           const std::vector<std::string>& submitted);

// For the command of `muster alloc`, on the machine of its user: what describes the job, as its batch script would have
// it, and nothing that describes the node or the user there.
std::vector<std::string> login_environment(const LaunchOrder& order, const JobEnvironmentContext& context);

// For prolog and epilog on any node of the job: what its script would have, without what is the user's, and whose it is.
std::vector<std::string> hook_environment(const LaunchOrder& order, const JobEnvironmentContext& context);

// The layout of a step, as all its nodes know it.
struct StepLayout {
  std::uint32_t step = 0;
  std::vector<std::string> nodes;    // of the step, in its order
  std::vector<std::uint32_t> tasks;  // for each node of the step
  std::vector<std::uint32_t> ranks;  // of this node
  std::uint32_t cpus_per_task = 0;   // 0: not asked
  std::string master_address;        // MASTER_ADDR
  std::uint32_t master_port = 0;     // MASTER_PORT
};

// Common to all tasks of the step on this node. `submitted` is the environment that the step's client sent;
// `node_index` is this node's place in layout.nodes (SLURM_NODEID is relative to the step).
std::vector<std::string> step_environment(const LaunchOrder& order, const JobEnvironmentContext& context,
                                          const std::vector<std::string>& submitted, const StepLayout& layout,
                                          std::uint32_t node_index);
// What differs from task to task (StepTask::environment): rank `rank`, the `local_rank`-th on this node.
// Names that the user set (MASTER_ADDR, RANK, ...) in `submitted` are left out.
std::vector<std::string> task_environment(const std::vector<std::string>& submitted, const StepLayout& layout,
                                          std::uint32_t node_index, std::uint32_t rank, std::uint32_t local_rank);

}  // namespace muster::noded
