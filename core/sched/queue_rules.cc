#include "core/sched/queue_rules.h"

#include <algorithm>
#include <vector>

#include "core/sched/request.h"
#include "lib/base/text.h"

namespace muster::sched {
namespace {

bool names(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

std::string joined(const std::vector<std::string>& list) {
  constexpr std::size_t kShownMax = 20;
  std::string out;
  for (std::size_t i = 0; i < std::min(list.size(), kShownMax); ++i) {
    out += (i == 0 ? "" : ", ") + list[i];
  }
  return out + (list.size() > kShownMax ? ", ..." : "");
}

void refuse_access(const QueuePolicy& q, const JobSpec& s, std::vector<QueueRefusal>& out) {
  const auto account = [&](const std::string& what) {
    const std::string given = s.account.empty() ? "a job without --account" : "--account " + printable(s.account);
    return QueueRefusal{"AccountNotAllowed", given + " is not admitted by queue " + q.name + ": " + what};
  };
  if (names(q.deny_accounts, s.account)) {
    out.push_back(account("use another account, or another queue"));
  } else if (!q.allow_accounts.empty() && !names(q.allow_accounts, s.account)) {
    out.push_back(account("use one of " + joined(q.allow_accounts)));
  }
  if (!q.allow_users.empty() && !names(q.allow_users, s.user)) {
    out.push_back({"PartitionConfig", "user " + printable(s.user) + " is not admitted by queue " + q.name +
                                          ": choose another one with --queue"});
  }
  if (!q.allow_qos.empty() && !names(q.allow_qos, s.qos)) {
    const std::string given = s.qos.empty() ? "a job without --qos" : "--qos " + printable(s.qos);
    out.push_back(
        {"QOSNotAllowed", given + " is not admitted by queue " + q.name + ": use one of " + joined(q.allow_qos)});
  }
}

void refuse_size(const QueuePolicy& q, const JobSpec& s, std::vector<QueueRefusal>& out) {
  const auto limit = [&q](const char* what, std::uint64_t max) {
    return " above the limit of queue " + q.name + ": at most " + std::to_string(max) + " " + what + " a job";
  };
  if (s.nodes_min < q.nodes_min) {
    out.push_back({"PartitionNodeLimit", "--nodes " + std::to_string(s.nodes_min) + " is below the limit of queue " +
                                             q.name + ": at least " + std::to_string(q.nodes_min) + " nodes a job"});
  }
  if (q.nodes_max != 0 && nodes_most(s) > q.nodes_max) {
    const std::string asked = s.nodes_min > q.nodes_max ? std::to_string(s.nodes_min) + " is"
                                                        : "up to " + std::to_string(nodes_most(s)) + " is";
    out.push_back({"PartitionNodeLimit", "--nodes " + asked + limit("nodes", q.nodes_max)});
  }
  if (q.cpus_max != 0 && cpus_of(s) > q.cpus_max) {
    out.push_back({"PartitionConfig", "--ntasks " + std::to_string(s.ntasks) + " with --cpus-per-task " +
                                          std::to_string(s.cpus_per_task) + " are " + std::to_string(cpus_of(s)) +
                                          " CPUs, which is" + limit("CPUs", q.cpus_max)});
  }
  if (q.gpus_max != 0 && gpus_most(s) > q.gpus_max) {
    const std::string option = s.gpus != 0 ? "--gpus" : s.gpus_per_node != 0 ? "--gpus-per-node" : "--gpus-per-task";
    out.push_back({"PartitionConfig", option + " comes to " + std::to_string(gpus_most(s)) + " GPUs, which is" +
                                          limit("GPUs", q.gpus_max)});
  }
}

}  // namespace

std::uint64_t nodes_most(const JobSpec& spec) {
  return std::max<std::uint64_t>(1, spec.nodes_max != 0 ? std::min(spec.nodes_max, spec.ntasks) : spec.ntasks);
}

std::uint64_t gpus_most(const JobSpec& spec) {
  return std::uint64_t{spec.gpus} + std::uint64_t{spec.gpus_per_node} * nodes_most(spec) +
         std::uint64_t{spec.gpus_per_task} * spec.ntasks;
}

std::vector<QueueRefusal> refusals_of(const QueuePolicy& queue, const JobSpec& spec) {
  std::vector<QueueRefusal> out;
  if (spec.time_limit > queue.time_max) {
    out.push_back({"PartitionTimeLimit", "--time " + format_duration(spec.time_limit) +
                                             " is above the limit of queue " + queue.name + ": ask for at most " +
                                             format_duration(queue.time_max)});
  }
  refuse_size(queue, spec, out);
  refuse_access(queue, spec, out);
  return out;
}

std::optional<QueueRefusal> refusal_of(const QueuePolicy& queue, const JobSpec& spec) {
  std::vector<QueueRefusal> all = refusals_of(queue, spec);
  return all.empty() ? std::nullopt : std::optional(std::move(all.front()));
}

}  // namespace muster::sched
