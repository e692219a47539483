// Tasks of a step on what its job holds of a node.
#include "core/topo/bind.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/machine.h"

namespace muster::topo {
namespace {

using test::indices;
using test::show;

// Two packages of two NUMA nodes of two L3s of two cores of two threads; a GPU for each NUMA node, the last ones first.
NodeTopology machine() {
  test::Machine m({.packages = 2, .numa = 2, .l3 = 2, .cores = 2, .threads = 2});
  m.gpu("10", "12-15").gpu("20", "8-11").gpu("30", "4-7").gpu("40", "0-3");
  return m.topology();
}

class Bind : public testing::Test {
 protected:
  std::string bound(const std::string& cores, const std::string& gpus, const StepWish& wish) {
    const auto result = bind(node_, {.cores = indices(cores), .gpus = indices(gpus)}, wish);
    return result.ok() ? show(t_, *result) : result.error().message;
  }
  static StepWish wish(std::uint32_t tasks, const std::string& cpu_bind = "cores", std::uint32_t cores = 0) {
    StepWish out;
    out.tasks = tasks;
    out.cores_per_task = cores;
    out.cpu_bind = *parse_cpu_bind(cpu_bind);
    return out;
  }
  NodeTopology t_ = machine();
  NodeClass node_{t_};
};

TEST_F(Bind, FairSharesBesideTheGpus) {
  EXPECT_EQ(bound("0-15", "0-3", wish(4)), "3->0-3,16-19 2->4-7,20-23 1->8-11,24-27 0->12-15,28-31");
  EXPECT_EQ(bound("0-15", "0-3", wish(2)), "2,3->0-7,16-23 0,1->8-15,24-31");
  EXPECT_EQ(bound("0-6", "2-3", wish(2)), "3->0-3,16-19 2->4-6,20-22");
  EXPECT_EQ(bound("0-6", "", wish(3)), "0-1,16-17 2-3,18-19 4-6,20-22");
  EXPECT_EQ(bound("0-15", "0-3", wish(4, "cores", 1)), "3->0,16 2->4,20 1->8,24 0->12,28");
}

TEST_F(Bind, WiderBindingsStayInsideWhatIsHeld) {
  EXPECT_EQ(bound("0-2,4-13", "2-3", wish(2, "l3", 1)), "3->2,18 2->4-5,20-21");
  EXPECT_EQ(bound("0-2,4-13", "2-3", wish(2, "numa", 1)), "3->0-2,16-18 2->4-7,20-23");
  EXPECT_EQ(bound("0-2,4-13", "2-3", wish(2, "sockets", 1)), "3->0-2,4-7,16-18,20-23 2->0-2,4-7,16-18,20-23");
  EXPECT_EQ(bound("0-2,12", "3", wish(1, "none", 1)), "3->0-2,12,16-18,28");
}

TEST_F(Bind, HardwareThreads) {
  EXPECT_EQ(bound("0-3", "", wish(2, "threads")), "0-1 2-3");
  StepWish one = wish(2);
  one.threads_per_core = 1;
  EXPECT_EQ(bound("0-3", "", one), "0-1 2-3");
  one.cpu_bind.kind = CpuBindKind::kNuma;
  EXPECT_EQ(bound("0-3", "", one), "0-3 0-3");
  one.threads_per_core = 7;  // as many as there are
  EXPECT_EQ(bound("0-3", "", one), "0-3,16-19 0-3,16-19");
}

TEST_F(Bind, RankGoesByNumbersAndGpusFollow) {
  EXPECT_EQ(bound("0-15", "0-3", wish(4, "rank")), "3->0-3,16-19 2->4-7,20-23 1->8-11,24-27 0->12-15,28-31");
  EXPECT_EQ(bound("0,4,8,12", "0-1", wish(4, "rank")), "0->0,16 1->4,20 1->8,24 0->12,28");
}

TEST_F(Bind, MapsAndMasksSayWhereTasksRun) {
  EXPECT_EQ(bound("0-15", "0-3", wish(4, "map_cpu:12,8,4,16")), "0->12 1->8 2->4 3->16");
  EXPECT_EQ(bound("0-15", "0-3", wish(3, "map_cpu:5")), "2,3->5 0->5 1->5");
  EXPECT_EQ(bound("0-15", "0-1", wish(2, "mask_cpu:0x0f00,0xf000")), "1->8-11 0->12-15");
  EXPECT_EQ(bound("0-7", "", wish(2, "map_cpu:1,9")),
            "--cpu-bind=map_cpu: task 1 is bound to hardware threads 9, which the job does not hold: name some of "
            "0-7,16-23");
  EXPECT_EQ(bound("0-7", "", wish(1, "mask_cpu:0x101")),
            "--cpu-bind=mask_cpu: task 0 is bound to hardware threads 8, which the job does not hold: name some of "
            "0-7,16-23");
}

TEST_F(Bind, ListedGpusKeepTheOrderOfTasks) {
  StepWish listed = wish(4, "cores", 1);
  for (std::uint32_t i = 0; i < 4; ++i) {
    listed.gpu_list.push_back(IndexSet::range(i, 1));
  }
  EXPECT_EQ(bound("0-15", "0-3", listed), "0->12,28 1->8,24 2->4,20 3->0,16");
  listed.cpu_bind = *parse_cpu_bind("map_cpu:0,4,8,12");
  EXPECT_EQ(bound("0-15", "0-3", listed), "0->0 1->4 2->8 3->12");
  EXPECT_EQ(bound("0-15", "0-2", listed),
            "--gpu-bind: task 3 is given GPUs 3, which the job does not hold: name some of 0-2");
}

TEST_F(Bind, TooManyTasksAreRefusedUnlessUnbound) {
  EXPECT_EQ(bound("0-1", "", wish(3)),
            "the step's 3 tasks want 3 cores and the job holds 2 on the node: ask for fewer tasks or --cpus-per-task, "
            "or use --cpu-bind=none");
  EXPECT_EQ(bound("0-3", "", wish(2, "cores", 3)),
            "the step's 2 tasks want 6 cores and the job holds 4 on the node: ask for fewer tasks or --cpus-per-task, "
            "or use --cpu-bind=none");
  EXPECT_EQ(bound("0-1", "2-3", wish(3, "none")), "3->0-1,16-17 3->0-1,16-17 2->0-1,16-17");
}

TEST_F(Bind, DistributionNumbersTheTasks) {
  StepWish cyclic = wish(4);
  cyclic.distribution.kind = DistributionKind::kCyclic;
  EXPECT_EQ(bound("0-15", "0-3", cyclic), "3->0-3,16-19 1->8-11,24-27 2->4-7,20-23 0->12-15,28-31");
}

}  // namespace
}  // namespace muster::topo
