// What a job that waits is told, and what it is promised.
#include <algorithm>

#include "core/engine/engine.h"
#include "core/sched/order.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

// It was promised a start at the end of a job without a time limit, and nobody behind it was promised one.
TEST(Promises, AJobBehindAnEndlessOneTakesNoPromise) {
  Scenario s;
  s.node("n1", 4);
  s.node("n2", 4);
  JobSpec endless = job(1, 1, 1);
  endless.nodelist = {"n1"};
  endless.time_limit = Duration::infinite();
  s.submit(endless);
  JobSpec hour = job(1, 1, 1);
  hour.nodelist = {"n2"};
  s.submit(hour);
  EXPECT_EQ(s.schedule(), 2U);
  JobSpec never = job(1, 1, 4);
  never.nodelist = {"n1"};
  const JobId blocked = s.submit(never);
  JobSpec next = job(1, 1, 4);
  next.nodelist = {"n2"};
  const JobId second = s.submit(next);
  s.plan_all();
  EXPECT_FALSE(s.state.jobs.at(blocked).promised_start.is_set());
  EXPECT_TRUE(s.state.jobs.at(second).promised_start.is_set());
  const engine::Explainer explainer(s.state, s.rules, s.now());
  EXPECT_FALSE(explainer.explain(s.state.jobs.at(blocked)).planned_start.has_value());
  s.drop_effects();
}

TEST(Order, JobsWithoutATimeLimitAge) {
  const auto points = [](std::int64_t waited_s) {
    return sched::age_points(Duration::from_s(waited_s), Duration::infinite(), 1, 4);
  };
  EXPECT_GT(points(30 * 86'400), sched::age_points(Duration::from_s(10), Duration::from_s(60), 1, 4))
      << "waiting as long as the longest limit that counts";
  EXPECT_EQ(points(100), sched::age_points(Duration::from_s(100), sched::kAgeLimitMax, 1, 4));
}

TEST(Why, NamesTheJobThatBlocksAQueueWithoutBackfill) {
  Scenario s;
  s.rules.rules.backfill = sched::Backfill::kNone;
  s.node("n1", 4);
  s.submit(job(1, 1, 1));
  s.schedule();
  const JobId head = s.submit(job(1, 1, 4));
  const JobId next = s.submit(job(1, 1, 1));
  EXPECT_EQ(s.schedule(), 0U);
  const engine::Explainer explainer(s.state, s.rules, s.now());
  const sched::Reason reason = explainer.reason(s.state.jobs.at(next));
  EXPECT_EQ(reason.word, "Priority");
  EXPECT_NE(reason.detail.find("job " + std::to_string(head.value) + " stands before it"), std::string::npos)
      << reason.detail;
  EXPECT_TRUE(explainer.estimated_start(s.state.jobs.at(head)).has_value());
  s.drop_effects();
}

// A listing of jobs of many users looked at all nodes again for each user.
TEST(Why, JobsOfAllUsersThatAskForTheSameShareAReasonInAListing) {
  Scenario s;
  s.node("n1", 4);
  s.submit(job(1, 1, 4));
  s.schedule();
  std::vector<JobId> waiting;
  for (const char* user : {"alice", "bob", "carol"}) {
    JobSpec spec = job(1, 1, 2);
    spec.user = user;
    waiting.push_back(s.submit(spec));
  }
  JobSpec other = job(1, 1, 3);
  other.user = "bob";
  waiting.push_back(s.submit(other));
  const engine::Explainer explainer(s.state, s.rules, s.now());
  sched::ReasonBook book;
  for (const JobId id : waiting) {
    EXPECT_EQ(explainer.reason(s.state.jobs.at(id), book).detail,
              explainer.explain(s.state.jobs.at(id)).blockers[0].text);
  }
  EXPECT_EQ(explainer.looked_at(), 2U);
  // What the book knows is not looked for again, by another explainer either.
  const engine::Explainer next(s.state, s.rules, s.now());
  EXPECT_EQ(next.reason(s.state.jobs.at(waiting[0]), book).word, "Resources");
  EXPECT_EQ(next.looked_at(), 0U);
  EXPECT_TRUE(next.estimated_start(s.state.jobs.at(waiting[0]), book).has_value());
  s.drop_effects();
}

TEST(Why, NamesEveryPromiseThatAJobWouldDelay) {
  Scenario s;
  s.rules.rules.promises = 2;
  s.node("n1", 4);
  s.node("n2", 4);
  for (const char* node : {"n1", "n2"}) {
    JobSpec some = job(1, 1, 2);
    some.nodelist = {node};
    s.submit(some);
  }
  s.schedule();
  for (const char* node : {"n1", "n2"}) {
    JobSpec all = job(1, 1, 4);
    all.nodelist = {node};
    s.submit(all);
  }
  JobSpec both = job(2, 2, 2);
  both.time_limit = Duration::from_s(100'000);
  const JobId id = s.submit(both);
  EXPECT_EQ(s.plan_all().matched, 0U);
  const sched::Reason reason = engine::Explainer(s.state, s.rules, s.now()).reason(s.state.jobs.at(id));
  EXPECT_NE(reason.detail.find("job 3 is promised"), std::string::npos) << reason.detail;
  EXPECT_NE(reason.detail.find("job 4 is promised"), std::string::npos) << reason.detail;
  s.drop_effects();
}

TEST(Why, NamesEveryLimitOfTheQueueAndOffersOnlyWhatItAdmits) {
  Scenario s;
  s.node("n1", 16);
  s.submit(job(1, 1, 16));
  s.schedule();
  const JobId id = s.submit(job(1, 1, 16));
  s.rules.queues[0].cpus_max = 8;
  s.rules.queues[0].time_max = Duration::from_s(1'800);
  const engine::Explainer explainer(s.state, s.rules, s.now());
  const sched::Explanation why = explainer.explain(s.state.jobs.at(id));
  EXPECT_EQ(std::count_if(why.blockers.begin(), why.blockers.end(),
                          [](const sched::Blocker& b) { return b.kind == "queue_limit"; }),
            2);
  EXPECT_TRUE(why.changes.empty()) << why.changes.front().option << " alone does not do: both limits are broken";
  s.rules.queues[0].time_max = Duration::infinite();
  const sched::Explanation one = engine::Explainer(s.state, s.rules, s.now()).explain(s.state.jobs.at(id));
  ASSERT_EQ(one.changes.size(), 1U);
  EXPECT_EQ(one.changes[0].option, "--cpus-per-task");
  EXPECT_EQ(one.changes[0].value, "8");
  s.drop_effects();
}

TEST(Why, OffersNothingToAJobThatWaitsForItsBegin) {
  Scenario s;
  s.node("n1", 4);
  JobSpec later = job(1, 1, 4);
  later.exclusive = true;
  later.begin = s.now() + Duration::from_s(3'600);
  const JobId id = s.submit(later);
  const sched::Explanation why = engine::Explainer(s.state, s.rules, s.now()).explain(s.state.jobs.at(id));
  EXPECT_TRUE(why.changes.empty()) << why.changes.front().option;
}

TEST(Why, TellsOfADeadlineThatTheEarliestStartIsBehind) {
  Scenario s;
  s.node("n1", 1);
  s.submit(job(1, 1));  // an hour
  s.schedule();
  JobSpec hurried = job(1, 1);
  hurried.time_limit = Duration::from_s(3'600);
  hurried.deadline = s.now() + Duration::from_s(5'400);
  const JobId id = s.submit(hurried);
  const sched::Explanation why = engine::Explainer(s.state, s.rules, s.now()).explain(s.state.jobs.at(id));
  EXPECT_TRUE(
      std::any_of(why.blockers.begin(), why.blockers.end(), [](const auto& b) { return b.kind == "deadline"; }));
  ASSERT_EQ(why.changes.size(), 1U);
  EXPECT_EQ(why.changes[0].option, "--time");
  EXPECT_EQ(why.changes[0].value, "00:29:00");
  s.drop_effects();
}

TEST(TestOnly, AHeldJobHasNoStart) {
  Scenario s;
  s.node("n1", 1);
  JobSpec spec = job(1, 1);
  spec.hold = true;
  const engine::Explainer explainer(s.state, s.rules, s.now());
  spec.queue = "main";
  spec.time_limit = Duration::from_s(60);
  EXPECT_FALSE(explainer.place_of_new(spec).has_value());
  ASSERT_FALSE(explainer.blockers_of_new(spec).empty());
  EXPECT_EQ(explainer.blockers_of_new(spec).front().kind, "held");
  spec.hold = false;
  EXPECT_TRUE(explainer.place_of_new(spec).has_value());
}

}  // namespace
}  // namespace muster::testing
