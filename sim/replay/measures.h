// What a replay is judged by, and its report as text and as JSON.
#pragma once

#include <cstdint>
#include <string>

#include "sim/replay/replay.h"
#include "sim/replay/swf.h"

namespace muster::sim {

// Over all jobs; nothing is left out to warm up. Sums go by the order of the file.
struct Measures {
  std::uint64_t jobs = 0;
  double avebsld = 0;  // mean of max(1, (wait + run) / max(run, 10 s)), the bounded slowdown
  double mean_wait_s = 0;
  std::int64_t p95_wait_s = 0;  // the wait at place ceil(0.95 * jobs) of the sorted ones
  std::int64_t max_wait_s = 0;
  double util_in = 0;           // busy share of the machine between the first and the last submission; 0 without a span
  std::int64_t makespan_s = 0;  // from the first submission to the last end
};
Measures measure(const Trace& trace, const ReplayResult& result);

// What the report adds to the measures.
struct ReportFacts {
  std::string policy;
  std::string backfill;
  std::string events;
  std::uint64_t dropped = 0;
  std::uint64_t bad_lines = 0;
};
std::string report_json(const Trace& trace, const ReplayResult& result, const ReportFacts& facts);
std::string report_text(const Trace& trace, const ReplayResult& result, const ReportFacts& facts);

}  // namespace muster::sim
