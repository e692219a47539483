// Bugs that were found once, each by its name: most of them by the simulation, at the seed that is named.
#include <gtest/gtest.h>

#include "core/engine/engine.h"
#include "sim/state_codec.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

// Seed 2: a waiting array at its own limit was named as what blocks the queue, on nodes that others fill.
TEST(EngineRegress, AnArrayAtItsLimitIsNoReasonForThoseBehindIt) {
  Scenario s;
  s.node("n1", 2);
  JobSpec array = job(1, 1);
  array.array = *parse_array_spec("0-3%1");
  s.submit(array);
  s.submit(job(1, 1));
  s.schedule();  // a task of the array and the other job: the node is full
  const JobId behind = s.submit(job(1, 1));
  s.schedule();
  const engine::Explainer explainer(s.state, s.rules, s.state.now);
  EXPECT_EQ(explainer.reason(*engine::find_job(s.state, behind)).word, "Resources");
  s.drop_effects();
}

// Seed 2 with 1,000 steps: a whole-node job of two tasks was promised a node that had lost all CPUs but one, for ever, and
// kept everything behind it waiting.
TEST(EngineRegress, AWholeNodeWithTooFewCpusIsPromisedToNobody) {
  Scenario s;
  s.node("n1", 2);
  JobSpec whole = job(1, 2);
  whole.exclusive = true;
  whole.nodes_max = 1;
  s.submit(job(1, 2));
  ASSERT_EQ(s.schedule(), 1U);
  const JobId waits = s.submit(whole);
  s.report("n1", JobId{1}, true);
  s.node("n1", 1);
  const JobId behind = s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(engine::find_job(s.state, behind)->is_active());
  const engine::Explainer explainer(s.state, s.rules, s.state.now);
  EXPECT_EQ(explainer.reason(*engine::find_job(s.state, waits)).word, "ReqNodeNotAvail");
  s.drop_effects();
}

// Seed 8: the index of request ids by age had another order after a snapshot was loaded.
TEST(EngineRegress, RequestsOfOneInstantKeepTheirOrderInASnapshot) {
  Scenario s;
  s.node("n1", 2);
  engine::State state = s.state;
  for (std::uint64_t i = 0; i < 4; ++i) {
    JobSubmitted fact;
    fact.id = JobId{1 + i};
    fact.request = RequestId{9 - i, 1};  // ids that fall while jobs rise
    JobSpec spec = job(1, 1);
    spec.queue = "main";
    fact.spec = std::make_shared<const JobSpec>(spec);
    engine::evolve(state, Fact{Instant::from_s(1'700'000'100), fact});
  }
  const Result<engine::State> loaded = sim::decode_state(sim::encode_state(state));
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(*loaded, state);
  s.drop_effects();
}

// Seed 115: a launch was decided, the node rebooted and registered before the commit, which ended the attempt; then the
// launch was sent to the new boot and ran on a share that was free for others.
TEST(EngineRegress, ALaunchDecidedBeforeARebootIsNotOwedAfterIt) {
  Scenario s;
  s.node("n1", 2);
  s.node("n2", 2);
  s.submit(job(2, 2));
  s.schedule();
  const std::vector<SendLaunch> launches = s.take<SendLaunch>();
  ASSERT_EQ(launches.size(), 2U);
  for (const SendLaunch& launch : launches) EXPECT_TRUE(engine::is_owed(s.state, launch.node, launch.order));
  s.run(RegisterNode{registration("n2", hardware(2), "boot-2")});
  for (const SendLaunch& launch : launches) EXPECT_FALSE(engine::is_owed(s.state, launch.node, launch.order));
  s.drop_effects();
}

TEST(EngineRegress, ALaunchIsNotOwedOnceTheNodeRunsOrStopsIt) {
  Scenario s;
  s.node("n1", 2);
  const JobId first = s.submit(job(1, 1));
  const JobId second = s.submit(job(1, 1));
  s.schedule();
  const std::vector<SendLaunch> launches = s.take<SendLaunch>();
  ASSERT_EQ(launches.size(), 2U);
  s.report("n1", first, false);
  CancelJobs cancel;
  cancel.caller = Caller{"alice", false};
  cancel.jobs.items.push_back(JobSelector::Item{second, false, {}});
  s.run(cancel);
  for (const SendLaunch& launch : launches) EXPECT_FALSE(engine::is_owed(s.state, launch.node, launch.order));
  s.drop_effects();
}

// Seed 552: a GPU asked for in total had to be on the job's first node, and the job waited beside free GPUs.
TEST(EngineRegress, GpusInTotalComeFromTheNodesThatHaveThem) {
  Scenario s;
  s.node("n1", 2, 0);
  s.node("n2", 2, 3);
  JobSpec spec = job(2, 2);
  spec.gpus = 3;
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.schedule(), 1U);
  const auto& nodes = std::get<Active>(engine::find_job(s.state, id)->phase).nodes;
  ASSERT_EQ(nodes.size(), 2U);
  EXPECT_EQ(nodes[0].share.gpus.count(), 0U);
  EXPECT_EQ(nodes[1].share.gpus.count(), 3U);
  s.drop_effects();
}

TEST(EngineRegress, GpusInTotalAreSplitEvenlyWhereTheyAre) {
  Scenario s;
  s.node("n1", 2, 4);
  s.node("n2", 2, 4);
  JobSpec spec = job(2, 2);
  spec.gpus = 5;
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.schedule(), 1U);
  const auto& nodes = std::get<Active>(engine::find_job(s.state, id)->phase).nodes;
  EXPECT_EQ(nodes[0].share.gpus.count(), 3U);
  EXPECT_EQ(nodes[1].share.gpus.count(), 2U);
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
