#include "core/sched/why.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "core/sched/request.h"
#include "lib/base/text.h"

namespace muster::sched {
namespace {

// Starts that are looked for beyond the promises, and the nodes that this may look at all in all: an answer to a question
// must not hold up the loop.
constexpr std::uint32_t kExpectedMax = 200;
constexpr std::uint32_t kNodesLookedAtMax = 500'000;
// Changes of a request that are tried for one answer.
constexpr int kTriesMax = 40;

// Of one job's open dependencies, those that an explanation names.
constexpr std::size_t kDependenciesNamedMax = 20;

std::uint32_t depth_for(std::size_t nodes) {
  return std::min<std::uint32_t>(kExpectedMax,
                                 kNodesLookedAtMax / static_cast<std::uint32_t>(std::max<std::size_t>(1, nodes)));
}

std::string job_text(JobId id) {
  return "job " + std::to_string(id.value);
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
      order_(policy),
      outlook_(look_ahead(cluster_, policy, order_, depth_for(cluster_.ledger.nodes().size()), now)),
      present_(cluster_.ledger, cluster_.horizon, now) {
  for (const auto* list : {&outlook_.plan.promises, &outlook_.expected}) {
    for (const Promise& p : *list) {
      starts_.emplace(p.job, p.start);
    }
  }
}

const std::vector<std::string>& Why::nodes_of(const JobSpec& spec) const {
  static const std::vector<std::string> kAll;
  const QueuePolicy* q = policy_.find_queue(spec.queue);
  return q == nullptr ? kAll : q->nodes;
}

void Why::own_blockers(const Job& job, std::vector<Blocker>& out) const {
  if (job.held) {
    out.push_back({"held", "JobHeldUser", "held by its user: muster release " + std::to_string(job.id.value), {}});
  }
  if (!job.open.empty()) {
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
  if (job.spec->begin > now_) {
    out.push_back({"begin",
                   "BeginTime",
                   "may not start before the time given with --begin, " + in_text(job.spec->begin, now_),
                   {}});
  }
  if (at_array_limit(job, 0)) {
    out.push_back({"array_limit",
                   "JobArrayTaskLimit",
                   std::to_string(job.array_running) + " tasks of the array run, its limit is " +
                       std::to_string(job.spec->array->max_running),
                   {}});
  }
}

void Why::dependency_blocker(const Job& job, std::vector<Blocker>& out) const {
  const bool any = job.spec->dependency.any;
  std::size_t never = 0;
  std::string text;
  std::size_t named = 0;
  for (const OpenDependency& open : job.open) {
    never += open.never ? 1 : 0;
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
                   "its dependency can never be satisfied: " + text + ": cancel it with muster cancel " +
                       std::to_string(job.id.value) + ", or submit it again without --dependency",
                   {}});
  } else {
    out.push_back({"dependency", "Dependency", "waits for " + text, {}});
  }
}

// What the nodes lack for the job, each node counted once: "12 nodes: 9 lack 2 GPUs for 5 more minutes, 2 drained".
std::string Why::node_summary(const JobSpec& spec, std::vector<std::string>& nodes) const {
  const Ledger& ledger = cluster_.ledger;
  const NodeFilter filter = make_filter(ledger, spec, nodes_of(spec));
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
  for (std::size_t rank = 0; rank < ledger.order().size(); ++rank) {
    if (!filter.allows(static_cast<std::uint32_t>(rank))) {
      continue;
    }
    ++seen;
    const NodeIndex index = ledger.order()[rank];
    const NodeCapacity& n = ledger.nodes()[index.value];
    if (!n.usable) {
      ++lacks[" not in service"].nodes;
      nodes.push_back(n.name);
      continue;
    }
    const Amount need = need_of(spec, n, tasks, whole_job ? spec.gpus : 0);
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

void Why::resource_blockers(const JobSpec& spec, std::vector<Blocker>& out) const {
  const std::vector<std::string>& allowed = nodes_of(spec);
  const Draft draft(cluster_.ledger);
  const NodeFilter filter = make_filter(cluster_.ledger, spec, allowed);
  if (!fit_now(present_, spec, filter).empty()) {
    return;
  }
  Blocker b;
  const PlaceResult empty = place(draft, spec, allowed, Assume::kUsableEmpty);
  if (empty.shares.empty()) {
    b.kind = "nodes";
    b.word = "ReqNodeNotAvail";
    b.text = empty.detail + ". The nodes that it needs are down, drained or unreachable";
  } else {
    b.kind = "resources";
    b.word = "Resources";
    b.text = place(draft, spec, allowed, Assume::kFreeNow).detail;
  }
  b.text += "; " + node_summary(spec, b.nodes);
  out.push_back(std::move(b));
}

std::optional<Blocker> Why::blocker_ahead(const JobSpec& spec, JobId self) const {
  const NodeFilter filter = make_filter(cluster_.ledger, spec, nodes_of(spec));
  if (fit_now(present_, spec, filter).empty()) {
    return std::nullopt;  // it waits for resources, whoever stands before it
  }
  Timeline with(cluster_.ledger, cluster_.horizon, now_);
  const auto text = [this](const Promise& p) {
    return job_text(p.job) + " is promised a start " + in_text(p.start, now_) + " and would be delayed by it";
  };
  for (const Promise& p : outlook_.plan.promises) {
    if (p.job == self) {
      continue;
    }
    with.hold(p.slots, p.start, end_of(p.start, cluster_.job(p.job).spec->time_limit));
    if (fit_now(with, spec, filter).empty()) {
      return Blocker{"priority", "Priority", text(p), {}};
    }
  }
  return std::nullopt;
}

Reason Why::reason(const Job& job) const {
  std::vector<Blocker> own;
  own_blockers(job, own);
  if (!own.empty()) {
    return {own.front().word, own.front().text};
  }
  const auto known = reasons_.find(job.spec);
  if (known != reasons_.end()) {
    return known->second;
  }
  std::vector<Blocker> found;
  resource_blockers(*job.spec, found);
  Reason reason{"None", "starts in the next planning pass"};
  if (!found.empty()) {
    reason = {found.front().word, found.front().text};
  } else if (const auto ahead = blocker_ahead(*job.spec, job.id)) {
    reason = {ahead->word, ahead->text};
  }
  return reasons_.emplace(job.spec, std::move(reason)).first->second;
}

std::optional<Instant> Why::estimated_start(const Job& job) const {
  const auto it = starts_.find(job.id);
  if (it == starts_.end() || it->second <= now_) {
    return std::nullopt;
  }
  return it->second;
}

std::optional<Spot> Why::place_of_new(const JobSpec& spec) const {
  const NodeFilter filter = make_filter(cluster_.ledger, spec, nodes_of(spec));
  return earliest_fit(outlook_.timeline, spec, filter, std::max(now_, spec.begin));
}

Timeline Why::timeline_before(JobId self) const {
  Timeline t(cluster_.ledger, cluster_.horizon, now_);
  for (const Placement& p : outlook_.plan.placements) {
    if (p.job != self) {
      t.start(p.shares, end_of(now_, cluster_.job(p.job).spec->time_limit));
    }
  }
  for (const auto* list : {&outlook_.plan.promises, &outlook_.expected}) {
    for (const Promise& p : *list) {
      if (p.job == self) {
        return t;
      }
      t.hold(p.slots, p.start, end_of(p.start, cluster_.job(p.job).spec->time_limit));
    }
  }
  return t;
}

bool Why::comes_before(const Job& a, const Job& b) const {
  const auto place = [this](const Job& job) {
    const QueuePolicy* queue = policy_.find_queue(job.spec->queue);
    return std::tuple(queue == nullptr ? 0 : -queue->priority, -order_.points(*job.spec, job.eligible_time, now_),
                      job.eligible_time, job.id);
  };
  return place(a) < place(b);
}

Explanation Why::explain(const Job& job) const {
  Explanation e;
  own_blockers(job, e.blockers);
  resource_blockers(*job.spec, e.blockers);
  if (auto ahead = blocker_ahead(*job.spec, job.id)) {
    e.blockers.push_back(std::move(*ahead));
  }
  for (const Promise& p : outlook_.plan.promises) {
    if (p.job == job.id) {
      break;
    }
    e.ahead.push_back(p.job);
  }
  // A job that is held stands behind all others when it is released.
  Job released = job;
  released.eligible_time = job.held ? now_ : job.eligible_time;
  for (const Promise& p : outlook_.expected) {
    if (p.job != job.id && comes_before(cluster_.job(p.job), released)) {
      e.ahead.push_back(p.job);
    }
  }
  e.planned_start = estimated_start(job);
  const Timeline before = timeline_before(job.id);
  if (!job.open.empty()) {
    return e;  // no smaller request would start it sooner
  }
  e.changes = smaller_requests(job, before, e.planned_start);
  return e;
}

bool Why::starts_now_with(const Job& job, const JobSpec& spec) const {
  const auto group = cluster_.pending.groups().find(job.spec);
  if (group == cluster_.pending.groups().end() || !group->second.contains(PendingEntry{job.eligible_time, job.id})) {
    return false;  // it may not start, whatever it asks for
  }
  Job changed = job;
  changed.spec = std::make_shared<const JobSpec>(spec);
  changed.promised_start = {};
  PendingIndex pending = cluster_.pending;
  pending.erase(job);
  pending.insert(changed);
  std::map<JobId, Promise> promised = cluster_.promised;
  promised.erase(job.id);
  const Cluster cluster{.ledger = cluster_.ledger,
                        .horizon = cluster_.horizon,
                        .pending = pending,
                        .job = [&](JobId id) -> const Job& { return id == job.id ? changed : cluster_.job(id); },
                        .promised = promised};
  const Plan plan = schedule(cluster, policy_, order_, WorkBudget{.placements_made = UINT32_MAX}, now_);
  return std::any_of(plan.placements.begin(), plan.placements.end(),
                     [&job](const Placement& p) { return p.job == job.id; });
}

std::vector<SmallerRequest> Why::smaller_requests(const Job& job, const Timeline& ahead,
                                                  std::optional<Instant> planned) const {
  std::vector<SmallerRequest> out;
  const std::vector<std::string>& allowed = nodes_of(*job.spec);
  if (job.held) {
    return out;  // no request starts it
  }
  const auto start_of = [&](const JobSpec& spec) -> std::optional<Instant> {
    const auto spot =
        earliest_fit(ahead, spec, make_filter(cluster_.ledger, spec, allowed), std::max(now_, spec.begin));
    return spot ? std::optional(spot->start) : std::nullopt;
  };
  const auto sooner = [&planned](std::optional<Instant> start) { return start && (!planned || *start < *planned); };
  // An answer must not hold up the loop: each try may cost a pass.
  int tries = kTriesMax;
  const auto offer = [&](const char* option, std::string value, const JobSpec& spec) {
    if (tries == 0) {
      return false;
    }
    --tries;
    const auto start = start_of(spec);
    if (!sooner(start) || (*start <= now_ && !starts_now_with(job, spec))) {
      return false;
    }
    out.push_back({option, std::move(value), *start});
    return true;
  };
  // The largest smaller count that helps: one less first, then halves, so that large counts cost few tries.
  const auto try_counts = [&](const char* option, std::uint64_t asked,
                              const std::function<void(JobSpec&, std::uint32_t)>& set) {
    std::set<std::uint64_t, std::greater<>> values;
    for (std::uint64_t v = asked; v > 1; v = v / 2) {
      values.insert(v - 1);
      values.insert(v / 2);
    }
    for (const std::uint64_t v : values) {
      JobSpec smaller = *job.spec;
      set(smaller, static_cast<std::uint32_t>(v));
      if (smaller.ntasks != job.spec->ntasks && smaller.ntasks != v) {
        break;  // below the number of nodes
      }
      if (v >= 1 && v < asked && offer(option, std::to_string(v), smaller)) {
        return;
      }
    }
  };
  const JobSpec& s = *job.spec;
  try_counts("--gpus-per-node", s.gpus_per_node, [](JobSpec& c, std::uint32_t v) { c.gpus_per_node = v; });
  try_counts("--gpus-per-task", s.gpus_per_task, [](JobSpec& c, std::uint32_t v) { c.gpus_per_task = v; });
  try_counts("--gpus", s.gpus, [](JobSpec& c, std::uint32_t v) { c.gpus = v; });
  try_counts("--cpus-per-task", s.cpus_per_task, [](JobSpec& c, std::uint32_t v) { c.cpus_per_task = v; });
  if (s.ntasks_per_node == 0) {
    // Fewer tasks than nodes would need another --nodes as well.
    try_counts("--ntasks", s.ntasks, [](JobSpec& c, std::uint32_t v) { c.ntasks = std::max(v, c.nodes_min); });
  }
  if (s.mem_per_node_mib > 1) {
    try_counts("--mem", std::min<std::uint64_t>(s.mem_per_node_mib, UINT32_MAX),
               [](JobSpec& c, std::uint32_t v) { c.mem_per_node_mib = v; });
  }
  if (s.exclusive) {
    JobSpec shared = s;
    shared.exclusive = false;
    offer("--exclusive", "", shared);
  }
  if (!s.nodelist.empty()) {
    JobSpec anywhere = s;
    anywhere.nodelist.clear();
    offer("--nodelist", "", anywhere);
  }
  if (!s.exclude.empty()) {
    JobSpec everywhere = s;
    everywhere.exclude.clear();
    offer("--exclude", "", everywhere);
  }
  // The longest time limit that ends before a place is needed by a job ahead of it.
  std::set<std::int64_t, std::greater<>> limits;
  for (const auto* list : {&outlook_.plan.promises, &outlook_.expected}) {
    for (const Promise& p : *list) {
      // Whole minutes with some to spare, so that it is still true when it has been typed.
      const std::int64_t seconds = ((p.start - now_).seconds() - 30) / 60 * 60;
      if (p.job != job.id && seconds >= 60 && Duration::from_s(seconds) < s.time_limit) {
        limits.insert(seconds);
      }
    }
  }
  for (const std::int64_t seconds : limits) {
    JobSpec shorter = s;
    shorter.time_limit = Duration::from_s(seconds);
    if (offer("--time", format_duration(shorter.time_limit), shorter)) {
      break;
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const SmallerRequest& a, const SmallerRequest& b) { return a.start < b.start; });
  return out;
}

}  // namespace muster::sched
