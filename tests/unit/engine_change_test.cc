// Changes of several jobs in one command, of accounts, reservations and settings: what they must look at.
#include "core/engine/engine.h"
#include "core/engine/settings.h"
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

}  // namespace
}  // namespace muster::testing
