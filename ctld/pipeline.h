// Pipeline: command -> decide -> apply -> open batch -> plan -> journal -> effects and replies. The controller's heart.
//
// Commands are decided and applied in memory at once. Their facts collect in the open batch. When the journal is idle
// (at the end of the loop's round, or when it has finished the batch before) a slice of planning is done and the batch
// is closed: one is on its way to the disk while the next one collects. What has been promised with after_commit()
// and all effects happen only when the batch that was open at the time is on disk, in their order.
//
// Lives on the loop's thread and owns the State; nothing else writes it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "ctld/journal.h"
#include "lib/io/loop.h"

namespace muster::ctld {

struct PipelineLimits {
  // The open batch is full above one of these: the controller stops reading until it is closed.
  std::uint64_t batch_facts_max = 10'000;
  std::uint64_t batch_bytes_max = 64 << 20;  // of blobs
};

struct PipelineHooks {
  // Effects whose facts are on disk.
  std::function<void(Effects)> perform;
  // The batch `seq` is closed: the State is exactly what it will be after it. Called before it is handed over.
  std::function<void(std::uint64_t seq, std::size_t facts)> closing;
  // The batch is on disk; its effects follow.
  std::function<void(std::uint64_t seq)> committed;
  // full() is no longer true.
  std::function<void()> drained;
};

class Pipeline {
 public:
  Pipeline(io::Loop& loop, engine::State state, sched::Policy policy, PipelineLimits limits, PipelineHooks hooks);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  // The journal's `committed` event must be given to on_committed().
  void set_journal(Journal& journal) { journal_ = &journal; }
  void on_committed(std::uint64_t seq);

  [[nodiscard]] const engine::State& state() const { return state_; }
  [[nodiscard]] const sched::Policy& policy() const { return policy_; }
  // Wall time that never decreases, also not below what the journal has seen.
  Instant now();

  // Decides and applies. An error changed nothing.
  Result<engine::Decision> execute(const Command& command);
  // Only decides.
  Result<engine::Decision> test(const Command& command);
  // Goes into the open batch once, however often it is given.
  void add_blob(const Digest& digest, const std::string& bytes);

  // Runs fn when everything that is known now is on disk; within this round when it is already.
  void after_commit(std::function<void()> fn);
  // Runs the planner at the end of this round: a job's begin time has come.
  void want_plan();

  [[nodiscard]] bool full() const;
  // Nothing is open and nothing is under way.
  [[nodiscard]] bool settled() const;
  [[nodiscard]] std::uint64_t batches() const { return batches_; }

 private:
  struct Open;
  void schedule_flush();
  void flush();
  void plan_slice();
  void close_batch();
  void finish(std::unique_ptr<Open> batch);
  void take(engine::Decision& decision);
  void watch_begin(const JobSubmitted& fact);
  void arm_begin_timer();

  io::Loop& loop_;
  engine::State state_;
  const sched::Policy policy_;
  const PipelineLimits limits_;
  PipelineHooks hooks_;
  Journal* journal_ = nullptr;
  Instant last_now_;

  std::unique_ptr<Open> open_;
  std::unique_ptr<Open> under_way_;
  bool flush_scheduled_ = false;
  bool plan_wanted_ = true;
  bool was_full_ = false;
  std::uint64_t batches_ = 0;

  // Times at which jobs may begin, the earliest first.
  std::multiset<Instant> begins_;
  io::Timer begin_timer_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace muster::ctld
