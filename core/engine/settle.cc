#include "core/engine/settle.h"

#include <algorithm>

#include "core/engine/running.h"

namespace muster::engine {
namespace {

std::string signal_text(std::int32_t signal) {
  return "signal " + std::to_string(signal);
}

std::string with_detail(std::string word, const std::string& detail) {
  return detail.empty() ? word : word + ": " + detail;
}

const AttemptOnNode* first_with(const Active& active, EndCause cause) {
  for (const AttemptOnNode& on : active.nodes) {
    if (on.outcome && on.outcome->cause == cause) {
      return &on;
    }
  }
  return nullptr;
}

// A failure of Muster's own work on some node, which decides the job's fate before the script's own end does.
const AttemptOnNode* failed_node(const Active& active) {
  for (const EndCause cause :
       {EndCause::kNodeLost, EndCause::kLaunchFailed, EndCause::kOutputFailed, EndCause::kShepherdDied}) {
    if (const AttemptOnNode* on = first_with(active, cause)) {
      return on;
    }
  }
  return nullptr;
}

// Where the kernel killed a process of the job for memory, if it did. That decides also when the script took no notice of
// it, or when it was on another node than the script's.
const AttemptOnNode* out_of_memory(const Active& active) {
  for (const AttemptOnNode& on : active.nodes) {
    if (on.outcome && (on.outcome->cause == EndCause::kOutOfMemory || on.outcome->usage.oom_kills != 0)) {
      return &on;
    }
  }
  return nullptr;
}

bool by_itself(const Active& active, const Outcome& outcome) {
  return (active.stop == StopCause::kNone || active.stop == StopCause::kScriptEnded) &&
         (outcome.cause == EndCause::kExited || outcome.cause == EndCause::kSignalled);
}

// Whether the attempt was given a shorter limit because its deadline comes then. Limits are whole seconds.
bool ran_to_deadline(const State& state, JobId id, const Active& active) {
  const Job* job = find_job(state, id);
  return job != nullptr && job->spec->deadline.is_set() && active.time_limit < job->spec->time_limit &&
         active.start_time + active.time_limit + Duration::from_s(1) > job->spec->deadline;
}

}  // namespace

JobEnded job_end(const State& state, JobId job, const Active& active) {
  JobEnded end;
  end.job = job;
  const AttemptOnNode* decisive = &active.nodes.front();
  if (active.stop == StopCause::kNodeFailed) {
    if (const AttemptOnNode* failed = failed_node(active)) {
      decisive = failed;
    }
  }
  const Outcome& o = *decisive->outcome;
  const std::string node = state.nodes[decisive->share.node.value].name;
  end.exit_code = o.exit_code;
  end.exit_signal = o.signal;
  if (active.stop == StopCause::kCancelled && (o.cause == EndCause::kNodeLost || o.cause == EndCause::kShepherdDied)) {
    // It was to end, and it did: how is no failure of the job.
    end.state = JobState::kCancelled;
    end.reason = "Cancelled: " + (active.stop_by.empty() ? "" : "by " + active.stop_by + "; ") + node + ": " + o.detail;
    return end;
  }
  if (active.stop == StopCause::kPreempted && ended_by_stop(active, o)) {
    end.state = JobState::kPreempted;
    end.reason = preempted_reason(active);
    return end;
  }
  const AttemptOnNode* full = out_of_memory(active);
  if (full != nullptr && (by_itself(active, o) || o.cause == EndCause::kOutOfMemory)) {
    const std::string& detail = full->outcome->detail;
    end.state = JobState::kOutOfMemory;
    end.reason =
        with_detail("OutOfMemory", detail.empty() ? "" : state.nodes[full->share.node.value].name + ": " + detail);
    return end;
  }
  switch (o.cause) {
    case EndCause::kExited:
      end.state = o.exit_code == 0 ? JobState::kCompleted : JobState::kFailed;
      end.reason = with_detail(o.exit_code == 0 ? "None" : "NonZeroExitCode",
                               o.exit_code == 0   ? o.detail
                               : o.detail.empty() ? "exit code " + std::to_string(o.exit_code)
                                                  : o.detail);
      break;
    case EndCause::kSignalled:
      end.state = JobState::kFailed;
      end.reason = with_detail("Signalled", o.detail.empty() ? signal_text(o.signal) : o.detail);
      break;
    case EndCause::kCancelled:
      if (active.stop == StopCause::kNodeFailed) {
        end.state = JobState::kNodeFailed;
        end.reason = "NodeFail";
      } else if (active.stop == StopCause::kDeadline) {
        end.state = JobState::kDeadline;
        end.reason = "DeadLine: it was stopped at its deadline";
      } else {
        end.state = JobState::kCancelled;
        // Nobody ordered it: its node gave it up, because its client was lost.
        end.reason = with_detail("Cancelled", !active.stop_by.empty()           ? "by " + active.stop_by
                                              : active.stop == StopCause::kNone ? o.detail
                                                                                : "");
      }
      break;
    case EndCause::kTimeLimit:
      end.state = JobState::kTimeout;
      end.reason = with_detail("TimeLimit", o.detail);
      if (ran_to_deadline(state, job, active)) {
        end.state = JobState::kDeadline;
        end.reason = "DeadLine: it was stopped at its deadline";
      }
      break;
    case EndCause::kOutOfMemory:  // above
    case EndCause::kLaunchFailed:
      end.state = JobState::kFailed;
      end.reason = with_detail("LaunchFailed", node + ": " + o.detail);
      break;
    case EndCause::kOutputFailed:
      end.state = JobState::kFailed;
      end.reason = with_detail("OutputFailed", node + ": " + o.detail);
      break;
    case EndCause::kNodeLost:
      end.state = JobState::kNodeFailed;
      end.reason = with_detail("NodeFail", node + ": " + o.detail);
      break;
    case EndCause::kShepherdDied:
      end.state = JobState::kFailed;
      end.reason = with_detail("ShepherdDied", node + ": " + o.detail);
      break;
  }
  if (end.reason == "None") {
    end.reason.clear();
  }
  return end;
}

Active* Settlement::active_of(AttemptKey key) {
  const auto it = touched_.find(key.job);
  if (it != touched_.end() && find_job(s_, key.job)->attempt == key.attempt) {
    return &it->second;
  }
  const Job* job = ended_.contains(key.job) ? nullptr : find_job(s_, key.job);
  if (job == nullptr || job->attempt != key.attempt || !job->is_active()) {
    return nullptr;
  }
  return &touched_.emplace(key.job, std::get<Active>(job->phase)).first->second;
}

void Settlement::report(NodeIndex node, const AttemptReport& report) {
  Active* active = active_of(report.key);
  const auto not_ours = [&] {
    if (report.ended) {
      d_.effects.emplace_back(AcknowledgeReport{node, report.key});
    } else {
      // It runs something that is over for the controller: an old attempt, or a job that was ended without it.
      d_.effects.emplace_back(
          SendStop{node, StopOrder{.key = report.key, .term = s_.term, .cause = StopCause::kCancelled, .signal = 0}});
    }
  };
  if (active == nullptr) {
    not_ours();
    return;
  }
  const auto on = std::find_if(active->nodes.begin(), active->nodes.end(),
                               [node](const AttemptOnNode& a) { return a.share.node == node; });
  if (on == active->nodes.end() || on->phase == NodePhase::kEnded) {
    not_ours();
    return;
  }
  if (report.ended) {
    proven(report.key, *on, report.proof);
    ended(node, report.key, *active, report.outcome);
    return;
  }
  if (on->phase == NodePhase::kLaunching) {
    on->phase = NodePhase::kStarted;
    fact(AttemptConfirmed{report.key, node});
  }
  proven(report.key, *on, report.proof);
  // Of an attempt that was told to end since, nothing stands still any more.
  const Suspension& s = active->suspension;
  if (s.room_for != JobId{} && report.stands_still == s.orders && active->stop == StopCause::kNone &&
      !on->stands_still) {
    on->stands_still = true;
    fact(AttemptStoodStill{report.key, node});
  }
}

// A node that has forgotten (its daemon restarted) says nothing, or that it read fewer tasks back: what is known stays,
// unless it has more faults to tell of.
void Settlement::proven(AttemptKey key, AttemptOnNode& on, const std::optional<PlacementProof>& proof) {
  if (proof &&
      (!on.proof || ((on.proof->tasks <= proof->tasks || on.proof->faults < proof->faults) && *on.proof != *proof))) {
    on.proof = proof;
    fact(AttemptProven{key, on.share.node, *proof});
  }
}

void Settlement::lost(NodeIndex node, AttemptKey key, const std::string& detail) {
  if (Active* active = active_of(key)) {
    Outcome outcome;
    outcome.cause = EndCause::kNodeLost;
    outcome.detail = detail;
    ended(node, key, *active, outcome);
  }
}

void Settlement::ended(NodeIndex node, AttemptKey key, Active& active, const Outcome& outcome) {
  bool all = true;
  bool first = false;
  for (std::size_t i = 0; i < active.nodes.size(); ++i) {
    AttemptOnNode& on = active.nodes[i];
    if (on.share.node == node && on.phase != NodePhase::kEnded) {
      on.phase = NodePhase::kEnded;
      on.outcome = outcome;
      first = i == 0;
    }
    all = all && on.phase == NodePhase::kEnded;
  }
  fact(AttemptEndedOnNode{key, node, outcome});
  failures_.ended_on_node(node, key, outcome);
  if (all) {
    if (auto requeued = requeue_at_end(s_, *find_job(s_, key.job), active)) {
      requeue(*find_job(s_, key.job), std::move(*requeued));
    } else {
      const JobEnded end = job_end(s_, key.job, active);
      fact(end);
      failures_.ended(*find_job(s_, key.job), active, end.state);
    }
    touched_.erase(key.job);
    ended_.insert(key.job);
    return;
  }
  if (active.stop != StopCause::kNone) {
    return;
  }
  // The first node's end is the job's end. Another node may be done early only because something failed there.
  const bool failed = outcome.cause != EndCause::kExited && outcome.cause != EndCause::kCancelled;
  active.stop = failed && !first ? StopCause::kNodeFailed : StopCause::kScriptEnded;
  if (failed && first && (outcome.cause == EndCause::kNodeLost || outcome.cause == EndCause::kLaunchFailed)) {
    active.stop = StopCause::kNodeFailed;
  }
  fact(StopRequested{.key = key, .cause = active.stop, .signal = 0, .by = {}});
}

// A job that one node after another fails is held before it has drained them all.
void Settlement::requeue(const Job& job, JobRequeued requeued) {
  const std::uint32_t faults = requeued.by_node ? job.node_faults + 1 : 0;
  const bool hold = policy_.node_faults_max != 0 && faults >= policy_.node_faults_max;
  if (hold) {
    requeued.reason += "; it is held, because nodes failed it " + std::to_string(faults) + " times in a row";
  }
  fact(std::move(requeued));
  if (!hold) {
    return;
  }
  if (job.array == JobId{}) {
    fact(JobHeld{job.id});
  } else {
    fact(ArrayTasksHeld{job.array, {{job.array_position, job.array_position + 1}}});
  }
}

}  // namespace muster::engine
