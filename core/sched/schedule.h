// schedule(): turns the order of pending jobs and the free resources into a plan. The seat of the real policy: what is
// here is strict order (priority, then submission) with first fit.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/sched/ledger.h"
#include "lib/base/time.h"
#include "lib/model/command.h"
#include "lib/model/job.h"

namespace muster::sched {

// A queue's part of the policy; from the configuration.
struct QueuePolicy {
  std::string name;
  std::int64_t priority = 0;
  std::vector<std::string> nodes;  // empty: all
  Duration time_default;
  Duration time_max = Duration::infinite();
  bool accepts = true;  // new submissions
  bool starts = true;   // pending jobs may start
  friend bool operator==(const QueuePolicy&, const QueuePolicy&) = default;
};

struct Policy {
  std::vector<QueuePolicy> queues;
  std::string default_queue;
  std::uint64_t jobs_max = 10'000'000;       // jobs that have not ended; the waiting tasks of an array are one
  Duration request_memory = Duration::from_s(86'400);  // how long request ids are remembered

  [[nodiscard]] const QueuePolicy* find_queue(const std::string& name) const;
};

// Counted work of one slice; a slice ends when it is used up, and the next one begins after its plan is applied.
struct WorkBudget {
  std::uint32_t placements_made = 1'000;
};

struct Plan {
  std::vector<Placement> placements;
  bool complete = true;  // false: the budget ran out, call again
};

enum class Visit { kNext, kSkipQueue, kStop };
// Called for each pending job (single ones and array records with waiting tasks) in order.
using PendingVisitor = std::function<Visit(const Job&)>;
using PendingWalk = std::function<void(const PendingVisitor&)>;

// A job that could start on the usable nodes if they were empty, but not
// now, blocks everything behind it in its queue; one that cannot (its nodes are away) does not.
Plan schedule(const Ledger& ledger, const PendingWalk& pending, const Policy& policy, WorkBudget budget, Instant now);

// Whether `more` tasks beyond those that run bring an array to its own limit of running tasks. Never for a single job.
bool at_array_limit(const Job& job, std::uint64_t more);

// Why a pending job waits: Slurm's reason words and a sentence.
struct Reason {
  std::string word;    // "Priority", "Resources", "JobHeldUser", "BeginTime", "ReqNodeNotAvail", "JobArrayTaskLimit"
  std::string detail;
};
// `first_blocked` is the job that blocks the queue of `job`; null when none does.
Reason explain(const Ledger& ledger, const Job& job, const Job* first_blocked, const Policy& policy, Instant now);

}  // namespace muster::sched
