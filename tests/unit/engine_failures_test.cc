// The ledger of failures: a bad node is suspected, avoided, rested and drained; a bad job drains nothing.
#include <algorithm>

#include "core/engine/failures.h"
#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

const Caller kRoot{"root", true};

Outcome exits(std::int32_t code, Duration ran = Duration::from_s(1)) {
  Outcome o;
  o.exit_code = code;
  o.ran = ran;
  return o;
}
Outcome no_spool() {
  Outcome o;
  o.cause = EndCause::kLaunchFailed;
  o.detail = "the node's spool: No space left on device";
  o.fault = NodeFault::kSpool;
  o.fault_text = o.detail;
  return o;
}

JobSpec same_script(const std::string& only_on = {}) {
  JobSpec spec = job(1, 1);
  spec.script.bytes[0] = 7;
  spec.requeue = true;
  if (!only_on.empty()) {
    spec.nodelist = {only_on};
    spec.nodes_max = 1;
  }
  return spec;
}

// With the ledger as it is configured by default.
class Watched : public Scenario {
 public:
  Watched() {
    rules.node_failures_max = 3;
    rules.node_rest = Duration::from_s(10);
  }
};

std::string node_of(const Scenario& s, JobId id) {
  const Job* found = engine::find_job(s.state, id);
  const auto* active = found == nullptr ? nullptr : std::get_if<Active>(&found->phase);
  return active == nullptr ? "" : s.state.nodes[active->nodes.front().share.node.value].name;
}

const NodeHealth& health(const Scenario& s, const std::string& name) {
  return engine::find_node(s.state, name)->health;
}

// One job of the script on that node, to this end.
JobId run_on(Scenario& s, const std::string& name, const Outcome& outcome) {
  const JobId id = s.submit(same_script(name));
  EXPECT_EQ(s.schedule(), 1U);
  s.report(name, id, true, outcome);
  s.drop_effects();
  return id;
}

TEST(Failures, AJobThatFailsEverywhereBlamesNobody) {
  Watched s;
  s.node("n1", 1);
  s.node("n2", 1);
  for (int i = 0; i < 5; ++i) {
    run_on(s, "n1", exits(1));
    run_on(s, "n2", exits(1));
  }
  EXPECT_TRUE(health(s, "n1").blames.empty());
  EXPECT_TRUE(health(s, "n1").is_good());
  EXPECT_TRUE(health(s, "n2").is_good());
}

TEST(Failures, ANodeThatFailsWhatAnotherOneRunsWellIsBlamedAndInTheEndDrained) {
  Watched s;
  s.node("n1", 1);
  s.node("n2", 1);
  std::vector<JobId> failed;
  for (int i = 0; i < 3; ++i) {
    failed.push_back(run_on(s, "n1", exits(1)));
    EXPECT_EQ(health(s, "n1").blames.size(), static_cast<std::size_t>(i)) << "nobody has run it well yet";
    run_on(s, "n2", exits(0));
    EXPECT_EQ(health(s, "n1").blames.size(), static_cast<std::size_t>(i + 1));
    s.wait(Duration::from_s(30));
    s.run(Tick{});
  }
  EXPECT_EQ(health(s, "n1").fault, NodeFault::kFailures);
  const std::string reason = reason_of(health(s, "n1"));
  for (const JobId id : failed) {
    EXPECT_NE(reason.find("job " + std::to_string(id.value) + " (exit code 1)"), std::string::npos) << reason;
  }
  EXPECT_TRUE(health(s, "n2").is_good());
  s.run(ResumeNodes{kRoot, {"n1"}});
  EXPECT_EQ(health(s, "n1"), NodeHealth{});
}

TEST(Failures, ASlowFailureAndAnotherScriptSayNothing) {
  Watched s;
  s.node("n1", 1);
  s.node("n2", 1);
  run_on(s, "n1", exits(1, Duration::from_s(60)));
  run_on(s, "n2", exits(0));
  EXPECT_TRUE(health(s, "n1").blames.empty());
  run_on(s, "n1", exits(1));
  JobSpec other = same_script("n2");
  other.args = {"other"};
  const JobId id = s.submit(other);
  s.schedule();
  s.report("n2", id, true, exits(0));
  EXPECT_TRUE(health(s, "n1").blames.empty());
  EXPECT_EQ(health(s, "n1").doubts.size(), 1U);
  s.drop_effects();
}

TEST(Failures, TasksOfOneArrayAreAlike) {
  Watched s;
  s.node("n1", 1);
  s.node("n2", 1);
  JobSpec array = job(1, 1);
  array.array = *parse_array_spec("0-1");
  const JobId id = s.submit(array);
  EXPECT_EQ(s.schedule(), 2U);
  const JobId other{id.value + 1};
  const std::string bad = node_of(s, id);
  const std::string good = node_of(s, other);
  s.report(bad, id, true, exits(139));
  s.report(good, other, true, exits(0));
  EXPECT_EQ(health(s, bad).blames.size(), 1U);
  s.drop_effects();
}

TEST(Failures, ASuspectIsTakenLast) {
  Watched s;
  s.node("n1", 1);
  s.node("n2", 1);
  run_on(s, "n1", exits(1));
  run_on(s, "n2", exits(0));
  ASSERT_TRUE(health(s, "n1").is_suspect());
  const JobId first = s.submit(job(1, 1));
  const JobId second = s.submit(job(1, 1));
  EXPECT_EQ(s.schedule(), 2U);
  EXPECT_EQ(node_of(s, first), "n2");
  EXPECT_EQ(node_of(s, second), "n1");
  s.drop_effects();
}

TEST(Failures, ARequeuedJobNeverGoesToTheSameSuspectFirst) {
  Watched s;
  s.node("n1", 1);
  s.node("n2", 1);
  const JobId busy = s.submit(same_script("n2"));
  s.schedule();
  const JobId id = s.submit(same_script());
  EXPECT_EQ(s.schedule(), 1U);
  ASSERT_EQ(node_of(s, id), "n1");
  s.report("n1", id, true, no_spool());
  EXPECT_EQ(engine::find_job(s.state, id)->state(), JobState::kPending);
  EXPECT_EQ(engine::find_job(s.state, id)->spec->avoid, (std::vector<std::string>{"n1"}));
  EXPECT_EQ(s.schedule(), 0U) << "n1 is free, but n2 can take it later";
  s.report("n2", busy, true, exits(0));
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_EQ(node_of(s, id), "n2");
  s.drop_effects();
}

TEST(Failures, WhereNoOtherNodeCanTakeItARequeuedJobGoesBack) {
  Watched s;
  s.node("n1", 2);
  s.node("n2", 1);
  JobSpec large = same_script();
  large.cpus_per_task = 2;
  const JobId id = s.submit(large);
  s.schedule();
  s.report("n1", id, true, no_spool());
  EXPECT_EQ(s.schedule(), 1U);
  EXPECT_EQ(node_of(s, id), "n1");
  s.drop_effects();
}

// spur#520: four requeues a second into a full disk.
TEST(Failures, ANodeRestsLongerWithEachFailureAndIsDrained) {
  Watched s;
  s.rules.node_failures_max = 4;
  s.node("n1", 4);
  std::vector<JobId> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(s.submit(same_script()));
  }
  EXPECT_EQ(s.schedule(), 4U);
  s.report("n1", ids[0], true, no_spool());
  EXPECT_FALSE(health(s, "n1").rests_until.is_set());
  s.report("n1", ids[1], true, no_spool());
  EXPECT_EQ(health(s, "n1").rests_until, s.now() + Duration::from_s(10));
  EXPECT_EQ(s.schedule(), 0U);
  EXPECT_EQ(engine::node_state(s.state, NodeIndex{0}), "draining");
  s.report("n1", ids[2], true, no_spool());
  EXPECT_EQ(health(s, "n1").rests_until, s.now() + Duration::from_s(20));
  EXPECT_EQ(engine::next_of_failures(s.state, s.rules), health(s, "n1").rests_until);
  s.wait(Duration::from_s(21));
  s.run(Tick{});
  EXPECT_FALSE(health(s, "n1").rests_until.is_set());
  EXPECT_EQ(s.schedule(), 3U);
  s.report("n1", ids[3], true, no_spool());
  EXPECT_EQ(health(s, "n1").fault, NodeFault::kFailures);
  s.drop_effects();
}

TEST(Failures, WhatRunsWellAndTimeTakeBlamesAway) {
  Watched s;
  s.node("n1", 1);
  s.node("n2", 1);
  run_on(s, "n1", exits(1));
  run_on(s, "n2", exits(0));
  ASSERT_TRUE(health(s, "n1").is_suspect());
  run_on(s, "n1", exits(0));
  EXPECT_FALSE(health(s, "n1").is_suspect());
  run_on(s, "n1", exits(1));
  run_on(s, "n2", exits(0));
  s.wait(Duration::from_s(3601));
  s.run(Tick{});
  EXPECT_EQ(health(s, "n1"), NodeHealth{});
  EXPECT_FALSE(engine::next_of_failures(s.state, s.rules));
}

TEST(Failures, NoMoreThanATenthOfTheNodesAreDrained) {
  Watched s;
  s.rules.node_failures_max = 1;
  s.rules.node_rest = {};
  for (const char* name : {"n1", "n2", "n3"}) {
    s.node(name, 1);
  }
  run_on(s, "n1", exits(1));
  run_on(s, "n2", exits(1));
  run_on(s, "n3", exits(0));
  EXPECT_EQ(health(s, "n1").fault, NodeFault::kFailures);
  EXPECT_EQ(health(s, "n2").fault, NodeFault::kNone);
  EXPECT_TRUE(health(s, "n2").is_suspect());
}

}  // namespace
}  // namespace muster::testing
