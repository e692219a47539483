// What a site takes away from a node's hardware, and how its GPUs are divided.
#include "noded/discover/site_choices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "noded/discover/topology.h"

namespace muster::noded {
namespace {

using testing::HasSubstr;

// Two packages of two L3s with two cores each; a GPU in each package.
NodeTopology machine() {
  auto found = discover_topology("package:2 numa:1 l3:2 core:2 pu:2+gpu:2", 0);
  EXPECT_TRUE(found.ok()) << found.error().message;
  return *found;
}

std::string error_of(const SiteChoices& choices) {
  const auto made = with_site_choices(machine(), choices);
  return made.ok() ? "" : made.error().message;
}

TEST(SiteChoices, NothingChosenChangesNothing) {
  EXPECT_EQ(*with_site_choices(machine(), {}), machine());
}

TEST(SiteChoices, SystemCoresAreGoneForJobs) {
  const auto made = with_site_choices(machine(), {.system_cores = 5});
  ASSERT_TRUE(made.ok()) << made.error().message;
  std::string threads;
  for (const TopologyCore& core : made->cores) {
    threads += core.threads.to_string() + " ";
  }
  EXPECT_EQ(threads, "6-7 10-11 14-15 ") << "the first core of each L3, and the second one of the first";
  EXPECT_EQ(made->gpus[0].cores.to_string(), "0");
  EXPECT_EQ(made->gpus[1].cores.to_string(), "1-2");
  EXPECT_EQ(check_node_topology(*made), "");
  EXPECT_THAT(error_of({.system_cores = 8}), HasSubstr("[node] system_cores: 8 cores for the system leave none"));
}

TEST(SiteChoices, SiblingsStayIdle) {
  const auto made = with_site_choices(machine(), {.leave_siblings = true});
  ASSERT_TRUE(made.ok());
  ASSERT_EQ(made->cores.size(), 8U);
  EXPECT_EQ(made->cores[0].threads.to_string(), "0");
  EXPECT_EQ(made->cores[7].threads.to_string(), "14");
}

TEST(SiteChoices, GpusAreDividedAlike) {
  const auto made = with_site_choices(machine(), {.gpu_partitions = "1g.10gb*3", .gpu_partition_uuids = "a,b,c,d,e,f"});
  ASSERT_TRUE(made.ok()) << made.error().message;
  ASSERT_EQ(made->gpus.size(), 6U);
  EXPECT_EQ(made->gpus[2].pci_address, made->gpus[0].pci_address);
  EXPECT_NE(made->gpus[3].pci_address, made->gpus[0].pci_address);
  EXPECT_EQ(made->gpus[4].partition, "1g.10gb");
  EXPECT_EQ(made->gpus[4].uuid, "e");
  EXPECT_EQ(made->gpus[4].vendor_index, 4U);
  EXPECT_EQ(made->gpus[4].cores, machine().gpus[1].cores);
  EXPECT_EQ(made->link(0, 2).tier, PcieTier::kSameDevice);
  EXPECT_EQ(made->link(0, 3), machine().link(0, 1));
  EXPECT_EQ(check_node_topology(*made), "");
}

TEST(SiteChoices, WhatCannotBeIsRefusedByItsKey) {
  for (const std::string text : {"1g.10gb", "*7", "x*", "x*0", "x*5000", "x*2049"}) {
    EXPECT_THAT(error_of({.gpu_partitions = text}), HasSubstr("[node] gpu_partitions")) << text;
  }
  EXPECT_THAT(error_of({.gpu_partitions = "cpx*2", .gpu_partition_uuids = "a,b,c"}),
              HasSubstr("gpu_partition_uuids: it names 3 and the node has 4"));
  EXPECT_THAT(error_of({.gpu_partition_uuids = "a"}), HasSubstr("gpu_partitions has none"));
  const auto none = with_site_choices(*discover_topology("package:1 core:2 pu:1", 0), {.gpu_partitions = "cpx*2"});
  EXPECT_THAT(none.error().message, HasSubstr("the node has no GPU"));
}

}  // namespace
}  // namespace muster::noded
