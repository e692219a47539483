// Windows of reservations, licences over time, and what the engine makes of both.
#include <gtest/gtest.h>

#include "core/sched/licenses.h"
#include "core/sched/windows.h"
#include "tests/support/engine_scenario.h"

namespace muster {
namespace {

using testing::job;
using testing::Scenario;

constexpr Instant at(std::int64_t s) {
  return Instant::from_s(s);
}
constexpr Duration secs(std::int64_t s) {
  return Duration::from_s(s);
}

Reservation reservation(std::int64_t start, std::int64_t duration, std::int64_t every = 0) {
  Reservation r;
  r.name = "r";
  r.start = at(start);
  r.duration = secs(duration);
  r.every = secs(every);
  r.nodes = {"n1"};
  r.users = {"alice"};
  return r;
}

// ---------------------------------------------------------------- windows

TEST(Windows, AreFoundBeforeWithinBetweenAndAfter) {
  const Reservation once = reservation(1'000, 100);
  EXPECT_EQ(window_after(once, at(0)), (Window{at(1'000), at(1'100)}));
  EXPECT_EQ(window_after(once, at(1'099)), (Window{at(1'000), at(1'100)}));
  EXPECT_EQ(window_after(once, at(1'100)), std::nullopt);
  const Reservation again = reservation(1'000, 100, 500);
  EXPECT_EQ(window_after(again, at(1'100)), (Window{at(1'500), at(1'600)}));
  EXPECT_EQ(window_after(again, at(501'099)), (Window{at(501'000), at(501'100)}));
  EXPECT_EQ(window_after(again, at(501'100)), (Window{at(501'500), at(501'600)}));
  EXPECT_TRUE(window_after(reservation(1'000, 500, 500), at(9'999))->start == at(1'000));
}

TEST(Windows, OverlapIsFoundHoweverLateItComes) {
  EXPECT_TRUE(windows_overlap(reservation(0, 100), reservation(99, 100)));
  EXPECT_FALSE(windows_overlap(reservation(0, 100), reservation(100, 100)));
  EXPECT_TRUE(windows_overlap(reservation(0, 100, 1'000), reservation(86'400'050, 10)));
  EXPECT_FALSE(windows_overlap(reservation(0, 100, 1'000), reservation(86'400'150, 10)));
  EXPECT_FALSE(windows_overlap(reservation(86'400'000, 100, 1'000), reservation(50, 10)));
  // Every 6 and every 10: the starts come as near as 1 to each other, but no nearer than a multiple of 2 allows.
  EXPECT_TRUE(windows_overlap(reservation(0, 2, 6), reservation(3, 1, 10)));
  EXPECT_FALSE(windows_overlap(reservation(0, 1, 6), reservation(3, 1, 10)));
}

sched::Windows windows_of(std::vector<Reservation> reservations) {
  std::map<std::string, Reservation> all;
  for (Reservation& r : reservations) {
    all.emplace(r.name, r);
  }
  sched::Windows windows;
  windows.rebuild(all, {{"n1", NodeIndex{0}}, {"n2", NodeIndex{1}}});
  return windows;
}

TEST(Windows, LetOthersRunBeforeAndBetween) {
  const sched::Windows windows = windows_of({reservation(1'000, 100, 500)});
  const NodeIndex n1{0};
  EXPECT_TRUE(windows.allows(n1, at(900), at(1'000), ""));
  EXPECT_FALSE(windows.allows(n1, at(901), at(1'001), ""));
  EXPECT_TRUE(windows.allows(NodeIndex{1}, at(901), at(1'001), ""));
  EXPECT_EQ(windows.next_start(n1, at(950), secs(100), ""), at(1'100));
  EXPECT_EQ(windows.next_start(n1, at(1'150), secs(400), ""), at(1'600));
  EXPECT_EQ(windows.next_start(n1, at(0), secs(400), ""), at(0));
  EXPECT_EQ(windows.next_start(n1, at(601), secs(401), ""), std::nullopt) << "it fits between no two windows";
  EXPECT_EQ(windows.next_start(n1, at(0), secs(1'000), ""), at(0));
}

TEST(Windows, LetMembersRunWithinThemOnly) {
  const sched::Windows windows = windows_of({reservation(1'000, 100, 500)});
  const NodeIndex n1{0};
  EXPECT_EQ(windows.next_start(n1, at(0), secs(100), "r"), at(1'000));
  EXPECT_EQ(windows.next_start(n1, at(1'050), secs(100), "r"), at(1'500));
  EXPECT_EQ(windows.next_start(n1, at(1'050), secs(50), "r"), at(1'050));
  EXPECT_EQ(windows.next_start(n1, at(0), secs(111), "r"), std::nullopt);
  EXPECT_EQ(windows.next_start(NodeIndex{1}, at(0), secs(10), "r"), std::nullopt);
  // The planner comes a moment after the window's begin.
  EXPECT_TRUE(windows.allows(n1, at(1'003), at(1'103), "r"));
  EXPECT_FALSE(windows.allows(n1, at(1'011), at(1'111), "r"));
  Reservation next = reservation(1'100, 10);
  next.name = "s";
  const sched::Windows close = windows_of({reservation(1'000, 100), next});
  EXPECT_FALSE(close.allows(n1, at(1'003), at(1'103), "r")) << "another window follows at once";
}

TEST(Windows, SayWhenTheyChange) {
  const sched::Windows windows = windows_of({reservation(1'000, 100, 500)});
  EXPECT_EQ(windows.next_change(at(0)), at(1'000));
  EXPECT_EQ(windows.next_change(at(1'000)), at(1'100));
  EXPECT_EQ(windows.next_change(at(1'100)), at(1'500));
  EXPECT_EQ(windows_of({reservation(1'000, 100)}).next_change(at(1'100)), std::nullopt);
}

// ---------------------------------------------------------------- licences

TEST(Licenses, AreReadSortedAndCheckedByName) {
  EXPECT_EQ(*parse_licenses("b, a:2", "--licenses"), (LicenseCounts{{"a", 2}, {"b", 1}}));
  for (const char* text : {"", ",", "a:0", "a:x", "a:-1", "a b", "a:1,a:1", "a:9999999999"}) {
    const auto bad = parse_licenses(text, "--licenses");
    ASSERT_FALSE(bad.ok()) << text;
    EXPECT_NE(bad.error().message.find("--licenses"), std::string::npos) << bad.error().message;
  }
  EXPECT_EQ(*merged_licenses({{"b", 1}, {"a", 2}, {"b", 3}}, "x"), (LicenseCounts{{"a", 2}, {"b", 4}}));
}

TEST(LicenseLine, KnowsWhenEnoughAreFreeForLongEnough) {
  sched::LicenseHolds holds;
  holds.hold({{"a", 3}}, at(100));
  const LicenseTotals totals = {{"a", 4}};
  sched::LicenseLine line(totals, holds, at(0));
  EXPECT_TRUE(line.covers({{"a", 1}}, at(0), at(1'000)));
  EXPECT_FALSE(line.covers({{"a", 2}}, at(0), at(10)));
  EXPECT_EQ(line.earliest({{"a", 2}}, secs(50), at(0)), at(100));
  line.take({{"a", 3}}, at(120), at(200));
  EXPECT_EQ(line.earliest({{"a", 2}}, secs(50), at(0)), at(200));
  EXPECT_EQ(line.earliest({{"a", 2}}, secs(20), at(0)), at(100));
  line.give_back({{"a", 3}}, at(120), at(200));
  EXPECT_EQ(line.earliest({{"a", 2}}, secs(50), at(0)), at(100));
  EXPECT_EQ(line.earliest({{"a", 5}}, secs(1), at(0)), std::nullopt);
  EXPECT_EQ(line.earliest({{"b", 1}}, secs(1), at(0)), std::nullopt);
}

TEST(LicenseLine, WithFewerThanAreHeldNothingStartsUntilTheyAreBack) {
  sched::LicenseHolds holds;
  holds.hold({{"a", 3}}, at(100));
  const LicenseTotals totals = {{"a", 1}};
  const sched::LicenseLine line(totals, holds, at(0));
  EXPECT_EQ(line.free("a", at(0), at(10)), -2);
  EXPECT_EQ(line.earliest({{"a", 1}}, secs(10), at(0)), at(100));
}

// ---------------------------------------------------------------- the engine

constexpr std::int64_t kNow = 1'700'000'000;

MakeReservation create(const std::string& name, std::int64_t from_now, std::int64_t duration) {
  MakeReservation c;
  c.caller = {"root", true};
  c.name = name;
  c.create = true;
  c.start = at(kNow + from_now);
  c.duration = secs(duration);
  c.nodes = std::vector<std::string>{"n1"};
  c.users = std::vector<std::string>{"alice"};
  return c;
}

bool mentions(const Error& error, const std::string& text) {
  return error.message.find(text) != std::string::npos;
}

TEST(Reservation, BadOnesAreRefusedWithASentence) {
  Scenario s;
  s.node("n1", 4);
  s.node("n2", 4);
  const auto refused = [&](auto change) {
    MakeReservation c = create("night", 3'600, 3'600);
    change(c);
    return s.refused(c);
  };
  EXPECT_TRUE(mentions(refused([](auto& c) { c.start = at(kNow - 3'600); }), "in the past"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.duration = secs(0); }), "--duration is not positive"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.every = secs(1'800); }), "--every 00:30:00 is shorter than --duration"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.every = secs(30); }), "--every is shorter than"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.nodes = std::vector<std::string>{"n11"}; }), "did you mean n1?"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.nodes = std::vector<std::string>{}; }), "--nodes is missing"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.users = std::vector<std::string>{}; }), "nobody could use"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.maintenance = true; }), "nobody runs in a maintenance"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.start.reset(); }), "--start is missing"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.duration.reset(); }), "--duration is missing"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.name = "a b"; }), "no name of a reservation"));
  EXPECT_TRUE(mentions(refused([](auto& c) { c.create = false; }), "there is no reservation night"));
  EXPECT_TRUE(mentions(refused([](auto& c) {
                         c.nodes.reset();
                         c.node_count = 3;
                       }),
                       "only 2 nodes"));
  const Error denied = refused([](auto& c) { c.caller = {"alice", false}; });
  EXPECT_EQ(denied.code, ErrorCode::kPermissionDenied);

  s.run(create("night", 3'600, 3'600));
  s.run(create("night", 3'600, 3'600));  // a client that lost the answer asks again
  EXPECT_TRUE(mentions(s.refused(create("night", 7'200, 3'600)), "is there already"));
  EXPECT_TRUE(mentions(s.refused(create("day", 7'000, 3'600)), "belongs to reservation night"));
  s.run(create("day", 7'200, 3'600));
  s.drop_effects();
}

TEST(Reservation, TheNumberOfNodesPicksThoseThatAreFree) {
  Scenario s;
  for (const char* name : {"n1", "n2", "n3"}) {
    s.node(name, 4);
  }
  s.run(create("first", 3'600, 3'600));
  MakeReservation c = create("second", 3'600, 3'600);
  c.nodes.reset();
  c.node_count = 2;
  s.run(c);
  EXPECT_EQ(s.state.reservations.at("second").nodes, (std::vector<std::string>{"n2", "n3"}));
  s.drop_effects();
}

TEST(Reservation, RunningJobsThatReachIntoItAreNamed) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(mentions(s.refused(create("soon", 1'800, 600)), "running job 1 "));
  MakeReservation c = create("soon", 1'800, 600);
  c.ignore_jobs = true;
  s.run(c);
  EXPECT_TRUE(s.state.jobs.at(id).is_active());
  s.drop_effects();
}

TEST(Reservation, AJobWithATimeMinGetsAllTheTimeBeforeAWindow) {
  Scenario s;
  s.node("n1", 4);
  s.run(create("soon", 3'600, 600));
  s.run(create("later", 86'400, 600));
  JobSpec spec = job(1, 1);
  spec.time_limit = secs(7'200);
  spec.time_min = secs(600);
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.schedule(), 1U);
  const Duration limit = std::get<Active>(s.state.jobs.at(id).phase).time_limit;
  EXPECT_GE(limit, secs(3'590));
  EXPECT_LE(limit, secs(3'600));
  s.drop_effects();
}

TEST(Reservation, ALimitThatIsRaisedIntoAWindowSaysSo) {
  Scenario s;
  s.node("n1", 4);
  s.run(create("soon", 7'200, 600));
  const JobId id = s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 1U);
  UpdateJobs raise{.caller = {"root", true}, .jobs = {}, .change = {}};
  raise.jobs.items.push_back({id, false, {}});
  raise.change.fields = {SpecField::kTimeLimit};
  raise.change.values.time_limit = secs(5'000);
  EXPECT_TRUE(s.run(raise).remarks.empty());
  raise.change.values.time_limit = secs(7'300);
  EXPECT_EQ(s.run(raise).remarks,
            (std::vector<std::string>{
                "job 1: its new end is in a window of reservation soon, whose jobs will wait for its nodes"}));
  s.drop_effects();
}

TEST(Reservation, OthersStayOutAndMembersStayIn) {
  Scenario s;
  s.node("n1", 4);
  MakeReservation c = create("soon", 0, 7'200);
  c.users = std::vector<std::string>{"bob"};
  s.run(c);
  const JobId other = s.submit(job(1, 1));
  JobSpec spec = job(1, 1);
  spec.user = "bob";
  spec.reservation = "soon";
  const JobId member = s.submit(spec);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(s.state.jobs.at(member).is_active());
  EXPECT_FALSE(s.state.jobs.at(other).is_active());
  const engine::Explainer explainer(s.state, s.rules, at(kNow + 1));
  EXPECT_EQ(explainer.reason(s.state.jobs.at(other)).word, "Reservation");
  ASSERT_TRUE(explainer.estimated_start(s.state.jobs.at(other)).has_value());
  EXPECT_EQ(*explainer.estimated_start(s.state.jobs.at(other)), at(kNow + 7'200));
  s.drop_effects();
}

TEST(Reservation, AMemberIsToldOfTheWindowThatFollowsItsOwn) {
  Scenario s;
  s.node("n1", 4);
  s.run(create("first", 0, 3'600));
  s.run(create("second", 3'600, 3'600));
  JobSpec spec = job(1, 1);
  spec.reservation = "first";
  spec.time_limit = secs(3'600);
  const JobId id = s.submit(spec);
  // As long as the window, and a second late: its slack would reach into the next one.
  const engine::Explainer explainer(s.state, s.rules, at(kNow + 1));
  const sched::Reason reason = explainer.reason(s.state.jobs.at(id));
  EXPECT_EQ(reason.word, "Reservation");
  EXPECT_NE(reason.detail.find("reservation second (begins in 00:59:59)"), std::string::npos) << reason.detail;
  EXPECT_EQ(reason.detail.find("reservation first"), std::string::npos) << reason.detail;
  s.drop_effects();
}

TEST(Reservation, SubmissionsThatCannotUseItAreRefused) {
  Scenario s;
  s.node("n1", 4);
  s.node("n2", 8);
  s.run(create("soon", 3'600, 1'800));
  MakeReservation maintenance = create("repair", 10'000, 1'800);
  maintenance.users.reset();
  maintenance.maintenance = true;
  s.run(maintenance);
  JobSpec spec = job(1, 1);
  spec.time_limit = secs(600);
  spec.reservation = "son";
  EXPECT_TRUE(mentions(s.submit_refused(spec), "did you mean soon?"));
  spec.reservation = "repair";
  EXPECT_TRUE(mentions(s.submit_refused(spec), "for maintenance"));
  spec.reservation = "soon";
  spec.user = "bob";
  EXPECT_EQ(s.submit_refused(spec).code, ErrorCode::kPermissionDenied);
  spec.user = "alice";
  spec.time_limit = secs(3'600);
  EXPECT_TRUE(mentions(s.submit_refused(spec), "ask for at most 00:30:00"));
  spec.time_limit = secs(600);
  spec.ntasks = 6;  // n2 could take it
  EXPECT_TRUE(mentions(s.submit_refused(spec), "reservation soon"));
  s.drop_effects();
}

TEST(Reservation, DeletingOneThatJobsWaitForNamesThem) {
  Scenario s;
  s.node("n1", 4);
  s.run(create("soon", 3'600, 3'600));
  JobSpec spec = job(1, 1);
  spec.reservation = "soon";
  const JobId id = s.submit(spec);
  RemoveReservation remove{{"root", true}, "soon", false};
  EXPECT_TRUE(mentions(s.refused(remove), "pending job 1 "));
  remove.force = true;
  EXPECT_FALSE(s.run(remove).notes.empty());
  EXPECT_EQ(s.schedule(), 0U);
  const engine::Explainer explainer(s.state, s.rules, at(kNow + 1));
  EXPECT_EQ(explainer.reason(s.state.jobs.at(id)).word, "ReservationDeleted");
  EXPECT_EQ(s.refused(remove).code, ErrorCode::kNotFound);
  s.drop_effects();
}

TEST(Reservation, AChangeTellsWhichJobsItOrphansAndWhichItDelays) {
  Scenario s;
  s.node("n1", 4);
  s.run(create("later", 36'000, 3'600));
  JobSpec spec = job(1, 1);
  spec.reservation = "later";
  const JobId orphan = s.submit(spec);
  const JobId runs = s.submit(job(1, 4));
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(s.state.jobs.at(runs).is_active());
  const JobId promised = s.submit(job(1, 4));
  s.run(engine::apply_plan(s.state, engine::plan(s.state, s.rules, {}, at(kNow + 1))));
  ASSERT_TRUE(s.state.jobs.at(promised).promised_start.is_set());
  MakeReservation c = create("middle", 4'000, 3'600);
  const engine::Decision d = s.run(c);
  ASSERT_EQ(d.notes.size(), 1U);
  EXPECT_NE(d.notes.front().find("job " + std::to_string(promised.value) + ", which was promised"), std::string::npos)
      << d.notes.front();
  MakeReservation change;
  change.caller = {"root", true};
  change.name = "later";
  change.users = std::vector<std::string>{"bob"};
  const engine::Decision e = s.run(change);
  ASSERT_FALSE(e.notes.empty());
  EXPECT_NE(e.notes.front().find("job " + std::to_string(orphan.value) + " may not use"), std::string::npos)
      << e.notes.front();
  s.drop_effects();
}

TEST(Reservation, AMemberThatWaitsForItsWindowTakesNoPromiseFromTheQueue) {
  Scenario s;
  s.node("n1", 4);
  s.run(create("later", 36'000, 3'600));
  JobSpec spec = job(1, 1);
  spec.reservation = "later";
  const JobId member = s.submit(spec);
  s.submit(job(1, 4));
  s.run(ApplyPlan{engine::plan(s.state, s.rules, {}, at(kNow + 1)).placements});
  const JobId large = s.submit(job(1, 4));
  const sched::Plan plan = engine::plan(s.state, s.rules, {}, at(kNow + 20));
  ASSERT_EQ(plan.promises.size(), 2U);
  EXPECT_TRUE((plan.promises[0].job == member && plan.promises[1].job == large) ||
              (plan.promises[0].job == large && plan.promises[1].job == member));
  s.drop_effects();
}

TEST(Licenses, AreHeldWhileJobsRunAndNeverMoreThanThereAre) {
  Scenario s;
  s.rules.licenses = {{"matlab", 3}};
  s.node("n1", 8);
  JobSpec spec = job(1, 1);
  spec.licenses = {{"matlab", 2}};
  const JobId first = s.submit(spec);
  const JobId second = s.submit(spec);
  const JobId free = s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 2U);
  EXPECT_TRUE(s.state.jobs.at(first).is_active());
  EXPECT_TRUE(s.state.jobs.at(free).is_active());
  EXPECT_EQ(s.state.licenses.used("matlab"), 2U);
  const engine::Explainer explainer(s.state, s.rules, at(kNow + 1));
  const sched::Reason reason = explainer.reason(s.state.jobs.at(second));
  EXPECT_EQ(reason.word, "Licenses");
  EXPECT_NE(reason.detail.find("lacks 1 of licence matlab (3 in all, 2 held"), std::string::npos) << reason.detail;
  // Whatever a plan says, decide() counts.
  NodeShare share = std::get<Active>(s.state.jobs.at(first).phase).nodes.front().share;
  share.cores = IndexSet::range(5, 1);
  EXPECT_EQ(s.run(ApplyPlan{{Placement{second, 0, {share}}}}).matched, 0U);
  s.report("n1", first, true);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_EQ(s.state.licenses.used("matlab"), 2U);
  s.drop_effects();
}

TEST(Licenses, UnknownOnesAndTooManyAreRefused) {
  Scenario s;
  s.rules.licenses = {{"matlab", 3}};
  s.node("n1", 8);
  JobSpec spec = job(1, 1);
  spec.licenses = {{"matlba", 1}};
  EXPECT_TRUE(mentions(s.submit_refused(spec), "did you mean matlab?"));
  spec.licenses = {{"matlab", 4}};
  EXPECT_TRUE(mentions(s.submit_refused(spec), "the cluster has 3"));
  spec.licenses = {{"matlab", 2}, {"matlab", 2}};
  EXPECT_TRUE(mentions(s.submit_refused(spec), "asks for 4 of licence matlab"));
  s.drop_effects();
}

TEST(Licenses, AreCountedForEachTaskOfAnArray) {
  Scenario s;
  s.rules.licenses = {{"matlab", 3}};
  s.node("n1", 8);
  JobSpec spec = job(1, 1);
  spec.licenses = {{"matlab", 1}};
  spec.array = ArraySpec{{{0, 4, 1}}, 0};
  s.submit(spec);
  EXPECT_EQ(s.schedule(), 3U);
  s.drop_effects();
}

TEST(Licenses, ARefusedJobWakesWhenTheyComeBackOnANodeThatItCannotUse) {
  Scenario s;
  s.rules.licenses = {{"matlab", 1}};
  s.node("n1", 1);
  s.node("n2", 4);
  JobSpec spec = job(1, 1);
  spec.licenses = {{"matlab", 1}};
  spec.nodelist = {"n1"};
  const JobId holder = s.submit(spec);
  EXPECT_EQ(s.schedule(), 1U);
  // Four of them, so that one is refused and none of its own is promised a start.
  JobSpec wide = job(1, 4);
  wide.licenses = {{"matlab", 1}};
  s.submit(wide);
  JobSpec narrow = job(1, 3);
  narrow.licenses = {{"matlab", 1}};
  s.submit(narrow);
  sched::PlanMemory memory;
  EXPECT_TRUE(engine::plan(s.state, s.rules, {}, at(kNow + 1), memory).placements.empty());
  s.report("n1", holder, true);
  EXPECT_EQ(engine::plan(s.state, s.rules, {}, at(kNow + 1), memory).placements.size(), 1U);
  s.drop_effects();
}

TEST(Reservation, ARefusedJobWakesWhenTheWindowIsOver) {
  Scenario s;
  s.node("n1", 4);
  MakeReservation c = create("soon", 0, 7'200);
  c.users = std::vector<std::string>{"bob"};
  s.run(c);
  s.submit(job(1, 4));
  s.submit(job(1, 3));
  sched::PlanMemory memory;
  EXPECT_TRUE(engine::plan(s.state, s.rules, {}, at(kNow + 7'199), memory).placements.empty());
  memory.made = at(kNow + 7'200);  // as if nothing had grown old
  EXPECT_EQ(engine::plan(s.state, s.rules, {}, at(kNow + 7'200), memory).placements.size(), 1U);
  s.drop_effects();
}

TEST(Reservation, OneThatHasBeenOverForADayIsForgotten) {
  Scenario s;
  s.node("n1", 4);
  s.run(create("soon", 0, 60));
  const auto tick = [&](std::int64_t later) {
    return engine::decide(s.state, s.rules, Tick{}, at(kNow + later))->facts.size();
  };
  EXPECT_EQ(tick(86'000), 0U);
  EXPECT_EQ(tick(86'500), 1U);
  s.drop_effects();
}

}  // namespace
}  // namespace muster
