// Whole workload logs: a generated one of tests/data, with its values pinned, and the archive's logs with their
// published values (docs/simulate.md) where a folder shared/traces lies beside the source tree or MUSTER_TRACES names
// one.
//
// The slow ones run with MUSTER_LONG=1: ctest -C long -L sim-long. Builds with sanitizers replay the smallest log only:
// the values are those of every build.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "sim/replay/measures.h"
#include "sim/replay/policies.h"
#include "sim/replay/replay.h"
#include "sim/replay/swf.h"
#include "tests/support/replay_oracle.h"
#include "tests/support/slowness.h"

namespace muster::sim {
namespace {

struct Replayed {
  Trace trace;
  ReplayResult result;
  Measures measures;
};
Replayed replayed(const std::string& path, const TraceOptions& options, const std::string& policy,
                  ReplayEvents events) {
  const auto log = read_swf(path);
  EXPECT_TRUE(log.ok()) << log.error().message;
  EXPECT_EQ(log->bad_lines, 0U);
  auto trace = select_jobs(*log, options);
  EXPECT_TRUE(trace.ok()) << trace.error().message;
  const auto found = find_policy(policy, "");
  EXPECT_TRUE(found.ok());
  ReplayOptions how;
  how.events = events;
  auto result = replay(*trace, *found, how);
  EXPECT_TRUE(result.ok());
  const Measures measures = measure(*trace, *result);
  return {*std::move(trace), *std::move(result), measures};
}

// --- the generated log -----------------------------------------------------------------------------------------

struct Pinned {
  const char* policy;
  ReplayEvents events;
  double avebsld;
  double mean_wait_s;
  std::int64_t p95_wait_s;
  std::int64_t max_wait_s;
  double util_in;
  std::int64_t makespan_s;
};
// Made by this program; the oracle gives the same starts (below).
constexpr Pinned kPinned[] = {
    {"fcfs", ReplayEvents::kBatch, 1590.859230195, 548353.164645, 1028890, 1098835, 0.559873245, 1870567},
    {"fcfs", ReplayEvents::kSeq, 1590.859230195, 548353.164645, 1028890, 1098835, 0.559873245, 1870567},
    {"easy", ReplayEvents::kBatch, 100.282299685, 70671.048527, 285043, 340653, 0.907158242, 1127227},
    {"easy", ReplayEvents::kSeq, 100.282299685, 70671.048527, 285043, 340653, 0.907158242, 1127227},
    {"easy-sjbf", ReplayEvents::kBatch, 99.053059539, 79986.194107, 451058, 517679, 0.762004454, 1251957},
    {"easy-sjbf", ReplayEvents::kSeq, 99.053310154, 79986.194107, 451058, 517679, 0.762004454, 1251957},
    {"conservative", ReplayEvents::kBatch, 93.142940300, 64404.253033, 255651, 367488, 0.895560595, 1117450},
    {"conservative", ReplayEvents::kSeq, 93.142940300, 64404.253033, 255651, 367488, 0.895560595, 1117450},
    {"sjf", ReplayEvents::kBatch, 23.271476594, 62103.710572, 502328, 689200, 0.700291255, 1297764},
    {"sjf", ReplayEvents::kSeq, 23.267990359, 61861.930676, 499144, 676898, 0.711818047, 1294580},
    {"saf", ReplayEvents::kBatch, 37.595231862, 50751.183709, 438304, 1101811, 0.635185233, 1344251},
    {"saf", ReplayEvents::kSeq, 37.638598888, 50756.088388, 438304, 1101811, 0.635185233, 1344251},
    {"wfp3", ReplayEvents::kBatch, 42.770141213, 68651.637782, 393187, 535874, 0.861543002, 1180733},
    {"wfp3", ReplayEvents::kSeq, 42.770141213, 68651.637782, 393187, 535874, 0.861543002, 1180733},
    {"unicef", ReplayEvents::kBatch, 31.168401036, 44137.376083, 287506, 638344, 0.799425955, 1207098},
    {"unicef", ReplayEvents::kSeq, 31.168401036, 44137.376083, 287506, 638344, 0.799425955, 1207098},
};

TEST(ReplayLogs, TheGeneratedLogGivesItsValues) {
  for (const Pinned& one : kPinned) {
    SCOPED_TRACE(std::string(one.policy) + (one.events == ReplayEvents::kBatch ? " batch" : " seq"));
    const Replayed r = replayed(MUSTER_TEST_DATA "/generated.swf", {}, one.policy, one.events);
    EXPECT_EQ(r.measures.jobs, 577U);
    EXPECT_EQ(r.trace.dropped, 23U);
    EXPECT_NEAR(r.measures.avebsld, one.avebsld, 1e-8);
    EXPECT_NEAR(r.measures.mean_wait_s, one.mean_wait_s, 1e-5);
    EXPECT_EQ(r.measures.p95_wait_s, one.p95_wait_s);
    EXPECT_EQ(r.measures.max_wait_s, one.max_wait_s);
    EXPECT_NEAR(r.measures.util_in, one.util_in, 1e-8);
    EXPECT_EQ(r.measures.makespan_s, one.makespan_s);

    const auto policy = find_policy(one.policy, "");
    std::vector<test::OracleJob> jobs;
    for (const TraceJob& job : r.trace.jobs) {
      jobs.push_back({.submit = job.submit_s, .run = job.run_s, .estimate = job.estimate_s, .width = job.width});
    }
    test::ReplayOracle oracle(std::move(jobs), r.trace.machine, test::oracle_cost(one.policy), policy->backfill);
    const auto done = one.events == ReplayEvents::kBatch ? oracle.run_batch() : oracle.run_seq();
    for (std::size_t i = 0; i < done.size(); ++i) ASSERT_EQ(r.result.start_s[i], done[i].start) << "job " << i;
  }
}

TEST(ReplayLogs, TheDefaultPolicyKeepsItsPromisesAndWaitsLessThanEasy) {
  const std::string path = MUSTER_TEST_DATA "/generated.swf";
  const Replayed own = replayed(path, {}, "default", ReplayEvents::kBatch);
  const Replayed easy = replayed(path, {}, "easy", ReplayEvents::kBatch);
  EXPECT_EQ(own.result.broken_promises, 0U);
  EXPECT_LT(own.measures.avebsld, easy.measures.avebsld);
  EXPECT_LT(own.measures.mean_wait_s, easy.measures.mean_wait_s);
}

// --- the archive's logs ----------------------------------------------------------------------------------------

std::string traces_folder() {
  const char* given = std::getenv("MUSTER_TRACES");
  return given != nullptr ? given : MUSTER_TEST_DATA "/../../../shared/traces";
}
bool long_run() {
  return std::getenv("MUSTER_LONG") != nullptr;
}

struct ArchiveLog {
  const char* file;
  TraceFilter filter;
  std::uint64_t jobs;
};
const ArchiveLog kKth = {"KTH-SP2-1996-2.swf.gz", TraceFilter::kStrict, 28'481};
const ArchiveLog kCtc = {"CTC-SP2-1996-3.1-cln.swf.gz", TraceFilter::kStrict, 77'199};
const ArchiveLog kLublin = {"lublin_256.swf.gz", TraceFilter::kNone, 10'000};

struct Published {
  const ArchiveLog* log;
  const char* policy;
  double avebsld;      // to 3 decimals
  double mean_wait_s;  // to seconds
  std::int64_t max_wait_s;
  bool slow = false;
};
const Published kPublished[] = {{&kKth, "fcfs", 6814.973, 353776, 946685},
                                {&kKth, "easy", 92.688, 6835, 262194},
                                {&kKth, "easy-sjbf", 69.394, 5904, 284815},
                                {&kKth, "conservative", 88.967, 7316, 249058},
                                {&kKth, "sjf", 42.349, 4599, 678723},
                                {&kKth, "wfp3", 54.328, 5157, 337975},
                                {&kKth, "unicef", 50.012, 5096, 367847},
                                {&kCtc, "fcfs", 3651.566, 655557, 1730720, true},
                                {&kCtc, "easy", 48.837, 13943, 303954, true},
                                {&kCtc, "easy-sjbf", 30.105, 11818, 358973, true},
                                {&kCtc, "conservative", 55.927, 17642, 359456, true},
                                {&kCtc, "sjf", 50.119, 26134, 4480394, true},
                                {&kCtc, "wfp3", 32.580, 13201, 538053},
                                {&kCtc, "unicef", 28.140, 11911, 700249, true},
                                {&kLublin, "fcfs", 66502.476, 2388444, 4759976, true},
                                {&kLublin, "easy", 590.054, 97156, 1029731},
                                {&kLublin, "easy-sjbf", 219.558, 73394, 1445853},
                                {&kLublin, "conservative", 489.201, 131568, 994667, true},
                                {&kLublin, "sjf", 40.560, 59632, 9067006},
                                {&kLublin, "wfp3", 117.032, 61096, 2849520},
                                {&kLublin, "unicef", 85.120, 55829, 3917666}};

// With one pass for each event: AVEbsld of Gaussier et al., "Improving backfilling by using machine learning to predict
// running times", SC'15.
struct PublishedSeq {
  const ArchiveLog* log;
  const char* policy;
  bool perfect_estimates;
  double avebsld;
  bool slow = false;
};
const PublishedSeq kPublishedSeq[] = {
    {&kKth, "easy", false, 92.5765397336},       {&kKth, "easy-sjbf", false, 69.4054005803},
    {&kKth, "easy", true, 71.7223851124},        {&kKth, "easy-sjbf", true, 49.8477189313},
    {&kCtc, "easy", false, 49.5712902190, true}, {&kCtc, "easy-sjbf", false, 30.0410695214},
    {&kCtc, "easy", true, 37.1654014852, true},  {&kCtc, "easy-sjbf", true, 17.5716874376, true}};

bool is_left_out(const ArchiveLog& log, bool slow) {
  if (long_run()) return false;
  return slow || (test::kSlowness > 1 && &log != &kLublin);
}

class ArchiveLogs : public testing::Test {
 protected:
  void SetUp() override {
    for (const ArchiveLog* log : {&kKth, &kCtc, &kLublin}) {
      if (::access(path_of(*log).c_str(), R_OK) != 0) {
        GTEST_SKIP() << "there is no " << path_of(*log) << ": set MUSTER_TRACES to the folder with the logs";
      }
    }
  }
  static std::string path_of(const ArchiveLog& log) { return traces_folder() + "/" + log.file; }
  static Replayed run(const ArchiveLog& log, const std::string& policy, ReplayEvents events, bool perfect = false) {
    TraceOptions options;
    options.filter = log.filter;
    options.perfect_estimates = perfect;
    Replayed r = replayed(path_of(log), options, policy, events);
    EXPECT_EQ(r.measures.jobs, log.jobs);
    return r;
  }
};

TEST_F(ArchiveLogs, GiveThePublishedValuesInBatches) {
  for (const Published& one : kPublished) {
    if (is_left_out(*one.log, one.slow)) continue;
    SCOPED_TRACE(std::string(one.log->file) + " " + one.policy);
    const Replayed r = run(*one.log, one.policy, ReplayEvents::kBatch);
    EXPECT_NEAR(r.measures.avebsld, one.avebsld, 0.000'500'1);
    EXPECT_NEAR(r.measures.mean_wait_s, one.mean_wait_s, 0.500'1);
    EXPECT_EQ(r.measures.max_wait_s, one.max_wait_s);
  }
}

TEST_F(ArchiveLogs, GiveThePublishedValuesInSequence) {
  for (const PublishedSeq& one : kPublishedSeq) {
    if (is_left_out(*one.log, one.slow)) continue;
    SCOPED_TRACE(std::string(one.log->file) + " " + one.policy + (one.perfect_estimates ? ", perfect" : ""));
    const Replayed r = run(*one.log, one.policy, ReplayEvents::kSeq, one.perfect_estimates);
    EXPECT_NEAR(r.measures.avebsld, one.avebsld, 1e-8);
  }
}

double offered_load(const Trace& trace) {
  double work = 0;
  std::int64_t first = INT64_MAX;
  std::int64_t last = 0;
  for (const TraceJob& job : trace.jobs) {
    work += static_cast<double>(job.run_s) * static_cast<double>(job.width);
    first = std::min(first, job.submit_s);
    last = std::max(last, job.submit_s);
  }
  return work / (static_cast<double>(trace.machine) * static_cast<double>(last - first));
}

TEST_F(ArchiveLogs, TheDefaultPolicyReachesItsGoals) {
  struct Goal {
    const ArchiveLog* log;
    double avebsld;
    double mean_wait_s;
    std::int64_t max_wait_s;
  };
  for (const Goal& goal : {Goal{&kKth, 55, 5'200, 400'000}, Goal{&kCtc, 33, 13'300, 700'000}}) {
    if (is_left_out(*goal.log, false)) continue;
    SCOPED_TRACE(goal.log->file);
    const Replayed r = run(*goal.log, "default", ReplayEvents::kBatch);
    EXPECT_LE(r.measures.avebsld, goal.avebsld);
    EXPECT_LE(r.measures.mean_wait_s, goal.mean_wait_s);
    EXPECT_LE(r.measures.max_wait_s, goal.max_wait_s);
    EXPECT_NEAR(r.measures.util_in, offered_load(r.trace), 0.001);
    EXPECT_EQ(r.result.broken_promises, 0U);
  }
}

TEST_F(ArchiveLogs, PoliciesThatKeepPromisesBreakNone) {
  for (const ArchiveLog* log : {&kKth, &kLublin}) {
    if (is_left_out(*log, false)) continue;
    for (const char* policy : {"default", "easy", "easy-sjbf"}) {
      EXPECT_EQ(run(*log, policy, ReplayEvents::kBatch).result.broken_promises, 0U) << log->file << " " << policy;
    }
  }
}

}  // namespace
}  // namespace muster::sim
