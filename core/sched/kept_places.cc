#include "core/sched/kept_places.h"

#include <algorithm>

namespace muster::sched {

bool has_room(const Timeline& timeline, const JobSpec& spec, const std::vector<Slot>& slots, Instant from,
              Instant until) {
  if (slots.empty() || !timeline.licenses().covers(spec.licenses, from, until)) {
    return false;
  }
  return std::all_of(slots.begin(), slots.end(), [&](const Slot& slot) {
    // A whole node may have become another one.
    const Amount& all = timeline.draft().node(slot.node.value).all;
    const bool same = !spec.exclusive || (slot.amount.cores == all.cores && slot.amount.gpus == all.gpus);
    return same && timeline.free(slot.node, from, until, spec.reservation).covers(slot.amount);
  });
}

void KeptPlaces::add(std::size_t cursor, const JobSpec& spec, const std::vector<Slot>& slots, Instant from,
                     Instant until) {
  places_.push_back(Place{.cursor = cursor, .spec = &spec, .slots = &slots, .from = from, .until = until});
}

bool KeptPlaces::hold(Timeline& timeline) {
  bool any = false;
  for (Place& p : places_) {
    if (!p.held && has_room(timeline, *p.spec, *p.slots, p.from, p.until)) {
      timeline.hold(*p.slots, p.from, p.until, p.spec->licenses);
      p.held = true;
    }
    any = any || p.held;
  }
  return any;
}

void KeptPlaces::lift(Timeline& timeline) {
  for (Place& p : places_) {
    drop(timeline, p);
  }
}

void KeptPlaces::release(Timeline& timeline, std::size_t cursor) {
  const auto it = std::find_if(places_.begin(), places_.end(), [cursor](const Place& p) { return p.cursor == cursor; });
  if (it != places_.end()) {
    drop(timeline, *it);
    places_.erase(it);
  }
}

void KeptPlaces::drop(Timeline& timeline, Place& place) {
  if (place.held) {
    timeline.drop(*place.slots, place.from, place.until, place.spec->licenses);
    place.held = false;
  }
}

}  // namespace muster::sched
