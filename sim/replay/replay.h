// Replays a recorded workload through core/sched in virtual time, as the controller would run it on one node with all
// cores of the machine. docs/simulate.md has the rules.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "lib/base/result.h"
#include "sim/replay/policies.h"
#include "sim/replay/swf.h"

namespace muster::sim {

enum class ReplayEvents {
  kBatch,  // at each instant all ends, then all submissions, then one pass
  kSeq,    // a pass after each event; submissions before ends; who should have ended by its estimate counts as gone
};

struct ReplayOptions {
  ReplayEvents events = ReplayEvents::kBatch;
  bool keep_pass_times = false;
  // Told after each instant how many jobs have ended; may be empty.
  std::function<void(std::uint64_t ended)> progress;
};

struct ReplayResult {
  std::vector<std::int64_t> start_s;  // of each job of the trace
  std::uint64_t broken_promises = 0;  // promise_watch.h
  std::uint64_t passes = 0;           // those with a job waiting
  std::int64_t scheduling_ns = 0;     // planning and applying plans, by the real clock
  std::vector<std::int64_t> pass_ns;  // of each pass, when asked for
};

// An error when virtual time runs out of bounds, which takes thousands of years.
Result<ReplayResult> replay(const Trace& trace, const ReplayPolicy& policy, const ReplayOptions& options);

}  // namespace muster::sim
