// Commands: what the controller is asked to do, by users, nodes, its planner and its clock. Imperative names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/model/accounting.h"
#include "lib/model/job_change.h"
#include "lib/model/orders.h"
#include "lib/model/positions.h"
#include "lib/model/reservation.h"

namespace muster {

// Who asks. The name comes from the authenticated key, never from the message.
struct Caller {
  std::string user;
  bool admin = false;
  friend bool operator==(const Caller&, const Caller&) = default;
};

// What the shell knows of a job that a dependency names and that has ended.
struct EndedJob {
  DependencyTarget target;
  bool completed = false;  // an array: all its tasks
  Instant start;           // of the last task of an array; unset: it never started
  // Of an array that aftercorr names: its indices, and of which tasks it is known that they did not complete.
  std::optional<ArraySpec> array = {};
  Positions failed = {};
  friend bool operator==(const EndedJob&, const EndedJob&) = default;
};

struct SubmitJob {
  Caller caller;
  RequestId request;
  JobSpecPtr spec;
  std::vector<EndedJob> ended = {};  // see unknown_targets() of core/engine
};

// Selects jobs: those with the ids (an array id means all its tasks; with positions, those tasks of it), or, without
// ids, all that match the filters. At least one of ids and filters is set.
struct JobSelector {
  struct Item {
    JobId id;
    bool has_indices = false;
    std::vector<ArrayRange> indices;  // the user's array indices
    friend bool operator==(const Item&, const Item&) = default;
  };
  std::vector<Item> items;
  std::string user;
  std::string queue;
  std::string name;
  std::vector<JobState> states;
  friend bool operator==(const JobSelector&, const JobSelector&) = default;
};

struct CancelJobs {
  Caller caller;
  JobSelector jobs;
  std::int32_t signal = 0;  // 0: end them; else only send this signal to running ones
};
struct HoldJobs {
  Caller caller;
  JobSelector jobs;
};
struct ReleaseJobs {
  Caller caller;
  JobSelector jobs;
};
// Changes jobs that wait, and the little that can be changed of those that run.
struct UpdateJobs {
  Caller caller;
  JobSelector jobs;
  JobChange change;
  std::vector<EndedJob> ended = {};  // as in SubmitJob
};
// Running jobs are stopped and go back to the queue.
struct RequeueJobs {
  Caller caller;
  JobSelector jobs;
};
struct SuspendJobs {
  Caller caller;
  JobSelector jobs;
};
struct ContinueJobs {
  Caller caller;
  JobSelector jobs;
};
struct DrainNodes {
  Caller caller;
  std::vector<std::string> nodes;
  std::string reason;
};
// Lifts drains and faults. What a node's checks find stays until they pass; they are run at once.
struct ResumeNodes {
  Caller caller;
  std::vector<std::string> nodes;
};
// What the checks of a node find now; empty: all of them pass.
struct ReportHealth {
  std::string node;
  std::vector<HealthProblem> problems;
};
struct RegisterNode {
  NodeRegistration registration;
};
struct ReportAttempts {
  std::string node;
  std::vector<AttemptReport> reports;
};
// The shell has not heard the node for node_timeout.
struct LoseNode {
  NodeIndex node;
};
struct StartTerm {};
// Given regularly, so that what depends on time alone can happen (request ids are forgotten).
struct Tick {};

// One placement of a plan.
struct Placement {
  JobId job;                   // an array record, or a single job
  std::uint64_t position = 0;  // array record: the task
  std::vector<NodeShare> shares;
  Duration time_limit = {};  // 0: as its spec says; else shorter, and at least its --time-min
  friend bool operator==(const Placement&, const Placement&) = default;
};
// A start that a plan promises to a job that waits.
struct PromisedStart {
  JobId job;  // an array record, or a single job
  Instant start;
  std::vector<PlannedShare> place = {};
  friend bool operator==(const PromisedStart&, const PromisedStart&) = default;
};
// An attempt that a plan stops so that a job which waits can start.
struct Preemption {
  JobId job;  // that waits: an array record, or a single job
  AttemptKey victim;
  friend bool operator==(const Preemption&, const Preemption&) = default;
};
struct ApplyPlan {
  std::vector<Placement> placements;
  std::vector<PromisedStart> promises = {};
  std::vector<Preemption> preemptions = {};
  std::vector<AttemptKey> resumes = {};  // that stood still for others and go on
};

// Adds, changes or deletes an account, a user (or its place in one account) or a QOS.
enum class AccountingKind : std::uint8_t { kAccount, kUser, kQos };
enum class AccountingVerb : std::uint8_t { kAdd, kModify, kDelete };
struct ChangeAccounting {
  Caller caller;
  AccountingKind kind = AccountingKind::kAccount;
  AccountingVerb verb = AccountingVerb::kAdd;
  std::string name;
  std::vector<AccountingSetting> settings = {};
};
// What the configuration says about charging; given at each start of the controller.
struct ConfigureBilling {
  BillingRules rules;
};

// Makes a reservation, or changes what is given of one. What is not given keeps its value.
struct MakeReservation {
  Caller caller;
  std::string name;
  bool create = false;  // it must be new; else it must be there
  std::optional<Instant> start = {};
  std::optional<Duration> duration = {};
  std::optional<Duration> every = {};
  std::optional<std::vector<std::string>> nodes = {};  // "ALL" alone: every node that has registered
  std::uint32_t node_count = 0;                        // so many nodes that are free then, in place of `nodes`
  std::optional<std::vector<std::string>> users = {};
  std::optional<std::vector<std::string>> accounts = {};
  std::optional<bool> maintenance = {};
  bool ignore_jobs = false;
};
struct RemoveReservation {
  Caller caller;
  std::string name;
  bool force = false;  // although jobs wait for it
};

using Command =
    std::variant<SubmitJob, CancelJobs, HoldJobs, ReleaseJobs, DrainNodes, ResumeNodes, RegisterNode, ReportAttempts,
                 LoseNode, StartTerm, Tick, ApplyPlan, UpdateJobs, ChangeAccounting, ConfigureBilling, MakeReservation,
                 RemoveReservation, RequeueJobs, SuspendJobs, ContinueJobs, ReportHealth>;

}  // namespace muster
