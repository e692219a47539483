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
#include "core/engine/settings.h"
#include "ctld/journal.h"
#include "lib/io/loop.h"

namespace muster::ctld {

struct PipelineLimits {
  Duration reunion_max = Duration::from_s(10);  // how long a start waits for the nodes that were connected before
  // The open batch is full above one of these: the controller stops reading until it is closed.
  std::uint64_t batch_facts_max = 10'000;
  std::uint64_t batch_bytes_max = 64 << 20;  // of blobs
  // Likewise above one of these, whatever the batches have: what after_commit() holds back while the disk works. Serial
  // bytes of replies take some times as much in memory.
  std::uint64_t held_max = 20'000;
  std::uint64_t held_bytes_max = 64 << 20;
};

struct PipelineHooks {
  // Effects whose facts are on disk.
  std::function<void(Effects)> perform;
  // The batch `seq` is closed: the State is exactly what it will be after it. Called before it is handed over.
  std::function<void(std::uint64_t seq, std::size_t facts)> closing;
  // The batch is on disk; its effects follow.
  std::function<void(std::uint64_t seq)> committed;
  // A batch was closed or has finished and full() is not true: whoever stopped because of full() goes on.
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
  // The process is about to end: the State stays where it is until then, since to free a million jobs takes a second.
  // Nothing else of the pipeline may be used after it.
  void abandon_state();
  // As it is now: settings change it (change_settings).
  [[nodiscard]] const sched::Policy& policy() const { return policy_; }
  // Wall time that never decreases, also not below what the journal has seen.
  Instant now();

  // Decides and applies. An error changed nothing.
  Result<engine::Decision> execute(const Command& command);
  // Decides whether the settings may change, and then plans by `next`, which is what they make of the policy.
  Result<engine::Decision> change_settings(const engine::ChangeSettings& command, sched::Policy next);
  // Only decides.
  Result<engine::Decision> test(const Command& command);
  // Goes into the open batch once, however often it is given.
  void add_blob(const Digest& digest, const std::string& bytes);

  // Runs fn when everything that is known now is on disk; within this round when it is already. `bytes` is the size of
  // the reply that fn holds.
  void after_commit(std::function<void()> fn, std::uint64_t bytes = 0);
  // Runs the planner at the end of this round: a job's begin time has come.
  void want_plan();

  // Too much is open or held back: nothing more should be asked of it until drained(). Something is then always on its
  // way that ends in drained().
  [[nodiscard]] bool full() const;
  // Nothing is open and nothing is under way.
  [[nodiscard]] bool settled() const;
  // After a start, while nodes that were connected before are still to come: when planning begins at the latest. Unset:
  // nothing is waited for.
  [[nodiscard]] Instant planning_waits_until();
  [[nodiscard]] std::uint64_t batches() const { return batches_; }

 private:
  struct Open;
  void schedule_flush();
  void flush();
  void forget_plan();
  void plan_slice();
  void close_batch();
  void finish(std::unique_ptr<Open> batch);
  void tell_drained();
  void take(engine::Decision& decision);
  void watch_begin(Instant begin);
  void arm_begin_timer();
  void arm_deadline_timer();

  io::Loop& loop_;
  engine::State state_;
  sched::Policy policy_;
  const PipelineLimits limits_;
  PipelineHooks hooks_;
  Journal* journal_ = nullptr;
  Instant last_now_;

  std::unique_ptr<Open> open_;
  std::unique_ptr<Open> under_way_;
  bool flush_scheduled_ = false;
  sched::PlanMemory plan_memory_;
  bool plan_wanted_ = true;
  // What after_commit() was given and has not run yet, in all batches.
  std::uint64_t held_ = 0;
  std::uint64_t held_bytes_ = 0;
  std::uint64_t batches_ = 0;

  // Times at which jobs may begin, the earliest first. The timer also runs to the next begin or end of a window.
  std::multiset<Instant> begins_;
  io::Timer begin_timer_;
  std::optional<Instant> deadline_armed_;
  io::Timer deadline_timer_;  // when a job must end or can no longer end in time
  [[nodiscard]] Duration reunion_wait();
  Instant term_start_;
  io::Timer refresh_timer_;  // runs while the last plan used promises as they were
  io::Timer reunion_timer_;  // runs while planning waits for nodes after a start
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace muster::ctld
