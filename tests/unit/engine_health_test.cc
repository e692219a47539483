// The health of nodes: what their checks find, faults, and what lifts which drain.
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

const Caller kRoot{"root", true};

std::string state_of(const Scenario& s) {
  return engine::node_state(s.state, NodeIndex{0});
}

TEST(Health, ANodeWhoseChecksFailTakesNoWorkUntilTheyPass) {
  Scenario s;
  s.node("n1", 1);
  s.run(ReportHealth{"n1", {{"disk", "/var/spool: 3M free"}}});
  EXPECT_EQ(state_of(s), "drained");
  EXPECT_EQ(reason_of(s.state.nodes[0].health), "health: disk: /var/spool: 3M free");
  s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 0U);
  s.run(ReportHealth{"n1", {}});
  EXPECT_EQ(s.schedule(), 1U);
  s.drop_effects();
}

TEST(Health, WhatRunsOnANodeThatFallsIllComesToItsEnd) {
  Scenario s;
  s.node("n1", 1);
  const JobId runs = s.submit(job(1, 1));
  s.schedule();
  s.report("n1", runs, false);
  s.run(ReportHealth{"n1", {{"gpu", "gone"}}});
  EXPECT_EQ(state_of(s), "draining");
  EXPECT_TRUE(s.take<SendStop>().empty());
  s.report("n1", runs, true);
  EXPECT_EQ(s.take<RecordHistory>().at(0).summary.state, JobState::kCompleted);
  EXPECT_EQ(state_of(s), "drained");
  s.drop_effects();
}

TEST(Health, TheSameReportAgainIsNoFact) {
  Scenario s;
  s.node("n1", 1);
  const ReportHealth ill{"n1", {{"disk", "full"}}};
  EXPECT_EQ(s.run(ill).facts.size(), 1U);
  EXPECT_TRUE(s.run(ill).facts.empty());
  EXPECT_EQ(s.run(ReportHealth{"n1", {}}).facts.size(), 1U);
  EXPECT_TRUE(s.run(ReportHealth{"n1", {}}).facts.empty());
}

TEST(Health, RecoveryNeverLiftsAnOperatorsDrain) {
  Scenario s;
  s.node("n1", 1);
  s.run(ReportHealth{"n1", {{"disk", "full"}}});
  s.run(DrainNodes{kRoot, {"n1"}, "repair"});
  s.run(ReportHealth{"n1", {}});
  EXPECT_EQ(state_of(s), "drained");
  EXPECT_EQ(s.state.nodes[0].drain_reason, "repair");
  s.run(ResumeNodes{kRoot, {"n1"}});
  EXPECT_EQ(state_of(s), "idle");
}

TEST(Health, AResumeHasTheChecksRunAgainAndDoesNotOverruleThem) {
  Scenario s;
  s.node("n1", 1);
  s.run(ReportHealth{"n1", {{"disk", "full"}}});
  const engine::Decision resumed = s.run(ResumeNodes{kRoot, {"n1"}});
  EXPECT_EQ(state_of(s), "drained");
  ASSERT_EQ(resumed.remarks.size(), 1U);
  EXPECT_NE(resumed.remarks[0].find("disk: full"), std::string::npos) << resumed.remarks[0];
  EXPECT_EQ(s.take<AskHealth>(), (std::vector<AskHealth>{{NodeIndex{0}}}));
  s.run(ReportHealth{"n1", {}});
  EXPECT_EQ(state_of(s), "idle");
}

TEST(Health, WhatARegistrationSaysOfItCounts) {
  Scenario s;
  NodeRegistration ill = registration("n1", hardware(1));
  ill.problems = {{"program", "the fan stands still"}};
  s.run(RegisterNode{ill});
  EXPECT_EQ(state_of(s), "drained");
  s.node("n1", 1);
  EXPECT_EQ(state_of(s), "idle");
}

TEST(Health, ARestartOfTheControllerKeepsTheDrain) {
  Scenario s;
  s.node("n1", 1);
  s.run(ReportHealth{"n1", {{"disk", "full"}}});
  s.run(StartTerm{});
  EXPECT_EQ(s.state.nodes[0].health.problems.size(), 1U);
  NodeRegistration ill = registration("n1", hardware(1));
  ill.problems = {{"disk", "full"}};
  s.run(RegisterNode{ill});
  s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 0U);
  EXPECT_EQ(state_of(s), "drained");
}

TEST(Health, ANodeThatComesBackWithoutAGpuIsTakenOutOfServiceUntilItIsResumed) {
  Scenario s;
  s.node("n1", 4, 4);
  s.run(RegisterNode{registration("n1", hardware(4, 3), "boot-2")});
  EXPECT_EQ(state_of(s), "drained");
  EXPECT_NE(
      reason_of(s.state.nodes[0].health).find("hardware: it came back with 3 of its 4 GPUs, without 0000:03:00.0"),
      std::string::npos)
      << reason_of(s.state.nodes[0].health);
  s.run(RegisterNode{registration("n1", hardware(4, 4), "boot-3")});
  EXPECT_EQ(state_of(s), "drained") << "it may be loose";
  s.run(ResumeNodes{kRoot, {"n1"}});
  EXPECT_EQ(state_of(s), "idle");
  s.drop_effects();
}

TEST(Health, WhyCountsNodesByWhatKeepsThemOut) {
  Scenario s;
  for (const char* name : {"n1", "n2", "n3", "n4"}) {
    s.node(name, 1);
  }
  s.run(ReportHealth{"n1", {{"disk", "/tmp: 3M free"}}});
  s.run(ReportHealth{"n2", {{"disk", "/tmp: 9M free"}, {"disk", "/var: 0M free"}}});
  s.run(DrainNodes{kRoot, {"n3"}, "repair"});
  s.run(LoseNode{NodeIndex{3}});
  const JobId id = s.submit(job(1, 1));
  const engine::Explainer explain(s.state, s.rules, s.state.now);
  const sched::Explanation why = explain.explain(*engine::find_job(s.state, id));
  ASSERT_EQ(why.blockers.size(), 1U);
  EXPECT_NE(why.blockers[0].text.find("4 nodes: 1 drained, 2 drained (health: disk), 1 unreachable"), std::string::npos)
      << why.blockers[0].text;
}

TEST(Health, ATextIsOneLineThatFits) {
  EXPECT_EQ(health_text("  two\nlines\t "), "two\\x0alines");
  std::string euros;
  while (euros.size() < 2 * kHealthTextBytesMax) {
    euros += "\xe2\x82\xac";
  }
  const std::string cut = health_text(euros);
  EXPECT_LE(cut.size(), kHealthTextBytesMax);
  EXPECT_TRUE(cut.ends_with("\xe2\x82\xac...")) << cut;
}

}  // namespace
}  // namespace muster::testing
