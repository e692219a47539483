#include "lib/model/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string refusal(Topology t) {
  const Status status = check_topology(t);
  return status.ok() ? "" : status.error().message;
}

Topology tree(std::vector<Topology::Switch> switches) {
  Topology t;
  t.kind = TopologyKind::kTree;
  t.switches = std::move(switches);
  return t;
}
Topology blocks(std::vector<Topology::Block> list, std::vector<std::uint32_t> sizes = {}) {
  Topology t;
  t.kind = TopologyKind::kBlock;
  t.blocks = std::move(list);
  t.block_sizes = std::move(sizes);
  return t;
}

TEST(Topology, ATreeHasNeitherCyclesNorNodesTwice) {
  EXPECT_EQ(refusal(tree({{"leaf1", {"n1"}, {}, ""}, {"leaf2", {"n2"}, {}, ""}, {"top", {}, {"leaf1", "leaf2"}, ""}})),
            "");
  EXPECT_THAT(refusal(tree({{"a", {}, {"b"}, "f:1:2"}, {"b", {}, {"a"}, "f:3:4"}})), HasSubstr("below itself"));
  EXPECT_THAT(refusal(tree({{"a", {}, {"a"}, "f:1:2"}})), HasSubstr("[switch.a] at f:1:2: it is below itself"));
  EXPECT_THAT(refusal(tree({{"leaf1", {"n1"}, {}, ""}, {"leaf2", {"n1"}, {}, "f:3:4"}})),
              HasSubstr("[switch.leaf2] at f:3:4: node n1 is in switch leaf1 already"));
  EXPECT_THAT(refusal(tree({{"leaf1", {"n1"}, {}, ""}, {"a", {}, {"leaf1"}, ""}, {"b", {}, {"leaf1"}, "f:9:1"}})),
              HasSubstr("[switch.b] at f:9:1: switch leaf1 is below switch a already"));
  EXPECT_THAT(refusal(tree({{"leaf1", {"n1"}, {}, ""}, {"top", {}, {"leaf2"}, ""}})),
              HasSubstr("unknown switch leaf2: did you mean leaf1?"));
  EXPECT_THAT(refusal(tree({{"leaf1", {}, {}, ""}})), HasSubstr("neither nodes nor switches"));
  EXPECT_THAT(refusal(tree({})), HasSubstr("there is no switch"));
}

TEST(Topology, AChainOfSwitchesHasALimit) {
  std::vector<Topology::Switch> chain = {{"s0", {"n1"}, {}, ""}};
  for (std::size_t i = 1; i <= kTopologyHeightMax + 1; ++i) {
    chain.push_back({"s" + std::to_string(i), {}, {"s" + std::to_string(i - 1)}, ""});
  }
  EXPECT_THAT(refusal(tree(chain)), HasSubstr("switches are above it"));
  chain.pop_back();
  EXPECT_EQ(refusal(tree(chain)), "");
}

TEST(Topology, BlocksHaveSizesInPowersOfTwo) {
  Topology t = blocks({{"b1", {"n1", "n2"}, ""}, {"b2", {"n3", "n4"}, ""}, {"b3", {"n5", "n6", "n7"}, ""}});
  ASSERT_TRUE(check_topology(t).ok());
  EXPECT_THAT(t.block_sizes, ElementsAre(2, 4));
  EXPECT_EQ(refusal(blocks({{"b1", {"n1", "n2"}, ""}}, {2, 8})), "");
  EXPECT_THAT(refusal(blocks({{"b1", {"n1", "n2"}, ""}}, {2, 6})),
              HasSubstr("has 6: each must be the first one times"));
  EXPECT_THAT(refusal(blocks({{"b1", {"n1", "n2"}, ""}}, {3})), HasSubstr("smallest block has 2"));
  EXPECT_THAT(refusal(blocks({{"b1", {"n1"}, ""}, {"b2", {"n1"}, "f:2:1"}})),
              HasSubstr("[block.b2] at f:2:1: node n1 is in block b1 already"));
  EXPECT_THAT(refusal(blocks({{"b1", {}, "f:2:1"}})), HasSubstr("it has no nodes"));
}

}  // namespace
}  // namespace muster
