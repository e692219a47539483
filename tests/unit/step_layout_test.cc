// How the tasks of a step are spread over the nodes of its job.
#include "noded/step_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/base/index_set.h"

namespace muster::noded {
namespace {

using testing::HasSubstr;

// Four nodes with two tasks and two cores each, as `-N4 -n8` gives.
std::vector<JobNode> four_by_two() {
  return {{"n1", 2, 2}, {"n2", 2, 2}, {"n3", 2, 2}, {"n4", 2, 2}};
}

// "n1:0-1 n3:2" for ranks 0 and 1 on n1 and rank 2 on n3; "n1:0,2" where they are not neighbours.
std::string show(const std::vector<JobNode>& job, const Result<StepPlan>& plan) {
  if (!plan) {
    return "error: " + plan.error().message;
  }
  std::string text;
  for (const auto& entry : plan->nodes) {
    EXPECT_EQ(entry.ranks.size(), entry.tasks);
    IndexSet ranks;
    for (const std::uint32_t rank : entry.ranks) {
      ranks.insert(rank);
    }
    text += (text.empty() ? "" : " ") + job[entry.job_node].name + ":" + ranks.to_string();
  }
  return text;
}

struct Case {
  const char* what;
  std::vector<JobNode> job;
  StepWish wish;
  const char* expected;
};

TEST(StepLayout, Table) {
  const std::vector<JobNode> job = four_by_two();
  const std::vector<JobNode> uneven = {{"a", 3, 6}, {"b", 1, 2}, {"c", 1, 2}};
  const std::vector<Case> cases = {
      {"the job's own layout", job, {}, "n1:0-1 n2:2-3 n3:4-5 n4:6-7"},
      {"uneven job's own layout", uneven, {}, "a:0-2 b:3 c:4"},
      {"one node", {{"n1", 1, 1}}, {}, "n1:0"},
      {"fewer nodes keep the job's tasks", job, {.nodes = 2}, "n1:0-1 n2:2-3"},
      {"a range of nodes takes as many as there are", job, {.nodes = 1, .nodes_max = 9}, "n1:0-1 n2:2-3 n3:4-5 n4:6-7"},
      {"as mpirun starts its daemons", job, {.ntasks = 4, .ntasks_per_node = 1}, "n1:0 n2:1 n3:2 n4:3"},
      {"as mpirun starts them on some nodes",
       job,
       {.nodes = 3, .ntasks = 3, .ntasks_per_node = 1, .nodelist = {"n2", "n3", "n4"}},
       "n2:0 n3:1 n4:2"},
      {"one task on each node", job, {.ntasks_per_node = 1}, "n1:0 n2:1 n3:2 n4:3"},
      {"one task", job, {.ntasks = 1}, "n1:0"},
      {"relative", job, {.nodes = 2, .relative = 1}, "n2:0-1 n3:2-3"},
      {"relative to the end", job, {.relative = 3}, "n4:0-1"},
      {"relative beyond the end",
       job,
       {.relative = 4},
       "error: --relative=4: the job has 4 nodes, counted from 0: ask for at most 3"},
      {"relative and too many nodes",
       job,
       {.nodes = 2, .relative = 3},
       "error: --nodes=2: this job has 1 node from --relative=3 on: ask for at most 1"},
      {"no node without a task", job, {.ntasks = 2}, "n1:0 n2:1"},
      {"more nodes than tasks", job, {.nodes = 4, .ntasks = 2}, "n1:0 n2:1"},
      {"the first nodes get the odd tasks", job, {.ntasks = 6}, "n1:0-1 n2:2-3 n3:4 n4:5"},
      {"no more on a node than its cores", uneven, {.ntasks = 9}, "a:0-4 b:5-6 c:7-8"},
      {"as Slurm lays out 5 tasks of 2 cores", uneven, {.ntasks = 5, .cpus_per_task = 2}, "a:0-2 b:3 c:4"},
      {"dealt out one by one", job, {.plane = 1}, "n1:0,4 n2:1,5 n3:2,6 n4:3,7"},
      {"dealt out until a node is full", uneven, {.ntasks = 6, .plane = 1}, "a:0,3 b:1,4 c:2,5"},
      {"of nodes with more tasks the last ones stay together", uneven, {.plane = 1}, "a:0,3-4 b:1 c:2"},
      {"in planes of two", {{"a", 3, 4}, {"b", 3, 4}}, {.plane = 2}, "a:0-1,4 b:2-3,5"},
      {"planes say how many tasks a node has", {{"a", 3, 4}, {"b", 3, 4}}, {.ntasks = 6, .plane = 4}, "a:0-3 b:4-5"},
      {"planes find no more room than there is", uneven, {.ntasks = 9, .plane = 8}, "a:0-5 b:6-7 c:8"},
      {"the named nodes in the job's order", job, {.nodelist = {"n3", "n1", "n3"}}, "n1:0-1 n3:2-3"},
      {"a named node and others", job, {.nodes = 2, .nodelist = {"n4"}}, "n1:0-1 n4:2-3"},
      {"without some", job, {.ntasks = 2, .exclude = {"n1", "elsewhere"}}, "n2:0 n3:1"},
      {"a task on a named node", job, {.ntasks = 1, .nodelist = {"n4"}}, "n4:0"},
      {"tasks that share a core in the job have room", {{"n1", 4, 1}}, {.ntasks = 3}, "n1:0-2"},
      {"too many nodes", job, {.nodes = 5}, "error: --nodes=5: this job has 4 nodes: ask for at most 4"},
      {"too many nodes after --exclude",
       job,
       {.nodes = 4, .exclude = {"n1"}},
       "error: --nodes=4: this job has 3 nodes that --exclude leaves: ask for at most 3"},
      {"a foreign node", job, {.nodelist = {"n9"}}, "error: --nodelist: n9 is not a node of this job: it has n[1-4]"},
      {"named and excluded",
       job,
       {.nodelist = {"n1"}, .exclude = {"n1"}},
       "error: --nodelist and --exclude both name n1: name it in one of them"},
      {"all excluded", {{"n1", 1, 1}}, {.exclude = {"n1"}}, "error: --exclude leaves no node: the job has n1"},
      {"fewer tasks than named nodes",
       job,
       {.ntasks = 1, .nodelist = {"n1", "n2"}},
       "error: --ntasks=1 is less than the 2 nodes of --nodelist: name fewer"},
      {"fewer nodes than named",
       job,
       {.nodes = 1, .nodelist = {"n1", "n2"}},
       "error: --nodes=1 is less than the 2 nodes of --nodelist: name fewer"},
      {"more tasks than cores",
       job,
       {.ntasks = 9},
       "error: --ntasks=9: the job's cores on 4 nodes have room for 8 tasks: ask for fewer tasks, or submit the job "
       "with more"},
      {"tasks with more cores",
       job,
       {.ntasks = 8, .cpus_per_task = 2},
       "error: --ntasks=8: the job's cores on 4 nodes have room for 4 tasks with --cpus-per-task=2: ask for fewer "
       "tasks, or submit the job with more"},
      {"more on a node than cores",
       job,
       {.ntasks_per_node = 3},
       "error: --ntasks-per-node=3: the job's cores on 4 nodes have room for 8 tasks: ask for fewer tasks, or submit "
       "the job with more"},
      {"contradiction",
       job,
       {.ntasks = 8, .ntasks_per_node = 1},
       "error: --ntasks=8 does not fit --ntasks-per-node=1 on 4 nodes: change one of them"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(show(c.job, plan_step(c.job, c.wish)), c.expected) << c.what;
  }
}

TEST(StepLayout, ManyNodesAndTasks) {
  std::vector<JobNode> job(1000, JobNode{"n", 1, 64});
  for (std::size_t i = 0; i < job.size(); ++i) {
    job[i].name += std::to_string(i);
  }
  const auto plan = plan_step(job, {.ntasks = 63'999});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->ntasks, 63'999U);
  EXPECT_EQ(plan->nodes.back().tasks, 63U);
  std::uint32_t next = 0;
  for (const auto& entry : plan->nodes) {
    EXPECT_EQ(entry.ranks.front(), next);
    next += entry.tasks;
  }
}

TEST(StepLayout, LimitOfTasksIsNamed) {
  const std::vector<JobNode> job = {{"n1", 1, 4'000'000'000U}};
  const auto plan = plan_step(job, {.ntasks = 4'000'000'000U});
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.error().message, HasSubstr("--ntasks: a step has at most 1000000 tasks"));
}

}  // namespace
}  // namespace muster::noded
