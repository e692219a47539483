// The parts of the replay: orders of the literature, policies by name, the watch over promises, measures, the dump.
#include "sim/replay/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "sim/replay/dump.h"
#include "sim/replay/measures.h"
#include "sim/replay/orders.h"
#include "sim/replay/policies.h"
#include "sim/replay/promise_watch.h"
#include "tests/support/temp_dir.h"

namespace muster::sim {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

// --- orders ----------------------------------------------------------------------------------------------------

TEST(LiteratureOrder, PlacesKeepTheOrderOfDoubles) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const std::vector<double> ascending = {-kInf,  -1e300, -2.5, -1.0, -1e-300, -5e-324, 0.0,
                                         5e-324, 1e-300, 1.0,  2.5,  1e300,   kInf};
  for (std::size_t i = 1; i < ascending.size(); ++i) {
    EXPECT_LT(place_of_double(ascending[i - 1]), place_of_double(ascending[i])) << ascending[i];
  }
  EXPECT_EQ(place_of_double(-0.0), place_of_double(0.0));
  EXPECT_EQ(place_of_double(-2.5), -place_of_double(2.5));
}

JobSpec request(std::uint32_t width, std::int64_t estimate_s) {
  JobSpec spec;
  spec.queue = kReplayQueue;
  spec.ntasks = width;
  spec.cpus_per_task = 1;
  spec.time_limit = Duration::from_s(estimate_s);
  return spec;
}

TEST(LiteratureOrder, CostsAreThoseOfTheStudies) {
  const Instant since = Instant::from_s(1000);
  const Instant now = Instant::from_s(1700);
  const auto points = [&](LiteratureCost cost, std::uint32_t width, std::int64_t estimate_s) {
    return LiteratureOrder(cost).points(request(width, estimate_s), since, now);
  };
  const auto of = [](double value) { return -place_of_double(value); };
  EXPECT_EQ(points(LiteratureCost::kFcfs, 8, 60), of(1000));
  EXPECT_EQ(points(LiteratureCost::kSjf, 8, 60), of(60));
  EXPECT_EQ(points(LiteratureCost::kSaf, 8, 60), of(480));
  EXPECT_EQ(points(LiteratureCost::kWfp3, 8, 60), of(-std::pow(700.0 / 60.0, 3) * 8));
  EXPECT_EQ(points(LiteratureCost::kUnicef, 8, 60), of(-700.0 / (3.0 * 60)));
  EXPECT_EQ(points(LiteratureCost::kUnicef, 1, 60), of(-700.0 / 60)) << "one core counts as two";
}

TEST(LiteratureOrder, OfEqualRequestsTheOlderOneIsNeverBehind) {
  const Instant now = Instant::from_s(2'000'000);
  for (const LiteratureCost cost : {LiteratureCost::kFcfs, LiteratureCost::kSjf, LiteratureCost::kSaf,
                                    LiteratureCost::kWfp3, LiteratureCost::kUnicef}) {
    const LiteratureOrder order(cost);
    std::int64_t before = INT64_MAX;
    for (std::int64_t since = 1'990'000; since <= 2'000'000; since += 7) {
      const std::int64_t points = order.points(request(7, 901), Instant::from_s(since), now);
      ASSERT_LE(points, before);
      before = points;
    }
  }
}

// --- policies --------------------------------------------------------------------------------------------------

TEST(ReplayPolicies, EveryNameOfTheContractIsKnown) {
  for (const char* name : {"default", "fcfs", "easy", "easy-sjbf", "conservative", "sjf", "saf", "wfp3", "unicef"}) {
    EXPECT_TRUE(find_policy(name, "").ok()) << name;
    EXPECT_THAT(policy_names(), Contains(name));
  }
  EXPECT_EQ(find_policy("wfp3", "")->backfill, "easy");
  EXPECT_EQ(find_policy("wfp3", "none")->backfill, "none");
  EXPECT_EQ(find_policy("fcfs", "")->backfill, "none");
}

TEST(ReplayPolicies, TheDefaultOneIsTheSchedulersOwn) {
  const auto policy = find_policy("default", "");
  ASSERT_TRUE(policy.ok());
  const sched::PlanRules own = sched::Policy{}.rules;
  const sched::PlanRules& used = policy->policy.rules;
  EXPECT_EQ(used.backfill, own.backfill);
  EXPECT_EQ(used.backfill_order, own.backfill_order);
  EXPECT_EQ(used.promises, own.promises);
  EXPECT_EQ(used.keep_promises, own.keep_promises);
  const JobSpec spec = request(8, 60);
  EXPECT_EQ(policy->order->points(spec, Instant::from_s(10), Instant::from_s(99)),
            sched::DefaultOrder(sched::Policy{}).points(spec, Instant::from_s(10), Instant::from_s(99)));
}

TEST(ReplayPolicies, AnUnknownNameIsRefusedWithTheNearestOne) {
  EXPECT_EQ(find_policy("wpf3", "").error().message, "--policy: \"wpf3\" is unknown: did you mean wfp3?");
  EXPECT_THAT(find_policy("Easy", "").error().message, HasSubstr("did you mean easy?"));
  EXPECT_THAT(find_policy("random", "").error().message, HasSubstr("use one of default, fcfs, easy,"));
  EXPECT_THAT(find_policy("", "").error().message, HasSubstr("use one of"));
  EXPECT_EQ(find_policy("wfp3", "non").error().message, "--backfill: \"non\" is unknown: did you mean none?");
  EXPECT_THAT(find_policy("wfp3", "default").error().message, HasSubstr("--backfill: \"default\" is unknown"));
}

// --- replays small enough to follow by hand --------------------------------------------------------------------

Trace machine_of_four(std::vector<TraceJob> jobs) {
  Trace trace;
  trace.machine = 4;
  trace.jobs = std::move(jobs);
  return trace;
}
std::vector<std::int64_t> starts(const Trace& trace, const char* policy, ReplayEvents events = ReplayEvents::kBatch) {
  const auto found = find_policy(policy, "");
  EXPECT_TRUE(found.ok());
  ReplayOptions options;
  options.events = events;
  const auto result = replay(trace, *found, options);
  EXPECT_TRUE(result.ok());
  return result->start_s;
}

// number, submit, run, estimate, width
TEST(Replay, BackfillingFillsTheGapBeforeTheBlockedJob) {
  const Trace trace = machine_of_four({{1, 0, 100, 100, 3}, {2, 0, 10, 10, 4}, {3, 1, 99, 99, 1}, {4, 1, 50, 50, 1}});
  EXPECT_THAT(starts(trace, "fcfs"), ElementsAre(0, 100, 110, 110));
  EXPECT_THAT(starts(trace, "easy"), ElementsAre(0, 100, 1, 110));
  EXPECT_THAT(starts(trace, "easy-sjbf"), ElementsAre(0, 100, 110, 1));
  EXPECT_THAT(starts(trace, "conservative"), ElementsAre(0, 100, 1, 110));
}

TEST(Replay, ShortestFirstTellsLongEstimatesApartByASecond) {
  const Trace trace = machine_of_four(
      {{1, 0, 400'000, 400'000, 3}, {2, 1, 10, 10, 4}, {3, 2, 200'002, 200'002, 1}, {4, 2, 200'001, 200'001, 1}});
  EXPECT_THAT(starts(trace, "easy-sjbf"), ElementsAre(0, 400'000, 400'010, 2));
}

TEST(Replay, TiesGoBySubmissionAndThenByPlaceInTheFile) {
  const Trace trace = machine_of_four({{9, 5, 10, 10, 4}, {8, 5, 10, 10, 4}, {7, 0, 10, 10, 4}});
  for (const std::string& policy : policy_names()) {
    EXPECT_THAT(starts(trace, policy.c_str()), ElementsAre(10, 20, 0)) << policy;
  }
}

TEST(Replay, InSequenceEachEndHasAPassOfItsOwn) {
  // Two jobs end at 10, before their estimates. Behind the first end the wide job still waits for the second one, and
  // the small one slips in; a batch sees both ends at once.
  const Trace trace = machine_of_four({{1, 0, 10, 20, 2}, {2, 0, 10, 20, 2}, {3, 1, 30, 30, 4}, {4, 2, 5, 5, 2}});
  EXPECT_THAT(starts(trace, "easy", ReplayEvents::kBatch), ElementsAre(0, 0, 10, 40));
  EXPECT_THAT(starts(trace, "easy", ReplayEvents::kSeq), ElementsAre(0, 0, 15, 10));
}

TEST(Replay, InSequenceASubmissionSeesWhatShouldHaveEndedByItsEstimate) {
  // At 10 the first job ends as estimated and the others come, one by one: the wide one is not there yet when the
  // narrow one is looked at, because submissions come first and each has a pass.
  const Trace trace = machine_of_four({{1, 0, 10, 10, 4}, {2, 10, 50, 50, 1}, {3, 10, 5, 5, 4}});
  EXPECT_THAT(starts(trace, "sjf", ReplayEvents::kSeq), ElementsAre(0, 10, 60));
  EXPECT_THAT(starts(trace, "sjf", ReplayEvents::kBatch), ElementsAre(0, 15, 10));
}

TEST(Replay, APassThatStartsMoreThanOneSliceMayIsTheSamePass) {
  Trace trace;
  trace.machine = 5'000;
  trace.jobs.push_back({0, 0, 10, 10, 5'000});
  for (std::int64_t i = 1; i <= 5'000; ++i) trace.jobs.push_back({i, 1, 10, 10, 1});
  std::vector<std::int64_t> expected(5'001, 10);
  expected[0] = 0;
  for (const std::string& policy : policy_names()) EXPECT_EQ(starts(trace, policy.c_str()), expected) << policy;
}

TEST(Replay, AMachineMayBeLargerThanANode) {
  Trace trace;
  trace.machine = kReplayMachineMax;
  trace.jobs = {{1, 0, 10, 10, kReplayMachineMax - 1}, {2, 0, 10, 10, 2}, {3, 0, 10, 10, 1}};
  EXPECT_THAT(starts(trace, "easy"), ElementsAre(0, 10, 0));
}

TEST(Replay, TimesBeyondAllBoundsAreRefused) {
  Trace trace = machine_of_four({});
  for (std::int64_t i = 0; i < 20; ++i) trace.jobs.push_back({i, 0, kSwfValueMax, kSwfValueMax, 4});
  const auto result = replay(trace, *find_policy("default", ""), {});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kLimitReached);
}

TEST(Replay, TellsItsProgress) {
  Trace trace = machine_of_four({});
  for (std::int64_t i = 0; i < 10'000; ++i) trace.jobs.push_back({i, i, 1, 1, 4});
  std::vector<std::uint64_t> told;
  ReplayOptions options;
  options.keep_pass_times = true;
  options.progress = [&](std::uint64_t ended) { told.push_back(ended); };
  const auto result = replay(trace, *find_policy("fcfs", ""), options);
  ASSERT_TRUE(result.ok());
  EXPECT_GE(told.size(), 2U);
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  EXPECT_EQ(result->pass_ns.size(), result->passes);
}

// --- promises --------------------------------------------------------------------------------------------------

// A machine of ten cores. Jobs have a place in the order, a width and a limit; passes are given as the answers of a
// planner.
class Watch : public testing::Test {
 protected:
  void job(std::uint64_t id, std::int64_t points, std::int64_t cores, std::int64_t limit_s) {
    jobs_[JobId{id}] = {.standing = {.points = points, .since = {}, .id = JobId{id}},
                        .cores = cores,
                        .limit = Duration::from_s(limit_s)};
  }
  void runs(std::int64_t until_s, std::int64_t cores) {
    runs_.push_back({Instant::from_s(until_s), {.cores = cores}});
    std::sort(runs_.begin(), runs_.end(), [](const auto& a, const auto& b) { return a.until < b.until; });
  }
  using Promised = std::vector<std::pair<std::uint64_t, std::int64_t>>;
  void pass(std::int64_t now_s, const std::vector<std::uint64_t>& started, const Promised& promised) {
    std::vector<JobId> ids;
    for (const std::uint64_t id : started) ids.push_back(JobId{id});
    std::vector<sched::Promise> promises;
    for (const auto& [id, at_s] : promised)
      promises.push_back({.job = JobId{id}, .start = Instant::from_s(at_s), .slots = {}});
    watch_.observe({.now = Instant::from_s(now_s),
                    .machine = 10,
                    .runs = runs_,
                    .started = ids,
                    .promises = promises,
                    .job = [&](JobId id) { return jobs_.at(id); }});
    for (const std::uint64_t id : started) {
      runs(now_s + jobs_.at(JobId{id}).limit.seconds(), jobs_.at(JobId{id}).cores);
    }
  }

  std::map<JobId, PromiseWatch::Candidate> jobs_;
  std::vector<sched::Horizon::Hold> runs_;
  PromiseWatch watch_;
};

TEST_F(Watch, AJobDelayedByOneBehindItIsABrokenPromise) {
  runs(100, 6);
  job(1, 50, 8, 10);  // waits for the six cores
  job(2, 40, 4, 500);
  pass(0, {}, {{1, 100}});
  pass(1, {2}, {{1, 501}});
  EXPECT_EQ(watch_.broken(), 0U) << "not before it starts late";
  runs_.clear();
  pass(501, {1}, {});
  EXPECT_EQ(watch_.broken(), 1U);
}

TEST_F(Watch, ItIsFoundAlsoWhenThePlannerKeepsPromisingTheSame) {
  runs(100, 6);
  job(1, 50, 8, 10);
  job(2, 40, 4, 500);
  pass(0, {}, {{1, 100}});
  pass(1, {2}, {{1, 100}});
  pass(501, {1}, {});
  EXPECT_EQ(watch_.broken(), 1U);
}

TEST_F(Watch, AJobThatStandsBeforeMayDelay) {
  runs(100, 6);
  job(1, 50, 8, 10);
  job(2, 60, 4, 500);
  pass(0, {}, {{1, 100}});
  pass(1, {2}, {{1, 501}});
  pass(501, {1}, {});
  EXPECT_EQ(watch_.broken(), 0U);
}

TEST_F(Watch, ThePromiseOfAJobThatStandsBeforeMayDelay) {
  runs(100, 10);
  job(1, 50, 8, 10);
  job(2, 60, 8, 70);
  job(3, 40, 2, 500);
  pass(0, {}, {{1, 100}});
  // 2 came and takes the place of 1; what 3 takes is left over by both.
  runs_ = {};
  runs(100, 6);
  pass(1, {3}, {{2, 100}, {1, 170}});
  pass(170, {1}, {});
  EXPECT_EQ(watch_.broken(), 0U);
}

TEST_F(Watch, AHarmThatAnEarlyEndMadeGoodIsNone) {
  runs(100, 6);
  job(1, 50, 8, 10);
  job(2, 40, 4, 500);
  pass(0, {}, {{1, 100}});
  pass(1, {2}, {{1, 501}});
  runs_.clear();
  pass(90, {1}, {});
  EXPECT_EQ(watch_.broken(), 0U);
}

TEST_F(Watch, WhatIsLeftOverHarmsNobody) {
  runs(100, 6);
  job(1, 50, 8, 10);
  job(2, 40, 2, 500);  // two cores are left over beside 1
  job(3, 30, 2, 100);  // ends too late for 1 when 2 runs
  pass(0, {}, {{1, 100}});
  pass(1, {2}, {{1, 100}});
  pass(2, {3}, {{1, 102}});
  pass(102, {1}, {});
  EXPECT_EQ(watch_.broken(), 1U) << "by 3, not by 2";
}

TEST_F(Watch, AnEarlierPromiseReplacesTheOldOne) {
  runs(100, 6);
  runs(60, 1);
  job(1, 50, 8, 10);
  job(2, 60, 10, 1000);
  job(3, 40, 4, 500);
  pass(0, {}, {{1, 100}});
  // What held until 100 ends early, so 1 moves to 50; 3 will be in the way at 100, but not at 50.
  runs_.clear();
  runs(50, 6);
  jobs_[JobId{3}].cores = 2;
  pass(10, {3}, {{1, 50}});
  // 2 comes and stands before it.
  pass(20, {2}, {{1, 1020}});
  pass(1020, {1}, {});
  EXPECT_EQ(watch_.broken(), 0U);
}

// --- measures --------------------------------------------------------------------------------------------------

TEST(Measures, AreThoseOfTheFormulas) {
  // Waits 0, 10, 40; run times 100, 5 (counts as 10), 20.
  const Trace trace = machine_of_four({{1, 0, 100, 100, 2}, {2, 50, 5, 10, 4}, {3, 20, 20, 30, 1}});
  ReplayResult result;
  result.start_s = {0, 60, 60};
  result.broken_promises = 3;
  const Measures m = measure(trace, result);
  EXPECT_EQ(m.jobs, 3U);
  EXPECT_DOUBLE_EQ(m.avebsld, (1.0 + 15.0 / 10.0 + 60.0 / 20.0) / 3);
  EXPECT_DOUBLE_EQ(m.mean_wait_s, 50.0 / 3);
  EXPECT_EQ(m.p95_wait_s, 40);
  EXPECT_EQ(m.max_wait_s, 40);
  EXPECT_DOUBLE_EQ(m.util_in, 2.0 * 50 / (4 * 50)) << "only what runs before the last submission, at 50";
  EXPECT_EQ(m.makespan_s, 100);
}

TEST(Measures, TheSlowdownOfAShortJobIsAtLeastOne) {
  const Trace trace = machine_of_four({{1, 0, 1, 1, 1}});
  ReplayResult result;
  result.start_s = {0};
  EXPECT_DOUBLE_EQ(measure(trace, result).avebsld, 1.0);
  EXPECT_DOUBLE_EQ(measure(trace, result).util_in, 0.0) << "no span";
}

TEST(Measures, ThePercentileIsTheCeilingsOne) {
  Trace trace = machine_of_four({});
  ReplayResult result;
  for (std::int64_t i = 1; i <= 100; ++i) {
    trace.jobs.push_back({i, 0, 1, 1, 1});
    result.start_s.push_back(101 - i);
  }
  EXPECT_EQ(measure(trace, result).p95_wait_s, 95);
  trace.jobs.push_back({101, 0, 1, 1, 1});
  result.start_s.push_back(101);
  EXPECT_EQ(measure(trace, result).p95_wait_s, 96) << "ceil(0.95 * 101) = 96";
}

TEST(Measures, TheReportHasTheKeysOfTheContract) {
  const Trace trace = machine_of_four({{1, 0, 100, 100, 2}});
  ReplayResult result;
  result.start_s = {0};
  const std::string json =
      report_json(trace, result, ReportFacts{.policy = "easy", .backfill = "easy", .events = "seq"});
  for (const char* key : {"jobs", "avebsld", "mean_wait_s", "p95_wait_s", "max_wait_s", "util_in", "makespan_s",
                          "broken_promises", "scheduling_s", "bad_lines", "dropped_jobs", "machine_cores", "policy"}) {
    EXPECT_THAT(json, HasSubstr("\"" + std::string(key) + "\":")) << key;
  }
  EXPECT_THAT(json, testing::Not(HasSubstr("pass_p50_us")));
  result.pass_ns = {1000, 2000, 30000};
  EXPECT_THAT(report_json(trace, result, {}), HasSubstr("\"pass_p50_us\":2"));
  EXPECT_THAT(report_text(trace, result, {}), HasSubstr("longest 30.0 us"));
}

// --- dump ------------------------------------------------------------------------------------------------------

class Dump : public testing::Test {
 protected:
  Dump() : trace_(machine_of_four({{12, 0, 10, 10, 4}, {11, 0, 10, 10, 4}})) { result_.start_s = {0, 10}; }
  static std::string content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  test::TempDir dir_;
  Trace trace_;
  ReplayResult result_;
};

TEST_F(Dump, HasALineForEachJobInTheOrderOfTheFile) {
  ASSERT_TRUE(check_dump_path(dir_ / "starts").ok());
  EXPECT_TRUE(dir_.entries().empty()) << "the check leaves nothing behind";
  ASSERT_TRUE(write_dump(dir_ / "starts", trace_, result_).ok());
  EXPECT_EQ(content(dir_ / "starts"), "12 0\n11 10\n");
  EXPECT_THAT(dir_.entries(), ElementsAre("starts"));
}

TEST_F(Dump, ReplacesAFileWholeAndKeepsItsMode) {
  std::ofstream(dir_ / "starts") << std::string(100'000, 'x');
  ASSERT_EQ(::chmod((dir_ / "starts").c_str(), 0640), 0);
  ASSERT_EQ(::symlink("starts", (dir_ / "link").c_str()), 0);
  ASSERT_TRUE(check_dump_path(dir_ / "link").ok());
  ASSERT_TRUE(write_dump(dir_ / "link", trace_, result_).ok());
  EXPECT_EQ(content(dir_ / "starts"), "12 0\n11 10\n");
  struct stat status {};
  ASSERT_EQ(::stat((dir_ / "starts").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0640U);
  ASSERT_EQ(::lstat((dir_ / "link").c_str(), &status), 0);
  EXPECT_TRUE(S_ISLNK(status.st_mode)) << "the link stays one";
}

TEST_F(Dump, WhereItCannotBeWrittenIsSaidBefore) {
  const auto refusal = [](const std::string& path) {
    const Status status = check_dump_path(path);
    return status.ok() ? "" : status.error().message;
  };
  EXPECT_THAT(refusal(dir_.path()), HasSubstr("Is a directory"));
  EXPECT_THAT(refusal(dir_ / "no/such/folder"), HasSubstr("--dump: cannot write"));
  EXPECT_THAT(refusal(dir_ / "starts/"), HasSubstr("cannot write"));
}

TEST_F(Dump, ADeviceIsWrittenToAndNotReplaced) {
  ASSERT_TRUE(check_dump_path("/dev/null").ok());
  ASSERT_TRUE(write_dump("/dev/null", trace_, result_).ok());
  struct stat status {};
  ASSERT_EQ(::stat("/dev/null", &status), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
  EXPECT_THAT(write_dump("/dev/full", trace_, result_).error().message, HasSubstr("No space left"));
}

}  // namespace
}  // namespace muster::sim
