// Commands that change jobs: cancel, hold, release, requeue, suspend, continue; and logs.
#include <pwd.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/job_ids.h"
#include "cli/query.h"
#include "cli/report.h"
#include "lib/base/text.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

Result<JobSelector> selector_of(const Parsed& parsed) {
  JobSelector selector;
  for (const std::string& operand : parsed.operands) {
    MUSTER_ASSIGN(std::vector<JobSelector::Item> items, parse_job_list(operand));
    std::move(items.begin(), items.end(), std::back_inserter(selector.items));
  }
  selector.user = parsed.has(OptionId::kMe) ? caller_name() : parsed.value(OptionId::kUser);
  selector.queue = parsed.value(OptionId::kQueue);
  selector.name = parsed.value(OptionId::kName);
  if (const Given* states = parsed.last(OptionId::kStates)) {
    MUSTER_ASSIGN(selector.states, parse_states(*states->value, states->source));
  }
  return selector;
}

int operate(const Parsed& parsed, pb::Request& request) {
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  const auto reply = (*client)->call(request);
  if (!reply.ok()) return report_error(reply.error());
  const pb::OperationReply& done = reply->operation();
  if (done.matched() == 0 && done.notes().empty() && !parsed.has(OptionId::kJson)) {
    // Not a failure: "cancel all of mine" is fulfilled when there are none.
    error_line("no job matches: see `muster queue`");
  }
  return report_operation(done, parsed.has(OptionId::kJson));
}

}  // namespace

std::string caller_name() {
  const passwd* entry = getpwuid(getuid());
  return entry != nullptr ? entry->pw_name : std::to_string(getuid());
}

int command_cancel(const Parsed& parsed) {
  const auto selector = selector_of(parsed);
  if (!selector.ok()) return usage_error(selector.error());
  if (*selector == JobSelector{})
    return usage_error("nothing to cancel: name jobs, or select them by --user, --queue, --state or --name");
  pb::Request request;
  wire::to_pb(*selector, *request.mutable_cancel()->mutable_jobs());
  if (const Given* signal = parsed.last(OptionId::kSignal)) {
    const auto number = parse_signal(*signal->value, signal->source);
    if (!number.ok()) return usage_error(number.error());
    request.mutable_cancel()->set_signal(*number);
  }
  return operate(parsed, request);
}

int command_hold(const Parsed& parsed) {
  const auto selector = selector_of(parsed);
  if (!selector.ok()) return usage_error(selector.error());
  if (selector->items.empty()) return usage_error("no job: name the jobs to hold");
  pb::Request request;
  wire::to_pb(*selector, *request.mutable_hold()->mutable_jobs());
  return operate(parsed, request);
}

int command_release(const Parsed& parsed) {
  const auto selector = selector_of(parsed);
  if (!selector.ok()) return usage_error(selector.error());
  if (selector->items.empty()) return usage_error("no job: name the jobs to release");
  pb::Request request;
  wire::to_pb(*selector, *request.mutable_release()->mutable_jobs());
  return operate(parsed, request);
}

int command_running(Command command, const Parsed& parsed) {
  const auto selector = selector_of(parsed);
  if (!selector.ok()) return usage_error(selector.error());
  const std::string name = command_info(command).name;
  if (selector->items.empty()) return usage_error("no job: name the jobs to " + name);
  pb::Request request;
  pb::JobsRequest* const jobs = command == kRequeue   ? request.mutable_requeue()
                                : command == kSuspend ? request.mutable_suspend()
                                                      : request.mutable_continue_jobs();
  wire::to_pb(*selector, *jobs->mutable_jobs());
  return operate(parsed, request);
}

int command_logs(const Parsed& parsed) {
  if (parsed.operands.size() != 1) return usage_error("logs needs one job: muster logs JOB");
  const auto ref = parse_job_ref(parsed.operands.front());
  if (!ref.ok()) return usage_error(ref.error());
  LogsOptions options;
  options.connect = connect_options(parsed);
  options.job = ref->item.id.value;
  if (ref->item.has_indices) {
    if (ref->item.indices.size() != 1 || ref->item.indices[0].count() != 1)
      return usage_error("job " + parsed.operands.front() + ": logs shows one task: write " +
                         std::to_string(options.job) + "_INDEX");
    options.has_array_task = true;
    options.array_task = ref->item.indices[0].first;
  }
  options.follow = parsed.has(OptionId::kFollow);
  options.stderr_file = parsed.has(OptionId::kErrFile);
  if (ref->step) {
    options.has_step = true;
    options.step = *ref->step;
  }
  for (const auto& [id, has, value] : {std::tuple{OptionId::kStep, &options.has_step, &options.step},
                                       {OptionId::kTask, &options.has_task, &options.task}}) {
    if (const Given* given = parsed.last(id)) {
      const auto number = parse_count(*given->value, given->source, {0, UINT32_MAX});
      if (!number.ok()) return usage_error(number.error());
      *has = true;
      *value = static_cast<std::uint32_t>(*number);
    }
  }
  return show_logs(options);
}

}  // namespace muster::cli
