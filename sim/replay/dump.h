// `--dump FILE`: when each job started. Written aside and renamed, so that FILE is whole or not there.
#pragma once

#include <string>

#include "lib/base/result.h"
#include "sim/replay/replay.h"
#include "sim/replay/swf.h"

namespace muster::sim {

// Whether write_dump() may write there, so that a long replay does not end in a refusal. Leaves nothing behind.
Status check_dump_path(const std::string& path);

// "job_number start_time" on each line, in the order of the file. A pipe or a device is written to directly.
Status write_dump(const std::string& path, const Trace& trace, const ReplayResult& result);

}  // namespace muster::sim
