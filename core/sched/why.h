// Why: the reasons for which a job waits, when it will start, and what would start it sooner; computed by the planner's
// own functions, so that what they say is what a pass does.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/sched/place.h"
#include "core/sched/preempt.h"
#include "core/sched/schedule.h"

namespace muster::sched {

// One word of Slurm's vocabulary and a sentence.
struct Reason {
  std::string word;  // "Priority", "Resources", "JobHeldUser", "BeginTime", "ReqNodeNotAvail", "JobArrayTaskLimit",
                     // "Dependency", "DependencyNeverSatisfied", "Reservation", "ReservationDeleted", "Licenses",
                     // and the limits of limits.cc
  std::string detail;
};

struct Blocker {
  // "held", "dependency", "queue", "queue_limit", "begin", "deadline", "array_limit", "limit", "nodes", "resources",
  // "priority", "preemption", "reservation", "licenses"
  std::string kind;
  std::string word;  // Slurm's
  std::string text;
  std::vector<std::string> nodes;  // that lack something, where the blocker is about nodes
};

// With this option changed to this value the job would start then.
struct SmallerRequest {
  std::string option;  // "--gpus-per-node"
  std::string value;   // as the option takes it; empty: leave the option out
  Instant start;
};

struct Explanation {
  std::vector<Blocker> blockers;  // all that hold it back; empty: it starts in the next pass
  std::vector<JobId> ahead;  // jobs with a promised start that it may not delay, and those planned that stand before it
  std::optional<Instant> planned_start;
  std::vector<SmallerRequest> changes;  // each sooner than the planned start; the soonest first
};

// What is known of the jobs in a long listing that is made part by part: values, which outlive a Why. They are as true as
// they were when they were found.
struct ReasonBook {
  std::map<JobSpecPtr, Reason, WaitsLess> reasons;  // of what is about nodes and other jobs
  std::optional<std::map<JobId, Instant>> starts;   // promised and expected; empty: not looked for yet
};

class Why {
 public:
  // The parts of `cluster` and the policy must outlive it and not change.
  Why(Cluster cluster, const Policy& policy, Instant now);

  // The main reason. Jobs that ask for the same have the same one, which is found once.
  [[nodiscard]] Reason reason(const Job& job, ReasonBook& book) const;
  [[nodiscard]] Reason reason(const Job& job) const { return reason(job, book_); }
  // How many requests were looked at on the nodes for reasons so far; each may cost as much as all nodes.
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_; }
  // When the job starts at the latest as things stand, if it is among the jobs that are planned ahead; never the present,
  // because what could start now has started.
  [[nodiscard]] std::optional<Instant> estimated_start(const Job& job, ReasonBook& book) const;
  [[nodiscard]] std::optional<Instant> estimated_start(const Job& job) const { return estimated_start(job, book_); }
  [[nodiscard]] Explanation explain(const Job& job) const;
  // When and where a job would start that came now, behind all that are planned; nothing if it fits no usable node.
  [[nodiscard]] std::optional<Spot> place_of_new(const JobSpec& spec) const;
  // What it would wait for where place_of_new() knows no place.
  [[nodiscard]] std::vector<Blocker> blockers_of_new(const JobSpec& spec) const;

 private:
  // What has nothing to do with nodes or other jobs.
  void own_blockers(const Job& job, std::vector<Blocker>& out) const;
  void dependency_blocker(const Job& job, std::vector<Blocker>& out) const;
  void limit_blockers(const Job& job, std::vector<Blocker>& out) const;
  // The limits that keep a job with this request from starting; in the place of the job `self`, if that is promised a start.
  [[nodiscard]] std::vector<LimitHit> limit_hits(const JobSpec& spec, Instant since, JobId self) const;
  [[nodiscard]] std::unique_ptr<LimitBook> limits_before(JobId self) const;
  [[nodiscard]] bool stands_before(JobId still, const JobSpec& spec, JobId self) const;
  // One that stands still for another job and comes before this request, on a timeline on which that fits.
  std::optional<Blocker> kept_blocker(Timeline& with, const JobSpec& spec, JobId self, const NodeFilter& filter,
                                      bool any) const;
  // The jobs that are preempted for this one.
  [[nodiscard]] std::optional<Blocker> room_blocker(const Job& job) const;
  void resource_blockers(const JobSpec& spec, Instant since, std::vector<Blocker>& out) const;
  // Whether the job's reservation exists and admits it.
  void access_blocker(const JobSpec& spec, std::vector<Blocker>& out) const;
  // Of windows: those of its own reservation that are not open, and those of others on nodes that it could use. Whether
  // it waits for one of its own.
  bool window_blocker(const JobSpec& spec, std::vector<Blocker>& out) const;
  bool own_window_blocker(const JobSpec& spec, const Reservation& own, std::vector<Blocker>& out) const;
  void license_blocker(const JobSpec& spec, std::vector<Blocker>& out) const;
  [[nodiscard]] std::optional<Instant> start_behind_deadline(const Job& job, const Timeline& ahead) const;
  [[nodiscard]] std::int64_t limit_for_deadline(const Job& job, const Timeline& ahead) const;
  [[nodiscard]] std::optional<Blocker> blocker_in_line(const JobSpec& spec, JobId self) const;
  [[nodiscard]] std::optional<Blocker> blocker_ahead(const JobSpec& spec, Instant since, JobId self) const;
  [[nodiscard]] std::string node_summary(const JobSpec& spec, std::vector<std::string>& nodes) const;
  [[nodiscard]] std::vector<SmallerRequest> smaller_requests(const Job& job, const Timeline& ahead,
                                                             std::optional<Instant> planned) const;
  // Whether a pass starts the job at once when its request is replaced by this one.
  [[nodiscard]] bool starts_now_with(const Job& job, const JobSpec& spec) const;
  // Shorter time limits, in seconds, that end before a window of its nodes begins, or with its own one.
  [[nodiscard]] std::vector<std::int64_t> limits_before_windows(const Job& job) const;
  [[nodiscard]] const Plan& plan() const;
  [[nodiscard]] const Outlook& outlook() const;
  [[nodiscard]] bool has_promise(JobId job) const;
  [[nodiscard]] bool comes_before(const Job& a, const Job& b) const;
  // What is free when only those that stand before the job have their promised and expected places.
  [[nodiscard]] Timeline timeline_before(const Job& job) const;
  [[nodiscard]] const std::vector<std::string>& nodes_of(const JobSpec& spec) const;
  [[nodiscard]] NodeFilter filter_of(const JobSpec& spec) const;

  Cluster cluster_;
  const Policy& policy_;
  Instant now_;
  DefaultOrder order_;
  PreemptRules rules_;
  Timeline present_;  // without what is planned
  // Made when they are asked for; the starts that are expected behind the plan cost most.
  mutable std::optional<Plan> plan_;
  mutable std::optional<Outlook> outlook_;
  mutable std::map<JobSpecPtr, std::vector<LimitHit>, RequestLess> limit_hits_;
  mutable std::unique_ptr<LimitBook> limits_;  // with all that is planned; made when it is asked for
  mutable std::map<std::pair<std::string, std::string>, std::vector<std::string>> reserved_nodes_;  // see nodes_of()
  mutable ReasonBook book_;
  mutable std::uint64_t looked_at_ = 0;
};

}  // namespace muster::sched
