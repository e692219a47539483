// A controller's inside without its sockets: pipeline and SQLite store in a folder, as tests drive them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ctld/pipeline.h"
#include "ctld/recovery.h"
#include "ctld/snapshot.h"
#include "ctld/store_sqlite.h"
#include "gtest/gtest.h"
#include "lib/io/loop.h"
#include "tests/support/engine_scenario.h"
#include "tests/support/slowness.h"

namespace muster::testing {

inline Digest digest_of(const std::string& bytes) {
  return Digest{io::blake2b_256(bytes)};
}

class StoreHarness {
 public:
  // Recovers what the folder has and begins a term.
  static Result<std::unique_ptr<StoreHarness>> open(const std::string& dir) {
    MUSTER_TRY(ctld::prepare_store(dir, "test"));
    MUSTER_ASSIGN(auto recovered, ctld::recover_all(dir));
    auto harness = std::unique_ptr<StoreHarness>(new StoreHarness(std::move(recovered)));
    MUSTER_ASSIGN(harness->journal,
                  ctld::open_store(harness->loop, dir, harness->start.position,
                                   {.committed =
                                        [h = harness.get()](std::uint64_t seq) {
                                          h->committed = seq;
                                          h->pipeline->on_committed(seq);
                                        },
                                    .failed = [h = harness.get()](Error error) { h->failed = error; }}));
    harness->pipeline->set_journal(*harness->journal);
    harness->run(StartTerm{});
    return harness;
  }
  ~StoreHarness() { close(); }

  // Executes and waits until it is on disk.
  engine::Decision run(const Command& command) {
    auto decision = pipeline->execute(command);
    EXPECT_TRUE(decision.ok()) << (decision.ok() ? "" : decision.error().message);
    settle();
    return decision.ok() ? std::move(*decision) : engine::Decision{};
  }
  void settle() {
    bool done = false;
    pipeline->after_commit([&] { done = true; });
    EXPECT_TRUE(loop.run_until([&] { return done || failed; }, Duration::from_s(20 * test::kSlowness)));
  }
  JobId submit(JobSpec spec, const std::string& script) {
    spec.script = digest_of(script);
    auto decision = pipeline->execute(
        SubmitJob{{"alice", false}, RequestId{1, ++requests}, std::make_shared<const JobSpec>(std::move(spec))});
    EXPECT_TRUE(decision.ok()) << (decision.ok() ? "" : decision.error().message);
    pipeline->add_blob(digest_of(script), script);
    settle();
    return decision.ok() ? decision->job : JobId{};
  }
  // The node says that all active jobs on it have ended.
  void end_all(const std::string& node) {
    ReportAttempts reports{node, {}};
    for (const auto& [id, job] : pipeline->state().jobs) {
      if (job.is_active()) {
        AttemptReport report;
        report.key = {id, job.attempt};
        report.ended = true;
        reports.reports.push_back(report);
      }
    }
    run(reports);
  }
  ctld::HistoryPage history(ctld::HistoryFilter filter) {
    std::optional<Result<ctld::HistoryPage>> page;
    journal->read_history(std::move(filter),
                          [&](Result<ctld::HistoryPage> answer) { page.emplace(std::move(answer)); });
    EXPECT_TRUE(loop.run_until([&] { return page.has_value(); }, Duration::from_s(20 * test::kSlowness)));
    if (!page || !page->ok()) {
      ADD_FAILURE() << (page ? page->error().message : "no answer");
      return {};
    }
    return std::move(**page);
  }
  Result<std::string> blob(const std::string& bytes) {
    std::vector<Result<std::string>> answer;
    bool done = false;
    journal->read_blobs({digest_of(bytes)}, [&](std::vector<Result<std::string>> answers) {
      answer = std::move(answers);
      done = true;
    });
    EXPECT_TRUE(loop.run_until([&] { return done; }, Duration::from_s(20 * test::kSlowness)));
    return answer.empty() ? Result<std::string>(make_error(ErrorCode::kInternal, "no answer")) : answer.front();
  }
  void close() {
    if (journal) {
      journal->close();
    }
  }

  io::Loop loop;
  ctld::Recovered start;  // without the state
  std::unique_ptr<ctld::Pipeline> pipeline;
  std::unique_ptr<ctld::Journal> journal;
  std::uint64_t committed = 0;
  std::uint64_t requests = 0;
  std::optional<Error> failed;
  Effects performed;

 private:
  explicit StoreHarness(ctld::Recovered recovered) {
    start.position = recovered.position;
    start.snapshot_seq = recovered.snapshot_seq;
    start.batches_replayed = recovered.batches_replayed;
    pipeline = std::make_unique<ctld::Pipeline>(loop, std::move(recovered.state), policy(), ctld::PipelineLimits{},
                                                ctld::PipelineHooks{.perform =
                                                                        [this](Effects effects) {
                                                                          for (auto& effect : effects) {
                                                                            performed.push_back(std::move(effect));
                                                                          }
                                                                        },
                                                                    .closing = {},
                                                                    .committed = {},
                                                                    .drained = {}});
  }
};

}  // namespace muster::testing
