// muster submit, and the options of muster run and muster alloc.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "cli/commands.h"
#include "cli/job_options.h"
#include "cli/json.h"
#include "cli/query.h"
#include "cli/report.h"
#include "cli/script_header.h"
#include "cli/table.h"
#include "lib/base/text.h"
#include "lib/io/files.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

// The whole of an open file, at most one byte above the limit (which is then refused by the header's reader).
Result<std::string> read_script(int fd, const std::string& name) {
  std::string text;
  char buffer[65'536];
  while (text.size() <= kScriptBytesMax) {
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io::errno_error("read", name, errno);
    if (got == 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
  }
  return text;
}

Result<std::string> open_script(const std::string& name) {
  if (name == "-") return read_script(STDIN_FILENO, "standard input");
  // Non-blocking, so that a FIFO that nobody writes is refused below instead of waited for.
  const io::Fd fd(open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    if (errno == ENOENT)
      return make_error(ErrorCode::kNotFound,
                        "script " + name + ": no such file: check the path, or use --wrap for a command");
    const Error error = io::errno_error("read", name, errno);
    // Not permitted by the file system is a failed operation, not a missing right in the queue.
    return make_error(ErrorCode::kIo, "script " + name + ": " + error.message + ": make it readable for you");
  }
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return io::errno_error("read", name, errno);
  if (S_ISDIR(info.st_mode)) return make_error(ErrorCode::kIo, "script " + name + ": it is a directory: name a file");
  if (!S_ISREG(info.st_mode) && !S_ISCHR(info.st_mode) && !S_ISFIFO(info.st_mode)) {
    return make_error(ErrorCode::kIo,
                      "script " + name + ": it is no regular file: name a file, or - for standard input");
  }
  fcntl(fd.get(), F_SETFL, 0);
  return read_script(fd.get(), name);
}

std::uint64_t job_around(bool srun) {
  for (const char* variable : {"MUSTER_JOB_ID", "SLURM_JOB_ID", "SLURM_JOBID"}) {
    // Slurm's names count only under Slurm's name, or a real Slurm job would be taken for one of Muster's.
    if (!srun && variable[0] == 'S') continue;
    const char* text = getenv(variable);
    if (text == nullptr) continue;
    const auto id = parse_count(text, variable, {1, UINT64_MAX});
    if (id.ok()) return *id;
  }
  return 0;
}

// What --test-only found out.
std::string test_text(const pb::SubmitReply& reply) {
  std::string text = "The job would be accepted";
  if (reply.planned_nodes_size() == 0) {
    return text +
           (reply.waits_for().empty() ? "; when it starts is not known\n" : " and wait: " + reply.waits_for() + "\n");
  }
  std::vector<std::string> nodes(reply.planned_nodes().begin(), reply.planned_nodes().end());
  text += reply.starts_now() ? " and start now"
                             : " and start at " + format_time(reply.planned_start_us()) + " at the latest";
  return text + " on " + join_nodes(nodes) + "\n";
}

// --wait: why the status is not 0. One line, however many tasks.
void report_failed(std::uint64_t id, const std::vector<pb::JobView>& jobs) {
  const auto failed = [](const pb::JobView& job) {
    return job.state() != static_cast<std::uint32_t>(JobState::kCompleted);
  };
  const auto count = std::count_if(jobs.begin(), jobs.end(), failed);
  if (count == 0) return;
  if (jobs.size() > 1) {
    error_line(std::to_string(count) + " of the " + std::to_string(jobs.size()) + " tasks of job " +
               std::to_string(id) + " did not complete: see `muster history -j " + std::to_string(id) + "`");
    return;
  }
  const pb::JobView& job = jobs.front();
  const std::string& why = job.reason_detail().empty() ? job.reason() : job.reason_detail();
  error_line("job " + std::to_string(id) + " has ended (" + std::string(to_string(static_cast<JobState>(job.state()))) +
             ")" + (why.empty() ? "" : ": " + why));
}

int submit(const SubmitOptions& options) {
  auto client = Client::open(options.connect);
  if (!client.ok()) return report_error(client.error());
  const auto reply = submit_job(**client, options.spec, options.script, options.environment, options.test_only);
  if (!reply.ok()) return report_error(reply.error());
  const std::string id = std::to_string(reply->job());
  std::string text;
  if (options.json) {
    text = submitted_json(*reply, options.test_only);
  } else if (options.test_only) {
    text = test_text(*reply);
  } else if (options.parsable) {
    text = id + "\n";
  } else if (!options.quiet) {
    text = "Submitted job " + id + "\n";
  }
  if (!print(text)) error_line("cannot write to standard output: job " + id + " is submitted all the same");
  if (!options.wait || options.test_only) return kExitOk;
  if (auto waited = wait_until_ended(**client, reply->job()); !waited.ok()) return report_error(waited.error());
  JobSelector::Item item;
  item.id = JobId{reply->job()};
  const auto jobs = find_job(**client, item, false);
  if (!jobs.ok()) return report_error(jobs.error());
  if (!options.quiet) report_failed(reply->job(), *jobs);
  return exit_status_of_jobs(*jobs);
}

}  // namespace

int command_submit(const Parsed& parsed) {
  const bool wrap = parsed.has(OptionId::kWrap);
  if (!wrap && parsed.operands.empty())
    return usage_error("no script: name one, - for standard input, or use --wrap COMMAND");
  if (wrap && !parsed.operands.empty())
    return usage_error("--wrap beside the script " + printable(parsed.operands.front()) + ": give one of them");
  std::string name;
  std::string script;
  if (!wrap) {
    name = parsed.operands.front();
    auto text = open_script(name);
    if (!text.ok()) return report_error(text.error());
    script = std::move(*text);
    if (auto header = parse_script_header(script, name == "-" ? "standard input" : name); !header.ok()) {
      return report_error(header.error());
    }
  }
  auto variables = parse_variables(kSubmit, getenv);
  if (!variables.ok()) return usage_error(variables.error());
  const auto options = build_submit(parsed, *variables, name, script, read_surroundings());
  if (!options.ok()) return usage_error(options.error());
  for (const std::string& warning : options->warnings) error_line("warning: " + warning);
  return submit(*options);
}

namespace {

// --multi-prog: the command is the file of the programs.
Status read_programs(RunOptions& options) {
  const std::string file = options.argv.front();
  if (options.argv.size() > 1) {
    return invalid_argument("--multi-prog: \"" + printable(options.argv[1]) + "\" stands behind the file " +
                            printable(file) + ": write arguments of programs into it");
  }
  const auto text = io::read_file(file, kMultiProgBytesMax);
  if (!text.ok()) return invalid_argument("--multi-prog: " + text.error().message + ": name a file that you can read");
  MUSTER_ASSIGN(options.programs, parse_multi_prog(*text, file));
  options.argv = options.programs.front().argv;
  return ok_status();
}

}  // namespace

int command_run(Command command, const Parsed& parsed) {
  if (parsed.has(OptionId::kVersion)) {
    print(std::string(kSlurmVersionText) + "\n");
    return kExitOk;
  }
  if (parsed.value(OptionId::kMpi) == "list") {
    print("MPI plugin types are...\n\tnone\n");
    return kExitOk;
  }
  auto variables = parse_variables(command, getenv);
  if (!variables.ok()) return usage_error(variables.error());
  auto options = build_run(command, parsed, *variables, job_around(command == kSrun), read_surroundings());
  if (!options.ok()) return usage_error(options.error());
  options->json = parsed.has(OptionId::kJson);
  if (parsed.has(OptionId::kMultiProg)) {
    if (const Status status = read_programs(*options); !status) return usage_error(status.error());
  }
  return run_step(*options);
}

int command_alloc(const Parsed& parsed) {
  auto variables = parse_variables(kAlloc, getenv);
  if (!variables.ok()) return usage_error(variables.error());
  const auto options = build_alloc(parsed, *variables, read_surroundings());
  if (!options.ok()) return usage_error(options.error());
  return run_allocation(*options);
}

}  // namespace muster::cli
