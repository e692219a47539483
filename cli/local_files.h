// What `muster local` keeps on disk about a cluster, and the processes it names.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::cli {

// A process that is told apart from a later one with the same number by its start time.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start = 0;  // clock ticks since boot, /proc/PID/stat field 22
  friend bool operator==(const ProcessId&, const ProcessId&) = default;
};
// The process with that number now; pid 0 when there is none or all of its threads have ended (a zombie).
ProcessId identify(pid_t pid);
bool is_running(const ProcessId& process);
// Sends the signal if it is still that process.
void send_signal(const ProcessId& process, int signal);
// True when it ended within the time.
bool wait_until_gone(const ProcessId& process, Duration timeout);

// The record of a local cluster, a small text file.
struct LocalRecord {
  std::string name;
  std::string run_base;   // folder of sockets; inside the cluster's own folder unless that path is long
  bool made_dir = false;  // nothing of anybody else was in the cluster's folder: it goes with the cluster
  std::uint32_t nodes = 0;
  std::vector<std::string> topologies;
  std::vector<std::string> sets;
  ProcessId controller;
  std::vector<ProcessId> inits;  // of n1, n2, ...; pid 0: cut off
  friend bool operator==(const LocalRecord&, const LocalRecord&) = default;
};
std::string format_record(const LocalRecord& record);
Result<LocalRecord> parse_record(std::string_view text, const std::string& file);

// Where the cluster of that name lives by default.
std::string default_local_dir(const std::string& name);
// The folder of the local cluster whose configuration MUSTER_CONFIG names (`config_path`, absolute), also when it has
// been stopped meanwhile: nobody who exported it means another one. Empty: it is the configuration of something else.
std::string local_dir_of_config(const std::string& config_path);
// A short folder for sockets, because a Unix socket's path has at most 107 characters.
std::string choose_run_base(const std::string& dir);
// Whether the folder has this entry and no other.
bool holds_only(const std::string& dir, std::string_view name);
// The last lines of a log, for an error message.
std::string log_tail(const std::string& path);

// The text as one word of a shell's line, quoted where it must be.
std::string shell_word(std::string_view text);

// A topology as given on the command line: a path in it is made absolute, a missing file is refused.
Result<std::string> resolve_topology(const std::string& spec, const std::string& work_dir);
// Whether the topology itself says how much memory the machine has.
bool names_memory(const std::string& topology);

// Removes the control group that a node's daemon named in its spool folder, whose processes have all been ended.
void remove_cgroup_of(const std::string& spool_dir);

// One line to a muster-nodeinit and its answer without "ok "; kUnavailable when it does not run.
Result<std::string> ask_init(const std::string& socket_path, const std::string& request, Duration timeout);

inline constexpr std::string_view kDefaultTopology = "package:2 core:16 pu:1";
inline constexpr std::string_view kDefaultMemory = "64G";
// In a cluster's folder: its configuration, and the record of its processes, without which it is none of ours.
inline constexpr std::string_view kLocalConfigName = "muster.toml";
inline constexpr std::string_view kLocalRecordName = "cluster";
inline constexpr std::uint32_t kLocalNodesMax = 1'000;  // processes of one machine, two and more for a node

}  // namespace muster::cli
