// muster show queue: what a queue allows, what waits and runs in it, and its nodes. The counts come from the list of
// jobs, in which all tasks of an array that wait are one entry.
#include <algorithm>

#include "cli/commands.h"
#include "cli/json.h"
#include "cli/query.h"
#include "cli/report.h"
#include "cli/table.h"
#include "cli/views.h"
#include "lib/base/text.h"
#include "lib/model/outcome.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr std::string_view kPrefix = "queue.";

void read_limit(const std::string& field, const std::string& value, QueueView& queue) {
  if (field == "min_nodes" || field == "max_nodes" || field == "max_cpus" || field == "max_gpus") {
    const auto limit = parse_count(value, field);
    if (limit.ok() && *limit != 0) queue.limits[field] = *limit;
  } else if (field == "default_mem_per_cpu") {
    const auto limit = parse_memory_mib(value);
    if (limit.ok() && *limit != 0) queue.limits["default_mem_per_cpu_mib"] = *limit;
  } else if (field.starts_with("allow_") || field.starts_with("deny_")) {
    if (value.empty()) return;
    for (const std::string_view name : split(value, ',')) queue.access[field].emplace_back(name);
  }
}

void read_number(const std::string& field, const std::string& value, QueueView& queue) {
  for (const auto& [key, to] : {std::pair("priority", &queue.priority), std::pair("factor", &queue.factor)}) {
    if (field != key) continue;
    const auto number = parse_integer(value, field, INT64_MIN, INT64_MAX);
    *to = number.ok() ? *number : 0;
  }
  for (const auto& [key, to] :
       {std::pair("max_time", &queue.max_time), std::pair("default_time", &queue.default_time),
        std::pair("preempt_grace", &queue.preempt_grace), std::pair("preempt_exempt", &queue.preempt_exempt)}) {
    if (field != key) continue;
    const auto time = parse_duration(value);
    *to = time.ok() ? *time : Duration{};
  }
}

// The queues that the configuration names: of "queue.debug.max_time" it is debug.
std::vector<QueueView> queues_of(const pb::ConfigReply& config) {
  std::vector<QueueView> queues;
  for (const pb::ConfigValue& value : config.values()) {
    const std::string& key = value.key();
    const std::size_t dot = key.rfind('.');
    if (!key.starts_with(kPrefix) || dot < kPrefix.size()) continue;
    const std::string name = key.substr(kPrefix.size(), dot - kPrefix.size());
    auto found = std::find_if(queues.begin(), queues.end(), [&](const QueueView& one) { return one.name == name; });
    if (found == queues.end()) {
      found = queues.insert(queues.end(), QueueView{});
      found->name = name;
    }
    const std::string field = key.substr(dot + 1);
    found->made_at_run_time = value.run_time_queue();
    if (value.overridden()) found->overridden.push_back(field);
    read_limit(field, value.value(), *found);
    if (field == "state") {
      found->state = value.value();
    } else if (field == "placement") {
      found->placement = value.value();
    } else if (field == "preempt_mode") {
      found->preempt_mode = value.value();
    } else {
      read_number(field, value.value(), *found);
    }
  }
  return queues;
}

void count_job(const pb::JobView& job, std::vector<QueueView>& queues) {
  for (QueueView& queue : queues) {
    if (queue.name != job.queue()) continue;
    if (job.state() == static_cast<std::uint32_t>(JobState::kPending)) {
      queue.jobs_pending += std::max<std::uint64_t>(job.array_waiting_count(), 1);
    } else {
      ++queue.jobs_active;
    }
  }
}

std::string time_text(Duration time) {
  return time.us <= 0 || time.is_infinite() ? "unlimited" : format_duration(time);
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string queue_text(const QueueView& queue) {
  std::string out;
  add_line(out, "Queue", queue.name);
  add_line(out, "State", queue.state);
  add_line(out, "Jobs",
           std::to_string(queue.jobs_pending) + " pending, " + std::to_string(queue.jobs_active) + " running");
  add_line(out, "Nodes",
           std::to_string(queue.nodes.size()) + (queue.nodes.empty() ? "" : ": " + join_nodes(queue.nodes)));
  add_line(out, "Priority", std::to_string(queue.priority));
  add_line(out, "Longest job", time_text(queue.max_time));
  add_line(out, "Default time", queue.default_time.us <= 0 ? "as of the cluster" : time_text(queue.default_time));
  if (queue.factor != 0) add_line(out, "Factor", std::to_string(queue.factor) + " points");
  add_line(out, "Placement", queue.placement);
  add_line(out, "Preemption",
           queue.preempt_mode +
               (queue.preempt_grace.us > 0 ? ", with a grace of " + format_duration(queue.preempt_grace) : "") +
               (queue.preempt_exempt.us > 0 ? ", not in the first " + format_duration(queue.preempt_exempt) : ""));
  for (const auto& [key, limit] : queue.limits) add_line(out, key, std::to_string(limit));
  for (const auto& [key, names] : queue.access) add_line(out, key, joined(names));
  add_line(out, "Run time",
           std::string(queue.made_at_run_time ? "made at run time" : "") +
               (queue.made_at_run_time && !queue.overridden.empty() ? "; " : "") +
               (queue.overridden.empty() ? "" : "changed: " + joined(queue.overridden)));
  return out;
}

}  // namespace

int show_queues(Client& client, const Parsed& parsed) {
  pb::Request config_request;
  config_request.mutable_config();
  const auto config = client.call(config_request);
  if (!config.ok()) return report_error(config.error());
  std::vector<QueueView> all = queues_of(config->config());
  std::vector<QueueView> queues;
  if (parsed.operands.size() < 2) queues = std::move(all);
  for (std::size_t i = 1; i < parsed.operands.size(); ++i) {
    const std::string& name = parsed.operands[i];
    const auto found = std::find_if(all.begin(), all.end(), [&](const QueueView& one) { return one.name == name; });
    if (found == all.end()) {
      error_line("queue " + name + ": no such queue: see `muster show queue`");
      return kExitRefused;
    }
    queues.push_back(*found);
  }
  pb::Request request;
  JobSelector selector;
  if (queues.size() == 1) selector.queue = queues.front().name;
  wire::to_pb(selector, *request.mutable_jobs()->mutable_jobs());
  std::vector<pb::JobView> jobs;
  std::vector<std::string> notes;
  if (auto status = fetch_jobs(client, request, jobs, notes); !status.ok()) return report_error(status.error());
  for (const pb::JobView& job : jobs) count_job(job, queues);
  const auto nodes = fetch_nodes(client, {});
  if (!nodes.ok()) return report_error(nodes.error());
  for (const pb::NodeView& node : *nodes) {
    for (QueueView& queue : queues) {
      if (std::find(node.queues().begin(), node.queues().end(), queue.name) != node.queues().end())
        queue.nodes.push_back(node.name());
    }
  }
  if (parsed.has(OptionId::kJson)) {
    print(queues_json(queues));
    return kExitOk;
  }
  std::string text;
  for (const QueueView& queue : queues) text += (text.empty() ? "" : "\n") + queue_text(queue);
  print(text);
  return kExitOk;
}

}  // namespace muster::cli
