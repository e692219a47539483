// What a job asks of features and network, checked at its submission.
#pragma once

#include "core/engine/state.h"
#include "core/sched/schedule.h"
#include "lib/base/result.h"

namespace muster::engine {

// More leaf switches than this no cluster has.
inline constexpr std::uint32_t kSwitchesMax = 100'000;

// The spec's counts of nodes and tasks are filled in.
Status check_place_request(const State& state, const sched::Policy& policy, const JobSpec& spec);

// All features that the configuration or a node names, sorted.
std::vector<std::string> known_features(const State& state, const sched::Policy& policy);

}  // namespace muster::engine
