// State: everything the controller knows, with the indexes that make its questions cheap. Written by evolve() alone.
// A plain value without clock, I/O or threads; two states that saw the same facts are equal.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/sched/accounts.h"
#include "core/sched/horizon.h"
#include "core/sched/ledger.h"
#include "core/sched/licenses.h"
#include "core/sched/pending.h"
#include "core/sched/promise.h"
#include "core/sched/windows.h"
#include "core/topo/node_class.h"
#include "lib/model/fact.h"
#include "lib/model/job.h"

namespace muster::engine {

struct KnownRequest {
  Instant at;
  JobId job;
  friend bool operator==(const KnownRequest&, const KnownRequest&) = default;
};

// How many facts a state has seen: tells whether it has changed. Two states that differ in nothing else are equal.
struct Changes {
  std::uint64_t count = 0;
  friend bool operator==(const Changes& /*a*/, const Changes& /*b*/) { return true; }
};

// Of a job or array that waits: the latest start with which it ends by its deadline. Of one that runs: the deadline.
struct DeadlineEntry {
  Instant at;
  JobId job;
  bool is_array = false;  // the record; its first task has the same id
  friend auto operator<=>(const DeadlineEntry&, const DeadlineEntry&) = default;
};

struct State {
  Changes changes;
  Term term;
  Instant now;  // of the newest fact
  JobId next_job{1};
  std::map<JobId, Job> jobs;  // not ended: single jobs, and tasks of arrays that have started
  std::map<JobId, Job>
      arrays;  // array records, by the id of the array (which is also the id of its task at position 0)
  std::vector<Node> nodes;
  std::map<TopologyHash, topo::SharedClass> node_classes;  // those that nodes have, one object for all nodes of a class
  std::map<RequestId, KnownRequest> requests;
  // Keys of the configuration that were changed at run time, with their values ("queue.main.priority"); "queue.NAME" for a
  // queue that was made at run time.
  std::map<std::string, std::string> settings;
  sched::Accounts accounts;                         // records, and the counts of jobs that follow from the above
  std::map<std::string, Reservation> reservations;  // by name

  // Indexes: derived from the above.
  std::deque<std::pair<Instant, RequestId>> requests_by_age;
  sched::PendingIndex
      pending;  // single jobs that wait and array records with waiting positions; held ones are not in it
  std::set<DeadlineEntry> deadlines;
  std::map<JobId, sched::Promise> promised;  // those of `pending` that have been promised a start
  // Records whose open dependencies name the job, task or array with this id and may still be met.
  std::map<JobId, std::set<JobId>> dependents;
  // Single jobs and array records by user and name, for singletons.
  std::map<std::pair<std::string, std::string>, std::set<JobId>> by_name;
  std::vector<std::set<JobId>> jobs_on_node;  // active jobs, by node index
  // Jobs that are being stopped, or stand still, to make room for the one with this id, which waits or did.
  std::map<JobId, std::set<JobId>> making_room;
  std::set<JobId> standing_still;  // those that stand still, or are about to, until the planner lets them go on
  std::map<std::string, NodeIndex, std::less<>> node_by_name;
  std::set<NodeIndex> nodes_with_failures;  // in their ledgers
  sched::Ledger ledger;
  sched::Horizon horizon;
  sched::Windows windows;           // of `reservations`
  sched::LicenseHolds licenses;     // of active jobs
  std::uint64_t waiting_tasks = 0;  // pending single jobs and waiting positions of arrays
  std::uint64_t active_jobs = 0;

  friend bool operator==(const State&, const State&) = default;
};

// A single job, or a task of an array that has started; null when there is none.
[[nodiscard]] const Job* find_job(const State& state, JobId id);
// The array record with this id; null when there is none.
[[nodiscard]] const Job* find_array(const State& state, JobId id);
[[nodiscard]] const Node* find_node(const State& state, std::string_view name);
// The array record whose waiting tasks include the one with raw id `id`; null when there is none.
[[nodiscard]] const Job* find_array_of(const State& state, JobId id);
// The job of a submission that was made before with this request id; 0: none.
[[nodiscard]] JobId job_of_request(const State& state, RequestId request);

// Everything that is wrong with the state, as sentences; empty when the rules hold. Checks the indexes against the
// records and architecture rule 2 (nothing allocated twice). Cost grows with the state: for tests and simulation.
std::vector<std::string> check_invariants(const State& state);

// The indexes made anew from jobs, nodes and requests: for loading a snapshot.
void rebuild_indexes(State& state);

}  // namespace muster::engine
