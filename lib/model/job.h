// The controller's records of jobs and nodes: values, one for each thing, no indexes (those are core/engine's).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "lib/base/time.h"
#include "lib/model/hardware.h"
#include "lib/model/health.h"
#include "lib/model/ids.h"
#include "lib/model/job_spec.h"
#include "lib/model/node_topology.h"
#include "lib/model/outcome.h"
#include "lib/model/positions.h"
#include "lib/model/proof.h"

namespace muster {

enum class NodePhase : std::uint8_t {
  kLaunching,  // the launch is owed to the node
  kStarted,    // the node said that it runs (or has run) it
  kEnded,      // the node said that nothing of it is left; its share is free
};

struct AttemptOnNode {
  NodeShare share;
  NodePhase phase = NodePhase::kLaunching;
  std::optional<Outcome> outcome;  // set when kEnded
  bool stands_still = false;       // as the node said, for the job of Suspension::room_for, which may have its cores
  std::optional<PlacementProof> proof = {};  // what the node read back of its tasks
  friend bool operator==(const AttemptOnNode&, const AttemptOnNode&) = default;
};

// Waits to start. For an array this is its not yet started part.
struct Pending {
  friend bool operator==(const Pending&, const Pending&) = default;
};

// What the order to stop an attempt says beyond its cause.
struct StopTerms {
  JobId room_for;        // kPreempted: the job that waits for the place (a task of an array: its array); 0: none
  bool requeue = false;  // the job goes back to the queue when the stop has ended it
  // A warning first: this signal, and so long before the attempt is ended.
  std::int32_t notice_signal = 0;
  Duration notice;
  friend bool operator==(const StopTerms&, const StopTerms&) = default;
};

// When the processes of an attempt stood still by order; its time limit does too.
struct Suspension {
  Instant since;             // unset: it runs
  Duration earlier;          // all in all, before that
  std::uint64_t orders = 0;  // to suspend and to continue so far: a node obeys the newest
  // Preempted: the job that waits for its cores (a task of an array: its array). 0: suspended by hand, with all it holds.
  JobId room_for = {};
  Instant resumed = {};  // when it went on last after it was preempted; unset: it never was
  friend bool operator==(const Suspension&, const Suspension&) = default;
};

// Holds resources. The first entry of `nodes` is the job's first node.
struct Active {
  Instant start_time;
  bool started = false;  // the first node has said that it runs
  std::vector<AttemptOnNode> nodes;
  StopCause stop = StopCause::kNone;
  std::int32_t stop_signal = 0;  // the signal that was asked for; 0: TERM, grace, KILL
  std::string stop_by;           // the user who cancelled
  // How long it may run: less than its spec says where the planner shortened it (--time-min), another value where it was
  // changed since.
  Duration time_limit = {};
  bool limit_changed = false;  // since the launch: the nodes are owed the new one
  Instant stop_time = {};      // when the stop was ordered
  StopTerms terms = {};        // of the stop
  Suspension suspension = {};
  friend bool operator==(const Active&, const Active&) = default;
};

// A task of an array that has run and waits again.
struct RequeuedTask {
  std::uint64_t position = 0;
  Attempt attempt;                // the last one
  std::string last_end;           // its reason
  std::uint32_t node_faults = 0;  // as in Job
  friend bool operator==(const RequeuedTask&, const RequeuedTask&) = default;
};

struct Job {
  JobId id;
  JobSpecPtr spec;
  Instant submit_time;
  Instant eligible_time;
  std::int64_t priority = 0;  // larger first
  bool held = false;
  // Pending: what of its dependency is not met yet; it may not start before this is empty.
  std::vector<OpenDependency> open;
  Instant promised_start;                    // pending: the latest start that was promised; unset: none was
  std::vector<PlannedShare> promised_place;  // pending: where that start was planned; may be empty
  Attempt attempt;                           // of the last start; 0: never started
  JobId array;                               // of a task: the array's id (== id for position 0). 0: no array
  std::uint64_t array_position = 0;          // of a task
  bool is_array_record = false;              // this record stands for the not yet started tasks of an array
  std::vector<PositionRange> waiting;        // array record: positions that have not started, ascending
  std::uint64_t array_running = 0;           // array record: tasks that are active
  Instant array_started;                     // array record: when the newest start of a task was
  bool array_failed = false;                 // array record: a task has ended and not completed
  Positions failed_positions;                // array record: those tasks
  Positions held_positions;                  // array record: waiting positions that are held singly
  std::vector<RequeuedTask> requeued;  // array record: those among the waiting positions that ran before, ascending
  std::string last_end;                // why the last attempt ended without ending the job; empty: none did
  std::uint32_t node_faults = 0;       // its last attempts, so many in a row, that a node failed before they began
  std::variant<Pending, Active> phase;

  [[nodiscard]] bool is_active() const { return std::holds_alternative<Active>(phase); }
  [[nodiscard]] JobState state() const;
  void forget_promise();
};
// Deep comparison (the spec by value).
bool operator==(const Job& a, const Job& b);

// Of an array record: the waiting positions that neither a hold of their own nor a dependency of their own keeps back.
[[nodiscard]] Positions startable(const Job& array);
// Whether a dependency keeps all of it from starting, and not single tasks of an array alone.
[[nodiscard]] bool waits_as_a_whole(const Job& job);
// Of an array record: whether any waiting position is kept back so.
[[nodiscard]] bool has_barred(const Job& array);

// Whether the controller hears the node.
enum class Contact : std::uint8_t { kNever, kConnected, kUnreachable };

struct Node {
  NodeIndex index;
  std::string name;
  NodeHardware hardware;
  std::string boot_id;
  std::string endpoint;    // "tcp://host:port" of its ROUTER for peers and streams
  std::string public_key;  // Z85
  Contact contact = Contact::kNever;
  bool drained = false;
  std::string drain_reason;
  Instant since;                            // of the last change of contact or drain
  std::uint64_t registration_sequence = 0;  // of the newest registration of this boot
  std::vector<std::string> features = {};   // that the node itself says it has
  TopologyHash topology = {};               // of its class; not set: not known
  std::vector<EnforcedBy> enforcement = {};
  NodeHealth health = {};
  bool has_prolog = false;  // a program that must succeed before anything of an attempt runs there
  // Nothing new starts on one that is drained, by an operator or by itself.
  [[nodiscard]] bool is_drained() const { return drained || !health.is_good(); }
  friend bool operator==(const Node&, const Node&) = default;
};

// A job that has ended (or a part of it that never ran), as history keeps it.
struct JobSummary {
  JobId id;
  JobSpecPtr spec;
  JobId array;  // 0: no array
  std::uint64_t array_position = 0;
  std::uint64_t count = 1;  // stands for this many consecutive tasks of the array, which never started
  Attempt attempt;
  JobState state = JobState::kCompleted;
  std::string reason;
  std::int32_t exit_code = 0;
  std::int32_t exit_signal = 0;
  Instant submit_time;
  Instant eligible_time;
  Instant start_time;  // unset: never started
  Instant end_time;
  std::vector<NodeShare> shares;
  std::vector<std::string> nodes;      // names, in the order of shares
  bool requeued = false;               // the end of an attempt alone: the job went back to the queue
  std::vector<PlacementProof> proofs;  // in the order of shares, or none
  // Of all its nodes: the sums, and of memory the highest peak with the limit there.
  Usage usage = {};
};
bool operator==(const JobSummary& a, const JobSummary& b);

}  // namespace muster
