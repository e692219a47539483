// What the pure core costs, without I/O: one submission, and one task of an array from its placement to its end.
#include <benchmark/benchmark.h>

#include "core/engine/engine.h"

namespace muster {
namespace {

NodeRegistration node(std::uint32_t i, std::uint32_t cores) {
  NodeRegistration r;
  r.name = "n" + std::to_string(i + 1);
  r.boot_id = "boot";
  r.hardware.mem_mib = 65'536;
  for (std::uint32_t c = 0; c < cores; ++c) {
    r.hardware.cores.push_back(Core{.package = 0, .numa = 0, .threads = IndexSet::range(c, 1)});
  }
  return r;
}

struct Cluster {
  engine::State state;
  sched::Policy policy;
  Instant now = Instant::from_s(1'700'000'000);

  explicit Cluster(std::uint32_t nodes) {
    sched::QueuePolicy q;
    q.name = "main";
    q.time_default = Duration::from_s(3600);
    policy.queues = {q};
    policy.default_queue = "main";
    policy.jobs_max = 100'000'000;
    for (std::uint32_t i = 0; i < nodes; ++i) {
      run(RegisterNode{node(i, 32)});
    }
  }
  engine::Decision run(const Command& c) {
    now = now + Duration::from_us(1);
    auto d = engine::decide(state, policy, c, now);
    Effects effects;
    for (const Fact& f : d->facts) {
      engine::apply(state, f, effects);
    }
    return std::move(*d);
  }
  JobSpecPtr spec(std::uint64_t array) const {
    auto s = std::make_shared<JobSpec>();
    s->user = "alice";
    s->name = "bench";
    s->work_dir = "/tmp";
    if (array != 0) {
      s->array = ArraySpec{.ranges = {{0, array - 1, 1}}, .max_running = 0};
    }
    return s;
  }
};

void submit_one(benchmark::State& b) {
  Cluster c(static_cast<std::uint32_t>(b.range(0)));
  std::uint64_t request = 0;
  for (auto _ : b) {
    c.run(SubmitJob{{"alice", false}, RequestId{1, ++request}, c.spec(0)});
  }
}
BENCHMARK(submit_one)->Arg(4)->Arg(1000);

void array_task(benchmark::State& b) {
  Cluster c(static_cast<std::uint32_t>(b.range(0)));
  c.run(SubmitJob{{"alice", false}, {}, c.spec(10'000'000)});
  std::vector<JobId> running;
  std::uint64_t ended = 0;
  const auto start_all = [&] {
    const sched::Plan plan = engine::plan(c.state, c.policy, {}, c.now);
    for (const Placement& p : plan.placements) {
      running.push_back(JobId{p.job.value + p.position});
      c.run(ApplyPlan{{p}});
    }
  };
  start_all();
  for (auto _ : b) {
    if (ended >= running.size()) {
      b.SkipWithError("nothing runs");
      break;
    }
    const JobId id = running[ended++];
    const Node& n = c.state.nodes[std::get<Active>(c.state.jobs.at(id).phase).nodes[0].share.node.value];
    c.run(ReportAttempts{n.name, {AttemptReport{{id, Attempt{1}}, true, {}}}});
    start_all();
  }
}
BENCHMARK(array_task)->Arg(4)->Arg(1000);

}  // namespace
}  // namespace muster

BENCHMARK_MAIN();
