#include "noded/step_shares.h"

#include <algorithm>
#include <numeric>
#include <optional>

namespace muster::noded {
namespace {

// Holders that a reason names; the others are counted.
constexpr std::size_t kHoldersNamed = 3;

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool has_own(StepSharing sharing) {
  return sharing == StepSharing::kExact || sharing == StepSharing::kExclusive;
}

// What is left on one node for a step of its own cores.
struct Free {
  IndexSet cores;
  IndexSet gpus;
};

std::vector<Free> all_of(const std::vector<JobNode>& job) {
  std::vector<Free> out;
  out.reserve(job.size());
  for (const JobNode& node : job) {
    out.push_back({.cores = IndexSet::range(0, node.cpus), .gpus = IndexSet::range(0, node.gpus)});
  }
  return out;
}

IndexSet candidates(const std::vector<JobNode>& job, const StepWish& wish) {
  const bool named_only = !wish.nodelist.empty() && wish.nodes <= wish.nodelist.size();
  IndexSet out;
  for (std::size_t i = wish.relative; i < job.size(); ++i) {
    if (!contains(wish.exclude, job[i].name) && (!named_only || contains(wish.nodelist, job[i].name))) {
      out.insert(static_cast<std::uint32_t>(i));
    }
  }
  return out;
}

std::vector<Free> free_now(const std::vector<JobNode>& job, const std::vector<StepUse>& running,
                           const StepsAhead& ahead, StepSharing sharing) {
  std::vector<Free> free = all_of(job);
  for (const StepUse& use : running) {
    for (const StepNodeUse& node : use.nodes) {
      Free& here = free[node.job_node];
      here.cores = here.cores - node.cores;
      here.gpus = here.gpus - node.gpus;
      if (use.sharing == StepSharing::kWhole && sharing == StepSharing::kExclusive) {
        here = {};
      }
    }
  }
  for (const std::uint32_t node : ahead.wanted.to_vector()) {
    free[node] = {};
  }
  return free;
}

// Tasks that fit on each node; for a layout that says how many a node has: all of them, or none.
std::vector<std::uint64_t> rooms(const std::vector<JobNode>& job, const std::vector<Free>& free,
                                 const StepShareWish& wish) {
  const std::uint64_t per_task = std::max(wish.layout.cpus_per_task, 1U);
  std::vector<std::uint64_t> out;
  out.reserve(job.size());
  for (std::size_t i = 0; i < job.size(); ++i) {
    std::uint64_t room = free[i].cores.count() / per_task;
    if (wish.gpus_per_task > 0) {
      room = std::min<std::uint64_t>(room, free[i].gpus.count() / wish.gpus_per_task);
    }
    const std::uint64_t least = wish.layout.ntasks > 0            ? 1
                                : wish.layout.ntasks_per_node > 0 ? wish.layout.ntasks_per_node
                                                                  : std::max(job[i].tasks, 1U);
    out.push_back(room < least || free[i].gpus.count() < wish.gpus_per_node ? 0 : room);
  }
  return out;
}

// The layout on these nodes alone.
std::optional<StepPlan> plan_on(const std::vector<JobNode>& job, const std::vector<std::uint64_t>& room,
                                const StepShareWish& wish, const IndexSet& nodes) {
  StepWish layout = wish.layout;
  layout.cpus_per_task = std::max(layout.cpus_per_task, 1U);
  std::vector<JobNode> left = job;
  for (std::size_t i = 0; i < job.size(); ++i) {
    left[i].cpus = static_cast<std::uint32_t>(room[i] * layout.cpus_per_task);
    if (!nodes.contains(static_cast<std::uint32_t>(i)) && !contains(layout.exclude, job[i].name)) {
      layout.exclude.push_back(job[i].name);
    }
  }
  Result<StepPlan> plan = plan_step(left, layout);
  return plan ? std::optional(std::move(*plan)) : std::nullopt;
}

std::optional<StepPlan> plan_exact(const std::vector<JobNode>& job, const std::vector<Free>& free,
                                   const StepShareWish& wish) {
  const IndexSet allowed = candidates(job, wish.layout);
  const std::vector<std::uint64_t> room = rooms(job, free, wish);
  const bool all_nodes = wish.layout.ntasks == 0 && wish.layout.nodes == 0;
  IndexSet usable;
  for (const std::uint32_t i : allowed.to_vector()) {
    if (room[i] > 0) {
      usable.insert(i);
    } else if (all_nodes || contains(wish.layout.nodelist, job[i].name)) {
      return std::nullopt;  // a node that it must have
    }
  }
  std::optional<StepPlan> plan = plan_on(job, room, wish, usable);
  if (plan || wish.layout.nodes == 0) {
    return plan;
  }
  // As many nodes as asked for, those with most room: if these do not do, no others do.
  std::vector<std::uint32_t> order = usable.to_vector();
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    const bool a_named = contains(wish.layout.nodelist, job[a].name);
    const bool b_named = contains(wish.layout.nodelist, job[b].name);
    return a_named != b_named ? a_named : room[a] > room[b];
  });
  order.resize(std::min<std::size_t>(order.size(), std::max(wish.layout.nodes, wish.layout.nodes_max)));
  IndexSet most;
  for (const std::uint32_t i : order) {
    most.insert(i);
  }
  return plan_on(job, room, wish, most);
}

// GPUs on each node of the plan; nothing when there are too few.
std::optional<std::vector<std::uint32_t>> gpus_of(const std::vector<Free>& free, const StepPlan& plan,
                                                  const StepShareWish& wish) {
  std::vector<std::uint32_t> out;
  for (const StepPlan::Entry& entry : plan.nodes) {
    out.push_back(std::max(wish.gpus_per_node, wish.gpus_per_task * entry.tasks));
    if (out.back() > free[entry.job_node].gpus.count()) {
      return std::nullopt;
    }
  }
  if (wish.gpus_per_node > 0 || wish.gpus_per_task > 0) {
    return out;
  }
  for (std::uint32_t left = wish.gpus; left > 0;) {  // one to each node in turn
    const std::uint32_t before = left;
    for (std::size_t i = 0; i < out.size() && left > 0; ++i) {
      if (out[i] < free[plan.nodes[i].job_node].gpus.count()) {
        ++out[i];
        --left;
      }
    }
    if (left == before) {
      return std::nullopt;
    }
  }
  return out;
}

std::optional<StepGrant> grant_by_cores(const std::vector<JobNode>& job, const std::vector<Free>& free,
                                        const StepShareWish& wish) {
  std::optional<StepPlan> plan = plan_exact(job, free, wish);
  if (!plan) {
    return std::nullopt;
  }
  const std::optional<std::vector<std::uint32_t>> gpus = gpus_of(free, *plan, wish);
  if (!gpus) {
    return std::nullopt;
  }
  StepGrant out;
  for (std::size_t k = 0; k < plan->nodes.size(); ++k) {
    const StepPlan::Entry& entry = plan->nodes[k];
    const std::uint32_t cores = entry.tasks * std::max(wish.layout.cpus_per_task, 1U);
    out.nodes.push_back({.job_node = entry.job_node,
                         .cores = free[entry.job_node].cores.lowest(cores),
                         .gpus = free[entry.job_node].gpus.lowest((*gpus)[k])});
  }
  out.plan = std::move(*plan);
  return out;
}

std::optional<StepGrant> grant(const std::vector<JobNode>& job, const std::vector<Free>& free,
                               const StepShareWish& wish) {
  std::optional<StepGrant> out = grant_by_cores(job, free, wish);
  if (out || wish.gpus == 0) {
    return out;
  }
  // GPUs in total are not where the cores led: the nodes with most free GPUs alone, twice as many each time.
  std::vector<std::size_t> order(job.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return free[a].gpus.count() > free[b].gpus.count(); });
  for (std::size_t few = 1; few < job.size() && !out; few *= 2) {
    std::vector<Free> here(job.size());
    for (std::size_t i = 0; i < few; ++i) {
      here[order[i]] = free[order[i]];
    }
    out = grant_by_cores(job, here, wish);
  }
  return out;
}

// Why the step does not fit into the job even when it is alone there.
Error never(const std::vector<JobNode>& job, const StepShareWish& wish) {
  StepShareWish cores_only = wish;
  cores_only.gpus = cores_only.gpus_per_node = cores_only.gpus_per_task = 0;
  StepWish layout = wish.layout;
  layout.cpus_per_task = std::max(layout.cpus_per_task, 1U);
  if (!grant(job, all_of(job), cores_only)) {
    if (const Result<StepPlan> plan = plan_step(job, layout); !plan) {
      return plan.error();  // names the option
    }
    for (const std::uint32_t i : candidates(job, wish.layout).to_vector()) {
      const std::uint64_t need = std::uint64_t{std::max(job[i].tasks, 1U)} * layout.cpus_per_task;
      if (wish.layout.ntasks == 0 && need > job[i].cpus) {
        return make_error(ErrorCode::kRefused, "--exact: the job's own layout needs " + std::to_string(need) +
                                                   " cores on " + job[i].name + ", where it has " +
                                                   std::to_string(job[i].cpus) + ": ask for fewer tasks with --ntasks");
      }
    }
    return make_error(ErrorCode::kRefused, "--ntasks: the job's cores have no room for the step: ask for fewer tasks");
  }
  const std::string option = wish.gpus_per_task > 0   ? "--gpus-per-task=" + std::to_string(wish.gpus_per_task)
                             : wish.gpus_per_node > 0 ? "--gpus-per-node=" + std::to_string(wish.gpus_per_node)
                                                      : "--gpus=" + std::to_string(wish.gpus);
  std::uint64_t total = 0;
  for (const JobNode& node : job) {
    total += node.gpus;
  }
  return make_error(ErrorCode::kRefused, option + ": the job has " + std::to_string(total) + " GPUs on " +
                                             std::to_string(job.size()) +
                                             " nodes, too few for this step: ask for fewer");
}

// "step 42.1 holds 4 of 4 cores of n1"
std::string reason_of(std::uint64_t job_id, const std::vector<JobNode>& job, const std::vector<StepUse>& running,
                      const StepsAhead& ahead, StepSharing sharing, bool with_gpus, const IndexSet& nodes) {
  std::vector<std::string> holders;
  for (const StepUse& use : running) {
    for (const StepNodeUse& node : use.nodes) {
      if (!nodes.contains(static_cast<std::uint32_t>(node.job_node))) {
        continue;
      }
      const JobNode& there = job[node.job_node];
      const std::string step = "step " + std::to_string(job_id) + "." + std::to_string(use.step);
      if (sharing == StepSharing::kWhole) {
        if (use.sharing == StepSharing::kExclusive) holders.push_back(step + " has " + there.name + " for itself");
      } else if (use.sharing == StepSharing::kWhole && sharing == StepSharing::kExclusive) {
        holders.push_back(step + " has all of " + there.name);
      } else if (has_own(use.sharing)) {
        std::string text = step + " holds " + std::to_string(node.cores.count()) + " of " + std::to_string(there.cpus) +
                           " cores of " + there.name;
        if (with_gpus && !node.gpus.empty()) {
          text += " and " + std::to_string(node.gpus.count()) + " of " + std::to_string(there.gpus) + " GPUs";
        }
        holders.push_back(std::move(text));
      }
    }
  }
  for (const std::uint32_t i : (sharing == StepSharing::kWhole ? ahead.exclusive : ahead.wanted).to_vector()) {
    if (nodes.contains(i)) {
      holders.push_back("a step before it waits for " + job[i].name);
    }
  }
  std::string text;
  for (std::size_t i = 0; i < std::min(holders.size(), kHoldersNamed); ++i) {
    text += (i == 0 ? "" : ", ") + holders[i];
  }
  if (holders.size() > kHoldersNamed) {
    text += ", and " + std::to_string(holders.size() - kHoldersNamed) + " more";
  }
  return text;
}

}  // namespace

Result<StepDecision> share_step(std::uint64_t job_id, const std::vector<JobNode>& job,
                                const std::vector<StepUse>& running, const StepsAhead& ahead,
                                const StepShareWish& wish) {
  if (has_own(wish.sharing)) {
    if (!grant(job, all_of(job), wish)) {
      return never(job, wish);
    }
    if (auto granted = grant(job, free_now(job, running, ahead, wish.sharing), wish)) {
      return StepDecision(std::move(*granted));
    }
    const IndexSet nodes = candidates(job, wish.layout);
    const bool with_gpus = wish.gpus > 0 || wish.gpus_per_node > 0 || wish.gpus_per_task > 0;
    return StepDecision(
        StepDelay{.reason = reason_of(job_id, job, running, ahead, wish.sharing, with_gpus, nodes), .nodes = nodes});
  }
  MUSTER_ASSIGN(StepPlan plan, plan_step(job, wish.layout));
  StepGrant out;
  IndexSet nodes;
  for (const StepPlan::Entry& entry : plan.nodes) {
    out.nodes.push_back({.job_node = entry.job_node, .cores = {}, .gpus = {}});
    nodes.insert(static_cast<std::uint32_t>(entry.job_node));
  }
  out.plan = std::move(plan);
  if (wish.sharing == StepSharing::kWhole) {
    IndexSet kept_off = ahead.exclusive;
    for (const StepUse& use : running) {
      for (const StepNodeUse& node : use.nodes) {
        if (use.sharing == StepSharing::kExclusive) {
          kept_off.insert(static_cast<std::uint32_t>(node.job_node));
        }
      }
    }
    if (!(kept_off & nodes).empty()) {
      return StepDecision(
          StepDelay{.reason = reason_of(job_id, job, running, ahead, wish.sharing, false, nodes), .nodes = nodes});
    }
  }
  return StepDecision(std::move(out));
}

}  // namespace muster::noded
