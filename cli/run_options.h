// RunOptions: what `muster run` (and the srun name) was asked to do, as a value. The option table fills it; run_step
// (cli/run.cc) carries it out. Likewise LogsOptions and show_logs (cli/logs.cc).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/multi_prog.h"
#include "lib/base/time.h"
#include "lib/model/job_spec.h"
#include "lib/model/step_sharing.h"

namespace muster::cli {

// How a command finds its controller; common to all commands that talk to one.
struct ConnectOptions {
  std::string config_path;  // --config; empty: MUSTER_CONFIG, then the default path
  std::string key_path;     // --key; empty: MUSTER_KEY, then the configuration
  // --timeout: how long to try before exit status 3; nothing: controller.client_timeout of the configuration.
  std::optional<Duration> timeout;
};

enum class InputMode : std::uint8_t {
  kOneRank,  // the caller's standard input goes to one rank, by default 0 (with a path: the file does)
  kAll,      // to every rank (--input all)
  kNone,     // nobody: /dev/null (--input none)
};

struct RunOptions {
  ConnectOptions connect;
  std::vector<std::string> argv;         // the command, byte for byte; never empty
  std::vector<RankProgram> programs;     // --multi-prog, in place of argv, which is then the first of them
  std::vector<std::string> environment;  // NAME=value, after --export was applied
  std::string export_mode;               // "ALL", "NONE" or the list, as given
  std::string work_dir;                  // absolute; where each task starts
  std::uint32_t umask = 022;
  std::string name;  // of the step: --job-name, or the command's base name

  // Size of the step; 0: not asked (inside a job: what the job has).
  std::uint32_t nodes = 0;      // MIN of --nodes
  std::uint32_t nodes_max = 0;  // MAX of --nodes; equals `nodes` when one number was given
  std::uint32_t ntasks = 0;
  std::uint32_t ntasks_per_node = 0;
  std::uint32_t cpus_per_task = 0;
  std::uint32_t threads_per_core = 0;
  StepSharing sharing = StepSharing::kWhole;  // --exact, --exclusive, --overlap of a step
  std::uint32_t gpus = 0;                     // in total; of steps with --exact or --exclusive
  std::uint32_t gpus_per_node = 0;
  std::uint32_t gpus_per_task = 0;
  std::uint32_t relative = 0;
  std::string cpu_bind;  // as given; empty: as the job says; so the following
  std::string gpu_bind;
  std::string distribution;
  std::vector<std::string> nodelist;
  std::vector<std::string> exclude;

  InputMode input = InputMode::kOneRank;
  std::string input_path;   // a file in place of the caller's standard input; empty: none
  std::string output_path;  // patterns of cli.md (%j %t %n %N ...); empty: the caller's standard output
  std::string error_path;   // empty: the caller's standard error, or with output_path
  bool append = false;      // --open-mode=append for the two
  bool label = false;
  bool unbuffered = false;       // parts of lines go out as they come
  std::uint32_t input_rank = 0;  // with kOneRank: the rank that gets the input
  Duration wait;                 // --wait: end the step so long after its first task; 0: never
  bool pty = false;
  bool kill_on_bad_exit = false;
  bool quiet = false;         // -Q: no messages but errors
  bool json = false;          // one object on standard output at the end; the tasks' output goes to standard error
  std::uint32_t verbose = 0;  // how many -v
  bool test_only = false;     // say whether it would run, start nothing
  std::string mpi = "none";   // "none"; others are refused when the options are read

  // The job to run in. Set by --jobid, else by MUSTER_JOB_ID, else SLURM_JOB_ID/SLURM_JOBID; 0: outside of a job, then
  // `job` is submitted first (its kind is kRun, all its sizes filled from the options above).
  std::uint64_t job_id = 0;
  JobSpec job;

  bool srun_style = false;  // called as srun: messages begin with "srun: " and follow its wording
};

// `muster alloc`.
struct AllocOptions {
  ConnectOptions connect;
  JobSpec job;
  std::vector<std::string> argv;  // the command; never empty
  std::string work_dir;           // where the command starts
  bool no_shell = false;
  bool quiet = false;
  bool json = false;
  bool test_only = false;
};

// `muster logs JOB`.
struct LogsOptions {
  ConnectOptions connect;
  std::uint64_t job = 0;        // raw id of the job, or of the array
  bool has_array_task = false;  // "42_7": the array's id is `job`, the user's index array_task
  std::uint64_t array_task = 0;
  bool follow = false;       // -f: until the job has ended
  bool stderr_file = false;  // --err
  bool has_step = false;     // --step S
  std::uint32_t step = 0;
  bool has_task = false;  // --task T
  std::uint32_t task = 0;
};

// Each returns the exit status of the program and print their own errors (error_line of cli/report.h).
int run_step(const RunOptions& options);
int run_allocation(const AllocOptions& options);
int show_logs(const LogsOptions& options);

}  // namespace muster::cli
