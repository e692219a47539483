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

}  // namespace
}  // namespace muster::testing
