// Reservations and licences in the engine: how reservations are made, changed and removed, and what they ask of jobs.
#pragma once

#include <string>

#include "core/engine/engine.h"

namespace muster::engine {

// What the planner reads of the state, which must outlive it.
sched::Cluster cluster_of(const State& state);

Result<Decision> make_reservation(const State& state, const sched::Policy& policy, const MakeReservation& command,
                                  Instant now);
Result<Decision> remove_reservation(const State& state, const RemoveReservation& command, Instant now);

// Reservations that have been over for so long are forgotten.
inline constexpr Duration kReservationKept = Duration::from_s(86'400);
// The next one that is to be forgotten; empty: none.
std::string forgotten_reservation(const State& state, Instant now);

// Sorts the request's licences and checks that they and its reservation are there for the job. kInvalidArgument,
// kPermissionDenied or kRefused name the option.
Status check_reservation_and_licenses(const State& state, const sched::Policy& policy, JobSpec& spec, Instant now);

// What a plan's placements may not do, whatever the plan believed: checked one after the other.
class PlacementRules {
 public:
  PlacementRules(const State& state, const sched::Policy& policy, Instant now);
  // Null: it may start there now.
  [[nodiscard]] const char* refusal(const Job& job, const Placement& placement) const;
  void started(const Job& job, const Placement& placement);

 private:
  const State& s_;
  Instant now_;
  sched::LicenseLine licenses_;
};

}  // namespace muster::engine
