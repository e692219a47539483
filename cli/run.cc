// `muster run`: starts a step on the nodes of a job and stands for it: output, input, signals, exit status. Outside of
// a job it submits one first.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "cli/run_access.h"
#include "cli/run_options.h"
#include "cli/run_step.h"
#include "cli/run_wait.h"
#include "cli/table.h"
#include "lib/io/files.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr Duration kQueuedNotice = Duration::from_s(1);

// Waits until the job runs. kRefused with its reason when it ended instead.
Status wait_for_job(Client& client, const RunOptions& options, std::uint64_t job) {
  bool told = options.quiet;
  return wait_until_started(client, {.connect = options.connect,
                                     .job = job,
                                     .notice = kQueuedNotice,
                                     .waiting =
                                         [&](const pb::JobView&) {
                                           if (!std::exchange(told, true)) {
                                             note("job " + std::to_string(job) + " queued and waiting for resources");
                                           }
                                         },
                                     .granted =
                                         [&] {
                                           if (!options.quiet) {
                                             note("job " + std::to_string(job) + " has been allocated resources");
                                           }
                                         }});
}

int report(const RunOptions& options, const Error& error) {
  if (!options.srun_style) {
    return report_error(error);
  }
  error_line("error: " + error.message);
  return exit_status_of(error);
}

// Descriptor for the object of --json: what the tasks print, and messages, go to standard error from here on.
io::Fd object_output;

void take_standard_output() {
  object_output.reset(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
}

int run_in(const RunOptions& options, Access access) {
  StepRun step(options, std::move(access));
  const int status = step.run();
  if (options.json) {
    ::dup2(object_output.get(), STDOUT_FILENO);
    print(step_json(step.result()));
  }
  return status;
}

int run_outside(const RunOptions& options) {
  auto client = Client::open(options.connect);
  if (!client) {
    return report(options, client.error());
  }
  const auto submitted = submit_job(**client, options.job, "", "", options.test_only);
  if (!submitted) {
    return report(options, submitted.error());
  }
  if (options.test_only) {
    note("the job would be accepted");
    return kExitOk;
  }
  const std::uint64_t job = submitted->job();
  if (const Status status = wait_for_job(**client, options, job); !status) {
    return report(options, status.error());
  }
  auto access = access_by_controller(**client, job);
  if (!access) {
    return report(options, access.error());
  }
  // The job has the size that was asked for, and its nodes are the named ones: the step is all of it.
  RunOptions step = options;
  step.nodelist.clear();
  step.exclude.clear();
  step.sharing = StepSharing::kWhole;
  step.gpus = step.gpus_per_node = step.gpus_per_task = step.relative = 0;
  step.nodes = step.nodes_max = step.ntasks = step.ntasks_per_node = 0;
  return run_in(step, std::move(*access));
}

int run_to_end(const RunOptions& options) {
  if (options.pty) {
    error_line("--pty is not supported yet: run the command without it");
    return kExitUsage;
  }
  if (options.json) {
    take_standard_output();
  }
  // From here on signals wait until somebody can act on them for the step.
  const sigset_t signals = handled_signals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  if (options.job_id == 0) {
    return run_outside(options);
  }
  if (options.test_only) {
    note("the step would be started in job " + std::to_string(options.job_id));
    return kExitOk;
  }
  Result<Access> access = make_error(ErrorCode::kInternal, "");
  std::unique_ptr<Client> client;
  if (is_inside(options.job_id)) {
    access = access_inside(options.job_id);
  } else {
    auto opened = Client::open(options.connect);
    if (!opened) {
      return report(options, opened.error());
    }
    client = std::move(*opened);
    access = access_by_controller(*client, options.job_id);
  }
  if (!access) {
    return report(options, access.error());
  }
  return run_in(options, std::move(*access));
}

}  // namespace

int run_step(const RunOptions& options) {
  const int status = run_to_end(options);
  // All that had to be said was said. The orderly end of ZeroMQ's threads would be a good part of a short step's time.
  ::_exit(status);
}

}  // namespace muster::cli
