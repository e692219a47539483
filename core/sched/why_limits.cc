// The limits that hold a job back, as explanations tell them.
#include <algorithm>

#include "core/sched/limits.h"
#include "core/sched/why.h"

namespace muster::sched {
namespace {

Blocker blocker_of(const LimitHit& hit, std::size_t hits) {
  const char* all = hits > 1 ? ", with the other limits changed as well" : "";
  return {"limit", hit.word, hit.text + ": " + hit.command + " would allow it" + all, {}};
}

}  // namespace

// What the plan starts, and the promises that come before the job's own; all of them for a job without one.
std::unique_ptr<LimitBook> Why::limits_before(JobId self) const {
  auto book = std::make_unique<LimitBook>(*cluster_.accounts, now_);
  for (const Placement& p : plan().placements) {
    const JobSpec& spec = *cluster_.job(p.job).spec;
    book->start(spec, demand_of(p.shares, spec.time_limit));
  }
  for (const auto* list : {&plan().promises, &plan().kept}) {
    for (const Promise& p : *list) {
      if (p.job == self) {
        return book;
      }
      const JobSpec& spec = *cluster_.job(p.job).spec;
      book->reserve(spec, demand_of(p.slots, spec.time_limit), p.start);
    }
  }
  return book;
}

std::vector<LimitHit> Why::limit_hits(const JobSpec& spec, Instant since, JobId self) const {
  if (cluster_.accounts == nullptr || !cluster_.accounts->has_limits()) {
    return {};
  }
  const bool promised = has_promise(self);
  std::unique_ptr<LimitBook> own;
  if (promised) {
    own = limits_before(self);
  } else if (limits_ == nullptr) {
    limits_ = limits_before(JobId{});
  }
  const LimitBook& book = promised ? *own : *limits_;
  if (!book.concerns(spec)) {
    return {};
  }
  ++looked_at_;
  // Where it goes it may take more than it needs at least: whole nodes, for instance.
  const NodeFilter filter = filter_of(spec);
  std::vector<Slot> slots = fit_now(present_, spec, filter, any_switches(spec, since, now_));
  if (slots.empty()) {
    if (auto spot = earliest_fit(present_, spec, filter, now_, switches_lapse(spec, since))) {
      slots = std::move(spot->slots);
    }
  }
  if (!slots.empty()) {
    return book.hits(spec, demand_of(slots, spec.time_limit));
  }
  // What runs without an end leaves it no place: then where it would go without that.
  const PlaceResult empty = place(present_.draft(), spec, nodes_of(spec), Assume::kUsableEmpty, policy_.sites);
  return book.hits(spec, empty.shares.empty() ? least_demand(spec) : demand_of(empty.shares, spec.time_limit));
}

void Why::limit_blockers(const Job& job, std::vector<Blocker>& out) const {
  // Jobs of one group are at the same limits, but for those that are promised a start.
  if (cluster_.accounts == nullptr || !cluster_.accounts->has_limits()) {
    return;
  }
  auto known = limit_hits_.find(job.spec);
  const bool promised = has_promise(job.id);
  if (known == limit_hits_.end() || promised) {
    std::vector<LimitHit> hits = limit_hits(*job.spec, job.eligible_time, job.id);
    if (promised) {
      for (LimitHit& hit : hits) {
        out.push_back(blocker_of(hit, hits.size()));
      }
      return;
    }
    known = limit_hits_.emplace(job.spec, std::move(hits)).first;
  }
  for (const LimitHit& hit : known->second) {
    out.push_back(blocker_of(hit, known->second.size()));
  }
}

}  // namespace muster::sched
