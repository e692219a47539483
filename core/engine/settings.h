// Settings that are changed while the controller runs: queues and the rules of planning. What a setting is called and
// which values it may have is lib/config's business; here it is decided whether the jobs that there are allow the change.
#pragma once

#include <string>
#include <vector>

#include "core/engine/engine.h"

namespace muster::engine {

// Keys that were changed at run time; a cluster has some dozens.
inline constexpr std::size_t kSettingsMax = 20'000;

struct ChangeSettings {
  Caller caller;
  std::vector<SettingChanged> changes;
  bool force = false;  // also when jobs that wait could not start any more
};

// `policy` is what counts now, `next` what the changes make of it. Refused, with the jobs named, when a job that waits
// could start with the one and cannot with the other, or when a queue would go that has jobs.
Result<Decision> decide_settings(const State& state, const sched::Policy& policy, const sched::Policy& next,
                                 const ChangeSettings& command, Instant now);

}  // namespace muster::engine
