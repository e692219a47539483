// Decay of use, fair share and limits, as values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "core/sched/decay.h"
#include "core/sched/fair_share.h"
#include "core/sched/limits.h"
#include "core/sched/schedule.h"

namespace muster::sched {
namespace {

constexpr Instant kStart = Instant::from_s(1'700'000'000);
constexpr Duration kDay = Duration::from_s(86'400);

long double to_real(Uint128 value) {
  return static_cast<long double>(static_cast<std::uint64_t>(value >> 64U)) * 18446744073709551616.0L +
         static_cast<long double>(static_cast<std::uint64_t>(value));
}

TEST(Decay, PowersOfTwoAreWithinTheirBound) {
  const long double one = std::exp2l(62);
  EXPECT_EQ(exp2_negative_q63(0), std::uint64_t{1} << 63U);
  EXPECT_EQ(exp2_negative_q63(Uint128{1} << 62U), std::uint64_t{1} << 62U);
  EXPECT_EQ(exp2_negative_q63(Uint128{63} << 62U), 1U);
  EXPECT_EQ(exp2_negative_q63(Uint128{64} << 62U), 0U);
  std::mt19937_64 random(1);  // the same values each time: the bound is a claim about all of them
  long double below = 0;
  long double above = 0;
  for (int i = 0; i < 200'000; ++i) {
    const std::uint64_t x = random() >> (random() % 62U);
    const long double exact = std::ldexp(std::exp2l(-static_cast<long double>(x) / one), 63);
    const long double error = static_cast<long double>(exp2_negative_q63(x)) - exact;
    below = std::max(below, -error);
    above = std::max(above, error);
  }
  EXPECT_LE(below, 186.0L);
  EXPECT_LE(above, 1.0L) << "more than the comparison's own rounding";
}

TEST(Decay, HalvesAfterEachHalfLife) {
  const Uint128 used = Uint128{123'456'789} << 60U;
  EXPECT_EQ(decayed(used, Duration{}, kDay), used);
  EXPECT_EQ(decayed(used, kDay, kDay), used >> 1U);
  EXPECT_EQ(decayed(used, Duration::from_s(86'400 * 5), kDay), used >> 5U);
  EXPECT_EQ(decayed(used, Duration::from_s(86'400 * 200), kDay), Uint128{0});
  EXPECT_EQ(decayed(used, kDay, Duration{}), used) << "a half-life of zero forgets nothing";
}

TEST(Decay, ChargesTheIntegralOfWhatIsForgotten) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 20'000; ++i) {
    const auto half_life = Duration::from_s(static_cast<std::int64_t>(1 + random() % (86'400 * 3'650)));
    const auto span = Duration::from_us(static_cast<std::int64_t>(1 + (random() >> (random() % 40U + 12U))));
    const Uint128 rate = 1 + (random() >> (random() % 50U));
    const long double h = static_cast<long double>(half_life.us);
    const long double exact =
        to_real(rate) * h / std::log(2.0L) * -std::expm1(-static_cast<long double>(span.us) / h * std::log(2.0L));
    const long double got = to_real(charged(rate, span, half_life));
    EXPECT_NEAR(static_cast<double>(got / exact), 1.0, 2e-6)
        << "rate " << static_cast<double>(to_real(rate)) << " span " << span.us << " half-life " << half_life.us;
  }
  EXPECT_EQ(charged(300, Duration::from_s(10), Duration{}), Uint128{3'000'000'000});
}

TEST(Decay, ManySmallStepsAreAsGoodAsOne) {
  const Uint128 rate = 10'000;
  Uint128 used = 0;
  Duration done{};
  std::mt19937_64 random(3);
  while (done < kDay) {
    const auto step = Duration::from_us(static_cast<std::int64_t>(1 + random() % 2'000'000));
    used = saturating_add(decayed(used, step, kDay), charged(rate, step, kDay));
    done = done + step;
  }
  const Uint128 once = charged(rate, done, kDay);
  EXPECT_NEAR(static_cast<double>(to_real(used) / to_real(once)), 1.0, 1e-6);
}

TEST(Decay, NothingOverflows) {
  EXPECT_EQ(saturating_add(kUseMax, kUseMax), kUseMax);
  EXPECT_LE(charged(Uint128{1} << 127U, Duration::infinite(), Duration{}), kUseMax);
  EXPECT_LE(charged(Uint128{1} << 127U, Duration::infinite(), Duration::from_s(86'400 * 3'650)), kUseMax);
  EXPECT_LE(decayed(kUseMax, Duration::from_us(1), kDay), kUseMax);
}

// ---------------------------------------------------------------- accounts

Account account(const std::string& name, const std::string& parent, std::uint32_t shares) {
  Account a;
  a.name = name;
  a.parent = parent;
  a.shares = shares;
  return a;
}
User user(const std::string& name, const std::string& account, std::uint32_t shares) {
  User u;
  u.name = name;
  u.default_account = account;
  u.associations = {Association{.account = account, .shares = shares, .all = {}, .job = {}}};
  return u;
}
JobSpec spec(const std::string& user, const std::string& account, std::uint32_t cpus = 1, const std::string& qos = "") {
  JobSpec s;
  s.user = user;
  s.account = account;
  s.qos = qos;
  s.nodes_min = 1;
  s.ntasks = cpus;
  s.cpus_per_task = 1;
  s.time_limit = Duration::from_s(3600);
  return s;
}
NodeShare share(std::uint32_t cores, std::uint32_t gpus = 0) {
  NodeShare s;
  s.node = NodeIndex{0};
  s.cores = IndexSet::range(0, cores);
  s.gpus = IndexSet::range(0, gpus);
  return s;
}

// A job that runs from `from` for so many seconds.
void run(Accounts& accounts, const JobSpec& s, const NodeShare& held, Instant from, Duration time) {
  const Instant end = from + s.time_limit;
  accounts.add_running(JobId{1}, s, {&held}, end, from);
  accounts.give_back(JobId{1}, s, held, end, from + time);
  accounts.remove_running(JobId{1}, s, end);
}

// The tree of the example in Slurm's page: A (40) with B (30) and C (10), D (60) with E (25) and F (35); one user in each of
// B, C and E, two in F.
class Tree : public testing::Test {
 protected:
  Tree() {
    accounts.configure(BillingRules{.half_life = {}}, kStart);
    for (const auto& [name, parent, shares] : std::vector<std::tuple<const char*, const char*, std::uint32_t>>{
             {"A", "", 40}, {"D", "", 60}, {"B", "A", 30}, {"C", "A", 10}, {"E", "D", 25}, {"F", "D", 35}}) {
      accounts.set(account(name, parent, shares), kStart);
    }
    accounts.set(user("u1", "B", 1), kStart);
    accounts.set(user("u2", "C", 1), kStart);
    accounts.set(user("u3", "E", 1), kStart);
    accounts.set(user("u4", "F", 1), kStart);
    accounts.set(user("u5", "F", 1), kStart);
  }
  Accounts accounts;
};

constexpr double kQ60 = 1152921504606846976.0;

TEST_F(Tree, WithoutUseEverybodyHasTheBestFactor) {
  const FairShare shares(accounts, kStart);
  for (const auto& [u, a] : {std::pair("u1", "B"), std::pair("u4", "F")}) {
    EXPECT_EQ(shares.of(a, u).factor_q16, 65'536U);
  }
  EXPECT_EQ(shares.of("nowhere", "u1").factor_q16, 0U);
}

TEST_F(Tree, TheClassicFormulaByHand) {
  // CPU seconds: u1 200, u4 300, u5 500; everything 1000.
  const Duration step = Duration::from_s(100);
  run(accounts, spec("u1", "B"), share(2), kStart, step);
  run(accounts, spec("u4", "F"), share(3), kStart + step, step);
  run(accounts, spec("u5", "F"), share(5), kStart + step + step, step);
  const FairShare shares(accounts, kStart + Duration::from_s(300));
  EXPECT_EQ(accounts.used("", "", kStart + Duration::from_s(300)), Uint128{1000} * kUseUnitsPerCpuSecond);
  const auto expect = [&](const FairShare::Standing& s, double share, double use, double effective) {
    EXPECT_NEAR(static_cast<double>(s.shares) / kQ60, share, 1e-9);
    EXPECT_NEAR(static_cast<double>(s.use) / kQ60, use, 1e-9);
    EXPECT_NEAR(static_cast<double>(s.effective) / kQ60, effective, 1e-9);
    EXPECT_NEAR(s.factor_q16 / 65536.0, std::exp2(-effective / share), 2e-5);
  };
  expect(shares.of_account("A"), 0.4, 0.2, 0.2);
  expect(shares.of_account("B"), 0.4 * 0.75, 0.2, 0.2);  // all of A's use is its own
  expect(shares.of("B", "u1"), 0.3, 0.2, 0.2);
  // C has used nothing, and a quarter of what its sibling used counts for it.
  expect(shares.of_account("C"), 0.1, 0.0, 0.05);
  expect(shares.of_account("D"), 0.6, 0.8, 0.8);
  expect(shares.of_account("E"), 0.25, 0.0, 0.8 * 25 / 60);
  expect(shares.of_account("F"), 0.35, 0.8, 0.8);
  expect(shares.of("F", "u4"), 0.175, 0.3, 0.3 + 0.5 * 0.5);
  expect(shares.of("F", "u5"), 0.175, 0.5, 0.5 + 0.3 * 0.5);
  // A user without a place stands with the account.
  EXPECT_EQ(shares.of("F", "guest").factor_q16, shares.of_account("F").factor_q16);
}

TEST_F(Tree, UseIsForgottenByHalves) {
  accounts.configure(BillingRules{.half_life = kDay}, kStart);
  run(accounts, spec("u1", "B"), share(1), kStart, Duration::from_s(1000));
  const Uint128 now = accounts.used("B", "u1", kStart + Duration::from_s(1000));
  const Uint128 later = accounts.used("B", "u1", kStart + Duration::from_s(1000) + kDay);
  EXPECT_EQ(later, now >> 1U);
  EXPECT_EQ(accounts.used("A", "", kStart + Duration::from_s(1000)), now);
}

TEST_F(Tree, GpusMemoryAndTheQosAreCharged) {
  accounts.configure(BillingRules{.cpu = 100, .gpu = 1600, .memory_gib = 25, .half_life = {}}, kStart);
  Qos half;
  half.name = "scavenger";
  half.usage_factor = 50;
  accounts.set(half, kStart);
  NodeShare s = share(4, 2);
  s.mem_mib = 8 * 1024;
  run(accounts, spec("u1", "B", 4, "scavenger"), s, kStart, Duration::from_s(10));
  // (4 + 2 * 16 + 8 / 4) * 10 s / 2
  EXPECT_EQ(accounts.used("B", "u1", kStart + kDay), Uint128{190} * kUseUnitsPerCpuSecond);
}

TEST_F(Tree, AnAccountThatMovesTakesItsUseAlong) {
  run(accounts, spec("u1", "B"), share(2), kStart, Duration::from_s(100));
  const Instant now = kStart + Duration::from_s(100);
  const NodeShare held = share(3);
  accounts.add_running(JobId{7}, spec("u1", "B"), {&held}, now + Duration::from_s(3600), now);
  accounts.set(account("B", "D", 30), now);
  EXPECT_EQ(accounts.used("A", "", now), Uint128{0});
  EXPECT_EQ(accounts.used("D", "", now), Uint128{200} * kUseUnitsPerCpuSecond);
  EXPECT_EQ(accounts.used("D", "", now + Duration::from_s(10)), Uint128{230} * kUseUnitsPerCpuSecond);
  EXPECT_EQ(accounts.in_use({HolderKind::kAccount, "A", ""}), InUse{});
  EXPECT_EQ(accounts.in_use({HolderKind::kAccount, "D", ""}).cpus, 3U);
  EXPECT_EQ(accounts.in_use({HolderKind::kAccountUser, "D", "u1"}).jobs, 1U);
  EXPECT_EQ(accounts.shares_below("A"), 10U);
  EXPECT_EQ(accounts.shares_below("D"), 90U);
}

TEST_F(Tree, ContradictionsChangeNothing) {
  const Accounts before = accounts;
  accounts.set(account("A", "B", 1), kStart);        // below itself
  accounts.set(account("G", "missing", 1), kStart);  // nowhere
  accounts.remove_account("A", kStart);              // has others below it
  accounts.remove_account("missing", kStart);
  accounts.remove_user("missing");
  accounts.remove_qos("missing", kStart);
  EXPECT_EQ(accounts, before);
}

TEST_F(Tree, JobsOfAnAccountThatIsDefinedLaterAreCounted) {
  const NodeShare held = share(2);
  const JobSpec s = spec("eve", "late", 2);
  accounts.add_running(JobId{9}, s, {&held}, kStart + s.time_limit, kStart);
  accounts.add_pending(s, 3);
  accounts.set(account("late", "A", 5), kStart + Duration::from_s(60));
  EXPECT_EQ(accounts.in_use({HolderKind::kAccount, "A", ""}).cpus, 2U);
  EXPECT_EQ(accounts.in_use({HolderKind::kAccount, "A", ""}).pending, 3U);
  // It is charged from then on.
  EXPECT_EQ(accounts.used("late", "", kStart + Duration::from_s(61)), Uint128{2} * kUseUnitsPerCpuSecond);
  EXPECT_EQ(accounts.used("A", "", kStart + Duration::from_s(61)), Uint128{2} * kUseUnitsPerCpuSecond);
}

// ---------------------------------------------------------------- limits

TEST_F(Tree, EveryLimitHasItsWordAndItsSentence) {
  Account a = account("A", "", 40);
  a.all.cpus = 10;
  a.per_user.jobs = 1;
  accounts.set(a, kStart);
  Qos q;
  q.name = "long";
  q.per_user.gpus = 4;
  q.all.cpu_minutes = 100;
  accounts.set(q, kStart);
  const NodeShare held = share(8, 3);
  const JobSpec running = spec("u1", "B", 8, "long");
  accounts.add_running(JobId{1}, running, {&held}, kStart + running.time_limit, kStart);
  const Instant now = kStart + Duration::from_s(3540);  // 8 CPUs have a minute left

  JobSpec next = spec("u1", "B", 4, "long");
  next.gpus = 2;
  next.time_limit = Duration::from_s(1800);
  const LimitBook book(accounts, now);
  EXPECT_FALSE(book.allows(next, least_demand(next)));
  const std::vector<LimitHit> hits = book.hits(next, least_demand(next));
  std::vector<std::string> texts;
  for (const LimitHit& hit : hits) {
    texts.push_back(hit.word + ": " + hit.text + " | " + hit.command);
  }
  const std::vector<std::string> expected{
      "AssocGrpCpuLimit: account A may use 10 CPUs: has 8, this job needs 4 | muster account modify A cpus=12",
      "AssocMaxJobsLimit: each user in account A may run 1 job at a time: user u1 has 1, this job needs 1 | "
      "muster account modify A user.jobs=2",
      "QOSGrpCPURunMinutesLimit: QOS long may have 100 CPU minutes left to run: has 8, this job needs 120 | "
      "muster qos modify long cpu_minutes=128",
      "QOSMaxGRESPerUser: each user in QOS long may use 4 GPUs: user u1 has 3, this job needs 2 | "
      "muster qos modify long user.gpus=5"};
  EXPECT_EQ(texts, expected);
  EXPECT_FALSE(book.retry_at().has_value()) << "an earlier limit forbids it, which no time alone lifts";
}

TEST_F(Tree, RunMinutesPass) {
  Qos q;
  q.name = "long";
  q.all.cpu_minutes = 60;
  accounts.set(q, kStart);
  const NodeShare held = share(1);
  const JobSpec running = spec("u1", "B", 1, "long");
  accounts.add_running(JobId{1}, running, {&held}, kStart + running.time_limit, kStart);
  JobSpec next = running;
  next.time_limit = Duration::from_s(600);
  const LimitBook at_once(accounts, kStart);
  EXPECT_FALSE(at_once.allows(next, least_demand(next)));
  EXPECT_EQ(at_once.retry_at(), std::optional(kStart + Duration::from_s(600)));
  EXPECT_FALSE(LimitBook(accounts, kStart + Duration::from_s(599)).allows(next, least_demand(next)));
  EXPECT_TRUE(LimitBook(accounts, kStart + Duration::from_s(600)).allows(next, least_demand(next)));
  // What runs beyond its limit has nothing left, and is no credit for others.
  EXPECT_EQ(cpu_us_left(accounts, {HolderKind::kQos, "long", ""}, kStart + kDay), Uint128{0});
}

TEST_F(Tree, AJobWithoutLimitHasEndlessMinutes) {
  Qos q;
  q.name = "long";
  q.all.cpu_minutes = 1'000'000;
  accounts.set(q, kStart);
  JobSpec endless = spec("u1", "B", 1, "long");
  endless.time_limit = Duration::infinite();
  EXPECT_TRUE(never_allowed(accounts, endless).has_value());
  EXPECT_FALSE(never_allowed(accounts, spec("u1", "B", 1, "long")).has_value());
}

TEST_F(Tree, APromiseKeepsItsRoom) {
  Account a = account("A", "", 40);
  a.all.jobs = 2;
  accounts.set(a, kStart);
  const NodeShare held = share(1);
  const JobSpec s = spec("u1", "B");
  accounts.add_running(JobId{1}, s, {&held}, kStart + s.time_limit, kStart);
  LimitBook book(accounts, kStart);
  book.reserve(s, least_demand(s), kStart + Duration::from_s(1800));
  EXPECT_FALSE(book.allows(s, least_demand(s))) << "it would run when the promised job starts";
  JobSpec brief = s;
  brief.time_limit = Duration::from_s(1800);
  EXPECT_TRUE(book.allows(brief, least_demand(brief))) << "it is over by then";
}

TEST_F(Tree, WhatOneJobMayAskFor) {
  Account a = account("A", "", 40);
  a.job.time = Duration::from_s(1800);
  a.job.cpus = 3;
  accounts.set(a, kStart);
  auto hit = never_allowed(accounts, spec("u1", "B", 4));
  ASSERT_TRUE(hit.has_value());
  EXPECT_EQ(hit->word, "AssocMaxWallDurationPerJobLimit");
  EXPECT_EQ(hit->text, "a job of account A may have a time limit of 00:30:00, this job has 01:00:00");
  JobSpec brief = spec("u1", "B", 4);
  brief.time_limit = Duration::from_s(60);
  hit = never_allowed(accounts, brief);
  ASSERT_TRUE(hit.has_value());
  EXPECT_EQ(hit->word, "AssocMaxCpuPerJobLimit");
}

// ---------------------------------------------------------------- points

TEST_F(Tree, TermsOfPoints) {
  Qos q;
  q.name = "high";
  q.priority = 8;
  accounts.set(q, kStart);
  Policy policy;
  QueuePolicy main;
  main.name = "main";
  main.factor = 3;
  policy.queues = {main};
  JobSpec s = spec("u1", "B", 4, "high");
  s.queue = "main";
  s.nice = 100;
  const DefaultOrder plain(policy);
  EXPECT_EQ(plain.terms(s, kStart, kStart).qos, 0);
  const DefaultOrder order(policy, &accounts, kStart);
  const PriorityTerms t = order.terms(s, kStart, kStart + Duration::from_s(3600));
  EXPECT_EQ(t.age, age_points(Duration::from_s(3600), s.time_limit, 4, policy.age_exponent));
  EXPECT_EQ(t.size, 0);
  EXPECT_EQ(t.queue, 3 << 16);
  EXPECT_EQ(t.qos, 8 << 16);
  EXPECT_EQ(t.fair_share, 16 << 16);
  EXPECT_EQ(t.nice, -(4 << 16));
  EXPECT_EQ(order.points(s, kStart, kStart + Duration::from_s(3600)), t.sum());
  EXPECT_EQ(order.standing(s), t.sum() - t.age);
  policy.weights = {.age = 2, .size = -3, .queue = 0, .qos = 5, .fair_share = 0};
  const DefaultOrder weighed(policy, &accounts, kStart);
  const PriorityTerms w = weighed.terms(s, kStart, kStart + Duration::from_s(3600));
  EXPECT_EQ(w.age, 2 * t.age);
  EXPECT_EQ(w.size, -3 * (2 << 16));
  EXPECT_EQ(w.queue, 0);
  EXPECT_EQ(w.qos, 40 << 16);
  EXPECT_EQ(w.fair_share, 0);
}

TEST(Points, NeutralWithoutAccounts) {
  const Policy policy;
  const Accounts none;
  const DefaultOrder order(policy, &none, kStart);
  JobSpec s = spec("anyone", "some text", 4, "other text");
  EXPECT_EQ(order.points(s, kStart, kStart + kDay), age_points(kDay, s.time_limit, 4, policy.age_exponent));
}

}  // namespace
}  // namespace muster::sched
