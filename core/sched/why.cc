#include "core/sched/why.h"

#include <algorithm>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "core/sched/preempt.h"
#include "core/sched/queue_rules.h"
#include "core/sched/request.h"
#include "core/sched/span.h"
#include "core/sched/standing_still.h"
#include "lib/base/text.h"
#include "lib/model/job_name.h"

namespace muster::sched {
namespace {

// Starts that are looked for beyond the promises, and the nodes that this may look at all in all: an answer to a question
// must not hold up the loop.
constexpr std::uint32_t kExpectedMax = 200;
constexpr std::uint32_t kNodesLookedAtMax = 200'000;

// Of one job's open dependencies, those that an explanation names.
constexpr std::size_t kDependenciesNamedMax = 20;

// Of the promised jobs that one would delay.
constexpr std::size_t kPromisesNamedMax = 10;

// Of the jobs that make room for one.
constexpr std::size_t kVictimsNamedMax = 10;

std::uint32_t depth_for(std::size_t nodes) {
  return std::min<std::uint32_t>(kExpectedMax,
                                 kNodesLookedAtMax / static_cast<std::uint32_t>(std::max<std::size_t>(1, nodes)));
}

std::string job_text(JobId id) {
  return "job " + std::to_string(id.value);
}

// Whether every task that waits would still do so if none were held singly.
bool all_wait_for_pairs(const Job& array) {
  Job released = array;
  released.held_positions.clear();
  return startable(released).empty();
}

// Whether no task that waits can ever have what this term asks of each of them.
bool is_hopeless(const Job& job, const OpenDependency& open) {
  return open.kind == DependencyKind::kAfterCorr && both(job.waiting, open.corr_waits).empty() &&
         !both(job.waiting, open.corr_never).empty();
}

// Times are given as distances: the core knows no time zone.
std::string in_text(Instant at, Instant now) {
  return at <= now ? "at once" : "in " + format_duration(at - now);
}

}  // namespace

Why::Why(Cluster cluster, const Policy& policy, Instant now)
    : cluster_(std::move(cluster)),
      policy_(policy),
      now_(now),
      order_(policy, cluster_.accounts, now),
      rules_(preempt_rules(cluster_.accounts)),
      present_(timeline_of(cluster_, policy, now)) {}

const Plan& Why::plan() const {
  if (outlook_) {
    return outlook_->plan;
  }
  if (!plan_) {
    plan_ = schedule(cluster_, policy_, order_, WorkBudget{.placements_made = UINT32_MAX}, now_);
  }
  return *plan_;
}

const Outlook& Why::outlook() const {
  if (!outlook_) {
    outlook_ = look_ahead(cluster_, policy_, order_, depth_for(cluster_.ledger.nodes().size()), now_);
  }
  return *outlook_;
}

bool Why::has_promise(JobId job) const {
  const auto is_of = [job](const Promise& p) { return p.job == job; };
  return std::any_of(plan().promises.begin(), plan().promises.end(), is_of) ||
         std::any_of(plan().kept.begin(), plan().kept.end(), is_of);
}

NodeFilter Why::filter_of(const JobSpec& spec) const {
  NodeFilter filter = make_filter(cluster_.ledger, spec, nodes_of(spec), policy_.sites);
  const QueuePolicy* q = policy_.find_queue(spec.queue);
  filter.spread = q != nullptr && q->spread;
  return filter;
}

const std::vector<std::string>& Why::nodes_of(const JobSpec& spec) const {
  static const std::vector<std::string> kAll;
  const QueuePolicy* q = policy_.find_queue(spec.queue);
  const std::vector<std::string>& of_queue = q == nullptr ? kAll : q->nodes;
  if (spec.reservation.empty() || cluster_.windows == nullptr) {
    return of_queue;
  }
  const auto [it, is_new] = reserved_nodes_.try_emplace({spec.queue, spec.reservation});
  if (is_new) {
    it->second = cluster_.windows->nodes_for(spec.reservation, of_queue);
  }
  return it->second;
}

void Why::own_blockers(const Job& job, std::vector<Blocker>& out) const {
  if (job.held) {
    out.push_back({"held", "JobHeldUser", "held by its user: muster release " + std::to_string(job.id.value), {}});
  }
  const bool barred = job.is_array_record && has_barred(job);
  const bool all_barred = barred && startable(job).empty();
  const std::uint64_t held = all_barred ? count(both(job.waiting, job.held_positions)) : 0;
  if (held != 0 && !job.held) {
    out.push_back(
        {"held",
         "JobHeldUser",
         plural(held, "task is", "tasks are") + " held by the user: muster release " + std::to_string(job.id.value),
         {}});
  }
  if (waits_as_a_whole(job) || (all_barred && (held != count(job.waiting) || all_wait_for_pairs(job)))) {
    dependency_blocker(job, out);
  }
  const std::string& name = job.spec->queue;
  const QueuePolicy* queue = policy_.find_queue(name);
  if (queue == nullptr) {
    out.push_back({"queue", "QueueGone", "queue " + name + " is not in the configuration any more", {}});
  } else if (!queue->starts) {
    out.push_back(
        {"queue",
         "QueueStopped",
         "queue " + name + " starts no jobs (state down or inactive): they wait until an administrator sets it up",
         {}});
  }
  for (const QueueRefusal& refused : queue == nullptr ? std::vector<QueueRefusal>{} : refusals_of(*queue, *job.spec)) {
    out.push_back({"queue_limit",
                   refused.word,
                   refused.text + ": change the job with muster update, or ask an administrator",
                   {}});
  }
  if (job.spec->begin > now_) {
    out.push_back({"begin",
                   "BeginTime",
                   "may not start before the time given with --begin, " + in_text(job.spec->begin, now_),
                   {}});
  }
  access_blocker(*job.spec, out);
  if (const auto latest = latest_start(*job.spec); latest && *latest < now_) {
    out.push_back({"deadline", "DeadLine", "it can no longer end by its --deadline: it is about to be given up", {}});
  }
  if (at_array_limit(job, 0)) {
    out.push_back({"array_limit",
                   "JobArrayTaskLimit",
                   std::to_string(job.array_running) + " tasks of the array run, its limit is " +
                       std::to_string(job.spec->array->max_running),
                   {}});
  }
  limit_blockers(job, out);
}

void Why::dependency_blocker(const Job& job, std::vector<Blocker>& out) const {
  const bool any = job.spec->dependency.any;
  std::size_t never = 0;
  std::string text;
  std::size_t named = 0;
  for (const OpenDependency& open : job.open) {
    never += open.never || is_hopeless(job, open) ? 1 : 0;
    if (named < kDependenciesNamedMax) {
      text += (text.empty() ? "" : any ? " or " : ", ") + cluster_.describe(job, open);
      ++named;
    }
  }
  if (named < job.open.size()) {
    text += " and " + std::to_string(job.open.size() - named) + " more";
  }
  if (any ? never == job.open.size() : never != 0) {
    out.push_back({"dependency",
                   "DependencyNeverSatisfied",
                   "its dependency can never be satisfied: " + text + ": muster update " +
                       std::to_string(job.id.value) + " --dependency none lets it start without, muster cancel " +
                       std::to_string(job.id.value) + " gives it up",
                   {}});
  } else {
    out.push_back({"dependency", "Dependency", "waits for " + text, {}});
  }
}

// What the nodes lack for the job, each node counted once: "12 nodes: 9 lack 2 GPUs for 5 more minutes, 2 drained".
std::string Why::node_summary(const JobSpec& spec, std::vector<std::string>& nodes) const {
  const Ledger& ledger = cluster_.ledger;
  const NodeFilter filter = filter_of(spec);
  const bool whole_job = spec.nodes_max == 1 || spec.ntasks == 1;
  // A job that may use any number of nodes can put as little as one task on each.
  const std::uint64_t tasks = whole_job ? spec.ntasks
                              : spec.nodes_min <= 1
                                  ? 1
                                  : (std::uint64_t{spec.ntasks} + spec.nodes_min - 1) / spec.nodes_min;
  struct Lack {
    std::uint64_t nodes = 0;
    std::optional<Instant> soonest;
  };
  std::map<std::string, Lack> lacks;
  std::uint64_t seen = 0;
  std::uint64_t enough = 0;
  JobSpec any_features = spec;
  any_features.constraint.clear();
  const NodeFilter with_others = filter_of(any_features);
  for (std::size_t rank = 0; rank < ledger.order().size(); ++rank) {
    if (!with_others.allows(static_cast<std::uint32_t>(rank))) {
      continue;
    }
    ++seen;
    const NodeIndex index = ledger.order()[rank];
    const NodeCapacity& n = ledger.nodes()[index.value];
    if (!filter.allows(static_cast<std::uint32_t>(rank))) {
      ++lacks[" without the features of " + spec.constraint].nodes;
      continue;
    }
    if (!n.usable) {
      ++lacks[" " + (n.absence.empty() ? "not in service" : n.absence)].nodes;
      nodes.push_back(n.name);
      continue;
    }
    const Amount need = need_of(spec, n, tasks, whole_job ? spec.gpus : 0);
    if (present_.has_windows(index, spec.reservation) &&
        !present_.windows()->allows(index, now_, end_of(now_, spec.time_limit), spec.reservation)) {
      ++lacks[" reserved before its time limit ends"].nodes;
      if (!(n.free == n.all)) {
        nodes.push_back(n.name);
      }
      continue;
    }
    if (n.free.covers(need)) {
      ++enough;
      if (!whole_job && !(n.free == n.all)) {
        nodes.push_back(n.name);  // it has room for a part, and would have more
      }
      continue;
    }
    nodes.push_back(n.name);
    std::string what;
    const auto add = [&what](std::int64_t missing, const char* one, const char* many) {
      if (missing > 0) {
        what += (what.empty() ? "" : " and ") + plural(static_cast<std::uint64_t>(missing), one, many);
      }
    };
    add(need.cores - n.free.cores, "CPU", "CPUs");
    add(need.gpus - n.free.gpus, "GPU", "GPUs");
    if (need.mem_mib > n.free.mem_mib) {
      what += (what.empty() ? "" : " and ") + std::to_string(need.mem_mib - n.free.mem_mib) + " MiB";
    }
    const bool ever = n.all.covers(need);
    Lack& lack = lacks[(ever ? "" : " too small,") + std::string(" lacking ") + what];
    ++lack.nodes;
    if (ever) {
      for (const Timeline::Step& step : present_.steps(index)) {
        if (step.free.covers(need)) {
          lack.soonest = lack.soonest ? std::min(*lack.soonest, step.from) : step.from;
          break;
        }
      }
    }
  }
  std::string text = plural(seen, "node", "nodes") + ":";
  std::string parts;
  for (const auto& [what, lack] : lacks) {
    parts += (parts.empty() ? " " : ", ") + std::to_string(lack.nodes) + what;
    if (lack.soonest) {
      parts += " (the first has it " + in_text(*lack.soonest, now_) + ")";
    }
  }
  if (enough != 0) {
    parts +=
        (parts.empty() ? " " : ", ") + std::to_string(enough) + (whole_job ? " with room" : " with room for a part");
  }
  return text + parts;
}

void Why::resource_blockers(const JobSpec& spec, Instant since, std::vector<Blocker>& out) const {
  if (!spec.reservation.empty() &&
      (cluster_.windows == nullptr || cluster_.windows->access(spec, now_) != Windows::Access::kOk)) {
    return;  // what it may not use lacks nothing
  }
  if (!spec.licenses.empty()) {
    JobSpec without = spec;
    without.licenses.clear();
    return resource_blockers(without, since, out);
  }
  const std::vector<std::string>& allowed = nodes_of(spec);
  const Draft draft(cluster_.ledger);
  const NodeFilter filter = filter_of(spec);
  if (!fit_now(present_, spec, filter, any_switches(spec, since, now_)).empty()) {
    return;
  }
  if (present_.windows() != nullptr) {
    const std::size_t before = out.size();
    if (window_blocker(spec, out)) {
      return;
    }
    JobSpec outside = spec;
    outside.reservation.clear();
    const Timeline without(cluster_.ledger, cluster_.horizon, now_);
    if (out.size() > before && !fit_now(without, outside, filter, any_switches(spec, since, now_)).empty()) {
      return;
    }
  }
  Blocker b;
  const PlaceResult empty = place(draft, spec, allowed, Assume::kUsableEmpty, policy_.sites);
  if (empty.shares.empty()) {
    b.kind = "nodes";
    b.word = "ReqNodeNotAvail";
    b.text = empty.detail + ". The nodes that it needs are down, drained or unreachable";
  } else {
    b.kind = "resources";
    b.word = "Resources";
    JobSpec limited = spec;  // what its limit of switches refuses now is to be told, also where it lapses later
    limited.switches_wait = any_switches(spec, since, now_) ? Duration{} : Duration::infinite();
    b.text = place(draft, limited, allowed, Assume::kFreeNow, policy_.sites).detail;
    if (!any_switches(spec, since, now_) && !spec.switches_wait.is_infinite()) {
      b.text += "; any number of switches will do " + in_text(switches_lapse(spec, since), now_);
    }
  }
  b.text += "; " + node_summary(spec, b.nodes);
  out.push_back(std::move(b));
}

std::optional<Blocker> Why::blocker_ahead(const JobSpec& spec, Instant since, JobId self) const {
  const NodeFilter filter = filter_of(spec);
  const bool any = any_switches(spec, since, now_);
  if (fit_now(present_, spec, filter, any).empty()) {
    return std::nullopt;  // it waits for resources, whoever stands before it
  }
  if (policy_.rules.backfill == Backfill::kNone) {
    return blocker_in_line(spec, self);
  }
  Timeline with = timeline_of(cluster_, policy_, now_);
  const auto hold = [this, &with](const Promise& p) {
    const JobSpec& of = *cluster_.job(p.job).spec;
    with.hold(p.slots, p.start, end_of(p.start, held_limit(of, p.start)), of.licenses);
  };
  const auto drop = [this, &with](const Promise& p) {
    const JobSpec& of = *cluster_.job(p.job).spec;
    with.drop(p.slots, p.start, end_of(p.start, held_limit(of, p.start)), of.licenses);
  };
  std::vector<const Promise*> in_the_way;
  std::vector<const Promise*> others;
  for (const auto* list : {&plan().promises, &plan().kept}) {
    for (const Promise& p : *list) {
      if (p.job == self) {
        continue;
      }
      hold(p);
      (fit_now(with, spec, filter, any).empty() ? in_the_way : others).push_back(&p);
      drop(p);
    }
  }
  // Each of the others leaves it a place, but perhaps not all of them together.
  for (const Promise* p : others) {
    if (!in_the_way.empty()) {
      break;
    }
    hold(*p);
    if (fit_now(with, spec, filter, any).empty()) {
      in_the_way.push_back(p);
    }
  }
  if (in_the_way.empty()) {
    return kept_blocker(with, spec, self, filter, any);
  }
  std::string text;
  for (std::size_t i = 0; i < std::min(in_the_way.size(), kPromisesNamedMax); ++i) {
    const Promise& p = *in_the_way[i];
    text += (i == 0 ? "" : "; ") + job_text(p.job) + " is promised a start " + in_text(p.start, now_) +
            " and would be delayed by it";
  }
  if (in_the_way.size() > kPromisesNamedMax) {
    text += "; and so would " + plural(in_the_way.size() - kPromisesNamedMax, "more job", "more jobs");
  }
  return Blocker{"priority", "Priority", std::move(text), {}};
}

// Where no gaps are filled, the first job of a queue that does not fit blocks all behind it.
std::optional<Blocker> Why::blocker_in_line(const JobSpec& spec, JobId self) const {
  for (const Promise& p : plan().kept) {
    const JobSpec& head = *cluster_.job(p.job).spec;
    if (p.job != self && head.queue == spec.queue && head.reservation == spec.reservation) {
      return Blocker{"priority",
                     "Priority",
                     job_text(p.job) + " stands before it and does not fit; queue " + spec.queue +
                         " starts its jobs in their order (scheduling.backfill is none)",
                     {}};
    }
  }
  return std::nullopt;
}

std::optional<Blocker> Why::room_blocker(const Job& job) const {
  std::set<JobId> victims;
  for (const Preemption& p : plan().preemptions) {
    if (p.job == job.id) {
      victims.insert(p.victim.job);
    }
  }
  if (cluster_.making_room != nullptr) {
    if (const auto stopping = cluster_.making_room->find(job.id); stopping != cluster_.making_room->end()) {
      for (const JobId id : stopping->second) {
        const auto& active = std::get<Active>(cluster_.running_job(id).phase);
        if (std::any_of(active.nodes.begin(), active.nodes.end(),
                        [&](const AttemptOnNode& on) { return has_yet_to_give(active, on, job.id); })) {
          victims.insert(id);
        }
      }
    }
  }
  if (victims.empty() ||
      !fit_flexibly(present_, *job.spec, filter_of(*job.spec), any_switches(*job.spec, job.eligible_time, now_))
           .slots.empty()) {
    return std::nullopt;
  }
  std::string text;
  std::size_t named = 0;
  for (const JobId id : victims) {
    if (++named > kVictimsNamedMax) {
      text += " and " + std::to_string(victims.size() - kVictimsNamedMax) + " more";
      break;
    }
    text += (text.empty() ? "waits for job " : ", job ") + job_name(cluster_.running_job(id));
  }
  return Blocker{"preemption", "Resources", text + " to be preempted", {}};
}

Reason Why::reason(const Job& job, ReasonBook& book) const {
  std::vector<Blocker> own;
  own_blockers(job, own);
  if (!own.empty()) {
    return {own.front().word, own.front().text};
  }
  if (const auto room = room_blocker(job)) {
    return {room->word, room->text};
  }
  // What stands still keeps its cores from fewer jobs with a promise than without, and a limit of switches that lapses does so
  // by the job's age.
  const bool is_alone = (!plan().kept_cores.empty() && has_promise(job.id)) ||
                        (job.spec->switches != 0 && !job.spec->switches_wait.is_infinite());
  const auto known = book.reasons.find(job.spec);
  if (!is_alone && known != book.reasons.end()) {
    return known->second;
  }
  ++looked_at_;
  std::vector<Blocker> found;
  resource_blockers(*job.spec, job.eligible_time, found);
  license_blocker(*job.spec, found);
  Reason reason{"None", "starts in the next planning pass"};
  if (!found.empty()) {
    reason = {found.front().word, found.front().text};
  } else if (const auto ahead = blocker_ahead(*job.spec, job.eligible_time, job.id)) {
    reason = {ahead->word, ahead->text};
  }
  return is_alone ? reason : book.reasons.emplace(job.spec, std::move(reason)).first->second;
}

std::optional<Instant> Why::estimated_start(const Job& job, ReasonBook& book) const {
  if (!book.starts) {
    book.starts.emplace();
    for (const auto* list : {&outlook().plan.promises, &outlook().plan.kept, &outlook().expected}) {
      for (const Promise& p : *list) {
        book.starts->emplace(p.job, p.start);
      }
    }
  }
  const auto it = book.starts->find(job.id);
  if (it == book.starts->end() || it->second <= now_ || it->second >= end_of(now_, Duration::infinite())) {
    return std::nullopt;
  }
  return it->second;
}

std::optional<Spot> Why::place_of_new(const JobSpec& spec) const {
  const QueuePolicy* queue = policy_.find_queue(spec.queue);
  if (spec.hold || queue == nullptr || !queue->starts || !limit_hits(spec, now_, JobId{}).empty()) {
    return std::nullopt;
  }
  const NodeFilter filter = filter_of(spec);
  const Instant since = std::max(now_, spec.begin);
  return earliest_in_time(outlook().timeline, spec, filter, since, switches_lapse(spec, since));
}

std::vector<Blocker> Why::blockers_of_new(const JobSpec& spec) const {
  Job job;
  job.spec = std::make_shared<const JobSpec>(spec);
  job.eligible_time = now_;
  std::vector<Blocker> blockers;
  if (spec.hold) {
    blockers.push_back({"held", "JobHeldUser", "held until it is released", {}});
  }
  own_blockers(job, blockers);
  resource_blockers(spec, now_, blockers);
  license_blocker(spec, blockers);
  return blockers;
}

// Whether one that stands still for another job keeps its cores from the job `self` with this spec: from all that have no
// promise, which are served after it, and from those with one that stand behind it.
bool Why::stands_before(JobId still, const JobSpec& spec, JobId self) const {
  return standing_of(policy_, rules_, *cluster_.running_job(still).spec) >= standing_of(policy_, rules_, spec) ||
         !has_promise(self);
}

std::optional<Blocker> Why::kept_blocker(Timeline& with, const JobSpec& spec, JobId self, const NodeFilter& filter,
                                         bool any) const {
  for (const KeptCores& kept : plan().kept_cores) {
    if (!stands_before(kept.job, spec, self)) {
      continue;
    }
    take_kept_cores(with, plan(), [&kept](JobId id) { return id == kept.job; });
    if (fit_now(with, spec, filter, any).empty()) {
      const auto& active = std::get<Active>(cluster_.running_job(kept.job).phase);
      return Blocker{"priority",
                     "Priority",
                     "job " + job_name(cluster_.running_job(kept.job)) + " stands still for " +
                         job_text(active.suspension.room_for) + " and goes on with cores that it would take",
                     {}};
    }
  }
  return std::nullopt;
}

Timeline Why::timeline_before(const Job& job) const {
  const JobId self = job.id;
  Timeline t = timeline_of(cluster_, policy_, now_);
  for (const Placement& p : plan().placements) {
    if (p.job != self) {
      const JobSpec& of = *cluster_.job(p.job).spec;
      t.start(p.shares, end_of(now_, given_limit(p, of)), of.licenses);
    }
  }
  take_kept_cores(t, plan(), [&](JobId id) { return stands_before(id, *job.spec, self); });
  for (const auto* list : {&plan().promises, &plan().kept, &outlook().expected}) {
    for (const Promise& p : *list) {
      if (p.job == self) {
        return t;
      }
      const JobSpec& of = *cluster_.job(p.job).spec;
      t.hold(p.slots, p.start, end_of(p.start, held_limit(of, p.start)), of.licenses);
    }
  }
  return t;
}

bool Why::comes_before(const Job& a, const Job& b) const {
  const auto place = [this](const Job& job) {
    return std::tuple(-order_.points(*job.spec, job.eligible_time, now_), job.eligible_time, job.id);
  };
  const Standing first = standing_of(policy_, rules_, *a.spec);
  const Standing second = standing_of(policy_, rules_, *b.spec);
  return first != second ? first > second : place(a) < place(b);
}

Explanation Why::explain(const Job& job) const {
  Explanation e;
  own_blockers(job, e.blockers);
  if (auto room = room_blocker(job)) {
    e.blockers.push_back(std::move(*room));
  }
  resource_blockers(*job.spec, job.eligible_time, e.blockers);
  license_blocker(*job.spec, e.blockers);
  if (auto ahead = blocker_ahead(*job.spec, job.eligible_time, job.id)) {
    e.blockers.push_back(std::move(*ahead));
  }
  for (const Promise& p : plan().promises) {
    if (p.job == job.id) {
      break;
    }
    e.ahead.push_back(p.job);
  }
  for (const Promise& p : plan().kept) {
    if (p.job != job.id) {
      e.ahead.push_back(p.job);
    }
  }
  // A job that is held stands behind all others when it is released.
  Job released = job;
  released.eligible_time = job.held ? now_ : job.eligible_time;
  for (const Promise& p : outlook().expected) {
    if (p.job != job.id && comes_before(cluster_.job(p.job), released)) {
      e.ahead.push_back(p.job);
    }
  }
  e.planned_start = estimated_start(job);
  const Timeline before = timeline_before(job);
  if (const auto start = start_behind_deadline(job, before); start && !e.planned_start) {
    e.blockers.push_back({"deadline",
                          "DeadLine",
                          "it must start " + in_text(*latest_start(*job.spec), now_) +
                              " to end by its --deadline, and fits " + in_text(*start, now_) +
                              " at the earliest: shorten --time, or give a later --deadline",
                          {}});
  }
  if (waits_as_a_whole(job) || (job.is_array_record && has_barred(job) && startable(job).empty())) {
    return e;  // no smaller request would start it sooner
  }
  e.changes = smaller_requests(job, before, e.planned_start);
  return e;
}

}  // namespace muster::sched
