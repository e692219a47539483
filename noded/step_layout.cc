#include "noded/step_layout.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "lib/base/text.h"
#include "lib/model/step_ranks.h"

namespace muster::noded {
namespace {

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string names_of(const std::vector<JobNode>& job) {
  std::vector<std::string> names;
  names.reserve(job.size());
  for (const JobNode& node : job) {
    names.push_back(node.name);
  }
  return fold_node_list(names);
}

Error refused(std::string message) {
  return make_error(ErrorCode::kRefused, std::move(message));
}

std::string plural(std::uint64_t n, std::string_view what) {
  return std::to_string(n) + " " + std::string(what) + (n == 1 ? "" : "s");
}

// Positions of the nodes that the step may use, in the job's order.
Result<std::vector<std::size_t>> candidates(const std::vector<JobNode>& job, const StepWish& wish) {
  for (const std::string& name : wish.nodelist) {
    if (std::none_of(job.begin(), job.end(), [&](const JobNode& n) { return n.name == name; })) {
      return refused("--nodelist: " + printable(name) + " is not a node of this job: it has " + names_of(job));
    }
    if (std::any_of(job.begin(), job.begin() + std::min<std::ptrdiff_t>(wish.relative, std::ssize(job)),
                    [&](const JobNode& n) { return n.name == name; })) {
      return refused("--nodelist: " + printable(name) + " is before the node that --relative=" +
                     std::to_string(wish.relative) + " begins at: name another");
    }
    if (contains(wish.exclude, name)) {
      return refused("--nodelist and --exclude both name " + printable(name) + ": name it in one of them");
    }
  }
  if (wish.relative >= job.size()) {
    return refused("--relative=" + std::to_string(wish.relative) + ": the job has " + plural(job.size(), "node") +
                   ", counted from 0: ask for at most " + std::to_string(job.size() - 1));
  }
  std::vector<std::size_t> allowed;
  for (std::size_t i = wish.relative; i < job.size(); ++i) {
    if (!contains(wish.exclude, job[i].name)) {
      allowed.push_back(i);
    }
  }
  if (allowed.empty()) {
    return refused("--exclude leaves no node: the job has " + names_of(job));
  }
  return allowed;
}

// Takes `count` of the allowed nodes: all that --nodelist names, then the first others.
std::vector<std::size_t> choose(const std::vector<JobNode>& job, const StepWish& wish,
                                const std::vector<std::size_t>& allowed, std::size_t count) {
  std::vector<std::size_t> chosen;
  for (const std::size_t i : allowed) {
    if (contains(wish.nodelist, job[i].name)) {
      chosen.push_back(i);
    }
  }
  for (const std::size_t i : allowed) {
    if (chosen.size() >= count) {
      break;
    }
    if (!contains(wish.nodelist, job[i].name)) {
      chosen.push_back(i);
    }
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

// Spreads n tasks over nodes with room for room[i] each, as evenly as possible; the first nodes get the odd ones.
// The sum of room is at least n.
std::vector<std::uint32_t> spread(const std::vector<std::uint64_t>& room, std::uint64_t n) {
  const auto filled = [&](std::uint64_t level) {
    std::uint64_t sum = 0;
    for (const std::uint64_t r : room) {
      sum += std::min(r, level);
    }
    return sum;
  };
  std::uint64_t low = 0;
  std::uint64_t high = n + 1;
  while (high - low > 1) {  // the largest level that takes no more than n tasks
    const std::uint64_t middle = low + (high - low) / 2;
    (filled(middle) <= n ? low : high) = middle;
  }
  std::uint64_t odd = n - filled(low);
  std::vector<std::uint32_t> tasks;
  tasks.reserve(room.size());
  for (const std::uint64_t r : room) {
    std::uint64_t here = std::min(r, low);
    if (odd > 0 && r > low) {
      ++here;
      --odd;
    }
    tasks.push_back(static_cast<std::uint32_t>(here));
  }
  return tasks;
}

// Gives the nodes `plane` of n tasks each in turn, as far as they have room. The sum of room is at least n.
std::vector<std::uint32_t> deal(const std::vector<std::uint64_t>& room, std::uint64_t n, std::uint32_t plane) {
  std::vector<std::uint32_t> tasks(room.size(), 0);
  while (n > 0) {
    for (std::size_t i = 0; i < room.size() && n > 0; ++i) {
      const std::uint64_t now = std::min({std::uint64_t{plane}, room[i] - tasks[i], n});
      tasks[i] += static_cast<std::uint32_t>(now);
      n -= now;
    }
  }
  return tasks;
}

Result<std::size_t> node_count(const std::vector<JobNode>& job, const StepWish& wish, std::size_t allowed,
                               std::optional<std::uint64_t> ntasks) {
  const std::size_t named = wish.nodelist.size();
  std::size_t count = allowed;
  if (wish.nodes > 0) {
    if (wish.nodes > allowed) {
      const bool excluded = allowed < job.size() - wish.relative;
      return refused("--nodes=" + std::to_string(wish.nodes) + ": this job has " + plural(allowed, "node") +
                     (wish.relative > 0 ? " from --relative=" + std::to_string(wish.relative) + " on" : std::string()) +
                     (excluded ? " that --exclude leaves" : "") + ": ask for at most " + std::to_string(allowed));
    }
    count = std::min<std::size_t>(std::max(wish.nodes, wish.nodes_max), allowed);
    if (count < named) {
      return refused("--nodes=" + std::to_string(count) + " is less than the " + plural(named, "node") +
                     " of --nodelist: name fewer");
    }
  } else if (named > 0) {
    count = named;
  }
  // A node without a task is no part of a step.
  if (ntasks) {
    if (*ntasks < named) {
      return refused("--ntasks=" + std::to_string(*ntasks) + " is less than the " + plural(named, "node") +
                     " of --nodelist: name fewer");
    }
    count = static_cast<std::size_t>(std::min<std::uint64_t>(count, *ntasks));
  }
  return count;
}

}  // namespace

Result<StepPlan> plan_step(const std::vector<JobNode>& job, const StepWish& given) {
  MUSTER_CHECK(!job.empty());
  StepWish wish = given;
  // A name given twice counts once.
  std::vector<std::string> distinct;
  for (std::string& name : wish.nodelist) {
    if (!contains(distinct, name)) {
      distinct.push_back(std::move(name));
    }
  }
  wish.nodelist = std::move(distinct);

  MUSTER_ASSIGN(const std::vector<std::size_t> allowed, candidates(job, wish));
  std::optional<std::uint64_t> ntasks;
  if (wish.ntasks > 0) {
    ntasks = wish.ntasks;
  }
  MUSTER_ASSIGN(const std::size_t count, node_count(job, wish, allowed.size(), ntasks));
  const std::vector<std::size_t> chosen = choose(job, wish, allowed, count);
  if (!ntasks && wish.ntasks_per_node > 0) {
    ntasks = std::uint64_t{wish.ntasks_per_node} * chosen.size();
  }
  if (ntasks.value_or(0) > kTasksPerStepMax) {
    return refused("--ntasks: a step has at most " + std::to_string(kTasksPerStepMax) + " tasks, " +
                   std::to_string(*ntasks) + " were asked for: ask for fewer");
  }

  std::vector<std::uint32_t> tasks;
  if (!ntasks) {
    for (const std::size_t i : chosen) {
      tasks.push_back(std::max<std::uint32_t>(job[i].tasks, 1));
    }
  } else {
    const std::uint64_t per_task = std::max<std::uint32_t>(wish.cpus_per_task, 1);
    std::vector<std::uint64_t> room;
    std::uint64_t total = 0;
    std::uint64_t total_by_cpus = 0;
    for (const std::size_t i : chosen) {
      // The job's own tasks always have room, also where it shares a core between them.
      const std::uint64_t by_cpus =
          std::max<std::uint64_t>(job[i].cpus / per_task, wish.cpus_per_task == 0 ? job[i].tasks : 0);
      room.push_back(wish.ntasks_per_node > 0 ? std::min<std::uint64_t>(by_cpus, wish.ntasks_per_node) : by_cpus);
      total += room.back();
      total_by_cpus += by_cpus;
    }
    if (*ntasks > total_by_cpus) {
      const bool by_node = wish.ntasks == 0;
      return refused((by_node ? "--ntasks-per-node=" + std::to_string(wish.ntasks_per_node)
                              : "--ntasks=" + std::to_string(wish.ntasks)) +
                     ": the job's cores on " + plural(chosen.size(), "node") + " have room for " +
                     plural(total_by_cpus, "task") +
                     (per_task > 1 ? " with --cpus-per-task=" + std::to_string(per_task) : std::string()) +
                     ": ask for fewer tasks, or submit the job with more");
    }
    if (*ntasks > total) {
      return refused("--ntasks=" + std::to_string(*ntasks) +
                     " does not fit --ntasks-per-node=" + std::to_string(wish.ntasks_per_node) + " on " +
                     plural(chosen.size(), "node") + ": change one of them");
    }
    tasks = wish.plane > 1 ? deal(room, *ntasks, wish.plane) : spread(room, *ntasks);
  }

  StepPlan plan;
  for (std::size_t k = 0; k < chosen.size(); ++k) {
    if (tasks[k] > 0) {
      plan.nodes.push_back({.job_node = chosen[k], .tasks = tasks[k], .ranks = {}});
      plan.ntasks += tasks[k];
    }
  }
  std::erase(tasks, 0U);
  std::vector<std::vector<std::uint32_t>> ranks = deal_ranks(tasks, wish.plane);
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    plan.nodes[i].ranks = std::move(ranks[i]);
  }
  return plan;
}

}  // namespace muster::noded
