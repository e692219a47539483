#include "core/engine/normalise.h"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine/accounting.h"
#include "core/engine/engine.h"
#include "core/engine/place_request.h"
#include "core/engine/reservation.h"
#include "core/sched/place.h"
#include "core/sched/queue_rules.h"
#include "lib/base/text.h"
#include "lib/model/patterns.h"

namespace muster::engine {
namespace {

Error refused(std::string message) {
  return make_error(ErrorCode::kRefused, std::move(message));
}

Status check_limits(const JobSpec& s) {
  const auto limit = [](std::string_view option, std::uint64_t value, std::uint64_t max) -> Status {
    if (value > max) {
      return invalid_argument(std::string(option) + " " + std::to_string(value) + " is too large: at most " +
                              std::to_string(max));
    }
    return ok_status();
  };
  MUSTER_TRY(limit("--nodes", std::max(s.nodes_min, s.nodes_max), kNodesMax));
  MUSTER_TRY(limit("--ntasks", s.ntasks, kTasksMax));
  MUSTER_TRY(limit("--ntasks-per-node", s.ntasks_per_node, kTasksMax));
  MUSTER_TRY(limit("--cpus-per-task", s.cpus_per_task, kCpusPerTaskMax));
  MUSTER_TRY(limit("--gpus", s.gpus, kTasksMax));
  MUSTER_TRY(limit("--gpus-per-node", s.gpus_per_node, kTasksMax));
  MUSTER_TRY(limit("--gpus-per-task", s.gpus_per_task, kTasksMax));
  MUSTER_TRY(limit("--mem", s.mem_per_node_mib, kMemMibMax));
  MUSTER_TRY(limit("--mem-per-cpu", s.mem_per_cpu_mib, kMemMibMax));
  MUSTER_TRY(limit("--mem-per-gpu", s.mem_per_gpu_mib, kMemMibMax));
  if (s.warn_signal < 0 || s.warn_signal > kSignalMax || s.warn_before < Duration{}) {
    return invalid_argument("--signal needs a signal from 1 to " + std::to_string(kSignalMax) +
                            " and a time that is not negative");
  }
  if (s.time_limit < Duration{}) {
    return invalid_argument("--time is negative: give a positive time");
  }
  if (s.time_min < Duration{}) {
    return invalid_argument("--time-min is negative: give a positive time");
  }
  if (s.array && s.array->size() == 0) {
    return invalid_argument("--array is empty: give at least one index");
  }
  if (s.array && s.array->size() > kArrayTasksMax) {
    return invalid_argument("--array has " + std::to_string(s.array->size()) + " tasks: at most " +
                            std::to_string(kArrayTasksMax));
  }
  return ok_status();
}

Status check_binding(const JobSpec& s) {
  const auto check = [](const char* option, const auto& parsed) {
    return parsed.ok() ? ok_status() : Status(invalid_argument(std::string(option) + ": " + parsed.error().message));
  };
  MUSTER_TRY(check("--cpu-bind", parse_cpu_bind(s.cpu_bind)));
  MUSTER_TRY(check("--gpu-bind", parse_gpu_bind(s.gpu_bind)));
  MUSTER_TRY(check("--distribution", parse_distribution(s.distribution)));
  return s.threads_per_core <= kThreadsPerCoreMax
             ? ok_status()
             : Status(invalid_argument("--threads-per-core " + std::to_string(s.threads_per_core) +
                                       " is too large: at most " + std::to_string(kThreadsPerCoreMax)));
}

// A node that is named twice is still one node.
void remove_repeated(std::vector<std::string>& names) {
  std::set<std::string> seen;
  std::erase_if(names, [&seen](const std::string& name) { return !seen.insert(name).second; });
}

// Counts of nodes and tasks that agree with each other.
Status fill_size(JobSpec& s) {
  const bool nodes_asked = s.nodes_min != 0;
  const auto named = static_cast<std::uint32_t>(s.nodelist.size());
  s.cpus_per_task = std::max<std::uint32_t>(1, s.cpus_per_task);
  s.nodes_min = std::max({1U, s.nodes_min, named});
  if (s.nodes_max != 0 && s.nodes_max < s.nodes_min) {
    return invalid_argument(
        "--nodes " + std::to_string(s.nodes_max) + " is less than the " + std::to_string(s.nodes_min) +
        " nodes asked for: give MIN-MAX with MIN at most MAX, and at " + "least as many nodes as --nodelist names");
  }
  if (s.ntasks == 0) {
    const std::uint64_t n = std::uint64_t{s.nodes_min} * std::max<std::uint32_t>(1, s.ntasks_per_node);
    if (n > kTasksMax) {
      return invalid_argument("--ntasks-per-node times --nodes is more than " + std::to_string(kTasksMax) + " tasks");
    }
    s.ntasks = static_cast<std::uint32_t>(n);
  } else if (s.ntasks_per_node != 0) {
    const std::uint32_t needed = (s.ntasks + s.ntasks_per_node - 1) / s.ntasks_per_node;
    if (s.nodes_max != 0 && needed > s.nodes_max) {
      return invalid_argument("--ntasks " + std::to_string(s.ntasks) + " do not fit " + std::to_string(s.nodes_max) +
                              " nodes with --ntasks-per-node " + std::to_string(s.ntasks_per_node));
    }
    s.nodes_min = std::max(s.nodes_min, needed);
  }
  if (s.ntasks < s.nodes_min) {
    return invalid_argument("--nodes " + std::to_string(s.nodes_min) + " is more than --ntasks " +
                            std::to_string(s.ntasks) + ": each node runs at least one task, ask for fewer nodes or " +
                            "more tasks");
  }
  if (nodes_asked && s.nodes_max == 0) {
    s.nodes_max = s.nodes_min;  // `-N 4` is exactly four; the client sends MIN-MAX when the user gave both
  }
  return ok_status();
}

Status check_names(const State& state, const JobSpec& s) {
  if (state.nodes.empty()) {
    return ok_status();
  }
  for (const auto* list : {&s.nodelist, &s.exclude}) {
    for (const std::string& name : *list) {
      if (find_node(state, name) == nullptr) {
        std::vector<std::string> known;
        for (const Node& n : state.nodes) {
          known.push_back(n.name);
        }
        const std::string nearest = nearest_word(name, known);
        return invalid_argument(std::string(list == &s.nodelist ? "--nodelist" : "--exclude") +
                                " names the unknown node " + printable(name) +
                                (nearest.empty() ? ": see muster nodes" : ": did you mean " + nearest + "?"));
      }
    }
  }
  const std::set<std::string> excluded(s.exclude.begin(), s.exclude.end());
  for (const std::string& name : s.nodelist) {
    if (excluded.contains(name)) {
      return invalid_argument("node " + name + " is in both --nodelist and --exclude: remove it from one");
    }
  }
  return ok_status();
}

Status fill_queue(const sched::Policy& policy, JobSpec& s, const JobSpec* before) {
  if (s.queue.empty()) {
    s.queue = policy.default_queue;
  }
  const sched::QueuePolicy* q = policy.find_queue(s.queue);
  if (q == nullptr) {
    std::vector<std::string> known;
    for (const auto& each : policy.queues) {
      known.push_back(each.name);
    }
    std::string list;
    for (const auto& name : known) {
      list += (list.empty() ? "" : ", ") + name;
    }
    return invalid_argument("unknown queue " + printable(s.queue) + ": the queues are " + list);
  }
  if (!q->accepts && (before == nullptr || before->queue != s.queue)) {
    return refused("queue " + s.queue +
                   " takes no new jobs (state drain or inactive): choose another one with --queue");
  }
  if (s.time_limit == Duration{}) {
    s.time_limit = std::min(q->time_default, q->time_max);
  }
  if (s.time_min > s.time_limit) {
    return invalid_argument("--time-min " + format_duration(s.time_min) + " is longer than the time limit of " +
                            format_duration(s.time_limit) + ": give a shorter one, or a longer --time");
  }
  if (q->mem_per_cpu_mib != 0 && s.mem_per_node_mib == 0 && s.mem_per_cpu_mib == 0 && s.mem_per_gpu_mib == 0) {
    s.mem_per_cpu_mib = q->mem_per_cpu_mib;
  }
  return ok_status();
}

// A job that may spread over any number of nodes keeps within what its queue gives one job.
void keep_within_queue(const sched::QueuePolicy& q, JobSpec& s) {
  std::uint64_t most = q.nodes_max != 0 ? q.nodes_max : UINT32_MAX;
  if (q.gpus_max != 0 && s.gpus_per_node != 0) {
    const std::uint64_t others = s.gpus + std::uint64_t{s.gpus_per_task} * s.ntasks;
    most = std::min(most, q.gpus_max > others ? (q.gpus_max - others) / s.gpus_per_node : 0);
  }
  if (most >= s.nodes_min && sched::nodes_most(s) > most) {
    s.nodes_max = static_cast<std::uint32_t>(most);
  }
}

bool has_memory_of_no_gpu(const JobSpec& s) {
  return s.mem_per_gpu_mib != 0 && s.gpus == 0 && s.gpus_per_node == 0 && s.gpus_per_task == 0;
}

// A job that its queue does not admit as it is may still be changed in other ways.
Status check_queue(const sched::QueuePolicy& q, const JobSpec& s, const JobSpec* before) {
  const auto why_not = sched::refusal_of(q, s);
  if (why_not && !(before != nullptr && before->queue == s.queue && sched::refusal_of(q, *before))) {
    return refused(why_not->text);
  }
  return ok_status();
}

}  // namespace

// Texts end up in file names, arguments and the state: none may be endless, and a NUL byte would cut them short there.
Status check_texts(const JobSpec& s) {
  const auto check = [](std::string_view option, const std::string& value, std::size_t max) -> Status {
    if (value.size() > max) {
      return invalid_argument(std::string(option) + " has " + std::to_string(value.size()) + " bytes: at most " +
                              std::to_string(max));
    }
    if (value.find('\0') != std::string::npos) {
      return invalid_argument(std::string(option) + " has a NUL byte: remove it");
    }
    return ok_status();
  };
  MUSTER_TRY(check("--job-name", s.name, kNameBytesMax));
  MUSTER_TRY(check("the user", s.user, kNameBytesMax));
  MUSTER_TRY(check("--queue", s.queue, kNameBytesMax));
  MUSTER_TRY(check("--account", s.account, kNameBytesMax));
  MUSTER_TRY(check("--qos", s.qos, kNameBytesMax));
  MUSTER_TRY(check("--comment", s.comment, kCommentBytesMax));
  MUSTER_TRY(check("--chdir", s.work_dir, kPathBytesMax));
  MUSTER_TRY(check("--output", s.stdout_path, kPathBytesMax));
  MUSTER_TRY(check("--error", s.stderr_path, kPathBytesMax));
  MUSTER_TRY(check("--input", s.stdin_path, kPathBytesMax));
  MUSTER_TRY(check("the submitting host", s.submit_host, kNameBytesMax));
  MUSTER_TRY(check("the script's name", s.script_name, kPathBytesMax));
  MUSTER_TRY(check("--export", s.export_mode, kCommentBytesMax));
  std::size_t arguments = 0;
  for (const std::string& argument : s.args) {
    MUSTER_TRY(check("an argument of the script", argument, kArgumentBytesMax));
    arguments += argument.size() + 1;
  }
  if (arguments > kArgumentsBytesMax) {
    return invalid_argument("the script's arguments have " + std::to_string(arguments) + " bytes: at most " +
                            std::to_string(kArgumentsBytesMax));
  }
  for (const auto* list : {&s.nodelist, &s.exclude}) {
    for (const std::string& name : *list) {
      MUSTER_TRY(check(list == &s.nodelist ? "--nodelist" : "--exclude", name, kNameBytesMax));
    }
  }
  return ok_status();
}

Result<JobSpecPtr> normalise(const State& state, const sched::Policy& policy, const JobSpec& asked, Instant now,
                             const JobSpec* before) {
  auto spec = std::make_shared<JobSpec>(asked);
  MUSTER_TRY(check_limits(*spec));
  if (has_memory_of_no_gpu(*spec) && (before == nullptr || !has_memory_of_no_gpu(*before))) {
    return invalid_argument("--mem-per-gpu without GPUs: ask for some with --gpus, or for memory with --mem");
  }
  MUSTER_TRY(check_texts(*spec));
  remove_repeated(spec->nodelist);
  remove_repeated(spec->exclude);
  MUSTER_TRY(fill_queue(policy, *spec, before));
  MUSTER_TRY(fill_size(*spec));
  MUSTER_TRY(check_binding(*spec));
  const sched::QueuePolicy& queue = *policy.find_queue(spec->queue);
  MUSTER_TRY(fill_account(state, policy, *spec, before));
  keep_within_queue(queue, *spec);
  MUSTER_TRY(check_queue(queue, *spec, before));
  MUSTER_TRY(check_names(state, *spec));
  MUSTER_TRY(check_place_request(state, policy, *spec));
  MUSTER_TRY(check_reservation_and_licenses(state, policy, *spec, now));
  if (!spec->requeue_given && before == nullptr) {
    spec->requeue = policy.requeue;
  }
  spec->avoid = before == nullptr ? std::vector<std::string>{} : before->avoid;  // not the user's to say
  if (spec->kind == JobKind::kBatch && spec->stdout_path.empty()) {
    spec->stdout_path = spec->array ? kDefaultArrayOutput : kDefaultOutput;
  }
  const std::vector<std::string> reserved =
      spec->reservation.empty() ? std::vector<std::string>{} : state.windows.nodes_for(spec->reservation, queue.nodes);
  const std::vector<std::string>& allowed = spec->reservation.empty() ? queue.nodes : reserved;
  if (!state.nodes.empty() && (before == nullptr || !sched::same_request(*before, *spec)) &&
      !sched::surely_fits_empty(state.ledger, *spec, sched::make_filter(state.ledger, *spec, allowed, policy.sites))) {
    const sched::PlaceResult r =
        sched::place(sched::Draft(state.ledger), *spec, allowed, sched::Assume::kAllEmpty, policy.sites);
    if (r.shares.empty()) {
      return refused("the job can never run in queue " + spec->queue +
                     (spec->reservation.empty() ? "" : " and reservation " + spec->reservation) + ": it " + r.detail +
                     ": ask for less, or see `muster nodes`");
    }
  }
  return JobSpecPtr(std::move(spec));
}

}  // namespace muster::engine
