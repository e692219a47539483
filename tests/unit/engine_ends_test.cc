// How and when a job ended, as history keeps it.
#include "core/engine/engine.h"
#include "gtest/gtest.h"
#include "tests/support/engine_scenario.h"

namespace muster {
namespace {

using testing::hardware;
using testing::job;
using testing::registration;
using testing::Scenario;

// One job on the given nodes, started and running.
JobId running_job(Scenario& s, std::uint32_t nodes) {
  const JobId id = s.submit(job(nodes, nodes));
  EXPECT_EQ(s.schedule(), 1U);
  for (std::uint32_t i = 1; i <= nodes; ++i) {
    s.report("n" + std::to_string(i), id, false);
  }
  s.drop_effects();
  return id;
}

JobSummary summary_of(Scenario& s) {
  const auto records = s.take<RecordHistory>();
  s.drop_effects();
  EXPECT_EQ(records.size(), 1U);
  return records.empty() ? JobSummary{} : records.front().summary;
}

Outcome exited_at(Instant at, Duration ran) {
  Outcome o;
  o.ended_at = at;
  o.ran = ran;
  return o;
}

TEST(EngineEnds, AJobEndedWhenItsNodeSaysNotWhenTheControllerHeard) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = running_job(s, 1);
  const Instant start = std::get<Active>(engine::find_job(s.state, id)->phase).start_time;
  s.pass(Duration::from_s(3600));  // the controller was away
  s.report("n1", id, true, exited_at(start + Duration::from_s(60), Duration::from_s(59)));
  const JobSummary summary = summary_of(s);
  EXPECT_EQ(summary.end_time, start + Duration::from_s(60));
  EXPECT_EQ(summary.state, JobState::kCompleted);
}

TEST(EngineEnds, ANodesClockThatIsWrongMovesTheEndOnlyWithinWhatIsKnown) {
  Scenario s;
  s.node("n1", 4);
  struct Row {
    const char* what;
    std::int64_t clock_s;  // the end by the node's clock, seconds after the start
    std::int64_t end_s;
  };
  for (const Row& row : {Row{"fast", 900'000, 100}, Row{"slow", -900'000, 40}, Row{"right", 50, 50}}) {
    const JobId id = running_job(s, 1);
    const Instant start = std::get<Active>(engine::find_job(s.state, id)->phase).start_time;
    s.pass(Duration::from_s(100));
    s.report("n1", id, true, exited_at(start + Duration::from_s(row.clock_s), Duration::from_s(40)));
    const Duration after = summary_of(s).end_time - start;
    EXPECT_EQ(after.us / 1'000'000, row.end_s) << row.what;
  }
}

Outcome full(EndCause cause, const std::string& detail) {
  Outcome o;
  o.cause = cause;
  o.detail = detail;
  o.usage = {Duration::from_s(3), 60, 50, 7, 8, 1};
  return o;
}

TEST(EngineEnds, AProcessKilledForMemoryDecidesOnWhicheverNodeItWas) {
  Scenario s;
  s.node("n1", 4);
  s.node("n2", 4);
  const JobId id = running_job(s, 2);
  Outcome script;
  script.usage = {Duration::from_s(2), 70, 80, 1, 2, 0};
  s.report("n1", id, true, script);
  s.report("n2", id, true, full(EndCause::kCancelled, "the kernel killed a.out"));
  const JobSummary summary = summary_of(s);
  EXPECT_EQ(summary.state, JobState::kOutOfMemory);
  EXPECT_EQ(summary.reason, "OutOfMemory: n2: the kernel killed a.out");
  EXPECT_EQ(summary.exit_code, 0);
  // Sums, and the highest peak with the limit of its node.
  EXPECT_EQ(summary.usage, (Usage{Duration::from_s(5), 70, 80, 8, 10, 1}));
}

TEST(EngineEnds, AnOrderedEndIsNotBlamedOnMemory) {
  Scenario s;
  s.node("n1", 4);
  for (const bool cancelled : {true, false}) {
    const JobId id = running_job(s, 1);
    if (cancelled) {
      s.run(CancelJobs{{"root", true}, JobSelector{{{id, false, {}}}, "", "", "", {}}, 0});
    }
    s.report("n1", id, true, full(cancelled ? EndCause::kCancelled : EndCause::kTimeLimit, "killed a.out"));
    const JobSummary summary = summary_of(s);
    EXPECT_EQ(summary.state, cancelled ? JobState::kCancelled : JobState::kTimeout);
    EXPECT_EQ(summary.usage.oom_kills, 1U);
  }
}

TEST(EngineEnds, AJobEndsWithTheLastOfItsNodes) {
  Scenario s;
  s.node("n1", 4);
  s.node("n2", 4);
  const JobId id = running_job(s, 2);
  const Instant start = std::get<Active>(engine::find_job(s.state, id)->phase).start_time;
  s.pass(Duration::from_s(100));
  s.report("n1", id, true, exited_at(start + Duration::from_s(10), Duration::from_s(10)));
  s.report("n2", id, true, exited_at(start + Duration::from_s(12), Duration::from_s(12)));
  EXPECT_EQ(summary_of(s).end_time, start + Duration::from_s(12));
}

TEST(EngineEnds, OfALostNodeTheEndIsWhenItWasNoticed) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = running_job(s, 1);
  const Instant start = std::get<Active>(engine::find_job(s.state, id)->phase).start_time;
  s.pass(Duration::from_s(100));
  s.run(RegisterNode{registration("n1", hardware(4), "boot-2")});
  const JobSummary summary = summary_of(s);
  EXPECT_GE(summary.end_time, start + Duration::from_s(100));
  EXPECT_EQ(summary.state, JobState::kNodeFailed);
}

TEST(EngineEnds, ACancelledJobIsCancelledThoughItsNodeRestartedMeanwhile) {
  Scenario s;
  s.node("n1", 4);
  const JobId id = running_job(s, 1);
  JobSelector one;
  one.items.emplace_back().id = id;
  s.run(CancelJobs{{"alice", false}, one, 0});
  s.drop_effects();
  s.run(RegisterNode{registration("n1", hardware(4), "boot-2")});
  const JobSummary summary = summary_of(s);
  EXPECT_EQ(summary.state, JobState::kCancelled);
  EXPECT_EQ(summary.reason, "Cancelled: by alice; n1: the node restarted");
}

}  // namespace
}  // namespace muster
