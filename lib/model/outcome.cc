#include "lib/model/outcome.h"

#include "lib/base/check.h"

namespace muster {

std::string_view to_string(JobState s) {
  switch (s) {
    case JobState::kPending:
      return "pending";
    case JobState::kStarting:
      return "starting";
    case JobState::kRunning:
      return "running";
    case JobState::kSuspended:
      return "suspended";
    case JobState::kStopping:
      return "stopping";
    case JobState::kCompleted:
      return "completed";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
    case JobState::kTimeout:
      return "timeout";
    case JobState::kOutOfMemory:
      return "out_of_memory";
    case JobState::kNodeFailed:
      return "node_failed";
    case JobState::kPreempted:
      return "preempted";
    case JobState::kDeadline:
      return "deadline";
  }
  MUSTER_CHECK(false && "a JobState out of range");
}

bool is_terminal(JobState s) {
  switch (s) {
    case JobState::kPending:
    case JobState::kStarting:
    case JobState::kRunning:
    case JobState::kSuspended:
    case JobState::kStopping:
      return false;
    case JobState::kCompleted:
    case JobState::kFailed:
    case JobState::kCancelled:
    case JobState::kTimeout:
    case JobState::kOutOfMemory:
    case JobState::kNodeFailed:
    case JobState::kPreempted:
    case JobState::kDeadline:
      return true;
  }
  MUSTER_CHECK(false && "a JobState out of range");
}

std::string_view to_string(EndCause c) {
  switch (c) {
    case EndCause::kExited:
      return "exited";
    case EndCause::kSignalled:
      return "signalled";
    case EndCause::kCancelled:
      return "cancelled";
    case EndCause::kTimeLimit:
      return "time limit";
    case EndCause::kOutOfMemory:
      return "out of memory";
    case EndCause::kLaunchFailed:
      return "launch failed";
    case EndCause::kOutputFailed:
      return "output failed";
    case EndCause::kNodeLost:
      return "node lost";
    case EndCause::kShepherdDied:
      return "shepherd died";
  }
  MUSTER_CHECK(false && "an EndCause out of range");
}

std::string_view to_string(StopCause c) {
  switch (c) {
    case StopCause::kNone:
      return "none";
    case StopCause::kCancelled:
      return "cancelled";
    case StopCause::kScriptEnded:
      return "script ended";
    case StopCause::kNodeFailed:
      return "node failed";
    case StopCause::kPreempted:
      return "preempted";
    case StopCause::kRequeued:
      return "requeued";
    case StopCause::kDeadline:
      return "deadline";
  }
  MUSTER_CHECK(false && "a StopCause out of range");
}

}  // namespace muster
