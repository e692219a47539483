// AllocationCommand: the command of `muster alloc` on the user's machine, a process group of its own that has the
// terminal while it runs, as a shell gives it to its jobs.
//
// It is ended with us, however that comes about: by a signal when we are killed. One thread.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.h"

namespace muster::cli {

class AllocationCommand {
 public:
  AllocationCommand() = default;
  AllocationCommand(const AllocationCommand&) = delete;
  AllocationCommand& operator=(const AllocationCommand&) = delete;
  ~AllocationCommand();

  // `mask`: the signals that it has blocked. The error says what cannot be run, and why.
  Status start(const std::vector<std::string>& argv, const std::vector<std::string>& environment,
               const std::string& work_dir, const sigset_t& mask);
  [[nodiscard]] bool running() const { return pid_ > 0; }
  // To the whole group.
  void signal(int number) const;
  // After SIGCHLD: what waitpid(2) says of a command that has ended. One that was stopped from the terminal goes on, because
  // nothing here could take its place there.
  std::optional<int> reap();
  // After SIGCONT: we may have been put into the foreground, and the command was waiting for it.
  void give_terminal() const;

 private:
  void take_terminal() const;

  pid_t pid_ = 0;
};

}  // namespace muster::cli
