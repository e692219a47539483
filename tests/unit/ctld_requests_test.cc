// What clients are told while the disk is slow: never what a crash could undo.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ctld/nodes.h"
#include "ctld/requests.h"
#include "gtest/gtest.h"
#include "lib/config/config.h"
#include "lib/io/keys.h"
#include "lib/io/loop.h"
#include "lib/wire/muster.pb.h"
#include "tests/support/engine_scenario.h"
#include "tests/support/slow_journal.h"
#include "tests/support/slowness.h"

namespace muster::testing {
namespace {

class RequestsTest : public ::testing::Test {
 protected:
  RequestsTest()
      : outbox_([this](const std::string& peer, const std::vector<std::string>& frames) {
          if (peer == "client") {
            EXPECT_TRUE(replies_.emplace_back().ParseFromString(frames.at(1)));
          }
          return ok_status();
        }),
        tickets_(io::generate_cluster_key()),
        pipeline_(loop_, engine::State{}, policy(), ctld::PipelineLimits{},
                  ctld::PipelineHooks{.perform =
                                          [this](Effects effects) {
                                            nodes_->perform(effects);
                                            requests_->perform(effects);
                                          },
                                      .closing = {},
                                      .committed = {},
                                      .drained = [this] { requests_->resume(); }}) {
    nodes_.emplace(loop_, ctld::Nodes::Options{"test", Duration::from_s(3'600)}, pipeline_, journal_, outbox_,
                   tickets_);
    requests_.emplace(loop_, config_, pipeline_, journal_, outbox_, *nodes_, tickets_);
    pipeline_.set_journal(journal_);
    execute(StartTerm{});
    execute(RegisterNode{registration("n1", hardware(4))});
    commit_all();
  }

  void execute(const Command& command) {
    const auto decision = pipeline_.execute(command);
    ASSERT_TRUE(decision.ok()) << decision.error().message;
  }
  void report(std::uint64_t job, bool ended) {
    execute(ReportAttempts{"n1", {AttemptReport{{JobId(job), Attempt{1}}, ended, {}}}});
  }
  // Job 1 is on node n1, which has not said that it runs.
  void start_a_job() {
    execute(SubmitJob{{"alice", false}, {}, std::make_shared<JobSpec>(job(1, 1))});
    commit_all();
    ASSERT_TRUE(engine::find_job(pipeline_.state(), JobId(1))->is_active());
  }
  // What is done so far is under way to the disk, and whatever comes collects in the next batch.
  void begin_sync() {
    turn();
    ASSERT_FALSE(journal_.idle());
  }
  void commit() {
    journal_.commit(pipeline_);
    turn();
  }
  void commit_all() {
    turn();
    while (!journal_.idle()) {
      commit();
    }
  }
  void turn() {
    int turns = 0;
    const std::function<void()> again = [&] {
      if (++turns < 5) {
        loop_.defer(again);
      }
    };
    loop_.defer(again);
    ASSERT_TRUE(loop_.run_until([&] { return turns >= 5; }, Duration::from_s(20 * test::kSlowness)));
  }
  void ask(pb::Request request) {
    request.set_correlation(1);
    requests_->on_request("client", Caller{"alice", false}, request);
  }
  void wait_for(std::uint64_t job, bool until_ended) {
    pb::Request request;
    request.mutable_wait()->set_job(job);
    request.mutable_wait()->set_until_ended(until_ended);
    ask(request);
  }
  void ask_ticket(std::uint64_t job) {
    pb::Request request;
    request.mutable_ticket()->set_job(job);
    request.mutable_ticket()->set_client_key("key");
    ask(request);
  }

  config::Config config_ = config::defaults();
  io::Loop loop_;
  SlowJournal journal_;
  std::vector<pb::Reply> replies_;
  ctld::Outbox outbox_;
  ctld::Tickets tickets_;
  ctld::Pipeline pipeline_;
  std::optional<ctld::Nodes> nodes_;
  std::optional<ctld::Requests> requests_;
};

TEST_F(RequestsTest, WhoWaitsForAStartIsNotToldOfAnEndThatIsNotOnDisk) {
  start_a_job();
  wait_for(1, false);
  report(1, false);
  begin_sync();
  report(1, true);
  commit();  // the start; the end is under way
  EXPECT_TRUE(replies_.empty()) << replies_.front().ShortDebugString();
  EXPECT_EQ(journal_.history_reads(), 0U) << "the end is not in the history yet";
  commit();
  ASSERT_EQ(journal_.history_reads(), 1U);
  journal_.answer_history();
  turn();
  ASSERT_EQ(replies_.size(), 1U);
  ASSERT_EQ(replies_[0].jobs().jobs_size(), 1) << replies_[0].ShortDebugString();
  EXPECT_EQ(replies_[0].jobs().jobs(0).state(), static_cast<std::uint32_t>(JobState::kCompleted));
}

TEST_F(RequestsTest, WhoWaitsForAnEndIsToldAsSoonAsItIsOnDisk) {
  start_a_job();
  report(1, false);
  commit_all();
  wait_for(1, true);
  report(1, true);
  begin_sync();
  EXPECT_TRUE(replies_.empty());
  execute(DrainNodes{{"root", true}, {"n1"}, "x"});
  commit();  // the end; another batch is under way
  ASSERT_FALSE(journal_.idle());
  ASSERT_EQ(replies_.size(), 1U);
  EXPECT_EQ(replies_[0].jobs().jobs(0).state(), static_cast<std::uint32_t>(JobState::kCompleted));
}

TEST_F(RequestsTest, ATicketOfAnEndedJobNamesNoEndpointThatIsNotOnDisk) {
  start_a_job();
  report(1, false);
  report(1, true);
  commit_all();
  ask_ticket(1);
  turn();
  ASSERT_EQ(journal_.history_reads(), 1U);
  auto moved = registration("n1", hardware(4));
  moved.endpoint = "tcp://127.0.0.1:2";
  execute(RegisterNode{moved});
  begin_sync();
  journal_.answer_history();
  turn();
  EXPECT_TRUE(replies_.empty()) << replies_.front().ShortDebugString();
  commit();
  ASSERT_EQ(replies_.size(), 1U);
  EXPECT_EQ(replies_[0].ticket().endpoint(), "tcp://127.0.0.1:2");
}

TEST_F(RequestsTest, AnAnswerFromTheHistoryWaitsForTheOpenBatch) {
  start_a_job();
  report(1, false);
  report(1, true);
  commit_all();
  pb::Request history;
  history.mutable_history();
  ask(history);
  turn();
  execute(DrainNodes{{"root", true}, {"n1"}, "x"});
  begin_sync();
  ASSERT_EQ(journal_.history_reads(), 1U);
  journal_.answer_history();
  turn();
  EXPECT_TRUE(replies_.empty()) << replies_.front().ShortDebugString();
  commit();
  ASSERT_EQ(replies_.size(), 1U);
  EXPECT_EQ(replies_[0].jobs().jobs_size(), 1);
}

TEST_F(RequestsTest, AnOperationOnAnEndedJobSaysHowItEnded) {
  start_a_job();
  report(1, false);
  report(1, true);  // and is not on disk when the operation comes
  pb::Request cancel;
  cancel.mutable_cancel()->mutable_jobs()->add_items()->set_id(1);
  ask(cancel);
  EXPECT_EQ(journal_.history_reads(), 0U);
  commit_all();
  ASSERT_EQ(journal_.history_reads(), 1U);
  journal_.answer_history();
  turn();
  ASSERT_EQ(replies_.size(), 1U);
  ASSERT_EQ(replies_[0].operation().notes_size(), 1) << replies_[0].ShortDebugString();
  EXPECT_EQ(replies_[0].operation().notes(0), "job 1: has already ended (completed)");
  EXPECT_TRUE(replies_[0].operation().failed());

  pb::Request hold;
  hold.mutable_hold()->mutable_jobs()->add_items()->set_id(99);
  ask(hold);
  turn();
  journal_.answer_history();
  turn();
  ASSERT_EQ(replies_.size(), 2U);
  EXPECT_EQ(replies_[1].operation().notes(0), "job 99: no such job: see `muster queue` and `muster history`");
}

TEST_F(RequestsTest, RowsOfTheHistoryInMemoryAreBoundedWhileTheDiskIsSlow) {
  start_a_job();
  report(1, false);
  report(1, true);
  commit_all();
  constexpr int kTwoParts = ctld::kViewsPerReply + 1;
  pb::Request history;
  history.mutable_history();
  for (int i = 0; i < 10; ++i) {
    ask(history);
  }
  turn();
  execute(DrainNodes{{"root", true}, {"n1"}, "x"});
  begin_sync();
  EXPECT_EQ(journal_.history_reads(), ctld::kHistoryReadsAtOnce);
  for (std::size_t i = 0; i < ctld::kHistoryReadsAtOnce; ++i) {
    journal_.answer_history(kTwoParts);
  }
  turn();
  EXPECT_EQ(journal_.history_reads(), 0U) << "rows that wait for the disk keep their places";
  commit();
  EXPECT_EQ(replies_.size(), 2 * ctld::kHistoryReadsAtOnce);
  while (journal_.history_reads() > 0) {
    journal_.answer_history(kTwoParts);
    turn();
  }
  EXPECT_EQ(replies_.size(), 20U);
}

}  // namespace
}  // namespace muster::testing
