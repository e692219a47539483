#include "ctld/tickets.h"

#include "ctld/views.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

void fill(const JobSpec& spec, const OutputPaths& paths, const std::string& node, pb::TicketBody& body) {
  body.set_user(spec.user);
  body.set_uid(spec.uid);
  body.set_gid(spec.gid);
  body.set_stdout_path(paths.stdout_path);
  body.set_stderr_path(paths.stderr_path);
  body.set_node(node);
}

void seal(const io::Key& key, const pb::TicketBody& body, pb::Ticket& out) {
  out.set_body(body.SerializeAsString());
  out.set_signature(io::sign(key, out.body()));
}

}  // namespace

void Tickets::for_job(const LaunchOrder& order, Instant now, pb::Ticket& out) const {
  pb::TicketBody body;
  body.mutable_key()->set_job(order.key.job.value);
  body.mutable_key()->set_attempt(order.key.attempt.value);
  const std::string node = order.peers.empty() ? order.node : order.peers.front().name;
  const std::uint64_t position = order.array.value != 0 ? order.key.job.value - order.array.value : 0;
  fill(*order.spec, output_paths(*order.spec, order.key.job, order.array, position, node), node, body);
  // Not by its time limit, which may be raised while the job holds the ticket. It is of no use when the job has ended.
  const Duration life = Duration::from_s(10LL * 365 * 86'400);
  body.set_expires_us((now + life + kJobTicketSlack).us);
  seal(key_, body, out);
}

void Tickets::for_client(const Job& job, const std::string& node, const std::string& client_key, Instant now,
                         pb::Ticket& out) const {
  pb::TicketBody body;
  body.mutable_key()->set_job(job.id.value);
  body.mutable_key()->set_attempt(job.attempt.value);
  fill(*job.spec, output_paths(*job.spec, job.id, job.array, job.array_position, node), node, body);
  body.set_client_key(client_key);
  body.set_expires_us((now + kClientTicketLife).us);
  seal(key_, body, out);
}

void Tickets::for_client(const JobSummary& job, const std::string& client_key, Instant now, pb::Ticket& out) const {
  pb::TicketBody body;
  body.mutable_key()->set_job(job.id.value);
  const std::string node = job.nodes.empty() ? "" : job.nodes.front();
  fill(*job.spec, output_paths(*job.spec, job.id, job.array, job.array_position, node), node, body);
  body.set_client_key(client_key);
  body.set_expires_us((now + kClientTicketLife).us);
  seal(key_, body, out);
}

}  // namespace muster::ctld
