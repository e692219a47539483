// Facts: what has become true. The journal is their sequence; core/engine's evolve() is the only code that gives
// them meaning. Past tense. A fact once written keeps its meaning for ever (docs/spec/journal.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/model/accounting.h"
#include "lib/model/job.h"
#include "lib/model/reservation.h"

namespace muster {

// All nodes are unreachable until they register again.
struct TermStarted {
  Term term;
  friend bool operator==(const TermStarted&, const TermStarted&) = default;
};
// Its hardware, boot id or endpoint may be new, and it may be back after it was unreachable.
struct NodeRegistered {
  NodeIndex index;
  std::string name;
  NodeHardware hardware;
  std::string boot_id;
  std::string endpoint;
  std::string public_key;
  std::uint64_t sequence = 0;  // of the registration
  std::vector<std::string> features = {};
  TopologyHash topology = {};  // of a class that was added before; not set: the node did not say
  std::vector<EnforcedBy> enforcement = {};
  bool has_prolog = false;
  friend bool operator==(const NodeRegistered&, const NodeRegistered&) = default;
};
// Nodes that register with this hash hang together so. The hash is a name: it is not worked out again.
struct NodeClassAdded {
  TopologyHash hash;
  NodeTopology topology;  // as class_of() makes it
  friend bool operator==(const NodeClassAdded&, const NodeClassAdded&) = default;
};
struct NodeBecameUnreachable {
  NodeIndex node;
  friend bool operator==(const NodeBecameUnreachable&, const NodeBecameUnreachable&) = default;
};
struct NodeDrained {
  NodeIndex node;
  std::string reason;
  friend bool operator==(const NodeDrained&, const NodeDrained&) = default;
};
// Neither an operator nor a fault keeps it from taking work any more.
struct NodeResumed {
  NodeIndex node;
  friend bool operator==(const NodeResumed&, const NodeResumed&) = default;
};
// What the checks of the node find from now on; with none of them failing it takes new work again.
struct NodeHealthChanged {
  NodeIndex node;
  std::vector<HealthProblem> problems;
  friend bool operator==(const NodeHealthChanged&, const NodeHealthChanged&) = default;
};
// It takes no new work until an operator resumes it.
struct NodeFaulted {
  NodeIndex node;
  NodeFault fault = NodeFault::kNone;
  std::string text;
  friend bool operator==(const NodeFaulted&, const NodeFaulted&) = default;
};
// The ledger of the node's failures. A blame takes the place of the doubt of the same attempt.
struct NodeDoubted {
  NodeIndex node;
  Doubt doubt;
  friend bool operator==(const NodeDoubted&, const NodeDoubted&) = default;
};
struct NodeBlamed {
  NodeIndex node;
  Blame blame;
  Instant rests_until;  // unset: it goes on at once
  friend bool operator==(const NodeBlamed&, const NodeBlamed&) = default;
};
// So many of the oldest blames and doubts are forgotten, and with `rested` it is taken again.
struct NodeTrusted {
  NodeIndex node;
  bool rested = false;
  std::uint32_t blames = 0;
  std::uint32_t doubts = 0;
  friend bool operator==(const NodeTrusted&, const NodeTrusted&) = default;
};
// `spec` has all defaults filled in. An array takes spec->array->size() ids from `id` on.
struct JobSubmitted {
  JobId id;
  RequestId request;
  JobSpecPtr spec;
  std::int64_t priority = 0;
};
bool operator==(const JobSubmitted& a, const JobSubmitted& b);
// The job waits for these before it may start; follows JobSubmitted. What was met already is not among them.
struct DependencySet {
  JobId job;
  std::vector<OpenDependency> open;
  friend bool operator==(const DependencySet&, const DependencySet&) = default;
};
struct RequestsForgotten {
  Instant before;
  friend bool operator==(const RequestsForgotten&, const RequestsForgotten&) = default;
};
struct JobHeld {
  JobId job;
  friend bool operator==(const JobHeld&, const JobHeld&) = default;
};
struct JobReleased {
  JobId job;
  friend bool operator==(const JobReleased&, const JobReleased&) = default;
};
// The attempt holds its shares from now on. For a task of an array, `job` is the task's id.
struct AttemptStarted {
  JobId job;
  Attempt attempt;
  std::vector<NodeShare> shares;
  Duration time_limit = {};  // 0: as the job's spec says
  friend bool operator==(const AttemptStarted&, const AttemptStarted&) = default;
};
// A node said that it runs the attempt.
struct AttemptConfirmed {
  AttemptKey key;
  NodeIndex node;
  friend bool operator==(const AttemptConfirmed&, const AttemptConfirmed&) = default;
};
// Nothing of the attempt is left on the node; its share there is free.
struct AttemptEndedOnNode {
  AttemptKey key;
  NodeIndex node;
  Outcome outcome;
  friend bool operator==(const AttemptEndedOnNode&, const AttemptEndedOnNode&) = default;
};
struct StopRequested {
  AttemptKey key;
  StopCause cause = StopCause::kCancelled;
  std::int32_t signal = 0;
  std::string by;
  StopTerms terms = {};
  friend bool operator==(const StopRequested&, const StopRequested&) = default;
};
// The job is over; it leaves the state and enters history. Also for pending jobs that were cancelled.
struct JobEnded {
  JobId job;
  JobState state = JobState::kCompleted;
  std::string reason;
  std::int32_t exit_code = 0;
  std::int32_t exit_signal = 0;
  friend bool operator==(const JobEnded&, const JobEnded&) = default;
};
// Tasks of an array that had not started are over.
struct ArrayTasksEnded {
  JobId array;
  PositionRange positions;
  JobState state = JobState::kCancelled;
  std::string reason;
  friend bool operator==(const ArrayTasksEnded&, const ArrayTasksEnded&) = default;
};

// A job that waits has been told when it starts at the latest, unless jobs that stand before it come. From now on nothing
// that stands behind it may delay it. Of `place`, which is empty in journals of older releases, it may be given another
// one that is as early.
struct StartPromised {
  JobId job;
  Instant start;
  std::vector<PlannedShare> place = {};
  friend bool operator==(const StartPromised&, const StartPromised&) = default;
};

// A setting of the configuration has this value from now on, whatever the file says; without a value the file's counts
// again. The key "queue.NAME" with any value means that the queue exists although no file names it.
struct SettingChanged {
  std::string key;
  std::optional<std::string> value;
  friend bool operator==(const SettingChanged&, const SettingChanged&) = default;
};
// The job asks for something else from now on. Without an attempt it is one that waits (of an array, its tasks that have
// not started), which has no promise any more unless the planner cannot tell what it asks for now from what it asked for
// before; else the attempt that runs.
struct JobUpdated {
  JobId job;
  Attempt attempt;
  JobSpecPtr spec;
  std::int64_t priority = 0;
};
bool operator==(const JobUpdated& a, const JobUpdated& b);
// An attempt that runs may run so long from its start on.
struct AttemptTimeLimitChanged {
  AttemptKey key;
  Duration time_limit;
  friend bool operator==(const AttemptTimeLimitChanged&, const AttemptTimeLimitChanged&) = default;
};
// Tasks of an array that have not started are held singly, or not any more.
struct ArrayTasksHeld {
  JobId array;
  Positions positions;
  friend bool operator==(const ArrayTasksHeld&, const ArrayTasksHeld&) = default;
};
struct ArrayTasksReleased {
  JobId array;
  Positions positions;
  friend bool operator==(const ArrayTasksReleased&, const ArrayTasksReleased&) = default;
};

// The account, user or QOS is now this, whether it was there before or not.
struct AccountSet {
  Account account;
  friend bool operator==(const AccountSet&, const AccountSet&) = default;
};
struct AccountRemoved {
  std::string name;
  friend bool operator==(const AccountRemoved&, const AccountRemoved&) = default;
};
struct UserSet {
  User user;
  friend bool operator==(const UserSet&, const UserSet&) = default;
};
struct UserRemoved {
  std::string name;
  friend bool operator==(const UserRemoved&, const UserRemoved&) = default;
};
struct QosSet {
  Qos qos;
  friend bool operator==(const QosSet&, const QosSet&) = default;
};
struct QosRemoved {
  std::string name;
  friend bool operator==(const QosRemoved&, const QosRemoved&) = default;
};
// From now on use is charged by these rules.
struct BillingConfigured {
  BillingRules rules;
  friend bool operator==(const BillingConfigured&, const BillingConfigured&) = default;
};

// The reservation is there, with this content; one of the same name is replaced.
struct ReservationMade {
  Reservation reservation;
  friend bool operator==(const ReservationMade&, const ReservationMade&) = default;
};
// It was deleted, or has been over for long.
struct ReservationRemoved {
  std::string name;
  friend bool operator==(const ReservationRemoved&, const ReservationRemoved&) = default;
};

// Nothing is left of the job's last attempt, and the job waits again, with the same id. The attempt enters history in
// this state; the next one has the next number.
struct JobRequeued {
  JobId job;
  JobState state = JobState::kPreempted;
  std::string reason;
  bool by_node = false;  // a node failed it before it began
  friend bool operator==(const JobRequeued&, const JobRequeued&) = default;
};
// Its processes are to stand still and its time limit does. With `room_for` another job preempts it: its cores, and no
// more, are free on each node that says that it stands still. Without it, it keeps what it holds.
struct AttemptSuspended {
  AttemptKey key;
  std::string by;
  JobId room_for = {};
  friend bool operator==(const AttemptSuspended&, const AttemptSuspended&) = default;
};
// The node says that nothing of a preempted attempt runs there: its cores are free.
struct AttemptStoodStill {
  AttemptKey key;
  NodeIndex node;
  friend bool operator==(const AttemptStoodStill&, const AttemptStoodStill&) = default;
};
// It has its cores again and goes on.
struct AttemptResumed {
  AttemptKey key;
  std::string by;
  friend bool operator==(const AttemptResumed&, const AttemptResumed&) = default;
};

// The node read back where tasks of the attempt are there; in place of what it had said before.
struct AttemptProven {
  AttemptKey key;
  NodeIndex node;
  PlacementProof proof;
  friend bool operator==(const AttemptProven&, const AttemptProven&) = default;
};

using FactBody =
    std::variant<TermStarted, NodeRegistered, NodeBecameUnreachable, NodeDrained, NodeResumed, JobSubmitted,
                 RequestsForgotten, JobHeld, JobReleased, AttemptStarted, AttemptConfirmed, AttemptEndedOnNode,
                 StopRequested, JobEnded, ArrayTasksEnded, StartPromised, DependencySet, SettingChanged, JobUpdated,
                 AttemptTimeLimitChanged, ArrayTasksHeld, ArrayTasksReleased, AccountSet, AccountRemoved, UserSet,
                 UserRemoved, QosSet, QosRemoved, BillingConfigured, ReservationMade, ReservationRemoved, JobRequeued,
                 AttemptSuspended, AttemptResumed, NodeClassAdded, AttemptStoodStill, AttemptProven, NodeHealthChanged,
                 NodeFaulted, NodeDoubted, NodeBlamed, NodeTrusted>;

struct Fact {
  Instant at;  // the controller's wall time, never decreasing
  FactBody body;
  friend bool operator==(const Fact&, const Fact&) = default;
};
using Facts = std::vector<Fact>;

}  // namespace muster
