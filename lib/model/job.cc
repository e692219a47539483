#include "lib/model/job.h"

#include <algorithm>
#include <tuple>

#include "lib/model/fact.h"
#include "lib/model/orders.h"

namespace muster {
namespace {

// Specs are shared objects: equal when they are the same one, or say the same.
bool same_spec(const JobSpecPtr& a, const JobSpecPtr& b) {
  return a == b || (a != nullptr && b != nullptr && *a == *b);
}

}  // namespace

JobState Job::state() const {
  const auto* active = std::get_if<Active>(&phase);
  if (active == nullptr) return JobState::kPending;
  const bool all_ended = std::all_of(active->nodes.begin(), active->nodes.end(),
                                     [](const AttemptOnNode& node) { return node.phase == NodePhase::kEnded; });
  // A stop with a signal of the user's choice only delivers it: the job goes on.
  if (active->stop != StopCause::kNone && active->stop_signal == 0 && !all_ended) return JobState::kStopping;
  if (active->suspension.since.is_set()) return JobState::kSuspended;
  return active->started ? JobState::kRunning : JobState::kStarting;
}

bool operator==(const Job& a, const Job& b) {
  const auto rest = [](const Job& j) {
    return std::tie(j.id, j.submit_time, j.eligible_time, j.priority, j.held, j.attempt, j.array, j.array_position,
                    j.is_array_record, j.waiting, j.array_running, j.array_started, j.array_failed, j.failed_positions,
                    j.held_positions, j.open, j.requeued, j.last_end, j.node_faults, j.promised_start, j.promised_place,
                    j.phase);
  };
  return rest(a) == rest(b) && same_spec(a.spec, b.spec);
}

void Job::forget_promise() {
  promised_start = {};
  promised_place.clear();
}

bool waits_as_a_whole(const Job& job) {
  return std::any_of(job.open.begin(), job.open.end(),
                     [](const OpenDependency& o) { return o.kind != DependencyKind::kAfterCorr; });
}

bool has_barred(const Job& array) {
  return !array.held_positions.empty() ||
         std::any_of(array.open.begin(), array.open.end(),
                     [](const OpenDependency& o) { return o.kind == DependencyKind::kAfterCorr; });
}

Positions startable(const Job& array) {
  Positions out = without(array.waiting, array.held_positions);
  for (const OpenDependency& open : array.open) {
    if (open.kind == DependencyKind::kAfterCorr) {
      out = without(without(out, open.corr_waits), open.corr_never);
    }
  }
  return out;
}

bool operator==(const JobSummary& a, const JobSummary& b) {
  const auto rest = [](const JobSummary& s) {
    return std::tie(s.id, s.array, s.array_position, s.count, s.attempt, s.state, s.reason, s.exit_code, s.exit_signal,
                    s.submit_time, s.eligible_time, s.start_time, s.end_time, s.shares, s.nodes, s.requeued, s.proofs,
                    s.usage);
  };
  return rest(a) == rest(b) && same_spec(a.spec, b.spec);
}

bool operator==(const JobSubmitted& a, const JobSubmitted& b) {
  return std::tie(a.id, a.request, a.priority) == std::tie(b.id, b.request, b.priority) && same_spec(a.spec, b.spec);
}

bool operator==(const JobUpdated& a, const JobUpdated& b) {
  return std::tie(a.job, a.attempt, a.priority) == std::tie(b.job, b.attempt, b.priority) && same_spec(a.spec, b.spec);
}

Duration time_limit_of(const LaunchOrder& order) {
  return order.time_limit == Duration{} ? order.spec->time_limit : order.time_limit;
}

bool operator==(const LaunchOrder& a, const LaunchOrder& b) {
  const auto rest = [](const LaunchOrder& o) {
    return std::tie(o.key, o.term, o.node, o.node_rank, o.share, o.peers, o.array, o.array_index, o.submit_time,
                    o.lease, o.time_limit);
  };
  return rest(a) == rest(b) && same_spec(a.spec, b.spec);
}

}  // namespace muster
