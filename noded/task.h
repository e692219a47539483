// Starting one task (the batch script, or a task of a step) as the job's user. Part of the shepherd.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/model/outcome.h"

namespace muster::noded {

// A standard stream of a task: a file opened as the user, or a descriptor that the shepherd made.
struct TaskStream {
  int fd = -1;       // used when the path is empty; -1 with an empty path: /dev/null
  std::string path;  // absolute
};

struct TaskSpec {
  std::vector<std::string> argv;  // of a script: argv[0] is its path
  std::vector<std::string> environment;
  std::string work_dir;
  TaskStream in;
  TaskStream out;
  TaskStream err;
  bool err_with_out = false;
  bool append = false;
  bool search_path = false;  // look argv[0] up in the task's PATH
  mode_t umask = 022;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;
  std::vector<std::uint64_t> cpus;  // words of an index set of hardware threads; empty: as the shepherd
  bool tells_place = false;         // where the kernel has it is read back and told (StartNews)
  int cgroup_fd = -1;               // -1: none
  bool needs_cgroup = false;        // it limits the task, which must not run outside
  std::string cgroup;               // the directory of cgroup_fd's attempt
  // Open files of cgroup v1 groups: the task writes itself into each, which waits for nothing.
  std::vector<int> joins;
  std::vector<std::uint64_t> memory_nodes;  // words of an index set of NUMA nodes to prefer; empty: as the kernel likes
  int mount_namespace = -1;                 // to enter; -1: none
  int ipc_namespace = -1;
  std::uint64_t data_bytes_max = 0;  // of each process (RLIMIT_DATA); 0: no limit
};

struct StartedTask {
  pid_t pid = 0;
  int status_fd = -1;  // readable when read_start_news() has something to say
};

// Does not wait for the exec.
Result<StartedTask> start_task(const TaskSpec& spec);

// Where the kernel has a task when it was bound, before its program begins.
struct TaskPlace {
  std::vector<std::uint64_t> cpus;  // words of an index set: its affinity
  std::vector<std::uint64_t>
      memory;  // the same: the NUMA nodes that it may have memory of; empty: the kernel does not say
  // The kernel's number of its memory policy (linux/mempolicy.h) without flags; -1: the kernel does not say.
  std::int32_t memory_policy = -1;
  enum class Group : std::uint8_t { kNone, kInside, kOutside };
  Group group = Group::kNone;  // of the attempt's cgroup; kNone: it has none
};

// What comes from a task's status_fd, one after the other; the last is kRuns or kFailed.
struct StartNews {
  enum class What : std::uint8_t {
    kBound,   // it was bound and is now at `place`, as the kernel says
    kRuns,    // its program does
    kFailed,  // `outcome` is kLaunchFailed or kOutputFailed, with exit_code 2 for a missing program and 126 otherwise
  };
  What what = What::kRuns;
  TaskPlace place;
  Outcome outcome;
};
StartNews read_start_news(int status_fd, const TaskSpec& spec);

}  // namespace muster::noded
