// KeptPlaces: where jobs that were promised a start have their places while jobs that stand before them are served.
//
// A job that stands before them may take such a place, but only to start sooner: of places that are as good for it, it gets
// one that leaves the others theirs. Without that, a job that fills a gap beside two promises could make the first one
// move onto the second one's place in the next pass, and so delay what stands before it.
#pragma once

#include <cstddef>
#include <vector>

#include "core/sched/promise.h"
#include "core/sched/timeline.h"
#include "lib/base/time.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// Whether a job could have this place.
[[nodiscard]] bool has_room(const Timeline& timeline, const JobSpec& spec, const std::vector<Slot>& slots, Instant from,
                            Instant until);

class KeptPlaces {
 public:
  // `spec` and `slots` must outlive it. Given in the order in which the jobs stand.
  void add(std::size_t cursor, const JobSpec& spec, const std::vector<Slot>& slots, Instant from, Instant until);
  [[nodiscard]] bool empty() const { return places_.empty(); }
  // Takes those that have room off the timeline; returns whether any is taken.
  bool hold(Timeline& timeline);
  // Gives all of them back.
  void lift(Timeline& timeline);
  // The job is served: gives its place back and forgets it.
  void release(Timeline& timeline, std::size_t cursor);

 private:
  struct Place {
    std::size_t cursor = 0;
    const JobSpec* spec = nullptr;
    const std::vector<Slot>* slots = nullptr;
    Instant from;
    Instant until;
    bool held = false;
  };
  static void drop(Timeline& timeline, Place& place);

  std::vector<Place> places_;
};

}  // namespace muster::sched
