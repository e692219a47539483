// Preemption that lets the victim stand still: each transition, by hand.
#include "core/engine/running.h"
#include "core/sched/preempt.h"
#include "gtest/gtest.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

const Caller kAlice{"alice", false};
const Caller kRoot{"root", true};

JobSelector jobs(std::initializer_list<JobId> ids) {
  JobSelector selector;
  for (const JobId id : ids) {
    selector.items.push_back({id, false, {}});
  }
  return selector;
}
Outcome ended(EndCause cause) {
  Outcome outcome;
  outcome.cause = cause;
  return outcome;
}
// Of whole cores and a little memory, so that others fit beside it.
JobSpec in_queue(const char* queue, std::uint32_t nodes, std::uint32_t cpus, std::int64_t limit_s = 3'600) {
  JobSpec spec = job(nodes, nodes, cpus);
  spec.queue = queue;
  spec.mem_per_node_mib = 1'000;
  spec.time_limit = Duration::from_s(limit_s);
  return spec;
}

struct World : Scenario {
  World() {
    rules.queues[0].preempt_mode = sched::PreemptMode::kSuspend;
    sched::QueuePolicy top = rules.queues[1];
    rules.queues[1].preempt_mode = sched::PreemptMode::kSuspend;
    top.name = "top";
    top.priority = 20;
    rules.queues.push_back(top);
  }
  const Job& record(JobId id) { return *engine::find_job(state, id); }
  const Active& active(JobId id) { return std::get<Active>(record(id).phase); }
  JobState state_of(JobId id) { return record(id).state(); }
  JobId start(JobSpec spec) {
    const JobId id = submit(std::move(spec));
    plan_all();
    EXPECT_TRUE(record(id).is_active());
    confirm(id);
    return id;
  }
  void confirm(JobId id) {
    for (const AttemptOnNode& on : std::vector<AttemptOnNode>(active(id).nodes)) {
      report(state.nodes[on.share.node.value].name, id, false);
    }
    drop_effects();
  }
  engine::Decision stood_still(const std::string& node, JobId id, std::uint64_t number) {
    AttemptReport said{{id, record(id).attempt}, false, {}, number};
    return run(ReportAttempts{node, {said}});
  }
  void end(const std::string& node, JobId id, EndCause cause = EndCause::kExited) {
    report(node, id, true, ended(cause));
  }
  std::uint32_t free_cores(std::size_t node = 0) {
    return static_cast<std::uint32_t>(state.ledger.nodes()[node].free_cores.count());
  }
};

// A node of 4 cores: `low` has all of them and stands still for `high`, which has 2 of them.
struct OneStandsStill : World {
  OneStandsStill() {
    node("n1", 4);
    low = start(in_queue("main", 1, 4));
    wait(Duration::from_s(100));
    high = submit(in_queue("urgent", 1, 2, 600));
    plan_all();
    drop_effects();
    stood_still("n1", low, 1);
    plan_all();
    confirm(high);
  }
  JobId low;
  JobId high;
};

TEST(StandStill, IsOrderedForTheJobThatWaitsAndCountsWhenTheNodeSaysSo) {
  World s;
  s.node("n1", 4);
  const JobId low = s.start(in_queue("main", 1, 4));
  s.wait(Duration::from_s(100));
  const JobId high = s.submit(in_queue("urgent", 1, 2));
  s.plan_all();
  EXPECT_EQ(s.state_of(low), JobState::kSuspended);
  EXPECT_EQ(s.active(low).suspension.room_for, high);
  EXPECT_EQ(s.active(low).stop, StopCause::kNone);
  const auto sent = s.take<SendSuspend>();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_TRUE(sent[0].order.suspend && sent[0].order.gives_cores);
  EXPECT_EQ(sent[0].order.number, 1U);
  const engine::Explainer why(s.state, s.rules, s.now());
  EXPECT_EQ(why.reason(s.record(high)).detail, "waits for job " + std::to_string(low.value) + " to be preempted");
  s.wait(Duration::from_s(500));
  EXPECT_EQ(s.plan_all().matched, 0U) << "one order suffices, and nothing is free before the node says so";
  EXPECT_EQ(s.free_cores(), 0U);
  // Who stands behind gets nothing of it.
  const JobId behind = s.submit(in_queue("main", 1, 1));
  EXPECT_TRUE(s.stood_still("n1", low, 0).facts.empty()) << "it only says that it runs";
  EXPECT_EQ(s.stood_still("n1", low, 1).facts.size(), 1U);
  EXPECT_TRUE(s.stood_still("n1", low, 1).facts.empty()) << "it said so before";
  EXPECT_EQ(s.free_cores(), 4U);
  EXPECT_EQ(s.state.ledger.nodes()[0].free_mem_mib, 65'536U - 1'000U);
  s.plan_all();
  EXPECT_TRUE(s.record(high).is_active());
  EXPECT_FALSE(s.record(behind).is_active()) << "the cores that are left are kept for the job that had them";
  EXPECT_EQ(s.state_of(low), JobState::kSuspended);
  s.drop_effects();
}

// A job behind it was given the cores that were kept for it, though others were free, and kept it from going on.
TEST(StandStill, JobsBehindItGetOtherCoresThanItsOwn) {
  World s;
  s.node("n1", 5);
  const JobId low = s.start(in_queue("main", 1, 4));
  const JobId aside = s.start(in_queue("top", 1, 1));
  s.wait(Duration::from_s(100));
  const JobId high = s.submit(in_queue("urgent", 1, 3, 600));
  s.plan_all();
  s.drop_effects();
  s.stood_still("n1", low, 1);
  s.plan_all();
  s.confirm(high);
  ASSERT_EQ(s.state_of(low), JobState::kSuspended);
  s.end("n1", aside);
  const JobId behind = s.start(in_queue("main", 1, 1));
  EXPECT_FALSE(s.active(behind).nodes[0].share.cores.intersects(s.active(low).nodes[0].share.cores));
  s.end("n1", high);
  s.plan_all();
  EXPECT_EQ(s.state_of(low), JobState::kRunning) << "it waits for the job behind it";
  s.drop_effects();
}

// A job before it and one behind it start in the same pass: the first may have its cores, the second may not.
TEST(StandStill, OnlyJobsBeforeItGetItsCores) {
  World s;
  s.node("n1", 12);
  const JobId low = s.start(in_queue("main", 1, 8));
  const JobId aside = s.start(in_queue("top", 1, 4));
  s.wait(Duration::from_s(100));
  const JobId first = s.submit(in_queue("urgent", 1, 8, 600));
  s.plan_all();
  s.drop_effects();
  s.stood_still("n1", low, 1);
  s.plan_all();
  s.confirm(first);
  s.end("n1", first);
  s.end("n1", aside);
  const JobId before = s.submit(in_queue("urgent", 1, 4));
  const JobId behind = s.submit(in_queue("main", 1, 4));
  s.plan_all();
  ASSERT_TRUE(s.record(before).is_active());
  EXPECT_EQ(s.state_of(low), JobState::kSuspended);
  if (s.record(behind).is_active()) {
    EXPECT_FALSE(s.active(behind).nodes[0].share.cores.intersects(s.active(low).nodes[0].share.cores));
  }
  s.confirm(before);
  s.end("n1", before);
  s.plan_all();
  EXPECT_EQ(s.state_of(low), JobState::kRunning) << "it waits for the job behind it";
  s.drop_effects();
}

TEST(StandStill, GoesOnByItselfOnTheSameCoresWithItsTimeLimitMoved) {
  OneStandsStill s;
  const IndexSet cores = s.active(s.low).nodes[0].share.cores;
  const JobId behind = s.submit(in_queue("main", 1, 2));
  s.wait(Duration::from_s(300));
  EXPECT_EQ(s.plan_all().matched, 0U);
  s.end("n1", s.high);
  EXPECT_EQ(s.plan_all().matched, 1U);
  EXPECT_EQ(s.state_of(s.low), JobState::kRunning);
  EXPECT_EQ(s.active(s.low).nodes[0].share.cores, cores);
  EXPECT_EQ(s.active(s.low).suspension.room_for, JobId{});
  EXPECT_GE(s.active(s.low).suspension.earlier, Duration::from_s(300));
  EXPECT_EQ(s.free_cores(), 0U);
  EXPECT_FALSE(s.record(behind).is_active());
  const auto sent = s.take<SendSuspend>();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_FALSE(sent[0].order.suspend || sent[0].order.gives_cores);
  EXPECT_EQ(sent[0].order.number, 2U);
  EXPECT_TRUE(s.stood_still("n1", s.low, 1).facts.empty()) << "what was said of an older order counts no more";
  s.drop_effects();
}

TEST(StandStill, LaterJobsOfItsQueueDoNotTakeItsCores) {
  OneStandsStill s;
  // They would fit as soon as the urgent job is gone, and the first of them now.
  const JobId one = s.submit(in_queue("main", 1, 2));
  const JobId two = s.submit(in_queue("main", 1, 4));
  const JobId higher = s.submit(in_queue("urgent", 1, 2, 600));
  s.plan_all();
  EXPECT_FALSE(s.record(one).is_active() || s.record(two).is_active());
  EXPECT_TRUE(s.record(higher).is_active()) << "one of its own queue that comes first takes them";
  s.confirm(higher);
  s.end("n1", s.high);
  s.plan_all();
  EXPECT_EQ(s.state_of(s.low), JobState::kSuspended) << "half of its cores are not free";
  EXPECT_FALSE(s.record(one).is_active()) << "the others are kept for it";
  s.end("n1", higher);
  s.plan_all();
  EXPECT_EQ(s.state_of(s.low), JobState::kRunning);
  s.end("n1", s.low);
  s.plan_all();
  EXPECT_TRUE(s.record(one).is_active() || s.record(two).is_active());
  s.drop_effects();
}

TEST(StandStill, IsNotPreemptedAgainAtOnce) {
  OneStandsStill s;
  s.end("n1", s.high);
  s.plan_all();
  ASSERT_EQ(s.state_of(s.low), JobState::kRunning);
  s.submit(in_queue("urgent", 1, 2));
  s.wait(Duration::from_s(5));
  const sched::Plan soon = engine::plan(s.state, s.rules, {}, s.now());
  EXPECT_TRUE(soon.preemptions.empty());
  EXPECT_TRUE(soon.look_again.is_set());
  EXPECT_LE(soon.look_again, s.now() + Duration::from_s(5));
  s.wait(Duration::from_s(6));
  s.plan_all();
  EXPECT_EQ(s.state_of(s.low), JobState::kSuspended);
  s.drop_effects();
}

TEST(StandStill, WhoWaitedForItMayGoAway) {
  World s;
  s.node("n1", 4);
  const JobId low = s.start(in_queue("main", 1, 4));
  s.wait(Duration::from_s(100));
  const JobId high = s.submit(in_queue("urgent", 1, 2));
  s.plan_all();
  s.run(CancelJobs{kAlice, jobs({high}), 0});
  EXPECT_EQ(s.plan_all().matched, 0U) << "the node has not said that it stands still";
  s.stood_still("n1", low, 1);
  EXPECT_EQ(s.plan_all().matched, 1U);
  EXPECT_EQ(s.state_of(low), JobState::kRunning);
  s.drop_effects();
}

TEST(StandStill, CancelAndRequeueEndItWhereItStands) {
  OneStandsStill s;
  s.run(RequeueJobs{kAlice, jobs({s.low})});
  EXPECT_EQ(s.take<SendStop>().size(), 1U);
  EXPECT_EQ(s.free_cores(), 2U) << "it does not get its cores to end";
  s.end("n1", s.low, EndCause::kCancelled);
  EXPECT_EQ(s.state_of(s.low), JobState::kPending);
  EXPECT_EQ(s.free_cores(), 2U);
  s.drop_effects();

  OneStandsStill t;
  t.run(CancelJobs{kAlice, jobs({t.low}), 0});
  t.end("n1", t.low, EndCause::kCancelled);
  EXPECT_EQ(engine::find_job(t.state, t.low), nullptr);
  EXPECT_EQ(t.free_cores(), 2U);
  t.end("n1", t.high);
  EXPECT_EQ(t.state.ledger.nodes()[0].free_mem_mib, 65'536U);
  t.drop_effects();
}

// The order to end it thaws it, whatever it said before that order came.
TEST(StandStill, WhatIsEndingGivesNothingAway) {
  World s;
  s.node("n1", 4);
  const JobId low = s.start(in_queue("main", 1, 4));
  s.wait(Duration::from_s(100));
  s.submit(in_queue("urgent", 1, 2));
  s.plan_all();
  s.run(CancelJobs{kAlice, jobs({low}), 0});
  EXPECT_TRUE(s.stood_still("n1", low, 1).facts.empty());
  EXPECT_EQ(s.free_cores(), 0U);
  s.end("n1", low, EndCause::kCancelled);
  EXPECT_EQ(s.free_cores(), 4U);
  s.drop_effects();
}

TEST(StandStill, ByHandItGoesOnOnlyWhenItsCoresAreFree) {
  OneStandsStill s;
  const auto refused = s.run(ContinueJobs{kRoot, jobs({s.low})});
  EXPECT_TRUE(refused.facts.empty());
  ASSERT_EQ(refused.notes.size(), 1U);
  EXPECT_NE(refused.notes[0].find("its cores are not free"), std::string::npos) << refused.notes[0];
  const auto again = s.run(SuspendJobs{kAlice, jobs({s.low})});
  EXPECT_TRUE(again.facts.empty());
  ASSERT_EQ(again.notes.size(), 1U);
  s.end("n1", s.high);
  const auto by_user = s.run(ContinueJobs{kAlice, jobs({s.low})});
  EXPECT_TRUE(by_user.facts.empty());
  ASSERT_EQ(by_user.notes.size(), 1U);
  EXPECT_NE(by_user.notes[0].find("only an administrator"), std::string::npos) << by_user.notes[0];
  EXPECT_EQ(s.run(ContinueJobs{kRoot, jobs({s.low})}).facts.size(), 1U);
  EXPECT_EQ(s.state_of(s.low), JobState::kRunning);
  EXPECT_EQ(s.free_cores(), 0U);
  s.drop_effects();
}

// Both had the same cores, one after the other.
TEST(StandStill, OfTwoThatShareCoresOneGoesOn) {
  OneStandsStill s;
  s.wait(Duration::from_s(20));
  const JobId top = s.submit(in_queue("top", 1, 4, 60));
  s.plan_all();
  ASSERT_EQ(s.state_of(s.high), JobState::kSuspended);
  s.stood_still("n1", s.high, 1);
  s.plan_all();
  ASSERT_TRUE(s.record(top).is_active());
  s.confirm(top);
  s.end("n1", top);
  engine::State before = s.state;
  const auto both = s.run(ContinueJobs{kRoot, jobs({s.low, s.high})});
  EXPECT_EQ(both.facts.size(), 1U);
  EXPECT_EQ(both.notes.size(), 1U);
  s.drop_effects();
  // By itself, the one that stands higher.
  const sched::Plan plan = engine::plan(before, s.rules, {}, s.now());
  EXPECT_EQ(plan.resumes, (std::vector<AttemptKey>{{s.high, Attempt{1}}}));
}

TEST(StandStill, AJobWithGpusOrOneThatItsUserSuspendedIsLeftAlone) {
  World s;
  s.node("n1", 4, 2);
  JobSpec spec = in_queue("main", 1, 2);
  spec.gpus_per_node = 1;
  const JobId gpu = s.start(spec);
  const JobId still = s.start(in_queue("main", 1, 2));
  s.run(SuspendJobs{kAlice, jobs({still})});
  s.wait(Duration::from_s(100));
  const JobId high = s.submit(in_queue("urgent", 1, 2));
  s.plan_all();
  EXPECT_EQ(s.state_of(gpu), JobState::kRunning);
  EXPECT_EQ(s.active(still).suspension.room_for, JobId{});
  for (const JobId id : {gpu, still}) {
    const auto decision = s.run(ApplyPlan{{}, {}, {Preemption{high, {id, Attempt{1}}}}});
    EXPECT_TRUE(decision.facts.empty());
    EXPECT_EQ(decision.notes.size(), 1U);
  }
  s.run(ContinueJobs{kAlice, jobs({still})});
  s.plan_all();
  EXPECT_EQ(s.active(still).suspension.room_for, high);
  s.drop_effects();
}

TEST(StandStill, WhoNeedsItsMemoryWaits) {
  World s;
  s.node("n1", 4);
  const JobId low = s.start(in_queue("main", 1, 4, 600));
  s.wait(Duration::from_s(100));
  JobSpec spec = in_queue("urgent", 1, 1);
  spec.mem_per_node_mib = 65'000;
  const JobId high = s.submit(spec);
  s.plan_all();
  EXPECT_EQ(s.state_of(low), JobState::kRunning);
  EXPECT_FALSE(s.record(high).is_active());
  s.drop_effects();
}

// On two nodes: what one of them says makes room there alone, and it goes on when it can on both.
TEST(StandStill, OfSeveralNodesEachSpeaksForItself) {
  World s;
  s.node("n1", 4);
  s.node("n2", 4);
  const JobId low = s.start(in_queue("main", 2, 4));
  s.wait(Duration::from_s(100));
  JobSpec spec = in_queue("urgent", 1, 4, 600);
  spec.nodelist = {"n2"};
  const JobId high = s.submit(spec);
  s.plan_all();
  ASSERT_EQ(s.state_of(low), JobState::kSuspended);
  s.stood_still("n1", low, 1);
  EXPECT_EQ(s.free_cores(0), 4U);
  EXPECT_EQ(s.free_cores(1), 0U);
  s.plan_all();
  EXPECT_FALSE(s.record(high).is_active());
  EXPECT_EQ(s.state_of(low), JobState::kSuspended);
  s.stood_still("n2", low, 1);
  s.plan_all();
  EXPECT_TRUE(s.record(high).is_active());
  s.confirm(high);
  s.end("n2", high);
  // A drained node lets what is there come to its end; one that is not heard does not.
  s.run(DrainNodes{{"root", true}, {"n1"}, "repair"});
  s.run(LoseNode{NodeIndex(1)});
  EXPECT_EQ(s.plan_all().matched, 0U);
  EXPECT_TRUE(s.run(ContinueJobs{kRoot, jobs({low})}).facts.empty());
  NodeRegistration back = registration("n2", hardware(4));
  back.attempts.push_back(AttemptReport{{low, Attempt{1}}, false, {}, 1});
  s.run(RegisterNode{back});
  EXPECT_EQ(s.take<SendSuspend>().back().order.number, 1U) << "the order is repeated";
  EXPECT_EQ(s.plan_all().matched, 1U);
  EXPECT_EQ(s.state_of(low), JobState::kRunning);
  s.drop_effects();
}

// The daemon of the node was away when the order was given: it is repeated, and what the node says then counts.
TEST(StandStill, ANodeThatWasAwayIsToldAndSaysSoThen) {
  World s;
  s.node("n1", 4);
  const JobId low = s.start(in_queue("main", 1, 4));
  s.wait(Duration::from_s(100));
  s.submit(in_queue("urgent", 1, 2));
  s.plan_all();
  s.run(LoseNode{NodeIndex(0)});
  s.drop_effects();
  NodeRegistration back = registration("n1", hardware(4));
  back.attempts.push_back(AttemptReport{{low, Attempt{1}}, false, {}, 0});
  s.run(RegisterNode{back});
  const auto sent = s.take<SendSuspend>();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_TRUE(sent[0].order.suspend && sent[0].order.gives_cores);
  EXPECT_EQ(s.free_cores(), 0U);
  back.sequence = 1;
  back.attempts[0].stands_still = 1;
  s.run(RegisterNode{back});
  EXPECT_EQ(s.free_cores(), 4U);
  s.drop_effects();
}

TEST(StandStill, ANodeThatRestartsHasLostIt) {
  OneStandsStill s;
  s.run(RegisterNode{registration("n1", hardware(4), "boot-2")});
  EXPECT_EQ(engine::find_job(s.state, s.low), nullptr);
  EXPECT_EQ(s.free_cores(), 4U);
  s.drop_effects();
}

TEST(StandStill, AMaintenanceThatItWouldMeetIsWaitedFor) {
  OneStandsStill s;
  MakeReservation make;
  make.caller = {"root", true};
  make.name = "repair";
  make.create = true;
  make.maintenance = true;
  make.ignore_jobs = true;
  make.nodes = std::vector<std::string>{"n1"};
  make.start = s.now() + Duration::from_s(900);
  make.duration = Duration::from_s(600);
  s.run(make);
  s.end("n1", s.high);
  EXPECT_EQ(s.plan_all().matched, 0U) << "its time limit ends in the maintenance";
  s.wait(Duration::from_s(1'501));
  EXPECT_EQ(s.plan_all().matched, 1U);
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
