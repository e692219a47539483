#include "cli/run_access.h"

#include <cstdlib>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/model/outcome.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr std::size_t kTicketFileMax = 64U << 10U;

std::string variable(const char* name) {
  const char* value = ::getenv(name);
  return value != nullptr ? value : "";
}

Result<std::optional<std::string>> end_of_job(Client& client, std::uint64_t job, Duration patience) {
  pb::Request request;
  auto& wait = *request.mutable_wait();
  wait.set_job(job);
  wait.set_until_ended(true);
  wait.set_timeout_us(patience.us);
  MUSTER_ASSIGN(const pb::Reply reply, client.call(request, patience + Duration::from_s(1)));
  if (reply.jobs().jobs_size() == 0) {
    return std::optional("job " + std::to_string(job) + " is gone: see `muster history`");
  }
  const pb::JobView& view = reply.jobs().jobs(0);
  const auto state = static_cast<JobState>(view.state());
  if (!is_terminal(state)) {
    return std::optional<std::string>();
  }
  const std::string& why = view.reason_detail().empty() ? view.reason() : view.reason_detail();
  return std::optional("job " + std::to_string(job) + " has ended (" + std::string(to_string(state)) + ")" +
                       (why.empty() ? "" : ": " + printable(why)));
}

}  // namespace

Result<Access> access_inside(std::uint64_t job) {
  Access access;
  access.job = job;
  MUSTER_ASSIGN(access.ticket, io::read_file(variable("MUSTER_TICKET_FILE"), kTicketFileMax));
  access.node = {.name = variable("MUSTER_NODE_NAME"),
                 .endpoint = variable("MUSTER_NODE_ENDPOINT"),
                 .public_key = variable("MUSTER_NODE_KEY")};
  if (access.node.name.empty()) {
    access.node.name = variable("SLURMD_NODENAME");
  }
  access.key = make_ephemeral_key();
  return access;
}

bool is_inside(std::uint64_t job) {
  return variable("MUSTER_JOB_ID") == std::to_string(job) && !variable("MUSTER_TICKET_FILE").empty() &&
         !variable("MUSTER_NODE_ENDPOINT").empty();
}

Result<Access> access_by_controller(Client& client, std::uint64_t job) {
  pb::Request request;
  request.mutable_ticket()->set_job(job);
  request.mutable_ticket()->set_client_key(client.public_key());
  MUSTER_ASSIGN(const pb::Reply reply, client.call(request));
  if (!reply.has_ticket()) {
    return make_error(ErrorCode::kCorrupt, "the controller's answer is of another kind: are both of a like version?");
  }
  Access access;
  access.job = job;
  access.ticket = reply.ticket().ticket().SerializeAsString();
  access.node = {
      .name = reply.ticket().node(), .endpoint = reply.ticket().endpoint(), .public_key = reply.ticket().public_key()};
  access.key = {.public_key = client.public_key(), .secret_key = client.secret_key()};
  access.obtained = io::boottime_now();
  access.renew = [&client, job]() -> Result<std::string> {
    MUSTER_ASSIGN(const Access fresh, access_by_controller(client, job));
    return fresh.ticket;
  };
  access.job_end = [&client, job](Duration wait) { return end_of_job(client, job, wait); };
  return access;
}

}  // namespace muster::cli
