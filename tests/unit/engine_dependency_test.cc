// Dependencies from submission to start: each kind, arrays, jobs that have ended, and what can never be.
#include "core/engine/dependency.h"

#include "core/engine/engine.h"
#include "gmock/gmock.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

using ::testing::HasSubstr;

class Dependencies : public ::testing::Test {
 protected:
  Dependencies() { s.node("n1", 16); }
  ~Dependencies() override { s.drop_effects(); }

  JobSpec depends(const std::string& on) {
    JobSpec spec = job(1, 1);
    auto parsed = parse_dependency(on, "--dependency");
    EXPECT_TRUE(parsed.ok()) << on;
    spec.dependency = *parsed;
    return spec;
  }
  JobId submit(const std::string& on) { return s.submit(depends(on)); }
  JobId array(std::uint64_t tasks, const std::string& on = "") {
    JobSpec spec = on.empty() ? job(1, 1) : depends(on);
    spec.array = ArraySpec{{{0, tasks - 1, 1}}, 0};
    return s.submit(spec);
  }
  static std::string id(JobId job) { return std::to_string(job.value); }
  const Job& record(JobId id) const {
    const Job* array = engine::find_array(s.state, id);
    return array != nullptr ? *array : *engine::find_job(s.state, id);
  }
  bool active(JobId id) const {
    const Job* job = engine::find_job(s.state, id);
    return job != nullptr && job->is_active();
  }
  void end(JobId id, int exit_code = 0) {
    Outcome outcome;
    outcome.exit_code = exit_code;
    s.report("n1", id, true, outcome);
  }
  void cancel(JobId id) { s.run(CancelJobs{{"alice", false}, {{{id, false, {}}}, "", "", "", {}}, 0}); }
  std::string word(JobId id) { return reason(id).word; }
  sched::Reason reason(JobId id) const { return engine::Explainer(s.state, s.rules, s.state.now).reason(record(id)); }

  Scenario s;
};

TEST_F(Dependencies, EachKindFollowsTheStartOrTheEndOfTheOtherJob) {
  const struct {
    const char* kind;
    bool at_start, on_success, on_failure;
  } cases[] = {{"after", true, true, true},
               {"afterany", false, true, true},
               {"afterok", false, true, false},
               {"afternotok", false, false, true}};
  for (const auto& one : cases) {
    for (const int exit_code : {0, 7}) {
      const JobId first = s.submit(job(1, 1));
      const JobId second = submit(one.kind + (":" + id(first)));
      EXPECT_EQ(word(second), "Dependency") << one.kind;
      s.schedule();
      EXPECT_TRUE(active(first));
      EXPECT_FALSE(active(second)) << one.kind;
      s.schedule();
      EXPECT_EQ(active(second), one.at_start) << one.kind;
      end(first, exit_code);
      s.schedule();
      const bool starts = exit_code == 0 ? one.on_success : one.on_failure;
      EXPECT_EQ(active(second), starts) << one.kind << " " << exit_code;
      if (starts) {
        end(second);
      } else {
        EXPECT_EQ(word(second), "DependencyNeverSatisfied") << one.kind;
        cancel(second);
      }
    }
  }
  EXPECT_TRUE(s.state.jobs.empty());
}

TEST_F(Dependencies, ACancelledJobFailsAndCountsAsStarted) {
  const JobId first = s.submit([] {
    JobSpec held = job(1, 1);
    held.hold = true;
    return held;
  }());
  const JobId after = submit("after:" + id(first));
  const JobId ok = submit("afterok:" + id(first));
  const JobId not_ok = submit("afternotok:" + id(first));
  EXPECT_EQ(s.schedule(), 0U);
  cancel(first);
  EXPECT_EQ(s.schedule(), 2U);
  EXPECT_TRUE(active(after));
  EXPECT_TRUE(active(not_ok));
  EXPECT_EQ(word(ok), "DependencyNeverSatisfied");
  EXPECT_THAT(reason(ok).detail, HasSubstr("muster cancel " + id(ok)));
}

TEST_F(Dependencies, AllMustHoldWithACommaAndOneWithAQuestionMark) {
  const JobId a = s.submit(job(1, 1));
  const JobId b = s.submit(job(1, 1));
  const JobId all = submit("afterok:" + id(a) + ",afternotok:" + id(b));
  const JobId any = submit("afterok:" + id(a) + "?afterok:" + id(b));
  const JobId none = submit("afternotok:" + id(a) + "?afterok:" + id(b));
  s.schedule();
  end(a);
  s.schedule();
  EXPECT_TRUE(active(any));
  EXPECT_FALSE(active(all));
  EXPECT_EQ(word(none), "Dependency");  // one of its two can still be
  end(b, 1);
  s.schedule();
  EXPECT_TRUE(active(all));
  EXPECT_EQ(word(none), "DependencyNeverSatisfied");
}

TEST_F(Dependencies, MinutesCountFromTheStart) {
  const JobId first = s.submit(job(1, 1));
  const JobId later = submit("after:" + id(first) + "+10");
  s.schedule();
  const Instant start = std::get<Active>(record(first).phase).start_time;
  EXPECT_EQ(record(later).spec->begin, start + Duration::from_s(600));
  EXPECT_EQ(record(later).eligible_time, start + Duration::from_s(600));
  EXPECT_EQ(s.schedule(), 0U);
  EXPECT_EQ(word(later), "BeginTime");
  const auto met = s.take<DependencyMet>();
  ASSERT_EQ(met.size(), 1U);
  EXPECT_EQ(met[0].job, later);
  EXPECT_EQ(met[0].at, start + Duration::from_s(600));
  // The same for one that comes when the other job runs already.
  const JobId late = submit("after:" + id(first) + "+10");
  EXPECT_EQ(record(late).spec->begin, start + Duration::from_s(600));
  EXPECT_TRUE(record(late).open.empty());
}

TEST_F(Dependencies, MinutesCountFromTheLastStartOfAnArrayThoughThatTaskHasEnded) {
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{{{0, 2, 1}}, 2};
  const JobId first = s.submit(spec);
  s.schedule();
  end(JobId{first.value + 1});
  s.schedule();
  const JobId last{first.value + 2};
  const Instant start = std::get<Active>(record(last).phase).start_time;
  EXPECT_LT(std::get<Active>(engine::find_job(s.state, first)->phase).start_time, start);
  end(last);
  EXPECT_EQ(record(submit("after:" + id(first) + "+1")).spec->begin, start + Duration::from_s(60));
}

TEST_F(Dependencies, AnArrayMeansAllItsTasks) {
  const JobId first = array(3);
  const JobId started = submit("after:" + id(first));
  const JobId ok = submit("afterok:" + id(first));
  const JobId any = submit("afterany:" + id(first));
  const JobId not_ok = submit("afternotok:" + id(first));
  const JobId of_task = submit("afterok:" + id(first) + "_1");
  s.schedule();
  s.schedule();
  EXPECT_TRUE(active(started));
  end(JobId{first.value + 1});
  s.schedule();
  EXPECT_TRUE(active(of_task));
  end(JobId{first.value + 2}, 1);
  EXPECT_EQ(word(ok), "DependencyNeverSatisfied");  // known before the last task ends
  EXPECT_EQ(s.schedule(), 0U);
  EXPECT_THAT(reason(any).detail, HasSubstr("of its tasks 1 run and 0 wait"));
  end(first);
  EXPECT_EQ(s.schedule(), 2U);
  EXPECT_TRUE(active(any));
  EXPECT_TRUE(active(not_ok));
}

TEST_F(Dependencies, WaitingTasksOfAnArrayThatAreCancelledHaveEnded) {
  JobSpec spec = job(1, 1);
  spec.array = ArraySpec{{{0, 2, 1}}, 1};
  const JobId first = s.submit(spec);
  const JobId task = submit("afterany:" + id(first) + "_2");
  const JobId ok = submit("afterok:" + id(first));
  s.schedule();
  s.run(CancelJobs{{"alice", false}, {{{first, true, {{1, 2, 1}}}}, "", "", "", {}}, 0});
  EXPECT_EQ(word(ok), "DependencyNeverSatisfied");
  s.schedule();
  EXPECT_TRUE(active(task));
}

TEST_F(Dependencies, AnArrayWaitsAsAWhole) {
  const JobId first = s.submit(job(1, 1));
  const JobId second = array(4, "afterok:" + id(first));
  const JobId third = submit("afterok:" + id(second));
  EXPECT_EQ(s.schedule(), 1U);
  end(first);
  EXPECT_EQ(s.schedule(), 4U);
  for (std::uint64_t i = 0; i < 4; ++i) end(JobId{second.value + i});
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(active(third));
}

TEST_F(Dependencies, ASingletonWaitsForEarlierJobsOfItsUserAndName) {
  const JobId first = s.submit(job(1, 1));
  const JobId second = submit("singleton");
  const JobId third = submit("singleton");
  JobSpec other = depends("singleton");
  other.name = "other";
  const JobId alone = s.submit(other);
  JobSpec bobs = depends("singleton");
  bobs.user = "bob";
  const JobId of_bob = s.submit(bobs);
  EXPECT_EQ(s.schedule(), 3U);
  EXPECT_TRUE(active(first));
  EXPECT_TRUE(active(alone));
  EXPECT_TRUE(active(of_bob));
  EXPECT_THAT(reason(third).detail, HasSubstr("singleton (job " + id(first) + " is starting)"));
  end(first);
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_TRUE(active(second));
  cancel(third);
  end(second);
  EXPECT_EQ(s.schedule(), 0U);
}

TEST_F(Dependencies, JobsThatHaveEndedAreKnownFromTheShell) {
  const JobId gone = s.submit(job(1, 1));
  s.schedule();
  end(gone);
  const auto with = [&](const std::string& on, bool completed) {
    JobSpec spec = depends(on);
    SubmitJob submit{{"alice", false}, {}, std::make_shared<JobSpec>(spec)};
    submit.ended.push_back({{gone, false, 0}, completed, Instant::from_s(1'600'000'000)});
    return s.run(submit).job;
  };
  const JobId ok = with("afterok:" + id(gone), true);
  const JobId any = with("afterany:" + id(gone), false);
  const JobId never = with("afterok:" + id(gone), false);
  const JobId either = with("afternotok:" + id(gone) + "?afterany:" + id(gone), true);
  EXPECT_EQ(s.schedule(), 3U);
  EXPECT_TRUE(active(ok));
  EXPECT_TRUE(active(any));
  EXPECT_TRUE(active(either));
  EXPECT_EQ(word(never), "DependencyNeverSatisfied");
}

TEST_F(Dependencies, UnknownJobsAreRefused) {
  const JobId first = s.submit(job(1, 1));
  const JobId tasks = array(3);
  const std::uint64_t next = s.state.next_job.value;
  EXPECT_THAT(s.submit_refused(depends("afterok:" + std::to_string(next))).message,
              HasSubstr("--dependency names job " + std::to_string(next) + ", which is neither in the queue"));
  EXPECT_THAT(s.submit_refused(depends("afterany:" + id(first) + "?afterok:4711")).message, HasSubstr("job 4711"));
  EXPECT_THAT(s.submit_refused(depends("afterok:" + id(first) + "_1")).message, HasSubstr("is no array"));
  EXPECT_THAT(s.submit_refused(depends("afterok:" + id(tasks) + "_9")).message, HasSubstr("has the indices 0-2"));
}

TEST_F(Dependencies, ARepeatedSubmissionIsTheSameJobThoughTheOtherHasEnded) {
  const JobId first = s.submit(job(1, 1));
  const RequestId request{1, 2};
  const JobId second = s.submit(depends("afterok:" + id(first)), request);
  s.schedule();
  end(first);
  EXPECT_EQ(s.submit(depends("afterok:" + id(first)), request), second);
}

TEST_F(Dependencies, AHeldJobWaitsForBoth) {
  const JobId first = s.submit(job(1, 1));
  JobSpec spec = depends("afterok:" + id(first));
  spec.hold = true;
  const JobId second = s.submit(spec);
  s.run(ReleaseJobs{{"alice", false}, {{{second, false, {}}}, "", "", "", {}}});
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_EQ(word(second), "Dependency");
  s.run(HoldJobs{{"alice", false}, {{{second, false, {}}}, "", "", "", {}}});
  end(first);
  EXPECT_EQ(s.schedule(), 0U);
  EXPECT_EQ(word(second), "JobHeldUser");
  s.run(ReleaseJobs{{"alice", false}, {{{second, false, {}}}, "", "", "", {}}});
  EXPECT_EQ(s.schedule(), 1U);
}

TEST_F(Dependencies, AnOldPlanStartsNothingThatWaits) {
  const JobId first = s.submit(job(1, 1));
  const JobId second = submit("afterok:" + id(first));
  ApplyPlan plan{engine::plan(s.state, s.rules, {}, s.state.now).placements};
  ASSERT_EQ(plan.placements.size(), 1U);
  plan.placements[0].job = second;
  const engine::Decision decision = s.run(plan);
  EXPECT_EQ(decision.matched, 0U);
  ASSERT_EQ(decision.notes.size(), 1U);
  EXPECT_THAT(decision.notes[0], HasSubstr("waits for other jobs"));
}

}  // namespace
}  // namespace muster::testing
