// Cases around limits, cycles and reasons that once went wrong.
#include <algorithm>

#include "core/engine/engine.h"
#include "core/engine/settings.h"
#include "core/sched/order.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

const Caller kRoot{"root", true};

template <typename Set>
UpdateJobs change(std::vector<JobId> jobs, std::vector<SpecField> fields, Set set) {
  UpdateJobs c{.caller = kRoot, .jobs = {}, .change = {}};
  for (const JobId id : jobs) {
    c.jobs.items.push_back({id, false, {}});
  }
  c.change.fields = std::move(fields);
  set(c.change.values);
  return c;
}

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

TEST(Update, OneCommandCannotMakeACycleOfSeveralJobs) {
  Scenario s;
  s.node("n1", 1);
  const auto named = [](const char* name, Dependency dependency = {}) {
    JobSpec spec = job(1, 1);
    spec.name = name;
    spec.dependency = std::move(dependency);
    return spec;
  };
  s.submit(named("A"));
  s.schedule();
  const JobId second = s.submit(named("B"));
  const JobId third = s.submit(named("A", Dependency{{DependencyTerm{DependencyKind::kSingleton, {}, {}}}, false}));
  s.run(change({second}, {SpecField::kDependency}, [&](JobSpec& v) {
    v.dependency = Dependency{{DependencyTerm{DependencyKind::kAfterAny, {third, false, 0}, {}}}, false};
  }));
  const auto renamed = s.run(change({second, third}, {SpecField::kName}, [](JobSpec& v) { v.name = "X"; }));
  ASSERT_EQ(renamed.notes.size(), 1U);
  EXPECT_NE(renamed.notes[0].find("wait for each other for ever"), std::string::npos) << renamed.notes[0];
  EXPECT_EQ(s.state.jobs.at(third).spec->name, "A");
  s.drop_effects();
}

TEST(Update, ManyJobsAreNotBroughtIntoAFullAccount) {
  Scenario s;
  s.node("n1", 1);
  const auto add = [&s](const std::string& name, std::vector<AccountingSetting> settings) {
    s.run(ChangeAccounting{.caller = kRoot,
                           .kind = AccountingKind::kAccount,
                           .verb = AccountingVerb::kAdd,
                           .name = name,
                           .settings = std::move(settings)});
  };
  add("open", {});
  add("small", {{"pending", "2"}});
  std::vector<JobId> jobs;
  for (int i = 0; i < 3; ++i) {
    JobSpec spec = job(1, 1);
    spec.account = "open";
    jobs.push_back(s.submit(spec));
  }
  const auto moved = s.run(change(jobs, {SpecField::kAccount}, [](JobSpec& v) { v.account = "small"; }));
  EXPECT_EQ(moved.matched, 2U);
  ASSERT_EQ(moved.notes.size(), 1U);
  EXPECT_NE(moved.notes[0].find("may have 2 waiting jobs"), std::string::npos) << moved.notes[0];
  // Those that are there may be changed.
  EXPECT_TRUE(s.run(change({jobs[0]}, {SpecField::kNice}, [](JobSpec& v) { v.nice = 3; })).notes.empty());
}

TEST(Update, ACommentCostsNoPromise) {
  Scenario s;
  s.node("n1", 1);
  s.submit(job(1, 1));
  s.schedule();
  const JobId id = s.submit(job(1, 1));
  s.plan_all();
  const Instant promised = s.state.jobs.at(id).promised_start;
  ASSERT_TRUE(promised.is_set());
  EXPECT_FALSE(s.state.jobs.at(id).promised_place.empty());
  s.run(change({id}, {SpecField::kComment}, [](JobSpec& v) { v.comment = "x"; }));
  EXPECT_EQ(s.state.jobs.at(id).promised_start, promised);
  s.run(change({id}, {SpecField::kTimeLimit}, [](JobSpec& v) { v.time_limit = Duration::from_s(60); }));
  EXPECT_FALSE(s.state.jobs.at(id).promised_start.is_set());
  EXPECT_TRUE(s.state.jobs.at(id).promised_place.empty());
  s.drop_effects();
}

TEST(Reservation, LooksAtTheLimitThatAnAttemptHasNow) {
  Scenario s;
  s.node("n1", 1);
  const JobId id = s.submit(job(1, 1));  // an hour
  s.schedule();
  s.run(change({id}, {SpecField::kTimeLimit}, [](JobSpec& v) { v.time_limit = Duration::from_s(10'000); }));
  MakeReservation c;
  c.caller = kRoot;
  c.name = "r";
  c.create = true;
  c.start = s.now() + Duration::from_s(5'000);
  c.duration = Duration::from_s(600);
  c.nodes = std::vector<std::string>{"n1"};
  c.users = std::vector<std::string>{"alice"};
  EXPECT_NE(s.refused(c).message.find("running job 1 "), std::string::npos);
  s.drop_effects();
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

TEST(Accounts, AListOfQosAdmitsNoJobWithoutOne) {
  Scenario s;
  s.node("n1", 1);
  const auto add = [&s](AccountingKind kind, const std::string& name, std::vector<AccountingSetting> settings) {
    s.run(ChangeAccounting{
        .caller = kRoot, .kind = kind, .verb = AccountingVerb::kAdd, .name = name, .settings = std::move(settings)});
  };
  add(AccountingKind::kQos, "normal", {});
  add(AccountingKind::kAccount, "physics", {{"allowed_qos", "normal"}});
  JobSpec spec = job(1, 1);
  spec.account = "physics";
  EXPECT_NE(s.submit_refused(spec).message.find("a job without --qos"), std::string::npos);
  spec.qos = "normal";
  s.submit(spec);
}

TEST(Settings, LicencesThatJobsWaitForAreNotTakenAway) {
  Scenario s;
  s.rules.licenses = {{"matlab", 2}};
  s.node("n1", 1);
  JobSpec spec = job(1, 1);
  spec.licenses = {{"matlab", 2}};
  const JobId id = s.submit(spec);
  sched::Policy next = s.rules;
  next.licenses = {{"matlab", 1}};
  const auto refused =
      engine::decide_settings(s.state, s.rules, next, engine::ChangeSettings{.caller = kRoot, .changes = {}}, s.now());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find(std::to_string(id.value) + " (it asks for 2 of licence matlab)"),
            std::string::npos)
      << refused.error().message;
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
