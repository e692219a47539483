// Starting programs without a shell, and finding Muster's own.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::io {

struct SpawnOptions {
  // argv[0] is the program's path; there is no search in PATH.
  std::vector<std::string> argv;
  // "NAME=value"; nothing: the caller's environment.
  std::optional<std::vector<std::string>> env;
  // Empty: the caller's.
  std::string work_dir;
  // (descriptor here, descriptor there). All others are closed there; 0, 1 and 2 not named are /dev/null.
  std::vector<std::pair<int, int>> fds;
  // Leaves the terminal and the caller's process group.
  bool new_session = false;
  // Leaves the caller's process group only.
  bool new_process_group = false;
};

// Starts the program with no signal blocked and every signal's default action; returns when it runs (or with the reason
// why not). The caller reaps it, for example with ChildWatcher.
Result<pid_t> spawn(const SpawnOptions& options);

// Waits for a child and reaps it: its wait status, or nothing when the time is over.
Result<std::optional<int>> wait_child(pid_t pid, Duration timeout);

// True when the process exists and is no zombie.
bool process_alive(pid_t pid);

// "exit code 7", "signal 11 (Segmentation fault)".
std::string describe_wait_status(int wait_status);

// The folder of the running program, where Muster's other programs lie too.
std::string program_dir();
// The path of another program of Muster; kNotFound says where it was looked for.
Result<std::string> find_program(const std::string& name);

}  // namespace muster::io
