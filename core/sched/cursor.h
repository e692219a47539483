// The jobs of a pass in the order in which it looks at them.
#pragma once

#include <cstdint>
#include <memory>
#include <queue>
#include <tuple>

#include "core/sched/pending.h"
#include "core/sched/preempt.h"
#include "core/sched/schedule.h"

namespace muster::sched {

// The jobs of one group that are still to be looked at, and where the pass stands in an array.
class Cursor {
 public:
  // Whether the request is known not to fit now.
  bool refused = false;
  bool recalled = false;  // and that only from the last pass
  bool claims = false;    // the one job of this cursor was promised a start

  Cursor(const Cluster& cluster, const JobSpecPtr& spec, const PendingIndex::Group& group, std::size_t queue)
      : cluster_(&cluster), spec_(&spec), queue_(queue), group_(&group), at_(group.begin()), end_(group.end()) {
    load();
  }

  [[nodiscard]] bool done() const { return at_ == end_; }
  [[nodiscard]] const JobSpec& spec() const { return **spec_; }
  [[nodiscard]] const JobSpecPtr& spec_ptr() const { return *spec_; }
  [[nodiscard]] std::size_t queue() const { return queue_; }  // its place in the policy
  [[nodiscard]] const PendingEntry& entry() const { return *at_; }
  [[nodiscard]] JobId id() const { return at_->id; }
  [[nodiscard]] std::uint64_t position() const { return position_; }

  [[nodiscard]] bool has(const PendingEntry& entry) const { return group_->contains(entry); }
  // A cursor for one job with a claim.
  [[nodiscard]] Cursor only(const PendingEntry& entry) const;
  void pass_over_claims() {
    passes_over_claims_ = true;
    load();
  }

  // The task was placed: on to the next one.
  void placed();
  void next_job() {
    ++at_;
    load();
  }

 private:
  void load();

  // The positions of an array that may start; a record in the index of pending jobs has some.
  [[nodiscard]] const Positions& ranges() const { return startable_ != nullptr ? *startable_ : job_->waiting; }

  const Cluster* cluster_;
  const JobSpecPtr* spec_;
  std::size_t queue_;
  const PendingIndex::Group* group_;
  bool passes_over_claims_ = false;
  PendingIndex::Group::const_iterator at_;
  PendingIndex::Group::const_iterator end_;
  const Job* job_ = nullptr;
  std::shared_ptr<const Positions> startable_;  // null: all that wait
  std::uint64_t placed_ = 0;
  std::size_t range_ = 0;
  std::uint64_t position_ = 0;
};

// The groups' first jobs in the order in which they are to be looked at.
class Line {
 public:
  struct Place {
    Standing standing;
    std::int64_t key = 0;  // more is earlier
    PendingEntry entry;
    std::size_t cursor = 0;
    // Of a heap whose top is the largest.
    friend bool operator<(const Place& a, const Place& b) {
      return std::tie(a.standing, a.key, b.entry, b.cursor) < std::tie(b.standing, b.key, a.entry, a.cursor);
    }
  };
  void push(Place place) { heap_.push(place); }
  [[nodiscard]] bool empty() const { return heap_.empty(); }
  [[nodiscard]] const Place& top() const { return heap_.top(); }
  std::size_t pop() {
    const std::size_t cursor = heap_.top().cursor;
    heap_.pop();
    return cursor;
  }

 private:
  std::priority_queue<Place> heap_;
};

}  // namespace muster::sched
