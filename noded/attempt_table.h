// AttemptTable: the shell around core/agent: performs its effects, owns the connections to shepherds, and shows steps
// what they may see (noded/attempts.h). Loop thread only.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/agent/agent.h"
#include "lib/io/files.h"
#include "lib/io/loop.h"
#include "noded/attempts.h"
#include "noded/job_environment.h"
#include "noded/nursery.h"
#include "noded/spool.h"
#include "noded/users.h"

namespace muster::noded {

struct AttemptTableOptions {
  io::Loop* loop = nullptr;
  std::string boot_id;
  std::string shepherd;       // path of the program
  std::string cgroup_parent;  // empty: none
  std::vector<Control> controls;
  bool enforce_memory = false;
  std::uint64_t pids_max = 0;  // 0: none
  bool isolate = false;
  std::vector<std::vector<DeviceNumber>> gpu_devices;
  std::string gpu_device_setting;          // [node] gpu_devices
  std::vector<std::string> group_parents;  // of attempts, also those that an earlier life used
  Duration kill_grace;
  NodeIdentity identity;
  // Programs before the first and after the last process of each attempt; empty: none.
  std::string prolog = {};
  Duration prolog_timeout = {};
  std::string epilog = {};
  Duration epilog_timeout = {};
  std::function<void(const AttemptReport& report)> report;
  // An attempt could not be started, or failed by fault of the node: it may not be well. Not set: nobody cares.
  std::function<void()> trouble = {};
  // How often a living shepherd is tried again whose socket does not answer; tests shorten it.
  Duration reach_interval = Duration::from_ms(100);
};

class AttemptTable : public Attempts {
 public:
  AttemptTable(AttemptTableOptions options, Spool spool);
  ~AttemptTable() override;
  AttemptTable(const AttemptTable&) = delete;
  AttemptTable& operator=(const AttemptTable&) = delete;

  // Takes up what an earlier life left. Call once, before anything else.
  Status recover();

  // ---- for the link to the controller

  // False: the message is of a controller that has been replaced. While the spool has no room for a new term, launches
  // are refused: after a restart this node would obey the older controller too. All else goes on, and stops above all.
  bool hear_term(Term term);
  [[nodiscard]] Term term() const { return state_.highest_term; }
  // Whether a launch of this attempt needs no script and environment, because it starts nothing.
  [[nodiscard]] bool knows(AttemptKey key) const;
  void on_launch(const LaunchData& launch);
  // A launch of which no more than the key can be read: it ends as a failed one.
  void on_launch_refused(AttemptKey key, const std::string& reason);
  void on_stop(const StopOrder& order);
  void on_limit(const LimitOrder& order);
  void on_suspend(const SuspendOrder& order);
  void on_acknowledged(AttemptKey key);
  [[nodiscard]] std::vector<AttemptReport> registered_attempts() const;
  void retry_reports(std::size_t max);

  // ---- Attempts

  [[nodiscard]] Result<AttemptInfo> find(AttemptKey key) const override;
  [[nodiscard]] Result<AttemptInfo> find_job(JobId job) const override;
  Status send(AttemptKey key, const Frame& frame) override;
  void subscribe(AttemptKey key, std::uint32_t step, OnStepFrame callback) override;
  void unsubscribe(AttemptKey key, std::uint32_t step) override;
  Status finish(AttemptKey key, const Outcome& outcome) override;
  void prove(AttemptKey key, const Verdict& verdict, bool more) override;
  void on_running(OnRunning callback) override { running_callbacks_.push_back(std::move(callback)); }
  void on_ended(OnEnded callback) override { ended_callbacks_.push_back(std::move(callback)); }
  [[nodiscard]] const NodeIdentity& identity() const override { return options_.identity; }

 private:
  // One shepherd, from its start to its end.
  struct Shepherd {
    std::string directory;
    std::string ticket;
    std::string ticket_path;
    std::string cgroup;
    UserInfo user;
    std::shared_ptr<const std::vector<std::string>> environment;
    io::Fd socket;
    std::optional<io::FdWatcher> watcher;
    FrameReader reader;
    std::string out;
    std::size_t out_sent = 0;
    bool running = false;                      // StartedFrame or StateFrame came
    bool ended = false;                        // EndedFrame came
    std::uint32_t version = kProtocolVersion;  // of the frames that it knows
    // A shepherd that lives and does not answer: its process is watched, and what it records at its end is the outcome.
    io::Fd process;
    std::optional<io::FdWatcher> process_watcher;
    int attempts_to_reach = 0;
    bool unreachable = false;          // tried often enough to say so
    std::unique_ptr<io::Timer> retry;  // reaching it again
  };

  void perform(const agent::AgentEffects& effects);
  void start(const std::shared_ptr<const LaunchOrder>& order);
  void send_limit(AttemptKey key, Duration limit);
  Status start_shepherd(const LaunchData& launch);
  LaunchFrame launch_frame(const LaunchData& launch, const PreparedAttempt& prepared, const Shepherd& shepherd);
  void take_up(const FoundAttempt& found);
  [[nodiscard]] Limits limits_for(const LaunchOrder& order, const LaunchFrame& frame) const;
  [[nodiscard]] bool kill_rest(AttemptKey key, const std::string& cgroup) const;

  void connect(AttemptKey key, io::Fd socket);
  Status attach(AttemptKey key, const ShepherdRecord& record);
  void write_frame(Shepherd& shepherd, const Frame& frame);
  void write_stop(Shepherd& shepherd, std::int32_t notice_signal, Duration notice);
  void write_suspend(const agent::SuspendAttempt& order);
  void flush(Shepherd& shepherd);
  void on_events(AttemptKey key, unsigned events);
  void on_frame(AttemptKey key, const Frame& frame);
  void on_script_bound(AttemptKey key, const StepTaskBoundFrame& frame);
  void on_step_frame(AttemptKey key, std::uint32_t step, const Frame& frame);
  void on_disconnected(AttemptKey key);
  void reach_again(AttemptKey key);
  void watch_process(AttemptKey key, const ShepherdRecord& record);
  void stop_unreachable(AttemptKey key);
  void bury(AttemptKey key, const std::string& cgroup);
  void ended(AttemptKey key, const Outcome& outcome);
  void note_trouble(const Outcome& outcome);
  void on_ready(AttemptKey key, const std::vector<std::uint32_t>& steps);
  void record_end(AttemptKey key, const Outcome& outcome, bool durable);
  Status record_term();
  AttemptInfo info_of(AttemptKey key, const agent::AgentAttempt& attempt) const;
  void reap();

  AttemptTableOptions options_;
  Nursery nursery_;
  Spool spool_;
  Users users_;
  agent::AgentState state_;
  std::optional<Term> unrecorded_term_;
  bool term_failed_ = false;                   // and the log says so
  std::map<AttemptKey, LaunchData> launches_;  // between on_launch and StartAttempt
  std::map<AttemptKey, Shepherd> shepherds_;
  std::map<std::pair<AttemptKey, std::uint32_t>, OnStepFrame> subscriptions_;
  std::vector<OnRunning> running_callbacks_;
  std::vector<OnEnded> ended_callbacks_;
  std::optional<io::SignalWatcher> children_;
  std::map<AttemptKey, std::unique_ptr<io::Timer>> burials_;
};

}  // namespace muster::noded
