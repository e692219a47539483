// PromiseWatch: counts the promises that a planner broke, judged from its answers alone and by other code than its own.
//
// When a job B starts, look at every job J that waits, was promised a start P (of two answers of this pass and the one
// before the earlier counts) and stands before B in the order of that moment. B harms J when J could start at P beside
// all that runs, what started in this pass from before J, and the promises of those that stand before J, but can't when
// B runs as well, from now to its believed end. A promise is broken when a job that was harmed starts later than the
// start that the harm concerned. So a job that rises above J may delay it, and a harm that an early end made good
// counts for nothing.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "core/sched/horizon.h"
#include "core/sched/promise.h"
#include "lib/base/time.h"
#include "lib/model/ids.h"

namespace muster::sim {

class PromiseWatch {
 public:
  // Where a job stands in the order; the smaller one before the larger.
  struct Standing {
    std::int64_t points = 0;
    Instant since;
    JobId id;
    friend std::strong_ordering operator<=>(const Standing& a, const Standing& b) {
      if (a.points != b.points) return b.points <=> a.points;
      if (a.since != b.since) return a.since <=> b.since;
      return a.id <=> b.id;
    }
    friend bool operator==(const Standing&, const Standing&) = default;
  };
  // A waiting job, or one that starts in the pass.
  struct Candidate {
    Standing standing;
    std::int64_t cores = 0;
    Duration limit;
  };
  struct Pass {
    Instant now;
    std::int64_t machine = 0;                       // cores, one node
    const std::vector<sched::Horizon::Hold>& runs;  // before the pass, in the order of their believed ends
    const std::vector<JobId>& started;
    const std::vector<sched::Promise>& promises;  // all that the planner gave
    std::function<Candidate(JobId)> job;
  };

  void observe(const Pass& pass);
  [[nodiscard]] std::uint64_t broken() const { return broken_; }

 private:
  struct Told {
    Instant start;
    Instant harmed;  // the promised start that was made impossible; unset: none was
  };
  // Cores taken for a time.
  struct Span {
    Instant from;
    Instant until;
    std::int64_t cores = 0;
  };

  void find_harm(const Pass& pass);
  bool all_promises_hold(const Pass& pass, const std::vector<Candidate>& started) const;
  bool harmed(const Pass& pass, const Candidate& job, Instant promised, const std::vector<Candidate>& started,
              const std::map<JobId, Candidate>& promised_jobs) const;
  static std::int64_t most_taken(const std::vector<Span>& spans, Instant from, Instant until);

  std::map<JobId, Told> told_;  // jobs that wait
  std::uint64_t broken_ = 0;
};

}  // namespace muster::sim
