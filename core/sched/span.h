// For how long a job is planned: its time limit, which --time-min lets the planner shorten and --deadline cuts.
#pragma once

#include <optional>

#include "core/sched/place.h"
#include "core/sched/timeline.h"
#include "lib/base/time.h"
#include "lib/model/command.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// The shortest limit that will do.
[[nodiscard]] inline Duration least_limit(const JobSpec& spec) {
  return spec.time_min != Duration{} ? spec.time_min : spec.time_limit;
}

// The latest start with which the job can still end by its deadline; nothing when it has none.
[[nodiscard]] std::optional<Instant> latest_start(const JobSpec& spec);

// For how long a start that is planned for then keeps its place.
[[nodiscard]] Duration held_limit(const JobSpec& spec, Instant start);

// The limit that a placement gives.
[[nodiscard]] inline Duration given_limit(const Placement& placement, const JobSpec& spec) {
  return placement.time_limit == Duration{} ? spec.time_limit : placement.time_limit;
}

// fit_now() with the longest limit that the job may have and that fits. `limit` is set when it is not the spec's.
struct Fit {
  std::vector<Slot> slots;  // empty: it does not fit
  Duration limit;           // 0: the spec's
};
Fit fit_flexibly(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter, bool any_switches = false);

// earliest_fit() of a job that must end by its deadline; nothing when it cannot.
std::optional<Spot> earliest_in_time(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                     Instant not_before, Instant lapse = Instant{INT64_MAX / 2});

}  // namespace muster::sched
