// Orders about jobs that run: requeue, suspend and continue, preemption.
#include <csignal>

#include "core/engine/running.h"
#include "core/sched/preempt.h"
#include "gtest/gtest.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

const Caller kAlice{"alice", false};

JobSelector jobs(JobId id) {
  JobSelector selector;
  selector.items.push_back({id, false, {}});
  return selector;
}
JobSelector tasks(JobId id, std::uint64_t first, std::uint64_t last) {
  JobSelector selector;
  selector.items.push_back({id, true, {{first, last, 1}}});
  return selector;
}
Outcome ended(EndCause cause, std::int32_t exit_code = 0) {
  Outcome outcome;
  outcome.cause = cause;
  outcome.exit_code = exit_code;
  return outcome;
}
JobSpec in_queue(const char* queue, std::uint32_t cpus) {
  JobSpec spec = job(1, 1, cpus);
  spec.queue = queue;
  return spec;
}
const Active& active(const Scenario& s, JobId id) {
  return std::get<Active>(engine::find_job(s.state, id)->phase);
}
JobSummary only_record(Scenario& s) {
  const auto records = s.take<RecordHistory>();
  EXPECT_EQ(records.size(), 1U);
  return records.empty() ? JobSummary{} : records.front().summary;
}

// One node of 4 cores; a job of queue main that holds all of them and runs.
struct OneBusyNode : Scenario {
  explicit OneBusyNode(sched::PreemptMode mode = sched::PreemptMode::kRequeue) {
    rules.queues[0].preempt_mode = mode;
    node("n1", 4);
    low = submit(in_queue("main", 4));
    schedule();
    report("n1", low, false);
    wait(Duration::from_s(100));
    drop_effects();
  }
  JobId low;
};

TEST(Requeue, StopsARunningJobAndPutsItBackWithItsId) {
  OneBusyNode s;
  s.run(RequeueJobs{kAlice, jobs(s.low)});
  EXPECT_EQ(s.take<SendStop>().size(), 1U);
  EXPECT_EQ(engine::find_job(s.state, s.low)->state(), JobState::kStopping);
  s.report("n1", s.low, true, ended(EndCause::kCancelled));
  const Job* job = engine::find_job(s.state, s.low);
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->state(), JobState::kPending);
  EXPECT_EQ(job->attempt, Attempt{1});
  EXPECT_EQ(job->eligible_time, s.now());
  const JobSummary row = only_record(s);
  EXPECT_TRUE(row.requeued);
  EXPECT_EQ(row.reason, "Requeued: by alice");
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_EQ(s.take<SendLaunch>().front().order.key, (AttemptKey{s.low, Attempt{2}}));
  s.drop_effects();
}

TEST(Requeue, AJobThatEndedByItselfBeforeTheStopHasEnded) {
  OneBusyNode s;
  s.run(RequeueJobs{kAlice, jobs(s.low)});
  s.report("n1", s.low, true, ended(EndCause::kExited));
  EXPECT_EQ(engine::find_job(s.state, s.low), nullptr);
  const auto records = s.take<RecordHistory>();
  EXPECT_EQ(records.front().summary.state, JobState::kCompleted);
  EXPECT_FALSE(records.front().summary.requeued);
  s.drop_effects();
}

TEST(Requeue, ACancelThatFollowsWins) {
  OneBusyNode s;
  s.run(RequeueJobs{kAlice, jobs(s.low)});
  s.run(CancelJobs{kAlice, jobs(s.low), 0});
  s.report("n1", s.low, true, ended(EndCause::kCancelled));
  EXPECT_EQ(engine::find_job(s.state, s.low), nullptr);
  EXPECT_EQ(only_record(s).state, JobState::kCancelled);
  s.drop_effects();
}

TEST(Requeue, IsRefusedWithTheReason) {
  OneBusyNode s;
  const JobId waits = s.submit(in_queue("main", 4));
  EXPECT_NE(s.run(RequeueJobs{kAlice, jobs(waits)}).notes.at(0).find("is pending"), std::string::npos);
  JobSpec never = in_queue("urgent", 1);
  never.requeue_given = true;
  s.run(CancelJobs{kAlice, jobs(s.low), 0});
  EXPECT_NE(s.run(RequeueJobs{kAlice, jobs(s.low)}).notes.at(0).find("is ending"), std::string::npos);
  s.report("n1", s.low, true, ended(EndCause::kCancelled));
  const JobId id = s.submit(never);
  JobSpec step = in_queue("urgent", 1);
  step.kind = JobKind::kRun;
  const JobId run = s.submit(step);
  s.schedule();
  EXPECT_NE(s.run(RequeueJobs{kAlice, jobs(id)}).notes.at(0).find("--no-requeue"), std::string::npos);
  EXPECT_NE(s.run(RequeueJobs{kAlice, jobs(run)}).notes.at(0).find("only batch jobs"), std::string::npos);
  EXPECT_EQ(s.refused(RequeueJobs{{"bob", false}, jobs(id)}).code, ErrorCode::kPermissionDenied);
  s.drop_effects();
}

TEST(Requeue, TasksOfAnArrayWaitAgainAndAreCounted) {
  Scenario s;
  s.node("n1", 4);
  JobSpec spec = job(1, 1, 1);
  spec.array = ArraySpec{{{0, 9, 1}}, 3};
  const JobId array = s.submit(spec);
  EXPECT_EQ(s.schedule(), 3U);
  const JobId second{array.value + 1};
  for (std::uint64_t i = 0; i < 3; ++i) s.report("n1", JobId{array.value + i}, false);
  EXPECT_EQ(s.run(RequeueJobs{kAlice, tasks(array, 1, 2)}).matched, 2U);
  s.report("n1", second, true, ended(EndCause::kCancelled));
  EXPECT_EQ(engine::find_job(s.state, second), nullptr);
  const Job* record = engine::find_array(s.state, array);
  EXPECT_EQ(record->array_running, 2U);
  ASSERT_EQ(record->requeued.size(), 1U);
  EXPECT_EQ(record->waiting, (std::vector<PositionRange>{{1, 2}, {3, 10}}));
  s.drop_effects();
  EXPECT_EQ(s.schedule(), 1U) << "the lowest index first";
  EXPECT_EQ(s.take<SendLaunch>().front().order.key, (AttemptKey{second, Attempt{2}}));
  EXPECT_TRUE(engine::find_array(s.state, array)->requeued.empty());
  // What ran before and is cancelled while it waits has a row of its own.
  s.report("n1", JobId{array.value + 2}, true, ended(EndCause::kCancelled));
  s.drop_effects();
  s.run(CancelJobs{kAlice, tasks(array, 2, 4), 0});
  const auto rows = s.take<RecordHistory>();
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].summary.attempt, Attempt{1});
  EXPECT_EQ(rows[1].summary.attempt, Attempt{});
  s.drop_effects();
}

TEST(Suspend, KeepsWhatItHoldsAndTheLimitStandsStill) {
  OneBusyNode s;
  const auto& spec = *engine::find_job(s.state, s.low)->spec;
  const Instant before = sched::believed_end(active(s, s.low));
  s.run(SuspendJobs{kAlice, jobs(s.low)});
  const auto orders = s.take<SendSuspend>();
  ASSERT_EQ(orders.size(), 1U);
  EXPECT_TRUE(orders[0].order.suspend);
  EXPECT_EQ(engine::find_job(s.state, s.low)->state(), JobState::kSuspended);
  EXPECT_TRUE(s.state.ledger.nodes()[0].free_cores.empty());
  s.run(SuspendJobs{kAlice, jobs(s.low)});
  EXPECT_TRUE(s.take<SendSuspend>().empty()) << "it is suspended already";
  s.wait(Duration::from_s(50));
  s.run(ContinueJobs{kAlice, jobs(s.low)});
  const auto again = s.take<SendSuspend>();
  ASSERT_EQ(again.size(), 1U);
  EXPECT_FALSE(again[0].order.suspend);
  EXPECT_GT(again[0].order.number, orders[0].order.number);
  const Job& job = *engine::find_job(s.state, s.low);
  EXPECT_EQ(job.state(), JobState::kRunning);
  EXPECT_EQ(sched::believed_end(active(s, s.low)), before + active(s, s.low).suspension.earlier);
  EXPECT_EQ(spec.time_limit, Duration::from_s(3600));
  EXPECT_NE(s.run(ContinueJobs{kAlice, jobs(s.low)}).notes.at(0).find("is not suspended"), std::string::npos);
}

TEST(Suspend, IsRepeatedWhenANodeComesBackAndACancelEndsIt) {
  OneBusyNode s;
  s.run(SuspendJobs{kAlice, jobs(s.low)});
  s.drop_effects();
  s.run(StartTerm{});
  NodeRegistration back = registration("n1", hardware(4));
  back.attempts.push_back(AttemptReport{{s.low, Attempt{1}}, false, {}});
  s.run(RegisterNode{back});
  ASSERT_EQ(s.take<SendSuspend>().size(), 1U);
  s.run(CancelJobs{kAlice, jobs(s.low), 0});
  EXPECT_EQ(s.take<SendStop>().size(), 1U);
  s.report("n1", s.low, true, ended(EndCause::kCancelled));
  EXPECT_EQ(only_record(s).state, JobState::kCancelled);
  s.drop_effects();
}

TEST(Suspend, ReachesAJobWhoseLaunchWasUnderWay) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = s.submit(in_queue("main", 4));
  s.schedule();
  s.run(SuspendJobs{kAlice, jobs(id)});
  s.drop_effects();
  s.report("n1", id, false);
  EXPECT_EQ(s.take<SendSuspend>().size(), 1U);
  s.drop_effects();
}

TEST(Preemption, StopsTheLowerJobAndStartsTheHigherOne) {
  OneBusyNode s;
  const JobId high = s.submit(in_queue("urgent", 2));
  s.plan_all();
  EXPECT_FALSE(engine::find_job(s.state, high)->is_active());
  EXPECT_EQ(active(s, s.low).stop, StopCause::kPreempted);
  EXPECT_EQ(active(s, s.low).terms.room_for, high);
  const engine::Explainer why(s.state, s.rules, s.now());
  EXPECT_EQ(why.reason(*engine::find_job(s.state, high)).detail,
            "waits for job " + std::to_string(s.low.value) + " to be preempted");
  EXPECT_EQ(s.take<SendStop>().size(), 1U);
  EXPECT_TRUE(s.plan_all().facts.empty()) << "one stop suffices";
  s.report("n1", s.low, true, ended(EndCause::kCancelled));
  const JobSummary row = only_record(s);
  EXPECT_EQ(row.state, JobState::kPreempted);
  EXPECT_TRUE(row.requeued);
  EXPECT_EQ(s.plan_all().matched, 1U);
  EXPECT_TRUE(engine::find_job(s.state, high)->is_active());
  EXPECT_EQ(engine::find_job(s.state, s.low)->last_end,
            "Preempted: to make room for job " + std::to_string(high.value));
  s.drop_effects();
}

TEST(Preemption, NothingIsFreeBeforeTheNodeSaysSo) {
  OneBusyNode s;
  const JobId high = s.submit(in_queue("urgent", 2));
  s.plan_all();
  s.wait(Duration::from_s(500));
  EXPECT_EQ(s.plan_all().matched, 0U) << "the node has not said that it is gone";
  EXPECT_FALSE(engine::find_job(s.state, high)->is_active());
  // Who stands behind cannot take what becomes free.
  const JobId behind = s.submit(in_queue("main", 4));
  s.report("n1", s.low, true, ended(EndCause::kCancelled));
  s.plan_all();
  EXPECT_TRUE(engine::find_job(s.state, high)->is_active());
  EXPECT_FALSE(engine::find_job(s.state, behind)->is_active());
  s.drop_effects();
}

TEST(Preemption, CancelsWhatMustNotBeRequeued) {
  OneBusyNode cancel(sched::PreemptMode::kCancel);
  cancel.submit(in_queue("urgent", 2));
  cancel.plan_all();
  cancel.report("n1", cancel.low, true, ended(EndCause::kCancelled));
  EXPECT_EQ(engine::find_job(cancel.state, cancel.low), nullptr);
  const JobSummary row = only_record(cancel);
  EXPECT_EQ(row.state, JobState::kPreempted);
  EXPECT_FALSE(row.requeued);
  cancel.drop_effects();

  Scenario s;
  s.rules.queues[0].preempt_mode = sched::PreemptMode::kRequeue;
  s.node("n1", 4);
  JobSpec spec = in_queue("main", 4);
  spec.requeue_given = true;
  const JobId low = s.submit(spec);
  s.schedule();
  s.submit(in_queue("urgent", 2));
  s.wait(Duration::from_s(100));
  s.plan_all();
  s.report("n1", low, true, ended(EndCause::kCancelled));
  EXPECT_EQ(engine::find_job(s.state, low), nullptr) << "--no-requeue";
  s.drop_effects();
}

TEST(Preemption, WarnsFirstAndWhoGivesUpThenGoesBack) {
  Scenario s;
  s.rules.queues[0].preempt_mode = sched::PreemptMode::kCheckpoint;
  s.rules.queues[0].preempt_grace = Duration::from_s(60);
  s.node("n1", 4);
  JobSpec spec = in_queue("main", 4);
  spec.warn_signal = SIGUSR1;
  const JobId low = s.submit(spec);
  s.schedule();
  s.report("n1", low, false);
  s.drop_effects();
  s.wait(Duration::from_s(100));
  const JobId high = s.submit(in_queue("urgent", 2));
  s.plan_all();
  const auto stops = s.take<SendStop>();
  ASSERT_EQ(stops.size(), 1U);
  EXPECT_EQ(stops[0].order.notice_signal, SIGUSR1);
  EXPECT_EQ(stops[0].order.notice, Duration::from_s(60));
  EXPECT_EQ(engine::find_job(s.state, high)->promised_start.seconds(), (s.now() + Duration::from_s(60)).seconds());
  s.report("n1", low, true, ended(EndCause::kExited, 85));
  EXPECT_EQ(engine::find_job(s.state, low)->state(), JobState::kPending);
  s.drop_effects();
}

TEST(Preemption, LeavesAloneWhoMayNotBePreempted) {
  OneBusyNode off(sched::PreemptMode::kOff);
  off.submit(in_queue("urgent", 2));
  off.plan_all();
  EXPECT_EQ(active(off, off.low).stop, StopCause::kNone);
  off.drop_effects();

  OneBusyNode exempt;
  exempt.rules.queues[0].preempt_exempt = Duration::from_s(1'000);
  exempt.submit(in_queue("urgent", 2));
  exempt.plan_all();
  EXPECT_EQ(active(exempt, exempt.low).stop, StopCause::kNone);
  const sched::Plan plan = engine::plan(exempt.state, exempt.rules, {}, exempt.now());
  EXPECT_EQ(plan.look_again, active(exempt, exempt.low).start_time + Duration::from_s(1'000));
  exempt.wait(Duration::from_s(1'000));
  exempt.plan_all();
  EXPECT_EQ(active(exempt, exempt.low).stop, StopCause::kPreempted);
  exempt.drop_effects();

  OneBusyNode equal;
  equal.submit(in_queue("main", 2));
  equal.plan_all();
  EXPECT_EQ(active(equal, equal.low).stop, StopCause::kNone) << "the same queue";
  equal.drop_effects();
}

TEST(Preemption, DoesNotStopWhatEndsByItselfSoon) {
  OneBusyNode s;
  s.wait(Duration::from_s(3'600 - 100 - 5));
  s.submit(in_queue("urgent", 2));
  s.plan_all();
  EXPECT_EQ(active(s, s.low).stop, StopCause::kNone);
  s.drop_effects();
}

TEST(Preemption, LosesTheLeastWorkAndNoMoreThanNeeded) {
  Scenario s;
  s.rules.queues[0].preempt_mode = sched::PreemptMode::kRequeue;
  s.node("n1", 8);
  const JobId old = s.submit(in_queue("main", 4));
  s.schedule();
  s.wait(Duration::from_s(1'000));
  const JobId small = s.submit(in_queue("main", 1));
  const JobId young = s.submit(in_queue("main", 3));
  s.schedule();
  s.wait(Duration::from_s(10));
  const JobId high = s.submit(in_queue("urgent", 3));
  s.plan_all();
  EXPECT_EQ(active(s, young).stop, StopCause::kPreempted);
  EXPECT_EQ(active(s, small).stop, StopCause::kNone) << "its core is not needed";
  EXPECT_EQ(active(s, old).stop, StopCause::kNone);
  EXPECT_FALSE(engine::find_job(s.state, high)->is_active());
  s.drop_effects();
}

TEST(Preemption, TakesTheNodeWhereTheLeastIsLost) {
  Scenario s;
  s.rules.queues[0].preempt_mode = sched::PreemptMode::kRequeue;
  s.node("n1", 8);
  s.node("n2", 8);
  // Eight young jobs on one node lose more together than the one on the other.
  const JobId whole = s.submit(in_queue("main", 8));
  s.schedule();
  s.wait(Duration::from_s(20));
  std::vector<JobId> ones;
  for (int i = 0; i < 8; ++i) ones.push_back(s.submit(in_queue("main", 1)));
  s.schedule();
  s.wait(Duration::from_s(100));
  s.submit(in_queue("urgent", 8));
  s.plan_all();
  EXPECT_EQ(active(s, whole).stop, StopCause::kNone);
  for (const JobId id : ones) EXPECT_EQ(active(s, id).stop, StopCause::kPreempted) << "800 core-seconds, not 960";
  s.drop_effects();
}

TEST(Preemption, SeveralHigherJobsNeedNotWaitForEachOther) {
  Scenario s;
  s.rules.queues[0].preempt_mode = sched::PreemptMode::kRequeue;
  for (const char* name : {"n1", "n2", "n3"}) s.node(name, 2);
  std::vector<JobId> low;
  for (int i = 0; i < 3; ++i) low.push_back(s.submit(in_queue("main", 2)));
  s.schedule();
  s.wait(Duration::from_s(100));
  for (int i = 0; i < 3; ++i) s.submit(in_queue("urgent", 2));
  s.plan_all();
  for (const JobId id : low) EXPECT_EQ(active(s, id).stop, StopCause::kPreempted);
  s.drop_effects();
}

TEST(Preemption, ByQosWithinOneQueueAndTheOrderAgrees) {
  Scenario s;
  s.rules.queues[0].preempt_mode = sched::PreemptMode::kRequeue;
  const auto add = [&s](const char* name, std::vector<AccountingSetting> settings) {
    s.run(ChangeAccounting{{"root", true}, AccountingKind::kQos, AccountingVerb::kAdd, name, std::move(settings)});
  };
  add("low", {});
  add("high", {{"preempts", "low"}});
  s.node("n1", 4);
  JobSpec spec = in_queue("main", 4);
  spec.qos = "low";
  const JobId low = s.submit(spec);
  s.schedule();
  s.wait(Duration::from_s(100));
  const JobId second = s.submit(spec);  // stands before `high` but for the QOS
  s.wait(Duration::from_s(100));
  spec.qos = "high";
  const JobId high = s.submit(spec);
  s.plan_all();
  EXPECT_EQ(active(s, low).stop, StopCause::kPreempted);
  EXPECT_EQ(active(s, low).terms.room_for, high);
  s.report("n1", low, true, ended(EndCause::kCancelled));
  s.plan_all();
  EXPECT_TRUE(engine::find_job(s.state, high)->is_active());
  EXPECT_FALSE(engine::find_job(s.state, second)->is_active());
  s.drop_effects();
  EXPECT_FALSE(sched::rank_qos({{"a", {"b"}}, {"b", {"c"}}, {"c", {"a"}}}).ok());
  EXPECT_FALSE(sched::rank_qos({{"a", {"a"}}}).ok());
}

TEST(Preemption, IsCheckedAgainWhenThePlanIsApplied) {
  OneBusyNode s;
  const JobId high = s.submit(in_queue("urgent", 2));
  const JobId same = s.submit(in_queue("main", 2));
  const AttemptKey victim{s.low, Attempt{1}};
  const auto refused = [&](JobId for_job, AttemptKey key) {
    const auto decision = s.run(ApplyPlan{{}, {}, {Preemption{for_job, key}}});
    return decision.facts.empty() && decision.notes.size() == 1;
  };
  EXPECT_TRUE(refused(same, victim));
  EXPECT_TRUE(refused(high, AttemptKey{s.low, Attempt{2}}));
  EXPECT_TRUE(refused(JobId{99}, victim));
  EXPECT_TRUE(refused(high, AttemptKey{JobId{99}, Attempt{1}}));
  s.run(HoldJobs{kAlice, jobs(high)});
  EXPECT_TRUE(refused(high, victim));
  s.run(ReleaseJobs{kAlice, jobs(high)});
  s.run(ApplyPlan{{}, {}, {Preemption{high, victim}}});
  EXPECT_TRUE(refused(high, victim)) << "once is enough";
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
