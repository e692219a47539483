// Why: the smallest changes of a request that would start the job sooner.
#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "core/sched/queue_rules.h"
#include "core/sched/span.h"
#include "core/sched/why.h"
#include "lib/base/text.h"

namespace muster::sched {
namespace {

// Changes of a request that are tried for one answer.
constexpr int kTriesMax = 40;
// A change that gains less is not worth telling.
constexpr Duration kSoonerBy = Duration::from_s(1);

}  // namespace

bool Why::starts_now_with(const Job& job, const JobSpec& spec) const {
  const auto group = cluster_.pending.groups().find(job.spec);
  if (group == cluster_.pending.groups().end() || !group->second.contains(PendingEntry{job.eligible_time, job.id})) {
    return false;  // it may not start, whatever it asks for
  }
  Job changed = job;
  changed.spec = std::make_shared<const JobSpec>(spec);
  changed.forget_promise();
  PendingIndex pending = cluster_.pending;
  pending.erase(job);
  pending.insert(changed);
  std::map<JobId, Promise> promised = cluster_.promised;
  promised.erase(job.id);
  Cluster cluster{.ledger = cluster_.ledger,
                  .horizon = cluster_.horizon,
                  .pending = pending,
                  .job = [&](JobId id) -> const Job& { return id == job.id ? changed : cluster_.job(id); },
                  .promised = promised,
                  .accounts = cluster_.accounts,
                  .windows = cluster_.windows,
                  .licenses = cluster_.licenses};
  if (cluster_.standing_still != nullptr && !cluster_.standing_still->empty()) {
    cluster.running = cluster_.running;
    cluster.running_job = cluster_.running_job;
    cluster.making_room = cluster_.making_room;
    cluster.standing_still = cluster_.standing_still;
  }
  const Plan plan = schedule(cluster, policy_, order_, WorkBudget{.placements_made = UINT32_MAX}, now_);
  return std::any_of(plan.placements.begin(), plan.placements.end(),
                     [&job](const Placement& p) { return p.job == job.id; });
}

// When the job fits if its deadline does not count; nothing when it has none or can meet it.
std::optional<Instant> Why::start_behind_deadline(const Job& job, const Timeline& ahead) const {
  const auto latest = latest_start(*job.spec);
  if (!latest || *latest < now_) {
    return std::nullopt;
  }
  JobSpec any = *job.spec;
  any.deadline = {};
  const auto spot =
      earliest_in_time(ahead, any, filter_of(any), std::max(now_, any.begin), switches_lapse(any, job.eligible_time));
  return spot && spot->start > *latest ? std::optional(spot->start) : std::nullopt;
}

// The seconds that are left for it then, in whole minutes with some to spare; 0: none.
std::int64_t Why::limit_for_deadline(const Job& job, const Timeline& ahead) const {
  const auto start = start_behind_deadline(job, ahead);
  return start && *start < job.spec->deadline ? ((job.spec->deadline - *start).seconds() - 30) / 60 * 60 : 0;
}

std::vector<SmallerRequest> Why::smaller_requests(const Job& job, const Timeline& ahead,
                                                  std::optional<Instant> planned) const {
  std::vector<SmallerRequest> out;
  if (job.held || (cluster_.windows != nullptr && cluster_.windows->access(*job.spec, now_) != Windows::Access::kOk)) {
    return out;  // no request starts it
  }
  const QueuePolicy* queue = policy_.find_queue(job.spec->queue);
  const auto start_of = [&](const JobSpec& spec) -> std::optional<Instant> {
    if (queue == nullptr || refusal_of(*queue, spec) || !limit_hits(spec, job.eligible_time, job.id).empty()) {
      return std::nullopt;
    }
    const auto spot = earliest_in_time(ahead, spec, filter_of(spec), std::max(now_, spec.begin),
                                       switches_lapse(spec, job.eligible_time));
    return spot ? std::optional(spot->start) : std::nullopt;
  };
  // A job that may not start yet, because of --begin for instance, has no planned start: then it is what it asks for now.
  const std::optional<Instant> as_it_is = planned ? planned : start_of(*job.spec);
  const auto sooner = [&as_it_is](std::optional<Instant> start) {
    return start && (!as_it_is || *start + kSoonerBy <= *as_it_is);
  };
  // An answer must not hold up the loop: each try may cost a pass.
  int tries = kTriesMax;
  const auto start_if_sooner = [&](const JobSpec& spec) -> std::optional<Instant> {
    if (tries == 0) {
      return std::nullopt;
    }
    --tries;
    const auto start = start_of(spec);
    return !sooner(start) || (*start <= now_ && !starts_now_with(job, spec)) ? std::nullopt : start;
  };
  const auto offer = [&](const char* option, const JobSpec& spec) {
    if (const auto start = start_if_sooner(spec)) {
      out.push_back({option, "", *start});
    }
  };
  // The largest of `count` changes that helps, where a smaller one helps whenever a larger one does; 0 is the largest.
  const auto largest_that_helps = [&](std::size_t count, const auto& spec_of) {
    std::optional<std::pair<std::size_t, Instant>> best;
    std::size_t begin = 0;
    std::size_t end = count;
    // The largest first: it is often enough. Then the smallest: often none helps.
    for (const std::size_t first : {std::size_t{0}, count - 1}) {
      if (begin >= end || (first != 0 && best)) {
        break;
      }
      if (const auto start = start_if_sooner(spec_of(first))) {
        best = {first, *start};
        end = first;
      } else if (first == count - 1) {
        return best;
      } else {
        begin = first + 1;
      }
    }
    while (begin < end) {
      const std::size_t middle = begin + (end - begin) / 2;
      if (const auto start = start_if_sooner(spec_of(middle))) {
        best = {middle, *start};
        end = middle;
      } else {
        begin = middle + 1;
      }
    }
    return best;
  };
  const auto try_counts = [&](const char* option, std::uint64_t asked, std::uint64_t least,
                              const std::function<void(JobSpec&, std::uint32_t)>& set) {
    if (asked <= least) {
      return;
    }
    const auto spec_of = [&](std::size_t i) {
      JobSpec smaller = *job.spec;
      set(smaller, static_cast<std::uint32_t>(asked - 1 - i));
      return smaller;
    };
    if (const auto best = largest_that_helps(asked - least, spec_of)) {
      out.push_back({option, std::to_string(asked - 1 - best->first), best->second});
    }
  };
  const JobSpec& s = *job.spec;
  try_counts("--gpus-per-node", s.gpus_per_node, 1, [](JobSpec& c, std::uint32_t v) { c.gpus_per_node = v; });
  try_counts("--gpus-per-task", s.gpus_per_task, 1, [](JobSpec& c, std::uint32_t v) { c.gpus_per_task = v; });
  try_counts("--gpus", s.gpus, 1, [](JobSpec& c, std::uint32_t v) { c.gpus = v; });
  try_counts("--cpus-per-task", s.cpus_per_task, 1, [](JobSpec& c, std::uint32_t v) { c.cpus_per_task = v; });
  if (s.ntasks_per_node == 0) {
    // Fewer tasks than nodes would need another --nodes as well.
    try_counts("--ntasks", s.ntasks, std::max(1U, s.nodes_min), [](JobSpec& c, std::uint32_t v) { c.ntasks = v; });
  }
  if (s.mem_per_node_mib > 1) {
    try_counts("--mem", std::min<std::uint64_t>(s.mem_per_node_mib, UINT32_MAX), 1,
               [](JobSpec& c, std::uint32_t v) { c.mem_per_node_mib = v; });
  }
  if (s.exclusive) {
    JobSpec shared = s;
    shared.exclusive = false;
    offer("--exclusive", shared);
  }
  if (!s.nodelist.empty()) {
    JobSpec anywhere = s;
    anywhere.nodelist.clear();
    offer("--nodelist", anywhere);
  }
  if (!s.exclude.empty()) {
    JobSpec everywhere = s;
    everywhere.exclude.clear();
    offer("--exclude", everywhere);
  }
  if (!s.constraint.empty()) {
    JobSpec any = s;
    any.constraint.clear();
    offer("--constraint", any);
  }
  if (s.switches != 0) {
    JobSpec any = s;
    any.switches = 0;
    offer("--switches", any);
  }
  if (s.segment != 0) {
    JobSpec any = s;
    any.segment = 0;
    offer("--segment", any);
  }
  if (s.locality == Locality::kRequire) {
    JobSpec any = s;
    any.locality = Locality::kPrefer;
    if (const auto start = start_if_sooner(any)) {
      out.push_back({"--locality", std::string(locality_name(Locality::kPrefer)), *start});
    }
  }
  // The longest time limit that ends before a place is needed by a job ahead of it.
  std::set<std::int64_t, std::greater<>> limits;
  for (const auto* list : {&plan().promises, &plan().kept, &outlook().expected}) {
    for (const Promise& p : *list) {
      // Whole minutes with some to spare, so that it is still true when it has been typed.
      const std::int64_t seconds = ((p.start - now_).seconds() - 30) / 60 * 60;
      if (p.job != job.id && seconds >= 60 && Duration::from_s(seconds) < s.time_limit) {
        limits.insert(seconds);
      }
    }
  }
  for (const std::int64_t seconds : limits_before_windows(job)) {
    limits.insert(seconds);
  }
  for (const std::int64_t seconds :
       {limit_for_deadline(job, ahead), queue == nullptr ? 0 : queue->time_max.seconds()}) {
    if (seconds > 0 && Duration::from_s(seconds) < s.time_limit) {
      limits.insert(seconds);
    }
  }
  const std::vector<std::int64_t> longest(limits.begin(), limits.end());
  const auto shorter = [&](std::size_t i) {
    JobSpec spec = s;
    spec.time_limit = Duration::from_s(longest[i]);
    return spec;
  };
  if (!longest.empty()) {
    if (const auto best = largest_that_helps(longest.size(), shorter)) {
      out.push_back({"--time", format_duration(Duration::from_s(longest[best->first])), best->second});
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const SmallerRequest& a, const SmallerRequest& b) { return a.start < b.start; });
  return out;
}

}  // namespace muster::sched
