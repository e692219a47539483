// Prologs and epilogs as the controller sees them: a failing prolog always drains the node and requeues the job.
#include <algorithm>

#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

const Caller kRoot{"root", true};

Outcome prolog_failed() {
  Outcome o;
  o.cause = EndCause::kLaunchFailed;
  o.detail = "prolog: exit code 3";
  o.fault = NodeFault::kProlog;
  o.fault_text = "exit code 3";
  return o;
}
Outcome cancelled() {
  Outcome o;
  o.cause = EndCause::kCancelled;
  return o;
}

void node(Scenario& s, const std::string& name, bool has_prolog, std::uint32_t cores = 2) {
  NodeRegistration r = registration(name, hardware(cores));
  r.has_prolog = has_prolog;
  s.run(RegisterNode{r});
}

std::vector<std::string> launched(Scenario& s) {
  std::vector<std::string> names;
  for (const SendLaunch& each : s.take<SendLaunch>()) {
    names.push_back(each.order.node);
  }
  return names;
}

TEST(Prolog, AFailureDrainsTheNodeAndRequeuesTheJob) {
  Scenario s;
  node(s, "n1", true);
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  s.report("n1", id, true, prolog_failed());
  EXPECT_EQ(engine::node_state(s.state, NodeIndex{0}), "drained");
  EXPECT_EQ(reason_of(s.state.nodes[0].health), "prolog: job " + std::to_string(id.value) + ": exit code 3");
  const Job& waits = *engine::find_job(s.state, id);
  EXPECT_EQ(waits.state(), JobState::kPending);
  EXPECT_EQ(waits.node_faults, 1U);
  EXPECT_NE(waits.last_end.find("NodeFail: n1: prolog"), std::string::npos) << waits.last_end;
  const auto history = s.take<RecordHistory>();
  ASSERT_EQ(history.size(), 1U);
  EXPECT_TRUE(history[0].summary.requeued);
  EXPECT_EQ(history[0].summary.state, JobState::kNodeFailed);
  EXPECT_EQ(s.schedule(), 0U);
  node(s, "n2", true);
  EXPECT_EQ(s.schedule(), 1U);
  s.drop_effects();
}

// spur#243: a failing prolog ended in two states, depending on a race.
TEST(Prolog, TheFirstNodeBeginsWhenNoPrologCanFailAnyMore) {
  Scenario s;
  node(s, "n1", true);
  node(s, "n2", true);
  node(s, "n3", false);
  const JobId id = s.submit(job(3, 3));
  s.schedule();
  EXPECT_EQ(launched(s), (std::vector<std::string>{"n2", "n3"}));
  s.report("n3", id, false);
  EXPECT_TRUE(launched(s).empty());
  s.report("n2", id, false);
  EXPECT_EQ(launched(s), (std::vector<std::string>{"n1"}));
  s.report("n1", id, false);
  EXPECT_EQ(engine::find_job(s.state, id)->state(), JobState::kRunning);
  s.drop_effects();
}

TEST(Prolog, WithoutOneAllNodesBeginAtOnce) {
  Scenario s;
  node(s, "n1", false);
  node(s, "n2", false);
  s.submit(job(2, 2));
  s.schedule();
  EXPECT_EQ(launched(s), (std::vector<std::string>{"n1", "n2"}));
}

TEST(Prolog, AFirstNodeThatWaitsIsOwedItsLaunchWhenTheOthersRun) {
  Scenario s;
  node(s, "n1", true);
  node(s, "n2", true);
  const JobId id = s.submit(job(2, 2));
  s.schedule();
  s.drop_effects();
  EXPECT_TRUE(engine::outstanding(s.state, NodeIndex{0}).empty());
  s.run(StartTerm{});
  node(s, "n1", true);
  EXPECT_TRUE(launched(s).empty());
  NodeRegistration back = registration("n2", hardware(2));
  back.has_prolog = true;
  back.attempts = {AttemptReport{.key = {id, Attempt{1}}, .ended = false, .outcome = {}}};
  s.run(RegisterNode{back});
  EXPECT_EQ(launched(s), (std::vector<std::string>{"n1"}));
  s.drop_effects();
}

TEST(Prolog, AFailureOnAnyNodeOfAJobEndsInTheSameWay) {
  for (const char* fails : {"n1", "n2"}) {
    for (const bool failed_first : {false, true}) {
      Scenario s;
      node(s, "n1", true);
      node(s, "n2", true);
      const JobId id = s.submit(job(2, 2));
      s.schedule();
      const std::string other = fails == std::string("n1") ? "n2" : "n1";
      if (other == "n2" || !failed_first) {
        s.report("n2", id, false);
      }
      s.report(fails, id, true, prolog_failed());
      s.report(other, id, true, cancelled());
      const Job* waits = engine::find_job(s.state, id);
      ASSERT_NE(waits, nullptr) << fails;
      EXPECT_EQ(waits->state(), JobState::kPending) << fails;
      EXPECT_EQ(engine::find_node(s.state, fails)->health.fault, NodeFault::kProlog);
      EXPECT_TRUE(engine::find_node(s.state, other)->health.is_good());
      s.drop_effects();
    }
  }
}

TEST(Prolog, AJobThatWasCancelledMeanwhileIsCancelledAndTheNodeDrained) {
  Scenario s;
  node(s, "n1", true);
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  JobSelector one;
  one.items.push_back({id, false, {}});
  s.run(CancelJobs{{"alice", false}, one, 0});
  s.report("n1", id, true, prolog_failed());
  EXPECT_EQ(engine::find_job(s.state, id), nullptr);
  EXPECT_EQ(s.state.nodes[0].health.fault, NodeFault::kProlog);
  s.drop_effects();
}

TEST(Prolog, AJobThatNodesFailAgainAndAgainIsHeld) {
  Scenario s;
  s.rules.node_faults_max = 2;
  node(s, "n1", true);
  node(s, "n2", true);
  node(s, "n3", true);
  const JobId id = s.submit(job(1, 1));
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(s.schedule(), 1U);
    const auto& active = std::get<Active>(engine::find_job(s.state, id)->phase);
    s.report(s.state.nodes[active.nodes.front().share.node.value].name, id, true, prolog_failed());
  }
  EXPECT_TRUE(engine::find_job(s.state, id)->held);
  EXPECT_NE(engine::find_job(s.state, id)->last_end.find("it is held"), std::string::npos);
  EXPECT_TRUE(s.state.nodes[2].health.is_good()) << "it has not drained them all";
  s.drop_effects();
}

TEST(Prolog, ATaskOfAnArrayIsHeldSingly) {
  Scenario s;
  s.rules.node_faults_max = 1;
  node(s, "n1", true, 1);
  JobSpec array = job(1, 1);
  array.array = *parse_array_spec("0-2");
  const JobId id = s.submit(array);
  s.schedule();
  s.report("n1", id, true, prolog_failed());
  EXPECT_EQ(engine::find_array(s.state, id)->held_positions, (Positions{{0, 1}}));
  s.drop_effects();
}

TEST(Epilog, AFailureDrainsTheNodeAndTheResultStands) {
  Scenario s;
  node(s, "n1", false);
  const JobId id = s.submit(job(1, 1));
  s.schedule();
  Outcome o;
  o.fault = NodeFault::kEpilog;
  o.fault_text = "the scratch disk cannot be cleaned";
  s.report("n1", id, true, o);
  EXPECT_EQ(s.take<RecordHistory>().at(0).summary.state, JobState::kCompleted);
  EXPECT_EQ(engine::node_state(s.state, NodeIndex{0}), "drained");
  s.run(ResumeNodes{kRoot, {"n1"}});
  EXPECT_EQ(engine::node_state(s.state, NodeIndex{0}), "idle");
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
