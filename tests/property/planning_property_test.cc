// What planning costs is bounded without changing what is planned: slices, claims, arrays at their limit, and the changes
// that `why` offers. MUSTER_SEED repeats a run.
#include <gtest/gtest.h>

#include <string>

#include "sim/random.h"
#include "sim/replay/full_cluster.h"
#include "tests/support/engine_scenario.h"
#include "tests/support/seed.h"

namespace muster::testing {
namespace {

// A small cluster that is full, with jobs of many users.
sim::FullClusterOptions small(sim::Random& random) {
  sim::FullClusterOptions options;
  options.nodes = static_cast<std::uint32_t>(random.between(2, 40));
  options.cores = static_cast<std::uint32_t>(random.between(1, 8));
  options.gpus = static_cast<std::uint32_t>(random.below(4));
  options.pending = random.between(10, 600);
  options.shapes = static_cast<std::uint32_t>(random.between(2, 30));
  options.users = random.permille(500) ? 50 : 1;
  options.leaf_nodes = random.permille(500) ? 4 : 0;
  return options;
}

TEST(Planning, APassInSlicesIsThePassInOne) {
  sim::Random random(test::first_seed());
  for (int round = 0; round < 60; ++round) {
    sim::FullCluster cluster(small(random));
    for (int event = 0; event < 5; ++event) {
      cluster.end_one();
      const sched::Plan whole = engine::plan(cluster.state(), cluster.policy(), {}, cluster.now());
      sched::WorkBudget budget;
      budget.work = random.between(1, 400);
      sched::PlanMemory memory;
      sched::Plan sliced = engine::plan(cluster.state(), cluster.policy(), budget, cluster.now(), memory);
      std::uint64_t slices = 1;
      while (sliced.resting) {
        ASSERT_TRUE(sliced.placements.empty() && sliced.promises.empty() && !sliced.complete);
        sliced = engine::plan(cluster.state(), cluster.policy(), budget, cluster.now(), memory);
        ++slices;
      }
      ASSERT_EQ(sliced.placements, whole.placements) << round;
      ASSERT_EQ(sliced.promises, whole.promises) << round;
      ASSERT_EQ(sliced.complete, whole.complete);
      ASSERT_TRUE(slices > 1 || budget.work > 8) << "the budget of " << budget.work << " was never used up";
      cluster.plan_all();
    }
  }
}

TEST(Planning, APassComesToAnEndHoweverOftenTheStateChanges) {
  sim::FullClusterOptions options;
  options.nodes = 20;
  options.cores = 4;
  options.gpus = 0;
  options.pending = 2'000;
  options.shapes = 50;
  options.users = 1'000;
  sim::FullCluster cluster(options);
  sched::WorkBudget budget;
  budget.work = 100;
  sched::PlanMemory memory;
  int slices = 0;
  while (engine::plan(cluster.state(), cluster.policy(), budget, cluster.now(), memory).resting) {
    cluster.submit_one();  // the state changes before each slice
    ASSERT_LT(++slices, 20);
  }
  EXPECT_GT(slices, 2);
  EXPECT_EQ(memory.patience, 1U);
}

// Each of them ranks above all before it, so each stands at the front once.
TEST(Planning, EverHigherRankedJobsDoNotAddAClaimEach) {
  Scenario s;
  s.node("n1", 4);
  JobSpec whole = job(1, 4);
  whole.nice = 10'000;
  const JobId first = s.submit(whole);
  s.schedule();
  const auto plan = [&s] {
    sched::Plan p = engine::plan(s.state, s.rules, {}, s.state.now);
    return s.run(engine::apply_plan(s.state, std::move(p))).matched;
  };
  for (std::int32_t i = 0; i < 3 * static_cast<std::int32_t>(sched::kClaimsMax); ++i) {
    whole.nice = 9'999 - i;
    s.submit(whole);
    EXPECT_EQ(plan(), 0U);
  }
  EXPECT_EQ(s.state.promised.size(), sched::kClaimsMax);
  const sched::Plan now = engine::plan(s.state, s.rules, {}, s.state.now);
  EXPECT_EQ(now.kept.size(), 1U);
  // A small job that would end before nothing of them does not take the place that is kept for the front.
  const JobId behind = [&s] {
    JobSpec small = job(1, 1);
    small.nice = 20'000;
    small.time_limit = Duration::from_s(36'000);
    return s.submit(small);
  }();
  EXPECT_EQ(plan(), 0U);
  const engine::Explainer explain(s.state, s.rules, s.state.now);
  EXPECT_EQ(explain.reason(s.state.jobs.at(behind)).word, "Resources");
  // Their turn comes: the one that ranks highest starts first, promised or not.
  s.report("n1", first, true);
  EXPECT_EQ(plan(), 1U);
  s.drop_effects();
}

TEST(Planning, AnArrayAtItsLimitIsNotPending) {
  Scenario s;
  s.node("n1", 8);
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{.ranges = {{0, 9, 1}}, .max_running = 2};
  const JobId array = s.submit(spec);
  s.schedule();
  EXPECT_EQ(s.state.arrays.at(array).array_running, 2U);
  EXPECT_TRUE(s.state.pending.empty());
  const engine::Explainer explain(s.state, s.rules, s.state.now);
  EXPECT_EQ(explain.reason(s.state.arrays.at(array)).word, "JobArrayTaskLimit");
  s.report("n1", array, true);
  EXPECT_FALSE(s.state.pending.empty());
  s.schedule();
  EXPECT_EQ(s.state.arrays.at(array).array_running, 2U);
  EXPECT_TRUE(s.state.pending.empty());
  s.drop_effects();
}

TEST(Planning, WhyOffersTheLargestCountsThatHelp) {
  Scenario s;
  s.node("n1", 64, 8);
  JobSpec runs = job(1, 27);
  runs.gpus_per_node = 3;
  s.submit(runs);
  s.schedule();
  JobSpec wants = job(1, 50);
  wants.nodes_max = 1;
  const JobId cpus = s.submit(wants);
  JobSpec gpus = job(1, 1);
  gpus.gpus_per_node = 8;
  const JobId devices = s.submit(gpus);
  const engine::Explainer explain(s.state, s.rules, s.state.now);
  const auto offered = [&](JobId id, const std::string& option) -> std::string {
    for (const sched::SmallerRequest& change : explain.explain(s.state.jobs.at(id)).changes) {
      if (change.option == option) {
        return change.value;
      }
    }
    return "";
  };
  EXPECT_EQ(offered(cpus, "--ntasks"), "37");  // 64 - 27
  EXPECT_EQ(offered(devices, "--gpus-per-node"), "5");
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
