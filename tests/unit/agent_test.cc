// The node's state machine: each rule of core/agent/agent.h as a scenario.
#include "core/agent/agent.h"

#include <gtest/gtest.h>

#include <csignal>
#include <utility>

namespace muster::agent {
namespace {

using Order = std::shared_ptr<const LaunchOrder>;

AttemptKey key_of(std::uint64_t job, std::uint32_t attempt = 1) {
  return {JobId{job}, Attempt{attempt}};
}

Order launch(AttemptKey key, std::uint64_t term = 1, std::string node = "n1") {
  LaunchOrder order;
  order.key = key;
  order.term = Term{term};
  order.node = std::move(node);
  order.spec = std::make_shared<const JobSpec>();
  return std::make_shared<const LaunchOrder>(std::move(order));
}

StopOrder stop(AttemptKey key, std::uint64_t term = 1, std::int32_t signal = 0) {
  return StopOrder{.key = key, .term = Term{term}, .cause = StopCause::kCancelled, .signal = signal};
}

Outcome exited(int code) {
  Outcome outcome;
  outcome.cause = EndCause::kExited;
  outcome.exit_code = code;
  return outcome;
}

// Effects as words, so that a test states all of them and an extra one fails.
std::string words(const AgentEffects& effects) {
  std::string text;
  const auto add = [&](const std::string& word) { text += (text.empty() ? "" : " ") + word; };
  const auto id = [](AttemptKey key) {
    return std::to_string(key.job.value) + "." + std::to_string(key.attempt.value);
  };
  for (const AgentEffect& effect : effects) {
    if (const auto* started = std::get_if<StartAttempt>(&effect)) {
      add("start:" + id(started->order->key));
    } else if (const auto* stopping = std::get_if<StopAttempt>(&effect)) {
      add("stop:" + id(stopping->key) + (stopping->signal != 0 ? "/" + std::to_string(stopping->signal) : ""));
    } else if (const auto* suspending = std::get_if<SuspendAttempt>(&effect)) {
      add((suspending->suspend ? "suspend:" : "continue:") + id(suspending->key));
    } else if (const auto* recorded = std::get_if<RecordEnd>(&effect)) {
      add("record:" + id(recorded->key));
    } else if (const auto* raised = std::get_if<RecordTerm>(&effect)) {
      add("term:" + std::to_string(raised->term.value));
    } else if (const auto* sent = std::get_if<SendReport>(&effect)) {
      add((sent->report.ended ? "ended:" : "runs:") + id(sent->report.key));
    } else if (const auto* forgot = std::get_if<ForgetAttempt>(&effect)) {
      add("forget:" + id(forgot->key));
    } else if (const auto* noted = std::get_if<NoteRefusal>(&effect)) {
      add("note:" + id(noted->key));
    }
  }
  return text;
}

class AgentTest : public testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(check_invariants(state_), ""); }
  std::string launched(const Order& order) { return words(on_launch(state_, order)); }
  std::string stopped(const StopOrder& order) { return words(on_stop(state_, order)); }
  // A job that runs.
  void run(AttemptKey key) {
    on_launch(state_, launch(key));
    on_started(state_, key);
  }
  const Outcome& outcome(AttemptKey key) { return state_.attempts.at(key).outcome; }

  AgentState state_ = initial_state("n1", Term{1});
};

TEST_F(AgentTest, ALaunchThatTheShellRefusesEndsUnlessItIsKnown) {
  EXPECT_EQ(words(on_launch_refused(state_, key_of(1), "why")), "note:1.1 record:1.1 ended:1.1");
  EXPECT_EQ(outcome(key_of(1)).cause, EndCause::kLaunchFailed);
  EXPECT_EQ(outcome(key_of(1)).detail, "why");
  EXPECT_EQ(words(on_launch_refused(state_, key_of(1), "why")), "ended:1.1");
  EXPECT_EQ(launched(launch(key_of(1))), "ended:1.1");
  on_acknowledged(state_, key_of(1));
  EXPECT_EQ(words(on_launch_refused(state_, key_of(1), "why")), "ended:1.1");
  on_launch(state_, launch(key_of(2)));
  EXPECT_EQ(words(on_launch_refused(state_, key_of(2), "why")), "");
  on_started(state_, key_of(2));
  EXPECT_EQ(words(on_launch_refused(state_, key_of(2), "why")), "runs:2.1");
}

TEST_F(AgentTest, RunsAnAttemptFromLaunchToAcknowledgement) {
  EXPECT_EQ(launched(launch(key_of(7))), "start:7.1");
  EXPECT_EQ(words(on_started(state_, key_of(7))), "runs:7.1");
  EXPECT_EQ(words(on_ended(state_, key_of(7), exited(3))), "ended:7.1");
  EXPECT_EQ(outcome(key_of(7)), exited(3));
  EXPECT_EQ(words(on_acknowledged(state_, key_of(7))), "forget:7.1");
  EXPECT_TRUE(state_.attempts.empty());
}

SuspendOrder suspension(AttemptKey key, bool suspend, std::uint64_t number, std::uint64_t term = 1) {
  return SuspendOrder{.key = key, .term = Term{term}, .suspend = suspend, .number = number};
}

TEST_F(AgentTest, OfSuspensionsTheNewestCounts) {
  const AttemptKey key = key_of(7);
  EXPECT_EQ(words(on_suspend(state_, suspension(key, true, 1))), "") << "it is not known yet";
  on_launch(state_, launch(key));
  EXPECT_EQ(words(on_suspend(state_, suspension(key, true, 3))), "");
  EXPECT_EQ(words(on_started(state_, key)), "runs:7.1 suspend:7.1");
  EXPECT_EQ(words(on_suspend(state_, suspension(key, false, 2))), "") << "it was overtaken";
  EXPECT_EQ(words(on_suspend(state_, suspension(key, true, 3))), "suspend:7.1") << "repeated after a registration";
  EXPECT_EQ(words(on_suspend(state_, suspension(key, false, 4))), "continue:7.1");
  EXPECT_EQ(words(on_suspend(state_, suspension(key, true, 5, 0))), "note:7.1") << "of an older controller";
  on_stop(state_, stop(key));
  EXPECT_EQ(words(on_suspend(state_, suspension(key, true, 6))), "") << "it is ending";
  on_ended(state_, key, exited(0));
  EXPECT_EQ(words(on_suspend(state_, suspension(key, true, 7))), "");
}

TEST_F(AgentTest, SaysThatItStandsStillUntilItIsToGoOn) {
  const AttemptKey key = key_of(7);
  const auto order = [&](bool suspend, std::uint64_t number) {
    SuspendOrder o = suspension(key, suspend, number);
    o.gives_cores = suspend;
    return on_suspend(state_, o);
  };
  const auto says = [&] { return registered_attempts(state_).at(0).stands_still; };
  on_launch(state_, launch(key));
  EXPECT_EQ(words(order(true, 1)), "");
  const AgentEffects effects = on_started(state_, key);
  ASSERT_EQ(words(effects), "runs:7.1 suspend:7.1");
  EXPECT_TRUE(std::get<SuspendAttempt>(effects.back()).gives_cores);
  EXPECT_EQ(std::get<SuspendAttempt>(effects.back()).number, 1U);
  EXPECT_EQ(says(), 0U) << "the shepherd has not said so";
  const AgentEffects said = on_stood_still(state_, key, 1);
  ASSERT_EQ(words(said), "runs:7.1");
  EXPECT_EQ(std::get<SendReport>(said[0]).report.stands_still, 1U);
  order(true, 1);
  EXPECT_EQ(says(), 1U) << "repeated after a registration";
  order(false, 2);
  EXPECT_EQ(says(), 0U);
  EXPECT_EQ(words(on_stood_still(state_, key, 1)), "") << "of an order that was taken back";
  order(true, 3);
  EXPECT_EQ(words(on_stood_still(state_, key, 1)), "");
  on_stop(state_, stop(key));
  EXPECT_EQ(words(on_stood_still(state_, key, 3)), "") << "it is ending";
  EXPECT_EQ(says(), 0U);
  // By hand it keeps its cores, and says nothing.
  const AttemptKey other = key_of(8);
  run(other);
  on_suspend(state_, suspension(other, true, 1));
  EXPECT_EQ(words(on_stood_still(state_, other, 1)), "");
}

Verdict read_back(std::uint32_t step, std::uint32_t rank, std::string fault = "") {
  Verdict verdict;
  verdict.proof.step = step;
  verdict.proof.rank = rank;
  verdict.proof.as_decided = fault.empty();
  verdict.fault = std::move(fault);
  return verdict;
}

TEST_F(AgentTest, WhatWasReadBackOfTasksIsReportedWithTheFirstStep) {
  const AttemptKey key = key_of(7);
  on_launch(state_, launch(key));
  EXPECT_EQ(words(on_proven(state_, key, read_back(kScriptStep, 0), false)), "") << "told with the start";
  const AgentEffects started = on_started(state_, key);
  ASSERT_EQ(words(started), "runs:7.1");
  EXPECT_EQ(std::get<SendReport>(started[0]).report.proof->tasks, 1U);
  EXPECT_EQ(words(on_proven(state_, key, read_back(0, 0), true)), "") << "others are to come";
  EXPECT_EQ(words(on_proven(state_, key, read_back(0, 1), false)), "runs:7.1");
  EXPECT_EQ(words(on_proven(state_, key, read_back(1, 0), false)), "") << "of a later step only faults are news";
  EXPECT_EQ(words(on_proven(state_, key, read_back(1, 1, "CPUs 1 in place of 2"), true)), "runs:7.1");
  const AgentEffects ended = on_ended(state_, key, exited(0));
  ASSERT_EQ(words(ended), "ended:7.1");
  const auto& proof = std::get<SendReport>(ended[0]).report.proof;
  ASSERT_TRUE(proof);
  EXPECT_EQ(proof->tasks, 5U);
  EXPECT_EQ(proof->faults, 1U);
  EXPECT_EQ(proof->fault, "task 1 of step 1: CPUs 1 in place of 2");
  ASSERT_EQ(proof->list.size(), 4U) << "the script, the first step, the fault";
  EXPECT_FALSE(proof->list.back().as_decided);
  EXPECT_EQ(words(on_proven(state_, key, read_back(2, 0), false)), "") << "it has ended";
}

TEST_F(AgentTest, AProofIsBoundedHoweverManyTasksThereAre) {
  const AttemptKey key = key_of(7);
  run(key);
  for (std::uint32_t rank = 0; rank < 2'000; ++rank) {
    on_proven(state_, key, read_back(0, rank), true);
  }
  for (std::uint32_t rank = 0; rank < 2'000; ++rank) {
    on_proven(state_, key, read_back(1, rank, std::string(1'000, 'x')), true);
  }
  const auto proof = registered_attempts(state_).at(0).proof;
  ASSERT_TRUE(proof);
  EXPECT_EQ(proof->tasks, 4'000U);
  EXPECT_EQ(proof->faults, 2'000U);
  EXPECT_EQ(proof->list.size(), kProofTasksMax);
  EXPECT_EQ(proof->fault.size(), kProofFaultBytesMax);
}

TEST_F(AgentTest, TheNoticeOfAStopThatCameEarlyIsKept) {
  const AttemptKey key = key_of(7);
  on_launch(state_, launch(key));
  StopOrder order = stop(key);
  order.notice_signal = 10;
  order.notice = Duration::from_s(5);
  on_stop(state_, order);
  const AgentEffects effects = on_started(state_, key);
  ASSERT_EQ(words(effects), "runs:7.1 stop:7.1");
  EXPECT_EQ(std::get<StopAttempt>(effects.back()).notice_signal, 10);
  EXPECT_EQ(std::get<StopAttempt>(effects.back()).notice, Duration::from_s(5));
}

TEST_F(AgentTest, StartsNothingTwice) {
  EXPECT_EQ(launched(launch(key_of(7))), "start:7.1");
  EXPECT_EQ(launched(launch(key_of(7))), "");  // reports itself when it has begun
  on_started(state_, key_of(7));
  EXPECT_EQ(launched(launch(key_of(7))), "runs:7.1");
  on_ended(state_, key_of(7), exited(0));
  EXPECT_EQ(launched(launch(key_of(7))), "ended:7.1");
  on_acknowledged(state_, key_of(7));
  EXPECT_EQ(launched(launch(key_of(7))), "ended:7.1");  // overtaken by its own end
  EXPECT_EQ(stopped(stop(key_of(7))), "ended:7.1");
}

TEST_F(AgentTest, EventsThatComeTwiceChangeNothing) {
  run(key_of(7));
  EXPECT_EQ(words(on_started(state_, key_of(7))), "");
  EXPECT_EQ(words(on_launch_failed(state_, key_of(7), exited(1))), "");
  on_ended(state_, key_of(7), exited(3));
  EXPECT_EQ(words(on_ended(state_, key_of(7), exited(4))), "");
  EXPECT_EQ(outcome(key_of(7)), exited(3));
  on_acknowledged(state_, key_of(7));
  EXPECT_EQ(words(on_acknowledged(state_, key_of(7))), "");
  EXPECT_EQ(words(on_ended(state_, key_of(8), exited(0))), "");
  EXPECT_EQ(words(on_started(state_, key_of(8))), "");
}

TEST_F(AgentTest, IgnoresMessagesOfAnOlderController) {
  run(key_of(7));
  EXPECT_EQ(launched(launch(key_of(8), 4)), "term:4 start:8.1");
  EXPECT_EQ(launched(launch(key_of(9), 3)), "note:9.1");
  EXPECT_EQ(stopped(stop(key_of(7), 3)), "note:7.1");
  EXPECT_EQ(state_.attempts.at(key_of(7)).phase, AttemptPhase::kRunning);
  AgentEffects effects;
  EXPECT_FALSE(hear_term(state_, Term{3}, effects));
  EXPECT_TRUE(hear_term(state_, Term{4}, effects));
  EXPECT_TRUE(effects.empty());
  EXPECT_TRUE(hear_term(state_, Term{5}, effects));
  EXPECT_EQ(words(effects), "term:5");
}

TEST_F(AgentTest, ARestartKeepsTheTerm) {
  state_ = initial_state("n1", Term{9});
  EXPECT_EQ(launched(launch(key_of(7), 8)), "note:7.1");
}

TEST_F(AgentTest, AStopThatOvertakesItsLaunchMakesItDoNothing) {
  EXPECT_EQ(stopped(stop(key_of(7))), "record:7.1 ended:7.1");
  EXPECT_EQ(outcome(key_of(7)).cause, EndCause::kCancelled);
  EXPECT_EQ(launched(launch(key_of(7))), "ended:7.1");
  EXPECT_EQ(stopped(stop(key_of(7))), "ended:7.1");
}

TEST_F(AgentTest, ATombstoneOutlivesARestart) {
  on_stop(state_, stop(key_of(7)));
  const Outcome recorded = outcome(key_of(7));
  state_ = initial_state("n1", Term{1});
  EXPECT_EQ(words(recover(state_, key_of(7), nullptr, FoundEnded{recorded})), "");
  EXPECT_EQ(launched(launch(key_of(7))), "ended:7.1");
}

TEST_F(AgentTest, ASignalForAnUnknownAttemptIsNotAStop) {
  EXPECT_EQ(stopped(stop(key_of(7), 1, SIGUSR1)), "");
  EXPECT_EQ(launched(launch(key_of(7))), "start:7.1");
}

TEST_F(AgentTest, AStopWhileStartingIsCarriedOutOnceItRuns) {
  on_launch(state_, launch(key_of(7)));
  EXPECT_EQ(stopped(stop(key_of(7), 1, SIGUSR1)), "");
  EXPECT_EQ(stopped(stop(key_of(7))), "");
  EXPECT_EQ(words(on_started(state_, key_of(7))), "runs:7.1 stop:7.1/" + std::to_string(SIGUSR1) + " stop:7.1");
  EXPECT_EQ(state_.attempts.at(key_of(7)).phase, AttemptPhase::kStopping);
}

TEST_F(AgentTest, AStopIsRepeatedToTheShepherdWhenTheControllerRepeatsIt) {
  run(key_of(7));
  EXPECT_EQ(stopped(stop(key_of(7))), "stop:7.1");
  EXPECT_EQ(stopped(stop(key_of(7))), "stop:7.1");
  EXPECT_EQ(words(on_ended(state_, key_of(7), exited(0))), "ended:7.1");
  EXPECT_EQ(stopped(stop(key_of(7))), "ended:7.1");
}

TEST_F(AgentTest, ASignalAloneLetsTheAttemptGoOn) {
  run(key_of(7));
  EXPECT_EQ(stopped(stop(key_of(7), 1, SIGUSR1)), "stop:7.1/" + std::to_string(SIGUSR1));
  EXPECT_EQ(state_.attempts.at(key_of(7)).phase, AttemptPhase::kRunning);
}

TEST_F(AgentTest, AFailedLaunchIsRecordedBeforeItIsReported) {
  on_launch(state_, launch(key_of(7)));
  Outcome failed;
  failed.cause = EndCause::kLaunchFailed;
  failed.detail = "no such directory";
  EXPECT_EQ(words(on_launch_failed(state_, key_of(7), failed)), "record:7.1 ended:7.1");
  EXPECT_EQ(outcome(key_of(7)), failed);
  EXPECT_EQ(words(on_started(state_, key_of(7))), "");
}

TEST_F(AgentTest, RefusesAnAttemptOlderThanOneItKnows) {
  run(key_of(7, 2));
  EXPECT_EQ(launched(launch(key_of(7, 1))), "note:7.1 record:7.1 ended:7.1");
  EXPECT_EQ(outcome(key_of(7, 1)).cause, EndCause::kLaunchFailed);
  EXPECT_EQ(launched(launch(key_of(8, 1))), "start:8.1");  // the neighbour in the map is another job
}

TEST_F(AgentTest, RefusesAnAttemptOlderThanOneItHasForgotten) {
  run(key_of(7, 2));
  on_ended(state_, key_of(7, 2), exited(0));
  on_acknowledged(state_, key_of(7, 2));
  EXPECT_EQ(launched(launch(key_of(7, 1))), "note:7.1 record:7.1 ended:7.1");
}

TEST_F(AgentTest, RefusesANewAttemptWhileTheOldOneRuns) {
  run(key_of(7, 1));
  EXPECT_EQ(launched(launch(key_of(7, 2))), "note:7.2 record:7.2 ended:7.2");
  on_ended(state_, key_of(7, 1), exited(0));
  EXPECT_EQ(launched(launch(key_of(7, 3))), "start:7.3");
}

TEST_F(AgentTest, RefusesALaunchForAnotherNode) {
  EXPECT_EQ(launched(launch(key_of(7), 1, "n2")), "note:7.1 record:7.1 ended:7.1");
}

TEST_F(AgentTest, ReportsAnEndUntilItIsAcknowledged) {
  run(key_of(7));
  run(key_of(8));
  run(key_of(9));
  on_ended(state_, key_of(7), exited(0));
  on_ended(state_, key_of(9), exited(0));
  EXPECT_EQ(words(retry_reports(state_, 100)), "ended:7.1 ended:9.1");
  EXPECT_EQ(words(retry_reports(state_, 1)), "ended:7.1");
  on_acknowledged(state_, key_of(7));
  EXPECT_EQ(words(on_acknowledged(state_, key_of(8))), "");  // it has not ended: it cannot be forgotten
  EXPECT_EQ(words(retry_reports(state_, 100)), "ended:9.1");
}

TEST_F(AgentTest, RegistersWhatHasBegunOrEnded) {
  on_launch(state_, launch(key_of(6)));
  run(key_of(7));
  run(key_of(8));
  on_ended(state_, key_of(8), exited(5));
  const std::vector<AttemptReport> expected = {{.key = key_of(7), .ended = false, .outcome = {}},
                                               {.key = key_of(8), .ended = true, .outcome = exited(5)}};
  EXPECT_EQ(registered_attempts(state_), expected);
}

TEST_F(AgentTest, TakesUpWhatARestartFinds) {
  EXPECT_EQ(words(recover(state_, key_of(1), launch(key_of(1)), FoundNotBegun{})), "start:1.1");
  EXPECT_EQ(words(recover(state_, key_of(2), launch(key_of(2)), FoundRunning{})), "");
  EXPECT_EQ(words(recover(state_, key_of(3), launch(key_of(3)), FoundEnded{exited(7)})), "");
  EXPECT_EQ(words(recover(state_, key_of(4), nullptr, FoundNotBegun{})), "record:4.1 ended:4.1");
  EXPECT_EQ(words(recover(state_, key_of(2), launch(key_of(2)), FoundEnded{exited(7)})), "");  // told twice
  ASSERT_EQ(registered_attempts(state_).size(), 3U);
  EXPECT_EQ(registered_attempts(state_)[1].outcome, exited(7));
  EXPECT_EQ(words(on_started(state_, key_of(1))), "runs:1.1");
  EXPECT_EQ(words(on_ended(state_, key_of(2), exited(0))), "ended:2.1");
}

TEST_F(AgentTest, ForgetsTheOldestEndsFirst) {
  const auto run_through = [&](std::uint64_t job) {
    run(key_of(job));
    on_ended(state_, key_of(job), exited(0));
    on_acknowledged(state_, key_of(job));
  };
  for (std::uint64_t job = 1; job <= kForgottenMax + 1; ++job) run_through(job);
  EXPECT_EQ(state_.forgotten.size(), kForgottenMax);
  EXPECT_FALSE(state_.forgotten.contains(key_of(1)));
  EXPECT_TRUE(state_.forgotten.contains(key_of(2)));
}

TEST_F(AgentTest, DropsOrdersBeyondItsLimit) {
  for (std::uint64_t job = 1; job <= kAttemptsMax; ++job) on_launch(state_, launch(key_of(job)));
  EXPECT_EQ(launched(launch(key_of(kAttemptsMax + 1))), "note:100001.1");
  EXPECT_EQ(stopped(stop(key_of(kAttemptsMax + 1))), "note:100001.1");
  EXPECT_EQ(stopped(stop(key_of(1))), "");  // known ones are still served
  EXPECT_EQ(state_.attempts.at(key_of(1)).stop, StopCause::kCancelled);
}

}  // namespace
}  // namespace muster::agent
