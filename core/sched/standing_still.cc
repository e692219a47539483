#include "core/sched/standing_still.h"

#include <algorithm>
#include <tuple>
#include <variant>

#include "core/sched/span.h"

namespace muster::sched {
namespace {

// Until the cores that it waits for are free at the earliest (timeline.cc takes what is overdue to end then).
constexpr Duration kSoon = Duration::from_s(1);

Instant end_if_it_goes_on(const Active& active, Instant at, Instant now) {
  const Duration ran = ran_for(active, now);
  return active.time_limit.is_infinite() ? end_of(at, active.time_limit)
                                         : end_of(at, std::max(kSoon, active.time_limit - ran));
}

void take(Timeline& timeline, const KeptCores& kept) {
  for (const NodeShare& idle : kept.idle) {
    timeline.go_on(idle, kept.until);
  }
  if (!kept.busy.empty()) {
    timeline.hold(kept.busy, kept.from, kept.until, {});
  }
}

}  // namespace

StandingStill::StandingStill(const Cluster& cluster, const Policy& policy, const PreemptRules& rules, Instant now)
    : cluster_(cluster), now_(now) {
  if (cluster.standing_still == nullptr) {
    return;
  }
  for (const JobId id : *cluster.standing_still) {
    const Job& job = cluster.running_job(id);
    if (std::get<Active>(job.phase).stop == StopCause::kNone) {
      waiting_.push_back({&job, standing_of(policy, rules, *job.spec)});
    }
  }
  const auto start = [](const Waiting& w) { return std::get<Active>(w.job->phase).start_time; };
  std::sort(waiting_.begin(), waiting_.end(), [&start](const Waiting& a, const Waiting& b) {
    return std::tuple(b.standing, start(a), a.job->id) < std::tuple(a.standing, start(b), b.job->id);
  });
}

// Of one whose cores are all free.
bool StandingStill::may_go_on(const Timeline& timeline, const Job& job, Instant end) const {
  // The window of its reservation may be over: then it is a job like others.
  const bool reserved = cluster_.windows != nullptr && !job.spec->reservation.empty() &&
                        cluster_.windows->access(*job.spec, now_) == Windows::Access::kOk;
  const std::string reservation = reserved ? job.spec->reservation : "";
  const auto& nodes = std::get<Active>(job.phase).nodes;
  return std::all_of(nodes.begin(), nodes.end(), [&](const AttemptOnNode& on) {
    if (on.phase == NodePhase::kEnded) {
      return true;
    }
    const NodeCapacity& n = timeline.draft().node(on.share.node.value);
    // On a drained node nothing new starts, and what is there shall come to its end.
    return on.stands_still && n.connected &&
           (!n.usable || timeline.free(on.share.node, now_, end, reservation).cores >=
                             static_cast<std::int64_t>(on.share.cores.count()));
  });
}

// When those who have the cores that it lacks are believed to end.
Instant StandingStill::free_from(const Job& job, const Plan& plan, const std::vector<Lack>& lacks) const {
  Instant from = now_ + kSoon;
  for (const Lack& lack : lacks) {
    const NodeIndex node = lack.on->share.node;
    for (const JobId id : (*cluster_.running)[node.value]) {
      const auto& active = std::get<Active>(cluster_.running_job(id).phase);
      for (const AttemptOnNode& on : active.nodes) {
        if (id != job.id && on.share.node == node && on.phase != NodePhase::kEnded && !on.stands_still &&
            on.share.cores.intersects(lack.busy)) {
          from = std::max(from, held_parts(active, on).front().until);
        }
      }
    }
    for (const Placement& p : plan.placements) {
      for (const NodeShare& share : p.shares) {
        if (share.node == node && share.cores.intersects(lack.busy)) {
          from = std::max(from, end_of(now_, given_limit(p, *cluster_.job(p.job).spec)));
        }
      }
    }
    for (const KeptCores& kept : plan.kept_cores) {
      for (const NodeShare& share : kept.idle) {
        if (share.node == node && share.cores.intersects(lack.busy)) {
          from = std::max(from, kept.until);
        }
      }
    }
  }
  return from;
}

void StandingStill::serve_next(Timeline& timeline, Plan& plan) {
  const Job& job = *waiting_[next_++].job;
  const auto is_victim = [&job](const Preemption& p) { return p.victim.job == job.id; };
  if (std::any_of(plan.preemptions.begin(), plan.preemptions.end(), is_victim)) {
    return;  // one that came before it ends it in this pass
  }
  const auto& active = std::get<Active>(job.phase);
  std::vector<Lack> lacks;
  for (const AttemptOnNode& on : active.nodes) {
    if (on.phase != NodePhase::kEnded && on.stands_still) {
      timeline.look();
      IndexSet busy = on.share.cores - timeline.draft().node(on.share.node.value).free_cores;
      if (!busy.empty()) {
        lacks.push_back({&on, std::move(busy)});
      }
    }
  }
  KeptCores kept{.job = job.id, .idle = {}, .busy = {}, .from = now_, .until = {}};
  kept.until = end_if_it_goes_on(active, now_, now_);
  if (lacks.empty() && may_go_on(timeline, job, kept.until)) {
    plan.resumes.push_back(AttemptKey{job.id, job.attempt});
  } else {
    kept.from = free_from(job, plan, lacks);
    kept.until = end_if_it_goes_on(active, kept.from, now_);
  }
  for (const AttemptOnNode& on : active.nodes) {
    if (on.phase != NodePhase::kEnded && on.stands_still) {
      NodeShare idle = cores_of(on.share);
      idle.cores &= timeline.draft().node(on.share.node.value).free_cores;
      kept.idle.push_back(std::move(idle));
    }
  }
  for (const Lack& lack : lacks) {
    NodeShare busy = cores_of(lack.on->share);
    busy.cores = lack.busy;
    if (timeline.draft().node(busy.node.value).usable) {
      kept.busy.push_back(Slot{.node = busy.node, .amount = amount_of(busy), .tasks = 0});
    }
  }
  take(timeline, kept);
  plan.kept_cores.push_back(std::move(kept));
}

void take_kept_cores(Timeline& timeline, const Plan& plan, const std::function<bool(JobId)>& comes_before) {
  for (const KeptCores& kept : plan.kept_cores) {
    if (comes_before(kept.job)) {
      take(timeline, kept);
    }
  }
}

}  // namespace muster::sched
