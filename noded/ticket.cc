#include "noded/ticket.h"

#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::noded {
namespace {

Error denied(const std::string& message) {
  return make_error(ErrorCode::kPermissionDenied, message);
}

}  // namespace

Result<Ticket> check_ticket(const io::PublicKey& cluster_key, std::string_view body, std::string_view signature,
                            std::string_view client_key, Instant now) {
  if (body.empty()) {
    return denied("the request carries no ticket: ask the controller for one");
  }
  if (body.size() > kTicketBytesMax) {
    return make_error(ErrorCode::kCorrupt, "the ticket is larger than any ticket: ask the controller for a new one");
  }
  if (!io::verify(cluster_key, body, signature)) {
    return denied("the ticket is not signed by this cluster's controller: ask the controller for a new one");
  }
  pb::TicketBody pb;
  if (!pb.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    return make_error(ErrorCode::kCorrupt, "the ticket is damaged: ask the controller for a new one");
  }
  Ticket ticket;
  ticket.key = wire::from_pb(pb.key());
  ticket.user = pb.user();
  ticket.uid = pb.uid();
  ticket.gid = pb.gid();
  ticket.client_key = pb.client_key();
  ticket.expires = Instant::from_us(pb.expires_us());
  ticket.stdout_path = pb.stdout_path();
  ticket.stderr_path = pb.stderr_path();
  ticket.node = pb.node();
  if (ticket.expires + kTicketClockSlack < now) {
    return denied("the ticket has expired: ask the controller for a new one");
  }
  if (!ticket.client_key.empty() && ticket.client_key != client_key) {
    return denied("the ticket was made for another key: ask the controller for one of your own");
  }
  return ticket;
}

}  // namespace muster::noded
