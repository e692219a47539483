#include "ctld/views.h"

#include <algorithm>
#include <set>

#include "core/engine/running.h"
#include "ctld/task_view.h"
#include "lib/base/text.h"
#include "lib/model/patterns.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

// Tasks whose places one part of an answer tells: a job of thousands of nodes has more than an answer should hold.
constexpr std::uint64_t kTasksShownMax = 16'384;

constexpr const char* kControllerStarted = "ControllerStarted";

constexpr std::size_t kWaitingTextMax =
    4'096;  // bytes of an array's list of waiting indices, which may be very scattered

void fill_spec(const JobSpec& spec, pb::JobView& out) {
  out.set_kind(static_cast<std::uint32_t>(spec.kind));
  out.set_name(spec.name);
  out.set_user(spec.user);
  out.set_uid(spec.uid);
  out.set_gid(spec.gid);
  out.set_queue(spec.queue);
  out.set_account(spec.account);
  out.set_qos(spec.qos);
  out.set_comment(spec.comment);
  out.set_task_count(spec.ntasks);
  out.set_cpus_per_task(spec.cpus_per_task);
  out.set_time_limit_us(spec.time_limit.us);
  out.set_time_min_us(spec.time_min.us);
  out.set_deadline_us(spec.deadline.us);
  out.set_begin_us(spec.begin.us);
  out.set_nice(spec.nice);
  out.set_requeue(spec.requeue);
  if (spec.warn_signal != 0) {
    out.set_signal(std::string(spec.warn_batch_only ? "B:" : "") + std::to_string(spec.warn_signal) + "@" +
                   std::to_string(spec.warn_before.seconds()));
  }
  if (!spec.dependency.terms.empty()) {
    out.set_dependency(format_dependency(spec.dependency));
  }
  out.set_constraint(spec.constraint);
  if (spec.switches != 0) {
    const bool waits = !spec.switches_wait.is_infinite();
    out.set_switches(std::to_string(spec.switches) + (waits ? "@" + format_duration(spec.switches_wait) : ""));
  }
  out.set_segment(spec.segment);
  if (spec.locality != Locality::kPrefer) {
    out.set_locality(std::string(locality_name(spec.locality)));
  }
  out.set_cpu_bind(spec.cpu_bind);
  out.set_gpu_bind(spec.gpu_bind);
  out.set_distribution(spec.distribution);
  out.set_threads_per_core(spec.threads_per_core);
  out.set_reservation(spec.reservation);
  for (const LicenseCount& one : spec.licenses) {
    pb::LicenseCount& to = *out.add_licenses();
    to.set_name(one.name);
    to.set_count(one.count);
  }
  out.set_work_dir(spec.work_dir);
  out.set_stdin_path(spec.stdin_path);
  out.set_script_name(spec.script_name);
  out.set_submit_host(spec.submit_host);
  for (const auto& arg : spec.args) {
    out.add_args(arg);
  }
}

// What a job that waits has asked for.
void fill_request(const JobSpec& spec, pb::JobView& out) {
  const std::uint64_t tasks = std::max<std::uint64_t>(spec.ntasks, 1);
  const std::uint64_t nodes = std::max<std::uint64_t>(spec.nodes_min, 1);
  const std::uint64_t cpus = tasks * std::max<std::uint64_t>(spec.cpus_per_task, 1);
  std::uint64_t gpus = spec.gpus;
  gpus = std::max(gpus, std::uint64_t{spec.gpus_per_node} * nodes);
  gpus = std::max(gpus, std::uint64_t{spec.gpus_per_task} * tasks);
  out.set_node_count(static_cast<std::uint32_t>(nodes));
  out.set_cpus(cpus);
  out.set_gpus(gpus);
  out.set_mem_mib(spec.mem_per_node_mib * nodes + spec.mem_per_cpu_mib * cpus + spec.mem_per_gpu_mib * gpus);
}

void fill_shares(const std::vector<NodeShare>& shares, pb::JobView& out) {
  std::uint64_t cpus = 0;
  std::uint64_t gpus = 0;
  std::uint64_t mem_mib = 0;
  for (const auto& share : shares) {
    cpus += share.cores.count();
    gpus += share.gpus.count();
    mem_mib += share.mem_mib;
  }
  out.set_node_count(static_cast<std::uint32_t>(shares.size()));
  out.set_cpus(cpus);
  out.set_gpus(gpus);
  out.set_mem_mib(mem_mib);
}

void fill_id(JobId id, JobId array, std::uint64_t position, const JobSpec& spec, pb::JobView& out) {
  out.set_id(id.value);
  out.set_array(array.value);
  if (array.value != 0 && spec.array) {
    out.set_has_array_task(true);
    out.set_array_task(spec.array->index_at(position));
  }
}

void fill_paths(const JobSpec& spec, JobId id, JobId array, std::uint64_t position, const std::string& node,
                pb::JobView& out) {
  const auto paths = output_paths(spec, id, array, position, node);
  out.set_stdout_path(paths.stdout_path);
  out.set_stderr_path(paths.stderr_path);
}

// The waiting positions as the user's indices, folded, with the limit of running tasks: "4-9,12%2".
std::string waiting_text(const Job& array, std::uint64_t& count) {
  std::string text;
  count = 0;
  const auto append = [&](std::uint64_t first, std::uint64_t last) {
    if (text.size() > kWaitingTextMax) {
      return;
    }
    text += text.empty() ? "" : ",";
    if (text.size() > kWaitingTextMax) {
      text += "...";
      return;
    }
    text += std::to_string(first);
    if (last != first) {
      text += "-" + std::to_string(last);
    }
  };
  std::optional<std::pair<std::uint64_t, std::uint64_t>> run;
  const auto& spec = *array.spec->array;
  for (const auto& range : array.waiting) {
    count += range.end - range.begin;
    std::uint64_t position = range.begin;
    std::uint64_t before = 0;  // positions of the array's earlier ranges
    for (const auto& each : spec.ranges) {
      const std::uint64_t end = before + each.count();
      if (position < range.end && position < end && text.size() <= kWaitingTextMax) {
        const std::uint64_t upto = std::min(range.end, end);
        if (each.step == 1) {
          const std::uint64_t first = each.first + (position - before);
          const std::uint64_t last = each.first + (upto - 1 - before);
          if (run && run->second + 1 == first) {
            run->second = last;
          } else {
            if (run) {
              append(run->first, run->second);
            }
            run = {first, last};
          }
        } else {
          for (std::uint64_t p = position; p < upto && text.size() <= kWaitingTextMax; ++p) {
            const std::uint64_t index = each.first + (p - before) * each.step;
            if (run) {
              append(run->first, run->second);
            }
            run = {index, index};
          }
        }
        position = upto;
      }
      before = end;
    }
  }
  if (run) {
    append(run->first, run->second);
  }
  if (spec.max_running != 0) {
    text += "%" + std::to_string(spec.max_running);
  }
  return text;
}

const char* phase_name(NodePhase phase) {
  switch (phase) {
    case NodePhase::kLaunching:
      return "launching";
    case NodePhase::kStarted:
      return "started";
    case NodePhase::kEnded:
      return "ended";
  }
  return "";
}

void fill_gpu(const Gpu& in, pb::Gpu& out) {
  out.set_pci_address(in.pci_address);
  out.set_uuid(in.uuid);
  out.set_model(in.model);
  out.set_vendor_index(in.vendor_index);
  out.set_numa(in.numa);
}

}  // namespace

OutputPaths output_paths(const JobSpec& spec, JobId job, JobId array, std::uint64_t position, const std::string& node) {
  PatternValues values;
  values.job = job;
  values.array = array.value != 0 ? array : job;
  values.is_array = array.value != 0;
  values.array_index =
      array.value != 0 && spec.array && position < spec.array->size() ? spec.array->index_at(position) : 0;
  values.job_name = spec.name;
  values.user = spec.user;
  values.node = node;
  const auto expand = [&](const std::string& pattern) {
    return pattern.empty() ? std::string() : resolve_path(spec.work_dir, expand_pattern(pattern, values));
  };
  OutputPaths paths;
  paths.stdout_path = expand(spec.stdout_path);
  paths.stderr_path = spec.stderr_path.empty() ? paths.stdout_path : expand(spec.stderr_path);
  return paths;
}

const engine::Explainer& Views::explainer() {
  return cache_->get(state_, policy_, now_);
}

std::string Views::waits_for_nodes() const {
  if (!planning_waits_until_.is_set()) {
    return {};
  }
  std::vector<std::string> missing;
  for (const Node& node : state_.nodes) {
    if (node.contact == Contact::kUnreachable && !node.is_drained()) {
      missing.push_back(node.name);
    }
  }
  const std::int64_t left_s = (planning_waits_until_ - now_).us / 1'000'000 + 1;
  return "the controller has just started and plans when " + fold_node_list(missing) +
         (missing.size() == 1 ? " is" : " are") + " back, or in " + std::to_string(left_s) + " s at the latest";
}

void Views::explain(const Job& job, pb::JobView& out) {
  const sched::Explanation why = explainer().explain(job);
  pb::Explanation& to = *out.mutable_explanation();
  if (const std::string waits = waits_for_nodes(); !waits.empty()) {
    pb::Blocker& b = *to.add_blockers();
    b.set_kind("controller");
    b.set_word(kControllerStarted);
    b.set_text(waits);
  }
  for (const sched::Blocker& blocker : why.blockers) {
    pb::Blocker& b = *to.add_blockers();
    b.set_kind(blocker.kind);
    b.set_word(blocker.word);
    b.set_text(blocker.text);
    for (const std::string& node : blocker.nodes) {
      b.add_nodes(node);
    }
  }
  for (const JobId id : why.ahead) {
    to.add_ahead(id.value);
  }
  for (const sched::SmallerRequest& change : why.changes) {
    pb::SmallerRequest& c = *to.add_changes();
    c.set_option(change.option);
    c.set_value(change.value);
    c.set_start_us(change.start <= now_ ? 0 : change.start.us);
  }
}

void Views::pending_reason(const Job& job, pb::JobView& out) {
  const engine::Explainer& known = explainer();
  const auto reason = book_ != nullptr ? known.reason(job, *book_) : known.reason(job);
  if (const auto start = book_ != nullptr ? known.estimated_start(job, *book_) : known.estimated_start(job)) {
    out.set_estimated_start_us(start->us);
  }
  out.set_reason(reason.word);
  out.set_reason_detail(reason.detail);
  const std::string waits = waits_for_nodes();
  if (!waits.empty() && (reason.word == "None" || reason.word == "Priority" || reason.word == "ReqNodeNotAvail")) {
    out.set_reason(kControllerStarted);
    out.set_reason_detail(waits);
  }
}

void Views::job(const Job& job, bool with_placement, pb::JobView& out) {
  fill_spec(*job.spec, out);
  out.set_state(static_cast<std::uint32_t>(job.state()));
  out.set_priority(job.priority);
  out.set_attempt(job.attempt.value);
  out.set_last_end(job.last_end);
  for (const std::string& node : job.spec->avoid) {
    out.add_avoid(node);
  }
  out.set_held(job.held);
  out.set_submit_time_us(job.submit_time.us);
  out.set_eligible_time_us(job.eligible_time.us);
  if (job.is_array_record) {
    out.set_held(job.held || (!job.waiting.empty() && job.held_positions == job.waiting));
    out.set_id(job.id.value);
    out.set_array(job.id.value);
    std::uint64_t count = 0;
    out.set_array_waiting(waiting_text(job, count));
    out.set_array_waiting_count(count);
    fill_request(*job.spec, out);
    pending_reason(job, out);
    out.set_stdout_path(job.spec->stdout_path);
    out.set_stderr_path(job.spec->stderr_path);
    return;
  }
  fill_id(job.id, job.array, job.array_position, *job.spec, out);
  const auto* active = std::get_if<Active>(&job.phase);
  if (active == nullptr) {
    fill_request(*job.spec, out);
    pending_reason(job, out);
    fill_paths(*job.spec, job.id, job.array, job.array_position, "", out);
    return;
  }
  out.set_start_time_us(active->start_time.us);
  out.set_time_limit_us(active->time_limit.us);
  std::vector<NodeShare> shares;
  for (const auto& on : active->nodes) {
    shares.push_back(on.share);
    out.add_nodes(state_.nodes[on.share.node.value].name);
  }
  fill_shares(shares, out);
  fill_paths(*job.spec, job.id, job.array, job.array_position, out.nodes_size() > 0 ? out.nodes(0) : "", out);
  const auto silent = std::find_if(active->nodes.begin(), active->nodes.end(), [this](const AttemptOnNode& on) {
    return on.phase != NodePhase::kEnded && state_.nodes[on.share.node.value].contact == Contact::kUnreachable;
  });
  if (silent != active->nodes.end()) {
    // Unreachable is not dead: the job has its place there until the node says otherwise.
    out.set_reason("NodeUnreachable");
    out.set_reason_detail("node " + state_.nodes[silent->share.node.value].name + " is not heard; " +
                          (active->stop != StopCause::kNone
                               ? "the job is ended there when the node returns"
                               : "what the job does there is known when the node returns"));
  } else if (active->stop != StopCause::kNone) {
    out.set_reason(std::string(to_string(active->stop)));
    if (!active->stop_by.empty()) {
      out.set_reason_detail("stopped by " + active->stop_by);
    } else if (active->stop == StopCause::kPreempted) {
      out.set_reason_detail("makes room for job " + std::to_string(active->terms.room_for.value));
    }
  } else if (active->suspension.since.is_set()) {
    out.set_reason("suspended");
    const JobId room_for = active->suspension.room_for;
    out.set_reason_detail(room_for == JobId{}
                              ? "stands still and keeps what it holds: muster continue " + std::to_string(job.id.value)
                              : "stands still for job " + std::to_string(room_for.value) +
                                    " and goes on when its cores are free");
  }
  const Suspension& s = active->suspension;
  out.set_suspended_us((s.earlier + (s.since.is_set() ? now_ - s.since : Duration{})).us);
  if (with_placement) {
    std::vector<PlacementProof> proofs;
    for (const AttemptOnNode& on : active->nodes) {
      proofs.push_back(on.proof.value_or(PlacementProof{}));
    }
    placement(*job.spec, shares, &active->nodes, proofs, out);
  }
}

void Views::waiting_task(const Job& array, std::uint64_t position, pb::JobView& out) {
  fill_spec(*array.spec, out);
  const JobId id(array.id.value + position);
  fill_id(id, array.id, position, *array.spec, out);
  out.set_state(static_cast<std::uint32_t>(JobState::kPending));
  if (const RequeuedTask* before = engine::find_requeued(array, position)) {
    out.set_attempt(before->attempt.value);
    out.set_last_end(before->last_end);
  }
  out.set_priority(array.priority);
  out.set_held(array.held || contains(array.held_positions, position));
  out.set_submit_time_us(array.submit_time.us);
  out.set_eligible_time_us(array.eligible_time.us);
  fill_request(*array.spec, out);
  pending_reason(array, out);
  fill_paths(*array.spec, id, array.id, position, "", out);
}

void Views::ended(const JobSummary& summary, bool with_placement, pb::JobView& out) const {
  fill_spec(*summary.spec, out);
  fill_id(summary.id, summary.array, summary.array_position, *summary.spec, out);
  out.set_state(static_cast<std::uint32_t>(summary.state));
  const auto colon = summary.reason.find(": ");
  out.set_reason(summary.reason.substr(0, colon));
  if (colon != std::string::npos) {
    out.set_reason_detail(summary.reason.substr(colon + 2));
  }
  out.set_attempt(summary.attempt.value);
  out.set_requeued(summary.requeued);
  out.set_submit_time_us(summary.submit_time.us);
  out.set_eligible_time_us(summary.eligible_time.us);
  out.set_start_time_us(summary.start_time.us);
  out.set_end_time_us(summary.end_time.us);
  wire::to_pb(summary.usage, *out.mutable_usage());
  if (summary.start_time.is_set()) {
    // Who failed without a code or a signal was lost, or never began: nobody saw it exit.
    const bool nobody_saw = (summary.state == JobState::kFailed || summary.state == JobState::kNodeFailed) &&
                            summary.exit_code == 0 && summary.exit_signal == 0;
    out.set_has_exit(!nobody_saw);
    out.set_exit_code(summary.exit_code);
    out.set_exit_signal(summary.exit_signal);
    fill_shares(summary.shares, out);
    for (const auto& name : summary.nodes) {
      out.add_nodes(name);
    }
  } else {
    fill_request(*summary.spec, out);
  }
  fill_paths(*summary.spec, summary.id, summary.array, summary.array_position,
             summary.nodes.empty() ? "" : summary.nodes.front(), out);
  if (with_placement) {
    placement(*summary.spec, summary.shares, nullptr, summary.proofs, out);
  }
}

void Views::placement(const JobSpec& spec, const std::vector<NodeShare>& shares,
                      const std::vector<AttemptOnNode>* phases, const std::vector<PlacementProof>& proofs,
                      pb::JobView& out) const {
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const auto& share = shares[i];
    auto& place = *out.add_placement();
    place.set_cores(share.cores.to_string());
    place.set_mem_mib(share.mem_mib);
    place.set_tasks(share.tasks);
    if (phases != nullptr) {
      place.set_phase(phase_name((*phases)[i].phase));
    }
    if (i < proofs.size() && proofs[i].tasks != 0) {
      wire::to_pb(proofs[i], *place.mutable_proof());
    }
    if (share.node.value >= state_.nodes.size()) {
      continue;  // history of a node that this State never knew
    }
    const Node& node = state_.nodes[share.node.value];
    place.set_node(node.name);
    place.set_pretended(node.hardware.pretended);
    // The node may have other hardware now than when an ended job ran: numbers it no longer has are left out.
    IndexSet threads;
    IndexSet numa;
    for (const std::uint32_t core : share.cores.to_vector()) {
      if (core < node.hardware.cores.size()) {
        threads |= node.hardware.cores[core].threads;
        numa.insert(std::min(node.hardware.cores[core].numa, IndexSet::kIndexMax));
      }
    }
    place.set_cpus(threads.to_string());
    place.set_numa(numa.to_string());
    for (const std::uint32_t gpu : share.gpus.to_vector()) {
      if (gpu < node.hardware.gpus.size()) {
        fill_gpu(node.hardware.gpus[gpu], *place.add_gpus());
      }
    }
    const auto* node_class = state_.ledger.nodes()[share.node.value].node_class.get();
    if (node_class != nullptr && tasks_shown_ + share.tasks <= kTasksShownMax) {
      tasks_shown_ += share.tasks;
      fill_tasks(*node_class, node, spec, share, place);
    }
  }
}

void Views::node(const Node& node, bool with_topology, pb::NodeView& out) const {
  const auto& capacity = state_.ledger.nodes()[node.index.value];
  out.set_name(node.name);
  out.set_state(engine::node_state(state_, node.index));
  const Reservation* reserved = state_.windows.open_on(node.index, now_);
  const std::string by_itself = reason_of(node.health);
  out.set_reason(node.drained                          ? node.drain_reason
                 : !by_itself.empty()                  ? by_itself
                 : node.contact != Contact::kConnected ? "not heard"
                 : node.health.is_suspect()            ? "suspect: it failed " + text_of(node.health.blames)
                 : reserved == nullptr                 ? ""
                                       : (reserved->maintenance ? "maintenance: " : "reserved: ") + reserved->name);
  out.set_drained_by(node.drained                            ? "operator"
                     : node.health.fault != NodeFault::kNone ? std::string(to_string(node.health.fault))
                     : !node.health.problems.empty()         ? "health"
                     : node.health.rests_until.is_set()      ? "failures"
                                                             : "");
  for (const HealthProblem& problem : node.health.problems) {
    wire::to_pb(problem, *out.add_checks());
  }
  out.set_health_since_us(node.health.since.us);
  for (const Blame& blame : node.health.blames) {
    wire::to_pb(blame, *out.add_blames());
  }
  out.set_rests_until_us(node.health.rests_until.us);
  out.set_cpus(capacity.all_cores.count());
  out.set_cpus_allocated((capacity.all_cores - capacity.free_cores).count());
  out.set_gpus(capacity.all_gpus.count());
  out.set_gpus_allocated((capacity.all_gpus - capacity.free_gpus).count());
  out.set_mem_mib(capacity.mem_mib);
  out.set_mem_allocated_mib(capacity.mem_mib - std::min(capacity.mem_mib, capacity.free_mem_mib));
  for (const JobId job : state_.jobs_on_node[node.index.value]) {
    out.add_jobs(job.value);
  }
  out.set_packages(node.hardware.packages);
  out.set_numa_nodes(node.hardware.numa_nodes);
  std::uint32_t threads = 0;
  for (const auto& core : node.hardware.cores) {
    threads += core.threads.count();
  }
  out.set_threads(threads);
  for (const auto& gpu : node.hardware.gpus) {
    fill_gpu(gpu, *out.add_gpu_list());
  }
  out.set_endpoint(node.endpoint);
  out.set_boot_id(node.boot_id);
  out.set_since_us(node.since.us);
  out.set_pretended(node.hardware.pretended);
  const auto places = state_.ledger.places(policy_.sites);
  const std::uint32_t rank = state_.ledger.rank(node.index);
  for (const auto& [feature, ranks] : places->features) {
    if (ranks.contains(rank)) {
      out.add_features(feature);
    }
  }
  out.set_topology_address(places->address_of(rank));
  for (const auto& queue : policy_.queues) {
    if (queue.nodes.empty() || std::find(queue.nodes.begin(), queue.nodes.end(), node.name) != queue.nodes.end()) {
      out.add_queues(queue.name);
    }
  }
  for (const EnforcedBy& one : node.enforcement) {
    wire::to_pb(one, *out.add_enforcement());
  }
  if (const topo::NodeClass* node_class = capacity.node_class.get(); with_topology && node_class != nullptr) {
    wire::to_pb(of_node(node_class->topology(), node.hardware), *out.mutable_topology());
  }
}

}  // namespace muster::ctld
