// Preemption: which running attempts are stopped so that a job which stands before them can start.
//
// Who may preempt whom is an order: a job of a queue with a higher priority before one with a lower, and within a
// priority a QOS before those that it lists. The order in which jobs are served agrees with it (standing_of), so whoever
// is preempted stands behind the one that it makes room for, and two jobs never preempt each other in turn.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/sched/accounts.h"
#include "core/sched/place.h"
#include "core/sched/schedule.h"
#include "core/sched/timeline.h"
#include "lib/base/result.h"
#include "lib/model/accounting.h"
#include "lib/model/command.h"
#include "lib/model/job.h"

namespace muster::sched {

// What is served first whatever its points are; more is earlier.
struct Standing {
  std::int64_t tier = 0;  // the queue's priority
  std::int64_t rank = 0;  // of the QOS among those that preempt each other
  friend auto operator<=>(const Standing&, const Standing&) = default;
};

// What the QOS say of preemption within one priority of queues; between them the queues' priorities say it.
struct PreemptRules {
  std::map<std::string, std::set<std::string>> qos;  // a QOS, and those whose jobs its jobs may preempt
  std::map<std::string, std::int64_t> ranks;         // rank_qos(qos)
  // How the jobs of a QOS give way where that is not said by their queue.
  struct Way {
    QosPreempt mode = QosPreempt::kAsQueue;
    Duration grace;
  };
  std::map<std::string, Way> ways;
};
// Empty when no QOS preempts another one. Null: there are none.
[[nodiscard]] PreemptRules preempt_rules(const Accounts* accounts);

[[nodiscard]] Standing standing_of(const Policy& policy, const PreemptRules& rules, const JobSpec& spec);
[[nodiscard]] Standing standing_of(const PreemptRules& rules, const QueuePolicy& queue, const std::string& qos);

// Ranks that agree with the lists: whoever lists another one stands above it. An error names a QOS that would, over
// others, preempt itself.
Result<std::map<std::string, std::int64_t>> rank_qos(const std::map<std::string, std::set<std::string>>& preempts);

// How a running job of `b` gives way to a waiting one of `a`; kOff: not at all.
struct GivingWay {
  PreemptMode mode = PreemptMode::kOff;
  Duration grace;
};
[[nodiscard]] GivingWay giving_way(const Policy& policy, const PreemptRules& rules, const JobSpec& a, const JobSpec& b);
[[nodiscard]] inline bool may_preempt(const Policy& policy, const PreemptRules& rules, const JobSpec& a,
                                      const JobSpec& b) {
  return giving_way(policy, rules, a, b).mode != PreemptMode::kOff;
}
// From then on a running attempt may be preempted. One that went on after it had stood still for another job runs for some
// seconds at least, so that a row of short jobs does not keep it from all progress.
[[nodiscard]] Instant exempt_until(const Active& active, const QueuePolicy& queue);
// Whether what makes room for the job that waits has yet to give on this node what it is to give.
[[nodiscard]] bool has_yet_to_give(const Active& active, const AttemptOnNode& on, JobId waiting);
// Whether an attempt that was not told to end can make room by standing still: its cores can be handed over, its GPUs
// and their memory cannot. One that its user suspended has said that it keeps what it holds.
[[nodiscard]] bool can_stand_still(const Active& active);
// What stopping the attempt loses: milliseconds of its CPUs since its start, without those in which it stood still.
[[nodiscard]] std::int64_t work_lost(const Active& active, Instant now);

// Chooses the attempts to stop, for one pass.
class Preemptor {
 public:
  // The rules must outlive it.
  Preemptor(const Cluster& cluster, const Policy& policy, const PreemptRules& rules, Instant now);

  // Whether a job of this spec could preempt anything, by its queue and QOS alone.
  [[nodiscard]] bool can_preempt(const JobSpec& spec) const;

  struct Wanted {
    const JobSpec& spec;
    const NodeFilter& filter;
    Instant lapse;                               // from then on its limit of switches does not count
    std::optional<Instant> otherwise;            // when it starts without preemption
    const std::vector<KeptCores>& kept;          // for those that stand still and come before it
    std::function<bool(const Spot&)> may_start;  // a deadline or a limit of its account may forbid it there and then
  };
  struct Choice {
    std::vector<AttemptKey> victims;
    Spot spot;  // where and when the job starts
  };
  // The attempts whose end lets the job start before `otherwise` (unset: it would never), and not for some seconds alone;
  // all of them are needed: the least work is lost, then the fewest are stopped, then those with the lowest ids. What they hold is then free in the timeline
  // from their end on. Nothing when none would do, or when this pass has looked for so many already.
  std::optional<Choice> choose(Timeline& timeline, const Wanted& wanted);

  // Whether something is being stopped for this job, on nodes that will say when it is gone. It preempts no more until then.
  [[nodiscard]] bool room_is_made(JobId job) const;
  // When an attempt that may not be preempted yet may be, of those that choose() passed over; unset: none.
  [[nodiscard]] Instant look_again() const { return look_again_; }

 private:
  struct Candidate {
    const Job* job = nullptr;
    std::int64_t work = 0;
    Instant gone;  // when it is believed to be gone if it is stopped now
    Instant end;   // and if it is not
    std::vector<Slot> slots;
    std::vector<Slot> keeps;  // of one that stands still: what it keeps, until nobody knows when
  };
  using Set = std::vector<const Candidate*>;

  [[nodiscard]] IndexSet cores_on(JobId still, NodeIndex node) const;
  [[nodiscard]] std::vector<Candidate> candidates(const Timeline& timeline, const Wanted& wanted);
  std::optional<Set> bearable(Timeline& timeline, std::vector<Candidate>& all, const JobSpec& spec,
                              const NodeFilter& filter, Instant by, Spot& spot);
  [[nodiscard]] static std::set<JobId> counted_on(Timeline& timeline, const Set& victims, const JobSpec& spec,
                                                  const Spot& spot);
  std::optional<Set> best_of(Timeline& timeline, const std::vector<Candidate>& all, const JobSpec& spec,
                             const NodeFilter& filter, Instant by, Spot& spot);
  std::optional<Set> cheapest_first(Timeline& timeline, const std::vector<Candidate>& all, const JobSpec& spec,
                                    const NodeFilter& filter, Instant by, Spot& spot);
  void spare(Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, Instant by, Set& victims, Spot& spot);
  std::optional<Set> on_one_node(Timeline& timeline, const std::vector<Candidate>& all, const JobSpec& spec,
                                 const NodeFilter& filter, Spot& spot) const;
  std::optional<Spot> fit(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter);

  const Cluster& cluster_;
  const Policy& policy_;
  const PreemptRules& rules_;
  Instant now_;
  std::uint32_t fits_left_ = 0;
  std::set<JobId> chosen_;  // in this pass, whoever for
  Instant look_again_;
  Instant lapse_;  // of the choice at hand
};

}  // namespace muster::sched
