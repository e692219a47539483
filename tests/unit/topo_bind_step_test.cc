// What the tasks of a step get of what their job holds on a node.
#include "core/topo/bind_step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/machine.h"

namespace muster::topo {
namespace {

using ::testing::HasSubstr;

// Two packages of four cores with two threads; the GPUs 0 and 1 beside the second, 2 and 3 beside the first.
NodeTopology machine() {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 4, .threads = 2});
  m.gpu("10", "4-7").gpu("20", "4-7").gpu("30", "0-3").gpu("40", "0-3");
  return m.topology();
}

class BindStep : public testing::Test {
 protected:
  BindStep() {
    share_.cores = IndexSet::range(0, 8);
    share_.gpus = IndexSet::range(0, 4);
  }
  std::string bound(const StepOptions& wish) {
    const auto tasks = bind_step(node_, spec_, share_, wish);
    if (!tasks.ok()) {
      return tasks.error().message;
    }
    std::string out;
    for (const BoundTask& task : *tasks) {
      out += (out.empty() ? "" : " ") + (task.own_gpus ? task.chosen.gpus.to_string() + "->" : "") +
             task.chosen.threads.to_string();
    }
    return out;
  }

  JobSpec spec_;
  NodeShare share_;
  NodeClass node_{machine()};
};

TEST_F(BindStep, TasksShareAllCoresWhenNobodySaysOtherwise) {
  EXPECT_EQ(bound({.tasks = 1}), "0-15");
  EXPECT_EQ(bound({.tasks = 2}), "0-3,8-11 4-7,12-15");
  // Other steps may run beside it.
  EXPECT_EQ(bound({.tasks = 1, .cpus_per_task = 1}), "0-15");
  EXPECT_EQ(bound({.tasks = 2, .cpus_per_task = 1, .cpu_bind = "cores"}), "0,8 4,12");
  EXPECT_EQ(bound({.tasks = 16}), bound({.tasks = 16, .cpu_bind = "none"})) << "more tasks than cores";
  EXPECT_THAT(bound({.tasks = 16, .cpu_bind = "cores"}), HasSubstr("16 tasks want 16 cores and the job holds 8"));
}

TEST_F(BindStep, TheStepSaysMoreThanItsJob) {
  spec_.cpu_bind = "threads";
  spec_.threads_per_core = 1;
  EXPECT_EQ(bound({.tasks = 2}), "0-3 4-7");
  EXPECT_EQ(bound({.tasks = 2, .cpu_bind = "cores", .threads_per_core = 2}), "0-3,8-11 4-7,12-15");
  EXPECT_EQ(bound({.tasks = 2, .cpu_bind = "sockets"}), "0-3 4-7");
}

TEST_F(BindStep, TasksSeeTheirOwnGpusWhereTheyAskedForThem) {
  EXPECT_EQ(bound({.tasks = 4, .gpu_bind = "none"}), "0-1,8-9 2-3,10-11 4-5,12-13 6-7,14-15");
  EXPECT_EQ(bound({.tasks = 4, .gpu_bind = "closest"}), "2->0-1,8-9 3->2-3,10-11 0->4-5,12-13 1->6-7,14-15");
  spec_.gpus_per_task = 1;
  EXPECT_EQ(bound({.tasks = 4}), bound({.tasks = 4, .gpu_bind = "closest"}));
  EXPECT_EQ(bound({.tasks = 2}), "0-3,8-11 4-7,12-15") << "not the job's layout: all GPUs are seen";
  EXPECT_EQ(bound({.tasks = 2, .gpu_bind = "per_task:2"}), "2-3->0-3,8-11 0-1->4-7,12-15");
  EXPECT_EQ(bound({.tasks = 2, .gpu_bind = "map_gpu:0,3"}), "0->4-7,12-15 3->0-3,8-11");
  share_.gpus = IndexSet::range(1, 2);
  EXPECT_EQ(bound({.tasks = 2, .gpu_bind = "mask_gpu:0x1,0x2"}), "1->4-7,12-15 2->0-3,8-11") << "places, not numbers";
}

TEST_F(BindStep, WhatDoesNotFitIsRefusedByName) {
  EXPECT_THAT(bound({.tasks = 4, .gpu_bind = "per_task:2"}), HasSubstr("--gpu-bind=per_task: 2 GPUs for each of 4"));
  EXPECT_THAT(bound({.tasks = 1, .gpu_bind = "map_gpu:4"}), HasSubstr("it names GPU 4 and the job has 4"));
  EXPECT_THAT(bound({.tasks = 1, .cpu_bind = "map_cpu:16"}), HasSubstr("hardware threads 16"));
  EXPECT_EQ(bound({.tasks = 4, .cpu_bind = "cores", .distribution = "block:cyclic"}),
            "0-1,8-9 4-5,12-13 2-3,10-11 6-7,14-15");
}

TEST_F(BindStep, HardwareThatIsGoneIsLeftOut) {
  share_.cores = IndexSet::range(6, 4);
  share_.gpus = IndexSet::range(3, 3);
  EXPECT_EQ(bound({.tasks = 1, .gpu_bind = "closest"}), "3->6-7,14-15");
  share_.cores = IndexSet::range(20, 2);
  const auto unbound = bind_step(node_, spec_, share_, {.tasks = 2});
  ASSERT_TRUE(unbound.ok());
  ASSERT_EQ(unbound->size(), 2U);
  EXPECT_TRUE(unbound->front().chosen.threads.empty()) << "nothing to choose from";
}

}  // namespace
}  // namespace muster::topo
