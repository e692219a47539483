// ProcessTree: all processes of one attempt, also those that called setsid and forked twice, and how to end them.
//
// Two ways, chosen once. With a cgroup2 directory: every task starts inside it (clone3), and cgroup.kill ends it whole.
// Without one: the shepherd is the subreaper, so what a process leaves behind becomes the shepherd's child and stays
// among its descendants in /proc. That nothing is left is known in both cases from waitpid: ECHILD.
// Part of the shepherd: single-threaded, lib/base only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace muster::noded {

class ProcessTree {
 public:
  // Steps are numbered from 0; this is the batch script.
  static constexpr std::uint32_t kNoStep = UINT32_MAX;

  // Empty path: no cgroup. Otherwise the directory is made (its parent too, if it is missing); when that fails the
  // tree works without, and `cgroup()` is empty.
  // `freezer`: the attempt's group of cgroup v1 by which it is frozen where the cgroup2 one cannot; empty: none. It belongs
  // to the Enforcer.
  explicit ProcessTree(const std::string& cgroup, std::string freezer = {});
  ~ProcessTree();
  ProcessTree(const ProcessTree&) = delete;
  ProcessTree& operator=(const ProcessTree&) = delete;

  [[nodiscard]] const std::string& cgroup() const { return cgroup_; }

  // A directory descriptor for clone3's CLONE_INTO_CGROUP; -1: none. The caller closes it.
  int open_group(std::uint32_t step);

  // A signal to every process of the attempt, or of one step. `tasks` are those of the step that the caller started and
  // has not reaped: without a cgroup a process is known by its environment, which a task has only after its exec.
  void signal_all(int signal) const;
  void signal_step(std::uint32_t step, const std::vector<pid_t>& tasks, int signal) const;
  // Every process stands still, also those that it forks meanwhile, or goes on. What a program stopped itself goes on as
  // well where there is no cgroup.
  void freeze() const;
  void thaw() const;
  // SIGKILL to every process, in a way that a process which forks meanwhile does not escape for long: repeat until
  // nothing is left.
  void kill_all() const;
  void kill_step(std::uint32_t step, const std::vector<pid_t>& tasks) const;
  // Whether any process of the step is left; removes its group when not.
  bool step_is_empty(std::uint32_t step) const;
  // When nothing is left. False: the kernel still holds it; try again.
  bool remove();

 private:
  [[nodiscard]] std::string group_of(std::uint32_t step) const;
  [[nodiscard]] std::vector<pid_t> processes(bool one_step, std::uint32_t step) const;
  std::string cgroup_;
  std::string freezer_;
};

// Descendants of `root` from /proc, parents before children.
std::vector<pid_t> descendants_of(pid_t root);

}  // namespace muster::noded
