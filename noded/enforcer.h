// Enforcer: the control groups of one attempt on its node: its limits, who is in them, what was used, and what the kernel
// did when a limit was reached. Below each of the node's groups that the launch names it has one, named as the attempt.
//
// Limits are set before anything is started. Tasks of cgroup v1 groups join by themselves before their exec (joins());
// those of the cgroup2 tree are born in it (ProcessTree). Where there is no group for memory, each process is limited
// alone. Part of the shepherd: single-threaded, lib/base only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/model/outcome.h"
#include "noded/shepherd_protocol.h"

namespace muster::noded {

class Enforcer {
 public:
  // Path of the v1 group by which all of the attempt can be frozen; empty: none.
  static std::string freezer_of(const LaunchFrame& launch);

  // `tree`: the attempt's group of the cgroup2 tree; empty: none. failure() says whether all was made.
  Enforcer(const LaunchFrame& launch, std::string tree);
  ~Enforcer();
  Enforcer(const Enforcer&) = delete;
  Enforcer& operator=(const Enforcer&) = delete;

  // Why a limit that was ordered is not in force, so that nothing may be started; empty: all are.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  // Open files, into which a task writes itself.
  [[nodiscard]] const std::vector<int>& joins() const { return joins_; }
  // Whether the attempt's group of the cgroup2 tree limits what is in it.
  [[nodiscard]] bool needs_tree() const;
  // Of each process, where no group limits memory; 0: none.
  [[nodiscard]] std::uint64_t data_bytes_max() const;

  // Of all processes so far; those that the caller has reaped where no group counts.
  [[nodiscard]] Usage usage() const;
  // Processes that the kernel has killed for memory so far.
  [[nodiscard]] std::uint64_t oom_kills() const;
  // Which processes they were and which limit it was, for people.
  [[nodiscard]] std::string explain_oom(const Usage& usage) const;
  // How often it was refused a process at its limit.
  [[nodiscard]] std::uint64_t forks_refused() const;
  // Which limit of processes it ran into, for people; empty: none.
  [[nodiscard]] std::string explain_processes() const;

  // When nothing is left. False: the kernel still holds a group; try again.
  bool remove();

 private:
  struct Group {
    ControlKind kind;
    bool v2;
    std::string path;    // the attempt's
    bool works = false;  // it was made as it was to be
  };

  [[nodiscard]] bool limits_something(ControlKind kind) const;
  std::string make(const Control& control, const LaunchFrame& launch);
  [[nodiscard]] std::string set_limits(const Group& group, const LaunchFrame& launch) const;
  [[nodiscard]] const Group* group(ControlKind kind) const;
  [[nodiscard]] std::string killed_names() const;
  [[nodiscard]] bool limit_was_reached(const Usage& usage) const;

  std::string tree_;
  Limits limits_;
  std::int64_t since_us_ = 0;  // CLOCK_MONOTONIC
  Usage before_;               // of a prolog
  std::vector<Group> groups_;
  std::vector<int> joins_;
  std::string failure_;
};

}  // namespace muster::noded
