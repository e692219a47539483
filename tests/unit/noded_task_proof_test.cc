// What is said of a task when the kernel has been asked where it is.
#include "noded/task_proof.h"

#include <gtest/gtest.h>

#include "core/topo/node_class.h"
#include "tests/support/machine.h"

namespace muster::noded {
namespace {

// Two packages of two cores with a NUMA node each; a GPU beside each.
class TaskProofTest : public testing::Test {
 protected:
  TaskProofTest() {
    test::Machine machine({.packages = 2, .numa = 1, .l3 = 1, .cores = 2});
    machine.gpu("10", "2-3").gpu("20", "0-1");
    node_.topology = std::make_shared<const NodeTopology>(machine.topology());
    node_.node_class = std::make_shared<const topo::NodeClass>(*node_.topology);
    node_.hardware = hardware_of(*node_.topology);
    node_.hardware.gpus[1].vendor_index = 7;
    found_.cpus = IndexSet::range(0, 2).words();
    found_.memory = IndexSet::range(0, 2).words();
    found_.memory_policy = 0;
    found_.group = 1;
  }
  Verdict verdict() const { return prove(node_, decided_, found_); }

  NodeIdentity node_;
  Decided decided_{.threads = IndexSet::range(0, 2), .gpus = IndexSet::range(1, 1)};
  StepTaskBoundFrame found_;
};

TEST_F(TaskProofTest, WhatIsAsDecidedIsNoFault) {
  const Verdict v = verdict();
  EXPECT_EQ(v.fault, "");
  EXPECT_TRUE(v.proof.as_decided);
  EXPECT_TRUE(v.proof.local_device);
  EXPECT_TRUE(v.proof.memory_local);
  EXPECT_TRUE(v.proof.own_group);
  EXPECT_EQ(v.proof.cpus.to_string(), "0-1");
  EXPECT_EQ(v.proof.gpus.to_string(), "7") << "as the vendor numbers them";
}

TEST_F(TaskProofTest, TheGradeIsThatOfTheKernelsAnswer) {
  found_.cpus = IndexSet::range(1, 2).words();
  const Verdict v = verdict();
  EXPECT_EQ(v.fault, "CPUs 1-2 in place of 0-1");
  EXPECT_FALSE(v.proof.as_decided);
  EXPECT_FALSE(v.proof.local_device) << "CPU 2 is beside the other GPU";
  EXPECT_FALSE(v.proof.local_package);
}

TEST_F(TaskProofTest, MemoryElsewhereIsAFault) {
  found_.memory_policy = 3;  // interleaved
  EXPECT_EQ(verdict().fault, "memory by policy 3 in place of where it runs");
  found_.memory_policy = 4;  // local, by name
  EXPECT_EQ(verdict().fault, "");
  found_.memory = IndexSet::range(1, 1).words();
  EXPECT_EQ(verdict().fault, "memory of NUMA nodes 1 without 0, where its CPUs are");
}

TEST_F(TaskProofTest, WhatTheKernelDoesNotSayIsNoFault) {
  found_.memory_policy = -1;
  found_.memory.clear();
  found_.group = 0;
  EXPECT_EQ(verdict().fault, "");
  EXPECT_FALSE(verdict().proof.memory_local);
}

TEST_F(TaskProofTest, ATaskOutsideOfItsJobsGroupIsAFault) {
  found_.group = 2;
  found_.cpus = IndexSet::range(0, 1).words();
  EXPECT_EQ(verdict().fault, "outside of its job's cgroup, CPUs 0 in place of 0-1");
}

TEST_F(TaskProofTest, OfAnUnboundTaskOnlyItsGroupIsCompared) {
  decided_.threads = {};
  found_.memory_policy = 3;
  EXPECT_EQ(verdict().fault, "");
  found_.group = 2;
  EXPECT_EQ(verdict().fault, "outside of its job's cgroup");
}

TEST_F(TaskProofTest, OnAPretendedNodeTheDecisionIsGraded) {
  node_.hardware.pretended = true;
  found_.cpus = IndexSet::range(100, 50).words();
  found_.group = 2;
  const Verdict v = verdict();
  EXPECT_TRUE(v.pretended);
  EXPECT_EQ(v.fault, "");
  EXPECT_TRUE(v.proof.local_device);
  decided_.threads = IndexSet::range(2, 2);
  EXPECT_FALSE(verdict().proof.local_package);
}

}  // namespace
}  // namespace muster::noded
