// The planner's and the users' view of the pending jobs.
#include <algorithm>

#include "core/engine/engine.h"
#include "core/sched/place.h"

namespace muster::engine {
namespace {

const Job& record_of(const State& state, JobId id) {
  const auto array = state.arrays.find(id);
  return array != state.arrays.end() ? array->second : state.jobs.at(id);
}

// Merges the queues' orders; a queue that is skipped costs nothing more.
void walk_pending(const State& state, const sched::PendingVisitor& visitor) {
  struct Cursor {
    std::set<PendingKey>::const_iterator at;
    std::set<PendingKey>::const_iterator end;
  };
  std::vector<Cursor> cursors;
  for (const auto& [queue, keys] : state.pending) {
    cursors.push_back({keys.begin(), keys.end()});
  }
  while (true) {
    Cursor* first = nullptr;
    for (Cursor& c : cursors) {
      if (c.at != c.end && (first == nullptr || *c.at < *first->at)) {
        first = &c;
      }
    }
    if (first == nullptr) {
      return;
    }
    const Job& job = record_of(state, first->at->id);
    ++first->at;
    switch (visitor(job)) {
      case sched::Visit::kNext:
        break;
      case sched::Visit::kSkipQueue:
        first->at = first->end;
        break;
      case sched::Visit::kStop:
        return;
    }
  }
}

}  // namespace

sched::Plan plan(const State& state, const sched::Policy& policy, sched::WorkBudget budget, Instant now) {
  if (state.pending.empty()) {
    return {};
  }
  return sched::schedule(
      state.ledger, [&state](const sched::PendingVisitor& visitor) { walk_pending(state, visitor); }, policy, budget, now);
}

Explainer::Explainer(const State& state, const sched::Policy& policy, Instant now)
    : state_(state), policy_(policy), now_(now) {
  // The pass that would run now tells which job blocks each queue.
  const sched::Draft draft(state.ledger);
  walk_pending(state, [this, &draft](const Job& job) {
    if (job.spec->begin > now_ || sched::at_array_limit(job, 0)) {
      return sched::Visit::kNext;
    }
    const sched::QueuePolicy* q = policy_.find_queue(job.spec->queue);
    if (q == nullptr || !q->starts) {
      return sched::Visit::kSkipQueue;
    }
    const std::vector<std::string>& allowed = q->nodes;
    if (sched::place(draft, *job.spec, allowed, sched::Assume::kFreeNow).shares.empty() &&
        !sched::place(draft, *job.spec, allowed, sched::Assume::kUsableEmpty).shares.empty()) {
      first_blocked_.emplace(job.spec->queue, job.id);
      return sched::Visit::kSkipQueue;
    }
    return sched::Visit::kNext;
  });
}

sched::Reason Explainer::reason(const Job& job) const {
  const auto blocked = first_blocked_.find(job.spec->queue);
  const Job* first = blocked == first_blocked_.end() ? nullptr : &record_of(state_, blocked->second);
  const bool behind = first != nullptr && (std::pair(-first->priority, first->submit_time) <
                                               std::pair(-job.priority, job.submit_time) ||
                                           (first->priority == job.priority && first->submit_time == job.submit_time &&
                                            first->id < job.id));
  return sched::explain(state_.ledger, job, behind ? first : nullptr, policy_, now_);
}

std::string node_state(const State& state, NodeIndex node) {
  const Node& n = state.nodes[node.value];
  if (n.contact != Contact::kConnected) {
    return n.contact == Contact::kNever ? "down" : "unreachable";
  }
  const sched::NodeCapacity& c = state.ledger.nodes()[node.value];
  if (n.drained) {
    return state.jobs_on_node[node.value].empty() ? "drained" : "draining";
  }
  if (state.jobs_on_node[node.value].empty()) {
    return "idle";
  }
  return c.free_cores.empty() ? "allocated" : "mixed";
}

}  // namespace muster::engine
