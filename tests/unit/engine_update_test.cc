// What is changed after the submission: muster update, queue settings, deadlines, --time-min, single tasks of arrays.
#include "core/engine/deadline.h"
#include "core/engine/dependency.h"
#include "core/engine/engine.h"
#include "core/engine/settings.h"
#include "core/sched/queue_rules.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

const Caller kAlice{"alice", false};
const Caller kRoot{"root", true};

JobSelector only(JobId id) {
  JobSelector selector;
  selector.items.push_back({id, false, {}});
  return selector;
}
JobSelector tasks(JobId id, std::uint64_t first, std::uint64_t last) {
  JobSelector selector;
  selector.items.push_back({id, true, {ArrayRange{first, last, 1}}});
  return selector;
}

template <typename Set>
UpdateJobs update(JobId id, std::vector<SpecField> fields, Set set, Caller caller = kAlice) {
  UpdateJobs command{.caller = std::move(caller), .jobs = only(id), .change = {}};
  command.change.fields = std::move(fields);
  set(command.change.values);
  return command;
}
UpdateJobs new_limit(JobId id, Duration limit, Caller caller = kAlice) {
  return update(
      id, {SpecField::kTimeLimit}, [limit](JobSpec& s) { s.time_limit = limit; }, std::move(caller));
}

JobSpec array_of(std::uint64_t n, std::uint32_t cpus = 1) {
  JobSpec spec = job(1, 1, cpus);
  spec.array = ArraySpec{{ArrayRange{0, n - 1, 1}}, 0};
  return spec;
}

Dependency on(DependencyKind kind, JobId id) {
  return Dependency{{DependencyTerm{kind, {id, false, 0}, {}}}, false};
}

const Job& waiting(const Scenario& s, JobId id) {
  const Job* array = engine::find_array(s.state, id);
  return array != nullptr ? *array : *engine::find_job(s.state, id);
}

std::string reason(const Scenario& s, JobId id) {
  return engine::Explainer(s.state, s.rules, s.state.now).reason(waiting(s, id)).word;
}

Outcome exited(std::int32_t code) {
  return Outcome{.cause = EndCause::kExited, .exit_code = code, .signal = 0, .detail = {}, .ran = {}};
}

// ---- jobs that wait

TEST(Update, AJobThatWaitsIsCheckedAsIfItWereNewAndKeepsItsAge) {
  Scenario s;
  s.node("n1", 4);
  s.submit(job(1, 1, 4));
  s.schedule();
  const JobId id = s.submit(job(1, 1, 4));
  s.schedule();
  const Instant since = waiting(s, id).eligible_time;
  s.run(update(id, {SpecField::kCpusPerTask, SpecField::kComment}, [](JobSpec& v) {
    v.cpus_per_task = 2;
    v.comment = "smaller";
  }));
  EXPECT_EQ(waiting(s, id).spec->cpus_per_task, 2U);
  EXPECT_EQ(waiting(s, id).spec->comment, "smaller");
  EXPECT_EQ(waiting(s, id).eligible_time, since);
  EXPECT_FALSE(waiting(s, id).promised_start.is_set());
  const Error never = s.refused(update(id, {SpecField::kCpusPerTask}, [](JobSpec& v) { v.cpus_per_task = 5; }));
  EXPECT_NE(never.message.find("can never run in queue main"), std::string::npos) << never.message;
  EXPECT_EQ(s.refused(update(
                          id, {SpecField::kComment}, [](JobSpec&) {}, Caller{"bob", false}))
                .code,
            ErrorCode::kPermissionDenied);
  s.drop_effects();
}

TEST(Update, ANumberOfNodesThatNobodyAskedForIsDerivedAnew) {
  Scenario s;
  s.node("n1", 8);
  s.node("n2", 8);
  JobSpec two = job(2, 0);
  two.nodes_max = 0;
  const JobId exact = s.submit(two);
  s.run(update(exact, {SpecField::kNodes}, [](JobSpec& v) { v.nodes_min = v.nodes_max = 1; }));
  EXPECT_EQ(waiting(s, exact).spec->ntasks, 1U);
  const JobId spread = s.submit(job(0, 4));
  ASSERT_EQ(waiting(s, spread).spec->nodes_max, 0U);
  s.run(update(spread, {SpecField::kComment}, [](JobSpec& v) { v.comment = "x"; }));
  EXPECT_EQ(waiting(s, spread).spec->nodes_max, 0U) << "a comment must not pin the job to one node";
}

TEST(Update, OnlyAnAdministratorGoesBelowNiceZero) {
  Scenario s;
  s.node("n1", 1);
  JobSpec nice = job(1, 1);
  nice.nice = -1;
  EXPECT_EQ(s.refused(SubmitJob{kAlice, {}, std::make_shared<JobSpec>(nice)}).code, ErrorCode::kPermissionDenied);
  const JobId id = s.submit(job(1, 1));
  s.run(update(id, {SpecField::kNice}, [](JobSpec& v) { v.nice = 7; }));
  EXPECT_EQ(s.refused(update(id, {SpecField::kNice}, [](JobSpec& v) { v.nice = -7; })).code,
            ErrorCode::kPermissionDenied);
  s.run(update(
      id, {SpecField::kNice}, [](JobSpec& v) { v.nice = -7; }, kRoot));
  EXPECT_EQ(waiting(s, id).spec->nice, -7);
}

TEST(Update, ACycleOfDependenciesIsRefusedAndNamed) {
  Scenario s;
  s.node("n1", 1);
  const JobId a = s.submit(job(1, 1));
  JobSpec second = job(1, 1);
  second.dependency = on(DependencyKind::kAfterOk, a);
  const JobId b = s.submit(second);
  JobSpec third = job(1, 1);
  third.dependency = on(DependencyKind::kAfterAny, b);
  const JobId c = s.submit(third);
  const Error cycle = s.refused(
      update(a, {SpecField::kDependency}, [&](JobSpec& v) { v.dependency = on(DependencyKind::kAfterOk, c); }));
  EXPECT_EQ(cycle.message,
            "job 1: --dependency makes jobs wait for each other for ever: 1 -> 3 -> 2 -> 1: leave one of "
            "them out");
  const Error self =
      s.refused(update(a, {SpecField::kDependency}, [&](JobSpec& v) { v.dependency = on(DependencyKind::kAfter, a); }));
  EXPECT_NE(self.message.find("which is the job itself"), std::string::npos) << self.message;
  // Without its dependency the second one may wait for the third.
  s.run(update(c, {SpecField::kDependency}, [](JobSpec& v) { v.dependency = {}; }));
  s.run(update(b, {SpecField::kDependency}, [&](JobSpec& v) { v.dependency = on(DependencyKind::kAfterOk, c); }));
  EXPECT_EQ(waiting(s, b).open.size(), 1U);
}

TEST(Update, ANewNameMakesNoCycleOfSingletons) {
  Scenario s;
  s.node("n1", 1);
  JobSpec x = job(1, 1);
  x.name = "x";
  const JobId a = s.submit(x);
  JobSpec other = job(1, 1);
  other.name = "y";
  const JobId b = s.submit(other);
  JobSpec single = job(1, 1);
  single.name = "x";
  single.dependency = Dependency{{DependencyTerm{DependencyKind::kSingleton, {}, {}}}, false};
  const JobId c = s.submit(single);
  s.run(update(b, {SpecField::kDependency}, [&](JobSpec& v) { v.dependency = on(DependencyKind::kAfterOk, c); }));
  const Error cycle = s.refused(update(b, {SpecField::kName}, [](JobSpec& v) { v.name = "x"; }));
  EXPECT_NE(cycle.message.find("--job-name makes jobs wait for each other for ever: 2 -> 3 -> 2"), std::string::npos)
      << cycle.message;
  // The only other one of its name is renamed: it is alone now.
  s.run(update(a, {SpecField::kName}, [](JobSpec& v) { v.name = "z"; }));
  EXPECT_TRUE(waiting(s, c).open.empty());
  EXPECT_EQ(s.take<DependencyMet>().size(), 1U);
  s.drop_effects();
}

TEST(Update, TheLimitOfAnArrayMayFallBelowWhatRuns) {
  Scenario s;
  s.node("n1", 8);
  const JobId array = s.submit(array_of(6));
  UpdateJobs limit = update(array, {SpecField::kArrayLimit}, [](JobSpec& v) {
    v.array = ArraySpec{{ArrayRange{0, 0, 1}}, 4};
  });
  s.run(limit);
  EXPECT_EQ(s.schedule(), 4U);
  limit.change.values.array->max_running = 2;
  s.run(limit);
  EXPECT_EQ(s.schedule(), 0U);
  for (std::uint64_t task = 0; task < 3; ++task) {
    s.report("n1", JobId{array.value + task}, true, exited(0));
  }
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_EQ(engine::find_array(s.state, array)->array_running, 2U);
  s.drop_effects();
}

// ---- jobs that run

TEST(Update, ARunningJobsLimitReachesItsNodes) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  s.report("n1", id, false);
  s.drop_effects();
  s.run(new_limit(id, Duration::from_s(600)));
  auto sent = s.take<SendLimit>();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].order.time_limit, Duration::from_s(600));
  EXPECT_EQ(std::get<Active>(engine::find_job(s.state, id)->phase).time_limit, Duration::from_s(600));
  EXPECT_EQ(s.state.horizon.on(NodeIndex{0}).front().until,
            std::get<Active>(engine::find_job(s.state, id)->phase).start_time + Duration::from_s(600));
  // A node that registers again is told again.
  s.run(LoseNode{NodeIndex{0}});
  NodeRegistration again = registration("n1", hardware(4));
  again.attempts = {AttemptReport{{id, Attempt{1}}, false, {}}};
  s.run(RegisterNode{again});
  EXPECT_EQ(s.take<SendLimit>().size(), 1U);
  EXPECT_EQ(s.refused(new_limit(id, Duration::from_s(900))).code, ErrorCode::kPermissionDenied);
  s.run(new_limit(id, Duration::from_s(900), kRoot));
  const Error ran = s.refused(new_limit(id, Duration::from_us(1)));
  EXPECT_NE(ran.message.find("has run for"), std::string::npos) << ran.message;
  const Error other = s.refused(update(id, {SpecField::kQos}, [](JobSpec& v) { v.qos = "high"; }));
  EXPECT_EQ(other.message,
            "job 1: has started: --qos can be changed only while a job waits, of a running one --time, "
            "--job-name and --comment");
  s.run(update(id, {SpecField::kComment}, [](JobSpec& v) { v.comment = "told"; }));
  EXPECT_EQ(engine::find_job(s.state, id)->spec->comment, "told");
  // History tells how long it might run.
  s.report("n1", id, true, exited(0));
  EXPECT_EQ(s.take<RecordHistory>()[0].summary.spec->time_limit, Duration::from_s(900));
  s.drop_effects();
}

TEST(Update, ALimitThatWasChangedBeforeTheNodeConfirmedIsSentAgain) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  s.run(new_limit(id, Duration::from_s(60)));
  s.drop_effects();
  s.report("n1", id, false);
  EXPECT_EQ(s.take<SendLimit>().size(), 1U);
  s.drop_effects();
}

TEST(Update, ARaisedLimitTellsOfPromisesThatMaySlip) {
  Scenario s;
  s.node("n1", 4);
  const JobId runs = s.submit(job(1, 1, 4));
  s.schedule();
  const JobId next = s.submit(job(1, 1, 4));
  s.run(engine::apply_plan(s.state, engine::plan(s.state, s.rules, {}, s.state.now)));
  ASSERT_TRUE(waiting(s, next).promised_start.is_set());
  const engine::Decision raised = s.run(new_limit(runs, Duration::from_s(7200), kRoot));
  ASSERT_EQ(raised.remarks.size(), 1U);
  EXPECT_EQ(raised.remarks[0], "job 1: its new end is behind the promised start of job 2, which may slip");
  s.drop_effects();
}

// ---- deadlines and --time-min

TEST(Deadline, ASubmissionThatCannotMakeItIsRefused) {
  Scenario s;
  s.node("n1", 1);
  JobSpec late = job(1, 1);
  late.deadline = s.state.now + Duration::from_s(1800);
  EXPECT_NE(s.submit_refused(late).message.find("the job cannot end by its --deadline"), std::string::npos);
  late.deadline = s.state.now - Duration::from_s(1);
  EXPECT_EQ(s.submit_refused(late).message, "--deadline is in the past: give a time to come");
  late.deadline = s.state.now + Duration::from_s(1800);
  late.time_min = Duration::from_s(600);
  s.submit(late);
  late.time_min = Duration::from_s(7200);
  EXPECT_NE(s.submit_refused(late).message.find("--time-min"), std::string::npos);
}

TEST(Deadline, AWaitingJobIsGivenUpWhenItsLatestStartHasPassed) {
  Scenario s;
  s.node("n1", 1);
  s.submit(job(1, 1));
  s.schedule();
  JobSpec spec = job(1, 1);
  spec.time_limit = Duration::from_s(1);
  spec.deadline = s.state.now + Duration::from_s(1) + Duration::from_ms(20);
  const JobId id = s.submit(spec);
  JobSpec held = array_of(3);
  held.time_limit = Duration::from_s(1);
  held.deadline = spec.deadline;
  held.hold = true;
  const JobId array = s.submit(held);
  ASSERT_EQ(engine::next_deadline(s.state), spec.deadline - Duration::from_s(1));
  while (engine::find_job(s.state, id) != nullptr || engine::find_array(s.state, array) != nullptr) {
    ASSERT_LT(s.state.now, spec.deadline);
    s.run(DrainNodes{kRoot, {"n1"}, "tick" + std::to_string(s.state.now.us)});  // the clock goes on
    s.run(Tick{});
  }
  const auto history = s.take<RecordHistory>();
  ASSERT_EQ(history.size(), 2U);
  for (const RecordHistory& row : history) {
    EXPECT_EQ(row.summary.state, JobState::kDeadline);
    EXPECT_EQ(row.summary.reason, "DeadLine: it could not end by its deadline any more");
  }
  s.drop_effects();
}

TEST(Deadline, ARunningJobIsStoppedAtIt) {
  Scenario s;
  s.node("n1", 1);
  JobSpec spec = job(1, 1);
  spec.time_limit = Duration::from_ms(20);
  spec.deadline = s.state.now + Duration::from_ms(30);
  const JobId id = s.submit(spec);
  s.schedule();
  s.report("n1", id, false);
  s.run(new_limit(id, Duration::from_s(60), kRoot));
  s.drop_effects();
  while (s.take<SendStop>().empty()) {
    ASSERT_LT(s.state.now, spec.deadline + Duration::from_ms(5));
    s.run(DrainNodes{kRoot, {"n1"}, "tick" + std::to_string(s.state.now.us)});
    s.run(Tick{});
  }
  s.report("n1", id, true,
           Outcome{.cause = EndCause::kCancelled, .exit_code = 0, .signal = 15, .detail = {}, .ran = {}});
  const auto history = s.take<RecordHistory>();
  ASSERT_EQ(history.size(), 1U);
  EXPECT_EQ(history[0].summary.state, JobState::kDeadline);
  s.drop_effects();
}

TEST(TimeMin, ALimitIsShortenedToFillAGapAndNoFurtherThanNeeded) {
  Scenario s;
  s.node("n1", 4);
  s.submit(job(1, 1, 3));  // an hour
  s.schedule();
  s.submit(job(1, 1, 4));  // promised the end of it
  JobSpec flexible = job(1, 1, 1);
  flexible.time_limit = Duration::from_s(7200);
  const JobId stiff = s.submit(flexible);
  flexible.time_min = Duration::from_s(600);
  const JobId fits = s.submit(flexible);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_FALSE(waiting(s, stiff).is_active());
  const auto* active = std::get_if<Active>(&engine::find_job(s.state, fits)->phase);
  ASSERT_NE(active, nullptr);
  EXPECT_LE(active->time_limit, Duration::from_s(3600));
  EXPECT_GE(active->time_limit, Duration::from_s(3598));
  const auto launches = s.take<SendLaunch>();
  EXPECT_EQ(time_limit_of(launches.back().order), active->time_limit);
  s.drop_effects();
}

TEST(TimeMin, ADeadlineCutsTheLimit) {
  Scenario s;
  s.node("n1", 4);
  JobSpec spec = job(1, 1);
  spec.deadline = s.state.now + Duration::from_s(1000);
  spec.time_min = Duration::from_s(100);
  const JobId id = s.submit(spec);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_EQ(std::get<Active>(engine::find_job(s.state, id)->phase).time_limit, Duration::from_s(999));
  s.drop_effects();
}

TEST(TimeMin, APlanMayNotGiveALimitThatNobodyAskedFor) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = s.submit(job(1, 1));
  ApplyPlan plan{engine::plan(s.state, s.rules, {}, s.state.now).placements};
  for (const Duration limit : {Duration::from_s(60), Duration::from_s(7200)}) {
    plan.placements[0].time_limit = limit;
    EXPECT_EQ(s.run(plan).matched, 0U);
  }
  EXPECT_FALSE(engine::find_job(s.state, id)->is_active());
}

// ---- single tasks of arrays

TEST(ArrayTasks, SinglyHeldTasksWaitAndTheOthersStart) {
  Scenario s;
  s.node("n1", 8);
  const JobId array = s.submit(array_of(6));
  s.run(HoldJobs{kAlice, tasks(array, 1, 2)});
  EXPECT_EQ(s.schedule(), 4U);
  EXPECT_EQ(engine::find_job(s.state, JobId{array.value + 1}), nullptr);
  EXPECT_EQ(reason(s, array), "JobHeldUser");
  EXPECT_TRUE(s.state.pending.empty());
  s.run(ReleaseJobs{kAlice, tasks(array, 2, 2)});
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_NE(engine::find_job(s.state, JobId{array.value + 2}), nullptr);
  s.run(ReleaseJobs{kAlice, only(array)});
  EXPECT_EQ(s.schedule(), 1U);
  s.drop_effects();
}

TEST(ArrayTasks, OneTaskOfAHeldArrayIsReleasedAlone) {
  Scenario s;
  s.node("n1", 8);
  JobSpec spec = array_of(4);
  spec.hold = true;
  const JobId array = s.submit(spec);
  s.run(ReleaseJobs{kAlice, tasks(array, 3, 3)});
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_NE(engine::find_job(s.state, JobId{array.value + 3}), nullptr);
  EXPECT_EQ(engine::find_array(s.state, array)->held_positions, (Positions{{0, 3}}));
  s.drop_effects();
}

TEST(ArrayTasks, AfterCorrPairsTasksByIndex) {
  Scenario s;
  s.node("n1", 2);
  const JobId first = s.submit(array_of(3));
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{{ArrayRange{2, 2, 1}, ArrayRange{0, 0, 1}}, 0};  // the other way round, and one less
  spec.dependency = on(DependencyKind::kAfterCorr, first);
  const JobId second = s.submit(spec);
  EXPECT_EQ(s.schedule(), 2U);
  EXPECT_EQ(reason(s, second), "Dependency");
  s.report("n1", first, true, exited(0));
  EXPECT_EQ(s.take<DependencyMet>().size(), 1U);
  EXPECT_EQ(s.schedule(), 1U);  // the last of the first array stands before it
  s.report("n1", JobId{first.value + 1}, true, exited(0));
  EXPECT_EQ(s.schedule(), 1U);
  const Job* task = engine::find_job(s.state, JobId{second.value + 1});
  ASSERT_NE(task, nullptr);
  EXPECT_EQ(task->spec->array->index_at(task->array_position), 0U);
  s.report("n1", JobId{first.value + 2}, true, exited(1));
  EXPECT_EQ(reason(s, second), "DependencyNeverSatisfied");
  EXPECT_TRUE(engine::is_never_satisfied(waiting(s, second)));
  EXPECT_EQ(s.schedule(), 0U);
  s.drop_effects();
}

TEST(ArrayTasks, AfterCorrCountsWhatHasEndedAlready) {
  Scenario s;
  s.node("n1", 8);
  const JobId first = s.submit(array_of(3));
  EXPECT_EQ(s.schedule(), 3U);
  s.report("n1", first, true, exited(0));
  s.report("n1", JobId{first.value + 1}, true, exited(3));
  JobSpec spec = array_of(3);
  spec.dependency = on(DependencyKind::kAfterCorr, first);
  const JobId second = s.submit(spec);
  EXPECT_EQ(waiting(s, second).open[0].corr_waits, (Positions{{2, 3}}));
  EXPECT_EQ(waiting(s, second).open[0].corr_never, (Positions{{1, 2}}));
  EXPECT_EQ(s.schedule(), 1U);
  s.run(CancelJobs{kAlice, tasks(second, 1, 1)});
  s.report("n1", JobId{first.value + 2}, true, exited(0));
  EXPECT_TRUE(waiting(s, second).open.empty());
  EXPECT_EQ(s.schedule(), 1U);
  // What is not in the state any more is told by the history.
  SubmitJob third{kAlice, {}, std::make_shared<JobSpec>(spec)};
  third.ended = {
      EndedJob{.target = {first, false, 0}, .completed = false, .start = {}, .array = spec.array, .failed = {{1, 2}}}};
  const JobId id = s.run(third).job;
  EXPECT_EQ(waiting(s, id).open[0].corr_never, (Positions{{1, 2}}));
  s.drop_effects();
}

TEST(ArrayTasks, AfterCorrNeedsTwoArraysThatMatch) {
  Scenario s;
  s.node("n1", 2);
  const JobId single = s.submit(job(1, 1));
  const JobId array = s.submit(array_of(3));
  JobSpec spec = array_of(5);
  spec.dependency = on(DependencyKind::kAfterCorr, single);
  EXPECT_NE(s.submit_refused(spec).message.find("job 1 is no array: use afterok"), std::string::npos);
  spec.dependency = on(DependencyKind::kAfterCorr, array);
  EXPECT_NE(s.submit_refused(spec).message.find("array 2 has no task 3: give --array indices that it has (0-2)"),
            std::string::npos);
  spec.array.reset();
  EXPECT_NE(s.submit_refused(spec).message.find("aftercorr pairs the tasks of two arrays: give --array"),
            std::string::npos);
}

// ---- queues and settings

TEST(Queues, LimitsAreNamedWithTheOptionAndTheQueue) {
  Scenario s;
  s.node("n1", 64, 8);
  s.node("n2", 64, 8);
  sched::QueuePolicy& q = s.rules.queues[0];
  q.time_max = Duration::from_s(3600);
  q.nodes_max = 1;
  q.cpus_max = 16;
  q.gpus_max = 4;
  q.allow_accounts = {"physics"};
  q.allow_users = {"alice"};
  q.allow_qos = {"normal"};
  JobSpec spec = job(1, 1);
  const auto refused = [&](auto change, const std::string& what) {
    JobSpec changed = spec;
    change(changed);
    const Error e = s.submit_refused(changed);
    EXPECT_NE(e.message.find(what), std::string::npos) << e.message;
  };
  refused([](JobSpec&) {}, "a job without --account is not admitted by queue main: use one of physics");
  spec.account = "physics";
  refused([](JobSpec&) {}, "a job without --qos is not admitted by queue main: use one of normal");
  spec.qos = "normal";
  refused([](JobSpec& v) { v.user = "bob"; }, "user bob is not admitted by queue main");
  refused([](JobSpec& v) { v.time_limit = Duration::from_s(7200); },
          "--time 02:00:00 is above the limit of queue main: ask for at most 01:00:00");
  refused([](JobSpec& v) { v.nodes_min = v.nodes_max = v.ntasks = 2; },
          "--nodes 2 is above the limit of queue main: at most 1 nodes a job");
  refused([](JobSpec& v) { v.cpus_per_task = 17; }, "are 17 CPUs, which is above the limit of queue main: at most 16");
  refused([](JobSpec& v) { v.gpus = 5; }, "--gpus comes to 5 GPUs, which is above the limit of queue main: at most 4");
  // What may spread is kept within the queue's nodes.
  spec.nodes_min = 0;
  spec.ntasks = 8;
  const JobId id = s.submit(spec);
  EXPECT_EQ(waiting(s, id).spec->nodes_max, 1U);
}

struct Settings {
  Scenario s;
  Result<engine::Decision> change(const sched::Policy& next, bool force = false, Caller caller = kRoot) {
    return engine::decide_settings(s.state, s.rules, next, {std::move(caller), {{"queue.main.max_time", "30m"}}, force},
                                   s.state.now);
  }
};

TEST(Queues, AChangeThatOrphansJobsNamesThem) {
  Settings t;
  t.s.node("n1", 4);
  t.s.node("n2", 2);
  const JobId longer = t.s.submit(job(1, 1));
  JobSpec brief = job(1, 1);
  brief.time_limit = Duration::from_s(60);
  const JobId shorter = t.s.submit(brief);
  sched::Policy next = t.s.rules;
  next.queues[0].time_max = Duration::from_s(1800);
  EXPECT_EQ(t.change(next, false, kAlice).error().code, ErrorCode::kPermissionDenied);
  const auto refused = t.change(next);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(
      refused.error().message,
      "the change would leave 1 job that could not go on: 1 (--time 01:00:00 is above the limit of queue main: ask "
      "for at most 00:30:00): change or cancel them first, or give --force and let them wait");
  const auto forced = t.change(next, true);
  ASSERT_TRUE(forced.ok());
  ASSERT_EQ(forced->facts.size(), 1U);
  for (const Fact& f : forced->facts) engine::evolve(t.s.state, f);
  EXPECT_EQ(t.s.state.settings.at("queue.main.max_time"), "30m");
  t.s.rules = next;
  const auto plan = engine::plan(t.s.state, t.s.rules, {}, t.s.state.now);
  ASSERT_EQ(plan.placements.size(), 1U);
  EXPECT_EQ(plan.placements[0].job, shorter);
  EXPECT_EQ(reason(t.s, longer), "PartitionTimeLimit");
  // A plan that was made before is refused.
  ApplyPlan stale{{plan.placements[0]}};
  stale.placements[0].job = longer;
  const auto applied = engine::decide(t.s.state, t.s.rules, stale, t.s.state.now);
  ASSERT_TRUE(applied.ok());
  EXPECT_EQ(applied->matched, 0U);
  EXPECT_EQ(applied->notes.at(0), "job 1: is not admitted by its queue");
}

TEST(Queues, AJobThatFitsNoNodeOfTheNewSetIsOrphaned) {
  Settings t;
  t.s.node("n1", 4);
  t.s.node("n2", 2);
  t.s.submit(job(1, 1, 4));
  sched::Policy next = t.s.rules;
  next.queues[0].nodes = {"n2"};
  const auto refused = t.change(next);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("1 (on the nodes of queue main it "), std::string::npos)
      << refused.error().message;
}

TEST(Queues, AQueueWithJobsIsNotDeleted) {
  Settings t;
  t.s.node("n1", 1);
  JobSpec spec = job(1, 1);
  spec.queue = "urgent";
  t.s.submit(spec);
  t.s.schedule();
  t.s.submit(spec);
  sched::Policy next = t.s.rules;
  next.queues.pop_back();
  const auto refused = t.change(next);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("2 jobs that could not go on: 1 (it runs in queue urgent); 2 (it waits in "
                                         "queue urgent)"),
            std::string::npos)
      << refused.error().message;
  EXPECT_TRUE(t.change(next, true).ok());
  t.s.drop_effects();
}

TEST(Queues, AJobThatItsQueueDoesNotAdmitMayBeChangedInOtherWays) {
  Scenario s;
  s.node("n1", 1);
  const JobId id = s.submit(job(1, 1));
  s.rules.queues[0].time_max = Duration::from_s(60);
  s.run(update(id, {SpecField::kComment}, [](JobSpec& v) { v.comment = "still mine"; }));
  EXPECT_EQ(s.schedule(), 0U);
  s.run(new_limit(id, Duration::from_s(60)));
  EXPECT_EQ(s.schedule(), 1U);
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
