// schedule(): turns the pending jobs, the free resources and what is believed to become free into a plan: which jobs
// start now, and which are promised a start. The policy:
//
//   1. Jobs are looked at in order (queue priority, then points, then age). One that fits now without touching a promise
//      starts.
//   2. The first jobs of each queue that do not fit get a promise: the earliest time at which they fit when every running
//      job uses its whole time limit. A job that was promised once keeps its claim in every later pass, so nothing that
//      stands behind it can delay it. Jobs that stand before it may.
//   3. A job that is at a limit of its account, user or QOS (limits.h) neither starts nor blocks nor gets a promise.
//      An attempt that stands still for another job waits in that order for the cores that it had (standing_still.h).
//   4. All others are backfilled, the smallest for their standing first: what fits now and ends before a promise needs its place, or leaves
//      enough for it, starts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/sched/accounts.h"
#include "core/sched/fair_share.h"
#include "core/sched/horizon.h"
#include "core/sched/ledger.h"
#include "core/sched/licenses.h"
#include "core/sched/limits.h"
#include "core/sched/order.h"
#include "core/sched/pending.h"
#include "core/sched/promise.h"
#include "core/sched/timeline.h"
#include "core/sched/windows.h"
#include "lib/base/time.h"
#include "lib/model/command.h"
#include "lib/model/job.h"
#include "lib/model/license.h"

namespace muster::sched {

// What becomes of a running job of the queue whose place a job that stands before it needs.
enum class PreemptMode : std::uint8_t {
  kOff,         // it is left alone
  kRequeue,     // stopped, and back to the queue; a job that must not be requeued is cancelled
  kCancel,      // stopped, and that is its end
  kCheckpoint,  // as kRequeue, with the signal that it asked for and the grace first
  kSuspend,     // it stands still with its memory, without its cores, and goes on when these are free again
};

// A queue's part of the policy; from the configuration.
struct QueuePolicy {
  std::string name;
  std::int64_t priority = 0;       // all jobs of a higher queue are served before those of a lower one
  std::vector<std::string> nodes;  // empty: all
  Duration time_default;
  Duration time_max = Duration::infinite();
  bool accepts = true;  // new submissions
  bool starts = true;   // pending jobs may start
  PreemptMode preempt_mode = PreemptMode::kOff;
  Duration preempt_grace = {};   // between the warning and the stop
  Duration preempt_exempt = {};  // a job runs for so long before it may be preempted
  std::int32_t factor = 0;       // points that its jobs have more than those of other queues of the same priority
  bool spread = false;           // the nodes with most free are used first; else those with the least that suffices
  // Limits of each job; 0: none.
  std::uint32_t nodes_min = 0;
  std::uint32_t nodes_max = 0;
  std::uint64_t cpus_max = 0;
  std::uint64_t gpus_max = 0;
  std::uint64_t mem_per_cpu_mib = 0;  // of a job that asks for no memory; 0: its share
  // Whom the queue admits; an empty list admits all (and denies none).
  std::vector<std::string> allow_accounts;
  std::vector<std::string> deny_accounts;
  std::vector<std::string> allow_users;
  std::vector<std::string> allow_qos;
  friend bool operator==(const QueuePolicy&, const QueuePolicy&) = default;
};

enum class Backfill : std::uint8_t {
  kNone,          // the first blocked job of a queue blocks the queue
  kEasy,          // the first `promises` blocked jobs of each queue have promises
  kConservative,  // every job has one, made when it comes
};
enum class BackfillOrder : std::uint8_t {
  kPoints,    // as they stand in the queue
  kShortest,  // by time limit alone
  kSmallest,  // by time limit times CPUs
};

struct PlanRules {
  Backfill backfill = Backfill::kEasy;
  BackfillOrder backfill_order = BackfillOrder::kSmallest;
  std::uint32_t promises = 1;  // for each queue
  bool keep_promises = true;   // a job that was promised once keeps its claim in later passes
};

// What one point of each term of a job's points counts.
struct PriorityWeights {
  std::int32_t age = 1;
  std::int32_t size = 0;
  std::int32_t queue = 1;
  std::int32_t qos = 1;
  std::int32_t fair_share = 16;
};

struct Policy {
  std::vector<QueuePolicy> queues;
  std::string default_queue;
  std::uint64_t jobs_max = 10'000'000;  // jobs that have not ended; the waiting tasks of an array are one
  Duration request_memory = Duration::from_s(86'400);  // how long request ids are remembered
  PlanRules rules;
  std::uint32_t node_faults_max = 0;  // a job that nodes fail so often in a row before it begins is held; 0: never
  // The ledger of failures: a node that is blamed for so many jobs takes no more (0: never); from the second blame on it
  // rests, for this time and twice as long with each; what is older than this is forgotten.
  std::uint32_t node_failures_max = 0;
  Duration node_rest = {};
  Duration node_suspect_time = Duration::from_s(3600);
  bool requeue = true;  // of jobs that say neither --requeue nor --no-requeue
  // Exponent of waiting time against time limit in the points of age; 3 is WFP3's. A larger one lets jobs that waited
  // long for their size pass others sooner, and small jobs wait less.
  std::uint32_t age_exponent = 4;
  PriorityWeights weights;
  bool enforce_accounts = false;  // jobs of users who have no place in the job's account are refused
  // Features and network of the nodes; null: neither is configured.
  std::shared_ptr<const Sites> sites = nullptr;
  LicenseTotals licenses = {};  // of the cluster

  [[nodiscard]] const QueuePolicy* find_queue(const std::string& name) const;
};

// The terms of a job's points with their weights applied, in units of 2^-16.
struct PriorityTerms {
  std::int64_t age = 0;   // order.h
  std::int64_t size = 0;  // log2 of the CPUs
  std::int64_t queue = 0;
  std::int64_t qos = 0;
  std::int64_t fair_share = 0;  // fair_share.h; of a job without a defined account 0, which is the worst
  std::int64_t nice = 0;
  [[nodiscard]] std::int64_t sum() const { return age + size + queue + qos + fair_share + nice; }
};

// Muster's own order: age and size, and standing, which is the rest. A nice of 100 is made up for by waiting twice as long.
// For one moment: fair-share factors are computed when they are first asked for.
class DefaultOrder final : public Order {
 public:
  // `accounts` must outlive it and not change. Without accounts there is neither fair share nor QOS.
  explicit DefaultOrder(const Policy& policy, const Accounts* accounts = nullptr, Instant now = {});
  [[nodiscard]] std::int64_t points(const JobSpec& spec, Instant since, Instant now) const override;
  [[nodiscard]] std::int64_t standing(const JobSpec& spec) const override;
  [[nodiscard]] PriorityTerms terms(const JobSpec& spec, Instant since, Instant now) const;
  [[nodiscard]] const FairShare* fair_share() const { return fair_share_ ? &*fair_share_ : nullptr; }

 private:
  void add_standing(const JobSpec& spec, PriorityTerms& terms) const;

  std::uint32_t exponent_;
  PriorityWeights weights_;
  std::map<std::string, std::int32_t> queue_factors_;  // those that are not 0
  const Accounts* accounts_;                           // null: none is defined
  std::optional<FairShare> fair_share_;
};

// Counted work of one slice. When `placements_made` is used up the plan is applied, and the next pass begins after it.
// When `work` is, the pass rests and goes on where it was (SlicedPass).
struct WorkBudget {
  std::uint32_t placements_made = 1'000;
  // One for each node that is looked at for a job, and kWorkPerGroup for each time that a group of jobs is: a few
  // milliseconds in all.
  std::uint64_t work = 16'000;
  static constexpr std::uint64_t kWorkPerGroup = 8;
};

// What a pass keeps for an attempt that stands still for another job, or gives it when it goes on.
struct KeptCores {
  JobId job;
  std::vector<NodeShare> idle;  // from now on
  std::vector<Slot> busy;       // from then on
  Instant from;
  Instant until;
};

struct Plan {
  std::vector<Placement> placements;
  std::vector<Promise> promises;  // in the order in which they were made
  std::set<JobId> moved;          // those of them whose jobs have not the place any more that they were promised
  // Places kept in this pass alone, for jobs at the front of queues that have kClaimsMax jobs with claims already; with
  // Backfill::kNone where the job is planned that blocks its queue.
  std::vector<Promise> kept;
  std::vector<JobSpecPtr> refused;  // requests that did not fit, in the order of RequestLess
  std::vector<Preemption> preemptions;
  std::vector<AttemptKey> resumes;  // that stood still for others and have all their cores free
  std::vector<KeptCores> kept_cores;
  std::set<JobId> no_victims;  // jobs for which nothing that could be preempted would make room
  // Whether a pass over the state with this plan applied would start nothing more. False when the budget ran out, and
  // whenever something starts on one of several nodes: what is promised may then be moved to another one, which leaves
  // room for others; and when something is preempted, which ends sooner than was believed.
  bool complete = true;
  // When the limit of switches of a job that waits lapses next, time alone may have made room under a limit of
  // run-minutes, or a job that runs may be preempted for one that waits; unset: none does.
  Instant look_again;
  bool resting = false;  // the work of the slice was used up: nothing of the above is known yet
};

// Promises that one queue's jobs can have at a time. Each costs every pass; jobs that come and rank ever higher would
// add one after the other.
inline constexpr std::uint32_t kClaimsMax = 100;

class SlicedPass;

// What a planner remembers from one pass to the next so that it reacts to one event quickly: the promises with their
// places. A promise is looked for anew where its place is no longer free or its job is not promised yet, and all of them
// when `kFreshFor` is over, so one that could be earlier becomes earlier then. Not part of the state: a plan made without it
// is as good.
struct PlanMemory {
  static constexpr Duration kFreshFor = Duration::from_s(1);
  std::map<JobId, Promise> promises;
  // Requests that did not fit. They are tried again only when one of the nodes that something became free on since could
  // take a part of them, or when a promise is gone.
  // In the order of RequestLess.
  std::vector<JobSpecPtr> refused;
  bool kept = false;           // places were kept for jobs without claims, which may be gone since
  std::uint64_t released = 0;  // the ledger's count when the pass was made
  std::uint64_t licenses_released = 0;
  std::uint64_t windows_revision = 0;
  std::optional<Instant> windows_change = {};  // when the next window after the pass begins or ends
  Instant made;                                // when all of them were looked for
  std::set<JobId> no_victims;                  // jobs for which no preemption made room then
  bool stale = false;                          // some were taken as they were: plan again when kFreshFor is over
  // A pass that rests, and the state that it is about; null: none does.
  std::shared_ptr<SlicedPass> resting;
  const void* resting_over = nullptr;
  std::uint64_t resting_at = 0;
  bool resting_fresh = false;  // it began with what was remembered
  // How many times the work of a slice the next one has. A pass that was overtaken by a change of the state begins anew
  // with twice as much, so that planning comes to an end however often the state changes.
  std::uint64_t patience = 1;
};

// What a pass reads.
struct Cluster {
  const Ledger& ledger;
  const Horizon& horizon;
  const PendingIndex& pending;
  // The record of an id in `pending`.
  std::function<const Job&(JobId)> job;
  // Promises that hold: with Backfill::kConservative where every job stands, else whose claims are kept.
  const std::map<JobId, Promise>& promised;
  // Whether something became free since the last pass; a conservative plan moves its promises then.
  bool released = true;
  // Promises whose places are taken as they are while they are free, and refusals; null: nothing is remembered.
  const PlanMemory* remembered = nullptr;
  // Accounts, users and QOS with their limits; null: none.
  const Accounts* accounts = nullptr;
  // Reservations, and who holds licences; null: there are none.
  const Windows* windows = nullptr;
  const LicenseHolds* licenses = nullptr;
  // The jobs that run on each node, by its index, with their records: who may be preempted. Null: nobody is.
  const std::vector<std::set<JobId>>* running = nullptr;
  std::function<const Job&(JobId)> running_job = {};
  // The jobs that are being stopped, or stand still, to make room for one that waits.
  const std::map<JobId, std::set<JobId>>* making_room = nullptr;
  // Those that stand still, or are about to, for other jobs. Null: none does.
  const std::set<JobId>* standing_still = nullptr;
  // What the job of an open dependency of `job` does: "afterok:42 (job 42 is running)". For explanations alone.
  std::function<std::string(const Job& job, const OpenDependency& open)> describe = {};
};

// What is free when no job that waits has a place yet.
Timeline timeline_of(const Cluster& cluster, const Policy& policy, Instant now);

// What a pass would do now, and what comes after it.
struct Outlook {
  Plan plan;
  // With what the plan starts, promises and expects taken away.
  Timeline timeline;
  // Starts of the next jobs in order behind the promised ones, each at the earliest time that those before it leave.
  std::vector<Promise> expected;
};
// `depth` bounds how many starts are expected beyond the promises.
Outlook look_ahead(const Cluster& cluster, const Policy& policy, const Order& order, std::uint32_t depth, Instant now);

// A pass that can be made in slices, as long as what it reads does not change.
class SlicedPass {
 public:
  // The policy must outlive it.
  SlicedPass(Cluster cluster, const Policy& policy, WorkBudget budget, Instant now);
  ~SlicedPass();
  SlicedPass(const SlicedPass&) = delete;
  SlicedPass& operator=(const SlicedPass&) = delete;
  // Goes on until so much work is done; whether the pass is over.
  bool run(std::uint64_t work);
  // Once it is over.
  Plan take();
  [[nodiscard]] Instant now() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A whole pass, whatever its work.
Plan schedule(const Cluster& cluster, const Policy& policy, const Order& order, WorkBudget budget, Instant now);

// Whether `more` tasks beyond those that run bring an array to its own limit of running tasks. Never for a single job.
bool at_array_limit(const Job& job, std::uint64_t more);

}  // namespace muster::sched
