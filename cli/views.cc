// Commands that only look: queue, history, show, why, nodes, ping.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "cli/bound_text.h"
#include "cli/commands.h"
#include "cli/job_ids.h"
#include "cli/json.h"
#include "cli/query.h"
#include "cli/report.h"
#include "cli/table.h"
#include "cli/views.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/model/node_topology_text.h"
#include "lib/model/outcome.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

std::string_view state_text(std::uint32_t state) {
  if (state > static_cast<std::uint32_t>(JobState::kDeadline)) return "unknown";
  return to_string(static_cast<JobState>(state));
}

std::vector<std::string> list_of(const google::protobuf::RepeatedPtrField<std::string>& items) {
  return {items.begin(), items.end()};
}

std::string nodes_text(const pb::JobView& job) {
  return fold_node_list(list_of(job.nodes()));
}

std::int64_t elapsed_us(const pb::JobView& job, std::int64_t now_us) {
  if (job.start_time_us() == 0) return -1;
  const std::int64_t end = job.end_time_us() != 0 ? job.end_time_us() : now_us;
  return std::max<std::int64_t>(0, end - job.start_time_us());
}

std::string limit_text(std::int64_t us) {
  return us <= 0 ? "-" : format_duration(Duration::from_us(us));
}

std::string exit_text(const pb::JobView& job) {
  if (!job.has_exit()) return "-";
  if (job.exit_signal() != 0) return "signal " + std::to_string(job.exit_signal());
  return std::to_string(job.exit_code());
}

std::string reason_text(const pb::JobView& job) {
  if (job.reason_detail().empty()) return job.reason();
  if (job.reason().empty()) return job.reason_detail();
  return job.reason() + ": " + job.reason_detail();
}

Table queue_table(const std::vector<pb::JobView>& jobs) {
  Table table({{"JOB", true, 16},
               {"NAME", false, 8},
               {"USER", false, 8},
               {"QUEUE", false, 5, 2},
               {"STATE"},
               {"TIME", true},
               {"LIMIT", true, 0, 3},
               {"NODES", true, 0, 1},
               {"TASKS", true, 0, 4},
               {"NODELIST (REASON)", false, 12}});
  const std::int64_t now_us = io::wall_now().us;
  for (const pb::JobView& job : jobs) {
    const bool has_nodes = job.nodes_size() != 0;
    // The word alone; the sentence behind it is what `muster why` is for.
    const std::string reason = job.reason().empty() ? job.reason_detail() : job.reason();
    std::string where = has_nodes ? nodes_text(job) : "";
    if (!has_nodes && !reason.empty()) where = "(" + reason + ")";
    const std::int64_t elapsed = elapsed_us(job, now_us);
    table.add({display_id(job), job.name(), job.user(), job.queue(), std::string(state_text(job.state())),
               elapsed < 0 ? "-" : format_span(elapsed), limit_text(job.time_limit_us()),
               std::to_string(job.node_count()), std::to_string(job.task_count()), where});
  }
  return table;
}

Result<pb::Request> queue_request(const Parsed& parsed) {
  JobSelector selector;
  for (const Given& given : parsed.given) {
    if (given.option->id != OptionId::kJobs) continue;
    MUSTER_ASSIGN(std::vector<JobSelector::Item> items, parse_job_list(*given.value));
    std::move(items.begin(), items.end(), std::back_inserter(selector.items));
  }
  selector.user = parsed.has(OptionId::kMe) ? caller_name() : parsed.value(OptionId::kUser);
  selector.queue = parsed.value(OptionId::kQueue);
  selector.name = parsed.value(OptionId::kName);
  if (const Given* states = parsed.last(OptionId::kStates)) {
    MUSTER_ASSIGN(selector.states, parse_states(*states->value, states->source));
  }
  pb::Request request;
  wire::to_pb(selector, *request.mutable_jobs()->mutable_jobs());
  return request;
}

volatile sig_atomic_t g_interrupted = 0;
void on_interrupt(int) {
  g_interrupted = 1;
}

int watch_queue(Client& client, pb::Request& request, const Parsed& parsed) {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  Duration pause = Duration::from_s(2);
  if (const Given* watch = parsed.last(OptionId::kWatch); watch->value) {
    const auto seconds = parse_count(*watch->value, watch->source, {1, 86'400});
    pause = seconds.ok() ? Duration::from_s(static_cast<std::int64_t>(*seconds)) : *parse_duration(*watch->value);
    pause = std::max(pause, Duration::from_ms(200));  // clients that poll must not become a load
  }
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  while (g_interrupted == 0) {
    std::vector<pb::JobView> jobs;
    std::vector<std::string> notes;
    if (auto status = fetch_jobs(client, request, jobs, notes); !status.ok()) return report_error(status.error());
    std::string text = terminal ? "\x1b[H\x1b[J" : "";
    text += parsed.has(OptionId::kJson) ? jobs_json(jobs, false) : queue_table(jobs).text(output_width());
    if (!print(text)) return kExitOk;
    if (g_interrupted == 0) usleep(static_cast<useconds_t>(pause.us));
  }
  return kExitOk;
}

// The script and its arguments, as far as somebody reads them: a job may have megabytes of them.
std::string command_text(const pb::JobView& job) {
  constexpr std::size_t kShownMax = 1'000;
  std::string text = job.script_name();
  for (const std::string& argument : job.args()) {
    if (text.size() > kShownMax) break;
    text += " " + argument.substr(0, kShownMax);
  }
  if (text.size() <= kShownMax) return text;
  std::size_t end = kShownMax;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // not inside of a character
  text.resize(end);
  return text + "... (" + std::to_string(job.args_size()) + " arguments: --json shows them whole)";
}

std::string size_text(const pb::JobView& job) {
  std::string text = std::to_string(job.node_count()) + " nodes, " + std::to_string(job.task_count()) + " tasks, " +
                     std::to_string(job.cpus()) + " CPUs";
  if (job.gpus() != 0) text += ", " + std::to_string(job.gpus()) + " GPUs";
  if (job.mem_mib() != 0) text += ", " + format_memory_mib(job.mem_mib()) + " memory";
  return text;
}

std::string bytes_text(std::uint64_t bytes) {
  return format_memory_mib((bytes + (1U << 19U)) >> 20U);
}

// "93% of 4 CPUs": of the time that it had them. Hardware threads share a core, so it can be more than all.
std::string cpu_use_text(const pb::JobView& job) {
  const std::int64_t had_us = std::max<std::int64_t>(0, elapsed_us(job, job.end_time_us())) / 1'000;
  if (job.usage().cpu_us() == 0 || had_us == 0 || job.cpus() == 0) return "-";
  const double share =
      static_cast<double>(job.usage().cpu_us()) / 10.0 / static_cast<double>(had_us) / static_cast<double>(job.cpus());
  return std::to_string(static_cast<std::int64_t>(share + 0.5)) + "% of " + std::to_string(job.cpus());
}

// "1500M/4G": the highest peak of a node against what the job had there.
std::string memory_use_text(const pb::JobView& job) {
  const std::uint64_t peak = job.usage().memory_peak_bytes();
  if (peak == 0) return "-";
  const std::uint64_t limit = job.usage().memory_limit_bytes();
  const std::uint64_t had_mib =
      limit != 0 ? limit >> 20U : job.mem_mib() / std::max<std::uint32_t>(1, job.node_count());
  return bytes_text(peak) + "/" + format_memory_mib(had_mib);
}

// Hundredths below a minute.
std::string seconds_text(std::int64_t us) {
  if (us >= 60'000'000) return format_duration(Duration::from_us(us));
  const std::int64_t hundredths = us / 10'000;
  return std::to_string(hundredths / 100) + "." + (hundredths % 100 < 10 ? "0" : "") +
         std::to_string(hundredths % 100) + " s";
}

void add_usage(std::string& out, const pb::JobView& job) {
  const pb::AttemptUsage& usage = job.usage();
  if (usage.cpu_us() != 0) add_line(out, "CPU time", seconds_text(usage.cpu_us()) + ", " + cpu_use_text(job) + " CPUs");
  if (usage.memory_peak_bytes() != 0)
    add_line(out, "Memory used",
             memory_use_text(job) + (usage.memory_limit_bytes() != 0 ? ", its limit" : "") +
                 (job.node_count() > 1 ? ", on the node with the highest peak" : ""));
  if ((usage.read_bytes() | usage.written_bytes()) >> 20U != 0)
    add_line(out, "I/O", bytes_text(usage.read_bytes()) + " read, " + bytes_text(usage.written_bytes()) + " written");
}

std::string job_text(const pb::JobView& job) {
  std::string out;
  add_line(out, "Job", display_id(job) + (job.name().empty() ? "" : "  " + job.name()));
  if (job.array() != 0 && job.array() != job.id()) add_line(out, "Raw id", std::to_string(job.id()));
  add_line(out, "User", job.user() + " (" + std::to_string(job.uid()) + ")");
  add_line(out, "Queue", job.queue());
  add_line(out, "State", std::string(state_text(job.state())) + (job.held() ? " (held)" : ""));
  add_line(out, "Reason", reason_text(job));
  add_line(out, "Dependency", job.dependency());
  add_line(out, "Constraint", job.constraint());
  add_line(out, "Switches", job.switches());
  add_line(out, "Segment", job.segment() != 0 ? std::to_string(job.segment()) + " nodes" : "");
  add_line(out, "Locality", job.locality());
  add_line(out, "CPU binding", printable(job.cpu_bind()));
  add_line(out, "GPU binding", printable(job.gpu_bind()));
  add_line(out, "Distribution", printable(job.distribution()));
  add_line(out, "Threads", job.threads_per_core() != 0 ? std::to_string(job.threads_per_core()) + " of each core" : "");
  add_line(out, "Reservation", printable(job.reservation()));
  std::string licenses;
  for (const pb::LicenseCount& one : job.licenses())
    licenses += (licenses.empty() ? "" : ",") + one.name() + ":" + std::to_string(one.count());
  add_line(out, "Licences", printable(licenses));
  add_line(out, "Exit", job.has_exit() ? exit_text(job) : "");
  add_line(out, "Attempt", job.attempt() != 0 ? std::to_string(job.attempt()) : "");
  add_line(out, "Last end", job.last_end());
  if (job.avoid_size() != 0) {
    add_line(out, "Avoids", fold_node_list({job.avoid().begin(), job.avoid().end()}));
  }
  if (job.suspended_us() != 0) add_line(out, "Suspended", format_span(job.suspended_us()));
  add_line(out, "Priority", std::to_string(job.priority()));
  add_line(out, "Size", size_text(job));
  add_line(out, "Time limit", limit_text(job.time_limit_us()));
  if (job.time_min_us() != 0) add_line(out, "Shortest limit", limit_text(job.time_min_us()));
  if (job.deadline_us() != 0) add_line(out, "Deadline", format_time(job.deadline_us()));
  if (job.begin_us() != 0) add_line(out, "Not before", format_time(job.begin_us()));
  add_line(out, "Signal", job.signal());
  add_line(out, "Submitted",
           format_time(job.submit_time_us()) + (job.submit_host().empty() ? "" : " on " + job.submit_host()));
  if (job.start_time_us() != 0) add_line(out, "Started", format_time(job.start_time_us()));
  if (job.end_time_us() != 0) add_line(out, "Ended", format_time(job.end_time_us()));
  if (const std::int64_t elapsed = elapsed_us(job, io::wall_now().us); elapsed >= 0)
    add_line(out, "Elapsed", format_span(elapsed));
  add_usage(out, job);
  add_line(out, "Nodes", nodes_text(job));
  for (const pb::NodePlacement& placement : job.placement()) {
    std::string line = placement.node() + ": " + std::to_string(placement.tasks()) + " tasks, cpus " +
                       placement.cpus() + ", numa " + placement.numa();
    if (placement.gpus_size() != 0) {
      line += ", gpus";
      for (const pb::Gpu& gpu : placement.gpus())
        line += " " + std::to_string(gpu.vendor_index()) + "=" + gpu.pci_address();
    }
    line += ", memory " + format_memory_mib(placement.mem_mib());
    if (!placement.phase().empty()) line += ", " + placement.phase();
    add_line(out, "Placement", line);
    add_line(out, "Bound", proof_text(placement));
  }
  add_line(out, "Script", command_text(job));
  add_line(out, "Directory", job.work_dir());
  add_line(out, "Output", job.stdout_path());
  add_line(out, "Error", job.stderr_path());
  add_line(out, "Input", job.stdin_path());
  add_line(out, "Account", job.account());
  add_line(out, "QOS", job.qos());
  add_line(out, "Comment", job.comment());
  return out;
}

std::string node_text(const pb::NodeView& node) {
  std::string out;
  add_line(out, "Node", node.name());
  add_line(out, "State", node.state());
  add_line(out, "Reason", node.reason());
  add_line(out, "Since", format_time(node.since_us()));
  add_line(out, "Drained by", node.drained_by());
  for (const pb::HealthProblem& problem : node.checks()) {
    add_line(out, "Check", problem.check() + " fails: " + problem.text());
  }
  for (const pb::Blame& blame : node.blames()) {
    add_line(
        out, "Failed",
        "job " + std::to_string(blame.attempt().job()) + " (" + blame.text() + ") at " + format_time(blame.at_us()));
  }
  if (node.rests_until_us() != 0) add_line(out, "Rests until", format_time(node.rests_until_us()));
  add_line(out, "CPUs",
           std::to_string(node.cpus_allocated()) + " of " + std::to_string(node.cpus()) + " in use, " +
               std::to_string(node.packages()) + " packages, " + std::to_string(node.numa_nodes()) + " NUMA nodes, " +
               std::to_string(node.threads()) + " hardware threads");
  add_line(out, "GPUs", std::to_string(node.gpus_allocated()) + " of " + std::to_string(node.gpus()) + " in use");
  for (const pb::Gpu& gpu : node.gpu_list()) {
    add_line(out, "GPU",
             std::to_string(gpu.vendor_index()) + " " + gpu.pci_address() + " NUMA " + std::to_string(gpu.numa()) +
                 " " + gpu.model() + " " + gpu.uuid());
  }
  add_line(out, "Memory",
           format_memory_mib(node.mem_allocated_mib()) + " of " + format_memory_mib(node.mem_mib()) + " in use");
  add_line(out, "Queues", [&] {
    std::string text;
    for (const std::string& queue : node.queues()) text += (text.empty() ? "" : ", ") + queue;
    return text;
  }());
  std::string features;
  for (const std::string& feature : node.features()) features += (features.empty() ? "" : ", ") + feature;
  add_line(out, "Features", features);
  add_line(out, "Network", node.topology_address());
  std::string jobs;
  for (const std::uint64_t job : node.jobs()) jobs += (jobs.empty() ? "" : ", ") + std::to_string(job);
  add_line(out, "Jobs", jobs);
  add_line(out, "Endpoint", node.endpoint());
  add_line(out, "Boot", node.boot_id());
  if (node.pretended()) add_line(out, "Hardware", "pretended");
  for (const pb::EnforcedBy& one : node.enforcement()) add_line(out, "Enforced", one.function() + ": " + one.by());
  return out;
}

int show_jobs(Client& client, const Parsed& parsed) {
  if (parsed.operands.size() < 2) return usage_error("show job needs an id: muster show job 42");
  std::vector<pb::JobView> all;
  int status = kExitOk;
  for (std::size_t i = 1; i < parsed.operands.size(); ++i) {
    const auto ref = parse_job_ref(parsed.operands[i]);
    if (!ref.ok()) return usage_error(ref.error());
    auto jobs = find_job(client, ref->item, true);
    if (!jobs.ok()) {
      status = report_error(jobs.error());
      if (status != kExitRefused) return status;
      continue;
    }
    std::move(jobs->begin(), jobs->end(), std::back_inserter(all));
  }
  if (all.empty()) return status;
  std::string text;
  if (parsed.has(OptionId::kJson)) {
    text = jobs_json(all, true);
  } else {
    for (const pb::JobView& job : all) text += (text.empty() ? "" : "\n") + job_text(job);
  }
  print(text);
  return status;
}

std::string node_topology_text(const pb::NodeView& node) {
  const std::string name = "Node " + node.name() + "\n";
  if (!node.has_topology()) {
    return name + "its topology is not known: its daemon is of an earlier release, or the controller is\n";
  }
  const auto topology = wire::from_pb(node.topology());
  return name + (topology.ok() ? show_topology(*topology) : topology.error().message + "\n");
}

Result<std::vector<std::string>> node_operands(const Parsed& parsed, std::size_t from) {
  std::vector<std::string> names;
  for (std::size_t i = from; i < parsed.operands.size(); ++i) {
    MUSTER_ASSIGN(const std::vector<std::string> some, expand_node_list(parsed.operands[i]));
    names.insert(names.end(), some.begin(), some.end());
  }
  return names;
}

int show_nodes(Client& client, const Parsed& parsed) {
  const auto names = node_operands(parsed, 1);
  if (!names.ok()) return usage_error(names.error());
  const bool with_topology = parsed.has(OptionId::kShowTopology);
  const auto nodes = fetch_nodes(client, *names, with_topology);
  if (!nodes.ok()) return report_error(nodes.error());
  std::string text;
  if (parsed.has(OptionId::kJson)) {
    text = nodes_json(*nodes);
  } else {
    for (const pb::NodeView& node : *nodes) {
      text += (text.empty() ? "" : "\n") + (with_topology ? node_topology_text(node) : node_text(node));
    }
  }
  print(text);
  return kExitOk;
}

// The controller's configuration: all of it, or the named keys and those below them.
int show_config(Client& client, const Parsed& parsed) {
  pb::Request request;
  request.mutable_config();
  auto reply = client.call(request);
  if (!reply.ok()) return report_error(reply.error());
  pb::ConfigReply shown;
  for (const pb::ConfigValue& value : reply->config().values()) {
    const bool wanted = parsed.operands.size() == 1 ||
                        std::any_of(parsed.operands.begin() + 1, parsed.operands.end(), [&](const std::string& name) {
                          return value.key() == name || value.key().starts_with(name + ".");
                        });
    if (wanted) *shown.add_values() = value;
  }
  if (shown.values_size() == 0 && parsed.operands.size() > 1) {
    error_line("key " + parsed.operands[1] + ": no such key: see `muster show config`");
    return kExitRefused;
  }
  if (parsed.has(OptionId::kJson)) {
    print(config_json(shown));
    return kExitOk;
  }
  Table table({{"KEY"}, {"VALUE", false, 20}, {"FROM", false, 12}});
  for (const pb::ConfigValue& value : shown.values()) table.add({value.key(), value.value(), value.source()});
  print(table.text(output_width()));
  return kExitOk;
}

}  // namespace

void add_line(std::string& out, std::string_view key, const std::string& value) {
  constexpr std::size_t kColumn = 16;
  if (value.empty()) return;
  out += std::string(key) + ":" + std::string(key.size() + 1 < kColumn ? kColumn - 1 - key.size() : 1, ' ') +
         folded(printable(value), output_width(), kColumn) + "\n";
}

std::string display_id(const pb::JobView& job) {
  const std::string array = std::to_string(job.array());
  if (job.has_array_task()) return array + "_" + std::to_string(job.array_task());
  if (!job.array_waiting().empty())
    return std::to_string(job.array() != 0 ? job.array() : job.id()) + "_[" + job.array_waiting() + "]";
  return std::to_string(job.id());
}

int command_queue(const Parsed& parsed) {
  if (!parsed.operands.empty())
    return usage_error("\"" + parsed.operands.front() +
                       "\" is no option: name jobs with --jobs ID, users with --user NAME");
  auto request = queue_request(parsed);
  if (!request.ok()) return usage_error(request.error());
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  if (parsed.has(OptionId::kWatch)) return watch_queue(**client, *request, parsed);
  std::vector<pb::JobView> jobs;
  std::vector<std::string> notes;
  if (auto status = fetch_jobs(**client, *request, jobs, notes); !status.ok()) return report_error(status.error());
  if (parsed.has(OptionId::kJson)) {
    print(jobs_json(jobs, false));
  } else {
    print(queue_table(jobs).text(output_width(), !parsed.has(OptionId::kNoHeader)));
  }
  // Ids that have ended are no error for whoever polls; notes are about others.
  for (const std::string& note : notes) error_line(note);
  return kExitOk;
}

int command_history(const Parsed& parsed) {
  if (!parsed.operands.empty())
    return usage_error("\"" + parsed.operands.front() + "\" is no option: name jobs with --jobs ID");
  pb::Request request;
  pb::HistoryQuery& query = *request.mutable_history();
  JobSelector selector;
  const Instant now = io::wall_now();
  for (const Given& given : parsed.given) {
    if (given.option->id == OptionId::kJobs) {
      auto items = parse_job_list(*given.value);
      if (!items.ok()) return usage_error(items.error());
      std::move(items->begin(), items->end(), std::back_inserter(selector.items));
    }
    if (given.option->id == OptionId::kSince || given.option->id == OptionId::kUntil) {
      auto time = parse_time(*given.value, given.source, now);
      if (!time.ok()) return usage_error(time.error());
      // A time of day without a date lies in the past here, while parse_time means the next one.
      const bool bare = given.value->find('-') == std::string::npos && given.value->find(':') != std::string::npos;
      if (bare && *time > now) *time = *time - Duration::from_s(86'400);
      if (given.option->id == OptionId::kSince) {
        query.set_since_us(time->us);
      } else {
        query.set_until_us(time->us);
      }
    }
  }
  if (const Given* states = parsed.last(OptionId::kStates)) {
    const auto list = parse_states(*states->value, states->source);
    if (!list.ok()) return usage_error(list.error());
    for (const JobState state : *list) query.add_states(static_cast<std::uint32_t>(state));
  }
  if (const Given* limit = parsed.last(OptionId::kLimit))
    query.set_limit(parse_count(*limit->value, limit->source).value());
  query.set_user(parsed.has(OptionId::kMe) ? caller_name() : parsed.value(OptionId::kUser));
  pb::JobSelector items;
  wire::to_pb(selector, items);
  query.mutable_items()->Swap(items.mutable_items());

  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  std::vector<pb::JobView> jobs;
  std::vector<std::string> notes;
  if (auto status = fetch_jobs(**client, request, jobs, notes); !status.ok()) return report_error(status.error());
  if (parsed.has(OptionId::kJson)) {
    print(jobs_json(jobs, false));
  } else {
    Table table({{"JOB", true, 16},
                 {"NAME", false, 8},
                 {"USER", false, 8, 1},
                 {"QUEUE", false, 5, 3},
                 {"STATE"},
                 {"EXIT", true},
                 {"SUBMITTED", false, 0, 4},
                 {"STARTED", false, 0, 2},
                 {"ELAPSED", true},
                 {"CPU", true, 0, 5},
                 {"MEMORY", true, 0, 5},
                 {"NODELIST", false, 8},
                 {"REASON", false, 8}});
    for (const pb::JobView& job : jobs) {
      const std::int64_t elapsed = elapsed_us(job, job.end_time_us());
      table.add({display_id(job), job.name(), job.user(), job.queue(), std::string(state_text(job.state())),
                 exit_text(job), format_time(job.submit_time_us()), format_time(job.start_time_us()),
                 elapsed < 0 ? "-" : format_span(elapsed), cpu_use_text(job), memory_use_text(job), nodes_text(job),
                 reason_text(job)});
    }
    print(table.text(output_width(), !parsed.has(OptionId::kNoHeader)));
  }
  for (const std::string& note : notes) error_line(note);
  return kExitOk;
}

int command_show(const Parsed& parsed) {
  constexpr std::string_view kKinds = "job, node, queue, reservation, license, config or priority";
  if (parsed.operands.empty()) return usage_error("show needs a kind of thing: " + std::string(kKinds));
  const std::string& kind = parsed.operands.front();
  constexpr std::string_view kKnown[] = {"job", "node", "queue", "reservation", "license", "config", "priority"};
  if (std::find(std::begin(kKnown), std::end(kKnown), kind) == std::end(kKnown))
    return usage_error("show " + kind + ": no such kind of thing: use " + std::string(kKinds));
  if (kind == "job" && parsed.operands.size() < 2) return usage_error("show job needs an id: muster show job 42");
  for (const OptionId id : {OptionId::kUser, OptionId::kQueue}) {
    if (kind != "priority" && parsed.has(id))
      return usage_error(parsed.last(id)->source + " goes with show priority only: name what you want to see");
  }
  if (kind != "node" && parsed.has(OptionId::kShowTopology))
    return usage_error("--topology goes with show node only: muster show node NAME --topology");
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  if (kind == "priority") return show_priorities(**client, parsed);
  if (kind == "job") return show_jobs(**client, parsed);
  if (kind == "node") return show_nodes(**client, parsed);
  if (kind == "queue") return show_queues(**client, parsed);
  if (kind == "reservation") return show_reservations(**client, parsed);
  if (kind == "license") return show_licenses(**client, parsed);
  return show_config(**client, parsed);
}

namespace {

constexpr int kAheadShownMax = 10;

// Everything that holds the job back, one line each, then when it starts and what would start it sooner.
std::string explanation_text(const pb::JobView& job) {
  if (!job.has_explanation()) return "";
  const pb::Explanation& why = job.explanation();
  std::string text;
  for (const pb::Blocker& blocker : why.blockers())
    text += "  " + blocker.word() + ": " + printable(blocker.text()) + "\n";
  if (why.blockers_size() == 0) text += "  nothing holds it back: it starts in the next planning pass\n";
  if (why.ahead_size() != 0) {
    text += "Jobs before it with a planned start:";
    for (int i = 0; i < std::min(why.ahead_size(), kAheadShownMax); ++i) text += " " + std::to_string(why.ahead(i));
    if (why.ahead_size() > kAheadShownMax)
      text += " and " + std::to_string(why.ahead_size() - kAheadShownMax) + " more";
    text += "\n";
  }
  if (job.estimated_start_us() != 0) text += "Starts at the latest: " + format_time(job.estimated_start_us()) + "\n";
  for (const pb::SmallerRequest& change : why.changes())
    text += std::string(change.value().empty() ? "Without " : "With ") + change.option() +
            (change.value().empty() ? "" : " " + change.value()) + ": " +
            (change.start_us() == 0 ? "now" : format_time(change.start_us())) + "\n";
  return text;
}

}  // namespace

int command_why(const Parsed& parsed) {
  if (parsed.operands.size() != 1) return usage_error("why needs one job: muster why JOB");
  const auto ref = parse_job_ref(parsed.operands.front());
  if (!ref.ok()) return usage_error(ref.error());
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  const auto jobs = find_job(**client, ref->item, false, true);
  if (!jobs.ok()) return report_error(jobs.error());
  // Of an array the part that waits is what the question is about.
  const auto waiting = std::find_if(jobs->begin(), jobs->end(), [](const pb::JobView& job) {
    return job.state() == static_cast<std::uint32_t>(JobState::kPending);
  });
  const pb::JobView& job = waiting != jobs->end() ? *waiting : jobs->front();
  if (parsed.has(OptionId::kJson)) {
    print(why_json(job));
    return kExitOk;
  }
  std::string text = "Job " + display_id(job) + " is " + std::string(state_text(job.state()));
  if (!job.has_explanation() && (!job.reason().empty() || !job.reason_detail().empty()))
    text += ": " + printable(reason_text(job));
  if (job.has_exit() && (job.exit_code() != 0 || job.exit_signal() != 0))
    text += job.exit_signal() != 0 ? " (signal " + std::to_string(job.exit_signal()) + ")"
                                   : " (exit code " + std::to_string(job.exit_code()) + ")";
  if (job.nodes_size() != 0) text += ", on " + join_nodes(list_of(job.nodes()));
  print(text + "\n" + explanation_text(job));
  return kExitOk;
}

int command_nodes(const Parsed& parsed) {
  const auto names = node_operands(parsed, 0);
  if (!names.ok()) return usage_error(names.error());
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  const auto nodes = fetch_nodes(**client, *names);
  if (!nodes.ok()) return report_error(nodes.error());
  if (parsed.has(OptionId::kJson)) {
    print(nodes_json(*nodes));
    return kExitOk;
  }
  // Features only where there are some.
  const bool with_features =
      std::any_of(nodes->begin(), nodes->end(), [](const pb::NodeView& node) { return node.features_size() != 0; });
  std::vector<Column> columns = {{"NODE", false, 16},    {"STATE"},          {"CPUS", true},      {"GPUS", true},
                                 {"MEMORY", true, 0, 1}, {"JOBS", false, 8}, {"REASON", false, 8}};
  if (with_features) columns.push_back({"FEATURES", false, 8, 2});
  Table table(columns);
  const auto used = [](const std::string& part, const std::string& whole) { return part + "/" + whole; };
  for (const pb::NodeView& node : *nodes) {
    std::string jobs;
    for (const std::uint64_t job : node.jobs()) jobs += (jobs.empty() ? "" : ",") + std::to_string(job);
    std::vector<std::string> row = {
        node.name(),
        node.state(),
        used(std::to_string(node.cpus_allocated()), std::to_string(node.cpus())),
        used(std::to_string(node.gpus_allocated()), std::to_string(node.gpus())),
        used(format_memory_mib(node.mem_allocated_mib()), format_memory_mib(node.mem_mib())),
        jobs,
        node.reason()};
    if (with_features) {
      row.emplace_back();
      for (const std::string& feature : node.features()) row.back() += (row.back().empty() ? "" : ",") + feature;
    }
    table.add(std::move(row));
  }
  print(table.text(output_width(), !parsed.has(OptionId::kNoHeader)));
  return kExitOk;
}

int command_ping(const Parsed& parsed) {
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  pb::Request request;
  request.mutable_ping();
  const auto reply = (*client)->call(request);
  if (!reply.ok()) return report_error(reply.error());
  const pb::PingReply& ping = reply->ping();
  if (parsed.has(OptionId::kJson)) {
    print(ping_json(ping));
    return kExitOk;
  }
  std::string out;
  add_line(out, "Cluster", ping.cluster());
  add_line(out, "Version", ping.version());
  add_line(out, "Term", std::to_string(ping.term()));
  add_line(out, "Up since", format_time(ping.started_us()));
  add_line(out, "Jobs",
           std::to_string(ping.jobs_pending()) + " pending, " + std::to_string(ping.jobs_active()) + " active");
  add_line(out, "Nodes",
           std::to_string(ping.nodes_connected()) + " of " + std::to_string(ping.nodes_known()) + " connected");
  add_line(out, "Memory", std::to_string(ping.state_bytes() >> 20) + " MiB");
  print(out);
  return kExitOk;
}

}  // namespace muster::cli
