#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "noded/discover/discover.h"
#include "tests/support/topologies.h"

namespace muster::noded {
namespace {

IndexSet all_threads(const NodeHardware& hardware) {
  IndexSet out;
  for (const Core& core : hardware.cores) {
    EXPECT_FALSE(out.intersects(core.threads)) << "a hardware thread is in two cores";
    out |= core.threads;
  }
  return out;
}

void check(const NodeHardware& hardware) {
  ASSERT_FALSE(hardware.cores.empty());
  all_threads(hardware);
  for (const Core& core : hardware.cores) {
    EXPECT_FALSE(core.threads.empty());
    EXPECT_LT(core.package, hardware.packages);
    EXPECT_LT(core.numa, hardware.numa_nodes);
  }
  std::set<std::string> addresses;
  std::set<std::uint32_t> numbers;
  for (const Gpu& gpu : hardware.gpus) {
    EXPECT_TRUE(addresses.insert(gpu.pci_address).second) << gpu.pci_address << " is there twice";
    EXPECT_TRUE(numbers.insert(gpu.vendor_index).second);
    EXPECT_LT(gpu.numa, hardware.numa_nodes);
  }
  EXPECT_GT(hardware.mem_mib, 0U);
}

TEST(Discover, FindsThisMachine) {
  auto hardware = discover("", 0);
  ASSERT_TRUE(hardware.ok()) << hardware.error().message;
  check(*hardware);
  EXPECT_FALSE(hardware->pretended);
}

TEST(Discover, ASyntheticMachineHas64GibUnlessItSaysOtherwise) {
  auto hardware = discover("package:2 core:16 pu:1", 0);
  ASSERT_TRUE(hardware.ok()) << hardware.error().message;
  check(*hardware);
  EXPECT_TRUE(hardware->pretended);
  EXPECT_EQ(hardware->packages, 2U);
  EXPECT_EQ(hardware->cores.size(), 32U);
  EXPECT_EQ(hardware->cores[17].package, 1U);
  EXPECT_EQ(hardware->mem_mib, 64U << 10U);
  EXPECT_EQ(discover("package:2 core:16 pu:1", 1234)->mem_mib, 1234U);
  EXPECT_EQ(discover("package:2 [numa(memory=8589934592)] core:4 pu:2", 0)->mem_mib, 16U << 10U);
}

TEST(Discover, PretendedGpusAreSpreadOverNumaNodes) {
  auto hardware = discover("package:2 [numa] core:4 pu:2+gpu:4", 0);
  ASSERT_TRUE(hardware.ok()) << hardware.error().message;
  check(*hardware);
  EXPECT_EQ(hardware->numa_nodes, 2U);
  ASSERT_EQ(hardware->gpus.size(), 4U);
  EXPECT_EQ(hardware->gpus[0].numa, 0U);
  EXPECT_EQ(hardware->gpus[1].numa, 0U);
  EXPECT_EQ(hardware->gpus[2].numa, 1U);
  EXPECT_EQ(hardware->gpus[3].numa, 1U);
  EXPECT_EQ(hardware->cores[0].threads.count(), 2U);
}

TEST(Discover, BadDescriptionsAreRefusedByName) {
  for (const std::string text : {"package:2 core:", "no such thing", "/no/such/file.xml",
                                 "package:2 core:4 pu:1+gpu:-1", "+gpu:2", "package:2 core:4 pu:1+gpu:99999"}) {
    auto hardware = discover(text, 0);
    ASSERT_FALSE(hardware.ok()) << text;
    EXPECT_NE(hardware.error().message.find("topology '"), std::string::npos) << hardware.error().message;
  }
  char path[] = "/tmp/muster-topology.XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  close(fd);
  std::ofstream(path) << "<?xml version=\"1.0\"?>\n<topology><object type=\"Machine\"";
  EXPECT_FALSE(discover(path, 0).ok());
  std::ofstream(path) << "not xml";
  EXPECT_FALSE(discover(path, 0).ok());
  unlink(path);
}

TEST(Discover, LoadsRecordedMachines) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  for (const std::string& file : test::topology_files(test::recorded_machines())) {
    SCOPED_TRACE(file);
    auto hardware = discover(file, 0);
    ASSERT_TRUE(hardware.ok()) << hardware.error().message;
    check(*hardware);
  }
}

}  // namespace
}  // namespace muster::noded
