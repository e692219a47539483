// What muster-noded and muster-shepherd say to each other: frames on a Unix stream socket.
//
// A frame is a 32-bit length (of what follows it), one byte for the type, and the fields in the order of the structs
// below: integers little-endian in their own width, byte strings and lists with a 32-bit count in front. There is no
// versioning by field: the LaunchFrame carries kProtocolVersion, and a shepherd keeps the protocol it was started
// with; StateFrame tells a newer noded which one that is. Only lib/base and plain values of lib/model are used here,
// because the shepherd stays small.
//
// One shepherd serves one (job, attempt). The first connection is a socket pair that noded passes at the spawn; a
// restarted noded connects to the socket that the shepherd's record names and sends AttachFrame first.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lib/base/result.h"
#include "lib/model/outcome.h"
#include "lib/model/proof.h"

namespace muster::noded {

// 2: LimitFrame, SuspendFrame, NoticeFrame, and the warning of LaunchFrame. An unknown frame would end the connection.
// 3: StandStillFrame, StoodStillFrame. 4: StepTaskBoundFrame. 5: the controls of LaunchFrame; an outcome may end with its
// usage. 8: StepProgramsFrame. 9: prolog and epilog; an outcome may end with what the node failed at.
inline constexpr std::uint32_t kProtocolVersion = 9;
// The first ones that know these.
inline constexpr std::uint32_t kOrdersProtocolVersion = 2;
inline constexpr std::uint32_t kStandStillProtocolVersion = 3;
inline constexpr std::uint32_t kBoundProtocolVersion = 4;
inline constexpr std::uint32_t kProgramsProtocolVersion = 8;
inline constexpr std::uint32_t kHooksProtocolVersion = 9;

// Names inside an attempt's directory, spool_dir/attempts/<job>.<attempt>/.
inline constexpr const char* kLaunchRecordName = "launch";      // pb::Launch, made with O_EXCL by noded
inline constexpr const char* kShepherdRecordName = "shepherd";  // ShepherdRecord, made with O_EXCL by the shepherd
inline constexpr const char* kSpareName = ".spare";             // an ended attempt's ShepherdRecord, to be written over
inline constexpr const char* kOutcomeName = "outcome";          // encode_outcome(), of ends that noded itself decided
inline constexpr const char* kPrologPrefix = ".prolog.";        // and the shepherd's pid: there while its prolog runs
inline constexpr const char* kTicketName = "ticket";            // of the user, mode 0400

// Descriptor number on which a fresh shepherd finds its socket pair.
inline constexpr int kShepherdFd = 3;

// A step's start with arguments and environments of many tasks must fit: 2 MiB of common environment, as much for
// arguments, and some hundred bytes for each of at most kStepTasksMax tasks.
inline constexpr std::size_t kFrameBytesMax = 32U << 20U;
// Tasks of one step on one node. A node has at most some hundred hardware threads; more is a mistake.
inline constexpr std::uint32_t kStepTasksMax = 4096;
// Output is cut into pieces of at most this size, so that a control frame never waits long behind one.
inline constexpr std::size_t kOutputChunkBytes = 64U << 10U;
// Output bytes of a step that the shepherd may send before the first StepCreditFrame, unless its start says another
// number. What was sent and not yet credited is kept, so that a restarted noded can have it again (StepResumeFrame).
inline constexpr std::uint64_t kInitialCreditBytes = 256U << 10U;
// Input that waits in the shepherd for one task; more is a sender that ignores StepInputTakenFrame, and is dropped.
inline constexpr std::size_t kInputWaitingBytesMax = 16U << 20U;
// Each output frame takes this much credit beside its data's size, so that a task that writes single bytes cannot fill
// memory with frames.
inline constexpr std::uint64_t kOutputFrameCost = 64;
// Input bytes of a step that noded may send before the first StepInputTakenFrame.
inline constexpr std::uint64_t kInputWindowBytes = 256U << 10U;
// A rank that means every task of the step on this node.
inline constexpr std::uint32_t kAllRanks = UINT32_MAX;

// ---------------------------------------------------------------- noded -> shepherd

// What limits or counts what an attempt uses.
enum class ControlKind : std::uint8_t { kCpus, kMemory, kProcesses, kDevices, kFreezer, kCpuTime, kIo, kCpuShare };
inline constexpr ControlKind kControlKindLast = ControlKind::kCpuShare;

// One function and the group by which this node performs it. What has no group is not in the list.
struct Control {
  ControlKind kind = ControlKind::kMemory;
  bool v2 = false;    // the group is `cgroup_parent`, and the attempt's files are in its group there
  std::string group;  // the node's own; below it the shepherd makes "<name>"
  friend bool operator==(const Control&, const Control&) = default;
};

// A character device.
struct DeviceNumber {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  friend bool operator==(const DeviceNumber&, const DeviceNumber&) = default;
};

// What an attempt may use. Enforced by its controls; without one for memory, by an rlimit of each process.
struct Limits {
  std::uint64_t memory_bytes = 0;  // 0: none
  std::uint64_t processes = 0;     // and threads; 0: no limit
  bool cpus = false;               // to LaunchFrame::cpus, whatever a process does to its affinity
  std::vector<DeviceNumber> denied_devices;
  std::vector<std::uint64_t> memory_nodes;  // words of an IndexSet of NUMA nodes to prefer; empty: as the kernel likes
  friend bool operator==(const Limits&, const Limits&) = default;
};

struct LaunchFrame {
  std::uint32_t version = kProtocolVersion;
  std::string name;       // "42.1", for messages
  std::string directory;  // of the attempt, absolute
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;  // supplementary groups, as the user database has them
  // A directory of a cgroup2 tree below which the shepherd makes "<name>"; empty: no cgroup, descendants are found by
  // the process tree.
  std::string cgroup_parent;
  std::vector<std::uint64_t> cpus;  // words of an IndexSet of hardware threads; empty: not bound
  std::int64_t time_limit_us = 0;   // 0: none
  std::int64_t kill_grace_us = 0;
  bool has_script = false;  // else nothing runs until a step or the end comes
  std::string script;       // path of the script file
  std::vector<std::string> args;
  std::vector<std::string> environment;  // NAME=value
  std::string work_dir;
  std::string stdin_path;  // absolute; empty: /dev/null
  std::string stdout_path;
  std::string stderr_path;  // empty: with stdout
  bool append = false;
  std::uint32_t umask = 022;
  // --signal: this signal so long before the time limit; 0: none. To the script alone, or to the tasks of the steps.
  std::int32_t warn_signal = 0;
  std::int64_t warn_before_us = 0;
  bool warn_batch_only = false;
  std::vector<Control> controls;
  Limits limits;
  bool isolate = false;  // in namespaces of its own (noded/job_namespace.h)
  // Programs that run as the shepherd's own user before the first process of the attempt and after the last one (empty:
  // none), with this environment.
  std::string prolog;
  std::int64_t prolog_timeout_us = 0;
  std::string epilog;
  std::int64_t epilog_timeout_us = 0;
  std::vector<std::string> hook_environment;
  friend bool operator==(const LaunchFrame&, const LaunchFrame&) = default;
};

// signal 0: TERM to all, KILL after the grace, and the attempt ends as kCancelled. Otherwise only that signal: KILL,
// STOP and CONT to every process, others to the script and the steps' tasks.
struct StopFrame {
  std::int32_t signal = 0;
  std::int64_t grace_us = 0;
  friend bool operator==(const StopFrame&, const StopFrame&) = default;
};

// A stop that is announced: `signal` now (0: none), as StopFrame sends it, and the stop after notice_us.
struct NoticeFrame {
  std::int32_t signal = 0;
  std::int64_t notice_us = 0;
  std::int64_t grace_us = 0;
  friend bool operator==(const NoticeFrame&, const NoticeFrame&) = default;
};

// All processes stand still and so does the time limit; or they go on. Done again it changes nothing.
struct SuspendFrame {
  bool suspend = false;
  friend bool operator==(const SuspendFrame&, const SuspendFrame&) = default;
};

// As SuspendFrame, but other jobs get the CPUs: answered by StoodStillFrame with this number, also when it stood still
// before. Until SuspendFrame lets it go on nothing of it runs: what ends it meanwhile kills it at once.
struct StandStillFrame {
  std::uint64_t number = 0;
  friend bool operator==(const StandStillFrame&, const StandStillFrame&) = default;
};

// The work of an attempt without a script is over: end what is left, record this outcome (`ran` is filled in).
struct FinishFrame {
  Outcome outcome;
  friend bool operator==(const FinishFrame&, const FinishFrame&) = default;
};

// One task of a step on this node.
struct StepTask {
  std::uint32_t rank = 0;
  std::vector<std::string> environment;  // NAME=value, in place of the common value of the same name
  std::vector<std::uint64_t> cpus;       // words of an IndexSet; empty: those of the attempt
  friend bool operator==(const StepTask&, const StepTask&) = default;
};

enum class StdinMode : std::uint8_t {
  kNone,  // /dev/null for all
  kRank,  // a pipe for stdin_rank, /dev/null for the others
  kAll,   // a pipe for each task
};

struct StepStartFrame {
  std::uint32_t step = 0;
  std::vector<std::string> argv;         // argv[0] is looked up in the task's PATH when it has no '/'
  std::vector<std::string> environment;  // NAME=value, for all tasks
  std::string work_dir;
  std::uint32_t umask = 022;
  StdinMode stdin_mode = StdinMode::kNone;
  std::uint32_t stdin_rank = 0;
  std::string stdin_path;   // not empty: this file is the input of the tasks that stdin_mode names
  std::string stdout_path;  // not empty: tasks write there ("%t" is the rank); otherwise output comes back in frames
  std::string stderr_path;
  bool append = false;
  std::uint64_t credit_bytes = kInitialCreditBytes;
  std::vector<StepTask> tasks;
  friend bool operator==(const StepStartFrame&, const StepStartFrame&) = default;
};

// Before the StepStartFrame of a step whose tasks do not all run its argv.
struct StepProgramsFrame {
  struct Program {
    std::uint32_t rank = 0;
    std::vector<std::string> argv;
    friend bool operator==(const Program&, const Program&) = default;
  };
  std::uint32_t step = 0;
  std::vector<Program> programs;
  friend bool operator==(const StepProgramsFrame&, const StepProgramsFrame&) = default;
};

struct StepInputFrame {
  std::uint32_t step = 0;
  std::uint32_t rank = 0;  // or kAllRanks
  std::string data;
  bool eof = false;
  friend bool operator==(const StepInputFrame&, const StepInputFrame&) = default;
};

// To the tasks of the step; KILL, STOP and CONT to all their descendants too. signal 0 ends the step: TERM, the grace,
// KILL.
struct StepSignalFrame {
  std::uint32_t step = 0;
  std::uint32_t rank = kAllRanks;
  std::int32_t signal = 0;
  friend bool operator==(const StepSignalFrame&, const StepSignalFrame&) = default;
};

// The reader has taken output frames that cost this much credit, oldest first; the step may send as much more.
struct StepCreditFrame {
  std::uint32_t step = 0;
  std::uint64_t bytes = 0;
  friend bool operator==(const StepCreditFrame&, const StepCreditFrame&) = default;
};

// What the reader of a step has received of one stream of one task.
struct StepReceived {
  std::uint32_t rank = 0;
  std::uint32_t stream = 1;
  std::uint64_t bytes = 0;
  friend bool operator==(const StepReceived&, const StepReceived&) = default;
};

// A restarted noded takes a step up again: `received` is what its reader has (streams not named: nothing). The shepherd
// counts that as credited, sends again what it had sent beyond it, then the StepTaskEndedFrame of every ended task, and
// the StepEndedFrame if the step is over. Until this frame comes an attached shepherd sends nothing of its steps.
struct StepResumeFrame {
  std::uint32_t step = 0;
  std::vector<StepReceived> received;
  friend bool operator==(const StepResumeFrame&, const StepResumeFrame&) = default;
};

// The step's end was taken: its records (kept for StepResumeFrame) may go. Ends the step first if it is not over.
struct StepForgetFrame {
  std::uint32_t step = 0;
  friend bool operator==(const StepForgetFrame&, const StepForgetFrame&) = default;
};

// First frame of a restarted noded. Answered by StateFrame, then by every frame that waited.
struct AttachFrame {
  std::uint32_t version = kProtocolVersion;
  friend bool operator==(const AttachFrame&, const AttachFrame&) = default;
};

// The time limit from now on, counted from the shepherd's start; 0: none.
struct LimitFrame {
  std::int64_t time_limit_us = 0;
  friend bool operator==(const LimitFrame&, const LimitFrame&) = default;
};

// ---------------------------------------------------------------- shepherd -> noded

// The script runs, or the attempt is ready for steps.
struct StartedFrame {
  std::uint32_t pid = 0;  // of the script; 0: none
  friend bool operator==(const StartedFrame&, const StartedFrame&) = default;
};

// Nothing of the attempt is left on the node; the outcome is on disk. The shepherd exits after it.
struct EndedFrame {
  Outcome outcome;
  friend bool operator==(const EndedFrame&, const EndedFrame&) = default;
};

struct StateFrame {
  std::uint32_t version = kProtocolVersion;
  bool started = false;
  bool stopping = false;
  std::vector<std::uint32_t> steps;  // with records: running, or over and not forgotten
  friend bool operator==(const StateFrame&, const StateFrame&) = default;
};

// Every process stands still, as this StandStillFrame asked. An attempt that ends gives no such answer.
struct StoodStillFrame {
  std::uint64_t number = 0;
  friend bool operator==(const StoodStillFrame&, const StoodStillFrame&) = default;
};

struct StepOutputFrame {
  std::uint32_t step = 0;
  std::uint32_t rank = 0;
  std::uint32_t stream = 1;  // 1 standard output, 2 standard error
  std::string data;
  bool eof = false;
  std::uint64_t offset = 0;  // bytes of this stream before `data`
  friend bool operator==(const StepOutputFrame&, const StepOutputFrame&) = default;
};

// After the task's output has come to its end (or the step was killed). An exec that failed is kLaunchFailed with
// exit_code 2 (no such file) or 126 and the reason in `detail`.
struct StepTaskEndedFrame {
  std::uint32_t step = 0;
  std::uint32_t rank = 0;
  Outcome outcome;
  friend bool operator==(const StepTaskEndedFrame&, const StepTaskEndedFrame&) = default;
};

// No process of the step is left on this node; the last frame about it.
struct StepEndedFrame {
  std::uint32_t step = 0;
  friend bool operator==(const StepEndedFrame&, const StepEndedFrame&) = default;
};

// Of the input for this task, so many more bytes have gone into its pipe (or were dropped because it closed it): a
// sender that keeps at most some hundred KiB unconfirmed needs no other flow control.
struct StepInputTakenFrame {
  std::uint32_t step = 0;
  std::uint32_t rank = 0;
  std::uint64_t bytes = 0;
  bool closed = false;  // the task reads no more
  friend bool operator==(const StepInputTakenFrame&, const StepInputTakenFrame&) = default;
};

// Where the kernel had the task when it had been bound, before its program began. Not sent again after a resume. The batch
// script is rank 0 of step kScriptStep.
struct StepTaskBoundFrame {
  std::uint32_t step = 0;
  std::uint32_t rank = 0;
  std::vector<std::uint64_t> cpus;    // words of an IndexSet of hardware threads
  std::vector<std::uint64_t> memory;  // the same of the NUMA nodes that it may have memory of; empty: not known
  std::int32_t memory_policy = -1;    // the kernel's number, without flags; -1: not known
  std::uint8_t group = 0;             // of the attempt's cgroup; 0: there is none, 1: it is inside, 2: it is not
  friend bool operator==(const StepTaskBoundFrame&, const StepTaskBoundFrame&) = default;
};

using Frame =
    std::variant<LaunchFrame, StopFrame, FinishFrame, StepStartFrame, StepInputFrame, StepSignalFrame, StepCreditFrame,
                 AttachFrame, StartedFrame, EndedFrame, StateFrame, StepOutputFrame, StepTaskEndedFrame, StepEndedFrame,
                 StepInputTakenFrame, StepResumeFrame, StepForgetFrame, LimitFrame, SuspendFrame, NoticeFrame,
                 StandStillFrame, StoodStillFrame, StepTaskBoundFrame, StepProgramsFrame>;

// The bytes of a frame, its length included.
std::string encode_frame(const Frame& frame);

// Cuts a stream into frames.
class FrameReader {
 public:
  void append(std::string_view bytes);
  // True and `out` set: a frame. False: more bytes are needed. kCorrupt: the stream is damaged; close it.
  Result<bool> next(Frame& out);

 private:
  std::string buffer_;
  std::size_t begin_ = 0;
};

inline constexpr std::string_view kNoSocket = "-";

// The file kShepherdRecordName. It appears whole, under its name by a rename that replaces nothing; an empty one is
// noded's, which has withdrawn the attempt before any shepherd began it. The shepherd appends the outcome before it
// reports it. One file for both, and a socket without a file: file systems are slow at making and removing files, and
// each attempt would do it some times more.
struct ShepherdRecord {
  std::int32_t pid = 0;
  std::string start_time;  // field 22 of /proc/PID/stat; with the pid it names a process for ever
  std::string socket;      // abstract Unix socket, random so that nobody can take it first; kNoSocket: none
  std::string cgroup;      // empty: none
  std::optional<Outcome> outcome;
  friend bool operator==(const ShepherdRecord&, const ShepherdRecord&) = default;
};
// Without the outcome.
std::string encode_shepherd_record(const ShepherdRecord& record);
// A damaged outcome is none: it was being written when the shepherd died.
Result<ShepherdRecord> decode_shepherd_record(std::string_view bytes);

// The file kOutcomeName.
std::string encode_outcome(const Outcome& outcome);
Result<Outcome> decode_outcome(std::string_view bytes);

}  // namespace muster::noded
