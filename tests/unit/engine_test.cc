#include "core/engine/engine.h"

#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

TEST(Engine, TwoJobsThatDoNotFitTogetherNeverOverlap) {
  Scenario s;
  s.node("n1", 4);
  const JobId a = s.submit(job(1, 1, 3));
  const JobId b = s.submit(job(1, 1, 3));
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(engine::find_job(s.state, a)->is_active());
  EXPECT_FALSE(engine::find_job(s.state, b)->is_active());
  EXPECT_EQ(s.schedule(), 0U);
  s.report("n1", a, true);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(engine::find_job(s.state, b)->is_active());
  s.drop_effects();
}

TEST(Engine, JobsStartInOrderOfPriorityThenSubmission) {
  Scenario s;
  s.node("n1", 1);
  const JobId first = s.submit(job(1, 1));
  JobSpec nice = job(1, 1);
  nice.nice = -5;
  const JobId preferred = s.submit(nice);
  JobSpec urgent = job(1, 1);
  urgent.queue = "urgent";
  const JobId top = s.submit(urgent);
  const JobId last = s.submit(job(1, 1));
  std::vector<JobId> order;
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(s.schedule(), 1U);
    const auto launches = s.take<SendLaunch>();
    ASSERT_EQ(launches.size(), 1U);
    order.push_back(launches[0].order.key.job);
    s.report("n1", order.back(), true);
  }
  EXPECT_EQ(order, (std::vector<JobId>{top, preferred, first, last}));
  s.drop_effects();
}

TEST(Engine, APromisedStartIsNotDelayedByWhatStandsBehindIt) {
  Scenario s;
  s.node("n1", 4);
  s.submit(job(1, 1, 3));
  EXPECT_EQ(s.schedule(), 1U);
  const JobId big = s.submit(job(1, 1, 4));
  JobSpec longer = job(1, 1, 1);
  longer.time_limit = Duration::from_s(7200);
  const JobId small = s.submit(longer);
  EXPECT_EQ(s.schedule(), 0U);
  const engine::Explainer explain(s.state, s.rules, s.state.now);
  EXPECT_EQ(explain.reason(*engine::find_job(s.state, big)).word, "Resources");
  EXPECT_EQ(explain.reason(*engine::find_job(s.state, small)).word, "Priority");
  // One that is over before the promised start fills the gap.
  JobSpec shorter = job(1, 1, 1);
  shorter.time_limit = Duration::from_s(600);
  const JobId fills = s.submit(shorter);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(engine::find_job(s.state, fills)->is_active());
  s.drop_effects();
}

TEST(Engine, AJobWhoseNodesAreAwayDoesNotHoldBackOthers) {
  Scenario s;
  s.node("n1", 4);
  s.node("n2", 4);
  s.run(DrainNodes{{"root", true}, {"n2"}, "disk"});
  JobSpec wants = job(1, 1);
  wants.nodelist = {"n2"};
  const JobId waits = s.submit(wants);
  const JobId runs = s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(engine::find_job(s.state, runs)->is_active());
  const engine::Explainer explain(s.state, s.rules, s.state.now);
  EXPECT_EQ(explain.reason(*engine::find_job(s.state, waits)).word, "ReqNodeNotAvail");
  s.run(ResumeNodes{{"root", true}, {"n2"}});
  EXPECT_EQ(s.schedule(), 1U);
  s.drop_effects();
}

TEST(Engine, WhatCanNeverFitIsRefusedWithItsReason) {
  struct Row {
    const char* what;
    JobSpec spec;
    const char* says;
  };
  Scenario s;
  s.node("n1", 4, 2);
  s.node("n2", 4, 2);
  JobSpec gpus = job(1, 1);
  gpus.gpus_per_node = 3;
  JobSpec memory = job(1, 1);
  memory.mem_per_node_mib = 1'000'000;
  JobSpec unknown_queue = job(1, 1);
  unknown_queue.queue = "fast";
  JobSpec unknown_node = job(1, 1);
  unknown_node.nodelist = {"n3"};
  JobSpec excluded = job(2, 2);
  excluded.exclude = {"n1"};
  JobSpec total = job(2, 2);
  total.gpus = 5;
  JobSpec all_excluded = job(1, 1);
  all_excluded.exclude = {"n1", "n2"};
  JobSpec outside = job(1, 1);
  outside.queue = "small";
  outside.nodelist = {"n2"};
  JobSpec partly_outside = job(2, 2);
  partly_outside.queue = "small";
  partly_outside.nodelist = {"n1", "n2"};
  sched::QueuePolicy small = s.rules.queues.front();
  small.name = "small";
  small.nodes = {"n1"};
  s.rules.queues.push_back(small);
  const std::vector<Row> rows = {
      {"too many nodes", job(3, 3), "can never run"},
      {"too many cpus", job(1, 1, 5), "too few CPUs"},
      {"too many gpus", gpus, "too few GPUs"},
      {"too much memory", memory, "too little memory"},
      {"unknown queue", unknown_queue, "queue"},
      {"unknown node", unknown_node, "unknown node n3"},
      {"excluded", excluded, "can never run"},
      {"gpus in total", total, "can never run"},
      {"more nodes than tasks", job(2, 1), "--ntasks"},
      {"all excluded", all_excluded, "it may use no node, because --exclude names all that it could"},
      {"outside the queue", outside, "it may use no node, because none of --nodelist is in the queue"},
      {"partly outside", partly_outside, "it asks for node n2 by name, which is not in queue small"},
      {"many tasks", job(0, 1000), "it asks for 1000 tasks of 1 CPU; of 2 nodes"},
  };
  for (const Row& row : rows) {
    EXPECT_NE(s.submit_refused(row.spec).message.find(row.says), std::string::npos)
        << row.what << ": " << s.submit_refused(row.spec).message;
  }
}

TEST(Engine, AnExclusiveJobHasAllGpusOfItsNodes) {
  Scenario s;
  s.node("n1", 4, 2);
  s.node("n2", 4, 3);
  JobSpec whole = job(2, 2);
  whole.exclusive = true;
  const JobId id = s.submit(whole);
  EXPECT_EQ(s.schedule(), 1U);
  std::uint64_t gpus = 0;
  for (const AttemptOnNode& on : std::get<Active>(engine::find_job(s.state, id)->phase).nodes) {
    gpus += on.share.gpus.count();
  }
  EXPECT_EQ(gpus, 5U);
  s.drop_effects();
  JobSelector one;
  one.items.emplace_back().id = id;
  s.run(CancelJobs{{"alice", false}, one, 0});
  // Also where a number in total is asked for, and it is still no more than there are.
  whole.gpus = 6;
  EXPECT_NE(s.submit_refused(whole).message.find("GPUs"), std::string::npos);
  s.drop_effects();
}

TEST(Engine, ARequestIdMakesOneJob) {
  Scenario s;
  s.node("n1", 4);
  const JobId a = s.submit(job(1, 1), RequestId{1, 2});
  EXPECT_EQ(s.submit(job(1, 1), RequestId{1, 2}), a);
  EXPECT_EQ(s.state.jobs.size(), 1U);
  EXPECT_NE(s.submit(job(1, 1), RequestId{1, 3}), a);
}

TEST(Engine, MoreJobsThanTheConfigurationAllowsAreRefusedWithTheKeyOfTheLimit) {
  Scenario s;
  s.rules.jobs_max = 2;
  JobSpec array = job(1, 1);
  array.array = ArraySpec{.ranges = {{0, 99, 1}}, .max_running = 0};
  s.submit(array);  // one, however many tasks it has
  const JobId second = s.submit(job(1, 1), {7, 9});
  const Error refused = s.submit_refused(job(1, 1));
  EXPECT_EQ(refused.code, ErrorCode::kLimitReached);
  EXPECT_EQ(
      refused.message,
      "the controller holds 2 jobs that have not ended, its limit is 2 (controller.queue_max_jobs): try again when "
      "some have ended, or raise the limit");
  EXPECT_EQ(s.submit(job(1, 1), {7, 9}), second) << "a repeated request makes no job";
  JobSelector sel;
  sel.items.push_back({second, false, {}});
  s.run(CancelJobs{{"alice", false}, sel, 0});
  s.submit(job(1, 1));
  s.drop_effects();
}

TEST(Engine, TasksSpreadEvenlyOverTheNodesAskedFor) {
  Scenario s;
  for (const char* n : {"n1", "n2", "n3", "n4"}) {
    s.node(n, 4);
  }
  s.submit(job(4, 8));
  EXPECT_EQ(s.schedule(), 1U);
  const auto launches = s.take<SendLaunch>();
  ASSERT_EQ(launches.size(), 4U);
  for (const SendLaunch& l : launches) {
    EXPECT_EQ(l.order.share.tasks, 2U);
    EXPECT_EQ(l.order.share.cores.count(), 2U);
    EXPECT_EQ(l.order.peers.size(), 4U);
  }
}

TEST(Engine, NodesAreUsedInTheOrderOfTheirNamesHoweverTheyRegistered) {
  Scenario s;
  for (const char* n : {"n10", "n2", "n1"}) {
    s.node(n, 1);
  }
  s.submit(job(3, 3));
  EXPECT_EQ(s.schedule(), 1U);
  std::vector<std::string> names;
  const auto launches = s.take<SendLaunch>();
  for (const Peer& peer : launches.at(0).order.peers) {
    names.push_back(peer.name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"n1", "n2", "n10"}));
  s.drop_effects();
}

TEST(Engine, TheEndOfTheFirstNodeStopsTheOthersAndThenEndsTheJob) {
  Scenario s;
  s.node("n1", 2);
  s.node("n2", 2);
  const JobId id = s.submit(job(2, 2));
  s.schedule();
  s.report("n1", id, false);
  s.report("n2", id, false);
  s.drop_effects();
  Outcome seven;
  seven.exit_code = 7;
  s.report("n1", id, true, seven);
  const auto stops = s.take<SendStop>();
  ASSERT_EQ(stops.size(), 1U);
  EXPECT_EQ(stops[0].order.cause, StopCause::kScriptEnded);
  EXPECT_EQ(engine::find_job(s.state, id)->state(), JobState::kStopping);
  Outcome killed;
  killed.cause = EndCause::kCancelled;
  s.report("n2", id, true, killed);
  const auto history = s.take<RecordHistory>();
  ASSERT_EQ(history.size(), 1U);
  EXPECT_EQ(history[0].summary.state, JobState::kFailed);
  EXPECT_EQ(history[0].summary.exit_code, 7);
  EXPECT_EQ(engine::find_job(s.state, id), nullptr);
  s.drop_effects();
}

TEST(Engine, CancelOfAJobWhoseNodeIsAwayIsCarriedOutWhenItReturns) {
  Scenario s;
  s.node("n1", 2);
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  s.report("n1", id, false);
  s.run(LoseNode{NodeIndex{0}});
  s.drop_effects();
  JobSelector sel;
  sel.items.push_back({id, false, {}});
  s.run(CancelJobs{{"alice", false}, sel, 0});
  EXPECT_TRUE(s.take<SendStop>().empty());
  NodeRegistration back = registration("n1", hardware(2));
  back.attempts.push_back(AttemptReport{{id, Attempt{1}}, false, {}});
  s.run(RegisterNode{back});
  EXPECT_EQ(s.take<SendStop>().size(), 1U);
  Outcome killed;
  killed.cause = EndCause::kCancelled;
  s.report("n1", id, true, killed);
  EXPECT_EQ(s.take<RecordHistory>().at(0).summary.state, JobState::kCancelled);
  s.drop_effects();
}

TEST(Engine, ANodeThatRestartedFailsWhatRanOnItAndIsNotSentItAgain) {
  Scenario s;
  s.node("n1", 2);
  s.node("n2", 2);
  const JobId id = s.submit(job(2, 2));
  s.schedule();
  s.report("n1", id, false);
  s.report("n2", id, false);
  s.drop_effects();
  s.run(RegisterNode{registration("n2", hardware(2), "boot-2")});
  EXPECT_TRUE(s.take<SendLaunch>().empty());
  EXPECT_EQ(s.take<SendStop>().size(), 1U);
  Outcome killed;
  killed.cause = EndCause::kCancelled;
  s.report("n1", id, true, killed);
  EXPECT_EQ(s.take<RecordHistory>().at(0).summary.state, JobState::kNodeFailed);
  s.drop_effects();
}

TEST(Engine, ARegistrationThatIsReadLateChangesNothing) {
  Scenario s;
  NodeRegistration first = registration("n1", hardware(2));
  first.sequence = 10;
  s.run(RegisterNode{first});
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  s.report("n1", id, false);
  NodeRegistration second = first;
  second.sequence = 12;
  second.endpoint = "tcp://127.0.0.1:2";
  second.attempts.push_back(AttemptReport{{id, Attempt{1}}, false, {}});
  s.run(RegisterNode{second});
  s.drop_effects();
  const engine::State before = s.state;

  // Written before the job was launched, read after the newer one: the job is not lost.
  NodeRegistration late = first;
  late.sequence = 11;
  EXPECT_EQ(s.run(RegisterNode{late}).outdated_by, 12U);
  EXPECT_EQ(s.run(RegisterNode{second}).outdated_by, 12U) << "the same one twice";
  EXPECT_EQ(s.state, before);
  EXPECT_TRUE(s.effects.empty());

  // The controller's restart does not make it newer, and a node that is away is not back.
  s.run(StartTerm{});
  EXPECT_EQ(s.run(RegisterNode{late}).outdated_by, 12U);
  EXPECT_EQ(s.state.nodes[0].contact, Contact::kUnreachable);
  second.sequence = 13;
  EXPECT_EQ(s.run(RegisterNode{second}).outdated_by, 0U);
  EXPECT_EQ(s.state.nodes[0].contact, Contact::kConnected);
  EXPECT_TRUE(engine::find_job(s.state, id)->is_active());

  // Another boot begins its own sequence.
  NodeRegistration rebooted = registration("n1", hardware(2), "boot-2");
  rebooted.sequence = 1;
  EXPECT_EQ(s.run(RegisterNode{rebooted}).outdated_by, 0U);
  EXPECT_EQ(s.state.nodes[0].boot_id, "boot-2");
  s.drop_effects();
}

TEST(Engine, ALaunchThatWasLostIsSentAgainWhenTheNodeRegisters) {
  Scenario s;
  s.node("n1", 2);
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  EXPECT_EQ(s.take<SendLaunch>().size(), 1U);
  s.run(RegisterNode{registration("n1", hardware(2))});
  const auto again = s.take<SendLaunch>();
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].order.key.job, id);
}

TEST(Engine, WhatTheControllerDoesNotKnowIsStoppedAndItsEndAcknowledged) {
  Scenario s;
  s.node("n1", 2);
  s.report("n1", JobId{99}, false);
  EXPECT_EQ(s.take<SendStop>().size(), 1U);
  s.report("n1", JobId{99}, true);
  EXPECT_EQ(s.take<AcknowledgeReport>().size(), 1U);
}

TEST(Engine, AMillionTasksAreOneRecord) {
  Scenario s;
  s.node("n1", 4);
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{.ranges = {{0, 999'999, 1}}, .max_running = 3};
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.state.arrays.size(), 1U);
  EXPECT_EQ(s.state.waiting_tasks, 1'000'000U);
  EXPECT_EQ(s.schedule(), 3U);
  EXPECT_EQ(s.schedule(), 0U);
  s.report("n1", JobId{id.value + 1}, true);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_NE(engine::find_job(s.state, JobId{id.value + 3}), nullptr);
  s.drop_effects();
  JobSelector sel;
  sel.items.push_back({id, false, {}});
  s.run(CancelJobs{{"alice", false}, sel, 0});
  EXPECT_EQ(s.take<SendStop>().size(), 3U);
  const auto history = s.take<RecordHistory>();
  ASSERT_EQ(history.size(), 1U);
  EXPECT_EQ(history[0].summary.count, 999'996U);
  Outcome killed;
  killed.cause = EndCause::kCancelled;
  for (const std::uint64_t p : {0, 2, 3}) {
    s.report("n1", JobId{id.value + p}, true, killed);
  }
  EXPECT_TRUE(s.state.arrays.empty());
  s.drop_effects();
}

TEST(Engine, TheEndOfAnArraysFirstTaskLeavesItsRecordInTheQueue) {
  Scenario s;
  s.node("n1", 1);
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{.ranges = {{0, 2, 1}}, .max_running = 0};
  const JobId id = s.submit(spec);
  for (std::uint64_t p = 0; p < 3; ++p) {
    EXPECT_EQ(s.schedule(), 1U) << "position " << p;
    s.report("n1", JobId{id.value + p}, true);
  }
  EXPECT_TRUE(s.state.arrays.empty());
  s.drop_effects();
}

TEST(Engine, TasksOfAnArrayAreCancelledByIndex) {
  Scenario s;
  s.node("n1", 1);
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{.ranges = {{10, 18, 2}}, .max_running = 0};
  const JobId id = s.submit(spec);
  JobSelector sel;
  sel.items.push_back({id, true, {{12, 12, 1}, {13, 13, 1}}});
  const engine::Decision d = s.run(CancelJobs{{"alice", false}, sel, 0});
  EXPECT_EQ(d.matched, 1U);
  ASSERT_EQ(d.notes.size(), 1U);
  EXPECT_NE(d.notes[0].find("no such task"), std::string::npos);
  EXPECT_EQ(s.state.waiting_tasks, 4U);
  EXPECT_EQ(s.take<RecordHistory>().at(0).summary.array_position, 1U);
  s.drop_effects();
}

TEST(Engine, OnlyTheOwnerOrAnAdministratorMayCancel) {
  Scenario s;
  s.node("n1", 1);
  const JobId id = s.submit(job(1, 1));
  JobSelector sel;
  sel.items.push_back({id, false, {}});
  EXPECT_EQ(s.refused(CancelJobs{{"bob", false}, sel, 0}).code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(s.run(CancelJobs{{"root", true}, sel, 0}).matched, 1U);
  s.drop_effects();
}

TEST(Engine, HeldJobsWaitUntilReleased) {
  Scenario s;
  s.node("n1", 1);
  JobSpec spec = job(1, 1);
  spec.hold = true;
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.schedule(), 0U);
  JobSelector sel;
  sel.items.push_back({id, false, {}});
  s.run(ReleaseJobs{{"alice", false}, sel});
  EXPECT_EQ(s.schedule(), 1U);
  s.drop_effects();
}

TEST(Engine, AStoppedQueueStartsNothingAndAClosedOneTakesNothing) {
  Scenario s;
  s.node("n1", 1);
  const JobId id = s.submit(job(1, 1));
  s.rules.queues[0].starts = false;
  EXPECT_EQ(s.schedule(), 0U);
  const engine::Explainer explain(s.state, s.rules, s.state.now);
  EXPECT_EQ(explain.reason(*engine::find_job(s.state, id)).word, "QueueStopped");
  s.rules.queues[0].starts = true;
  s.rules.queues[0].accepts = false;
  EXPECT_NE(s.submit_refused(job(1, 1)).message.find("takes no new jobs"), std::string::npos);
  EXPECT_EQ(s.schedule(), 1U);
  s.drop_effects();
}

TEST(Engine, ADrainedNodeStaysDrainedOverARestart) {
  Scenario s;
  s.node("n1", 1);
  s.run(DrainNodes{{"root", true}, {"n1"}, "disk"});
  s.run(StartTerm{});
  s.node("n1", 1);
  s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 0U);
  EXPECT_EQ(engine::node_state(s.state, NodeIndex{0}), "drained");
}

TEST(Engine, ALaunchThatFailsOnOneNodeGivesEverythingBack) {
  Scenario s;
  s.node("n1", 2);
  s.node("n2", 2);
  const JobId id = s.submit(job(2, 2));
  s.schedule();
  Outcome failed;
  failed.cause = EndCause::kLaunchFailed;
  failed.detail = "no space left on device";
  s.report("n2", id, true, failed);
  Outcome killed;
  killed.cause = EndCause::kCancelled;
  s.report("n1", id, true, killed);
  const auto history = s.take<RecordHistory>();
  ASSERT_EQ(history.size(), 1U);
  EXPECT_EQ(history[0].summary.state, JobState::kFailed);
  EXPECT_NE(history[0].summary.reason.find("no space left"), std::string::npos);
  EXPECT_EQ(s.state.ledger.nodes()[0].free_cores.count(), 2U);
  EXPECT_EQ(s.state.ledger.nodes()[1].free_cores.count(), 2U);
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
