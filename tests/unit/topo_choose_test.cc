// Cores for tasks, on machines made by hand.
#include "core/topo/choose.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/machine.h"

namespace muster::topo {
namespace {

using test::all_free;
using test::chosen;
using test::indices;
using test::show;

Request with_gpus(std::uint32_t tasks, std::uint32_t cores, std::uint32_t gpus) {
  Request out;
  out.tasks = tasks;
  out.cores_per_task = cores;
  out.gpus = gpus;
  return out;
}

// Four GPUs whose numbers run against the cores, each local to an L3 of four cores.
test::Machine crossed() {
  test::Machine m({.packages = 1, .numa = 2, .l3 = 2, .cores = 4, .threads = 2});
  m.gpu("10", "8-11").gpu("20", "12-15").gpu("30", "0-3").gpu("40", "4-7");
  return m;
}

TEST(Choose, TasksRunBesideTheirGpusInTheOrderOfCores) {
  const NodeTopology t = crossed().topology();
  const NodeClass node(t);
  const Choice four = chosen(node, all_free(t), with_gpus(4, 4, 4));
  EXPECT_EQ(show(t, four.tasks), "2->0-3,16-19 3->4-7,20-23 0->8-11,24-27 1->12-15,28-31");
  EXPECT_EQ(four.cost.distance, 0U);
  const Choice two = chosen(node, all_free(t), with_gpus(2, 8, 4));
  EXPECT_EQ(show(t, two.tasks), "2,3->0-7,16-23 0,1->8-15,24-31");
  EXPECT_TRUE(two.tasks[0].grades.device);
  EXPECT_EQ(two.tasks[1].numa.to_string(), "1");
}

TEST(Choose, FairSharesOfOnePackage) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 18, .threads = 2});
  m.gpu("04", "0-17").gpu("07", "0-17");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  EXPECT_EQ(show(t, chosen(node, all_free(t), with_gpus(2, 9, 2)).tasks), "0->0-8,36-44 1->9-17,45-53");
  // What one package cannot hold is far away whoever gets it; so only one task is split.
  const Choice more = chosen(node, all_free(t), with_gpus(2, 12, 2));
  EXPECT_EQ(show(t, more.tasks), "0->0-11,36-47 1->12-23,48-59");
  EXPECT_EQ(more.cost.distance, 6U * kDistanceOther);
  EXPECT_EQ(more.cost.numa_splits, 1U);
}

TEST(Choose, EveryTaskGetsACoreOfItsGpuFirst) {
  test::Machine m({.packages = 1, .numa = 1, .l3 = 2, .cores = 4, .threads = 1});
  m.gpu("10", "0-3").gpu("20", "0-3");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  NodeUse use = all_free(t);
  use.free_cores = indices("0-1,4-7");
  const Choice choice = chosen(node, use, with_gpus(2, 3, 2));
  EXPECT_EQ(choice.cost.tasks_without_local_gpu, 0U);
  EXPECT_EQ(show(t, choice.tasks), "0->0,4-5 1->1,6-7");
}

TEST(Choose, GpusOfATaskFollowTheCoresWhereLinksWouldLeaveItWithout) {
  // Links pair 0 with 1 and 2 with 3, but cores are free beside 0 and 1 only.
  test::Machine m({.packages = 1, .numa = 4, .l3 = 1, .cores = 2, .threads = 1});
  m.gpu("10", "0-1").gpu("20", "2-3").gpu("30", "4-5").gpu("40", "6-7");
  m.link(0, 1, 50'000).link(2, 3, 50'000).link(0, 2, 25'000).link(1, 3, 25'000);
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  NodeUse use = all_free(t);
  EXPECT_EQ(show(t, chosen(node, use, with_gpus(2, 1, 4)).tasks), "0,1->0 2,3->4");
  use.free_cores = indices("0,2");
  const Choice choice = chosen(node, use, with_gpus(2, 1, 4));
  EXPECT_EQ(show(t, choice.tasks), "0,2->0 1,3->2");
  EXPECT_EQ(choice.cost.tasks_without_local_gpu, 0U);
}

TEST(Choose, MoreTasksThanGpusShareThem) {
  const NodeTopology t = crossed().topology();
  const NodeClass node(t);
  EXPECT_EQ(show(t, chosen(node, all_free(t), with_gpus(8, 2, 4)).tasks),
            "2->0-1,16-17 2->2-3,18-19 3->4-5,20-21 3->6-7,22-23 0->8-9,24-25 0->10-11,26-27 1->12-13,28-29 "
            "1->14-15,30-31");
  // The fifth task goes to the GPU that has cores left.
  NodeUse use = all_free(t);
  use.free_cores = indices("0,4,8,12-13");
  EXPECT_EQ(show(t, chosen(node, use, with_gpus(5, 1, 4)).tasks), "2->0,16 3->4,20 0->8,24 1->12,28 1->13,29");
}

TEST(Choose, L3sStayWholeForTasksThatFitIntoOne) {
  test::Machine m({.packages = 1, .numa = 1, .l3 = 4, .cores = 4, .threads = 1});
  m.gpu("10", "0-15").gpu("20", "0-15");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  EXPECT_EQ(show(t, chosen(node, all_free(t), with_gpus(2, 3, 2)).tasks), "0->0-2 1->4-6");
  EXPECT_EQ(show(t, chosen(node, all_free(t), with_gpus(2, 2, 2)).tasks), "0->0-1 1->2-3");
  EXPECT_EQ(show(t, chosen(node, all_free(t), with_gpus(3, 3, 0)).tasks), "0-2 4-6 12-14");
}

TEST(Choose, JobsWithoutGpusArePacked) {
  test::Machine m({.packages = 2, .numa = 2, .l3 = 1, .cores = 10, .threads = 2});
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  const auto cores = [&](std::uint32_t count, const std::string& free) {
    std::string out;
    for (const std::uint32_t tasks : {1U, count}) {
      NodeUse use = all_free(t);
      use.free_cores = indices(free);
      const std::string here = chosen(node, use, with_gpus(tasks, count / tasks, 0)).cores.to_string();
      out += out == here ? "" : out + here;
    }
    return out;
  };
  EXPECT_EQ(cores(20, "0-39"), "0-19");
  EXPECT_EQ(cores(10, "0-39"), "0-9");
  EXPECT_EQ(cores(10, "10-39"), "10-19");
  EXPECT_EQ(cores(30, "1-39"), "10-39");
  // The shortest run that holds them.
  EXPECT_EQ(cores(3, "0-4,6-8,20-29"), "6-8");
}

TEST(Choose, JobsWithoutGpusStayAwayFromFreeGpus) {
  test::Machine m({.packages = 2, .numa = 4, .l3 = 1, .cores = 4, .threads = 1});
  m.gpu("10", "4-7").gpu("20", "8-11").gpu("30", "24-27").gpu("40", "28-31");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  NodeUse use = all_free(t);
  EXPECT_EQ(chosen(node, use, with_gpus(1, 4, 0)).cores.to_string(), "0-3");
  EXPECT_EQ(chosen(node, use, with_gpus(1, 8, 0)).cores.to_string(), "0-3,12-15");
  EXPECT_EQ(chosen(node, use, with_gpus(16, 1, 0)).cores.to_string(), "0-3,12-23");
  // Cores beside a GPU that is taken are as good as others, and better than those of a free one.
  use.free_gpus = indices("1-3");
  use.free_cores = indices("4-11,24-31");
  EXPECT_EQ(chosen(node, use, with_gpus(1, 4, 0)).cores.to_string(), "4-7");
  // Where nothing else is left, no free GPU loses its last core, ...
  use.free_cores = indices("8-11,24-31");
  EXPECT_EQ(chosen(node, use, with_gpus(1, 4, 0)).cores.to_string(), "24-26,28");
  // ... unless there is no other way.
  EXPECT_EQ(chosen(node, use, with_gpus(1, 12, 0)).cores.to_string(), "8-11,24-31");
}

TEST(Choose, JobsWithoutGpusGoWhereFewestFreeGpusAre) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 8, .threads = 1});
  m.gpu("10", "0-7").gpu("20", "0-7").gpu("90", "8-15");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  NodeUse use = all_free(t);
  EXPECT_EQ(chosen(node, use, with_gpus(1, 4, 0)).cores.to_string(), "8-11");
  use.free_gpus = indices("0,2");
  EXPECT_EQ(chosen(node, use, with_gpus(1, 4, 0)).cores.to_string(), "0-3");
  // A partly used package comes first.
  use.free_cores = indices("0-7,9-15");
  EXPECT_EQ(chosen(node, use, with_gpus(1, 4, 0)).cores.to_string(), "9-12");
}

TEST(Choose, TasksOfGpusLeaveTheCoresOfOtherFreeGpus) {
  // The job's GPU has 2 local cores; of the others in the package those count that no free GPU is local to.
  test::Machine m({.packages = 1, .numa = 1, .l3 = 3, .cores = 2, .threads = 1});
  m.gpu("10", "0-1").gpu("20", "2-3");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  EXPECT_EQ(chosen(node, all_free(t), with_gpus(1, 4, 1)).cores.to_string(), "0-1,4-5");
}

TEST(Choose, RequiredLocalityWaitsOrIsRefused) {
  const NodeTopology t = crossed().topology();
  const NodeClass node(t);
  Request request = with_gpus(2, 4, 2);
  request.locality = Locality::kRequire;
  NodeUse use = all_free(t);
  EXPECT_EQ(show(t, chosen(node, use, request).tasks), "0->8-11,24-27 1->12-15,28-31");
  // Free GPUs and cores are on different NUMA nodes: not now.
  use.free_cores = indices("0-7");
  use.free_gpus = indices("0-1");
  auto result = choose(node, use, request);
  ASSERT_TRUE(std::holds_alternative<Refusal>(result));
  EXPECT_FALSE(std::get<Refusal>(result).for_ever);
  EXPECT_EQ(std::get<Refusal>(result).reason,
            "--locality=require: 2 of 2 tasks would have cores beyond the NUMA nodes of their GPUs");
  request.locality = Locality::kPrefer;
  EXPECT_EQ(chosen(node, use, request).cost.tasks_without_local_gpu, 2U);
  // A NUMA node has eight cores: never.
  request.locality = Locality::kRequire;
  request.cores_per_task = 9;
  request.tasks = 1;
  request.gpus = 1;
  result = choose(node, all_free(t), request);
  ASSERT_TRUE(std::holds_alternative<Refusal>(result));
  EXPECT_TRUE(std::get<Refusal>(result).for_ever);
  // On the NUMA node but without a local core.
  request.cores_per_task = 2;
  use = all_free(t);
  use.free_cores = indices("0-3");
  use.free_gpus = indices("3");
  result = choose(node, use, request);
  ASSERT_TRUE(std::holds_alternative<Refusal>(result));
  EXPECT_EQ(std::get<Refusal>(result).reason,
            "--locality=require: 1 of 1 task would have no core that is local to a GPU of theirs");
}

TEST(Choose, ShortagesSayWhatIsMissing) {
  const NodeTopology t = crossed().topology();
  const NodeClass node(t);
  NodeUse use = all_free(t);
  use.free_cores = indices("0-3");
  const auto refusal = [&](const Request& request) {
    const auto result = choose(node, use, request);
    EXPECT_TRUE(std::holds_alternative<Refusal>(result));
    return std::get<Refusal>(result);
  };
  EXPECT_EQ(refusal(with_gpus(5, 1, 0)).reason, "5 cores wanted, 4 there");
  EXPECT_FALSE(refusal(with_gpus(5, 1, 0)).for_ever);
  EXPECT_EQ(refusal(with_gpus(17, 1, 0)).reason, "17 cores wanted, 16 there");
  EXPECT_TRUE(refusal(with_gpus(17, 1, 0)).for_ever);
  EXPECT_EQ(refusal(with_gpus(1, 1, 5)).reason, "5 GPUs wanted, 4 there");
  // Cores of the system are not there.
  use = all_free(t);
  use.usable_cores = indices("1-15");
  EXPECT_TRUE(refusal(with_gpus(16, 1, 0)).for_ever);
}

TEST(Choose, WithoutLocalityCoresArePacked) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 4, .threads = 1});
  m.gpu("10", "4-7");
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  Request request = with_gpus(1, 2, 1);
  EXPECT_EQ(chosen(node, all_free(t), request).cores.to_string(), "4-5");
  request.locality = Locality::kNone;
  EXPECT_EQ(chosen(node, all_free(t), request).cores.to_string(), "0-1");
}

TEST(Choose, AdaptersAreNearestToTheGpus) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 4, .threads = 1});
  m.gpu("10", "0-3").gpu("20", "0-3").gpu("90", "4-7");
  const auto kPix = PcieTier::kSwitch;
  const auto kNode = PcieTier::kSameNuma;
  const auto kSys = PcieTier::kOtherPackage;
  m.nic("01", "0-3", {kPix, kPix, kSys}, false);  // the nearest, but not made for messages
  m.nic("11", "0-3", {kNode, kPix, kSys});
  m.nic("12", "0-3", {kNode, kNode, kSys}, true, 10'000);
  m.nic("13", "0-3", {kNode, kNode, kSys});
  m.nic("91", "4-7", {kSys, kSys, kNode});
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  const Choice three = chosen(node, all_free(t), with_gpus(3, 1, 3));
  // The third of equally near ones is slower, and the first of them has a task already.
  EXPECT_EQ(three.tasks[0].nics.to_string(), "1");
  EXPECT_EQ(three.tasks[1].nics.to_string(), "1");
  EXPECT_EQ(three.tasks[2].nics.to_string(), "4");
  const Choice both = chosen(node, all_free(t), with_gpus(1, 2, 2));
  EXPECT_EQ(both.tasks[0].nics.to_string(), "1");
  // Without GPUs by the cores; tasks share what is equally near.
  const Choice none = chosen(node, all_free(t), with_gpus(8, 1, 0));
  EXPECT_EQ(none.tasks[0].nics.to_string(), "1");
  EXPECT_EQ(none.tasks[1].nics.to_string(), "3");
  EXPECT_EQ(none.tasks[2].nics.to_string(), "1");
  EXPECT_EQ(none.tasks[7].nics.to_string(), "4");
}

TEST(Choose, DistributionNumbersTheTasks) {
  test::Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 4, .threads = 1});
  const NodeTopology t = m.topology();
  const NodeClass node(t);
  Request request = with_gpus(8, 1, 0);
  EXPECT_EQ(show(t, chosen(node, all_free(t), request).tasks), "0 1 2 3 4 5 6 7");
  request.distribution.kind = DistributionKind::kCyclic;
  EXPECT_EQ(show(t, chosen(node, all_free(t), request).tasks), "0 4 1 5 2 6 3 7");
  request.distribution = {.kind = DistributionKind::kPlane, .plane = 3};
  EXPECT_EQ(show(t, chosen(node, all_free(t), request).tasks), "0 1 2 4 5 6 3 7");
}

TEST(Choose, SystemCoresAreSpreadOverTheL3s) {
  const NodeTopology t = crossed().topology();
  const NodeClass node(t);
  EXPECT_EQ(system_cores(node, 0).to_string(), "");
  EXPECT_EQ(system_cores(node, 1).to_string(), "0");
  EXPECT_EQ(system_cores(node, 4).to_string(), "0,4,8,12");
  EXPECT_EQ(system_cores(node, 5).to_string(), "0-1,4,8,12");
  EXPECT_EQ(system_cores(node, 99).to_string(), "0-15");
}

TEST(Choose, CoresOutOfOrderAreHandledByDomain) {
  // Neighbouring numbers are on different packages.
  NodeTopology t;
  t.packages = 2;
  t.numa.resize(2);
  for (std::uint32_t c = 0; c < 8; ++c) {
    t.cores.push_back({.package = c % 2, .numa = c % 2, .l3 = c % 2, .threads = IndexSet::range(c, 1)});
  }
  t.mem_mib = 1;
  const NodeClass node(t);
  EXPECT_EQ(show(t, chosen(node, all_free(t), with_gpus(2, 4, 0)).tasks), "0,2,4,6 1,3,5,7");
}

}  // namespace
}  // namespace muster::topo
