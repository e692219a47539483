#include "cli/json.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/run_step.h"
#include "cli/topology_json.h"
#include "lib/base/index_set.h"
#include "lib/model/outcome.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// Seconds, whole ones without a fraction.
Json seconds(std::int64_t us) {
  if (us % 1'000'000 == 0) return us / 1'000'000;
  return static_cast<double>(us) / 1e6;
}

void put_time(Json& out, const char* key, std::int64_t us) {
  if (us != 0) out[key] = seconds(us);
}

void put_text(Json& out, const char* key, const std::string& text) {
  if (!text.empty()) out[key] = text;
}

std::string state_text(std::uint32_t state) {
  if (state > static_cast<std::uint32_t>(JobState::kDeadline)) return "unknown";
  return std::string(to_string(static_cast<JobState>(state)));
}

Json texts(const google::protobuf::RepeatedPtrField<std::string>& items) {
  Json list = Json::array();
  for (const std::string& item : items) list.push_back(item);
  return list;
}

Json gpu_json(const pb::Gpu& gpu) {
  Json out;
  out["pci_address"] = gpu.pci_address();
  put_text(out, "uuid", gpu.uuid());
  put_text(out, "model", gpu.model());
  out["index"] = gpu.vendor_index();
  out["numa"] = gpu.numa();
  return out;
}

Json index_list(const std::string& text) {
  Json list = Json::array();
  const auto set = IndexSet::parse(text);
  if (!set.ok()) return list;
  for (const std::uint32_t index : set->to_vector()) list.push_back(index);
  return list;
}

Json nic_json(const pb::Nic& nic) {
  return {{"pci_address", nic.pci_address()}, {"names", texts(nic.names())}};
}

// Those of all its tasks.
Json nics_of(const pb::NodePlacement& placement) {
  std::map<std::string, Json> by_address;
  for (const pb::TaskPlacement& task : placement.task_list()) {
    for (const pb::Nic& nic : task.nics()) by_address.emplace(nic.pci_address(), nic_json(nic));
  }
  Json list = Json::array();
  for (auto& [address, nic] : by_address) list.push_back(std::move(nic));
  return list;
}

Json locality_json(bool device, bool numa, bool package) {
  return {{"device", device}, {"numa", numa}, {"package", package}};
}

Json task_json(const pb::TaskPlacement& task) {
  Json out;
  out["task"] = task.task();
  out["cpus"] = task.cpus();
  out["numa"] = index_list(task.numa());
  Json gpus = Json::array();
  for (const pb::Gpu& gpu : task.gpus()) gpus.push_back(gpu_json(gpu));
  out["gpus"] = std::move(gpus);
  Json nics = Json::array();
  for (const pb::Nic& nic : task.nics()) nics.push_back(nic_json(nic));
  out["nics"] = std::move(nics);
  out["locality"] = locality_json(task.local_device(), task.local_numa(), task.local_package());
  return out;
}

// What was read back of the tasks; null when nothing was.
Json proof_json(const pb::NodePlacement& placement) {
  const auto proof = wire::from_pb(placement.proof());
  if (!placement.has_proof() || !proof.ok()) return nullptr;
  Json out;
  out["pretended"] = proof->pretended;
  out["tasks"] = proof->tasks;
  out["faults"] = proof->faults;
  put_text(out, "fault", proof->fault);
  Json list = Json::array();
  for (const TaskProof& task : proof->list) {
    Json one;
    one["step"] = task.step == kScriptStep ? Json("batch") : Json(task.step);
    one["rank"] = task.rank;
    one["cpus"] = task.cpus.to_string();
    one["memory_nodes"] = task.memory.to_string();
    one["memory_local"] = task.memory_local;
    one["job_cgroup"] = task.own_group;
    one["gpus"] = task.gpus.to_string();
    one["locality"] = locality_json(task.local_device, task.local_numa, task.local_package);
    one["as_decided"] = task.as_decided;
    list.push_back(std::move(one));
  }
  out["read_back"] = std::move(list);
  return out;
}

Json placement_json(const pb::JobView& job) {
  Json nodes = Json::array();
  for (const pb::NodePlacement& placement : job.placement()) {
    Json out;
    out["node"] = placement.node();
    out["tasks"] = placement.tasks();
    out["cores"] = placement.cores();
    out["cpus"] = placement.cpus();
    out["numa"] = index_list(placement.numa());
    Json gpus = Json::array();
    for (const pb::Gpu& gpu : placement.gpus()) gpus.push_back(gpu_json(gpu));
    out["gpus"] = std::move(gpus);
    out["nics"] = nics_of(placement);
    out["mem_mib"] = placement.mem_mib();
    out["pretended"] = placement.pretended();
    put_text(out, "phase", placement.phase());
    Json tasks = Json::array();
    for (const pb::TaskPlacement& task : placement.task_list()) tasks.push_back(task_json(task));
    if (!tasks.empty()) out["task_list"] = std::move(tasks);
    if (Json proof = proof_json(placement); !proof.is_null()) out["proof"] = std::move(proof);
    nodes.push_back(std::move(out));
  }
  return nodes;
}

// Of all nodes; of memory the highest peak on one node, with the limit there. What is not known has no key.
void put_usage(Json& out, const pb::AttemptUsage& usage) {
  constexpr double kMebibyte = 1024.0 * 1024.0;
  if (usage.cpu_us() != 0) out["cpu_time_s"] = seconds(usage.cpu_us());
  if (usage.memory_peak_bytes() != 0) out["mem_peak_mib"] = static_cast<double>(usage.memory_peak_bytes()) / kMebibyte;
  if (usage.memory_limit_bytes() != 0) out["mem_limit_mib"] = usage.memory_limit_bytes() >> 20U;
  if (usage.read_bytes() != 0) out["read_bytes"] = usage.read_bytes();
  if (usage.written_bytes() != 0) out["written_bytes"] = usage.written_bytes();
  if (usage.oom_kills() != 0) out["oom_kills"] = usage.oom_kills();
}

Json job_json(const pb::JobView& job, bool with_placement) {
  Json out;
  out["id"] = job.id();
  if (job.has_array_task()) {
    out["array_task"] = job.array_task();
  } else {
    out["array_task"] = nullptr;
  }
  if (job.array() != 0) out["array_id"] = job.array();
  if (!job.array_waiting().empty()) {
    out["array_waiting"] = job.array_waiting();
    out["array_waiting_count"] = job.array_waiting_count();
  }
  out["name"] = job.name();
  out["user"] = job.user();
  out["queue"] = job.queue();
  out["state"] = state_text(job.state());
  out["reason"] = job.reason();
  out["reason_detail"] = job.reason_detail();
  out["priority"] = job.priority();
  out["attempt"] = job.attempt();
  out["nodes"] = texts(job.nodes());
  out["spares"] = Json::array();
  out["node_count"] = job.node_count();
  out["task_count"] = job.task_count();
  out["cpus"] = job.cpus();
  out["gpus"] = job.gpus();
  out["mem_mib"] = job.mem_mib();
  // No key: no limit.
  if (job.time_limit_us() > 0 && !Duration::from_us(job.time_limit_us()).is_infinite())
    out["time_limit_s"] = seconds(job.time_limit_us());
  if (job.time_min_us() > 0) out["time_min_s"] = seconds(job.time_min_us());
  put_time(out, "deadline", job.deadline_us());
  put_time(out, "begin_time", job.begin_us());
  put_time(out, "submit_time", job.submit_time_us());
  put_time(out, "eligible_time", job.eligible_time_us());
  put_time(out, "start_time", job.start_time_us());
  put_time(out, "end_time", job.end_time_us());
  put_time(out, "estimated_start", job.estimated_start_us());
  if (job.has_exit()) {
    out["exit_code"] = job.exit_code();
    out["exit_signal"] = job.exit_signal();
  }
  put_usage(out, job.usage());
  out["work_dir"] = job.work_dir();
  put_text(out, "stdout", job.stdout_path());
  put_text(out, "stderr", job.stderr_path().empty() ? job.stdout_path() : job.stderr_path());
  put_text(out, "stdin", job.stdin_path());
  put_text(out, "script", job.script_name());
  if (job.args_size() != 0) out["args"] = texts(job.args());
  out["held"] = job.held();
  out["requeue"] = job.requeue();
  if (job.requeued()) out["requeued"] = true;
  put_text(out, "last_end", job.last_end());
  if (job.avoid_size() != 0) out["avoids"] = texts(job.avoid());
  put_text(out, "signal", job.signal());
  if (job.suspended_us() != 0) out["suspended_s"] = seconds(job.suspended_us());
  out["nice"] = job.nice();
  if (job.cpus_per_task() != 0) out["cpus_per_task"] = job.cpus_per_task();
  put_text(out, "account", job.account());
  put_text(out, "qos", job.qos());
  put_text(out, "comment", job.comment());
  put_text(out, "dependency", job.dependency());
  put_text(out, "constraint", job.constraint());
  put_text(out, "switches", job.switches());
  if (job.segment() != 0) out["segment"] = job.segment();
  put_text(out, "locality", job.locality());
  put_text(out, "cpu_bind", job.cpu_bind());
  put_text(out, "gpu_bind", job.gpu_bind());
  put_text(out, "distribution", job.distribution());
  if (job.threads_per_core() != 0) out["threads_per_core"] = job.threads_per_core();
  put_text(out, "reservation", job.reservation());
  for (const pb::LicenseCount& one : job.licenses()) out["licenses"][one.name()] = one.count();
  put_text(out, "submit_host", job.submit_host());
  out["uid"] = job.uid();
  out["gid"] = job.gid();
  if (with_placement) out["placement"] = placement_json(job);
  return out;
}

}  // namespace

std::string jobs_json(const std::vector<pb::JobView>& jobs, bool with_placement) {
  Json list = Json::array();
  for (const pb::JobView& job : jobs) list.push_back(job_json(job, with_placement));
  return dump({{"jobs", std::move(list)}});
}

std::string why_json(const pb::JobView& job) {
  Json out;
  out["job"] = job.id();
  out["state"] = state_text(job.state());
  Json blockers = Json::array();
  Json ahead = Json::array();
  Json changes = Json::array();
  for (const pb::Blocker& in : job.explanation().blockers())
    blockers.push_back({{"kind", in.kind()}, {"word", in.word()}, {"text", in.text()}, {"nodes", texts(in.nodes())}});
  for (const std::uint64_t id : job.explanation().ahead()) ahead.push_back(id);
  for (const pb::SmallerRequest& in : job.explanation().changes()) {
    Json change = {{"option", in.option()}, {"value", in.value()}};
    if (in.start_us() == 0) {
      change["start"] = 0;
    } else {
      change["start"] = seconds(in.start_us());
    }
    changes.push_back(std::move(change));
  }
  // A job that does not wait has only what its record says.
  if (!job.has_explanation() && !job.reason().empty())
    blockers.push_back({{"kind", job.reason()},
                        {"text", job.reason_detail().empty() ? job.reason() : job.reason_detail()},
                        {"nodes", texts(job.nodes())}});
  out["blockers"] = std::move(blockers);
  out["ahead"] = std::move(ahead);
  put_time(out, "planned_start", job.estimated_start_us());
  out["changes"] = std::move(changes);
  return dump(out);
}

std::string reservations_json(const pb::ReservationList& list) {
  Json all = Json::array();
  for (const pb::ReservationView& view : list.reservations()) {
    const pb::Reservation& in = view.reservation();
    Json out;
    out["name"] = in.name();
    out["state"] = view.state();
    put_time(out, "start_time", in.start_us());
    // No key: no end.
    if (!Duration::from_us(in.duration_us()).is_infinite()) out["duration_s"] = seconds(in.duration_us());
    if (in.every_us() != 0) out["every_s"] = seconds(in.every_us());
    put_time(out, "window_start", view.window_start_us());
    if (view.window_end_us() < INT64_MAX / 2) put_time(out, "window_end", view.window_end_us());
    out["nodes"] = texts(in.nodes());
    out["node_count"] = in.nodes_size();
    out["users"] = texts(in.users());
    out["accounts"] = texts(in.accounts());
    out["maintenance"] = in.maintenance();
    out["ignore_jobs"] = in.ignore_jobs();
    out["jobs_pending"] = view.jobs_pending();
    out["jobs_active"] = view.jobs_active();
    out["created_by"] = in.created_by();
    put_time(out, "created_time", in.created_us());
    all.push_back(std::move(out));
  }
  return dump({{"reservations", std::move(all)}});
}

std::string licenses_json(const pb::LicenseList& list) {
  Json all = Json::array();
  for (const pb::LicenseView& view : list.licenses()) {
    all.push_back({{"name", view.name()},
                   {"total", view.total()},
                   {"used", view.used()},
                   {"free", view.total() - std::min(view.total(), view.used())}});
  }
  return dump({{"licenses", std::move(all)}});
}

std::string nodes_json(const std::vector<pb::NodeView>& nodes) {
  Json list = Json::array();
  for (const pb::NodeView& node : nodes) {
    Json out;
    out["name"] = node.name();
    out["state"] = node.state();
    out["reason"] = node.reason();
    put_text(out, "drained_by", node.drained_by());
    Json checks = Json::array();
    for (const pb::HealthProblem& problem : node.checks()) {
      checks.push_back({{"check", problem.check()}, {"text", problem.text()}});
    }
    out["failed_checks"] = std::move(checks);
    put_time(out, "health_since", node.health_since_us());
    out["suspect"] = node.blames_size() != 0;
    Json failures = Json::array();
    for (const pb::Blame& blame : node.blames()) {
      failures.push_back({{"job", blame.attempt().job()},
                          {"attempt", blame.attempt().attempt()},
                          {"time", seconds(blame.at_us())},
                          {"text", blame.text()}});
    }
    out["failures"] = std::move(failures);
    put_time(out, "rests_until", node.rests_until_us());
    out["cpus"] = node.cpus();
    out["cpus_allocated"] = node.cpus_allocated();
    out["threads"] = node.threads();
    out["gpus"] = node.gpus();
    out["gpus_allocated"] = node.gpus_allocated();
    out["mem_mib"] = node.mem_mib();
    out["mem_allocated_mib"] = node.mem_allocated_mib();
    Json jobs = Json::array();
    for (const std::uint64_t job : node.jobs()) jobs.push_back(job);
    out["jobs"] = std::move(jobs);
    out["packages"] = node.packages();
    out["numa_nodes"] = node.numa_nodes();
    out["queues"] = texts(node.queues());
    put_text(out, "endpoint", node.endpoint());
    put_text(out, "boot_id", node.boot_id());
    put_time(out, "since", node.since_us());
    out["pretended"] = node.pretended();
    Json gpus = Json::array();
    for (const pb::Gpu& gpu : node.gpu_list()) gpus.push_back(gpu_json(gpu));
    if (node.gpu_list_size() != 0) out["gpu_list"] = std::move(gpus);
    out["features"] = texts(node.features());
    put_text(out, "topology_address", node.topology_address());
    Json enforcement = Json::array();
    for (const pb::EnforcedBy& one : node.enforcement())
      enforcement.push_back({{"function", one.function()}, {"by", one.by()}});
    if (node.enforcement_size() != 0) out["enforcement"] = std::move(enforcement);
    if (node.has_topology()) {
      if (const auto topology = wire::from_pb(node.topology()); topology.ok())
        out["topology"] = topology_json(*topology);
    }
    list.push_back(std::move(out));
  }
  return dump({{"nodes", std::move(list)}});
}

std::string step_json(const StepResult& result) {
  Json out;
  out["job"] = result.job;
  if (result.step) out["step"] = *result.step;
  out["exit_code"] = result.status;
  out["nodes"] = result.nodes;
  Json tasks = Json::array();
  for (const StepResult::TaskEnd& end : result.tasks) {
    Json task;
    task["task"] = end.rank;
    task["node"] = end.node;
    task["exit_code"] = end.outcome.exit_code;
    task["exit_signal"] = end.outcome.signal;
    put_text(task, "detail", end.outcome.detail);
    tasks.push_back(std::move(task));
  }
  out["tasks"] = std::move(tasks);
  return dump(out);
}

std::string operation_json(const pb::OperationReply& reply) {
  return dump({{"matched", reply.matched()}, {"notes", texts(reply.notes())}});
}

std::string config_json(const pb::ConfigReply& reply) {
  Json list = Json::array();
  for (const pb::ConfigValue& value : reply.values()) {
    Json one;
    one["key"] = value.key();
    one["value"] = value.value();
    one["source"] = value.source();
    if (value.overridden()) one["configured"] = value.configured();
    list.push_back(std::move(one));
  }
  return dump({{"config", std::move(list)}});
}

std::string queues_json(const std::vector<QueueView>& queues) {
  Json list = Json::array();
  for (const QueueView& queue : queues) {
    Json one;
    one["name"] = queue.name;
    one["state"] = queue.state;
    one["jobs_pending"] = queue.jobs_pending;
    one["jobs_active"] = queue.jobs_active;
    one["nodes"] = queue.nodes;
    one["node_count"] = queue.nodes.size();
    one["priority"] = queue.priority;
    one["factor"] = queue.factor;
    one["placement"] = queue.placement;
    one["preempt_mode"] = queue.preempt_mode;
    one["preempt_grace_s"] = seconds(queue.preempt_grace.us);
    one["preempt_exempt_s"] = seconds(queue.preempt_exempt.us);
    // No key: no limit, or the cluster's default.
    if (queue.max_time.us > 0 && !queue.max_time.is_infinite()) one["max_time_s"] = seconds(queue.max_time.us);
    if (queue.default_time.us > 0) one["default_time_s"] = seconds(queue.default_time.us);
    for (const auto& [key, limit] : queue.limits) one[key] = limit;
    for (const auto& [key, names] : queue.access) one[key] = names;
    one["overridden"] = queue.overridden;
    one["made_at_run_time"] = queue.made_at_run_time;
    list.push_back(std::move(one));
  }
  return dump({{"queues", std::move(list)}});
}

std::string ping_json(const pb::PingReply& reply) {
  Json out;
  out["version"] = reply.version();
  out["cluster"] = reply.cluster();
  out["term"] = reply.term();
  out["now"] = seconds(reply.now_us());
  put_time(out, "started", reply.started_us());
  out["jobs_pending"] = reply.jobs_pending();
  out["jobs_active"] = reply.jobs_active();
  out["nodes_connected"] = reply.nodes_connected();
  out["nodes_known"] = reply.nodes_known();
  out["resident_bytes"] = reply.state_bytes();
  return dump(out);
}

std::string allocated_json(std::uint64_t job, const std::vector<std::string>& nodes) {
  Json out;
  out["id"] = job;
  out["nodes"] = nodes;
  return out.dump() + "\n";
}

std::string submitted_json(const pb::SubmitReply& reply, bool test_only) {
  Json out;
  if (!test_only) out["id"] = reply.job();
  out["tasks"] = reply.tasks();
  if (test_only) {
    out["test_only"] = true;
    out["nodes"] = texts(reply.planned_nodes());
    if (reply.starts_now()) {
      out["planned_start"] = 0;
    } else {
      put_time(out, "planned_start", reply.planned_start_us());
    }
    if (!reply.waits_for().empty()) out["reason_detail"] = reply.waits_for();
  }
  return dump(out);
}

std::string version_json(std::string_view version) {
  return dump({{"version", std::string(version)}});
}

std::string daemons_json(const std::vector<DaemonStatus>& daemons) {
  Json list = Json::array();
  for (const DaemonStatus& daemon : daemons) {
    Json one;
    one["name"] = daemon.name;
    if (daemon.pid != 0) {
      one["pid"] = daemon.pid;
    } else {
      one["pid"] = nullptr;
    }
    one["state"] = daemon.up ? "up" : "down";
    list.push_back(std::move(one));
  }
  return dump({{"daemons", std::move(list)}});
}

}  // namespace muster::cli
