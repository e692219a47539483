// The name of a job as its user knows it.
#pragma once

#include <string>

#include "lib/model/job.h"

namespace muster {

// "42"; "42_7" for a task of an array that has started; "42" for what waits of an array.
std::string job_name(const Job& job);

}  // namespace muster
