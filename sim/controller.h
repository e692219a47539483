// Controller: muster-ctld in the simulation. The same loop as the daemon's, around the same core: commands are decided
// and evolved in memory, their facts collect in the open batch, planning goes into it before it closes, one batch is
// written while the next one collects, and replies and effects leave when their batch is on disk.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "sim/link.h"
#include "sim/random.h"
#include "sim/store.h"
#include "sim/timeline.h"

namespace muster::sim {

struct ControllerOptions {
  sched::Policy policy;
  sched::WorkBudget budget;
  Duration collect_max = Duration::from_us(500);  // how long the open batch waits for more
  Duration write_min = Duration::from_ms(1);
  Duration write_max = Duration::from_ms(8);
  Duration heartbeat_timeout = Duration::from_s(7);
  Duration tick = Duration::from_s(1);
  std::size_t rows_per_snapshot = 40;
};

// What the simulation's checks look at. Called at the moment named; an empty function is skipped.
struct ControllerWatch {
  // Facts are about to be applied one after another; `before` has not seen this one.
  std::function<void(const engine::State& before, const Fact& fact)> on_fact;
  std::function<void(const Facts& facts, const std::vector<JobSummary>& history)> on_commit;
  std::function<void(const engine::State& state)> on_planned;  // nothing more can be started now
  std::function<void(std::string problem)> problem;
};

class Controller {
 public:
  // Called with the decision once it is on disk. A crash before that drops it: the client hears nothing.
  using Reply = std::function<void(const Result<engine::Decision>&)>;

  Controller(Timeline& timeline, Random random, ControllerOptions options, Store& store, std::vector<Link*> links);
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  ControllerWatch watch;

  // Replays the store and begins a new term. `clock_offset`: the wall clock of the machine it runs on now.
  void start(Duration clock_offset);
  void crash();
  [[nodiscard]] bool up() const { return life_ != nullptr; }

  void request(Command command, Reply reply);
  void from_node(std::size_t link, Link::SessionId session, const ToController& message);

  // Only while up.
  [[nodiscard]] const engine::State& state() const { return life_->state; }
  [[nodiscard]] Instant wall_clock() const;  // the time that decisions are made with
  [[nodiscard]] bool idle() const;           // nothing waits for the disk
  // Counts changes of the state, over all lives.
  [[nodiscard]] std::uint64_t version() const { return version_; }
  void slow_disk(Duration until_from_now);

 private:
  struct Batch {
    Facts facts;
    Effects effects;
    std::vector<std::function<void()>> replies;
    [[nodiscard]] bool empty() const { return facts.empty() && effects.empty() && replies.empty(); }
  };
  // What a crash loses.
  struct Life {
    engine::State state;
    engine::State shadow;  // replays the closed batches as they were encoded
    Batch open;
    bool collecting = false;    // the open batch will be closed
    bool more_to_plan = false;  // the last slice used up its budget
    std::optional<Batch> writing;
    std::string writing_row;
    std::map<NodeIndex, std::size_t> link_of_node;
    std::vector<Link::SessionId> session_of_link;  // of the last registration; 0: none
    std::vector<std::optional<NodeIndex>> node_of_link;
    std::vector<Instant> heard;
  };

  Result<engine::Decision> carry_out(const Command& command);
  std::vector<EndedJob> look_up_ended(const Dependency& dependency) const;
  void plan();
  void open_batch();
  void close_batch();
  void commit();
  void tick();
  void perform(const Effect& effect);
  void send(NodeIndex node, ToNode message);
  void register_node(std::size_t link, Link::SessionId session, const NodeRegistration& registration);
  engine::State replay();
  void problem(std::string text);
  // Runs later unless the controller crashed meanwhile.
  void after(Duration delay, void (Controller::*what)());

  Timeline& timeline_;
  Random random_;
  ControllerOptions options_;
  Store& store_;
  std::vector<Link*> links_;
  std::unique_ptr<Life> life_;
  std::uint64_t life_number_ = 0;
  std::uint64_t version_ = 0;
  Duration clock_offset_;
  Instant slow_until_;
};

}  // namespace muster::sim
