// The one table of options of every command, and its reading by getopt_long.
//
// From a row come: what a command accepts (abbreviations that are unambiguous included), --help, the #MUSTER and
// #SBATCH lines of scripts, the MUSTER_<NAME> variables, the man pages and the completion. How values are used stands
// in job_options.h and in the commands. docs/checklists.md says what to touch when adding one.
//
// Not thread-safe: getopt_long keeps its place in global variables.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/run_options.h"
#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::cli {

// Bits, so that a row can belong to several commands.
enum Command : std::uint32_t {
  kNoCommand = 0,
  kSubmit = 1U << 0,
  kRun = 1U << 1,
  kSrun = 1U << 2,  // the name srun
  kQueue = 1U << 3,
  kShow = 1U << 4,
  kWhy = 1U << 5,
  kNodes = 1U << 6,
  kCancel = 1U << 7,
  kHold = 1U << 8,
  kRelease = 1U << 9,
  kHistory = 1U << 10,
  kDrain = 1U << 11,
  kResume = 1U << 12,
  kLogs = 1U << 13,
  kKeygen = 1U << 14,
  kLocal = 1U << 15,
  kVersion = 1U << 16,
  kHelp = 1U << 17,
  kCompletion = 1U << 18,
  kPing = 1U << 19,
  kSimulate = 1U << 20,
  kAccount = 1U << 24,
  kUser = 1U << 25,
  kQos = 1U << 26,
  kUpdate = 1U << 27,
  kRequeue = 1U << 28,
  kSuspend = 1U << 29,
  kContinue = 1U << 30,
  kReservation = 1U << 21,
  kAlloc = 1U << 22,
};
// Commands that talk to a controller.
inline constexpr std::uint32_t kOnline = kSubmit | kRun | kSrun | kQueue | kShow | kWhy | kNodes | kCancel | kHold |
                                         kRelease | kHistory | kDrain | kResume | kLogs | kPing | kAccount | kUser |
                                         kQos | kUpdate | kRequeue | kSuspend | kContinue | kReservation | kAlloc;
inline constexpr std::uint32_t kJobMakers = kSubmit | kRun | kSrun | kAlloc;
// Options of a job that can be changed later.
inline constexpr std::uint32_t kChangeable = kJobMakers | kUpdate;

enum class OptionId : std::uint8_t {
  // everywhere
  kHelp,
  kConfig,
  kKey,
  kTimeout,
  kJson,
  kVersion,
  kUsage,
  // what a job is
  kJobName,
  kNodes,
  kNtasks,
  kNtasksPerNode,
  kCpusPerTask,
  kMem,
  kMemPerCpu,
  kMemPerGpu,
  kGpus,
  kGpusPerNode,
  kGpusPerTask,
  kGres,
  kTime,
  kQueue,
  kQos,
  kAccount,
  kNice,
  kArray,
  kHold,
  kBegin,
  kNodelist,
  kExclude,
  kExclusive,
  kChdir,
  kOutput,
  kError,
  kInput,
  kOpenMode,
  kExport,
  kRequeue,
  kNoRequeue,
  kComment,
  kMailUser,
  kMailType,
  // of a job, not there yet
  kTimeMin,
  kDependency,
  kDeadline,
  kConstraint,
  kSwitches,
  kSegment,
  kLicenses,
  kSignalBefore,
  kRestartOnNodeLoss,
  kCheckpoint,
  kCheckpointInterval,
  kRecover,
  kSpares,
  kThreadsPerCore,
  kImage,
  kLocality,
  kCpuBind,
  kGpuBind,
  kDistribution,
  kReservation,
  kPriority,
  // of submit
  kWait,
  kWrap,
  kParsable,
  kTestOnly,
  kNoShell,
  // of run and srun
  kLabel,
  kKillOnBadExit,
  kPty,
  kJobId,
  kMpi,
  kUnbuffered,
  kQuiet,
  kVerbose,
  kOverlap,
  kExact,
  kWhole,
  kExternalLauncher,
  kNoKill,
  kImmediate,
  kSlurmWait,
  kDisableStatus,
  kMultiProg,
  kRelative,
  kClusters,
  kOversubscribe,
  kOvercommit,
  // filters and views
  kUser,
  kMe,
  kStates,
  kJobs,
  kWatch,
  kName,
  kSignal,
  kSince,
  kUntil,
  kLimit,
  kReason,
  kFollow,
  kStep,
  kTask,
  kErrFile,
  kNoHeader,
  // keygen, local
  kOut,
  kCount,
  kClusterName,
  kTopology,
  kShowTopology,
  kSet,
  kDir,
  // simulate
  kSwf,
  kPolicy,
  kBackfill,
  kEvents,
  kEstimates,
  kProcs,
  kFilter,
  kMachine,
  kJobsMax,
  kDump,
  kBench,
  kBenchNodes,
  kBenchCores,
  kBenchGpus,
  kBenchPending,
  kBenchShapes,
  // reservation
  kStart,
  kDuration,
  kEvery,
  kReservedNodes,
  kUsers,
  kAccounts,
  kMaintenance,
  kIgnoreJobs,
  // update
  kArrayLimit,
  kReset,
  kCreate,
  kDelete,
  kForce,
};

enum class ArgKind : std::uint8_t { kNone, kRequired, kOptional };

// What a value must look like; checked wherever it was given, also when something overrides it.
enum class ValueKind : std::uint8_t {
  kFlag,
  kText,
  kName,
  kPath,
  kCount,
  kCountOrZero,
  kNodeRange,
  kNodeList,
  kDuration,
  kSeconds,
  kMemory,
  kArray,
  kSignal,
  kSignalBefore,
  kTime,
  kChoice,
  kExport,
  kGpus,
  kGres,
  kNice,
  kStates,
  kJobIds,
  kKeyValue,
  kLicenses,
};

enum OptionFlags : std::uint16_t {
  kPlain = 0,
  kScript = 1U << 0,       // also in #MUSTER and #SBATCH lines and as MUSTER_<NAME>
  kVariable = 1U << 1,     // as MUSTER_<NAME> only
  kLater = 1U << 2,        // known, refused: not supported yet
  kAlias = 1U << 3,        // another name of the row with the same id; not in --help
  kIgnored = 1U << 4,      // accepted and without effect (said in `meaning`)
  kJobVariable = 1U << 5,  // inside a job MUSTER_<NAME> describes that job, so it is no input there
  kRepeats = 1U << 6,      // may be given several times, all count; otherwise the last one does
  kElsewhere = 1U << 7,    // known, refused: `meaning` says what to do instead
  kTakesNone = 1U << 8,    // "none" takes back what a weaker source, or the submission, said
};

struct OptionInfo {
  OptionId id;
  const char* name;  // without --
  char letter;       // 0: none
  ArgKind arg;
  ValueKind kind;
  const char* value_name;  // "" for flags; choices as "a|b" for kChoice
  const char* meaning;     // a phrase for --help
  std::uint32_t commands;
  std::uint16_t flags;
};
std::span<const OptionInfo> option_table();

struct CommandInfo {
  Command command;
  const char* name;
  const char* operands;  // "JOB...", as in the synopsis
  const char* summary;
  const char* more;       // further lines of --help; may be ""
  bool stops_at_operand;  // what follows the first operand belongs to the user's program
};
std::span<const CommandInfo> command_table();
const CommandInfo* find_command(std::string_view name);
const CommandInfo& command_info(Command command);

// One option as given by somebody.
struct Given {
  const OptionInfo* option = nullptr;
  std::optional<std::string> value;
  std::string source;  // how errors name it: "--nodes", "job.sh:3: --nodes", "MUSTER_NODES"
};
struct Parsed {
  std::vector<Given> given;
  std::vector<std::string> operands;

  [[nodiscard]] const Given* last(OptionId id) const;
  [[nodiscard]] bool has(OptionId id) const { return last(id) != nullptr; }
  [[nodiscard]] std::string value(OptionId id, std::string_view otherwise = {}) const;
};

// Reads the words after the command's name. Errors are kInvalidArgument (exit status 2).
Result<Parsed> parse_command_line(Command command, const std::vector<std::string>& words);
// Reads a directive line; `place` is "job.sh:3". Options that scripts may not hold are refused, and so are operands.
Result<std::vector<Given>> parse_directive(const std::vector<std::string>& words, const std::string& place);
// The MUSTER_<NAME> variables that apply to the command; `get` is getenv.
Result<std::vector<Given>> parse_variables(Command command, const std::function<const char*(const char*)>& get);
// "MUSTER_JOB_NAME" of "job-name".
std::string variable_name(const OptionInfo& option);

// Whether it is the "none" of an option that takes it (kTakesNone).
bool takes_back(const Given& given);
// Whether the value is well-formed; the error begins with given.source.
Status check_value(const Given& given);

ConnectOptions connect_options(const Parsed& parsed);

// Values of single kinds, for those who apply them. `what` names the option in errors.
struct NodeRange {
  std::uint32_t min = 0;
  std::uint32_t max = 0;
};
Result<NodeRange> parse_node_range(std::string_view text, std::string_view what);
// "KILL", "SIGKILL", "kill" or "9".
Result<int> parse_signal(std::string_view text, std::string_view what);
// "[B:]SIGNAL[@SECONDS]"
struct SignalBefore {
  int signal = 0;
  Duration before;
  bool batch_only = false;
};
Result<SignalBefore> parse_signal_before(std::string_view text, std::string_view what);
// "HH:MM[:SS]" (today, or tomorrow when that has passed), "YYYY-MM-DD[THH:MM[:SS]]", "now[+DURATION]", "today",
// "tomorrow", "midnight", "noon", "@UNIXSECONDS"; local time.
Result<Instant> parse_time(std::string_view text, std::string_view what, Instant now);
struct ExportList {
  bool all = false;                                         // everything of the environment ...
  std::vector<std::string> names;                           // ... and these of it ...
  std::vector<std::pair<std::string, std::string>> values;  // ... and these, set here
};
Result<ExportList> parse_export(std::string_view text, std::string_view what);
// "4", "TYPE:4" (refused for now)
Result<std::uint32_t> parse_gpus(std::string_view text, std::string_view what);
// "gpu:2", "gpu:TYPE:2"
Result<std::uint32_t> parse_gres(std::string_view text, std::string_view what);

// The largest count that an option accepts: tasks, CPUs, nodes. Far above any cluster; products of two fit 64 bits.
inline constexpr std::uint64_t kCountMax = 100'000'000;

}  // namespace muster::cli
