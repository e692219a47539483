// The simulation itself: that one seed is one run, that its checks see what they are for, and that its network and
// disks behave as they say.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "sim/checks.h"
#include "sim/link.h"
#include "sim/node.h"
#include "sim/random.h"
#include "sim/random_spec.h"
#include "sim/timeline.h"
#include "sim/world.h"

namespace muster::sim {
namespace {

TEST(SimRandom, TheSequenceOfASeedNeverChanges) {
  Random random(1);
  const std::vector<std::uint64_t> first = {random.next(), random.next(), random.next()};
  Random again(1);
  EXPECT_EQ(first, (std::vector<std::uint64_t>{again.next(), again.next(), again.next()}));
  // A changed generator would make every seed in a report or a test name mean another run.
  EXPECT_EQ(mix(0), 0xe220a8397b1dcdafU);  // splitmix64's published first output for seed 0
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t value = random.between(3, 5);
    EXPECT_TRUE(value >= 3 && value <= 5);
  }
}

TEST(SimTimeline, EventsOfOneInstantHappenInTheOrderAskedFor) {
  Timeline timeline(Instant::from_s(1));
  std::string order;
  timeline.after(Duration::from_ms(2), [&] { order += "c"; });
  timeline.after(Duration::from_ms(1), [&] {
    order += "a";
    timeline.after(Duration::from_ms(1), [&] { order += "d"; });
  });
  timeline.after(Duration::from_ms(1), [&] { order += "b"; });
  while (timeline.step()) {
  }
  EXPECT_EQ(order, "abcd");
  EXPECT_EQ(timeline.now(), Instant::from_s(1) + Duration::from_ms(2));
}

WorldResult run_seed(std::uint64_t seed, std::string* log = nullptr) {
  WorldOptions options;
  options.seed = seed;
  options.steps = 1500;
  if (log != nullptr) options.log = [log](const std::string& line) { *log += line + "\n"; };
  return run_world(options);
}

TEST(SimWorld, OneSeedGivesOneRun) {
  for (const std::uint64_t seed : {7U, 8U, 9U}) {
    std::string first_log;
    std::string second_log;
    const WorldResult first = run_seed(seed, &first_log);
    const WorldResult second = run_seed(seed, &second_log);
    EXPECT_EQ(first.fingerprint, second.fingerprint);
    EXPECT_EQ(first.steps, second.steps);
    EXPECT_EQ(first_log, second_log);
    EXPECT_EQ(run_seed(seed).fingerprint, first.fingerprint) << "listening changes the run";
  }
  EXPECT_NE(run_seed(7).fingerprint, run_seed(8).fingerprint);
}

// A task that had run, was put back and was cancelled while it waited: `after:N+1` still counts from the start that it had,
// though the last of its rows in the history has none.
TEST(SimWorld, AfterATaskThatWasPutBackAndCancelled) {
  WorldOptions options;
  options.seed = 120;
  options.steps = 1000;
  EXPECT_EQ(run_world(options).problem, "");
}

TEST(SimWorld, TheSeedsShowWhatTheyAreFor) {
  std::string log;
  std::uint64_t jobs = 0;
  std::uint64_t starts = 0;
  std::uint64_t faults = 0;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    const WorldResult result = run_seed(seed, &log);
    EXPECT_EQ(result.problem, "") << "seed " << seed;
    jobs += result.jobs;
    starts += result.starts;
    faults += result.faults;
  }
  EXPECT_GT(jobs, 500U);
  EXPECT_GT(starts, 500U);
  EXPECT_GT(faults, 500U);
  // Everything that can happen does happen somewhere.
  for (const char* word : {"controller crashes",
                           "daemon of",
                           "power of",
                           "JobSubmitted",
                           " array ",
                           "JobHeld",
                           "JobReleased",
                           "StartPromised",
                           "DependencySet",
                           " never",
                           "NodeDrained",
                           "NodeResumed",
                           "NodeBecameUnreachable",
                           "falls ill",
                           "NodeHealthChanged",
                           "NodeFaulted",
                           "NodeDoubted",
                           "NodeBlamed",
                           "NodeTrusted",
                           "prolog: exit code 1",
                           "AttemptConfirmed",
                           "StopRequested",
                           "ArrayTasksEnded",
                           "completed",
                           "failed",
                           "cancelled",
                           "timeout",
                           "out of memory",
                           "node lost",
                           "shepherd died",
                           "launch failed",
                           "stopped before it started"}) {
    EXPECT_NE(log.find(word), std::string::npos) << "no run shows: " << word;
  }
}

// ---- a check that sees nothing would be no check

class SimChecks : public testing::Test {
 protected:
  static NodeHardware hardware() {
    Random random(1);
    NodeHardware hardware = random_hardware(random, 4);
    hardware.mem_mib = 1000;
    return hardware;
  }
  static LaunchOrder order(std::uint64_t job, std::uint32_t attempt, const std::string& node, std::uint32_t core) {
    LaunchOrder order;
    order.key = AttemptKey{JobId{job}, Attempt{attempt}};
    order.node = node;
    order.spec = std::make_shared<const JobSpec>();
    order.share.cores = IndexSet::range(core, 1);
    order.share.mem_mib = 400;
    return order;
  }
  static JobSummary summary(std::uint64_t job, JobState state, std::int32_t exit_code) {
    JobSummary s;
    s.start_time = Instant::from_s(1);
    s.id = JobId{job};
    s.attempt = Attempt{1};
    s.state = state;
    s.exit_code = exit_code;
    s.nodes = {"n1"};
    return s;
  }
  static Fact submitted(std::uint64_t job, RequestId request) {
    JobSubmitted fact;
    fact.id = JobId{job};
    fact.request = request;
    fact.spec = std::make_shared<const JobSpec>();
    return Fact{Instant::from_s(5), fact};
  }
  void began(std::size_t node, const LaunchOrder& what) { checks_.process_began(node, hardware(), what); }
  void expect_problem(const std::string& part) {
    EXPECT_NE(checks_.problem().find(part), std::string::npos) << "said: " << checks_.problem();
  }

  sched::Policy policy_;
  Checks checks_{policy_};
};

TEST_F(SimChecks, AllowWhatIsRight) {
  began(0, order(1, 1, "n1", 0));
  began(0, order(2, 1, "n1", 1));
  began(1, order(1, 1, "n2", 0));
  checks_.process_gone(0, order(1, 1, "n1", 0).key, {});
  began(0, order(3, 1, "n1", 0));
  EXPECT_EQ(checks_.problem(), "");
}

TEST_F(SimChecks, SeeASecondStart) {
  began(0, order(1, 1, "n1", 0));
  checks_.process_gone(0, order(1, 1, "n1", 0).key, {});
  began(0, order(1, 1, "n1", 0));
  expect_problem("begins a second time");
}

TEST_F(SimChecks, SeeTwoAttemptsAtOnce) {
  began(0, order(1, 1, "n1", 0));
  began(1, order(1, 2, "n2", 0));
  expect_problem("still runs somewhere");
}

TEST_F(SimChecks, SeeACoreUsedTwice) {
  began(0, order(1, 1, "n1", 0));
  began(0, order(2, 1, "n1", 0));
  expect_problem("gets a core");
}

TEST_F(SimChecks, SeeMemoryThatIsNotThere) {
  began(0, order(1, 1, "n1", 0));
  began(0, order(2, 1, "n1", 1));
  began(0, order(3, 1, "n1", 2));
  expect_problem("gets memory");
}

TEST_F(SimChecks, SeeAStartAfterTheEnd) {
  checks_.committed({}, {summary(1, JobState::kFailed, 0)});
  began(0, order(1, 1, "n1", 0));
  expect_problem("after the job has ended");
}

TEST_F(SimChecks, SeeAWrongEnd) {
  began(0, order(1, 1, "n1", 0));
  Outcome outcome;
  outcome.exit_code = 7;
  checks_.process_gone(0, order(1, 1, "n1", 0).key, outcome);
  checks_.committed({}, {summary(1, JobState::kCompleted, 0)});
  expect_problem("did not exit with 0");
}

TEST_F(SimChecks, SeeAWrongExitCode) {
  began(0, order(1, 1, "n1", 0));
  Outcome outcome;
  outcome.exit_code = 7;
  checks_.process_gone(0, order(1, 1, "n1", 0).key, outcome);
  checks_.committed({}, {summary(1, JobState::kFailed, 1)});
  expect_problem("in history");
}

TEST_F(SimChecks, SeeAJobTwiceInHistory) {
  checks_.committed({}, {summary(1, JobState::kFailed, 0)});
  checks_.committed({}, {summary(1, JobState::kFailed, 0)});
  expect_problem("in history twice");
}

TEST_F(SimChecks, SeeAJobThatWaitsAgainWhileItRuns) {
  began(0, order(1, 1, "n1", 0));
  checks_.fact_comes({}, Fact{Instant::from_s(5), JobRequeued{JobId{1}, JobState::kPreempted, "why"}});
  expect_problem("waits again while it still runs");
}

TEST_F(SimChecks, SeeAPreemptionForNobody) {
  StopRequested stop{{JobId{1}, Attempt{1}}, StopCause::kPreempted, 0, {}, {}};
  stop.terms.room_for = JobId{2};
  checks_.fact_comes({}, Fact{Instant::from_s(5), stop});
  expect_problem("is preempted for a job that does not wait");
}

TEST_F(SimChecks, SeeAnAttemptTwiceInHistory) {
  JobSummary attempt = summary(1, JobState::kPreempted, 0);
  attempt.requeued = true;
  checks_.committed({}, {attempt});
  EXPECT_EQ(checks_.problem(), "");
  checks_.committed({}, {attempt});
  expect_problem("in history twice");
}

TEST_F(SimChecks, SeeACompletedJobThatIsPutBack) {
  began(0, order(1, 1, "n1", 0));
  checks_.process_gone(0, order(1, 1, "n1", 0).key, {});
  JobSummary attempt = summary(1, JobState::kPreempted, 0);
  attempt.requeued = true;
  checks_.committed({}, {attempt});
  expect_problem("and is preempted in history");
}

TEST_F(SimChecks, SeeARequestThatMadeTwoJobs) {
  checks_.committed({submitted(1, RequestId{1, 1}), submitted(2, RequestId{1, 1})}, {});
  expect_problem("one request made two jobs");
}

TEST_F(SimChecks, SeeAnAcknowledgementBeforeTheDisk) {
  checks_.acknowledged(RequestId{1, 1}, JobId{1});
  expect_problem("before its submission is on disk");
}

TEST_F(SimChecks, SeeALostJob) {
  checks_.committed({submitted(1, RequestId{1, 1})}, {});
  checks_.acknowledged(RequestId{1, 1}, JobId{1});
  checks_.nothing_lost(engine::State{});
  expect_problem("job 1 is lost");
}

TEST_F(SimChecks, SeeAShareGivenBackTooEarly) {
  engine::State state;
  Node node;
  node.name = "n1";
  state.nodes.push_back(node);
  began(0, order(1, 1, "n1", 0));
  checks_.fact_comes(state, Fact{Instant::from_s(5), AttemptEndedOnNode{order(1, 1, "n1", 0).key, NodeIndex{0}, {}}});
  expect_problem("given back while it runs");
}

TEST_F(SimChecks, SeeADrainMarkThatIsGone) {
  engine::State state;
  Node node;
  node.name = "n1";
  state.nodes.push_back(node);
  engine::rebuild_indexes(state);
  checks_.drained({"n1"}, true);
  checks_.state_changed(state);
  expect_problem("is not drained any more");
}

// ---- the network

class SimLink : public testing::Test {
 protected:
  SimLink() { make({}); }
  void make(LinkOptions options) {
    link_ = std::make_unique<Link>(timeline_, Random(3), options);
    link_->at_controller = [this](Link::SessionId session, const ToController& message) {
      if (const auto* reports = std::get_if<Reports>(&message)) {
        up_.push_back(reports->reports.front().key.job.value);
        sessions_.insert(session);
      }
    };
    link_->at_node = [this](const ToNode& message) {
      down_.push_back(std::get<Acknowledge>(message.body).key.job.value);
    };
  }
  void connect() {
    link_->set_node_up(true);
    link_->set_controller_up(true);
    settle();
    ASSERT_NE(link_->session(), 0U);
  }
  void settle() {
    while (timeline_.step()) {
    }
  }
  void up(std::uint64_t number) { link_->send_up(Reports{{AttemptReport{{JobId{number}, Attempt{1}}, false, {}}}}); }
  void down(std::uint64_t number, Link::SessionId session) {
    link_->send_down(session, ToNode{Term{1}, Acknowledge{{JobId{number}, Attempt{1}}}});
  }

  Timeline timeline_{Instant::from_s(1)};
  std::unique_ptr<Link> link_;
  std::vector<std::uint64_t> up_;
  std::vector<std::uint64_t> down_;
  std::set<Link::SessionId> sessions_;
};

TEST_F(SimLink, KeepsOrderWithinASession) {
  connect();
  std::vector<std::uint64_t> expected;
  for (std::uint64_t i = 1; i <= 50; ++i) {
    up(i);
    down(i, link_->session());
    expected.push_back(i);
  }
  settle();
  EXPECT_EQ(up_, expected);
  EXPECT_EQ(down_, expected);
}

TEST_F(SimLink, ACutLosesWhatIsUnderWayAndBeginsANewSession) {
  connect();
  const Link::SessionId first = link_->session();
  up(1);
  down(1, first);
  link_->cut();
  settle();
  EXPECT_GT(link_->session(), first);
  down(2, first);  // to the old session: nowhere
  down(3, link_->session());
  settle();
  EXPECT_TRUE(up_.empty());
  EXPECT_EQ(down_, std::vector<std::uint64_t>{3});
}

TEST_F(SimLink, WhatTheNodeSendsWithoutASessionWaits) {
  link_->set_node_up(true);
  up(1);
  up(2);
  settle();
  EXPECT_TRUE(up_.empty());
  link_->set_controller_up(true);
  settle();
  EXPECT_EQ(up_, (std::vector<std::uint64_t>{1, 2}));
}

TEST_F(SimLink, ADaemonThatStopsLosesWhatWaits) {
  link_->set_node_up(true);
  up(1);
  link_->set_node_up(false);
  link_->set_node_up(true);
  link_->set_controller_up(true);
  settle();
  EXPECT_TRUE(up_.empty());
}

TEST_F(SimLink, AStallHoldsMessagesUpAndLosesNone) {
  connect();
  const Instant before = timeline_.now();
  link_->stall(Duration::from_s(5), Duration{});
  up(1);
  up(2);
  settle();
  EXPECT_EQ(up_, (std::vector<std::uint64_t>{1, 2}));
  EXPECT_GE(timeline_.now(), before + Duration::from_s(5));
}

TEST_F(SimLink, ARoughLinkDoublesAndReorders) {
  LinkOptions rough;
  rough.double_permille = 300;
  rough.overtake_permille = 300;
  make(rough);
  connect();
  for (std::uint64_t i = 1; i <= 200; ++i) up(i);
  settle();
  EXPECT_GT(up_.size(), 220U);
  EXPECT_FALSE(std::is_sorted(up_.begin(), up_.end()));
  EXPECT_EQ(std::set<std::uint64_t>(up_.begin(), up_.end()).size(), 200U);
}

}  // namespace
}  // namespace muster::sim
