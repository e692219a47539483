// Jobs that require their tasks near their GPUs.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/support/engine_scenario.h"
#include "tests/support/machine.h"

namespace muster::testing {
namespace {

using ::testing::HasSubstr;

// Two packages of four cores; GPUs 0 and 1 beside the second, 2 and 3 beside the first.
NodeTopology crossed() {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 4});
  m.gpu("10", "4-7").gpu("20", "4-7").gpu("30", "0-3").gpu("40", "0-3");
  return m.topology();
}

// One package of eight cores with a GPU.
NodeTopology single() {
  test::Machine m({.packages = 1, .numa = 1, .l3 = 1, .cores = 8});
  m.gpu("10", "0-7");
  return m.topology();
}

class Near : public ::testing::Test {
 protected:
  Near() { add("n1", crossed()); }
  ~Near() override { s.drop_effects(); }
  void add(const std::string& name, const NodeTopology& topology) {
    NodeRegistration r = registration(name, hardware_of(topology));
    r.topology = topology;
    s.run(RegisterNode{r});
  }
  static JobSpec near(std::uint32_t tasks, std::uint32_t cpus, std::uint32_t gpus) {
    JobSpec spec = job(1, tasks, cpus);
    spec.gpus_per_node = gpus;
    spec.locality = Locality::kRequire;
    return spec;
  }
  const Job& find(JobId id) { return *engine::find_job(s.state, id); }
  const NodeShare& share_of(JobId id) { return std::get<Active>(find(id).phase).nodes.front().share; }
  JobId start(const JobSpec& spec) {
    const JobId id = s.submit(spec);
    EXPECT_EQ(s.schedule(), 1U);
    return id;
  }
  // One core is left in each package.
  void leave_a_core_in_each() {
    JobSpec filling = near(1, 3, 1);
    filling.locality = Locality::kPrefer;
    first_ = start(filling);
    second_ = start(filling);
    EXPECT_NE(share_of(first_).cores.contains(0), share_of(second_).cores.contains(0)) << "one in each package";
  }
  std::string why(JobId id) {
    const sched::Explanation explanation = engine::Explainer(s.state, s.rules, s.now()).explain(find(id));
    return explanation.blockers.empty() ? "" : explanation.blockers.front().text;
  }

  Scenario s;
  JobId first_;
  JobId second_;
};

TEST_F(Near, StartsWhereItsCoresAreBesideItsGpus) {
  const JobId id = start(near(2, 2, 2));
  EXPECT_EQ(share_of(id).cores.count(), 4U);
  const bool second_package = share_of(id).gpus.contains(0);
  EXPECT_EQ(share_of(id).cores, IndexSet::range(second_package ? 4 : 0, 4));
}

TEST_F(Near, WaitsAlthoughTheNumbersWouldDo) {
  leave_a_core_in_each();
  const JobId id = s.submit(near(1, 2, 1));
  EXPECT_EQ(s.schedule(), 0U) << "its two cores would be in two packages";
  EXPECT_THAT(why(id),
              HasSubstr("--locality=require: 1 of 1 task would have cores beyond the NUMA nodes of their GPUs"));
  const auto changes = engine::Explainer(s.state, s.rules, s.now()).explain(find(id)).changes;
  EXPECT_TRUE(std::any_of(changes.begin(), changes.end(), [](const sched::SmallerRequest& c) {
    return c.option == "--locality" && c.value == "prefer";
  })) << "and what would start it";
  JobSpec anywhere = near(1, 2, 1);
  anywhere.locality = Locality::kPrefer;
  anywhere.time_limit = Duration::from_s(600);  // it ends before the other one is promised the node
  const JobId other = s.submit(anywhere);
  EXPECT_EQ(s.schedule(), 1U) << "who only prefers it starts";
  s.report("n1", other, true);
  EXPECT_EQ(s.schedule(), 0U);
  s.report("n1", first_, true);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(find(id).is_active());
}

TEST_F(Near, IsPromisedWholeNodes) {
  leave_a_core_in_each();
  const JobId id = s.submit(near(1, 2, 1));
  s.plan_all();
  EXPECT_EQ(find(id).promised_start, std::get<Active>(find(second_).phase).start_time + Duration::from_s(3600))
      << "when all that runs there has ended";
  ASSERT_EQ(find(id).promised_place.size(), 1U);
  EXPECT_EQ(find(id).promised_place.front().cores, 8U);
}

TEST_F(Near, GoesToTheNodeThatCan) {
  add("n2", single());
  const JobId id = start(near(1, 6, 1));
  EXPECT_EQ(share_of(id).node, NodeIndex{1}) << "n1 has six cores, but no six beside a GPU";
}

TEST_F(Near, WhatNoNodeCanEverDoIsRefused) {
  EXPECT_THAT(s.submit_refused(near(1, 5, 1)).message,
              HasSubstr("--locality=require: 1 of 1 task would have cores beyond the NUMA nodes of their GPUs"));
}

TEST_F(Near, AWholeNodeDoesWhenWhatWasAskedForIsNear) {
  JobSpec whole = near(2, 3, 2);
  whole.exclusive = true;
  EXPECT_EQ(share_of(start(whole)).cores.count(), 8U);
}

TEST_F(Near, ANodeOfWhichNothingIsKnownDoesNotDo) {
  s.run(RegisterNode{registration("n1", hardware(8, 4))});
  EXPECT_THAT(s.submit_refused(near(1, 1, 1)).message, HasSubstr("it is not known of node n1 which cores are near"));
}

TEST_F(Near, JobsWithoutGpusAreNearToAll) {
  JobSpec spec = job(1, 1, 6);
  spec.locality = Locality::kRequire;
  EXPECT_EQ(share_of(start(spec)).cores.count(), 6U);
}

TEST_F(Near, APlanThatWouldTakeFarCoresIsNotApplied) {
  leave_a_core_in_each();
  const JobId id = s.submit(near(1, 2, 1));
  const NodeShare share{.node = NodeIndex{0},
                        .cores = s.state.ledger.nodes()[0].free_cores,
                        .gpus = IndexSet::range(0, 1),
                        .mem_mib = 0,
                        .tasks = 1};
  const engine::Decision decision = s.run(ApplyPlan{{Placement{id, 0, {share}}}});
  EXPECT_EQ(decision.matched, 0U);
  ASSERT_EQ(decision.notes.size(), 1U);
  EXPECT_THAT(decision.notes.front(), HasSubstr("its tasks would not be near their GPUs there"));
}

TEST_F(Near, SeveralStartInOnePassWhereThereIsRoom) {
  std::vector<JobId> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(s.submit(near(1, 2, 1)));
  }
  // What a pass has taken from a node is chosen when its plan is applied: the next one sees it.
  for (int i = 0; i < 4; ++i) {
    s.schedule();
  }
  for (const JobId id : ids) {
    ASSERT_TRUE(find(id).is_active());
    const bool second_package = share_of(id).gpus.contains(0) || share_of(id).gpus.contains(1);
    EXPECT_TRUE(share_of(id).cores.is_subset_of(IndexSet::range(second_package ? 4 : 0, 4)));
  }
}

TEST(GpuPartitions, FillTheFullestGpuFirst) {
  Scenario s;
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 4});
  m.gpu("10", "0-3", "cpx").gpu("10", "0-3", "cpx").gpu("20", "4-7", "cpx").gpu("20", "4-7", "cpx");
  NodeRegistration r = registration("n1", hardware_of(m.topology()));
  r.topology = m.topology();
  s.run(RegisterNode{r});
  JobSpec one = job(1, 1, 1);
  one.gpus_per_node = 1;
  std::vector<JobId> ids;
  const auto gpus_of_next = [&] {
    ids.push_back(s.submit(one));
    EXPECT_EQ(s.schedule(), 1U);
    return std::get<Active>(engine::find_job(s.state, ids.back())->phase).nodes.front().share.gpus;
  };
  const IndexSet first = gpus_of_next();
  const IndexSet second = gpus_of_next();
  EXPECT_EQ(first.contains(0) || first.contains(1), second.contains(0) || second.contains(1)) << "of one GPU";
  EXPECT_FALSE(gpus_of_next().intersects(first | second));
  s.drop_effects();
}

PlacementProof proof_of(std::uint32_t tasks, std::string fault = "") {
  PlacementProof proof;
  proof.tasks = tasks;
  proof.faults = fault.empty() ? 0 : 1;
  proof.fault = std::move(fault);
  proof.list.emplace_back();
  proof.list.back().cpus = IndexSet::range(0, 2);
  return proof;
}

TEST(Proofs, AreKeptWithTheJob) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 1U);
  const auto say = [&](bool ended, std::optional<PlacementProof> proof) {
    AttemptReport report{{id, Attempt{1}}, ended, {}};
    report.proof = std::move(proof);
    return s.run(ReportAttempts{"n1", {report}}).facts.size();
  };
  const auto kept = [&] { return std::get<Active>(engine::find_job(s.state, id)->phase).nodes.front().proof; };
  EXPECT_EQ(say(false, proof_of(1)), 2U) << "it runs, and where";
  EXPECT_EQ(kept(), proof_of(1));
  EXPECT_EQ(say(false, proof_of(1)), 0U) << "said again";
  EXPECT_EQ(say(false, std::nullopt), 0U) << "the daemon was restarted, and has forgotten";
  EXPECT_EQ(kept(), proof_of(1));
  EXPECT_EQ(say(false, proof_of(0)), 0U) << "and has begun anew";
  EXPECT_EQ(say(false, proof_of(3, "task 2 of step 0: CPUs 1 in place of 2")), 1U);
  s.drop_effects();
  say(true, proof_of(4, "task 2 of step 0: CPUs 1 in place of 2"));
  const auto records = s.take<RecordHistory>();
  ASSERT_EQ(records.size(), 1U);
  ASSERT_EQ(records.front().summary.proofs.size(), 1U);
  EXPECT_EQ(records.front().summary.proofs.front().tasks, 4U);
  EXPECT_EQ(records.front().summary.proofs.front().fault, "task 2 of step 0: CPUs 1 in place of 2");
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
