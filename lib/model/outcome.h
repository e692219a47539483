// How an attempt ended on one node, and a job as a whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/time.h"
#include "lib/model/health.h"

namespace muster {

// The states of a job; the names are those of cli.md. docs/spec/job-states.md draws the transitions.
enum class JobState : std::uint8_t {
  kPending,
  kStarting,
  kRunning,
  kSuspended,
  kStopping,
  kCompleted,
  kFailed,
  kCancelled,
  kTimeout,
  kOutOfMemory,
  kNodeFailed,
  kPreempted,
  kDeadline,
};
std::string_view to_string(JobState s);
[[nodiscard]] bool is_terminal(JobState s);

// Why processes of an attempt are gone from a node.
enum class EndCause : std::uint8_t {
  kExited,        // by itself, with exit_code
  kSignalled,     // by a signal that Muster did not send
  kCancelled,     // killed because a stop was ordered
  kTimeLimit,     // killed at the time limit
  kOutOfMemory,   // the kernel killed a process of the job for memory
  kLaunchFailed,  // nothing was started; `detail` says why (no interpreter, no working directory, ...)
  kOutputFailed,  // an output file could not be opened or written
  kNodeLost,      // the node restarted (its boot id changed) or forgot the attempt
  kShepherdDied,  // the process that supervised the attempt died; the rest was killed
};
std::string_view to_string(EndCause c);

// What an attempt used on one node, as far as the node can tell. 0: not known, or nothing.
struct Usage {
  Duration cpu;                          // of all its processes
  std::uint64_t memory_peak_bytes = 0;   // with the page cache that was charged to it
  std::uint64_t memory_limit_bytes = 0;  // 0: none was enforced
  std::uint64_t read_bytes = 0;          // from devices
  std::uint64_t written_bytes = 0;
  std::uint64_t oom_kills = 0;  // processes that the kernel killed for memory
  friend bool operator==(const Usage&, const Usage&) = default;
};

struct Outcome {
  EndCause cause = EndCause::kExited;
  std::int32_t exit_code = 0;
  std::int32_t signal = 0;  // 0: none
  std::string detail;       // for people; empty when the cause says it all
  Duration ran;             // on the node, from launch to end
  Instant ended_at = {};    // by the node's clock; unset: not known (the node went down)
  Usage usage = {};
  // What the node itself failed at, and how: kProlog says that nothing of the attempt ran there, kEpilog leaves all of the
  // above as it is.
  NodeFault fault = NodeFault::kNone;
  std::string fault_text = {};
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// Why a stop was ordered.
enum class StopCause : std::uint8_t {
  kNone,
  kCancelled,      // by a user
  kScriptEnded,    // the batch script or the step of a kRun job ended; the other nodes are cleaned
  kNodeFailed,     // another node of the job was lost
  kPreempted = 4,  // a job that ranks higher needs the place
  kRequeued = 5,   // by a user, so that it starts again
  kDeadline = 6,   // its --deadline has come
};
inline constexpr StopCause kStopCauseLast = StopCause::kDeadline;
std::string_view to_string(StopCause c);

}  // namespace muster
