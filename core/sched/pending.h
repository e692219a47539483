// PendingIndex: the jobs that may start, grouped by what the planner can tell apart. Within a group jobs differ in age
// only, so the oldest one stands first whatever the time is: a pass looks at one job of each group, not at every job.
// Kept by evolve(). A value.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <set>

#include "lib/base/time.h"
#include "lib/model/job.h"

namespace muster::sched {

// Whether two requests are the same to the planner: the same queue, user, size, limits and constraints.
struct RequestLess {
  bool operator()(const JobSpecPtr& a, const JobSpecPtr& b) const;
};
[[nodiscard]] bool same_request(const JobSpec& a, const JobSpec& b);
// Whether two requests of jobs that may use the same nodes need the same of them: what belongs to users does not count.
struct PlaceLess {
  bool operator()(const JobSpec* a, const JobSpec* b) const;
};

// Whether jobs with these requests, that nothing of their own holds back, wait for the same: as PlaceLess, with the queue,
// and with the user where a reservation asks who it is.
struct WaitsLess {
  bool operator()(const JobSpecPtr& a, const JobSpecPtr& b) const;
};

struct PendingEntry {
  Instant since;  // eligible since: what ages
  JobId id;       // a single job, or an array record with waiting tasks
  friend auto operator<=>(const PendingEntry&, const PendingEntry&) = default;
};

class PendingIndex {
 public:
  using Group = std::set<PendingEntry>;
  using Groups = std::map<JobSpecPtr, Group, RequestLess>;

  void insert(const Job& job);
  void erase(const Job& job);
  [[nodiscard]] const Groups& groups() const { return groups_; }
  [[nodiscard]] bool empty() const { return groups_.empty(); }
  void clear() { groups_.clear(); }
  friend bool operator==(const PendingIndex& a, const PendingIndex& b);

 private:
  Groups groups_;
};

}  // namespace muster::sched
