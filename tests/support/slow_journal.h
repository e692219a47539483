// A journal whose disk is as slow as the test wants: batches and history questions wait until the test lets them go.
#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "ctld/journal.h"
#include "ctld/pipeline.h"
#include "gtest/gtest.h"

namespace muster::testing {

class SlowJournal final : public ctld::Journal {
 public:
  std::uint64_t append(ctld::Batch batch) override {
    EXPECT_TRUE(idle_);
    EXPECT_FALSE(batch.facts.empty());
    idle_ = false;
    under_way_ = std::move(batch.history);
    return ++seq_;
  }
  [[nodiscard]] bool idle() const override { return idle_; }
  void read_blobs(std::vector<Digest>, BlobsRead) override { ADD_FAILURE() << "no blobs here"; }
  void read_history(ctld::HistoryFilter filter, HistoryRead done) override {
    reads_.emplace_back(std::move(filter), std::move(done));
  }
  void compact(ctld::Compaction) override {}
  void close() override {}

  // The disk has written the batch at last.
  void commit(ctld::Pipeline& pipeline) {
    ASSERT_FALSE(idle_);
    idle_ = true;
    history_.insert(history_.end(), under_way_.begin(), under_way_.end());
    pipeline.on_committed(seq_);
  }
  // Answers the oldest question with all that is on disk and has its first id, and that so many times.
  void answer_history(int times = 1) {
    ASSERT_FALSE(reads_.empty());
    auto [filter, done] = std::move(reads_.front());
    reads_.pop_front();
    ctld::HistoryPage page;
    for (const auto& job : history_) {
      if (filter.items.empty() || filter.items.front().id == job.id) {
        page.jobs.insert(page.jobs.end(), times, job);
      }
    }
    done(std::move(page));
  }
  [[nodiscard]] std::size_t history_reads() const { return reads_.size(); }

 private:
  bool idle_ = true;
  std::uint64_t seq_ = 0;
  std::vector<JobSummary> under_way_;
  std::vector<JobSummary> history_;
  std::deque<std::pair<ctld::HistoryFilter, HistoryRead>> reads_;
};

}  // namespace muster::testing
