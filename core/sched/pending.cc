#include "core/sched/pending.h"

#include <algorithm>
#include <tuple>

#include "lib/base/check.h"

namespace muster::sched {
namespace {

// Cheap and telling fields first.
auto sizes(const JobSpec& s) {
  return std::tie(s.time_limit.us, s.ntasks, s.cpus_per_task, s.nodes_min, s.nodes_max, s.ntasks_per_node, s.gpus,
                  s.gpus_per_node, s.gpus_per_task, s.mem_per_node_mib, s.mem_per_cpu_mib, s.mem_per_gpu_mib,
                  s.exclusive, s.locality, s.switches, s.switches_wait.us, s.segment, s.time_min.us, s.deadline.us);
}
auto numbers(const JobSpec& s) {
  return std::tuple_cat(sizes(s), std::tie(s.nice, s.uid, s.begin.us));
}
auto texts(const JobSpec& s) {
  return std::tie(s.queue, s.user, s.account, s.qos, s.nodelist, s.exclude, s.constraint, s.reservation, s.licenses,
                  s.avoid);
}

}  // namespace

bool RequestLess::operator()(const JobSpecPtr& a, const JobSpecPtr& b) const {
  if (a == b) {
    return false;
  }
  const auto x = numbers(*a);
  const auto y = numbers(*b);
  return x != y ? x < y : texts(*a) < texts(*b);
}

bool PlaceLess::operator()(const JobSpec* a, const JobSpec* b) const {
  const auto x = sizes(*a);
  const auto y = sizes(*b);
  return x != y ? x < y
                : std::tie(a->nodelist, a->exclude, a->constraint, a->reservation, a->licenses, a->avoid) <
                      std::tie(b->nodelist, b->exclude, b->constraint, b->reservation, b->licenses, b->avoid);
}

bool WaitsLess::operator()(const JobSpecPtr& a, const JobSpecPtr& b) const {
  if (a == b) {
    return false;
  }
  const PlaceLess place;
  if (place(a.get(), b.get()) || place(b.get(), a.get())) {
    return place(a.get(), b.get());
  }
  const auto rest = [](const JobSpec& s) { return std::tie(s.begin.us, s.queue, s.qos); };
  if (rest(*a) != rest(*b) || a->reservation.empty()) {
    return rest(*a) < rest(*b);
  }
  return std::tie(a->user, a->account) < std::tie(b->user, b->account);
}

bool same_request(const JobSpec& a, const JobSpec& b) {
  return numbers(a) == numbers(b) && texts(a) == texts(b);
}

void PendingIndex::insert(const Job& job) {
  // A new job mostly stands behind all others of its group.
  Group& group = groups_[job.spec];
  group.insert(group.end(), PendingEntry{job.eligible_time, job.id});
}

void PendingIndex::erase(const Job& job) {
  const auto group = groups_.find(job.spec);
  MUSTER_CHECK(group != groups_.end());
  MUSTER_CHECK(group->second.erase(PendingEntry{job.eligible_time, job.id}) == 1);
  if (group->second.empty()) {
    groups_.erase(group);
  }
}

bool operator==(const PendingIndex& a, const PendingIndex& b) {
  return std::equal(
      a.groups_.begin(), a.groups_.end(), b.groups_.begin(), b.groups_.end(),
      [](const auto& x, const auto& y) { return same_request(*x.first, *y.first) && x.second == y.second; });
}

}  // namespace muster::sched
