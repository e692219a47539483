// What planning costs: a cluster of 10,000 nodes of 64 cores and 8 GPUs that is full, and pending jobs of 200 shapes.
//
//   full_pass        one pass over everything, nothing remembered
//   submission       a job comes: the facts of the submission, and the plan that follows
//   completion       a job ends: the facts of its end, and the plan that follows, with what it starts
//
// The argument is the number of pending jobs.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <vector>

#include "core/engine/engine.h"
#include "sim/random.h"

namespace muster {
namespace {

constexpr std::uint32_t kNodes = 10'000;
constexpr std::uint32_t kShapes = 200;
constexpr std::uint64_t kSeed = 20'240'117;

class FullCluster {
 public:
  explicit FullCluster(std::uint64_t pending) : random_(kSeed) {
    sched::QueuePolicy q;
    q.name = "main";
    q.time_default = Duration::from_s(3600);
    policy_.queues = {q};
    policy_.default_queue = "main";
    policy_.jobs_max = 100'000'000;
    NodeRegistration r;
    r.boot_id = "boot";
    r.hardware.mem_mib = 524'288;
    for (std::uint32_t c = 0; c < 64; ++c) {
      r.hardware.cores.push_back(Core{.package = c / 32, .numa = c / 16, .threads = IndexSet::range(c, 1)});
    }
    for (std::uint32_t g = 0; g < 8; ++g) {
      r.hardware.gpus.push_back(Gpu{.pci_address = "0000:0" + std::to_string(g) + ":00.0",
                                    .uuid = {},
                                    .model = {},
                                    .vendor_index = g,
                                    .numa = g / 2});
    }
    for (std::uint32_t i = 0; i < kNodes; ++i) {
      r.name = "n" + std::to_string(i + 1);
      run(RegisterNode{r});
    }
    for (std::uint32_t i = 0; i < kShapes; ++i) {
      shapes_.push_back(shape());
    }
    // Until nothing more fits.
    do {
      for (int i = 0; i < 2'000; ++i) {
        submit(random_.pick(shapes_));
      }
    } while (plan_all() != 0 && state_.waiting_tasks < 4'000);
    while (state_.waiting_tasks < pending) {
      submit(random_.pick(shapes_));
    }
    plan_all();
  }

  void submit_one() { submit(random_.pick(shapes_)); }
  void end_one() {
    auto it = state_.jobs.lower_bound(JobId{random_.below(state_.next_job.value)});
    while (it == state_.jobs.end() || !it->second.is_active()) {
      it = it == state_.jobs.end() ? state_.jobs.begin() : std::next(it);
    }
    const AttemptKey key{it->first, it->second.attempt};
    std::vector<std::string> nodes;
    for (const AttemptOnNode& on : std::get<Active>(it->second.phase).nodes) {
      nodes.push_back(state_.nodes[on.share.node.value].name);
    }
    for (const std::string& node : nodes) {
      run(ReportAttempts{node, {AttemptReport{key, true, {}}}});
    }
  }
  std::uint64_t plan_all() {
    std::uint64_t started = 0;
    while (true) {
      sched::Plan plan = engine::plan(state_, policy_, {}, now_, memory_);
      const bool complete = plan.complete;
      const std::uint64_t matched = run(engine::apply_plan(state_, std::move(plan))).matched;
      started += matched;
      if (complete || matched == 0) {
        return started;
      }
    }
  }
  void full_pass() {
    sched::PlanMemory nothing;
    benchmark::DoNotOptimize(engine::plan(state_, policy_, {}, now_, nothing));
  }

 private:
  JobSpecPtr shape() {
    auto s = std::make_shared<JobSpec>();
    s->user = "alice";
    s->name = "bench";
    s->work_dir = "/tmp";
    const std::uint64_t kind = random_.below(10);
    if (kind < 6) {
      s->ntasks = static_cast<std::uint32_t>(random_.between(1, 64));
      s->nodes_min = s->nodes_max = 1;
      s->gpus_per_node = random_.permille(500) ? static_cast<std::uint32_t>(random_.below(9)) : 0;
    } else {
      s->nodes_min = s->nodes_max = static_cast<std::uint32_t>(random_.between(2, kind == 9 ? 512 : 16));
      s->ntasks_per_node = static_cast<std::uint32_t>(random_.between(1, 64));
      s->ntasks = s->nodes_min * s->ntasks_per_node;
      s->gpus_per_node = static_cast<std::uint32_t>(random_.below(9));
    }
    s->time_limit = Duration::from_s(static_cast<std::int64_t>(random_.between(5, 48 * 60)) * 60);
    return s;
  }
  void submit(const JobSpecPtr& spec) { run(SubmitJob{{"alice", false}, {}, spec}); }
  engine::Decision run(const Command& c) {
    now_ = now_ + Duration::from_ms(1);
    auto d = engine::decide(state_, policy_, c, now_);
    Effects effects;
    for (const Fact& f : d->facts) {
      engine::apply(state_, f, effects);
    }
    return std::move(*d);
  }

  sim::Random random_;
  engine::State state_;
  sched::Policy policy_;
  sched::PlanMemory memory_;
  Instant now_ = Instant::from_s(1'700'000'000);
  std::vector<JobSpecPtr> shapes_;
};

FullCluster& cluster(std::int64_t pending) {
  static std::map<std::int64_t, std::unique_ptr<FullCluster>> made;
  auto& one = made[pending];
  if (!one) {
    one = std::make_unique<FullCluster>(static_cast<std::uint64_t>(pending));
  }
  return *one;
}

void full_pass(benchmark::State& b) {
  FullCluster& c = cluster(b.range(0));
  for (auto _ : b) {
    c.full_pass();
  }
}
BENCHMARK(full_pass)->Arg(100'000)->Arg(200'000)->Unit(benchmark::kMillisecond);

void reactions(benchmark::State& b, void (FullCluster::*event)()) {
  FullCluster& c = cluster(b.range(0));
  std::vector<double> took;
  for (auto _ : b) {
    const auto begin = std::chrono::steady_clock::now();
    (c.*event)();
    c.plan_all();
    took.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(took.begin(), took.end());
  b.counters["median_ms"] = took[took.size() / 2];
  b.counters["p95_ms"] = took[took.size() * 95 / 100];
}
void submission(benchmark::State& b) {
  reactions(b, &FullCluster::submit_one);
}
void completion(benchmark::State& b) {
  reactions(b, &FullCluster::end_one);
}
BENCHMARK(submission)->Arg(100'000)->Iterations(500)->Unit(benchmark::kMillisecond);
BENCHMARK(completion)->Arg(100'000)->Iterations(500)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace muster

BENCHMARK_MAIN();
