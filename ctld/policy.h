// The policy that a configuration means.
#pragma once

#include "core/sched/schedule.h"
#include "lib/base/result.h"
#include "lib/config/config.h"

namespace muster::ctld {

Result<sched::Policy> make_policy(const config::Config& config);

}  // namespace muster::ctld
