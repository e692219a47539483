// Attempts that stand still for other jobs (PreemptMode::kSuspend), in one pass: which of them go on, and what is kept for
// the others.
//
// Each stands where its job would if it waited, as one that needs the very cores it had: behind the jobs that stand above
// it, before all others of its standing and below. It goes on when all its cores are free and nothing that is promised
// needs them before its time limit ends it. Until then those that are free stay free of jobs behind it, and the others
// are its own from when they are believed to become free: whatever comes behind it cannot keep it from going on.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "core/sched/preempt.h"
#include "core/sched/schedule.h"
#include "core/sched/timeline.h"

namespace muster::sched {

class StandingStill {
 public:
  // All of it must outlive it.
  StandingStill(const Cluster& cluster, const Policy& policy, const PreemptRules& rules, Instant now);

  // Whether one is left that comes before jobs of this standing.
  [[nodiscard]] bool comes_before(const Standing& standing) const {
    return next_ < waiting_.size() && waiting_[next_].standing >= standing;
  }
  [[nodiscard]] bool is_done() const { return next_ == waiting_.size(); }
  // Lets the next one go on, or keeps its cores for it.
  void serve_next(Timeline& timeline, Plan& plan);

 private:
  struct Waiting {
    const Job* job = nullptr;
    Standing standing;
  };
  // What it lacks on one node.
  struct Lack {
    const AttemptOnNode* on = nullptr;
    IndexSet busy;
  };
  [[nodiscard]] bool may_go_on(const Timeline& timeline, const Job& job, Instant end) const;
  [[nodiscard]] Instant free_from(const Job& job, const Plan& plan, const std::vector<Lack>& lacks) const;

  const Cluster& cluster_;
  Instant now_;
  std::vector<Waiting> waiting_;  // in the order in which they are served
  std::size_t next_ = 0;
};

// Takes off the timeline what the plan keeps for those that stand still, those of which this is true.
void take_kept_cores(Timeline& timeline, const Plan& plan, const std::function<bool(JobId)>& comes_before);

}  // namespace muster::sched
