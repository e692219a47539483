#include <algorithm>

#include "core/engine/dependency.h"
#include "core/engine/index.h"
#include "core/engine/state.h"

namespace muster::engine {
namespace {

std::string job_text(const Job& job) {
  return "job " + std::to_string(job.id.value);
}

class Check {
 public:
  explicit Check(const State& s) : s_(s) {}

  std::vector<std::string> run() {
    for (const auto& [id, job] : s_.jobs) {
      check_job(id, job);
    }
    for (const auto& [id, array] : s_.arrays) {
      check_array(id, array);
    }
    check_nothing_twice();
    check_reservations();
    check_indexes();
    return std::move(bad_);
  }

 private:
  void require(bool ok, const std::string& what) {
    if (!ok) {
      bad_.push_back(what);
    }
  }

  // Of an array that waits task by task for another one.
  void check_pairs(const Job& array, const OpenDependency& open) {
    const std::string name = job_text(array);
    require(array.is_array_record, name + " is no array and waits for single tasks");
    require(!open.corr_waits.empty() || !open.corr_never.empty(), name + " keeps a dependency that is met");
    require(both(open.corr_waits, array.waiting) == open.corr_waits, name + " keeps back tasks that do not wait");
    require(both(open.corr_never, array.waiting) == open.corr_never, name + " gives up tasks that do not wait");
    require(both(open.corr_waits, open.corr_never).empty(), name + " waits for what can never be");
    if (open.corr_waits.empty() || !array.spec->array) {
      return;
    }
    const Job* other = find_array(s_, open.job);
    if (other == nullptr) {
      require(false, name + " waits for array " + std::to_string(open.job.value) + ", which is over");
      return;
    }
    for (const PositionRange& r : open.corr_waits) {
      for (std::uint64_t p = r.begin; p < r.end; ++p) {
        const auto pair = other->spec->array->position_of(array.spec->array->index_at(p));
        require(pair && (is_waiting(*other, *pair) || find_job(s_, JobId{other->id.value + *pair}) != nullptr),
                name + " waits for a task that is over");
      }
    }
  }

  // What a job waits for has not happened yet, and can happen.
  void check_open(const Job& job) {
    require(job.open.empty() || !job.is_active(), job_text(job) + " runs before its dependency is met");
    require(job.open.size() <= job.spec->dependency.terms.size(), job_text(job) + " waits for more than it was given");
    for (const OpenDependency& open : job.open) {
      if (open.kind == DependencyKind::kAfterCorr) {
        check_pairs(job, open);
        continue;
      }
      if (open.kind == DependencyKind::kSingleton) {
        const auto named = s_.by_name.find({job.spec->user, job.spec->name});
        require(named != s_.by_name.end() && *named->second.begin() < job.id,
                job_text(job) + " is the first of its name and waits for another one");
        continue;
      }
      if (open.never) {
        continue;
      }
      const Job* array = find_array(s_, open.job);
      const Job* single = find_job(s_, open.job);
      const bool lives =
          open.whole_array ? array != nullptr : single != nullptr || find_array_of(s_, open.job) != nullptr;
      require(lives, job_text(job) + " waits for job " + std::to_string(open.job.value) + ", which is over");
      if (open.kind == DependencyKind::kAfter && lives) {
        require(
            open.whole_array ? !array->waiting.empty() : single == nullptr || !single->is_active(),
            job_text(job) + " waits for the start of job " + std::to_string(open.job.value) + ", which has started");
      }
    }
  }

  void check_job(JobId id, const Job& job) {
    check_open(job);
    require(job.id == id, job_text(job) + " is stored under another id");
    require(!job.is_array_record, job_text(job) + ": an array record among the jobs");
    require(id < s_.next_job, job_text(job) + ": its id is not below next_job");
    require(job.spec != nullptr, job_text(job) + " has no spec");
    require(job.array == JobId{} || job.is_active(), job_text(job) + ": a task of an array that has not started");
    require(job.array == JobId{} || find_array(s_, job.array) != nullptr, job_text(job) + ": its array is gone");
    if (const auto* active = std::get_if<Active>(&job.phase)) {
      require(!active->nodes.empty(), job_text(job) + " runs nowhere");
      require(job.attempt.value > 0, job_text(job) + " runs as attempt 0");
      require(active->stop != StopCause::kNone || active->terms == StopTerms{},
              job_text(job) + " is not being stopped and has terms of a stop");
      require(active->suspension.room_for == JobId{} || active->suspension.since.is_set(),
              job_text(job) + " makes room by standing still and runs");
      require(std::any_of(active->nodes.begin(), active->nodes.end(),
                          [](const AttemptOnNode& on) { return on.phase != NodePhase::kEnded; }),
              job_text(job) + " has ended everywhere and is still there");
      for (const AttemptOnNode& on : active->nodes) {
        require((on.phase == NodePhase::kEnded) == on.outcome.has_value(),
                job_text(job) + ": phase and outcome disagree");
        require(on.share.node.value < s_.nodes.size(), job_text(job) + " is on an unknown node");
        require(!on.stands_still || (active->suspension.since.is_set() && active->suspension.room_for != JobId{} &&
                                     on.phase != NodePhase::kEnded),
                job_text(job) + " gives its cores away and runs");
      }
    }
  }

  void check_array(JobId id, const Job& array) {
    check_open(array);
    require(array.id == id && array.is_array_record && array.array == id, job_text(array) + ": a broken array record");
    require(array.spec != nullptr && array.spec->array.has_value(), job_text(array) + ": an array without its spec");
    std::uint64_t end = 0;
    for (const PositionRange& r : array.waiting) {
      require(r.begin < r.end && r.begin >= end, job_text(array) + ": waiting positions out of order");
      end = r.end;
    }
    require(end <= array.spec->array->size(), job_text(array) + ": waiting positions beyond its size");
    require(both(array.held_positions, array.waiting) == array.held_positions,
            job_text(array) + " holds tasks that do not wait");
    require(both(array.failed_positions, array.waiting).empty(), job_text(array) + ": a task failed and waits");
    std::uint64_t next = 0;
    for (const RequeuedTask& task : array.requeued) {
      require(task.position >= next && is_waiting(array, task.position) && task.attempt.value > 0,
              job_text(array) + ": a task that ran before and does not wait");
      next = task.position + 1;
    }
    std::uint64_t running = 0;
    std::uint64_t of_this_spec = 0;  // started since the array was changed last
    for (auto it = s_.jobs.lower_bound(id); it != s_.jobs.end() && it->second.array == id; ++it) {
      ++running;
      of_this_spec += it->second.spec == array.spec ? 1 : 0;
      require(!is_waiting(array, it->second.array_position), job_text(it->second) + " both waits and runs");
    }
    require(running == array.array_running, job_text(array) + ": counts its running tasks wrong");
    require(running != 0 || !array.waiting.empty(), job_text(array) + " is done and still there");
    const std::uint64_t limit = array.spec->array->max_running;
    require(limit == 0 || of_this_spec <= limit, job_text(array) + " runs more tasks than its limit");
    require(!waits_as_a_whole(array) || of_this_spec == 0,
            job_text(array) + " runs tasks before its dependency is met");
  }

  void check_reservations() {
    for (auto a = s_.reservations.begin(); a != s_.reservations.end(); ++a) {
      require(a->second.name == a->first, "reservation " + a->first + " is stored under another name");
      for (auto b = std::next(a); b != s_.reservations.end(); ++b) {
        const std::vector<std::string>& nodes = b->second.nodes;
        const bool shared = std::any_of(a->second.nodes.begin(), a->second.nodes.end(), [&nodes](const auto& name) {
          return std::find(nodes.begin(), nodes.end(), name) != nodes.end();
        });
        require(!shared || !windows_overlap(a->second, b->second),
                "reservations " + a->first + " and " + b->first + " have a node at the same time");
      }
    }
  }

  // Rule 2: from the records alone, not from the ledger.
  void check_nothing_twice() {
    std::vector<IndexSet> cores(s_.nodes.size());
    std::vector<IndexSet> gpus(s_.nodes.size());
    std::vector<std::uint64_t> memory(s_.nodes.size());
    for (const auto& [id, job] : s_.jobs) {
      const auto* active = std::get_if<Active>(&job.phase);
      if (active == nullptr) {
        continue;
      }
      for (const AttemptOnNode& on : active->nodes) {
        if (on.phase == NodePhase::kEnded || on.share.node.value >= s_.nodes.size()) {
          continue;
        }
        const std::size_t n = on.share.node.value;
        const NodeShare held = sched::held_share(on);
        require(!cores[n].intersects(held.cores), job_text(job) + ": holds a core that another job holds");
        require(!gpus[n].intersects(on.share.gpus), job_text(job) + ": holds a GPU that another job holds");
        cores[n] |= held.cores;
        gpus[n] |= on.share.gpus;
        memory[n] += on.share.mem_mib;
      }
    }
    for (std::size_t n = 0; n < s_.nodes.size(); ++n) {
      const sched::NodeCapacity& c = s_.ledger.nodes()[n];
      require((c.all_cores - cores[n]) == c.free_cores, "node " + c.name + ": free cores disagree with the jobs");
      require((c.all_gpus - gpus[n]) == c.free_gpus, "node " + c.name + ": free GPUs disagree with the jobs");
      const std::uint64_t free = c.mem_mib > memory[n] ? c.mem_mib - memory[n] : 0;
      require(free == c.free_mem_mib, "node " + c.name + ": free memory disagrees with the jobs");
    }
  }

  void check_indexes() {
    State again = s_;
    rebuild_indexes(again);
    require(again.pending == s_.pending, "the index of pending jobs is wrong");
    require(again.deadlines == s_.deadlines, "the index of deadlines is wrong");
    require(again.promised == s_.promised, "the index of promised starts is wrong");
    require(again.dependents == s_.dependents, "the index of dependent jobs is wrong");
    require(again.by_name == s_.by_name, "the index of jobs by name is wrong");
    require(again.jobs_on_node == s_.jobs_on_node, "the index of jobs on nodes is wrong");
    require(again.standing_still == s_.standing_still, "the index of jobs that stand still for others is wrong");
    require(again.making_room == s_.making_room, "the index of jobs that make room is wrong");
    require(again.node_by_name == s_.node_by_name, "the index of node names is wrong");
    require(again.nodes_with_failures == s_.nodes_with_failures, "the index of failures is wrong");
    require(again.waiting_tasks == s_.waiting_tasks, "the count of waiting tasks is wrong");
    require(again.active_jobs == s_.active_jobs, "the count of active jobs is wrong");
    require(again.accounts == s_.accounts, "the counts of accounts and QOS are wrong");
    require(again.ledger == s_.ledger, "the ledger is wrong");
    require(again.horizon == s_.horizon, "the horizon is wrong");
    require(again.windows == s_.windows, "the index of reservations is wrong");
    require(again.licenses == s_.licenses, "the index of licences is wrong");
    require(again.requests_by_age.size() == s_.requests_by_age.size(), "the index of requests is wrong");
  }

  const State& s_;
  std::vector<std::string> bad_;
};

}  // namespace

std::vector<std::string> check_invariants(const State& state) {
  return Check(state).run();
}

}  // namespace muster::engine
