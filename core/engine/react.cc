// react: the effects of facts, and what is owed to a node.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "core/engine/dependency.h"
#include "core/engine/engine.h"
#include "core/engine/index.h"
#include "core/engine/launch.h"

namespace muster::engine {

LaunchOrder launch_order(const State& state, const Job& job, const Active& active, std::size_t rank) {
  LaunchOrder order;
  const NodeShare& share = active.nodes[rank].share;
  order.key = {job.id, job.attempt};
  order.term = state.term;
  order.node = state.nodes[share.node.value].name;
  order.node_rank = static_cast<std::uint32_t>(rank);
  order.spec = job.spec;
  order.share = share;
  for (const AttemptOnNode& on : active.nodes) {
    const Node& n = state.nodes[on.share.node.value];
    order.peers.push_back(Peer{.name = n.name,
                               .endpoint = n.endpoint,
                               .public_key = n.public_key,
                               .tasks = on.share.tasks,
                               .cpus = on.share.cores.count(),
                               .gpus = on.share.gpus.count()});
  }
  order.array = job.array;
  if (job.array != JobId{}) {
    order.array_index = job.spec->array->index_at(job.array_position);
  }
  order.submit_time = job.submit_time;
  if (active.time_limit != job.spec->time_limit) {
    order.time_limit = active.time_limit;
  }
  return order;
}

bool launch_is_due(const State& state, const Active& active, std::size_t rank) {
  return rank != 0 ||
         std::none_of(active.nodes.begin(), active.nodes.end(),
                      [&state](const AttemptOnNode& on) { return state.nodes[on.share.node.value].has_prolog; }) ||
         std::all_of(active.nodes.begin() + 1, active.nodes.end(),
                     [](const AttemptOnNode& on) { return on.phase != NodePhase::kLaunching; });
}

namespace {

bool is_connected(const State& state, NodeIndex node) {
  return node.value < state.nodes.size() && state.nodes[node.value].contact == Contact::kConnected;
}

StopOrder stop_order(const State& state, const Job& job, StopCause cause, std::int32_t signal) {
  // Nodes of the release before know no other reasons, and to a node it makes no difference.
  const bool newer = cause == StopCause::kPreempted || cause == StopCause::kRequeued || cause == StopCause::kDeadline;
  StopOrder order{.key = {job.id, job.attempt},
                  .term = state.term,
                  .cause = newer ? StopCause::kCancelled : cause,
                  .signal = signal};
  if (signal == 0) {
    const StopTerms& terms = std::get<Active>(job.phase).terms;
    order.notice_signal = terms.notice_signal;
    order.notice = terms.notice;
  }
  return order;
}

SuspendOrder suspend_order(const State& state, const Job& job, const Suspension& suspension) {
  return SuspendOrder{.key = {job.id, job.attempt},
                      .term = state.term,
                      .suspend = suspension.since.is_set(),
                      .number = suspension.orders,
                      .gives_cores = suspension.room_for != JobId{}};
}

// When the last node of the attempt was done: by its own clock, but within what the controller knows for sure, so that
// a clock that is wrong there does no harm. A result that waited for the controller ended before it was heard.
Instant end_of(const Active& active, Instant heard) {
  Instant end = active.start_time;
  for (const AttemptOnNode& on : active.nodes) {
    const bool known = on.outcome && on.outcome->ended_at.is_set();
    end = std::max(
        {end, known ? on.outcome->ended_at : heard, active.start_time + (known ? on.outcome->ran : Duration{})});
  }
  return std::min(end, heard);
}

LimitOrder limit_order(const State& state, const Job& job, const Active& active) {
  return LimitOrder{.key = {job.id, job.attempt}, .term = state.term, .time_limit = active.time_limit};
}

void add_proofs(const Active& active, JobSummary& out) {
  const auto has_proof = [](const AttemptOnNode& on) { return on.proof.has_value(); };
  if (std::any_of(active.nodes.begin(), active.nodes.end(), has_proof)) {
    for (const AttemptOnNode& on : active.nodes) {
      out.proofs.push_back(on.proof.value_or(PlacementProof{}));
    }
  }
}

// Of all nodes; of memory the highest peak, because the limit is one of each node.
Usage usage_of(const Active& active) {
  Usage sum;
  for (const AttemptOnNode& on : active.nodes) {
    if (!on.outcome) {
      continue;
    }
    const Usage& one = on.outcome->usage;
    sum.cpu = sum.cpu + one.cpu;
    sum.read_bytes += one.read_bytes;
    sum.written_bytes += one.written_bytes;
    sum.oom_kills += one.oom_kills;
    if (one.memory_peak_bytes > sum.memory_peak_bytes) {
      sum.memory_peak_bytes = one.memory_peak_bytes;
      sum.memory_limit_bytes = one.memory_limit_bytes;
    }
  }
  return sum;
}

JobSummary summary_of(const State& state, const Job& job, const JobEnded& f, Instant at) {
  JobSummary s;
  s.id = job.id;
  s.spec = job.spec;
  s.array = job.array;
  s.array_position = job.array_position;
  s.attempt = job.attempt;
  s.state = f.state;
  s.reason = f.reason;
  s.exit_code = f.exit_code;
  s.exit_signal = f.exit_signal;
  s.submit_time = job.submit_time;
  s.eligible_time = job.eligible_time;
  s.end_time = at;
  if (const auto* active = std::get_if<Active>(&job.phase)) {
    s.start_time = active->start_time;
    s.end_time = end_of(*active, at);
    s.usage = usage_of(*active);
    if (active->time_limit != job.spec->time_limit) {
      auto as_run = std::make_shared<JobSpec>(*job.spec);
      as_run->time_limit = active->time_limit;
      s.spec = std::move(as_run);
    }
    for (const AttemptOnNode& on : active->nodes) {
      s.shares.push_back(on.share);
      s.nodes.push_back(state.nodes[on.share.node.value].name);
    }
    add_proofs(*active, s);
  }
  return s;
}

void announce_array_end(const State& state, JobId array, bool was_there, Effects& out) {
  if (was_there && find_array(state, array) == nullptr) {
    out.emplace_back(AnnounceJob{.job = array, .whole_array = true, .state = JobState::kCompleted});
  }
}

// Effects of facts that begin something; `s` has seen the fact.
class React {
 public:
  React(const State& state, Effects& out) : s_(state), out_(out) {}

  void operator()(const NodeRegistered& f) {
    Effects owed = outstanding(s_, f.index);
    out_.insert(out_.end(), std::make_move_iterator(owed.begin()), std::make_move_iterator(owed.end()));
    // Without the prolog that it had, a first node elsewhere need not wait for it.
    if (!f.has_prolog) {
      for (const JobId id : s_.jobs_on_node[f.index.value]) {
        begin_first_node(s_.jobs.at(id), f.index, true);
      }
    }
  }
  void operator()(const AttemptStarted& f) {
    const Job* job = find_job(s_, f.job);
    if (job == nullptr || !job->is_active()) {
      return;
    }
    const Active& active = std::get<Active>(job->phase);
    for (std::size_t i = 0; i < active.nodes.size(); ++i) {
      const NodeIndex node = active.nodes[i].share.node;
      if (is_connected(s_, node) && launch_is_due(s_, active, i)) {
        out_.emplace_back(SendLaunch{.node = node, .order = launch_order(s_, *job, active, i)});
      }
    }
  }
  void operator()(const AttemptConfirmed& f) {
    const Job* job = find_job(s_, f.key.job);
    if (job != nullptr && job->is_active() && job->attempt == f.key.attempt) {
      begin_first_node(*job, f.node, false);
    }
    if (job != nullptr && job->state() == JobState::kRunning) {
      out_.emplace_back(AnnounceJob{.job = f.key.job, .whole_array = false, .state = JobState::kRunning});
    }
    // A limit that overtook the launch said nothing to a node that did not know the attempt.
    const auto* active = job == nullptr ? nullptr : std::get_if<Active>(&job->phase);
    if (active != nullptr && job->attempt == f.key.attempt && active->limit_changed &&
        active->stop == StopCause::kNone && is_connected(s_, f.node)) {
      out_.emplace_back(SendLimit{f.node, limit_order(s_, *job, *active)});
    }
    // An order that came before its launch found nothing to obey it.
    send_suspend(f.key, f.node);
  }
  void operator()(const AttemptEndedOnNode& f) { out_.emplace_back(AcknowledgeReport{f.node, f.key}); }
  void operator()(const StopRequested& f) {
    const Job* job = find_job(s_, f.key.job);
    if (job == nullptr || !job->is_active() || job->attempt != f.key.attempt) {
      return;
    }
    for (const AttemptOnNode& on : std::get<Active>(job->phase).nodes) {
      if (on.phase != NodePhase::kEnded && is_connected(s_, on.share.node)) {
        out_.emplace_back(SendStop{on.share.node, stop_order(s_, *job, f.cause, f.signal)});
      }
    }
  }
  void operator()(const AttemptTimeLimitChanged& f) {
    const Job* job = find_job(s_, f.key.job);
    if (job == nullptr || !job->is_active() || job->attempt != f.key.attempt) {
      return;
    }
    const Active& active = std::get<Active>(job->phase);
    for (const AttemptOnNode& on : active.nodes) {
      if (on.phase != NodePhase::kEnded && is_connected(s_, on.share.node)) {
        out_.emplace_back(SendLimit{on.share.node, limit_order(s_, *job, active)});
      }
    }
  }
  void operator()(const AttemptSuspended& f) { send_suspend(f.key, std::nullopt); }
  void operator()(const AttemptResumed& f) { send_suspend(f.key, std::nullopt); }
  template <typename Other>
  void operator()(const Other& /*fact*/) {}

 private:
  // The launch that waited for this one of the other nodes, if it is due now. Where nothing waits for anything, it has
  // been sent.
  void begin_first_node(const Job& job, NodeIndex after, bool waited) {
    const auto& active = std::get<Active>(job.phase);
    const AttemptOnNode& first = active.nodes.front();
    waited = waited || std::any_of(active.nodes.begin(), active.nodes.end(), [this](const AttemptOnNode& on) {
               return s_.nodes[on.share.node.value].has_prolog;
             });
    if (waited && first.share.node != after && first.phase == NodePhase::kLaunching &&
        active.stop == StopCause::kNone && is_connected(s_, first.share.node) && launch_is_due(s_, active, 0)) {
      out_.emplace_back(SendLaunch{.node = first.share.node, .order = launch_order(s_, job, active, 0)});
    }
  }

  // To one node of the attempt, or to all.
  void send_suspend(AttemptKey key, std::optional<NodeIndex> only) {
    const Job* job = find_job(s_, key.job);
    if (job == nullptr || !job->is_active() || job->attempt != key.attempt) {
      return;
    }
    const auto& active = std::get<Active>(job->phase);
    for (const AttemptOnNode& on : active.nodes) {
      if (active.suspension.orders != 0 && on.phase != NodePhase::kEnded && (!only || *only == on.share.node) &&
          is_connected(s_, on.share.node)) {
        out_.emplace_back(SendSuspend{on.share.node, suspend_order(s_, *job, active.suspension)});
      }
    }
  }

  const State& s_;
  Effects& out_;
};

void record_job(const State& before, const JobEnded& f, Instant at, Effects& out) {
  if (const Job* job = find_job(before, f.job)) {
    out.emplace_back(RecordHistory{summary_of(before, *job, f, at)});
    out.emplace_back(AnnounceJob{.job = f.job, .whole_array = false, .state = f.state});
  }
}

// The attempt alone has ended.
void record_attempt(const State& before, const JobRequeued& f, Instant at, Effects& out) {
  const Job* job = find_job(before, f.job);
  const auto* active = job == nullptr ? nullptr : std::get_if<Active>(&job->phase);
  if (active == nullptr) {
    return;
  }
  JobEnded end{.job = f.job, .state = f.state, .reason = f.reason};
  if (const auto& outcome = active->nodes.front().outcome) {
    end.exit_code = outcome->exit_code;
    end.exit_signal = outcome->signal;
  }
  JobSummary summary = summary_of(before, *job, end, at);
  summary.requeued = true;
  out.emplace_back(RecordHistory{std::move(summary)});
}

void record_tasks(const State& before, const ArrayTasksEnded& f, Instant at, Effects& out) {
  const Job* array = find_array(before, f.array);
  if (array == nullptr) {
    return;
  }
  for (const PositionRange& r : array->waiting) {
    std::uint64_t begin = std::max(r.begin, f.positions.begin);
    const std::uint64_t end = std::min(r.end, f.positions.end);
    const auto record = [&](std::uint64_t upto, Attempt attempt) {
      if (begin >= upto) {
        return;
      }
      JobEnded ended{.job = JobId{f.array.value + begin}, .state = f.state, .reason = f.reason};
      JobSummary s = summary_of(before, *array, ended, at);
      s.id = ended.job;
      s.array_position = begin;
      s.count = upto - begin;
      s.attempt = attempt;
      out.emplace_back(RecordHistory{std::move(s)});
      begin = upto;
    };
    // Those that ran before have rows of their own.
    for (const RequeuedTask& task : array->requeued) {
      if (begin <= task.position && task.position < end) {
        record(task.position, {});
        record(task.position + 1, task.attempt);
      }
    }
    record(end, {});
  }
}

// How much of its dependency keeps the record, or tasks of it, back.
std::uint64_t kept_back(const State& state, JobId id) {
  const Job* array = find_array(state, id);
  const Job* job = array != nullptr ? array : find_job(state, id);
  std::uint64_t n = 0;
  for (const OpenDependency& open : job != nullptr ? job->open : std::vector<OpenDependency>{}) {
    n += open.kind == DependencyKind::kAfterCorr ? count(open.corr_waits) : 1;
  }
  return n;
}

// Those of `dependents`, of which so much was kept back before, that may now start, or tasks of which may.
void announce_met(const State& state, const std::vector<std::pair<JobId, std::uint64_t>>& dependents, Effects& out) {
  for (const auto& [id, before] : dependents) {
    const Job* array = find_array(state, id);
    const Job* job = array != nullptr ? array : find_job(state, id);
    if (job != nullptr && !job->is_active() && !is_dependent(*job) && kept_back(state, id) < before) {
      out.emplace_back(DependencyMet{id, job->spec->begin});
    }
  }
}

}  // namespace

void apply(State& state, const Fact& fact, Effects& effects) {
  JobId array;
  if (const auto* ended = std::get_if<JobEnded>(&fact.body)) {
    if (const Job* job = find_job(state, ended->job)) {
      array = job->array;
    }
    record_job(state, *ended, fact.at, effects);
  } else if (const auto* tasks = std::get_if<ArrayTasksEnded>(&fact.body)) {
    array = tasks->array;
    record_tasks(state, *tasks, fact.at, effects);
  }
  std::vector<std::pair<JobId, std::uint64_t>> dependents;
  for (const JobId id : dependents_of(state, fact)) {
    dependents.emplace_back(id, kept_back(state, id));
  }
  if (const auto* requeued = std::get_if<JobRequeued>(&fact.body)) {
    record_attempt(state, *requeued, fact.at, effects);
  }
  const bool was_there = array != JobId{} && find_array(state, array) != nullptr;
  evolve(state, fact);
  std::visit(React(state, effects), fact.body);
  announce_array_end(state, array, was_there, effects);
  announce_met(state, dependents, effects);
}

Effects outstanding(const State& state, NodeIndex node) {
  Effects out;
  if (!is_connected(state, node)) {
    return out;
  }
  for (const JobId id : state.jobs_on_node[node.value]) {
    const Job& job = state.jobs.at(id);
    const Active& active = std::get<Active>(job.phase);
    for (std::size_t i = 0; i < active.nodes.size(); ++i) {
      const AttemptOnNode& on = active.nodes[i];
      if (on.share.node != node || on.phase == NodePhase::kEnded) {
        continue;
      }
      if (active.stop == StopCause::kNone && active.suspension.orders != 0 && on.phase == NodePhase::kStarted) {
        out.emplace_back(SendSuspend{node, suspend_order(state, job, active.suspension)});
      }
      if (active.stop != StopCause::kNone) {
        out.emplace_back(SendStop{node, stop_order(state, job, active.stop, 0)});
      } else if (on.phase == NodePhase::kLaunching && launch_is_due(state, active, i)) {
        out.emplace_back(SendLaunch{.node = node, .order = launch_order(state, job, active, i)});
      }
      // Also behind a launch: the node may have begun it before the limit was changed.
      if (active.stop == StopCause::kNone && active.limit_changed) {
        out.emplace_back(SendLimit{node, limit_order(state, job, active)});
      }
    }
  }
  return out;
}

bool is_owed(const State& state, NodeIndex node, const LaunchOrder& launch) {
  const Job* job = find_job(state, launch.key.job);
  if (job == nullptr || job->attempt != launch.key.attempt || !job->is_active()) {
    return false;
  }
  const Active& active = std::get<Active>(job->phase);
  return active.stop == StopCause::kNone &&
         std::any_of(active.nodes.begin(), active.nodes.end(), [node](const AttemptOnNode& on) {
           return on.share.node == node && on.phase == NodePhase::kLaunching;
         });
}

}  // namespace muster::engine
