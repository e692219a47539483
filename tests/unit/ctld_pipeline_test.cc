// The pipeline over a journal whose disk is as slow as the test wants: what it holds back is counted, and whoever
// stopped because it was full is told when to go on.
#include <functional>
#include <string>

#include "ctld/pipeline.h"
#include "gtest/gtest.h"
#include "lib/io/loop.h"
#include "tests/support/engine_scenario.h"
#include "tests/support/slow_journal.h"
#include "tests/support/slowness.h"

namespace muster::testing {
namespace {

class PipelineTest : public ::testing::Test {
 protected:
  PipelineTest()
      : pipeline_(loop_, engine::State{}, policy(),
                  ctld::PipelineLimits{
                      .batch_facts_max = 5, .batch_bytes_max = 1'000, .held_max = 10, .held_bytes_max = 1'000},
                  ctld::PipelineHooks{.perform = [](Effects) {},
                                      .closing = {},
                                      .committed = {},
                                      .drained =
                                          [this] {
                                            EXPECT_FALSE(pipeline_.full());
                                            paused_ = false;
                                          }}) {
    pipeline_.set_journal(journal_);
  }

  // As the controller reads its socket: one request after the other until the pipeline is full.
  std::size_t ask_until_full(std::uint64_t bytes) {
    std::size_t asked = 0;
    while (!paused_ && asked < 1'000) {
      pipeline_.after_commit([this] { ++answered_; }, bytes);
      ++asked;
      paused_ = pipeline_.full();
    }
    return asked;
  }
  // A batch with facts is on its way to the disk afterwards.
  void begin_slow_sync() {
    ASSERT_TRUE(pipeline_.execute(StartTerm{}).ok());
    turn();
    ASSERT_FALSE(journal_.idle());
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

  io::Loop loop_;
  SlowJournal journal_;
  bool paused_ = false;
  std::size_t answered_ = 0;
  ctld::Pipeline pipeline_;
};

TEST_F(PipelineTest, RepliesHeldBackByASlowSyncStopTheReaderByTheirNumber) {
  begin_slow_sync();
  EXPECT_EQ(ask_until_full(0), 10U);
  turn();
  EXPECT_TRUE(paused_) << "nothing has left";
  EXPECT_EQ(answered_, 0U);
  journal_.commit(pipeline_);
  turn();
  EXPECT_EQ(answered_, 10U);
  EXPECT_FALSE(paused_);
  EXPECT_TRUE(pipeline_.settled());
}

TEST_F(PipelineTest, RepliesHeldBackByASlowSyncStopTheReaderByTheirBytes) {
  begin_slow_sync();
  EXPECT_EQ(ask_until_full(400), 3U);
  journal_.commit(pipeline_);
  turn();
  EXPECT_EQ(answered_, 3U);
  EXPECT_FALSE(paused_);
}

TEST_F(PipelineTest, RepliesOfTheBatchUnderWayCountAsWell) {
  pipeline_.after_commit([this] { ++answered_; }, 600);
  begin_slow_sync();
  EXPECT_EQ(answered_, 0U);
  EXPECT_EQ(ask_until_full(400), 1U);
  journal_.commit(pipeline_);
  turn();
  EXPECT_EQ(answered_, 2U);
  EXPECT_FALSE(paused_);
}

TEST_F(PipelineTest, ABatchWithoutFactsLetsTheReaderGoOn) {
  EXPECT_EQ(ask_until_full(0), 10U);
  turn();
  EXPECT_EQ(answered_, 10U);
  EXPECT_FALSE(paused_);
  EXPECT_TRUE(journal_.idle());
  // What is held back is counted anew.
  EXPECT_EQ(ask_until_full(0), 10U);
}

TEST_F(PipelineTest, ABatchFullOfFactsOrBlobsLetsTheReaderGoOnWhenItIsClosed) {
  begin_slow_sync();
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(pipeline_.full());
    ASSERT_TRUE(pipeline_.execute(StartTerm{}).ok());
  }
  paused_ = pipeline_.full();
  EXPECT_TRUE(paused_);
  journal_.commit(pipeline_);
  turn();
  EXPECT_FALSE(paused_);

  ASSERT_FALSE(journal_.idle());
  ASSERT_TRUE(pipeline_.execute(StartTerm{}).ok());
  pipeline_.add_blob(Digest{{1}}, std::string(1'000, 'x'));
  paused_ = pipeline_.full();
  EXPECT_TRUE(paused_);
  journal_.commit(pipeline_);
  turn();
  EXPECT_FALSE(paused_);
}

}  // namespace
}  // namespace muster::testing
