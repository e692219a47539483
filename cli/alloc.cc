// `muster alloc`: nodes for a shell or a command on the user's machine.
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cstring>

#include <memory>
#include <string>
#include <utility>

#include "cli/allocation.h"
#include "cli/client.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/run_access.h"
#include "cli/run_step.h"
#include "cli/run_wait.h"
#include "cli/table.h"
#include "lib/base/text.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

// How long a job waits before the user is told why.
constexpr Duration kReasonAfter = Duration::from_s(2);

Status wait_for_nodes(Client& client, const AllocOptions& options, std::uint64_t job) {
  std::string told;
  return wait_until_started(
      client, {.connect = options.connect, .job = job, .notice = kReasonAfter, .waiting = [&](const pb::JobView& view) {
                 const std::string& why = view.reason_detail().empty() ? view.reason() : view.reason_detail();
                 if (!options.quiet && why != told) {
                   told = why;
                   note("Job " + std::to_string(job) + " waits: " + why);
                 }
               }});
}

// --no-shell: the nodes are there, and nobody holds them.
int tell_detached(Client& client, const AllocOptions& options, std::uint64_t job) {
  // One that came before anybody looked for signals.
  const sigset_t signals = handled_signals();
  const timespec at_once{};
  if (const int number = ::sigtimedwait(&signals, nullptr, &at_once); number > 0) {
    cancel_job(options.connect, job);
    note("job " + std::to_string(job) + " was cancelled by " + std::string(::strsignal(number)));
    return 128 + number;
  }
  pb::Request request;
  request.mutable_wait()->set_job(job);
  const auto reply = client.call(request);
  if (!reply) {
    note("Job " + std::to_string(job) + " has begun and goes on: muster cancel " + std::to_string(job) + " ends it");
    return report_error(reply.error());
  }
  std::vector<std::string> nodes;
  if (reply->jobs().jobs_size() > 0) {
    nodes.assign(reply->jobs().jobs(0).nodes().begin(), reply->jobs().jobs(0).nodes().end());
  }
  if (options.json) {
    print(allocated_json(job, nodes));
  } else if (!options.quiet) {
    note("Job " + std::to_string(job) + " has nodes " + join_nodes(nodes) + ": muster run --jobid " +
         std::to_string(job) + " starts steps there, muster cancel " + std::to_string(job) + " gives them back");
  }
  return kExitOk;
}

int allocate(const AllocOptions& options) {
  auto client = Client::open(options.connect);
  if (!client) {
    return report_error(client.error());
  }
  // From here on signals wait until somebody can act on them for the job.
  const sigset_t signals = handled_signals();
  sigset_t before{};
  ::pthread_sigmask(SIG_BLOCK, &signals, &before);
  const auto submitted = submit_job(**client, options.job, "", "", options.test_only);
  if (!submitted) {
    return report_error(submitted.error());
  }
  if (options.test_only) {
    note("the job would be accepted");
    return kExitOk;
  }
  const std::uint64_t job = submitted->job();
  if (!options.quiet) {
    note("Submitted job " + std::to_string(job) + "; waiting for nodes");
  }
  if (const Status status = wait_for_nodes(**client, options, job); !status) {
    if (status.error().code != ErrorCode::kUnavailable) {
      cancel_job(options.connect, job);  // nobody would hold it
    } else if (options.no_shell) {
      note("Job " + std::to_string(job) + " may begin all the same: muster cancel " + std::to_string(job) + " ends it");
    }
    return report_error(status.error());
  }
  if (options.no_shell) {
    return tell_detached(**client, options, job);
  }
  auto access = access_by_controller(**client, job);
  if (!access) {
    cancel_job(options.connect, job);
    return report_error(access.error());
  }
  return Allocation(options, std::move(*access)).run(before);
}

}  // namespace

int run_allocation(const AllocOptions& options) {
  const int status = allocate(options);
  // All that had to be said was said. The orderly end of ZeroMQ's threads would only take time.
  ::_exit(status);
}

}  // namespace muster::cli
