// Dependencies: what a job must wait for when it is submitted, and what becomes of that as other jobs start and end.
#pragma once

#include <string>
#include <vector>

#include "core/engine/state.h"
#include "lib/base/result.h"
#include "lib/model/command.h"
#include "lib/model/dependency.h"

namespace muster::engine {

// What is open of a dependency at its submission.
struct ResolvedDependency {
  std::vector<OpenDependency> open;
  Instant begin;  // what was met already allows a start from then on; unset: at once
};
// Of the spec's dependency; `waiting` is the record that it is for, null when it is about to be submitted. `ended` tells
// of jobs that the state does not know any more. A job that neither knows is an error.
Result<ResolvedDependency> resolve_dependency(const State& state, const JobSpec& spec, const Job* waiting,
                                              const std::vector<EndedJob>& ended);

// Whether the state knows what the target means. An error: there is an array or job that it contradicts.
Result<bool> is_known(const State& state, const DependencyTarget& target);

// What the job of an open term does, for people: "job 42 is running".
std::string describe(const State& state, const Job& waiting, const OpenDependency& open);

// Whether a dependency keeps the job, or all tasks of the array, from starting, and whether it always will.
[[nodiscard]] inline bool is_dependent(const Job& job) {
  return waits_as_a_whole(job);
}
[[nodiscard]] bool is_never_satisfied(const Job& job);

// The jobs whose dependency this fact may change.
std::vector<JobId> dependents_of(const State& state, const Fact& fact);

// How evolve() follows what happens to other jobs: called after the records say so.
class Dependents {
 public:
  Dependents(State& state, Instant at) : s_(state), at_(at) {}

  void started(JobId job, JobId array);
  void ended(JobId job, JobState state);
  // Positions of an array that waited have ended.
  void positions_ended(JobId array, const std::vector<PositionRange>& positions, JobState state);
  // These tasks of the array have ended: so much for the tasks of other arrays that wait for them one by one.
  void pairs_ended(const Job& array, const Positions& ended, bool completed);
  // Tasks of the array have started or ended; `gone` when none is left.
  void array_changed(JobId array, bool failed, bool all_started, bool gone);
  // A record of this user and name has left the state.
  void name_freed(const JobSpec& spec);

 private:
  enum class Verdict { kOpen, kMet, kNever };
  static Verdict verdict_of_end(DependencyKind kind, bool completed);
  template <typename Judge>
  void judge(JobId target, bool whole_array, Judge judge);
  template <typename Judge>
  void judge_waiting(JobId waiting, Judge judge);

  State& s_;
  Instant at_;
};

}  // namespace muster::engine
