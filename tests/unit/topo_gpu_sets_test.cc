// Which GPUs belong together, on machines made by hand.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/topo/choose.h"
#include "tests/support/machine.h"

namespace muster::topo {
namespace {

using test::all_free;
using test::chosen;
using test::indices;

constexpr SizeMask kMix = 1U << 1U | 1U << 2U | 1U << 4U;

// The GPUs of one job, asked for once as one task and once as a task for each; both must be the same.
std::string gpus_for(const NodeTopology& t, const std::string& free, std::uint32_t count, SizeMask sizes) {
  const NodeClass node(t);
  NodeUse use = all_free(t);
  use.free_gpus = indices(free);
  std::string out;
  for (const std::uint32_t tasks : {1U, count}) {
    Request request;
    request.tasks = tasks;
    request.gpus = count;
    request.sizes_asked = sizes;
    const std::string gpus = chosen(node, use, request).gpus.to_string();
    if (!out.empty() && gpus != out) {
      return out + " as one task, " + gpus + " as several";
    }
    out = gpus;
  }
  return out;
}

// Those of jobs of `count` GPUs, one after the other, on a node that is empty at first.
std::vector<std::string> in_sequence(const NodeTopology& t, std::uint32_t count) {
  const NodeClass node(t);
  NodeUse use = all_free(t);
  std::vector<std::string> out;
  while (use.free_gpus.count() >= count) {
    Request request;
    request.gpus = count;
    const Choice choice = chosen(node, use, request);
    use.free_cores -= choice.cores;
    use.free_gpus -= choice.gpus;
    out.push_back(choice.gpus.to_string());
  }
  return out;
}

using Sets = std::vector<std::string>;

TEST(GpuSets, LinksOfADgx1) {
  const NodeTopology t = test::dgx1v().topology();
  EXPECT_EQ(gpus_for(t, "0,2,4-5", 2, 0), "4-5");
  EXPECT_EQ(gpus_for(t, "0,4-6", 2, 0), "5-6");
  EXPECT_EQ(gpus_for(t, "0-1,3", 2, 0), "0,3");
  EXPECT_EQ(gpus_for(t, "0-1,4", 2, 0), "0,4");
  EXPECT_EQ(in_sequence(t, 2), (Sets{"0,3", "1-2", "4,7", "5-6"}));
  EXPECT_EQ(in_sequence(t, 4), (Sets{"0-3", "4-7"}));
}

TEST(GpuSets, AMixOfSizesKeepsLargeSetsWhole) {
  const NodeTopology t = test::dgx1v().topology();
  EXPECT_EQ(gpus_for(t, "0-3,5", 1, kMix), "5");
  EXPECT_EQ(gpus_for(t, "0-3,5", 1, 0), "5");
  const NodeTopology pairs = test::bridged_pairs().topology();
  EXPECT_EQ(gpus_for(pairs, "0-2,4", 1, kMix), "1");
  EXPECT_EQ(gpus_for(pairs, "0-2,4", 1, 0), "1");
  EXPECT_EQ(in_sequence(pairs, 2), (Sets{"0,2", "1,3", "4-5", "6-7"}));
}

TEST(GpuSets, EqualGpusGoByPackageSwitchAndAddress) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 16, .threads = 1});
  for (std::uint32_t g = 0; g < 16; ++g) {
    m.gpu(std::string(1, "0123456789abcdef"[g]) + "4", g < 8 ? "0-15" : "16-31");
  }
  for (std::uint32_t a = 0; a < 16; ++a) {
    for (std::uint32_t b = 0; b < a; ++b) {
      m.link(a, b, 150'000);
    }
  }
  const NodeTopology t = m.topology();
  EXPECT_EQ(in_sequence(t, 4), (Sets{"0-3", "4-7", "8-11", "12-15"}));
  EXPECT_EQ(gpus_for(t, "3-9", 4, 0), "3-6");
  // A set that fits into one package is not spread over two.
  EXPECT_EQ(gpus_for(t, "7-11", 4, 0), "8-11");
}

TEST(GpuSets, APartlyUsedDomainComesBeforeAnUntouchedOne) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 8, .threads = 1});
  m.gpu("10", "0-7").gpu("20", "0-7").gpu("30", "8-15").gpu("40", "8-15");
  EXPECT_EQ(gpus_for(m.topology(), "0-1,3", 1, 0), "3");
  EXPECT_EQ(gpus_for(m.topology(), "1-3", 1, 0), "1");
}

TEST(GpuSets, AddressesDecideNotNumbers) {
  test::Machine m({.packages = 1, .numa = 1, .l3 = 1, .cores = 8, .threads = 1});
  m.gpu("40", "0-7").gpu("30", "0-7").gpu("20", "0-7").gpu("10", "0-7");
  EXPECT_EQ(gpus_for(m.topology(), "0-3", 1, 0), "3");
  EXPECT_EQ(gpus_for(m.topology(), "0-2", 2, 0), "1-2");
}

TEST(GpuSets, FreeCoresNearComeBeforeLinks) {
  const NodeTopology t = test::dgx1v().topology();
  const NodeClass node(t);
  NodeUse use = all_free(t);
  use.free_cores = indices("20-39");  // of the second package
  Request request;
  request.gpus = 2;
  request.tasks = 2;
  request.cores_per_task = 4;
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "4,7");
  // Here only one task finds cores in the first package, so the pair is of both.
  use.free_cores = indices("0-3,20-23");
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "0,4");
}

TEST(GpuSets, WhatIsOverStaysTogether) {
  // Three of five: the pair that is left is linked.
  test::Machine m({.packages = 1, .numa = 1, .l3 = 1, .cores = 8, .threads = 1});
  for (const char* bus : {"10", "20", "30", "40", "50"}) {
    m.gpu(bus, "0-7");
  }
  m.link(0, 1, 50'000);
  EXPECT_EQ(gpus_for(m.topology(), "0-4", 3, 0), "0-2");
  m.link(2, 3, 50'000).link(3, 4, 50'000);
  EXPECT_EQ(gpus_for(m.topology(), "0-4", 3, 0), "2-4");
}

TEST(GpuSets, PartitionsFillTheFullestGpu) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 8, .threads = 1});
  for (int i = 0; i < 3; ++i) {
    m.gpu("10", "0-7", "1g.10gb");
  }
  for (int i = 0; i < 3; ++i) {
    m.gpu("90", "8-15", "1g.10gb");
  }
  m.gpu("a0", "8-15", "3g.40gb").gpu("a0", "8-15", "3g.40gb").gpu("b0", "8-15");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  NodeUse use = all_free(t);
  Request request;
  request.gpus = 1;
  request.gpu_partition = "1g.10gb";
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "0");
  use.free_gpus.erase(4);
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "3");
  use.free_gpus.erase(3);
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "5");
  request.gpus = 2;
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "0,5");
  request.gpus = 5;
  const auto result = choose(node, use, request);
  ASSERT_TRUE(std::holds_alternative<Refusal>(result));
  EXPECT_EQ(std::get<Refusal>(result).reason, "5 GPU partitions 1g.10gb wanted, 4 there");
  // Whole GPUs and partitions do not stand in for each other.
  request.gpus = 1;
  request.gpu_partition = "";
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "8");
}

TEST(GpuSets, MoreGpusThanTablesHold) {
  test::Machine m({.packages = 2, .numa = 2, .l3 = 2, .cores = 4, .threads = 1});
  for (std::uint32_t g = 0; g < 32; ++g) {
    const std::uint32_t first = g / 8 * 8;
    std::string bus(1, "0123456789abcdef"[g / 2]);
    bus += g % 2 == 0 ? '1' : '2';
    m.gpu(bus, std::to_string(first) + "-" + std::to_string(first + 7));
  }
  m.link(17, 20, 50'000);
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  Request request;
  request.gpus = 8;
  request.tasks = 4;
  const Choice choice = chosen(node, all_free(t), request);
  EXPECT_EQ(choice.gpus.to_string(), "16-23");  // where two are linked
  EXPECT_EQ(test::show(t, choice.tasks), "16,17->16 18,19->17 20,21->18 22,23->19");
  EXPECT_EQ(choice.cost.distance, 0U);
  NodeUse use = all_free(t);
  use.free_cores = indices("8-15");
  EXPECT_EQ(chosen(node, use, request).gpus.to_string(), "8-15");
}

}  // namespace
}  // namespace muster::topo
