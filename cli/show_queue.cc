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
    if (field == "state") {
      found->state = value.value();
    } else if (field == "priority") {
      const auto priority = parse_integer(value.value(), key, INT64_MIN, INT64_MAX);
      found->priority = priority.ok() ? *priority : 0;
    } else if (field == "max_time" || field == "default_time") {
      const auto time = parse_duration(value.value());
      (field == "max_time" ? found->max_time : found->default_time) = time.ok() ? *time : Duration{};
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
