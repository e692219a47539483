#include "sim/replay/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <vector>

namespace muster::sim {
namespace {

constexpr int kPasses = 7;
constexpr int kReactions = 500;

// Of the processor: what else the machine does should not count, and there is one thread.
double processor_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}
template <typename Fn>
double milliseconds(Fn fn) {
  const double begin = processor_ms();
  fn();
  return processor_ms() - begin;
}

// The value at place ceil(share * n) of the sorted ones.
double at_share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  const auto place = static_cast<std::size_t>(std::max(1.0, share * n + 0.999'999));
  return values[std::min(place, values.size()) - 1];
}

double full_pass_ms(const FullCluster& cluster) {
  std::vector<double> took;
  for (int i = 0; i < kPasses; ++i) {
    took.push_back(milliseconds([&] { static_cast<void>(cluster.full_pass()); }));
  }
  return at_share(std::move(took), 0.5);
}

double longest_slice_ms(const FullCluster& cluster) {
  sched::PlanMemory memory;
  double longest = 0;
  bool resting = true;
  while (resting) {
    longest = std::max(longest, milliseconds([&] { resting = cluster.slice(memory).resting; }));
  }
  return longest;
}

std::vector<double> reactions(FullCluster& cluster, void (FullCluster::*event)()) {
  std::vector<double> took;
  for (int i = 0; i < kReactions; ++i) {
    took.push_back(milliseconds([&] {
      (cluster.*event)();
      cluster.plan_all();
    }));
  }
  return took;
}

}  // namespace

BenchResult run_bench(const FullClusterOptions& options) {
  FullCluster cluster(options);
  BenchResult result;
  result.full_pass_ms = full_pass_ms(cluster);
  result.slice_max_ms = longest_slice_ms(cluster);
  const std::vector<double> submissions = reactions(cluster, &FullCluster::submit_one);
  result.submission_p50_ms = at_share(submissions, 0.5);
  result.submission_p95_ms = at_share(submissions, 0.95);
  const std::vector<double> completions = reactions(cluster, &FullCluster::end_one);
  result.completion_p50_ms = at_share(completions, 0.5);
  result.completion_p95_ms = at_share(completions, 0.95);
  const double before = full_pass_ms(cluster);
  cluster.fill(2 * options.pending);
  result.full_pass_twice_ratio = full_pass_ms(cluster) / std::max(before, 1e-6);
  return result;
}

std::string bench_text(const FullClusterOptions& options, const BenchResult& r) {
  return fmt::format(
      "cluster            {} nodes of {} cores and {} GPUs, full\n"
      "pending            {} jobs of {} shapes\n"
      "full pass          {:.3f} ms\n"
      "longest slice      {:.3f} ms\n"
      "submission         {:.3f} ms (95 %: {:.3f} ms)\n"
      "completion         {:.3f} ms (95 %: {:.3f} ms)\n"
      "twice the jobs     {:.2f} times the full pass\n",
      options.nodes, options.cores, options.gpus, options.pending, options.shapes, r.full_pass_ms, r.slice_max_ms,
      r.submission_p50_ms, r.submission_p95_ms, r.completion_p50_ms, r.completion_p95_ms, r.full_pass_twice_ratio);
}

std::string bench_json(const FullClusterOptions& options, const BenchResult& r) {
  return fmt::format(
      "{{\n"
      "  \"nodes\": {},\n"
      "  \"cores_per_node\": {},\n"
      "  \"gpus_per_node\": {},\n"
      "  \"pending_jobs\": {},\n"
      "  \"shapes\": {},\n"
      "  \"full_pass_ms\": {:.6f},\n"
      "  \"slice_max_ms\": {:.6f},\n"
      "  \"submission_p50_ms\": {:.6f},\n"
      "  \"submission_p95_ms\": {:.6f},\n"
      "  \"completion_p50_ms\": {:.6f},\n"
      "  \"completion_p95_ms\": {:.6f},\n"
      "  \"twice_pending_ratio\": {:.6f}\n"
      "}}\n",
      options.nodes, options.cores, options.gpus, options.pending, options.shapes, r.full_pass_ms, r.slice_max_ms,
      r.submission_p50_ms, r.submission_p95_ms, r.completion_p50_ms, r.completion_p95_ms, r.full_pass_twice_ratio);
}

}  // namespace muster::sim
