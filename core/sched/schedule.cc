#include "core/sched/schedule.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "core/sched/place.h"

namespace muster::sched {

const QueuePolicy* Policy::find_queue(const std::string& name) const {
  const auto it = std::find_if(queues.begin(), queues.end(), [&](const QueuePolicy& q) { return q.name == name; });
  return it == queues.end() ? nullptr : &*it;
}

bool at_array_limit(const Job& job, std::uint64_t more) {
  const std::uint64_t limit = job.is_array_record ? job.spec->array->max_running : 0;
  return limit != 0 && job.array_running + more >= limit;
}

namespace {

// Requests of equal shape get equal answers within one pass, because free resources only shrink in it.
using Shape = std::tuple<std::string, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t,
                         std::uint64_t, std::uint64_t, std::uint64_t, std::uint32_t, std::uint32_t, std::uint32_t, bool,
                         std::vector<std::string>, std::vector<std::string>>;

Shape shape_of(const JobSpec& s) {
  return {s.queue, s.nodes_min, s.nodes_max, s.ntasks, s.ntasks_per_node, s.cpus_per_task, s.mem_per_node_mib,
          s.mem_per_cpu_mib, s.mem_per_gpu_mib, s.gpus, s.gpus_per_node, s.gpus_per_task, s.exclusive, s.nodelist,
          s.exclude};
}

const std::vector<std::string>& nodes_of(const Policy& policy, const JobSpec& spec) {
  static const std::vector<std::string> kAll;
  const QueuePolicy* q = policy.find_queue(spec.queue);
  return q == nullptr ? kAll : q->nodes;
}

class Pass {
 public:
  Pass(const Ledger& ledger, const Policy& policy, WorkBudget budget, Instant now)
      : draft_(ledger), policy_(policy), budget_(budget), now_(now) {}

  Visit visit(const Job& job) {
    const QueuePolicy* queue = policy_.find_queue(job.spec->queue);
    if (queue == nullptr || !queue->starts) {
      return Visit::kSkipQueue;
    }
    if (job.spec->begin > now_) {
      return Visit::kNext;
    }
    return job.is_array_record ? visit_array(job) : visit_single(job);
  }
  Plan take_plan() { return std::move(plan_); }

 private:
  enum class Answer { kPlaced, kBlocked, kNeverNow };

  Visit visit_single(const Job& job) {
    switch (try_place(job, 0)) {
      case Answer::kPlaced:
        return within_budget();
      case Answer::kBlocked:
        return Visit::kSkipQueue;
      case Answer::kNeverNow:
        return Visit::kNext;
    }
    return Visit::kStop;
  }

  Visit visit_array(const Job& job) {
    std::uint64_t placed = 0;
    for (const PositionRange& range : job.waiting) {
      for (std::uint64_t p = range.begin; p < range.end; ++p) {
        if (at_array_limit(job, placed)) {
          return Visit::kNext;
        }
        switch (try_place(job, p)) {
          case Answer::kPlaced:
            ++placed;
            if (within_budget() == Visit::kStop) {
              return Visit::kStop;
            }
            break;
          case Answer::kBlocked:
            return Visit::kSkipQueue;
          case Answer::kNeverNow:
            return Visit::kNext;
        }
      }
    }
    return Visit::kNext;
  }

  Answer try_place(const Job& job, std::uint64_t position) {
    Shape shape = shape_of(*job.spec);
    if (never_now_.contains(shape)) {
      return Answer::kNeverNow;
    }
    const std::vector<std::string>& allowed = nodes_of(policy_, *job.spec);
    PlaceResult r = place(draft_, *job.spec, allowed, Assume::kFreeNow);
    if (!r.shares.empty()) {
      for (const NodeShare& s : r.shares) {
        draft_.take(s);
      }
      plan_.placements.push_back(Placement{.job = job.id, .position = position, .shares = std::move(r.shares)});
      return Answer::kPlaced;
    }
    if (!place(draft_, *job.spec, allowed, Assume::kUsableEmpty).shares.empty()) {
      return Answer::kBlocked;
    }
    never_now_.insert(std::move(shape));
    return Answer::kNeverNow;
  }

  Visit within_budget() {
    if (plan_.placements.size() < budget_.placements_made) {
      return Visit::kNext;
    }
    plan_.complete = false;
    return Visit::kStop;
  }

  Draft draft_;
  const Policy& policy_;
  WorkBudget budget_;
  Instant now_;
  Plan plan_;
  std::set<Shape> never_now_;
};

}  // namespace

Plan schedule(const Ledger& ledger, const PendingWalk& pending, const Policy& policy, WorkBudget budget, Instant now) {
  Pass pass(ledger, policy, budget, now);
  pending([&pass](const Job& job) { return pass.visit(job); });
  return pass.take_plan();
}

Reason explain(const Ledger& ledger, const Job& job, const Job* first_blocked, const Policy& policy, Instant now) {
  if (job.held) {
    return {"JobHeldUser", "held by its user: muster release " + std::to_string(job.id.value)};
  }
  const QueuePolicy* queue = policy.find_queue(job.spec->queue);
  if (queue == nullptr) {
    return {"QueueGone", "queue " + job.spec->queue + " is not in the configuration any more"};
  }
  if (!queue->starts) {
    return {"QueueStopped", "queue " + job.spec->queue + " is stopped: its jobs wait until an administrator opens it"};
  }
  if (job.spec->begin > now) {
    return {"BeginTime", "may not start before the time given with --begin"};
  }
  if (at_array_limit(job, 0)) {
    return {"JobArrayTaskLimit", std::to_string(job.array_running) + " tasks of the array run, its limit is " +
                                     std::to_string(job.spec->array->max_running)};
  }
  const std::vector<std::string>& allowed = nodes_of(policy, *job.spec);
  const Draft draft(ledger);
  const PlaceResult now_result = place(draft, *job.spec, allowed, Assume::kFreeNow);
  std::string ahead;
  if (first_blocked != nullptr && first_blocked->id != job.id) {
    ahead = "job " + std::to_string(first_blocked->id.value) + " stands before it in queue " + job.spec->queue +
            " and waits for resources";
  }
  if (now_result.shares.empty() && place(draft, *job.spec, allowed, Assume::kUsableEmpty).shares.empty()) {
    return {"ReqNodeNotAvail", now_result.detail + ". The nodes that it needs are down, drained or unreachable"};
  }
  if (!ahead.empty()) {
    return {"Priority", now_result.shares.empty() ? ahead + ". It also " + now_result.detail : ahead};
  }
  if (now_result.shares.empty()) {
    return {"Resources", now_result.detail};
  }
  return {"None", "starts in the next planning pass"};
}

}  // namespace muster::sched
