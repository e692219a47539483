// SimNode: one machine of the cluster: its disk, the shepherds and processes on it, and its muster-noded, which is
// core/agent with the shell's contracts kept. The daemon can crash and come back while shepherds and disk go on; the
// power can go, which ends everything, loses part of what was written last, and changes the boot id.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/agent/agent.h"
#include "sim/link.h"
#include "sim/random.h"
#include "sim/timeline.h"

namespace muster::sim {

struct NodeOptions {
  std::string name;
  NodeHardware hardware;
  std::vector<std::string> features;
  bool says_topology = true;  // a release that does
  Duration heartbeat = Duration::from_s(2);
  Duration silence_max = Duration::from_s(9);  // without an answer for that long it makes a new connection
  Duration grace = Duration::from_ms(300);
  std::uint64_t launch_failure_permille = 30;
  bool has_prolog = false;
  std::uint64_t prolog_failure_permille = 30;
  bool sees_connections = true;  // registers as soon as there is a new connection, else when it is told to
};

struct NodeWatch {
  std::function<void(const LaunchOrder& order)> on_process;             // a process of the attempt begins now
  std::function<void(AttemptKey key, const Outcome& outcome)> on_gone;  // nothing of it is left
  std::function<void(AttemptKey key, bool stands_still)> on_still;      // by order, for other jobs; or goes on
  std::function<void(std::string problem)> problem;
};

class SimNode {
 public:
  // `seed`: how long a job's attempts run and how they end depends on it alone.
  SimNode(Timeline& timeline, Random random, NodeOptions options, Link& link, std::uint64_t seed);
  SimNode(const SimNode&) = delete;
  SimNode& operator=(const SimNode&) = delete;

  NodeWatch watch;

  void boot();       // the machine starts, and its daemon
  void cut_power();  // at any time
  void start_daemon();
  void crash_daemon();
  [[nodiscard]] bool powered() const { return powered_; }
  [[nodiscard]] bool daemon_up() const { return daemon_ != nullptr; }
  void set_hardware(NodeHardware hardware) { options_.hardware = std::move(hardware); }  // seen at the next boot
  [[nodiscard]] const NodeHardware& hardware() const { return options_.hardware; }
  // What its checks find from now on.
  void set_problems(std::vector<HealthProblem> problems);
  // Shepherds die (killed by hand, or for memory); the next look at their attempts finds them gone.
  void kill_a_shepherd();

  void from_controller(const ToNode& message);
  void connected();

  // Nothing runs here and nothing waits to be told. `why` says what is left.
  [[nodiscard]] bool quiet(std::string& why) const;
  [[nodiscard]] std::string check() const;
  [[nodiscard]] std::uint64_t version() const { return version_; }
  // How an attempt ends by itself on its first node, and when.
  static std::pair<Duration, Outcome> fate(std::uint64_t seed, AttemptKey key);

 private:
  struct Record {
    std::shared_ptr<const LaunchOrder> order;  // null: a tombstone
    std::uint64_t boot = 0;                    // the boot it was written in
    bool begun = false;                        // the shepherd's exclusive mark
    std::optional<Outcome> end;
  };
  // A shepherd and what runs under it. Lives on when the daemon crashes.
  struct Shepherd {
    std::shared_ptr<const LaunchOrder> order;
    std::uint64_t number = 0;
    Instant begun_at;
    bool stopping = false;
    std::optional<Instant> suspended_at;
    bool gives_cores = false;  // and other jobs have its cores
    Duration stood_still;      // before that
    // How it ends if nothing else comes, and when.
    Instant end_at;
    Outcome end;
    bool dead = false;  // what ran under it is still there
  };
  struct Daemon {
    agent::AgentState state;
    Instant heard;  // of the controller
  };

  void perform(const agent::AgentEffects& effects);
  void do_effect(const agent::StartAttempt& effect);
  void do_effect(const agent::StopAttempt& effect);
  void do_effect(const agent::SuspendAttempt& effect);
  void do_effect(const agent::RecordEnd& effect);
  void do_effect(const agent::RecordTerm& effect) { term_on_disk_ = effect.term; }
  void do_effect(const agent::SendReport& effect);
  void do_effect(const agent::ForgetAttempt& effect);
  void do_effect(const agent::NoteRefusal&) {}
  void do_effect(const agent::SetLimit& effect);
  void begin(const std::shared_ptr<const LaunchOrder>& order);
  // By its time limit at the latest; other nodes than the first have no end of their own.
  static void end_within(Duration& ran, Outcome& outcome, const LaunchOrder& order, Duration limit);
  void end_later(AttemptKey key, Duration delay, Outcome outcome);
  void resume(Shepherd& shepherd);
  Outcome bury(AttemptKey key);                                 // empties the group of a dead shepherd
  void to_daemon(Duration delay, std::function<void()> event);  // unless it crashes meanwhile
  void recover_records();
  void send_registration();
  void beat();
  void problem(std::string text);

  Timeline& timeline_;
  Random random_;
  std::vector<HealthProblem> problems_;
  NodeOptions options_;
  Link& link_;
  std::uint64_t seed_;
  bool powered_ = false;
  std::uint64_t boots_ = 0;
  std::uint64_t registrations_ = 0;  // of this boot
  std::uint64_t daemons_ = 0;        // guards timers of a crashed daemon
  std::uint64_t shepherd_numbers_ = 0;
  std::uint64_t version_ = 0;
  std::map<AttemptKey, Record> disk_;
  Term term_on_disk_;
  std::map<AttemptKey, Shepherd> shepherds_;
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace muster::sim
