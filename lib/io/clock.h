// The clocks that shells read and pass on to the core. Callable from every thread.
#pragma once

#include <string>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::io {

// Wall time. It may jump when the administrator sets the clock; who needs order makes it never-decreasing itself.
Instant wall_now();

// Time since the machine booted, sleep included (CLOCK_BOOTTIME). Never jumps; meaningless after another boot.
Duration boottime_now();

// The kernel's random id of this boot: two readings differ exactly when the machine was restarted between them.
Result<std::string> boot_id();

}  // namespace muster::io
