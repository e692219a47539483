// Features, network, pack and spread, GPUs: where jobs go and what is refused.
#include <gmock/gmock.h>

#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::shared_ptr<const sched::Sites> sites(sched::Sites value) {
  EXPECT_TRUE(check_topology(value.topology).ok());
  return std::make_shared<const sched::Sites>(std::move(value));
}

sched::Sites two_blocks() {
  sched::Sites s;
  s.topology.kind = TopologyKind::kBlock;
  s.topology.blocks = {{"b1", {"n1", "n2", "n3", "n4"}, ""}, {"b2", {"n5", "n6", "n7", "n8"}, ""}};
  return s;
}
// leaf1: n1-n2, leaf2: n3-n6, leaf3: n7-n8; core above all.
sched::Sites three_leaves() {
  sched::Sites s;
  s.topology.kind = TopologyKind::kTree;
  s.topology.switches = {{"leaf1", {"n1", "n2"}, {}, ""},
                         {"leaf2", {"n3", "n4", "n5", "n6"}, {}, ""},
                         {"leaf3", {"n7", "n8"}, {}, ""},
                         {"core", {}, {"leaf1", "leaf2", "leaf3"}, ""}};
  return s;
}

class Placed : public ::testing::Test {
 protected:
  void nodes(std::uint32_t count, std::uint32_t cores = 1, std::uint32_t gpus = 0) {
    for (std::uint32_t i = 1; i <= count; ++i) {
      s.node("n" + std::to_string(i), cores, gpus);
    }
  }
  // A job of whole nodes.
  static JobSpec wide(std::uint32_t count) {
    JobSpec spec = job(count, count);
    spec.exclusive = true;
    return spec;
  }
  [[nodiscard]] std::vector<std::string> on(JobId id) const {
    std::vector<std::string> names;
    const Job* j = engine::find_job(s.state, id);
    if (j != nullptr && j->is_active()) {
      for (const AttemptOnNode& each : std::get<Active>(j->phase).nodes) {
        names.push_back(s.state.nodes[each.share.node.value].name);
      }
    }
    return names;
  }
  [[nodiscard]] sched::Explanation why(JobId id) const {
    return engine::Explainer(s.state, s.rules, s.state.now).explain(s.state.jobs.at(id));
  }
  void TearDown() override { s.drop_effects(); }
  Scenario s;
};

TEST_F(Placed, BlocksAreHardDomains) {
  s.rules.sites = sites(two_blocks());
  nodes(8);
  const JobId a = s.submit(wide(3));
  const JobId b = s.submit(wide(3));
  const JobId c = s.submit(wide(3));
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n1", "n2", "n3"));
  EXPECT_THAT(on(b), ElementsAre("n5", "n6", "n7"));
  EXPECT_THAT(on(c), IsEmpty());
  const sched::Explanation e = why(c);
  ASSERT_EQ(e.blockers.size(), 1U);
  EXPECT_EQ(e.blockers[0].word, "Resources");
  s.report("n1", a, true);
  s.report("n2", a, true);
  s.report("n3", a, true);
  s.schedule();
  EXPECT_THAT(on(c), ElementsAre("n1", "n2", "n3"));
}

TEST_F(Placed, AJobLargerThanABlockTakesAGroupInBlockOrder) {
  s.rules.sites = sites(two_blocks());
  nodes(8);
  const JobId a = s.submit(wide(8));
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"));
}

TEST_F(Placed, TasksFollowTheOrderOfTheNetwork) {
  sched::Sites crossed = two_blocks();
  std::swap(crossed.topology.blocks[0], crossed.topology.blocks[1]);
  s.rules.sites = sites(crossed);
  nodes(8);
  const JobId a = s.submit(wide(8));
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n5", "n6", "n7", "n8", "n1", "n2", "n3", "n4"));
}

TEST_F(Placed, SegmentsAreInsideBlocks) {
  s.rules.sites = sites(two_blocks());
  nodes(8);
  JobSpec odd = wide(5);
  odd.segment = 2;
  EXPECT_THAT(s.submit_refused(odd).message, HasSubstr("--segment 2 does not divide the 5 nodes of the job"));
  JobSpec large = wide(6);
  large.segment = 6;
  EXPECT_THAT(s.submit_refused(large).message, HasSubstr("at most 4"));
  const JobId a = s.submit(wide(3));
  s.schedule();
  JobSpec halves = wide(4);
  halves.segment = 2;
  const JobId b = s.submit(halves);
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n1", "n2", "n3"));
  EXPECT_THAT(on(b), ElementsAre("n5", "n6", "n7", "n8"));
  // One node is left in the first block: no segment of two fits.
  JobSpec pair = wide(2);
  pair.segment = 2;
  const JobId c = s.submit(pair);
  s.schedule();
  EXPECT_THAT(on(c), IsEmpty());
}

TEST_F(Placed, ASegmentNeedsBlocks) {
  nodes(4);
  JobSpec spec = wide(2);
  spec.segment = 2;
  EXPECT_THAT(s.submit_refused(spec).message, HasSubstr("needs a network of blocks"));
}

TEST_F(Placed, TheSmallestSwitchThatFitsIsFilledBest) {
  s.rules.sites = sites(three_leaves());
  nodes(8);
  const JobId a = s.submit(wide(2));  // a leaf of two fits best
  const JobId b = s.submit(wide(3));
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n1", "n2"));
  EXPECT_THAT(on(b), ElementsAre("n3", "n4", "n5"));
  const JobId c = s.submit(wide(1));  // the leaf with fewest free nodes
  s.schedule();
  EXPECT_THAT(on(c), ElementsAre("n6"));
}

TEST_F(Placed, ALimitOfSwitchesWaitsAndLapses) {
  s.rules.sites = sites(three_leaves());
  nodes(8);
  s.submit(wide(2));
  s.submit(wide(3));
  s.schedule();
  JobSpec near = wide(3);
  near.switches = 1;
  near.switches_wait = Duration::from_s(600);
  const JobId c = s.submit(near);
  s.schedule();
  EXPECT_THAT(on(c), IsEmpty());
  const sched::Explanation e = why(c);
  ASSERT_FALSE(e.blockers.empty());
  EXPECT_EQ(e.blockers[0].word, "Resources");
  EXPECT_THAT(e.blockers[0].text, HasSubstr("no 1 leaf switch out of"));
  EXPECT_THAT(e.blockers[0].text, HasSubstr("any number of switches will do in"));
  ASSERT_FALSE(e.changes.empty());
  EXPECT_EQ(e.changes[0].option, "--switches");
  EXPECT_EQ(e.planned_start, s.state.jobs.at(c).eligible_time + Duration::from_s(600));
  const Instant later = s.state.now + Duration::from_s(601);
  const sched::Plan plan = engine::plan(s.state, s.rules, {}, later);
  ASSERT_EQ(plan.placements.size(), 1U);
  EXPECT_EQ(plan.placements[0].shares.size(), 3U);
}

TEST_F(Placed, APlanThatBreaksTheNetworkIsRefused) {
  s.rules.sites = sites(two_blocks());
  nodes(8);
  const JobId a = s.submit(wide(2));
  sched::Plan plan = engine::plan(s.state, s.rules, {}, s.state.now);
  ASSERT_EQ(plan.placements.size(), 1U);
  plan.placements[0].shares[1].node = NodeIndex{4};
  const engine::Decision d = s.run(ApplyPlan{plan.placements});
  EXPECT_EQ(d.matched, 0U);
  ASSERT_EQ(d.notes.size(), 1U);
  EXPECT_THAT(d.notes[0], HasSubstr("not in one group of blocks"));
  EXPECT_THAT(on(a), IsEmpty());
}

TEST_F(Placed, FeaturesAreAFilter) {
  sched::Sites f;
  f.features["a100"] = {"n2", "n3"};
  f.features["nvlink"] = {"n3"};
  s.rules.sites = sites(f);
  nodes(4);
  JobSpec spec = wide(1);
  spec.constraint = "a100&nvlink";
  const JobId a = s.submit(spec);
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n3"));
  const JobId b = s.submit(spec);
  s.schedule();
  EXPECT_THAT(on(b), IsEmpty());
  const sched::Explanation e = why(b);
  ASSERT_FALSE(e.blockers.empty());
  EXPECT_THAT(e.blockers[0].text, HasSubstr("3 without the features of a100&nvlink"));
  spec.constraint = "a10";
  EXPECT_THAT(s.submit_refused(spec).message, HasSubstr("no node has the feature a10: did you mean a100?"));
  spec.constraint = "a100&";
  EXPECT_THAT(s.submit_refused(spec).message, HasSubstr("at position 6"));
  JobSpec two = wide(2);
  two.constraint = "nvlink";
  EXPECT_THAT(s.submit_refused(two).message, HasSubstr("can never run"));
}

TEST_F(Placed, CountsAndChoicesBindNodesToEachOther) {
  sched::Sites f;
  f.features["rack1"] = {"n1", "n2"};
  f.features["rack2"] = {"n3", "n4"};
  f.features["disk"] = {"n4"};
  s.rules.sites = sites(f);
  nodes(5);
  JobSpec counted = wide(2);
  counted.constraint = "disk*1";
  const JobId a = s.submit(counted);
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n1", "n4"));
  JobSpec same = wide(2);
  same.constraint = "[rack1|rack2]";
  const JobId b = s.submit(same);
  s.schedule();
  EXPECT_THAT(on(b), IsEmpty());  // n2 and n3 are in different racks
  s.report("n1", a, true);
  s.schedule();
  EXPECT_THAT(on(b), ElementsAre("n1", "n2"));
  counted.constraint = "disk*3";
  EXPECT_THAT(s.submit_refused(counted).message, HasSubstr("counts more nodes"));
}

TEST_F(Placed, ANodeBringsItsOwnFeatures) {
  NodeRegistration r = registration("n1", hardware(2));
  r.features = {"big"};
  s.run(RegisterNode{r});
  s.node("n2", 2);
  JobSpec spec = job(1, 1);
  spec.constraint = "big";
  const JobId a = s.submit(spec);
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n1"));
  r.features = {"bad name"};
  EXPECT_THAT(s.refused(RegisterNode{r}).message, HasSubstr("features"));
}

TEST_F(Placed, SpreadTakesTheEmptiestNodes) {
  nodes(3, 4);
  const JobId a = s.submit(job(1, 1));
  s.schedule();
  const JobId packed = s.submit(job(1, 1));
  s.schedule();
  EXPECT_EQ(on(packed), on(a));
  s.rules.queues[0].spread = true;
  const JobId spread1 = s.submit(job(1, 1));
  s.schedule();
  const JobId spread2 = s.submit(job(1, 1));
  s.schedule();
  EXPECT_THAT(on(spread1), ElementsAre("n2"));
  EXPECT_THAT(on(spread2), ElementsAre("n3"));
}

TEST_F(Placed, JobsWithoutGpusGoWhereFewestGpusAreFree) {
  s.node("n1", 4, 4);
  s.node("n2", 4, 2);
  s.node("n3", 4, 0);
  const JobId cpu = s.submit(job(1, 1));
  s.schedule();
  EXPECT_THAT(on(cpu), ElementsAre("n3"));
  JobSpec gpu = job(1, 1);
  gpu.gpus_per_node = 1;
  const JobId g1 = s.submit(gpu);
  s.schedule();
  EXPECT_THAT(on(g1), ElementsAre("n2"));  // the node that is smaller, so the larger one stays whole
  const JobId g2 = s.submit(gpu);
  s.schedule();
  EXPECT_THAT(on(g2), ElementsAre("n2"));  // the partly used one
  // An uneven job of several nodes, too: nodes without free GPUs first.
  JobSpec uneven = job(2, 3);
  const JobId u = s.submit(uneven);
  s.schedule();
  EXPECT_THAT(on(u), ElementsAre("n2", "n3"));
}

// Three greedy orders (by place, by room, by GPUs) miss it: n1 and n2 together are the only pair.
TEST_F(Placed, GpusInTotalOnFewNodesAreFoundWhereNoOrderFindsThem) {
  s.node("n1", 4, 3);
  s.node("n2", 4, 3);
  s.node("n3", 6, 1);
  s.node("n4", 1, 4);
  JobSpec spec = job(2, 8);
  spec.nodes_max = 2;
  spec.gpus = 6;
  const JobId a = s.submit(spec);
  s.schedule();
  EXPECT_THAT(on(a), ElementsAre("n1", "n2"));
}

}  // namespace
}  // namespace muster::testing
