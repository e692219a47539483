#include "cli/job_options.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "cli/script_header.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/model/constraint.h"
#include "lib/model/patterns.h"

extern char** environ;

namespace muster::cli {
namespace {

// The largest environment sent with a job (the wire's limit).
constexpr std::size_t kEnvironmentBytesMax = 2U << 20U;

// The fields of a job that the options of `muster update` stand for.
constexpr std::pair<OptionId, SpecField> kFields[] = {
    {OptionId::kJobName, SpecField::kName},
    {OptionId::kComment, SpecField::kComment},
    {OptionId::kTime, SpecField::kTimeLimit},
    {OptionId::kTimeMin, SpecField::kTimeMin},
    {OptionId::kDeadline, SpecField::kDeadline},
    {OptionId::kBegin, SpecField::kBegin},
    {OptionId::kDependency, SpecField::kDependency},
    {OptionId::kNice, SpecField::kNice},
    {OptionId::kQueue, SpecField::kQueue},
    {OptionId::kAccount, SpecField::kAccount},
    {OptionId::kQos, SpecField::kQos},
    {OptionId::kNodes, SpecField::kNodes},
    {OptionId::kNtasks, SpecField::kNtasks},
    {OptionId::kNtasksPerNode, SpecField::kNtasksPerNode},
    {OptionId::kCpusPerTask, SpecField::kCpusPerTask},
    {OptionId::kMem, SpecField::kMemory},
    {OptionId::kMemPerCpu, SpecField::kMemory},
    {OptionId::kMemPerGpu, SpecField::kMemory},
    {OptionId::kGpus, SpecField::kGpus},
    {OptionId::kGpusPerNode, SpecField::kGpusPerNode},
    {OptionId::kGres, SpecField::kGpusPerNode},
    {OptionId::kGpusPerTask, SpecField::kGpusPerTask},
    {OptionId::kExclusive, SpecField::kExclusive},
    {OptionId::kNodelist, SpecField::kNodelist},
    {OptionId::kExclude, SpecField::kExclude},
    {OptionId::kConstraint, SpecField::kConstraint},
    {OptionId::kSwitches, SpecField::kSwitches},
    {OptionId::kSegment, SpecField::kSegment},
    {OptionId::kLocality, SpecField::kLocality},
    {OptionId::kReservation, SpecField::kReservation},
    {OptionId::kLicenses, SpecField::kLicenses},
    {OptionId::kRequeue, SpecField::kRequeue},
    {OptionId::kNoRequeue, SpecField::kRequeue},
    {OptionId::kOutput, SpecField::kOutput},
    {OptionId::kError, SpecField::kError},
    {OptionId::kArrayLimit, SpecField::kArrayLimit},
};

// Applies options to a JobSpec, from the weakest source to the strongest.
class JobBuilder {
 public:
  // `more_letters`: patterns of output files beside those that all know.
  JobBuilder(JobSpec& spec, const Surroundings& around, std::string_view more_letters = {})
      : spec_(spec), around_(around), more_letters_(more_letters) {}

  // All options of one source. Options that say the same thing in two ways exclude each other within a source; a
  // stronger source that gives one of them replaces what a weaker one gave.
  Status apply(const std::vector<Given>& given) {
    std::string memory_source;
    for (const Given& one : given) {
      const bool is_memory = one.option->id == OptionId::kMem || one.option->id == OptionId::kMemPerCpu ||
                             one.option->id == OptionId::kMemPerGpu;
      if (is_memory) {
        if (!memory_source.empty() && memory_source_id_ != one.option->id) {
          return invalid_argument(one.source + " and " + memory_source +
                                  " say two things about memory: give one of them");
        }
        memory_source = one.source;
        memory_source_id_ = one.option->id;
        spec_.mem_per_node_mib = spec_.mem_per_cpu_mib = spec_.mem_per_gpu_mib = 0;
      }
      MUSTER_TRY(apply_one(one));
    }
    return ok_status();
  }

  [[nodiscard]] const std::string& export_text() const { return export_text_; }
  [[nodiscard]] const std::string& export_source() const { return export_source_; }
  [[nodiscard]] const std::string& input_text() const { return input_text_; }
  [[nodiscard]] bool has_open_mode() const { return has_open_mode_; }

 private:
  Status apply_one(const Given& one) {
    const std::string text = one.value.value_or("");
    const std::string_view what = one.source;
    if (takes_back(one)) {
      take_back(one.option->id);
      return ok_status();
    }
    switch (one.option->id) {
      case OptionId::kJobName:
        spec_.name = text;
        break;
      case OptionId::kNodes: {
        MUSTER_ASSIGN(const NodeRange range, parse_node_range(text, what));
        spec_.nodes_min = range.min;
        spec_.nodes_max = range.max;
        break;
      }
      case OptionId::kNtasks:
        return set_count(one, spec_.ntasks);
      case OptionId::kNtasksPerNode:
        return set_count(one, spec_.ntasks_per_node);
      case OptionId::kCpusPerTask:
        return set_count(one, spec_.cpus_per_task);
      case OptionId::kMem:
        return set_memory(one, spec_.mem_per_node_mib);
      case OptionId::kMemPerCpu:
        return set_memory(one, spec_.mem_per_cpu_mib);
      case OptionId::kMemPerGpu:
        return set_memory(one, spec_.mem_per_gpu_mib);
      case OptionId::kGpus: {
        MUSTER_ASSIGN(spec_.gpus, parse_gpus(text, what));
        break;
      }
      case OptionId::kGpusPerNode: {
        MUSTER_ASSIGN(spec_.gpus_per_node, parse_gpus(text, what));
        break;
      }
      case OptionId::kGpusPerTask: {
        MUSTER_ASSIGN(spec_.gpus_per_task, parse_gpus(text, what));
        break;
      }
      case OptionId::kGres: {
        MUSTER_ASSIGN(spec_.gpus_per_node, parse_gres(text, what));
        break;
      }
      case OptionId::kExclusive:
        spec_.exclusive = text != "no";
        break;
      case OptionId::kTime: {
        MUSTER_ASSIGN(spec_.time_limit, parse_duration(text));
        break;
      }
      case OptionId::kTimeMin: {
        MUSTER_ASSIGN(spec_.time_min, parse_duration(text));
        break;
      }
      case OptionId::kDeadline: {
        MUSTER_ASSIGN(spec_.deadline, parse_time(text, what, around_.now));
        break;
      }
      case OptionId::kArrayLimit:
        return set_array_limit(one);
      case OptionId::kQueue:
        spec_.queue = text;
        break;
      case OptionId::kArray: {
        MUSTER_ASSIGN(spec_.array, parse_array_spec(text));
        break;
      }
      case OptionId::kNice: {
        std::int64_t nice = 100;
        if (one.value) {
          MUSTER_ASSIGN(nice, parse_integer(text, what, INT32_MIN, INT32_MAX));
        }
        spec_.nice = static_cast<std::int32_t>(nice);
        break;
      }
      case OptionId::kHold:
        spec_.hold = true;
        break;
      case OptionId::kBegin: {
        MUSTER_ASSIGN(spec_.begin, parse_time(text, what, around_.now));
        break;
      }
      case OptionId::kDependency: {
        MUSTER_ASSIGN(spec_.dependency, parse_dependency(text, what));
        break;
      }
      case OptionId::kNodelist:
        return set_nodes(text, spec_.nodelist);
      case OptionId::kExclude:
        return set_nodes(text, spec_.exclude);
      case OptionId::kConstraint: {
        MUSTER_TRY(parse_constraint(text, what));
        spec_.constraint = text;
        break;
      }
      case OptionId::kSwitches:
        return set_switches(one);
      case OptionId::kSegment:
        return set_count(one, spec_.segment);
      case OptionId::kReservation:
        spec_.reservation = text;
        break;
      case OptionId::kLicenses: {
        MUSTER_ASSIGN(spec_.licenses, parse_licenses(text, what));
        break;
      }
      case OptionId::kAccount:
        spec_.account = text;
        break;
      case OptionId::kQos:
        spec_.qos = text;
        break;
      case OptionId::kComment:
        spec_.comment = text;
        break;
      case OptionId::kChdir:
        spec_.work_dir = resolve_path(around_.work_dir, text);
        break;
      case OptionId::kOutput:
        spec_.stdout_path = text;
        return check_pattern(one);
      case OptionId::kError:
        spec_.stderr_path = text;
        return check_pattern(one);
      case OptionId::kInput:
        input_text_ = text;
        break;
      case OptionId::kOpenMode:
        spec_.open_mode = text == "append" ? OpenMode::kAppend : OpenMode::kTruncate;
        spec_.open_mode_given = true;
        has_open_mode_ = true;
        break;
      case OptionId::kExport:
        export_text_ = text;
        export_source_ = one.source;
        break;
      case OptionId::kRequeue:
        spec_.requeue = true;
        spec_.requeue_given = true;
        break;
      case OptionId::kNoRequeue:
        spec_.requeue = false;
        spec_.requeue_given = true;
        break;
      case OptionId::kSignalBefore: {
        MUSTER_ASSIGN(const SignalBefore warning, parse_signal_before(text, what));
        spec_.warn_signal = warning.signal;
        spec_.warn_before = warning.before;
        spec_.warn_batch_only = warning.batch_only;
        break;
      }
      case OptionId::kLocality: {
        MUSTER_ASSIGN(spec_.locality, named(one, parse_locality(text)));
        break;
      }
      case OptionId::kCpuBind:
        MUSTER_TRY(named(one, parse_cpu_bind(text)));
        spec_.cpu_bind = text;
        break;
      case OptionId::kGpuBind:
        MUSTER_TRY(named(one, parse_gpu_bind(text)));
        spec_.gpu_bind = text;
        break;
      case OptionId::kDistribution:
        MUSTER_TRY(named(one, parse_distribution(text)));
        spec_.distribution = text;
        break;
      case OptionId::kThreadsPerCore:
        return set_count(one, spec_.threads_per_core);
      default:
        break;  // not about the job
    }
    return ok_status();
  }

  void take_back(OptionId id) {
    JobChange nothing;
    for (const auto& [option, field] : kFields) {
      if (option == id) nothing.fields.push_back(field);
    }
    spec_ = with_change(spec_, nothing);
  }

  // A letter that is not filled in would make a file that nobody finds.
  [[nodiscard]] Status check_pattern(const Given& one) const {
    const std::string_view unknown = unknown_pattern(*one.value, more_letters_);
    if (unknown.empty()) return ok_status();
    std::string letters = "%j %A %a %x %u %N %n %t";
    for (const char letter : more_letters_) letters += std::string(" %") + letter;
    return invalid_argument(one.source + ": \"" + printable(one.value->substr(0, 60)) + "\": " + printable(unknown) +
                            " stands for nothing: use " + letters + ", or %% for a percent sign");
  }

  // Of an array whose indices are the controller's to know.
  Status set_array_limit(const Given& one) {
    const std::string_view text = *one.value;
    const auto limit = parse_count(text.substr(text.starts_with('%') ? 1 : 0), one.source, {0, kArrayTasksMax});
    if (!text.starts_with('%') || !limit.ok()) {
      return invalid_argument(one.source + ": \"" + printable(text.substr(0, 60)) +
                              "\": only how many tasks run at a time can be changed: write %MAX, %0 for no limit");
    }
    spec_.array = ArraySpec{{ArrayRange{0, 0, 1}}, *limit};
    return ok_status();
  }

  static Status set_nodes(const std::string& text, std::vector<std::string>& field) {
    MUSTER_ASSIGN(field, expand_node_list(text));
    return ok_status();
  }
  static Status set_count(const Given& one, std::uint32_t& field) {
    MUSTER_ASSIGN(const std::uint64_t count, parse_count(*one.value, one.source, {1, kCountMax}));
    field = static_cast<std::uint32_t>(count);
    return ok_status();
  }
  // "2", "2@1:00:00".
  Status set_switches(const Given& one) {
    const std::string_view text = *one.value;
    const std::size_t at = text.find('@');
    MUSTER_ASSIGN(const std::uint64_t count, parse_count(text.substr(0, at), one.source, {1, kCountMax}));
    spec_.switches = static_cast<std::uint32_t>(count);
    spec_.switches_wait = Duration::infinite();
    if (at != std::string_view::npos) {
      MUSTER_ASSIGN(spec_.switches_wait, parse_duration(text.substr(at + 1)));
    }
    return ok_status();
  }
  static Status set_memory(const Given& one, std::uint64_t& field) {
    MUSTER_ASSIGN(field, parse_memory_mib(*one.value));
    return ok_status();
  }
  // The error says which option it is about.
  template <typename T>
  static Result<T> named(const Given& one, Result<T> parsed) {
    if (parsed.ok()) return parsed;
    return invalid_argument(one.source + ": " + parsed.error().message);
  }

  JobSpec& spec_;
  const Surroundings& around_;
  OptionId memory_source_id_ = OptionId::kMem;
  std::string export_text_ = "ALL";
  std::string export_source_ = "--export";
  std::string input_text_;
  bool has_open_mode_ = false;
  std::string_view more_letters_;
};

std::string base_name(std::string_view path) {
  const std::size_t slash = path.find_last_of('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

std::string_view name_of(std::string_view assignment) {
  return assignment.substr(0, assignment.find('='));
}

// Variables that describe one job, set by whoever starts its processes.
bool describes_job(std::string_view name) {
  constexpr std::string_view kPrefixes[] = {"SLURM_",         "SLURMD_",      "MUSTER_JOB_",
                                            "MUSTER_ARRAY_",  "MUSTER_STEP_", "MUSTER_NODE_",
                                            "MUSTER_TICKET_", "PMI_",         "PMIX_"};
  constexpr std::string_view kNames[] = {"MUSTER_NODELIST",
                                         "MUSTER_NNODES",
                                         "MUSTER_NTASKS",
                                         "MUSTER_NODEID",
                                         "MUSTER_PROCID",
                                         "MUSTER_LOCALID",
                                         "MUSTER_CPUS_PER_TASK",
                                         "MUSTER_GPUS",
                                         "MUSTER_SUBMIT_DIR",
                                         "MUSTER_ATTEMPT",
                                         "MUSTER_CHECKPOINT_DIR",
                                         "MUSTER_RESTORE_DIR",
                                         "MASTER_ADDR",
                                         "MASTER_PORT",
                                         "WORLD_SIZE",
                                         "RANK",
                                         "LOCAL_RANK",
                                         "NODE_RANK",
                                         "LOCAL_WORLD_SIZE",
                                         "CUDA_VISIBLE_DEVICES",
                                         "GPU_DEVICE_ORDINAL",
                                         "ROCR_VISIBLE_DEVICES",
                                         "ZE_AFFINITY_MASK"};
  for (const std::string_view prefix : kPrefixes) {
    if (name.starts_with(prefix)) return true;
  }
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

bool inside_job(const std::vector<std::string>& environment) {
  return std::any_of(environment.begin(), environment.end(),
                     [](const std::string& one) { return one.starts_with("MUSTER_JOB_ID="); });
}

Status check_combination(const JobSpec& spec, const std::string& where) {
  if (spec.ntasks != 0 && spec.nodes_min > spec.ntasks && spec.ntasks_per_node == 0) {
    return invalid_argument(where + "--nodes " + std::to_string(spec.nodes_min) + " is more than --ntasks " +
                            std::to_string(spec.ntasks) +
                            ", and each node runs at least one task: lower --nodes or raise --ntasks");
  }
  for (const std::string& name : spec.nodelist) {
    if (std::find(spec.exclude.begin(), spec.exclude.end(), name) != spec.exclude.end()) {
      return invalid_argument(where + "node " + name + " is both in --nodelist and in --exclude: remove it from one");
    }
  }
  if (spec.nodes_max != 0 && spec.nodelist.size() > spec.nodes_max) {
    return invalid_argument(where + "--nodelist names " + std::to_string(spec.nodelist.size()) +
                            " nodes but --nodes allows " + std::to_string(spec.nodes_max) +
                            ": name fewer or raise --nodes");
  }
  return ok_status();
}

}  // namespace

Surroundings read_surroundings() {
  Surroundings around;
  char path[PATH_MAX];
  // $PWD keeps the path as the user typed it when it leads to the same directory (links, automounts).
  struct stat by_name {
  }, here{};
  const char* pwd = getenv("PWD");
  if (pwd != nullptr && pwd[0] == '/' && stat(pwd, &by_name) == 0 && stat(".", &here) == 0 &&
      by_name.st_dev == here.st_dev && by_name.st_ino == here.st_ino) {
    around.work_dir = pwd;
  } else if (getcwd(path, sizeof path) != nullptr) {
    around.work_dir = path;
  }
  char host[HOST_NAME_MAX + 1] = "";
  if (gethostname(host, sizeof host - 1) == 0) around.host = host;
  for (char** one = environ; one != nullptr && *one != nullptr; ++one) around.environment.emplace_back(*one);
  around.now = io::wall_now();
  const mode_t mask = umask(077);
  umask(mask);
  around.umask = mask;
  return around;
}

std::vector<std::string> exported_environment(const ExportList& list, const std::vector<std::string>& environment,
                                              bool drop_job) {
  std::vector<std::string> result;
  const auto replaced = [&](std::string_view name) {
    return std::any_of(list.values.begin(), list.values.end(), [&](const auto& value) { return value.first == name; });
  };
  for (const std::string& one : environment) {
    const std::string_view name = name_of(one);
    if (name.empty() || name.size() == one.size() || replaced(name)) continue;
    const bool named = std::find(list.names.begin(), list.names.end(), name) != list.names.end();
    if (named || (list.all && !(drop_job && describes_job(name)))) result.push_back(one);
  }
  for (std::size_t i = 0; i < list.values.size(); ++i) {
    const auto& one = list.values[i];
    const bool again = std::any_of(list.values.begin() + static_cast<std::ptrdiff_t>(i) + 1, list.values.end(),
                                   [&](const auto& later) { return later.first == one.first; });
    if (!again) result.push_back(one.first + "=" + one.second);
  }
  return result;
}

Result<SubmitOptions> build_submit(const Parsed& command_line, const std::vector<Given>& variables,
                                   const std::string& script_name, const std::string& script,
                                   const Surroundings& around) {
  SubmitOptions options;
  options.connect = connect_options(command_line);
  JobSpec& spec = options.spec;
  JobBuilder builder(spec, around);
  std::vector<Given> all;  // for the options that are not about the job

  if (const Given* wrap = command_line.last(OptionId::kWrap)) {
    options.script = "#!/bin/sh\n" + *wrap->value + "\n";
    spec.script_name = "wrap";
    if (wrap->value->empty()) return invalid_argument("--wrap: the command is empty: write one");
  } else {
    const std::string shown = script_name == "-" ? "standard input" : script_name;
    MUSTER_ASSIGN(const ScriptHeader header, parse_script_header(script, shown));
    options.script = script;
    spec.script_name = script_name == "-" ? "stdin" : base_name(script_name);
    std::vector<Given> from_script;
    for (const Directive& directive : header.directives) {
      MUSTER_ASSIGN(std::vector<Given> given,
                    parse_directive(directive.words, shown + ":" + std::to_string(directive.line)));
      std::move(given.begin(), given.end(), std::back_inserter(from_script));
    }
    MUSTER_TRY(builder.apply(from_script));
    if (header.ignored_line != 0) {
      options.warnings.push_back(
          shown + ":" + std::to_string(header.ignored_line) +
          ": this option line comes after the first command and has no effect: move it to the head of the script");
    }
    all = std::move(from_script);
  }
  MUSTER_TRY(builder.apply(variables));
  MUSTER_TRY(builder.apply(command_line.given));
  all.insert(all.end(), variables.begin(), variables.end());
  all.insert(all.end(), command_line.given.begin(), command_line.given.end());
  for (const Given& one : all) {
    if (one.option->id == OptionId::kWait) options.wait = true;
    if (one.option->id == OptionId::kParsable) options.parsable = true;
    if (one.option->id == OptionId::kTestOnly) options.test_only = true;
    if (one.option->id == OptionId::kQuiet) options.quiet = true;
    if (one.option->id == OptionId::kJson) options.json = true;
    if ((one.option->flags & kIgnored) != 0) options.warnings.push_back(one.source + ": " + one.option->meaning);
  }

  if (spec.name.empty()) spec.name = spec.script_name;
  if (spec.work_dir.empty()) spec.work_dir = around.work_dir;
  if (spec.work_dir.empty())
    return make_error(ErrorCode::kIo,
                      "the current directory has no name any more: change to another one or use --chdir");
  if (spec.stdout_path.empty()) spec.stdout_path = spec.array ? kDefaultArrayOutput : kDefaultOutput;
  spec.stdin_path = builder.input_text() == "none" ? "" : builder.input_text();
  spec.submit_host = around.host;
  for (std::size_t i = command_line.has(OptionId::kWrap) ? 0 : 1; i < command_line.operands.size(); ++i)
    spec.args.push_back(command_line.operands[i]);
  MUSTER_TRY(check_combination(spec, ""));

  MUSTER_ASSIGN(const ExportList list, parse_export(builder.export_text(), builder.export_source()));
  spec.export_mode = builder.export_text();
  for (const std::string& one : exported_environment(list, around.environment, inside_job(around.environment))) {
    options.environment += one;
    options.environment += '\0';
  }
  if (options.environment.size() > kEnvironmentBytesMax) {
    return invalid_argument("the environment is larger than 2 MiB: pass less of it with --export NAME,NAME");
  }
  return options;
}

Result<JobChange> build_change(const Parsed& command_line, const Surroundings& around) {
  JobChange change;
  JobBuilder builder(change.values, around);
  MUSTER_TRY(builder.apply(command_line.given));
  for (const Given& one : command_line.given) {
    for (const auto& [option, field] : kFields) {
      if (option == one.option->id && !change.has(field)) change.fields.push_back(field);
    }
  }
  return change;
}

namespace {

// A variable is for jobs, not for the steps in them.
Result<StepSharing> step_sharing(const Parsed& command_line) {
  const Given* exclusive = command_line.last(OptionId::kExclusive);
  const bool exclusively = exclusive != nullptr && exclusive->value.value_or("yes") != "no";
  const bool overlap = command_line.has(OptionId::kOverlap);
  if (overlap && exclusively) {
    return invalid_argument(
        "--overlap beside --exclusive: a step shares its nodes with others or does not: give one of them");
  }
  if (overlap) return StepSharing::kOverlap;  // also beside --exact: what others share is not the step's own
  if (exclusively) return StepSharing::kExclusive;
  return command_line.has(OptionId::kExact) ? StepSharing::kExact : StepSharing::kWhole;
}

}  // namespace

Result<RunOptions> build_run(Command command, const Parsed& command_line, const std::vector<Given>& variables,
                             std::uint64_t job_around, const Surroundings& around) {
  RunOptions options;
  const bool srun = command == kSrun;
  options.srun_style = srun;
  options.connect = connect_options(command_line);
  options.argv = command_line.operands;
  options.job_id = job_around;
  if (options.argv.empty()) return invalid_argument("no command to run: write it after the options");
  JobSpec& spec = options.job;
  JobBuilder builder(spec, around, "sJ");  // run_output.cc fills these in
  MUSTER_TRY(builder.apply(variables));
  MUSTER_TRY(builder.apply(command_line.given));
  std::vector<Given> all = variables;
  all.insert(all.end(), command_line.given.begin(), command_line.given.end());
  for (const Given& one : all) {
    switch (one.option->id) {
      case OptionId::kLabel:
        options.label = true;
        break;
      case OptionId::kKillOnBadExit:
        options.kill_on_bad_exit = one.value.value_or("1") != "0";
        break;
      case OptionId::kJobId: {
        MUSTER_ASSIGN(options.job_id, parse_count(*one.value, one.source, {1, UINT64_MAX}));
        break;
      }
      case OptionId::kMpi:
        options.mpi = *one.value;
        break;
      case OptionId::kUnbuffered:
        options.unbuffered = true;
        break;
      case OptionId::kSlurmWait: {
        MUSTER_ASSIGN(const std::uint64_t wait, parse_count(*one.value, one.source, {0, 1'000'000'000}));
        options.wait = Duration::from_s(static_cast<std::int64_t>(wait));
        break;
      }
      case OptionId::kRelative: {
        MUSTER_ASSIGN(const std::uint64_t relative, parse_count(*one.value, one.source, {0, UINT32_MAX}));
        options.relative = static_cast<std::uint32_t>(relative);
        break;
      }
      case OptionId::kQuiet:
        options.quiet = true;
        break;
      case OptionId::kVerbose:
        ++options.verbose;
        break;
      case OptionId::kTestOnly:
        options.test_only = true;
        break;
      default:
        break;
    }
  }

  MUSTER_ASSIGN(options.sharing, step_sharing(command_line));
  options.gpus = spec.gpus;
  options.gpus_per_node = spec.gpus_per_node;
  options.gpus_per_task = spec.gpus_per_task;
  options.nodes = spec.nodes_min;
  options.nodes_max = spec.nodes_max;
  options.ntasks = spec.ntasks;
  options.ntasks_per_node = spec.ntasks_per_node;
  options.cpus_per_task = spec.cpus_per_task;
  options.threads_per_core = spec.threads_per_core;
  options.cpu_bind = spec.cpu_bind;
  options.gpu_bind = spec.gpu_bind;
  options.distribution = spec.distribution;
  options.nodelist = spec.nodelist;
  options.exclude = spec.exclude;
  options.append = spec.open_mode == OpenMode::kAppend;
  options.umask = around.umask;
  if (spec.name.empty()) spec.name = base_name(options.argv.front());
  options.name = spec.name;
  if (spec.work_dir.empty()) spec.work_dir = around.work_dir;
  if (spec.work_dir.empty())
    return make_error(ErrorCode::kIo,
                      "the current directory has no name any more: change to another one or use --chdir");
  options.work_dir = spec.work_dir;

  const std::string& input = builder.input_text();
  options.input = srun ? InputMode::kAll : InputMode::kOneRank;
  if (input == "none") {
    options.input = InputMode::kNone;
  } else if (input == "all") {
    options.input = InputMode::kAll;
  } else if (!input.empty() && input.find_first_not_of("0123456789") == std::string::npos) {
    MUSTER_ASSIGN(const std::uint64_t rank, parse_count(input, "--input", {0, UINT32_MAX}));
    options.input = InputMode::kOneRank;
    options.input_rank = static_cast<std::uint32_t>(rank);
  } else if (!input.empty()) {
    options.input_path = resolve_path(around.work_dir, input);
  }
  // The step's own output files; the job made for a step has none.
  const auto output = [&](const std::string& text) -> std::string {
    if (text.empty() || text == "all") return "";
    return text == "none" ? "/dev/null" : resolve_path(options.work_dir, text);
  };
  options.output_path = output(spec.stdout_path);
  options.error_path = output(spec.stderr_path);
  spec.kind = JobKind::kRun;
  spec.stdout_path.clear();
  spec.stderr_path.clear();
  spec.submit_host = around.host;
  spec.script_name = options.argv.front();
  spec.args.assign(options.argv.begin() + 1, options.argv.end());
  MUSTER_TRY(check_combination(spec, ""));

  MUSTER_ASSIGN(const ExportList list, parse_export(builder.export_text(), builder.export_source()));
  options.export_mode = builder.export_text();
  spec.export_mode = builder.export_text();
  // A step belongs to the job around it, so what describes that job stays.
  options.environment = exported_environment(list, around.environment, false);
  return options;
}

Result<AllocOptions> build_alloc(const Parsed& command_line, const std::vector<Given>& variables,
                                 const Surroundings& around) {
  AllocOptions options;
  options.connect = connect_options(command_line);
  // The command gets them by its environment, and may run elsewhere.
  for (std::string* path : {&options.connect.config_path, &options.connect.key_path}) {
    if (!path->empty()) *path = resolve_path(around.work_dir, *path);
  }
  options.argv = command_line.operands;
  options.no_shell = command_line.has(OptionId::kNoShell);
  options.quiet = command_line.has(OptionId::kQuiet);
  options.json = command_line.has(OptionId::kJson);
  options.test_only = command_line.has(OptionId::kTestOnly);
  if (options.no_shell && !options.argv.empty()) {
    return invalid_argument("--no-shell beside the command " + printable(options.argv.front()) + ": give one of them");
  }
  if (options.json && !options.no_shell) {
    return invalid_argument("--json: standard output belongs to the command: use it with --no-shell");
  }
  JobSpec& spec = options.job;
  JobBuilder builder(spec, around);
  MUSTER_TRY(builder.apply(variables));
  MUSTER_TRY(builder.apply(command_line.given));
  if (spec.name.empty()) spec.name = "interactive";
  if (spec.work_dir.empty()) spec.work_dir = around.work_dir;
  if (spec.work_dir.empty())
    return make_error(ErrorCode::kIo,
                      "the current directory has no name any more: change to another one or use --chdir");
  options.work_dir = spec.work_dir;
  if (options.argv.empty()) {
    std::string shell = "/bin/sh";
    for (const std::string& variable : around.environment) {
      if (variable.starts_with("SHELL=") && variable.size() > 6) shell = variable.substr(6);
    }
    options.argv.push_back(std::move(shell));
  }
  spec.kind = options.no_shell ? JobKind::kAllocDetached : JobKind::kAlloc;
  spec.submit_host = around.host;
  if (!options.no_shell) {
    spec.script_name = options.argv.front();
    spec.args.assign(options.argv.begin() + 1, options.argv.end());
  }
  MUSTER_TRY(check_combination(spec, ""));
  return options;
}

}  // namespace muster::cli
