#include "cli/query.h"

#include <algorithm>

#include "cli/commands.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/table.h"
#include "lib/model/outcome.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

// The controller answers a wait at the latest after this time, so that a connection that died is noticed.
constexpr Duration kWaitSlice = Duration::from_s(30);

}  // namespace

Status fetch_jobs(Client& client, pb::Request& request, std::vector<pb::JobView>& jobs,
                  std::vector<std::string>& notes) {
  return client.call_parts(
      request,
      [&](pb::Reply& reply) -> Status {
        if (!reply.has_jobs())
          return make_error(ErrorCode::kCorrupt,
                            "the controller's answer is no list of jobs: are both of a like version?");
        for (pb::JobView& job : *reply.mutable_jobs()->mutable_jobs()) jobs.push_back(std::move(job));
        for (const std::string& note : reply.jobs().notes()) notes.push_back(note);
        return ok_status();
      },
      [&] {
        jobs.clear();
        notes.clear();
      });
}

Result<std::vector<pb::JobView>> find_job(Client& client, const JobSelector::Item& item, bool with_placement,
                                          bool with_explanation) {
  pb::Request request;
  pb::JobQuery& query = *request.mutable_jobs();
  JobSelector selector;
  selector.items.push_back(item);
  wire::to_pb(selector, *query.mutable_jobs());
  query.set_with_ended(true);
  query.set_with_placement(with_placement);
  query.set_with_explanation(with_explanation);
  std::vector<pb::JobView> jobs;
  std::vector<std::string> notes;
  MUSTER_TRY(fetch_jobs(client, request, jobs, notes));
  if (jobs.empty()) {
    std::string shown = std::to_string(item.id.value);
    if (item.has_indices) {
      const std::string indices = format_array_spec(ArraySpec{item.indices, 0});
      shown += indices.find_first_not_of("0123456789") == std::string::npos ? "_" + indices : "_[" + indices + "]";
    }
    return make_error(ErrorCode::kNotFound, "job " + shown + ": no such job: see `muster queue` and `muster history`");
  }
  return jobs;
}

Result<std::vector<pb::NodeView>> fetch_nodes(Client& client, const std::vector<std::string>& names,
                                              bool with_topology) {
  pb::Request request;
  request.mutable_nodes()->set_with_topology(with_topology);
  for (const std::string& name : names) request.mutable_nodes()->add_names(name);
  std::vector<pb::NodeView> nodes;
  std::vector<std::string> notes;
  MUSTER_TRY(client.call_parts(
      request,
      [&](pb::Reply& reply) -> Status {
        if (!reply.has_nodes())
          return make_error(ErrorCode::kCorrupt,
                            "the controller's answer is no list of nodes: are both of a like version?");
        for (pb::NodeView& node : *reply.mutable_nodes()->mutable_nodes()) nodes.push_back(std::move(node));
        for (const std::string& note : reply.nodes().notes()) notes.push_back(note);
        return ok_status();
      },
      [&] {
        nodes.clear();
        notes.clear();
      }));
  if (!notes.empty()) return make_error(ErrorCode::kNotFound, notes.front());
  for (const std::string& name : names) {
    const bool found =
        std::any_of(nodes.begin(), nodes.end(), [&](const pb::NodeView& node) { return node.name() == name; });
    if (!found) return make_error(ErrorCode::kNotFound, "node " + name + ": no such node: see `muster nodes`");
  }
  return nodes;
}

int report_operation(const pb::OperationReply& reply, bool json) {
  for (const std::string& note : reply.notes()) error_line(note);
  if (json) print(operation_json(reply));
  return reply.failed() ? kExitRefused : kExitOk;
}

Status wait_until_ended(Client& client, std::uint64_t job) {
  while (true) {
    pb::Request request;
    pb::WaitRequest& wait = *request.mutable_wait();
    wait.set_job(job);
    wait.set_until_ended(true);
    wait.set_timeout_us(kWaitSlice.us);
    MUSTER_ASSIGN(const pb::Reply reply, client.call(request, kWaitSlice + client.timeout()));
    // Ended when nothing of it that the controller shows is still on its way.
    bool ended = true;
    for (const pb::JobView& view : reply.jobs().jobs()) {
      if (!is_terminal(static_cast<JobState>(view.state())) || view.array_waiting_count() != 0) ended = false;
    }
    if (ended) return ok_status();
  }
}

int exit_status_of_jobs(const std::vector<pb::JobView>& jobs) {
  int worst = 0;
  for (const pb::JobView& job : jobs) {
    int status = 0;
    if (job.exit_signal() != 0) {
      status = 128 + job.exit_signal();
    } else if (job.exit_code() != 0) {
      status = job.exit_code();
    } else if (job.state() != static_cast<std::uint32_t>(JobState::kCompleted)) {
      status = kExitRefused;  // cancelled, timeout, ...: it has no status of its own
    }
    worst = std::max(worst, status);
  }
  return worst;
}

}  // namespace muster::cli
