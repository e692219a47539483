#include "core/agent/agent.h"

#include <iterator>
#include <utility>

namespace muster::agent {
namespace {

AttemptReport ended_report(AttemptKey key, const Outcome& outcome) {
  return AttemptReport{.key = key, .ended = true, .outcome = outcome};
}

Outcome refused(std::string detail) {
  return Outcome{.cause = EndCause::kLaunchFailed, .exit_code = 0, .signal = 0, .detail = std::move(detail), .ran = {}};
}

// The newest attempt of the job that the map knows.
template <typename Map>
typename Map::const_iterator newest_of(const Map& map, JobId job) {
  auto it = map.upper_bound(AttemptKey{job, Attempt{UINT32_MAX}});
  if (it == map.begin()) return map.end();
  --it;
  return it->first.job == job ? it : map.end();
}

void remember_forgotten(AgentState& state, AttemptKey key, Outcome outcome) {
  if (!state.forgotten.emplace(key, std::move(outcome)).second) return;
  state.forgotten_order.push_back(key);
  while (state.forgotten_order.size() > kForgottenMax) {
    state.forgotten.erase(state.forgotten_order.front());
    state.forgotten_order.pop_front();
  }
}

// Makes the end of an attempt that never began here known: on disk first, then to the controller.
void end_unbegun(AgentState& state, AttemptKey key, std::shared_ptr<const LaunchOrder> order, StopCause stop,
                 const Outcome& outcome, AgentEffects& effects) {
  AgentAttempt& attempt = state.attempts[key];
  attempt.order = std::move(order);
  attempt.phase = AttemptPhase::kEnded;
  attempt.stop = stop;
  attempt.pending_signal = 0;
  attempt.outcome = outcome;
  effects.push_back(RecordEnd{key, outcome});
  effects.push_back(SendReport{ended_report(key, outcome)});
}

// Why a launch of an attempt that the node does not know must not start it; empty when it may.
std::string refusal_of(const AgentState& state, const LaunchOrder& order) {
  const AttemptKey key = order.key;
  if (order.node != state.node) {
    return "the launch was for node '" + order.node + "', this is '" + state.node + "'";
  }
  const std::string superseded = "a newer attempt of this job is known here: attempt ";
  if (auto newest = newest_of(state.attempts, key.job); newest != state.attempts.end()) {
    const std::string number = std::to_string(newest->first.attempt.value);
    if (newest->first.attempt > key.attempt) return superseded + number;
    // The controller launches a new attempt only after the old one has ended everywhere, so this is never taken unless
    // the controller is wrong; two attempts side by side would be worse than a failed one.
    if (newest->second.phase != AttemptPhase::kEnded) return "attempt " + number + " of this job still runs here";
  }
  if (auto newest = newest_of(state.forgotten, key.job); newest != state.forgotten.end()) {
    if (newest->first.attempt > key.attempt) return superseded + std::to_string(newest->first.attempt.value);
  }
  return {};
}

// Whether a launch starts nothing because the attempt is known, or because there is no room for another.
bool answered_launch(const AgentState& state, AttemptKey key, AgentEffects& effects) {
  if (auto known = state.attempts.find(key); known != state.attempts.end()) {
    // What is still starting reports itself when it has begun.
    if (known->second.phase != AttemptPhase::kStarting) {
      effects.push_back(SendReport{report_of(key, known->second)});
    }
    return true;
  }
  if (auto known = state.forgotten.find(key); known != state.forgotten.end()) {
    effects.push_back(SendReport{ended_report(key, known->second)});
    return true;
  }
  if (state.attempts.size() >= kAttemptsMax) {
    effects.push_back(NoteRefusal{key, "launch dropped: the node keeps as many attempts as it may"});
    return true;
  }
  return false;
}

std::string name_of(const TaskProof& task) {
  return task.step == kScriptStep ? "the batch script"
                                  : "task " + std::to_string(task.rank) + " of step " + std::to_string(task.step);
}

// Counts the task in. True: it is listed, because it is the script, of the first step, or a fault, and there was room.
bool add_to_proof(PlacementProof& proof, const Verdict& verdict, std::size_t room) {
  const bool fault = !verdict.fault.empty();
  proof.pretended = verdict.pretended;
  ++proof.tasks;
  proof.faults += fault ? 1 : 0;
  if (fault && proof.fault.empty()) {
    proof.fault = (name_of(verdict.proof) + ": " + verdict.fault).substr(0, kProofFaultBytesMax);
  }
  const std::uint32_t step = verdict.proof.step;
  const bool wanted = step == kScriptStep || proof.list.empty() || proof.list.back().step == kScriptStep ||
                      proof.list.back().step == step;
  const bool listed = (wanted && proof.list.size() < room) ||
                      (fault && proof.faults <= kProofFaultsMax && proof.list.size() < kProofTasksMax);
  if (listed) proof.list.push_back(verdict.proof);
  return listed;
}

}  // namespace

AgentState initial_state(std::string node, Term recorded) {
  AgentState state;
  state.node = std::move(node);
  state.highest_term = recorded;
  return state;
}

AttemptReport report_of(AttemptKey key, const AgentAttempt& attempt) {
  AttemptReport report;
  if (attempt.phase == AttemptPhase::kEnded) {
    report = ended_report(key, attempt.outcome);
  } else {
    report = AttemptReport{.key = key, .ended = false, .outcome = {}, .stands_still = attempt.stood_still};
  }
  report.proof = attempt.proof;
  return report;
}

SuspendAttempt suspend_effect(AttemptKey key, const AgentAttempt& attempt) {
  return SuspendAttempt{
      .key = key, .suspend = attempt.suspended, .gives_cores = attempt.gives_cores, .number = attempt.suspend_number};
}

AgentEffects recover(AgentState& state, AttemptKey key, std::shared_ptr<const LaunchOrder> order, const Found& found) {
  AgentEffects effects;
  if (state.attempts.contains(key)) return effects;
  AgentAttempt attempt;
  attempt.order = std::move(order);
  if (const auto* ended = std::get_if<FoundEnded>(&found)) {
    attempt.phase = AttemptPhase::kEnded;
    attempt.outcome = ended->outcome;
  } else if (std::holds_alternative<FoundStarting>(found) && attempt.order != nullptr) {
    attempt.phase = AttemptPhase::kStarting;
  } else if (std::holds_alternative<FoundRunning>(found) || std::holds_alternative<FoundStarting>(found)) {
    attempt.phase = AttemptPhase::kRunning;
  } else if (attempt.order == nullptr) {
    // Nothing is there to start it from; it never began, so it may end as a failed launch.
    end_unbegun(state, key, nullptr, StopCause::kNone, refused("the launch record was unreadable after a restart"),
                effects);
    return effects;
  } else {
    attempt.phase = AttemptPhase::kStarting;
    effects.push_back(StartAttempt{attempt.order});
  }
  state.attempts.emplace(key, std::move(attempt));
  return effects;
}

std::vector<AttemptReport> registered_attempts(const AgentState& state) {
  std::vector<AttemptReport> reports;
  for (const auto& [key, attempt] : state.attempts) {
    if (attempt.phase != AttemptPhase::kStarting) reports.push_back(report_of(key, attempt));
  }
  return reports;
}

bool hear_term(AgentState& state, Term term, AgentEffects& effects) {
  if (term < state.highest_term) return false;
  if (term > state.highest_term) {
    state.highest_term = term;
    effects.push_back(RecordTerm{term});
  }
  return true;
}

AgentEffects on_launch(AgentState& state, const std::shared_ptr<const LaunchOrder>& order) {
  AgentEffects effects;
  const AttemptKey key = order->key;
  if (!hear_term(state, order->term, effects)) {
    effects.push_back(NoteRefusal{key, "launch of an older controller ignored"});
    return effects;
  }
  if (answered_launch(state, key, effects)) return effects;
  if (std::string reason = refusal_of(state, *order); !reason.empty()) {
    effects.push_back(NoteRefusal{key, reason});
    end_unbegun(state, key, nullptr, StopCause::kNone, refused(std::move(reason)), effects);
    return effects;
  }
  AgentAttempt attempt;
  attempt.order = order;
  state.attempts.emplace(key, std::move(attempt));
  effects.push_back(StartAttempt{order});
  return effects;
}

AgentEffects on_launch_refused(AgentState& state, AttemptKey key, std::string reason) {
  AgentEffects effects;
  if (answered_launch(state, key, effects)) return effects;
  effects.push_back(NoteRefusal{key, reason});
  end_unbegun(state, key, nullptr, StopCause::kNone, refused(std::move(reason)), effects);
  return effects;
}

AgentEffects on_stop(AgentState& state, const StopOrder& order) {
  AgentEffects effects;
  const AttemptKey key = order.key;
  const StopCause cause = order.cause == StopCause::kNone ? StopCause::kCancelled : order.cause;
  if (!hear_term(state, order.term, effects)) {
    effects.push_back(NoteRefusal{key, "stop of an older controller ignored"});
    return effects;
  }
  if (auto known = state.forgotten.find(key); known != state.forgotten.end()) {
    effects.push_back(SendReport{ended_report(key, known->second)});
    return effects;
  }
  auto it = state.attempts.find(key);
  if (it == state.attempts.end()) {
    // A signal alone has nobody to go to. A stop must make a launch that is still on its way do nothing.
    if (order.signal != 0) return effects;
    if (state.attempts.size() >= kAttemptsMax) {
      effects.push_back(NoteRefusal{key, "stop dropped: the node keeps as many attempts as it may"});
      return effects;
    }
    const Outcome outcome{
        .cause = EndCause::kCancelled, .exit_code = 0, .signal = 0, .detail = "stopped before it started", .ran = {}};
    end_unbegun(state, key, nullptr, cause, outcome, effects);
    return effects;
  }
  AgentAttempt& attempt = it->second;
  switch (attempt.phase) {
    case AttemptPhase::kStarting:
      // The shepherd is told as soon as it is there to be told (on_started).
      if (order.signal == 0) {
        attempt.stop = cause;
        attempt.notice_signal = order.notice_signal;
        attempt.notice = order.notice;
      } else {
        attempt.pending_signal = order.signal;
      }
      break;
    case AttemptPhase::kRunning:
    case AttemptPhase::kStopping:
      if (order.signal == 0) {
        attempt.phase = AttemptPhase::kStopping;
        attempt.stop = cause;
        attempt.notice_signal = order.notice_signal;
        attempt.notice = order.notice;
      }
      effects.push_back(StopAttempt{key, order.signal, cause, order.notice_signal, order.notice});
      break;
    case AttemptPhase::kEnded:
      effects.push_back(SendReport{report_of(key, attempt)});
      break;
  }
  return effects;
}

AgentEffects on_limit(AgentState& state, const LimitOrder& order) {
  AgentEffects effects;
  if (!hear_term(state, order.term, effects)) {
    effects.push_back(NoteRefusal{order.key, "time limit of an older controller ignored"});
    return effects;
  }
  const auto it = state.attempts.find(order.key);
  if (it == state.attempts.end() || it->second.phase == AttemptPhase::kEnded) return effects;
  it->second.limit = order.time_limit;
  if (it->second.phase != AttemptPhase::kStarting) effects.push_back(SetLimit{order.key, order.time_limit});
  return effects;
}

AgentEffects on_suspend(AgentState& state, const SuspendOrder& order) {
  AgentEffects effects;
  if (!hear_term(state, order.term, effects)) {
    effects.push_back(NoteRefusal{order.key, "suspension by an older controller ignored"});
    return effects;
  }
  auto it = state.attempts.find(order.key);
  if (it == state.attempts.end() || it->second.phase == AttemptPhase::kEnded ||
      order.number < it->second.suspend_number) {
    return effects;
  }
  it->second.suspend_number = order.number;
  it->second.suspended = order.suspend;
  it->second.gives_cores = order.suspend && order.gives_cores;
  if (it->second.stood_still != order.number) it->second.stood_still = 0;
  // What is still starting is told as soon as it is there to be told (on_started).
  if (it->second.phase == AttemptPhase::kRunning) effects.push_back(suspend_effect(order.key, it->second));
  return effects;
}

AgentEffects on_acknowledged(AgentState& state, AttemptKey key) {
  AgentEffects effects;
  auto it = state.attempts.find(key);
  if (it == state.attempts.end() || it->second.phase != AttemptPhase::kEnded) return effects;
  remember_forgotten(state, key, std::move(it->second.outcome));
  state.attempts.erase(it);
  effects.push_back(ForgetAttempt{key});
  return effects;
}

AgentEffects on_started(AgentState& state, AttemptKey key) {
  AgentEffects effects;
  auto it = state.attempts.find(key);
  if (it == state.attempts.end() || it->second.phase != AttemptPhase::kStarting) return effects;
  AgentAttempt& attempt = it->second;
  attempt.phase = AttemptPhase::kRunning;
  effects.push_back(SendReport{report_of(key, attempt)});
  if (attempt.limit) effects.push_back(SetLimit{key, *attempt.limit});
  if (attempt.pending_signal != 0) {
    effects.push_back(StopAttempt{key, attempt.pending_signal, StopCause::kNone});
    attempt.pending_signal = 0;
  }
  if (attempt.stop != StopCause::kNone) {
    attempt.phase = AttemptPhase::kStopping;
    effects.push_back(StopAttempt{key, 0, attempt.stop, attempt.notice_signal, attempt.notice});
  } else if (attempt.suspended) {
    effects.push_back(suspend_effect(key, attempt));
  }
  return effects;
}

AgentEffects on_stood_still(AgentState& state, AttemptKey key, std::uint64_t number) {
  AgentEffects effects;
  const auto it = state.attempts.find(key);
  // Of an older order, or of an attempt that ends: the controller counts on it no more.
  if (it == state.attempts.end() || it->second.phase != AttemptPhase::kRunning || !it->second.gives_cores ||
      number != it->second.suspend_number) {
    return effects;
  }
  it->second.stood_still = number;
  effects.push_back(SendReport{report_of(key, it->second)});
  return effects;
}

AgentEffects on_proven(AgentState& state, AttemptKey key, const Verdict& verdict, bool more) {
  AgentEffects effects;
  const auto it = state.attempts.find(key);
  if (it == state.attempts.end() || it->second.phase == AttemptPhase::kEnded || it->second.order == nullptr) {
    return effects;
  }
  AgentAttempt& attempt = it->second;
  if (!attempt.proof) attempt.proof.emplace();
  const bool listed = add_to_proof(*attempt.proof, verdict, proof_tasks_max(attempt.order->peers.size()));
  const bool first_fault = !verdict.fault.empty() && attempt.proof->faults == 1;
  // What is still starting is told of with its start.
  if ((first_fault || (listed && !more)) && attempt.phase != AttemptPhase::kStarting) {
    effects.push_back(SendReport{report_of(key, attempt)});
  }
  return effects;
}

AgentEffects on_launch_failed(AgentState& state, AttemptKey key, Outcome outcome) {
  AgentEffects effects;
  auto it = state.attempts.find(key);
  if (it == state.attempts.end() || it->second.phase != AttemptPhase::kStarting) return effects;
  end_unbegun(state, key, it->second.order, it->second.stop, outcome, effects);
  return effects;
}

AgentEffects on_ended(AgentState& state, AttemptKey key, Outcome outcome) {
  AgentEffects effects;
  auto it = state.attempts.find(key);
  if (it == state.attempts.end() || it->second.phase == AttemptPhase::kEnded) return effects;
  AgentAttempt& attempt = it->second;
  attempt.phase = AttemptPhase::kEnded;
  attempt.stood_still = 0;
  attempt.pending_signal = 0;
  attempt.outcome = std::move(outcome);
  effects.push_back(SendReport{report_of(key, attempt)});
  return effects;
}

AgentEffects retry_reports(const AgentState& state, std::size_t max) {
  AgentEffects effects;
  for (const auto& [key, attempt] : state.attempts) {
    if (effects.size() >= max) break;
    if (attempt.phase == AttemptPhase::kEnded) effects.push_back(SendReport{report_of(key, attempt)});
  }
  return effects;
}

std::string check_invariants(const AgentState& state) {
  const auto name = [](AttemptKey key) {
    return "attempt " + std::to_string(key.attempt.value) + " of job " + std::to_string(key.job.value);
  };
  if (state.attempts.size() > kAttemptsMax) return "more attempts than kAttemptsMax";
  if (state.forgotten.size() > kForgottenMax) return "more forgotten ends than kForgottenMax";
  if (state.forgotten.size() != state.forgotten_order.size()) return "forgotten and forgotten_order differ";
  for (const AttemptKey& key : state.forgotten_order) {
    if (!state.forgotten.contains(key)) return name(key) + " is in forgotten_order alone";
    if (state.attempts.contains(key)) return name(key) + " is both known and forgotten";
  }
  JobId live_job;  // job of the last attempt seen that has not ended
  bool live = false;
  for (const auto& [key, attempt] : state.attempts) {
    if (attempt.phase == AttemptPhase::kEnded) continue;
    if (live && live_job == key.job) return "two attempts of job " + std::to_string(key.job.value) + " are alive";
    live = true;
    live_job = key.job;
    if (attempt.phase == AttemptPhase::kStarting && attempt.order == nullptr) {
      return name(key) + " is starting without an order";
    }
    if (attempt.order != nullptr && attempt.order->key != key) return name(key) + " has the order of another attempt";
    if (attempt.phase == AttemptPhase::kStopping && attempt.stop == StopCause::kNone) {
      return name(key) + " is stopping without a cause";
    }
  }
  return {};
}

}  // namespace muster::agent
