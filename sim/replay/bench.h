// `muster simulate --bench` without a log: what planning costs on a full cluster (docs/simulate.md).
#pragma once

#include <string>

#include "sim/replay/full_cluster.h"

namespace muster::sim {

struct BenchResult {
  double full_pass_ms = 0;           // median of some
  double full_pass_twice_ratio = 0;  // with twice as many pending jobs, over that
  double submission_p50_ms = 0;
  double submission_p95_ms = 0;
  double completion_p50_ms = 0;
  double completion_p95_ms = 0;
  double slice_max_ms = 0;  // the longest slice of a full pass that is made in slices
};
BenchResult run_bench(const FullClusterOptions& options);
std::string bench_text(const FullClusterOptions& options, const BenchResult& result);
std::string bench_json(const FullClusterOptions& options, const BenchResult& result);

}  // namespace muster::sim
