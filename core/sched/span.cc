#include "core/sched/span.h"

#include <algorithm>
#include <vector>

namespace muster::sched {
namespace {

// Of all reservations, the begins and ends of windows that a shortened limit is tried for.
constexpr std::size_t kWindowsMax = 1'000;

JobSpec with_limit(const JobSpec& spec, Duration limit) {
  JobSpec changed = spec;
  changed.time_limit = limit;
  return changed;
}

// Limits are whole seconds, as users give them.
Duration whole_seconds(Duration d) {
  return Duration::from_s(d.seconds());
}

}  // namespace

std::optional<Instant> latest_start(const JobSpec& spec) {
  if (!spec.deadline.is_set()) {
    return std::nullopt;
  }
  const Duration least = least_limit(spec);
  return least.is_infinite() ? Instant::from_us(1) : spec.deadline - least;
}

Duration held_limit(const JobSpec& spec, Instant start) {
  return spec.deadline.is_set() && end_of(start, spec.time_limit) > spec.deadline ? least_limit(spec) : spec.time_limit;
}

// What is free only shrinks with a longer limit, so the longest one that fits is found by halving. It ends where something
// that is held or a window of a reservation begins, or the job's own window ends: no other limit between two such instants
// fits when the shorter of them does not.
Fit fit_flexibly(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, bool any_switches) {
  const Instant now = timeline.now();
  const Duration least = least_limit(spec);
  Duration most = spec.time_limit;
  if (spec.deadline.is_set() && end_of(now, most) > spec.deadline) {
    most = spec.deadline - now;
    if (most >= least) {
      most = std::max(least, whole_seconds(most));
    }
  }
  if (most < least) {
    return {};
  }
  if (most == spec.time_limit) {
    if (std::vector<Slot> slots = fit_now(timeline, spec, filter, any_switches); !slots.empty() || least == most) {
      return {std::move(slots), {}};
    }
  } else if (std::vector<Slot> slots = fit_now(timeline, with_limit(spec, most), filter, any_switches);
             !slots.empty()) {
    return {std::move(slots), most};
  }
  if (least == most) {
    return {};
  }
  Fit best{fit_now(timeline, with_limit(spec, least), filter, any_switches), least};
  if (best.slots.empty()) {
    return {};
  }
  std::vector<Duration> limits;
  for (const Instant start : timeline.hold_starts()) {
    const Duration limit = whole_seconds(start - now);
    if (limit > least && limit < most) {
      limits.push_back(limit);
    }
  }
  if (timeline.windows() != nullptr) {
    const Instant last = end_of(now, most);
    auto change = timeline.windows()->next_change(now);
    for (std::size_t n = 0; change && *change < last && n < kWindowsMax; ++n) {
      if (*change - now > least) {
        limits.push_back(whole_seconds(*change - now));
      }
      change = timeline.windows()->next_change(*change);
    }
  }
  std::sort(limits.begin(), limits.end());
  limits.erase(std::unique(limits.begin(), limits.end()), limits.end());
  std::size_t low = 0;
  std::size_t high = limits.size();
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    std::vector<Slot> slots = fit_now(timeline, with_limit(spec, limits[middle]), filter, any_switches);
    if (slots.empty()) {
      high = middle;
    } else {
      best = Fit{std::move(slots), limits[middle]};
      low = middle + 1;
    }
  }
  return best;
}

std::optional<Spot> earliest_in_time(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                     Instant not_before, Instant lapse) {
  std::optional<Spot> spot = earliest_fit(timeline, spec, filter, not_before, lapse);
  if (!spec.deadline.is_set() || !spot || end_of(spot->start, spec.time_limit) <= spec.deadline) {
    return spot;
  }
  const Duration least = least_limit(spec);
  if (least == spec.time_limit) {
    return std::nullopt;
  }
  spot = earliest_fit(timeline, with_limit(spec, least), filter, not_before, lapse);
  return spot && end_of(spot->start, least) <= spec.deadline ? spot : std::nullopt;
}

}  // namespace muster::sched
