#include "core/sched/cursor.h"

#include <iterator>

namespace muster::sched {

Cursor Cursor::only(const PendingEntry& entry) const {
  Cursor one = *this;
  one.claims = true;
  one.at_ = group_->find(entry);
  one.end_ = std::next(one.at_);
  one.load();
  return one;
}

void Cursor::placed() {
  ++placed_;
  claims = false;  // it was the claim of the task that starts
  if (!job_->is_array_record || at_array_limit(*job_, placed_)) {
    next_job();
    return;
  }
  if (++position_ == ranges()[range_].end) {
    if (++range_ == ranges().size()) {
      next_job();
      return;
    }
    position_ = ranges()[range_].begin;
  }
}

void Cursor::load() {
  for (; at_ != end_; ++at_) {
    job_ = &cluster_->job(at_->id);
    placed_ = 0;
    range_ = 0;
    startable_ =
        job_->is_array_record && has_barred(*job_) ? std::make_shared<const Positions>(startable(*job_)) : nullptr;
    position_ = job_->is_array_record ? ranges().front().begin : 0;
    if (!at_array_limit(*job_, 0) && !(passes_over_claims_ && cluster_->promised.contains(at_->id))) {
      return;
    }
  }
}

}  // namespace muster::sched
