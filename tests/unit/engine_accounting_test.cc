// Accounts, users and QOS in the engine: what administrators change, what submissions may use, and limits at the start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const Caller kAdmin{"root", true};

class EngineAccounting : public ::testing::Test {
 protected:
  ~EngineAccounting() override { s.drop_effects(); }

  static ChangeAccounting command(AccountingKind kind, AccountingVerb verb, const std::string& name,
                                  const std::vector<AccountingSetting>& settings) {
    return {.caller = kAdmin, .kind = kind, .verb = verb, .name = name, .settings = settings};
  }
  void account(const std::string& name, const std::vector<AccountingSetting>& settings = {}) {
    s.run(command(AccountingKind::kAccount, AccountingVerb::kAdd, name, settings));
  }
  void user(const std::string& name, const std::vector<AccountingSetting>& settings) {
    s.run(command(AccountingKind::kUser, AccountingVerb::kAdd, name, settings));
  }
  void qos(const std::string& name, const std::vector<AccountingSetting>& settings = {}) {
    s.run(command(AccountingKind::kQos, AccountingVerb::kAdd, name, settings));
  }
  std::string refuse(AccountingKind kind, AccountingVerb verb, const std::string& name,
                     const std::vector<AccountingSetting>& settings = {}) {
    return s.refused(command(kind, verb, name, settings)).message;
  }
  static JobSpec job_of(const std::string& user, const std::string& account = "", std::uint32_t cpus = 1) {
    JobSpec spec = job(1, 1, cpus);
    spec.user = user;
    spec.account = account;
    return spec;
  }

  Scenario s;
};

constexpr auto kAccountKind = AccountingKind::kAccount;
constexpr auto kUserKind = AccountingKind::kUser;
constexpr auto kQosKind = AccountingKind::kQos;
constexpr auto kAdd = AccountingVerb::kAdd;
constexpr auto kModify = AccountingVerb::kModify;
constexpr auto kDelete = AccountingVerb::kDelete;

TEST_F(EngineAccounting, OnlyAdministratorsChangeThem) {
  ChangeAccounting c = command(kAccountKind, kAdd, "physics", {});
  c.caller = {"alice", false};
  const Error error = s.refused(c);
  EXPECT_EQ(error.code, ErrorCode::kPermissionDenied);
}

TEST_F(EngineAccounting, BadNamesAndSettingsAreNamed) {
  account("physics", {{"shares", "2"}});
  EXPECT_THAT(refuse(kAccountKind, kAdd, "a b"), HasSubstr("\"a b\" is no name of an account"));
  EXPECT_THAT(refuse(kUserKind, kAdd, "a b"), HasSubstr("login name"));
  EXPECT_THAT(refuse(kAccountKind, kAdd, "physics"), HasSubstr("account physics exists already"));
  EXPECT_THAT(refuse(kAccountKind, kModify, "phisics", {{"shares", "2"}}), HasSubstr("did you mean physics?"));
  EXPECT_THAT(refuse(kAccountKind, kModify, "physics", {{"share", "2"}}), HasSubstr("did you mean shares?"));
  EXPECT_THAT(refuse(kAccountKind, kModify, "physics", {{"shares", "1000001"}}),
              AllOf(HasSubstr("shares"), HasSubstr("1000000")));
  EXPECT_THAT(refuse(kAccountKind, kModify, "physics", {{"shares", "-1"}}), HasSubstr("shares"));
  EXPECT_THAT(refuse(kAccountKind, kModify, "physics", {{"cpus", "many"}}), HasSubstr("cpus"));
  EXPECT_THAT(refuse(kAccountKind, kModify, "physics", {{"job.time", "soon"}}), HasSubstr("job.time"));
  EXPECT_THAT(refuse(kQosKind, kAdd, "q", {{"priority", "100001"}}), HasSubstr("priority"));
  EXPECT_THAT(refuse(kQosKind, kAdd, "q", {{"usage_factor", "10001"}}), HasSubstr("usage_factor"));
  EXPECT_THAT(refuse(kQosKind, kAdd, "q", {{"preempt_mode", "kill"}}), HasSubstr("use queue, requeue"));
}

TEST_F(EngineAccounting, AddingAgainWhatIsThereJustSoIsDone) {
  const auto again = [&](AccountingKind kind, const std::string& name, const std::vector<AccountingSetting>& settings) {
    EXPECT_EQ(s.run(command(kind, kAdd, name, settings)).facts.size(), 1U);
    EXPECT_TRUE(s.run(command(kind, kAdd, name, settings)).facts.empty()) << "a client that lost the answer asks again";
  };
  again(kAccountKind, "physics", {{"shares", "3"}});
  again(kQosKind, "high", {{"priority", "3"}});
  again(kUserKind, "alice", {{"account", "physics"}, {"jobs", "4"}});
  again(kUserKind, "bob", {});
  EXPECT_THAT(refuse(kAccountKind, kAdd, "physics", {{"shares", "4"}}), HasSubstr("exists already"));
  EXPECT_THAT(refuse(kUserKind, kAdd, "alice", {{"account", "physics"}}), HasSubstr("is in account physics already"));
}

TEST_F(EngineAccounting, TheTreeStaysATree) {
  account("root");
  account("a", {{"parent", "root"}});
  account("b", {{"parent", "a"}});
  EXPECT_THAT(refuse(kAccountKind, kAdd, "c", {{"parent", "missing"}}), HasSubstr("there is no account missing"));
  EXPECT_THAT(refuse(kAccountKind, kModify, "a", {{"parent", "b"}}), HasSubstr("account b stands below a"));
  EXPECT_THAT(refuse(kAccountKind, kModify, "a", {{"parent", "a"}}), HasSubstr("stands below a"));
  EXPECT_THAT(refuse(kAccountKind, kDelete, "a"), HasSubstr("has accounts below it (b)"));
  std::string above = "b";
  for (std::size_t i = 3; i < kAccountDepthMax; ++i) {
    const std::string name = "d" + std::to_string(i);
    account(name, {{"parent", above}});
    above = name;
  }
  EXPECT_THAT(refuse(kAccountKind, kAdd, "deep", {{"parent", above}}), HasSubstr("at most 16"));
  account("x");
  account("y", {{"parent", "x"}});
  EXPECT_THAT(refuse(kAccountKind, kModify, "x", {{"parent", above}}), HasSubstr("18 accounts above one another"));
}

TEST_F(EngineAccounting, WhatIsUsedCannotBeDeleted) {
  account("physics");
  user("alice", {{"account", "physics"}});
  qos("high");
  s.run(command(kAccountKind, kModify, "physics", {{"allowed_qos", "high"}}));
  EXPECT_THAT(refuse(kAccountKind, kDelete, "physics"), HasSubstr("has users (alice)"));
  EXPECT_THAT(refuse(kQosKind, kDelete, "high"), HasSubstr("is named by account physics"));
  JobSpec spec = job_of("alice");
  spec.qos = "high";
  const JobId id = s.submit(spec);
  const std::string jobs = "0 running and 1 waiting jobs (" + std::to_string(id.value) + ")";
  EXPECT_THAT(refuse(kAccountKind, kDelete, "physics"), HasSubstr(jobs));
  EXPECT_THAT(refuse(kUserKind, kDelete, "alice"), HasSubstr(jobs));
  EXPECT_THAT(refuse(kQosKind, kDelete, "high"), HasSubstr(jobs));
  s.run(CancelJobs{kAdmin, JobSelector{.items = {{id, false, {}}}, .user = {}, .queue = {}, .name = {}, .states = {}},
                   0});
  s.run(command(kAccountKind, kModify, "physics", {{"allowed_qos", ""}}));
  s.run(command(kUserKind, kDelete, "alice", {}));
  s.run(command(kAccountKind, kDelete, "physics", {}));
  s.run(command(kQosKind, kDelete, "high", {}));
  EXPECT_TRUE(s.state.accounts.empty());
}

TEST_F(EngineAccounting, PreemptionHasNoCycles) {
  qos("low");
  qos("middle", {{"preempts", "low"}});
  qos("high", {{"preempts", "middle,low"}});
  EXPECT_THAT(refuse(kQosKind, kModify, "low", {{"preempts", "low"}}), HasSubstr("cannot preempt itself"));
  EXPECT_THAT(refuse(kQosKind, kModify, "low", {{"preempts", "high"}}), HasSubstr("for ever"));
  EXPECT_THAT(refuse(kQosKind, kModify, "low", {{"preempts", "nothing"}}), HasSubstr("there is no QOS nothing"));
  s.run(command(kQosKind, kModify, "high", {{"preempts", "-low"}}));
  EXPECT_EQ(s.state.accounts.qos("high")->preempts, std::vector<std::string>{"middle"});
  s.run(
      command(kQosKind, kModify, "high", {{"preempts", "+low"}, {"preempt_grace", "90s"}, {"preempt_mode", "cancel"}}));
  EXPECT_EQ(s.state.accounts.qos("high")->preempts, (std::vector<std::string>{"low", "middle"}));
  EXPECT_EQ(s.state.accounts.qos("high")->preempt_grace, Duration::from_s(90));
}

TEST_F(EngineAccounting, DefaultsAreFilledIn) {
  qos("normal");
  account("top", {{"default_qos", "normal"}});
  account("physics", {{"parent", "top"}});
  account("chem", {{"parent", "top"}});
  user("alice", {{"account", "physics"}});
  s.run(command(kUserKind, kAdd, "alice", {{"account", "chem"}, {"shares", "3"}}));
  EXPECT_THAT(refuse(kUserKind, kAdd, "alice", {{"account", "chem"}}), HasSubstr("is in account chem already"));
  EXPECT_THAT(refuse(kUserKind, kModify, "alice", {{"shares", "2"}}), HasSubstr("name it with account=NAME"));
  EXPECT_THAT(refuse(kUserKind, kModify, "alice", {{"default_account", "top"}}),
              HasSubstr("has no place in account top"));
  const JobId id = s.submit(job_of("alice"));
  EXPECT_EQ(engine::find_job(s.state, id)->spec->account, "physics");
  EXPECT_EQ(engine::find_job(s.state, id)->spec->qos, "normal");
  s.run(command(kUserKind, kModify, "alice", {{"default_account", "chem"}}));
  EXPECT_EQ(engine::find_job(s.state, s.submit(job_of("alice")))->spec->account, "chem");
  EXPECT_EQ(engine::find_job(s.state, s.submit(job_of("bob")))->spec->account, "") << "he has none";
}

TEST_F(EngineAccounting, WithoutAccountsTextsAreFree) {
  JobSpec spec = job_of("alice", "any text");
  spec.qos = "other text";
  s.submit(spec);
  account("physics");
  EXPECT_THAT(s.submit_refused(spec).message, HasSubstr("there is no account any text"));
  spec.account = "physics";
  s.submit(spec);  // no QOS is defined
  qos("normal");
  EXPECT_THAT(s.submit_refused(spec).message, HasSubstr("there is no QOS other text"));
}

TEST_F(EngineAccounting, EnforcementWantsAPlace) {
  s.rules.enforce_accounts = true;
  EXPECT_THAT(s.submit_refused(job_of("alice")).message, HasSubstr("alice has no default account"));
  account("physics");
  account("chem");
  EXPECT_THAT(s.submit_refused(job_of("alice", "physics")).message, HasSubstr("has no place in account physics"));
  user("alice", {{"account", "physics"}});
  s.submit(job_of("alice"));
  EXPECT_THAT(s.submit_refused(job_of("alice", "chem")).message, HasSubstr("has no place in account chem"));
}

TEST_F(EngineAccounting, AllowedQos) {
  for (const char* name : {"a", "b", "c"}) {
    qos(name);
  }
  account("top", {{"allowed_qos", "a,b"}});
  account("physics", {{"parent", "top"}});
  user("alice", {{"account", "physics"}, {"allowed_qos", "b,c"}});
  JobSpec spec = job_of("alice");
  spec.qos = "c";
  EXPECT_THAT(s.submit_refused(spec).message, HasSubstr("account physics may use a, b"));
  spec.qos = "a";
  EXPECT_THAT(s.submit_refused(spec).message, HasSubstr("user alice may use b, c"));
  spec.qos = "b";
  s.submit(spec);
  EXPECT_THAT(refuse(kAccountKind, kModify, "top", {{"default_qos", "c"}}), HasSubstr("is not in allowed_qos"));
}

TEST_F(EngineAccounting, WaitingJobsAreCountedAtSubmission) {
  account("physics", {{"pending", "5"}});
  JobSpec array = job_of("alice", "physics");
  array.array = *parse_array_spec("0-3");
  s.submit(array);
  JobSpec two = array;
  two.array = *parse_array_spec("0-1");
  const Error error = s.submit_refused(two);
  EXPECT_EQ(error.code, ErrorCode::kRefused) << "clients ask again where a limit may be gone soon";
  EXPECT_THAT(error.message,
              HasSubstr("account physics may have 5 waiting jobs: has 4, this would add 2 (AssocMaxSubmitJobLimit)"));
  s.submit(job_of("bob", "physics"));
}

TEST_F(EngineAccounting, WhatCanNeverStartIsRefused) {
  account("physics", {{"cpus", "4"}});
  EXPECT_THAT(s.submit_refused(job_of("alice", "physics", 5)).message,
              AllOf(HasSubstr("can never start"), HasSubstr("account physics may use 4 CPUs"),
                    HasSubstr("muster account modify physics cpus=5")));
  s.submit(job_of("alice", "physics", 4));
}

TEST_F(EngineAccounting, AJobAtALimitNeitherStartsNorBlocks) {
  s.node("n1", 8);
  account("physics", {{"cpus", "4"}});
  const JobId first = s.submit(job_of("alice", "physics", 3));
  const JobId second = s.submit(job_of("alice", "physics", 2));
  const JobId other = s.submit(job_of("bob", "", 5));
  EXPECT_EQ(s.schedule(), 2U);
  EXPECT_TRUE(engine::find_job(s.state, first)->is_active());
  EXPECT_TRUE(engine::find_job(s.state, other)->is_active());
  const Job* waits = engine::find_job(s.state, second);
  ASSERT_FALSE(waits->is_active());
  const engine::Explainer why(s.state, s.rules, s.state.now);
  EXPECT_EQ(why.reason(*waits).word, "AssocGrpCpuLimit");
  EXPECT_EQ(
      why.reason(*waits).detail,
      "account physics may use 4 CPUs: has 3, this job needs 2: muster account modify physics cpus=5 would allow it");
  EXPECT_FALSE(why.estimated_start(*waits).has_value()) << "nobody knows when";
  s.report("n1", other, true);
  EXPECT_EQ(s.schedule(), 0U);
  s.run(command(kAccountKind, kModify, "physics", {{"cpus", "5"}}));
  EXPECT_EQ(s.schedule(), 1U);
}

TEST_F(EngineAccounting, APlanThatBreaksALimitIsRefused) {
  s.node("n1", 8);
  account("physics", {{"jobs", "1"}});
  s.submit(job_of("alice", "physics"));
  s.submit(job_of("alice", "physics"));
  s.run(command(kAccountKind, kModify, "physics", {{"jobs", ""}}));
  const sched::Plan plan = engine::plan(s.state, s.rules, {}, s.state.now);
  ASSERT_EQ(plan.placements.size(), 2U);
  s.run(command(kAccountKind, kModify, "physics", {{"jobs", "1"}}));
  const engine::Decision decision = s.run(ApplyPlan{plan.placements});
  EXPECT_EQ(decision.matched, 1U);
  ASSERT_EQ(decision.notes.size(), 1U);
  EXPECT_THAT(decision.notes.front(), HasSubstr("a limit of its account, user or QOS is reached"));
}

TEST_F(EngineAccounting, TasksOfAnArrayCountSingly) {
  s.node("n1", 8);
  qos("few", {{"user.jobs", "3"}});
  JobSpec spec = job_of("alice");
  spec.qos = "few";
  spec.array = *parse_array_spec("0-9");
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.schedule(), 3U);
  spec.user = "bob";
  s.submit(spec);
  EXPECT_EQ(s.schedule(), 3U);
  s.report("n1", id, true);
  EXPECT_EQ(s.schedule(), 1U);
}

TEST_F(EngineAccounting, AWholeNodeCountsWhole) {
  s.node("n1", 8);
  account("physics", {{"cpus", "6"}});
  JobSpec spec = job_of("alice", "physics", 2);
  spec.exclusive = true;
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.schedule(), 0U);
  const engine::Explainer why(s.state, s.rules, s.state.now);
  EXPECT_THAT(why.reason(*engine::find_job(s.state, id)).detail, HasSubstr("has 0, this job needs 8"));
}

TEST_F(EngineAccounting, AChangeThatStrandsJobsSaysWhich) {
  account("physics");
  const JobId id = s.submit(job_of("alice", "physics", 5));
  const engine::Decision decision = s.run(command(kAccountKind, kModify, "physics", {{"job.cpus", "4"}}));
  ASSERT_EQ(decision.notes.size(), 1U);
  EXPECT_THAT(decision.notes.front(), AllOf(HasSubstr("can never start under this: job " + std::to_string(id.value)),
                                            HasSubstr("a job of account physics may use 4 CPUs, this job needs 5")));
}

TEST_F(EngineAccounting, BillingIsConfiguredOnce) {
  EXPECT_TRUE(s.run(ConfigureBilling{BillingRules{}}).facts.empty()) << "the default needs no fact";
  const BillingRules rules{.cpu = 50, .gpu = 700, .memory_gib = 3, .half_life = Duration::from_s(3600)};
  EXPECT_EQ(s.run(ConfigureBilling{rules}).facts.size(), 1U);
  EXPECT_TRUE(s.run(ConfigureBilling{rules}).facts.empty());
  EXPECT_EQ(s.state.accounts.billing(), rules);
}

TEST_F(EngineAccounting, FairShareDecidesBetweenUsers) {
  s.node("n1", 1);
  account("physics");
  user("alice", {{"account", "physics"}});
  user("bob", {{"account", "physics"}});
  const JobId first = s.submit(job_of("alice"));
  EXPECT_EQ(s.schedule(), 1U);
  const JobId again = s.submit(job_of("alice"));
  const JobId bobs = s.submit(job_of("bob"));
  s.report("n1", first, true);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(engine::find_job(s.state, bobs)->is_active()) << "he has used nothing";
  EXPECT_FALSE(engine::find_job(s.state, again)->is_active());
}

}  // namespace
}  // namespace muster::testing
