#include "noded/controller_link.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/hash.h"
#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::noded {
namespace {

// How often the link looks at its times.
constexpr Duration kTick = Duration::from_ms(100);
// A registration that was not answered is sent again, and one that could not be sent is tried at every tick.
constexpr Duration kRegisterInterval = Duration::from_s(1);
constexpr Duration kRefusedPause = Duration::from_s(5);
// A controller that answers nothing for so many heartbeats, and for at least this time, is taken for lost.
constexpr std::int64_t kMissedHeartbeats = 4;
constexpr Duration kSilenceMin = Duration::from_s(5);
// With several endpoints, one that accepts no registration for this time makes room for the next.
constexpr Duration kEndpointPatience = Duration::from_s(3);
constexpr Duration kRetryInterval = Duration::from_s(5);
// Reports in one message, about 60 bytes each.
constexpr std::size_t kReportsMax = 10'000;

Digest digest_of(const std::string& bytes) {
  Digest digest;
  if (bytes.size() == digest.bytes.size()) {
    std::memcpy(digest.bytes.data(), bytes.data(), bytes.size());
  }
  return digest;
}

std::string bytes_of(const Digest& digest) {
  return {digest.bytes.begin(), digest.bytes.end()};
}

}  // namespace

std::shared_ptr<const std::string> BlobCache::find(const Digest& digest) {
  auto it = entries_.find(digest);
  if (it == entries_.end()) {
    return nullptr;
  }
  order_.splice(order_.begin(), order_, it->second.place);
  return it->second.bytes;
}

void BlobCache::insert(const Digest& digest, std::string bytes) {
  if (entries_.contains(digest)) {
    return;
  }
  bytes_ += bytes.size();
  order_.push_front(digest);
  entries_.emplace(digest, Entry{std::make_shared<const std::string>(std::move(bytes)), order_.begin()});
  while (bytes_ > kBytesMax && order_.size() > 1) {
    auto oldest = entries_.find(order_.back());
    bytes_ -= oldest->second.bytes->size();
    entries_.erase(oldest);
    order_.pop_back();
  }
}

ControllerLink::ControllerLink(ControllerLinkOptions options)
    : options_(std::move(options)), tick_(*options_.loop, [this] { on_tick(); }) {}

ControllerLink::~ControllerLink() = default;

Status ControllerLink::start() {
  MUSTER_TRY(open_socket());
  tick_.start_repeating(kTick);
  on_tick();
  return ok_status();
}

Status ControllerLink::open_socket() {
  io::ZmqOptions zmq;
  zmq.curve_client = io::CurveClient{options_.key.pub.curve_public, options_.key.curve_secret, options_.controller_key};
  zmq.only_connected = true;
  zmq.message_bytes_max = static_cast<std::int64_t>(wire::kMessageBytesMax) * 8;  // a batch of launches with blobs
  zmq.heartbeat_interval = Duration::from_s(5);
  zmq.heartbeat_timeout = Duration::from_s(15);
  zmq.reconnect_max = Duration::from_s(1);
  socket_.reset();
  auto socket = io::ZmqSocket::create(*options_.loop, *options_.context, io::ZmqSocket::Type::kDealer, zmq,
                                      [this](const io::ZmqMessage& message) { on_message(message); });
  if (!socket.ok()) {
    return socket.error();
  }
  socket_.emplace(std::move(*socket));
  opened_ = io::boottime_now();
  asked_ = Duration{};
  const std::string& endpoint = options_.endpoints[endpoint_ % options_.endpoints.size()];
  io::log_debug("connecting", {{"controller", endpoint}});
  return socket_->connect(endpoint);
}

void ControllerLink::on_tick() {
  const Duration now = io::boottime_now();
  if (!registered_) {
    if (options_.endpoints.size() > 1 && now - opened_ > kEndpointPatience) {
      ++endpoint_;
      if (const Status status = open_socket(); !status.ok()) {
        io::log_error("cannot connect", {{"error", status.error().message}});
        return;
      }
    }
    if (now - asked_ > kRegisterInterval) {
      register_node();
    }
    return;
  }
  const Duration silence{std::max(options_.heartbeat_interval.us * kMissedHeartbeats, kSilenceMin.us)};
  if (now - heard_ > silence) {
    lose("it does not answer");
    return;
  }
  if (now - beat_ >= options_.heartbeat_interval) {
    beat_ = now;
    pb::NodeMessage message;
    message.mutable_heartbeat()->set_sequence(++sequence_);
    message.mutable_heartbeat()->set_term(options_.attempts->term().value);
    if (!send(message)) {
      lose("the connection is gone");
      return;
    }
  }
  if (now - retried_ > kRetryInterval) {
    retried_ = now;
    options_.attempts->retry_reports(kReportsMax);
  }
}

void ControllerLink::lose(const char* why) {
  registered_ = false;
  asked_ = Duration{};
  reports_.clear();
  opened_ = io::boottime_now();
  io::log_warning("controller lost", {{"reason", why}});
}

bool ControllerLink::send(const pb::NodeMessage& message) {
  return socket_ && socket_->send({wire::header(wire::MessageKind::kNodeMessage), message.SerializeAsString()}).ok();
}

void ControllerLink::register_node() {
  const NodeIdentity& identity = options_.attempts->identity();
  NodeRegistration registration;
  registration.name = identity.name;
  registration.hardware = identity.hardware;
  if (identity.topology != nullptr) {
    registration.topology = *identity.topology;
  }
  registration.features = identity.features;
  registration.enforcement = identity.enforcement;
  registration.has_prolog = identity.has_prolog;
  registration.boot_id = options_.boot_id;
  registration.endpoint = identity.endpoint;
  registration.public_key = identity.public_key;
  registration.attempts = options_.attempts->registered_attempts();
  if (options_.health) {
    registration.problems = options_.health();
  }
  // A clock that every life of the daemon in this boot reads makes the sequence rise over all of them.
  registration_sequence_ = std::max(registration_sequence_ + 1, static_cast<std::uint64_t>(io::boottime_now().us));
  registration.sequence = registration_sequence_;
  pb::NodeMessage message;
  wire::to_pb(registration, *message.mutable_registration());
  if (send(message)) {
    asked_ = io::boottime_now();
  }
}

void ControllerLink::report(const AttemptReport& report) {
  if (!registered_) {
    return;
  }
  reports_.push_back(report);
  if (!std::exchange(reports_due_, true)) {
    options_.loop->defer([this] { send_reports(); });
  }
}

void ControllerLink::report_health() {
  if (!registered_ || !options_.health) {
    return;
  }
  pb::NodeMessage message;
  wire::to_pb(options_.health(), *message.mutable_health());
  if (!send(message)) {
    lose("the connection is gone");
  }
}

// The controller read its clock about in the middle between question and answer.
void ControllerLink::on_heartbeat(std::uint64_t sequence, Instant controller_now) {
  if (!options_.clock || !controller_now.is_set() || sequence != sequence_) {
    return;
  }
  const Duration round_trip = io::boottime_now() - beat_;
  const Instant here = io::wall_now() - Duration{round_trip.us / 2};
  options_.clock(here - controller_now, round_trip);
}

void ControllerLink::send_reports() {
  reports_due_ = false;
  for (std::size_t begin = 0; begin < reports_.size(); begin += kReportsMax) {
    pb::NodeMessage message;
    for (std::size_t i = begin; i < std::min(begin + kReportsMax, reports_.size()); ++i) {
      wire::to_pb(reports_[i], *message.mutable_reports()->add_reports());
    }
    if (!send(message)) {
      lose("the connection is gone");
      return;
    }
  }
  reports_.clear();
}

void ControllerLink::on_message(const io::ZmqMessage& message) {
  if (message.frames.size() != 2) {
    io::log_warning("dropped a message of the controller", {{"frames", message.frames.size()}});
    return;
  }
  const auto kind = wire::parse_header(message.frames[0]);
  pb::ControllerMessage body;
  if (!kind.ok() || *kind != wire::MessageKind::kControllerMessage || !body.ParseFromString(message.frames[1])) {
    io::log_warning("dropped a message of the controller",
                    {{"error", kind.ok() ? std::string("it cannot be read") : kind.error().message}});
    return;
  }
  const Term before = options_.attempts->term();
  if (!options_.attempts->hear_term(Term{body.term()})) {
    io::log_warning("dropped a message of a controller that was replaced", {{"term", body.term()}});
    return;
  }
  heard_ = io::boottime_now();
  using Body = pb::ControllerMessage::BodyCase;
  switch (body.body_case()) {
    case Body::kRegistered:
      if (!std::exchange(registered_, true)) {
        beat_ = heard_;
        retried_ = heard_;
        io::log_info(ever_registered_ ? "registered again" : "registered",
                     {{"cluster", body.registered().cluster()}, {"term", body.term()}});
        ever_registered_ = true;
      }
      return;
    case Body::kHeartbeat:
      on_heartbeat(body.heartbeat().sequence(), Instant::from_us(body.heartbeat().now_us()));
      break;
    case Body::kAskHealth:
      if (options_.check_health) {
        options_.check_health();
      }
      break;
    case Body::kLaunches:
      on_launches(body.launches());
      break;
    case Body::kStop: {
      auto order = wire::from_pb(body.stop());
      if (order.ok()) {
        options_.attempts->on_stop(*order);
      } else {
        io::log_warning("dropped a stop", {{"error", order.error().message}});
      }
      break;
    }
    case Body::kLimit: {
      auto order = wire::from_pb(body.limit());
      if (order.ok()) {
        options_.attempts->on_limit(*order);
      } else {
        io::log_warning("dropped a time limit", {{"error", order.error().message}});
      }
      break;
    }
    case Body::kSuspend: {
      auto order = wire::from_pb(body.suspend());
      if (order.ok()) {
        options_.attempts->on_suspend(*order);
      } else {
        io::log_warning("dropped a suspension", {{"error", order.error().message}});
      }
      break;
    }
    case Body::kAcks:
      for (const pb::AttemptKey& key : body.acks().keys()) {
        options_.attempts->on_acknowledged(wire::from_pb(key));
      }
      break;
    case Body::kRegisterAgain:
      registration_sequence_ = std::max(registration_sequence_, body.register_again().sequence_above());
      lose("it asks for a new registration");
      register_node();
      return;
    case Body::kRefused:
      io::log_error("the controller refuses this node", {{"error", printable(body.refused().message())}});
      asked_ = heard_ + kRefusedPause;  // an administrator has to act first
      return;
    case Body::BODY_NOT_SET:
      break;  // of a newer controller
  }
  if (registered_ && options_.attempts->term() > before) {
    lose("it was restarted");
    register_node();
  }
}

void ControllerLink::on_launches(const pb::Launches& message) {
  for (const pb::Blob& blob : message.blobs()) {
    const io::Hash hash = io::blake2b_256(blob.data());
    if (blob.digest() != std::string(hash.begin(), hash.end())) {
      io::log_error("dropped a damaged script or environment", {{"bytes", blob.data().size()}});
      continue;
    }
    blobs_.insert(digest_of(blob.digest()), blob.data());
  }
  pb::NodeMessage needs;
  const auto take = [&](const Digest& digest, std::shared_ptr<const std::string>& out) {
    if (!digest.is_set()) {
      out = std::make_shared<const std::string>();
      return true;
    }
    out = blobs_.find(digest);
    if (out == nullptr) {
      needs.mutable_need_blobs()->add_digests(bytes_of(digest));
    }
    return out != nullptr;
  };
  for (const pb::Launch& launch : message.launches()) {
    auto order = wire::from_pb(launch.order());
    if (!order.ok() || order->spec == nullptr) {
      const std::string why = order.ok() ? "it names no job" : order.error().message;
      if (launch.order().key().job() == 0) {
        io::log_warning("dropped a launch", {{"error", why}});
      } else {
        // The controller must hear of it, or the job would wait for ever.
        options_.attempts->on_launch_refused(wire::from_pb(launch.order().key()),
                                             "the node cannot read the launch: " + why);
      }
      continue;
    }
    LaunchData data;
    data.ticket = launch.has_ticket() ? launch.ticket().SerializeAsString() : std::string();
    const bool runs_script = order->node_rank == 0 && order->spec->kind == JobKind::kBatch;
    if (runs_script && !options_.attempts->knows(order->key)) {
      // Both are asked for in one go.
      const bool has_script = take(order->spec->script, data.script);
      const bool has_environment = take(order->spec->environment, data.environment);
      if (!has_script || !has_environment) {
        wire::to_pb(order->key, *needs.mutable_need_blobs()->add_launches());
        continue;
      }
    }
    data.order = std::make_shared<const LaunchOrder>(std::move(*order));
    options_.attempts->on_launch(data);
  }
  if (needs.has_need_blobs()) {
    send(needs);
  }
}

}  // namespace muster::noded
