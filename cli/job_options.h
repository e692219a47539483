// From options to a job: what `submit` sends and what `run`, `srun` and `alloc` start. Where an option was given decides: the
// command line wins over MUSTER_<NAME> variables, they win over the script's head.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "cli/run_options.h"
#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/model/job_change.h"
#include "lib/model/job_spec.h"

namespace muster::cli {

// What the options are applied to besides themselves; a value, so that tests need no process around them.
struct Surroundings {
  std::string work_dir;  // absolute
  std::string host;
  std::vector<std::string> environment;  // NAME=value of the caller
  Instant now;
  std::uint32_t umask = 022;
};
Surroundings read_surroundings();

struct SubmitOptions {
  ConnectOptions connect;
  JobSpec spec;  // user, uid and gid are filled in by submit_job
  std::string script;
  std::string environment;  // NAME=value\0...
  bool wait = false;
  bool parsable = false;
  bool json = false;
  bool test_only = false;
  bool quiet = false;
  std::vector<std::string> warnings;
};

// `script_name` is the path as given ("-" for standard input), empty with --wrap.
Result<SubmitOptions> build_submit(const Parsed& command_line, const std::vector<Given>& variables,
                                   const std::string& script_name, const std::string& script,
                                   const Surroundings& around);

// What `muster update` changes about jobs: only what is on the command line.
Result<JobChange> build_change(const Parsed& command_line, const Surroundings& around);

// `command` is kRun or kSrun; `job_around` the id of the job this runs in, 0: none.
Result<RunOptions> build_run(Command command, const Parsed& command_line, const std::vector<Given>& variables,
                             std::uint64_t job_around, const Surroundings& around);

Result<AllocOptions> build_alloc(const Parsed& command_line, const std::vector<Given>& variables,
                                 const Surroundings& around);

// The environment that --export passes on, as NAME=value. Variables that describe the job around are left out when
// `drop_job` is set, so that a job submitted from within a job does not take them for its own.
std::vector<std::string> exported_environment(const ExportList& list, const std::vector<std::string>& environment,
                                              bool drop_job);

}  // namespace muster::cli
