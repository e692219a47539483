#include "noded/step_service.h"

#include <map>
#include <optional>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/allocation_holder.h"
#include "noded/logs_service.h"
#include "noded/step_coordinator.h"
#include "noded/step_part.h"
#include "noded/ticket.h"

namespace muster::noded {
namespace {

// A connection to a peer that no step has used for this long is closed.
constexpr Duration kLinkIdle = Duration::from_s(60);
constexpr std::size_t kStreamIdBytes = 8;
// What a message left to do waits at most this long.
constexpr Duration kSoon = Duration::from_ms(10);

}  // namespace

struct StepService::Impl {
  struct Link {
    std::optional<io::ZmqSocket> socket;
    Duration used;
  };

  StepServiceOptions options;
  StepParts parts;
  StepCoordinator coordinator;
  AllocationHolder holder;
  LogsService logs;
  std::map<std::string, Link> links;  // by endpoint and key
  io::Timer timer;
  Duration timer_due;

  explicit Impl(StepServiceOptions o)
      : options(std::move(o)),
        parts(*options.attempts,
              [this](const CoordinatorAddress& to, const pb::NodeReply& reply) { from_part(to, reply); }),
        coordinator(CoordinatorOptions{
            .attempts = options.attempts,
            .to_client = [this](const ClientAddress& to, const pb::NodeReply& reply) { return to_client(to, reply); },
            .to_part = [this](const Peer& node, bool here,
                              const pb::NodeRequest& request) { to_part(node, here, request); },
            .now = [] { return io::boottime_now(); },
            .client_lost_after = options.client_lost_after,
            .client_awaited = options.client_awaited,
            .peer_start_patience = options.peer_start_patience,
            .part_keepalive = options.part_keepalive}),
        holder(
            {.attempts = options.attempts,
             .to_client = [this](const ClientAddress& to, const pb::NodeReply& reply) { return to_client(to, reply); },
             .now = io::boottime_now,
             .client_lost_after = options.client_lost_after,
             .client_awaited = options.client_awaited}),
        logs(*options.loop, *options.attempts,
             [this](const ClientAddress& to, const pb::NodeReply& reply) { return to_client(to, reply); }),
        timer(*options.loop, [this] { tick(); }) {
    options.attempts->on_running([this](AttemptKey key, const std::vector<std::uint32_t>& steps) {
      if (const Result<AttemptInfo> info = options.attempts->find(key)) {
        coordinator.attempt_running(*info, steps);
        holder.attempt_running(*info);
      }
      parts.attempt_running(key);
      wake();
    });
    options.attempts->on_ended([this](AttemptKey key, const Outcome& outcome) {
      coordinator.attempt_ended(key, outcome);
      holder.attempt_ended(key, outcome);
      parts.attempt_ended(key);
    });
  }

  Status to_client(const ClientAddress& to, const pb::NodeReply& reply) {
    return options.send(to.peer, {wire::header(wire::MessageKind::kNodeReply), reply.SerializeAsString(), to.stream});
  }

  void from_part(const CoordinatorAddress& to, const pb::NodeReply& reply) {
    if (to.is_here()) {
      coordinator.on_part(options.attempts->identity().name, reply);
      wake();
      return;
    }
    // A coordinator that is not connected takes the step up again when it is back.
    (void)options.send(to.peer,
                       {wire::header(wire::MessageKind::kNodeReply), reply.SerializeAsString(), std::string()});
  }

  void to_part(const Peer& node, bool here, const pb::NodeRequest& request) {
    if (here) {
      parts.handle(CoordinatorAddress{}, request);
      return;
    }
    Link& link = links[node.endpoint + " " + node.public_key];
    link.used = io::boottime_now();
    if (!link.socket) {
      io::ZmqOptions zmq;
      zmq.curve_client = io::CurveClient{.public_key = options.node_key.pub.curve_public,
                                         .secret_key = options.node_key.curve_secret,
                                         .server_key = node.public_key};
      zmq.reconnect_min = Duration::from_ms(20);
      auto created =
          io::ZmqSocket::create(*options.loop, *options.context, io::ZmqSocket::Type::kDealer, zmq,
                                [this, name = node.name](const io::ZmqMessage& message) { from_link(name, message); });
      if (!created) {
        io::log_error("cannot make a socket for a peer", {{"peer", node.name}, {"error", created.error().message}});
        return;
      }
      link.socket.emplace(std::move(*created));
      if (const Status status = link.socket->connect(node.endpoint); !status) {
        io::log_error("cannot connect to a peer", {{"peer", node.name}, {"error", status.error().message}});
        link.socket.reset();
        return;
      }
    }
    const Status sent =
        link.socket->send({wire::header(wire::MessageKind::kNodeRequest), request.SerializeAsString(), std::string()});
    if (!sent) {
      io::log_warning("a message to a peer was dropped", {{"peer", node.name}, {"error", sent.error().message}});
    }
  }

  void from_link(const std::string& node, const io::ZmqMessage& message) {
    pb::NodeReply reply;
    if (message.frames.size() < 2) {
      return;
    }
    const Result<wire::MessageKind> kind = wire::parse_header(message.frames[0]);
    if (!kind || *kind != wire::MessageKind::kNodeReply || !reply.ParseFromString(message.frames[1])) {
      io::log_warning("a damaged message of a peer was dropped", {{"peer", node}});
      return;
    }
    coordinator.on_part(node, reply);
    wake();
  }

  void refuse(const ClientAddress& client, const Error& error) {
    pb::NodeReply reply;
    reply.mutable_refused()->set_code(static_cast<std::uint32_t>(error.code));
    reply.mutable_refused()->set_message(error.message);
    (void)to_client(client, reply);
  }

  Result<Ticket> check(const ClientAddress& client, const pb::Ticket& ticket) const {
    return check_ticket(options.cluster_key, ticket.body(), ticket.signature(), client.key, io::wall_now());
  }

  // The attempt a step's ticket is about, if this node is its first node; other nodes point there.
  std::optional<AttemptInfo> first_node_attempt(const ClientAddress& client, const Ticket& ticket) {
    const Result<AttemptInfo> info = options.attempts->find(ticket.key);
    if (!info) {
      refuse(client, make_error(info.error().code, "job " + std::to_string(ticket.key.job.value) +
                                                       " does not run on this node (any more)"));
      return std::nullopt;
    }
    if (info->order->node_rank != 0) {
      const Peer& first = info->order->peers.front();
      pb::NodeReply reply;
      reply.mutable_redirect()->set_endpoint(first.endpoint);
      reply.mutable_redirect()->set_public_key(first.public_key);
      reply.mutable_redirect()->set_node(first.name);
      (void)to_client(client, reply);
      return std::nullopt;
    }
    return *info;
  }

  void on_request(const io::ZmqMessage& message, const pb::NodeRequest& request, const std::string& stream) {
    const ClientAddress client{.peer = message.peer, .key = message.user_id, .stream = stream};
    if (client.key.empty()) {  // an empty key stands for this node itself further on
      return refuse(client, make_error(ErrorCode::kPermissionDenied, "the connection is not authenticated: use CURVE"));
    }
    switch (request.body_case()) {
      case pb::NodeRequest::kPeerStart:
      case pb::NodeRequest::kPeerInput:
      case pb::NodeRequest::kPeerSignal:
      case pb::NodeRequest::kPeerCredit:
      case pb::NodeRequest::kPeerResume:
      case pb::NodeRequest::kPeerKeepalive:
      case pb::NodeRequest::kPeerForget:
        parts.handle(CoordinatorAddress{.peer = message.peer, .key = message.user_id}, request);
        return;
      case pb::NodeRequest::BODY_NOT_SET:
        return refuse(client, invalid_argument("this node's daemon does not know the request: it may be older"));
      default:
        break;
    }
    if (stream.size() != kStreamIdBytes) {
      return refuse(client, invalid_argument("the request has no stream id of 8 bytes"));
    }
    if (request.has_run() || request.has_resume() || request.has_hold_allocation()) {
      const Result<Ticket> ticket = check(client, request.has_run()      ? request.run().ticket()
                                                  : request.has_resume() ? request.resume().ticket()
                                                                         : request.hold_allocation().ticket());
      if (!ticket) {
        return refuse(client, ticket.error());
      }
      const std::optional<AttemptInfo> info = first_node_attempt(client, *ticket);
      if (!info) {
        return;
      }
      if (request.has_run()) {
        coordinator.run(client, *ticket, *info, request.run());
      } else if (request.has_hold_allocation()) {
        holder.hold(client, *ticket, *info);
      } else {
        coordinator.resume(client, *ticket, *info, request.resume());
      }
      return;
    }
    if (request.has_logs()) {
      const Result<Ticket> ticket = check(client, request.logs().ticket());
      if (!ticket) {
        return refuse(client, ticket.error());
      }
      return logs.open(client, *ticket, request.logs());
    }
    if (logs.on_client(client, request) || holder.on_client(client, request)) {
      return;
    }
    coordinator.on_client(client, request);
  }

  void on_message(const io::ZmqMessage& message) {
    pb::NodeRequest request;
    if (message.frames.size() < 2 || message.frames.size() > 3) {
      io::log_warning("a message with a wrong number of frames was dropped", {{"frames", message.frames.size()}});
      return;
    }
    const Result<wire::MessageKind> kind = wire::parse_header(message.frames[0]);
    if (!kind || *kind != wire::MessageKind::kNodeRequest || message.frames[1].size() > wire::kMessageBytesMax ||
        !request.ParseFromString(message.frames[1])) {
      io::log_warning("a damaged message was dropped", {{"from", message.user_id}});
      return;
    }
    on_request(message, request, message.frames.size() == 3 ? message.frames[2] : std::string());
    wake();
  }

  // Has tick() run soon: whatever just happened may have something due.
  void wake() { start_timer(kSoon); }

  void start_timer(Duration delay) {
    const Duration due = io::boottime_now() + delay;
    if (!timer.active() || due < timer_due) {
      timer_due = due;
      timer.start_once(delay);
    }
  }

  void tick() {
    std::optional<Duration> again = coordinator.tick();
    if (const std::optional<Duration> look = holder.tick()) {
      again = again ? std::min(*again, *look) : look;
    }
    const Duration now = io::boottime_now();
    std::erase_if(links, [&](const auto& entry) { return now - entry.second.used > kLinkIdle; });
    if (!again && !links.empty()) {
      again = kLinkIdle;
    }
    if (again) {
      start_timer(*again);
    }
  }
};

StepService::StepService(StepServiceOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
StepService::~StepService() = default;

void StepService::on_message(const io::ZmqMessage& message) {
  impl_->on_message(message);
}

}  // namespace muster::noded
