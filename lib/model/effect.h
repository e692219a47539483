// Effects: what the shell must do for the world to match the state. Safe to repeat. Performed only after the facts
// that caused them are on disk.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "lib/model/job.h"
#include "lib/model/orders.h"

namespace muster {

struct SendLaunch {
  NodeIndex node;
  LaunchOrder order;
  friend bool operator==(const SendLaunch&, const SendLaunch&) = default;
};
struct SendStop {
  NodeIndex node;
  StopOrder order;
  friend bool operator==(const SendStop&, const SendStop&) = default;
};
struct SendLimit {
  NodeIndex node;
  LimitOrder order;
  friend bool operator==(const SendLimit&, const SendLimit&) = default;
};
struct SendSuspend {
  NodeIndex node;
  SuspendOrder order;
  friend bool operator==(const SendSuspend&, const SendSuspend&) = default;
};
// The node shall run its checks now and say what they find, also when that is what it said before.
struct AskHealth {
  NodeIndex node;
  friend bool operator==(const AskHealth&, const AskHealth&) = default;
};
// The node's report is committed (or is about something long over): it may forget the attempt.
struct AcknowledgeReport {
  NodeIndex node;
  AttemptKey key;
  friend bool operator==(const AcknowledgeReport&, const AcknowledgeReport&) = default;
};
// Goes into the same transaction as its fact. Waiting tasks of an array that were cancelled are one summary for each.
struct RecordHistory {
  JobSummary summary;
  friend bool operator==(const RecordHistory&, const RecordHistory&) = default;
};
// Clients that wait for this job want to know.
struct AnnounceJob {
  JobId job;
  bool whole_array = false;  // `job` is an array's id and its last task has ended
  JobState state = JobState::kPending;
  friend bool operator==(const AnnounceJob&, const AnnounceJob&) = default;
};

// What the job waited for has come true: it may start from `at` on, which may lie in the future.
struct DependencyMet {
  JobId job;
  Instant at;
  friend bool operator==(const DependencyMet&, const DependencyMet&) = default;
};

using Effect = std::variant<SendLaunch, SendStop, AcknowledgeReport, RecordHistory, AnnounceJob, DependencyMet,
                            SendLimit, SendSuspend, AskHealth>;
using Effects = std::vector<Effect>;

}  // namespace muster
