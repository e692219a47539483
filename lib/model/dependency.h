// Dependency: for which other jobs a job waits before it may start, as --dependency says it (docs/cli.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/model/ids.h"
#include "lib/model/positions.h"

namespace muster {

enum class DependencyKind : std::uint8_t {
  kAfter,       // the other job has started, or will never start
  kAfterAny,    // it has ended
  kAfterOk,     // it has completed
  kAfterNotOk,  // it has ended in another way
  kSingleton,   // no earlier job of the same user and name has not ended
  kAfterCorr,   // of two arrays: the task of the other one with the same index has completed
};
std::string_view to_string(DependencyKind kind);

// The job that a user named. The id of an array without a task means all its tasks.
struct DependencyTarget {
  JobId job;
  bool has_task = false;
  std::uint64_t task = 0;  // the user's index
  friend auto operator<=>(const DependencyTarget&, const DependencyTarget&) = default;
};
std::string format_dependency_target(const DependencyTarget& target);

struct DependencyTerm {
  DependencyKind kind = DependencyKind::kAfterAny;
  DependencyTarget target;  // not of a singleton
  Duration delay;           // kAfter: so long after the start
  friend bool operator==(const DependencyTerm&, const DependencyTerm&) = default;
};

struct Dependency {
  std::vector<DependencyTerm> terms;
  bool any = false;  // one of the terms is enough; else all must hold
  friend bool operator==(const Dependency&, const Dependency&) = default;
};

// A term that is not met yet, with the ids that it means in the controller's state.
struct OpenDependency {
  DependencyKind kind = DependencyKind::kAfterAny;
  JobId job;                 // not of a singleton
  bool whole_array = false;  // `job` is the id of an array and means all its tasks
  Duration delay;
  bool never = false;  // it cannot be met any more
  // kAfterCorr: the positions of the array that waits whose counterparts have not ended, and those whose counterparts
  // have ended and not completed. The others may start.
  Positions corr_waits = {};
  Positions corr_never = {};
  friend bool operator==(const OpenDependency&, const OpenDependency&) = default;
};

// Bounds what one job adds to the state and what its submission must look up.
inline constexpr std::size_t kDependencyTermsMax = 1'000;
inline constexpr std::int64_t kDependencyMinutesMax = 10LL * 366 * 24 * 60;

// What parse_dependency checks, for a value that came another way.
Status check_dependency(const Dependency& dependency);
// "afterok:41:42_7,singleton", "after:41+10", "afterok:41?afternotok:42". `what` names the option in the error.
Result<Dependency> parse_dependency(std::string_view text, std::string_view what);
std::string format_dependency(const Dependency& dependency);

}  // namespace muster
