// HealthMonitor: the daemon's side of the node's health: has the checks run (noded/health_runner.h) at the start, at an
// interval and when asked to, judges the node's clock, and says when something has changed. Loop thread only.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/time.h"
#include "lib/io/files.h"
#include "lib/io/loop.h"
#include "lib/model/health.h"
#include "noded/health_checks.h"
#include "noded/health_runner.h"

namespace muster::noded {

struct HealthMonitorOptions {
  io::Loop* loop = nullptr;
  std::string program;  // of this daemon: it runs the checks
  HealthChecks checks;
  Duration interval;
  Duration clock_max;               // 0: the clock is not looked at
  std::function<void()> on_change;  // the problems are others now, or were asked for
};

class HealthMonitor {
 public:
  explicit HealthMonitor(HealthMonitorOptions options);
  ~HealthMonitor();
  HealthMonitor(const HealthMonitor&) = delete;
  HealthMonitor& operator=(const HealthMonitor&) = delete;

  // Begins to check. `on_first` is called once: when the first check has ended, or after kFirstPatience. Until it has
  // ended that is a problem of its own, so that nothing starts on a node of which nothing is known.
  void start(std::function<void()> on_first);
  // Checks as soon as a check that is under way has ended; on_change follows in any case.
  void check_now();
  // Checks soon, because something went wrong here; says so only when something has changed.
  void look_again();
  // `ahead`: how far this node's clock is ahead of the controller's, right to half of the round trip.
  void on_clock(Duration ahead, Duration round_trip);
  [[nodiscard]] std::vector<HealthProblem> problems() const;

  static constexpr Duration kFirstPatience = Duration::from_s(5);

 private:
  void begin();
  void on_output(unsigned events);
  void ended();
  void give_up();
  void found(std::vector<HealthProblem> problems);
  void first_done();
  void say_if_changed(const std::vector<HealthProblem>& before);

  HealthMonitorOptions options_;
  io::Timer interval_;
  io::Timer deadline_;
  io::Timer patience_;
  std::function<void()> on_first_;
  std::vector<HealthProblem> found_;
  std::optional<HealthProblem> clock_;
  bool first_ = true;    // no check has ended yet
  bool again_ = false;   // one is wanted when this one has ended
  bool asked_ = false;   // whoever wanted the check that runs waits for an answer
  bool judged_ = false;  // what the check that runs found is known
  pid_t pid_ = 0;        // 0: none runs
  io::Fd output_;
  std::optional<io::FdWatcher> watcher_;
  HealthReader reader_;
};

// Whether users need not hear of the difference: the same checks fail, with other numbers.
bool same_problems(const std::vector<HealthProblem>& a, const std::vector<HealthProblem>& b);

}  // namespace muster::noded
