// What planning costs: a full cluster of 10,000 nodes of 64 cores and 8 GPUs, and pending jobs of 200 shapes
// (sim/replay/full_cluster.h; `muster simulate --bench` measures the same).
//
//   full_pass        one pass over everything, nothing remembered
//   many_groups      the same where each job is of another user, so that none is like another to the planner
//   in_a_tree        the same with 500 leaf switches
//   submission       a job comes: the facts of the submission, and the plan that follows
//   completion       a job ends: the facts of its end, and the plan that follows, with what it starts
//   listing_part     1,000 rows of `muster queue`, reasons and estimated starts
//   why_of_...       what `muster why` says of one job
//
// The argument is the number of pending jobs.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "sim/replay/full_cluster.h"

namespace muster {
namespace {

// Of the processor, as what else the machine does should not count.
double processor_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

sim::FullCluster& cluster(std::int64_t pending, std::uint32_t users = 1, std::uint32_t leaf_nodes = 0) {
  static std::map<std::tuple<std::int64_t, std::uint32_t, std::uint32_t>, std::unique_ptr<sim::FullCluster>> made;
  auto& one = made[{pending, users, leaf_nodes}];
  if (!one) {
    sim::FullClusterOptions options;
    options.pending = static_cast<std::uint64_t>(pending);
    options.users = users;
    options.leaf_nodes = leaf_nodes;
    one = std::make_unique<sim::FullCluster>(options);
  }
  return *one;
}

void passes(benchmark::State& b, const sim::FullCluster& c) {
  for (auto _ : b) {
    benchmark::DoNotOptimize(c.full_pass());
  }
  // The longest slice of the same pass.
  double longest = 0;
  sched::PlanMemory memory;
  for (bool resting = true; resting;) {
    const double begin = processor_ms();
    resting = c.slice(memory).resting;
    longest = std::max(longest, processor_ms() - begin);
  }
  b.counters["slice_max_ms"] = longest;
}
void full_pass(benchmark::State& b) {
  passes(b, cluster(b.range(0)));
}
void many_groups(benchmark::State& b) {
  passes(b, cluster(b.range(0), 1'000'000));
}
void in_a_tree(benchmark::State& b) {
  passes(b, cluster(b.range(0), 1, 20));
}
BENCHMARK(full_pass)->Arg(100'000)->Arg(200'000)->Unit(benchmark::kMillisecond);
BENCHMARK(many_groups)->Arg(100'000)->Unit(benchmark::kMillisecond);
BENCHMARK(in_a_tree)->Arg(100'000)->Unit(benchmark::kMillisecond);

void reactions(benchmark::State& b, sim::FullCluster& c, void (sim::FullCluster::*event)()) {
  std::vector<double> took;
  for (auto _ : b) {
    const double begin = processor_ms();
    (c.*event)();
    c.plan_all();
    took.push_back(processor_ms() - begin);
  }
  std::sort(took.begin(), took.end());
  b.counters["median_ms"] = took[took.size() / 2];
  b.counters["p95_ms"] = took[took.size() * 95 / 100];
}
void submission(benchmark::State& b) {
  reactions(b, cluster(b.range(0)), &sim::FullCluster::submit_one);
}
void completion(benchmark::State& b) {
  reactions(b, cluster(b.range(0)), &sim::FullCluster::end_one);
}
void submission_in_a_tree(benchmark::State& b) {
  reactions(b, cluster(b.range(0), 1, 20), &sim::FullCluster::submit_one);
}
void completion_in_a_tree(benchmark::State& b) {
  reactions(b, cluster(b.range(0), 1, 20), &sim::FullCluster::end_one);
}
BENCHMARK(submission)->Arg(100'000)->Iterations(500)->Unit(benchmark::kMillisecond);
BENCHMARK(completion)->Arg(100'000)->Iterations(500)->Unit(benchmark::kMillisecond);
BENCHMARK(submission_in_a_tree)->Arg(100'000)->Iterations(500)->Unit(benchmark::kMillisecond);
BENCHMARK(completion_in_a_tree)->Arg(100'000)->Iterations(500)->Unit(benchmark::kMillisecond);

// What one part of a listing costs the loop: the explanations of the moment, and the reasons of 1,000 rows.
void listing(benchmark::State& b, const sim::FullCluster& c) {
  double made = 0;
  for (auto _ : b) {
    const double begin = processor_ms();
    const engine::Explainer explainer(c.state(), c.policy(), c.now());
    made = std::max(made, processor_ms() - begin);
    std::size_t rows = 0;
    for (const auto& [id, job] : c.state().jobs) {
      if (job.is_active()) {
        continue;
      }
      benchmark::DoNotOptimize(explainer.reason(job));
      benchmark::DoNotOptimize(explainer.estimated_start(job));
      if (++rows == 1'000) {
        break;
      }
    }
  }
  b.counters["made_ms"] = made;
}
void listing_part(benchmark::State& b) {
  listing(b, cluster(b.range(0)));
}
void listing_part_many_groups(benchmark::State& b) {
  listing(b, cluster(b.range(0), 1'000'000));
}
// What `muster why` of one job costs, the explanations made before.
void why(benchmark::State& b, const sim::FullCluster& c, std::size_t behind) {
  const engine::Explainer explainer(c.state(), c.policy(), c.now());
  std::vector<const Job*> waiting;
  for (const auto& [id, job] : c.state().jobs) {
    if (!job.is_active()) {
      waiting.push_back(&job);
    }
  }
  for (auto _ : b) {
    benchmark::DoNotOptimize(explainer.explain(*waiting[std::min(behind, waiting.size() - 1)]));
  }
}
void why_of_the_first(benchmark::State& b) {
  why(b, cluster(b.range(0)), 0);
}
void why_of_the_last(benchmark::State& b) {
  why(b, cluster(b.range(0)), SIZE_MAX);
}
void why_of_the_last_of_many_groups(benchmark::State& b) {
  why(b, cluster(b.range(0), 1'000'000), SIZE_MAX);
}
BENCHMARK(listing_part)->Arg(100'000)->Unit(benchmark::kMillisecond);
BENCHMARK(listing_part_many_groups)->Arg(100'000)->Unit(benchmark::kMillisecond);
BENCHMARK(why_of_the_first)->Arg(100'000)->Unit(benchmark::kMillisecond);
BENCHMARK(why_of_the_last)->Arg(100'000)->Unit(benchmark::kMillisecond);
BENCHMARK(why_of_the_last_of_many_groups)->Arg(100'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace muster

BENCHMARK_MAIN();
