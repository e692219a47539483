// The policies that a replay can run, by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/sched/schedule.h"
#include "lib/base/result.h"

namespace muster::sim {

struct ReplayPolicy {
  std::string name;      // as given: "wfp3"
  std::string backfill;  // what it backfills with: "easy"; that of the default policy is "default"
  sched::Policy policy;  // one queue, called kReplayQueue
  std::shared_ptr<const sched::Order> order;
};

inline constexpr const char* kReplayQueue = "main";

// "default" is the policy that sites run: core/sched's own order and rules.
std::vector<std::string> policy_names();
std::vector<std::string> backfill_names();
// `backfill` empty: the policy's own. An unknown name is refused with the nearest known one.
Result<ReplayPolicy> find_policy(std::string_view name, std::string_view backfill);

}  // namespace muster::sim
