#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "noded/job_environment.h"

namespace muster::noded {
namespace {

LaunchOrder order() {
  auto spec = std::make_shared<JobSpec>();
  spec->name = "envtest";
  spec->user = "ada";
  spec->uid = 1000;
  spec->gid = 100;
  spec->queue = "main";
  spec->ntasks = 5;
  spec->cpus_per_task = 2;
  spec->mem_per_node_mib = 500;
  spec->work_dir = "/home/ada";
  spec->submit_host = "login";
  spec->export_mode = "ALL";
  LaunchOrder order;
  order.key = {JobId{42}, Attempt{1}};
  order.spec = spec;
  order.node = "m01";
  order.share.cores = IndexSet::range(0, 6);
  order.share.gpus.insert(1);
  order.share.tasks = 3;
  order.peers = {Peer{"m01", "", "", 3, 6}, Peer{"m02", "", "", 1, 2}, Peer{"m03", "", "", 1, 2}};
  return order;
}

JobEnvironmentContext context() {
  JobEnvironmentContext c;
  c.identity.name = "m01";
  c.identity.cluster = "ref";
  c.identity.endpoint = "tcp://m01:7000";
  c.identity.public_key = "KEY";
  c.identity.slurm_dir = "/opt/muster/libexec/muster/slurm";
  c.identity.bin_dir = "/opt/muster/bin";
  c.identity.hardware.gpus = {Gpu{"0000:17:00.0", "", "", 4, 0}, Gpu{"0000:65:00.0", "", "", 0, 0}};
  c.user = {"ada", "/home/ada", "/bin/bash"};
  c.ticket_path = "/spool/42.1/ticket";
  return c;
}

std::map<std::string, std::string> as_map(const std::vector<std::string>& environment) {
  std::map<std::string, std::string> out;
  for (const std::string& variable : environment) {
    const auto equals = variable.find('=');
    const bool fresh = out.emplace(variable.substr(0, equals), variable.substr(equals + 1)).second;
    EXPECT_TRUE(fresh) << variable << " is there twice";
  }
  return out;
}

TEST(JobEnvironment, CountsAreFoldedAsSlurmFoldsThem) {
  EXPECT_EQ(fold_counts({3, 1, 1}), "3,1(x2)");
  EXPECT_EQ(fold_counts({4, 4, 3}), "4(x2),3");
  EXPECT_EQ(fold_counts({1}), "1");
  EXPECT_EQ(fold_counts({}), "");
}

TEST(JobEnvironment, SplitsTheBlobAndDropsWhatIsNoVariable) {
  EXPECT_EQ(split_environment(std::string_view("A=1\0=x\0novalue\0B=\0C=a=b\0", 24)),
            (std::vector<std::string>{"A=1", "B=", "C=a=b"}));
}

// The names and values of a captured batch environment of the same shape.
TEST(JobEnvironment, ABatchScriptHasWhatLaunchersDetect) {
  auto e = as_map(batch_environment(order(), context(), {"PATH=/usr/bin", "HOME=/home/ada", "EDITOR=vi"}));
  EXPECT_EQ(e["MUSTER_JOB_ID"], "42");
  EXPECT_EQ(e["SLURM_JOB_ID"], "42");
  EXPECT_EQ(e["SLURM_JOBID"], "42");
  EXPECT_EQ(e["SLURM_JOB_NODELIST"], "m[01-03]");
  EXPECT_EQ(e["SLURM_NODELIST"], "m[01-03]");
  EXPECT_EQ(e["SLURM_NNODES"], "3");
  EXPECT_EQ(e["SLURM_TASKS_PER_NODE"], "3,1(x2)");
  EXPECT_EQ(e["SLURM_JOB_CPUS_PER_NODE"], "6,2(x2)");
  EXPECT_EQ(e["SLURM_CPUS_ON_NODE"], "6");
  EXPECT_EQ(e["SLURM_CPUS_PER_TASK"], "2");
  EXPECT_EQ(e["SLURM_NTASKS"], "5");
  EXPECT_EQ(e["SLURM_NPROCS"], "5");
  EXPECT_EQ(e["SLURM_NODEID"], "0");
  EXPECT_EQ(e["SLURM_PROCID"], "0");
  EXPECT_EQ(e["SLURMD_NODENAME"], "m01");
  EXPECT_EQ(e["SLURM_MEM_PER_NODE"], "500");
  EXPECT_EQ(e["SLURM_JOB_GPUS"], "0");
  EXPECT_EQ(e["CUDA_VISIBLE_DEVICES"], "0");
  EXPECT_EQ(e["SLURM_GPUS_ON_NODE"], "1");
  EXPECT_EQ(e["SLURM_SUBMIT_DIR"], "/home/ada");
  EXPECT_EQ(e["SLURM_CLUSTER_NAME"], "ref");
  EXPECT_EQ(e["MUSTER_TICKET_FILE"], "/spool/42.1/ticket");
  EXPECT_EQ(e["MUSTER_NODE_ENDPOINT"], "tcp://m01:7000");
  EXPECT_EQ(e["HOSTNAME"], "m01");
  EXPECT_EQ(e["EDITOR"], "vi");
  EXPECT_EQ(e["PATH"], "/opt/muster/libexec/muster/slurm:/usr/bin:/opt/muster/bin");
  EXPECT_EQ(e["SHELL"], "/bin/bash");
  EXPECT_FALSE(e.contains("SLURM_STEP_ID"));  // it would make MPI programs think that a step started them
  EXPECT_FALSE(e.contains("SLURM_EXPORT_ENV"));
  EXPECT_FALSE(e.contains("SLURM_ARRAY_JOB_ID"));
}

TEST(JobEnvironment, NothingOfAnOuterJobStays) {
  auto e = as_map(batch_environment(order(), context(),
                                    {"SLURM_STEP_ID=3", "SLURM_ARRAY_TASK_ID=7", "MUSTER_STEP_ID=3", "MUSTER_PROCID=9",
                                     "MUSTER_CONFIG=/etc/m.toml", "RANK=9", "CUDA_VISIBLE_DEVICES=5"}));
  EXPECT_FALSE(e.contains("SLURM_STEP_ID"));
  EXPECT_FALSE(e.contains("MUSTER_STEP_ID"));
  EXPECT_FALSE(e.contains("SLURM_ARRAY_TASK_ID"));
  EXPECT_FALSE(e.contains("RANK"));
  EXPECT_EQ(e["MUSTER_PROCID"], "0");
  EXPECT_EQ(e["MUSTER_CONFIG"], "/etc/m.toml");
  EXPECT_EQ(e["CUDA_VISIBLE_DEVICES"], "0");
}

TEST(JobEnvironment, AnArrayTaskKnowsItsPlace) {
  LaunchOrder o = order();
  auto spec = std::make_shared<JobSpec>(*o.spec);
  spec->array = ArraySpec{{ArrayRange{3, 9, 2}}, 0};
  o.spec = spec;
  o.array = JobId{14};
  o.array_index = 5;
  auto e = as_map(batch_environment(o, context(), {}));
  EXPECT_EQ(e["SLURM_ARRAY_JOB_ID"], "14");
  EXPECT_EQ(e["SLURM_ARRAY_TASK_ID"], "5");
  EXPECT_EQ(e["MUSTER_ARRAY_TASK_ID"], "5");
  EXPECT_EQ(e["SLURM_ARRAY_TASK_COUNT"], "4");
  EXPECT_EQ(e["SLURM_ARRAY_TASK_MIN"], "3");
  EXPECT_EQ(e["SLURM_ARRAY_TASK_MAX"], "9");
  EXPECT_EQ(e["SLURM_ARRAY_TASK_STEP"], "2");
}

TEST(JobEnvironment, AJobWithoutGpusSeesNone) {
  LaunchOrder o = order();
  o.share.gpus = IndexSet();
  auto e = as_map(batch_environment(o, context(), {}));
  ASSERT_TRUE(e.contains("CUDA_VISIBLE_DEVICES"));
  EXPECT_EQ(e["CUDA_VISIBLE_DEVICES"], "");
  EXPECT_FALSE(e.contains("SLURM_JOB_GPUS"));
}

TEST(JobEnvironment, AStepsTaskKnowsItsRank) {
  StepLayout layout;
  layout.step = 7;
  layout.nodes = {"m01", "m02", "m03"};
  layout.tasks = {2, 2, 1};
  layout.ranks = {2, 3};
  layout.master_address = "m01";
  layout.master_port = 29500;
  LaunchOrder o = order();
  o.node_rank = 1;
  JobEnvironmentContext c = context();
  c.identity.name = "m02";
  const std::vector<std::string> submitted{"PATH=/usr/bin", "WORLD_SIZE=77"};
  std::vector<std::string> all = step_environment(o, c, submitted, layout, 1);
  for (const std::string& variable : task_environment(submitted, layout, 1, 3, 1)) {
    all.push_back(variable);
  }
  auto e = as_map(all);
  EXPECT_EQ(e["SLURM_PROCID"], "3");
  EXPECT_EQ(e["SLURM_LOCALID"], "1");
  EXPECT_EQ(e["SLURM_NODEID"], "1");
  EXPECT_EQ(e["SLURM_GTIDS"], "2,3");
  EXPECT_EQ(e["SLURM_STEP_ID"], "7");
  EXPECT_EQ(e["SLURM_STEPID"], "7");
  EXPECT_EQ(e["SLURM_TASKS_PER_NODE"], "2(x2),1");
  EXPECT_EQ(e["SLURM_STEP_NUM_TASKS"], "5");
  EXPECT_EQ(e["SLURM_NTASKS"], "5");
  EXPECT_EQ(e["SLURMD_NODENAME"], "m02");
  EXPECT_EQ(e["RANK"], "3");
  EXPECT_EQ(e["LOCAL_RANK"], "1");
  EXPECT_EQ(e["MASTER_ADDR"], "m01");
  EXPECT_EQ(e["MASTER_PORT"], "29500");
  EXPECT_EQ(e["LOCAL_WORLD_SIZE"], "2");
  EXPECT_EQ(e["WORLD_SIZE"], "77");  // the user's own
}

}  // namespace
}  // namespace muster::noded
