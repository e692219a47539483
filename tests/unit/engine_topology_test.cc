// How nodes hang together, as the controller comes to know it.
#include <gmock/gmock.h>

#include "tests/support/engine_scenario.h"
#include "tests/support/machine.h"

namespace muster::testing {
namespace {

using ::testing::HasSubstr;

NodeRegistration of(const std::string& name, const NodeTopology& topology) {
  NodeRegistration r = registration(name, hardware_of(topology));
  r.topology = topology;
  return r;
}

NodeTopology named(NodeTopology t, int number) {
  t.gpus[0].uuid = "GPU-" + std::to_string(number);
  t.mem_mib += static_cast<std::uint64_t>(number);
  return t;
}

TEST(NodeClasses, EqualNodesShareOneObject) {
  Scenario s;
  for (int i = 1; i <= 3; ++i) {
    s.run(RegisterNode{of("n" + std::to_string(i), named(test::dgx1v().topology(), i))});
  }
  s.run(RegisterNode{of("other", test::bridged_pairs().topology())});
  EXPECT_EQ(s.state.node_classes.size(), 2U);
  const auto& nodes = s.state.ledger.nodes();
  EXPECT_EQ(nodes[0].node_class.get(), nodes[2].node_class.get());
  EXPECT_NE(nodes[0].node_class.get(), nodes[3].node_class.get());
  EXPECT_EQ(s.state.nodes[1].hardware.gpus[0].uuid, "GPU-2");
  EXPECT_EQ(of_node(nodes[1].node_class.get()->topology(), s.state.nodes[1].hardware),
            named(test::dgx1v().topology(), 2));
}

TEST(NodeClasses, AClassThatNoNodeHasIsForgotten) {
  Scenario s;
  s.run(RegisterNode{of("n1", test::dgx1v().topology())});
  s.run(RegisterNode{of("n2", test::dgx1v().topology())});
  s.run(RegisterNode{of("n1", test::bridged_pairs().topology())});
  EXPECT_EQ(s.state.node_classes.size(), 2U);
  s.run(RegisterNode{of("n2", test::bridged_pairs().topology())});
  EXPECT_EQ(s.state.node_classes.size(), 1U);
  // Of a release that does not say.
  s.run(RegisterNode{registration("n1", hardware(4))});
  EXPECT_EQ(s.state.ledger.nodes()[0].node_class.get(), nullptr);
  s.run(RegisterNode{registration("n2", hardware(4))});
  EXPECT_TRUE(s.state.node_classes.empty());
}

TEST(NodeClasses, AreTheSameAfterTheIndexesAreMadeAnew) {
  Scenario s;
  s.run(RegisterNode{of("n1", test::dgx1v().topology())});
  s.node("n2", 4);
  engine::State again = s.state;
  engine::rebuild_indexes(again);
  EXPECT_EQ(again, s.state);
  EXPECT_NE(again.ledger.nodes()[0].node_class.get(), nullptr);
}

TEST(NodeClasses, ATopologyThatIsNotOfTheHardwareIsRefused) {
  Scenario s;
  const NodeTopology t = test::dgx1v().topology();
  NodeRegistration r = of("n1", t);
  r.hardware.cores.pop_back();
  EXPECT_THAT(s.refused(RegisterNode{r}).message, HasSubstr("node n1 registered with a topology that cannot be"));
  r = of("n1", t);
  r.hardware.cores[0].threads = IndexSet::range(200, 2);
  EXPECT_THAT(s.refused(RegisterNode{r}).message, HasSubstr("its core 0 has other hardware threads"));
  r = of("n1", t);
  r.topology->links.pop_back();
  EXPECT_THAT(s.refused(RegisterNode{r}).message, HasSubstr("its link matrix is not square"));
  r = of("n1", t);
  r.topology->cores[3].numa = 9;
  EXPECT_THAT(s.refused(RegisterNode{r}).message, HasSubstr("that is not there"));
  EXPECT_TRUE(s.state.nodes.empty());
}

// Two packages of four cores; GPUs 0 and 1 beside the second, 2 and 3 beside the first.
NodeTopology crossed() {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 4});
  m.gpu("10", "4-7").gpu("20", "4-7").gpu("30", "0-3").gpu("40", "0-3");
  return m.topology();
}

class Shares : public ::testing::Test {
 protected:
  Shares() { s.run(RegisterNode{of("n1", crossed())}); }
  ~Shares() override { s.drop_effects(); }
  static JobSpec with_gpus(std::uint32_t tasks, std::uint32_t cpus, std::uint32_t gpus) {
    JobSpec spec = job(1, tasks, cpus);
    spec.gpus_per_node = gpus;
    return spec;
  }
  // "0-1 2": cores and GPUs of the job that starts now.
  std::string started(const JobSpec& spec) {
    const JobId id = s.submit(spec);
    EXPECT_EQ(s.schedule(), 1U);
    const NodeShare& share = std::get<Active>(engine::find_job(s.state, id)->phase).nodes.front().share;
    return share.cores.to_string() + (share.gpus.empty() ? "" : " " + share.gpus.to_string());
  }
  Scenario s;
};

TEST_F(Shares, GpusAndCoresAreChosenTogether) {
  EXPECT_EQ(started(with_gpus(1, 2, 1)), "4-5 0");
  EXPECT_EQ(started(with_gpus(1, 2, 1)), "6-7 1") << "the half that is in use already";
  EXPECT_EQ(started(with_gpus(2, 1, 2)), "0-1 2-3");
  EXPECT_EQ(started(job(1, 2)), "2-3");
}

TEST_F(Shares, JobsWithoutGpusStayAwayFromThem) {
  EXPECT_EQ(started(with_gpus(1, 1, 2)), "4 0-1");
  EXPECT_EQ(started(job(1, 3)), "5-7") << "no free GPU is beside these";
}

TEST_F(Shares, ANodeWithoutTopologyGivesItsLowest) {
  s.run(RegisterNode{registration("n1", hardware(8, 4))});
  EXPECT_EQ(started(with_gpus(1, 2, 1)), "0-1 0");
}

TEST_F(Shares, WholeNodesAreTakenWhole) {
  JobSpec spec = job(1, 3);
  spec.exclusive = true;
  EXPECT_EQ(started(spec), "0-7 0-3");
}

TEST_F(Shares, APlanIsCheckedByItsNumbers) {
  EXPECT_EQ(started(with_gpus(1, 2, 1)), "4-5 0");
  // Made before that start: the cores that it names are taken, as many others are not.
  const JobId id = s.submit(job(1, 4));
  NodeShare share{.node = NodeIndex{0}, .cores = IndexSet::range(4, 4), .gpus = {}, .mem_mib = 0, .tasks = 4};
  EXPECT_EQ(s.run(ApplyPlan{{Placement{id, 0, {share}}}}).matched, 1U);
  const NodeShare& given = std::get<Active>(engine::find_job(s.state, id)->phase).nodes.front().share;
  EXPECT_EQ(given.cores.count(), 4U);
  const JobId more = s.submit(job(1, 3));
  share.cores = IndexSet::range(0, 3);
  EXPECT_EQ(s.run(ApplyPlan{{Placement{more, 0, {share}}}}).matched, 0U) << "two cores are left";
  share.cores = IndexSet::range(0, 1);
  share.mem_mib = UINT64_MAX;
  EXPECT_EQ(s.run(ApplyPlan{{Placement{more, 0, {share}}}}).matched, 0U) << "nor is so much memory";
}

TEST_F(Shares, BindingsAreCheckedAtTheSubmission) {
  const auto refused = [this](void (*change)(JobSpec&)) {
    JobSpec spec = job(1, 2);
    change(spec);
    return s.submit_refused(spec).message;
  };
  EXPECT_THAT(refused([](JobSpec& j) { j.cpu_bind = "core"; }), HasSubstr("--cpu-bind: 'core' is no binding"));
  EXPECT_THAT(refused([](JobSpec& j) { j.gpu_bind = "near"; }), HasSubstr("--gpu-bind: 'near' is no binding"));
  EXPECT_THAT(refused([](JobSpec& j) { j.distribution = "x"; }), HasSubstr("--distribution: 'x' is no"));
  EXPECT_THAT(refused([](JobSpec& j) { j.threads_per_core = 65; }), HasSubstr("--threads-per-core 65 is too large"));
}

}  // namespace
}  // namespace muster::testing
