#include "ctld/nodes.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "core/engine/launch.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/hash.h"
#include "lib/io/log.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {

// ---------------------------------------------------------------- blob cache

void BlobCache::put(const Digest& digest, Bytes bytes) {
  if (get(digest) != nullptr || bytes->size() > kBytesMax) {
    return;
  }
  bytes_ += bytes->size();
  order_.emplace_front(digest, std::move(bytes));
  entries_.emplace(digest, order_.begin());
  while (bytes_ > kBytesMax) {
    bytes_ -= order_.back().second->size();
    entries_.erase(order_.back().first);
    order_.pop_back();
  }
}

BlobCache::Bytes BlobCache::get(const Digest& digest) {
  const auto entry = entries_.find(digest);
  if (entry == entries_.end()) {
    return nullptr;
  }
  order_.splice(order_.begin(), order_, entry->second);
  return entry->second->second;
}

// ---------------------------------------------------------------- messages from nodes

Nodes::Nodes(io::Loop& loop, Options options, Pipeline& pipeline, Journal& journal, Outbox& outbox,
             const Tickets& tickets)
    : options_(std::move(options)),
      pipeline_(pipeline),
      journal_(journal),
      outbox_(outbox),
      tickets_(tickets),
      silence_timer_(loop, [this] { check_silence(); }) {}

Nodes::~Nodes() = default;

void Nodes::on_message(const std::string& peer, const std::string& name, const pb::NodeMessage& message) {
  if (message.has_registration()) {
    on_registration(peer, name, message);
    return;
  }
  const auto known = by_peer_.find(peer);
  const Link* link = known != by_peer_.end() ? link_of(known->second) : nullptr;
  if (link == nullptr || link->peer != peer ||
      pipeline_.state().nodes[known->second.value].contact != Contact::kConnected) {
    // A new term, a new connection, or a node that was given up: it must say what it has.
    pb::ControllerMessage again;
    again.set_term(pipeline_.state().term.value);
    again.mutable_register_again();
    (void)outbox_.send(peer, wire::MessageKind::kControllerMessage, again);
    return;
  }
  const NodeIndex node = known->second;
  links_[node.value].heard = io::boottime_now();
  switch (message.body_case()) {
    case pb::NodeMessage::kHeartbeat:
      on_heartbeat(peer, node, message);
      return;
    case pb::NodeMessage::kReports:
      on_reports(node, name, message);
      return;
    case pb::NodeMessage::kNeedBlobs:
      on_need_blobs(node, message.need_blobs());
      return;
    case pb::NodeMessage::kHealth:
      on_health(node, name, message);
      return;
    case pb::NodeMessage::kRegistration:
    case pb::NodeMessage::BODY_NOT_SET:
      return;  // from a later release: nothing that this one knows
  }
}

void Nodes::on_registration(const std::string& peer, const std::string& name, const pb::NodeMessage& message) {
  auto registration = wire::from_pb(message.registration());
  if (!registration.ok()) {
    refuse(peer, name, registration.error());
    return;
  }
  if (registration->name != name) {
    refuse(peer, name,
           make_error(ErrorCode::kPermissionDenied, "node " + printable(registration->name) + " uses the key of node " +
                                                        name + ": give it its own key (cluster.key)"));
    return;
  }
  const std::size_t attempts = registration->attempts.size();
  const std::size_t cpus = registration->hardware.cores.size();
  const std::size_t gpus = registration->hardware.gpus.size();
  auto decision = pipeline_.execute(RegisterNode{std::move(*registration)});
  if (!decision.ok()) {
    refuse(peer, name, decision.error());
    return;
  }
  if (decision->outdated_by != 0) {
    io::log_warning("a registration came too late", {{"node", name}});
    // Heard by nobody when the connection is an old one. A node whose clock went back must be let in some day.
    pb::ControllerMessage again;
    again.set_term(pipeline_.state().term.value);
    again.mutable_register_again()->set_sequence_above(decision->outdated_by);
    (void)outbox_.send(peer, wire::MessageKind::kControllerMessage, again);
    return;
  }
  const NodeIndex node = decision->node;
  if (const Link* old = link_of(node); old != nullptr && old->peer != peer) {
    drop(node, "it registered on another connection");
  }
  Link& link = links_[node.value];
  link = Link{peer, name, io::boottime_now(), {}};
  by_peer_[peer] = node;
  if (!silence_timer_.active()) {
    silence_timer_.start_repeating(std::max(Duration{options_.node_timeout.us / 4}, Duration::from_ms(100)));
  }
  io::log_info("node registered", {{"node", name}, {"cpus", cpus}, {"gpus", gpus}, {"attempts", attempts}});
  pipeline_.after_commit([this, peer] {
    pb::ControllerMessage reply;
    reply.set_term(pipeline_.state().term.value);
    reply.mutable_registered()->set_cluster(options_.cluster);
    (void)outbox_.send(peer, wire::MessageKind::kControllerMessage, reply);
  });
}

void Nodes::on_heartbeat(const std::string& peer, NodeIndex, const pb::NodeMessage& message) {
  pb::ControllerMessage reply;
  reply.set_term(pipeline_.state().term.value);
  reply.mutable_heartbeat()->set_sequence(message.heartbeat().sequence());
  reply.mutable_heartbeat()->set_now_us(io::wall_now().us);
  (void)outbox_.send(peer, wire::MessageKind::kControllerMessage, reply);
}

void Nodes::on_reports(NodeIndex node, const std::string& name, const pb::NodeMessage& message) {
  ReportAttempts command;
  command.node = name;
  for (const auto& in : message.reports().reports()) {
    auto report = wire::from_pb(in);
    if (!report.ok()) {
      refuse(links_[node.value].peer, name, report.error());
      return;
    }
    command.reports.push_back(std::move(*report));
  }
  if (const auto decision = pipeline_.execute(command); !decision.ok()) {
    refuse(links_[node.value].peer, name, decision.error());
  }
}

void Nodes::on_health(NodeIndex node, const std::string& name, const pb::NodeMessage& message) {
  auto problems = wire::from_pb(message.health());
  if (!problems.ok()) {
    refuse(links_[node.value].peer, name, problems.error());
    return;
  }
  const bool was_good = pipeline_.state().nodes[node.value].health.problems.empty();
  if (!problems->empty()) {
    io::log_warning(
        "a node's checks fail",
        {{"node", name}, {"checks", kind_of(NodeHealth{.problems = *problems})}, {"first", problems->front().text}});
  } else if (!was_good) {
    io::log_info("a node's checks pass again", {{"node", name}});
  }
  if (const auto decision = pipeline_.execute(ReportHealth{name, std::move(*problems)}); !decision.ok()) {
    refuse(links_[node.value].peer, name, decision.error());
  }
}

void Nodes::on_need_blobs(NodeIndex node, const pb::NeedBlobs& need) {
  // Only what the node's own launches need: a key of a node must not open every script.
  const auto& state = pipeline_.state();
  std::vector<LaunchOrder> orders;
  std::set<Digest> allowed;
  for (const auto& in : need.launches()) {
    const AttemptKey key = wire::from_pb(in);
    const Job* job = engine::find_job(state, key.job);
    const auto* active = job != nullptr ? std::get_if<Active>(&job->phase) : nullptr;
    if (active == nullptr || job->attempt != key.attempt) {
      continue;
    }
    for (std::size_t rank = 0; rank < active->nodes.size(); ++rank) {
      if (active->nodes[rank].share.node == node && active->nodes[rank].phase != NodePhase::kEnded) {
        allowed.insert(job->spec->script);
        allowed.insert(job->spec->environment);
        if (active->nodes[rank].phase == NodePhase::kLaunching) {
          orders.push_back(engine::launch_order(state, *job, *active, rank));
        }
      }
    }
  }
  std::vector<Digest> wanted;
  for (const auto& bytes : need.digests()) {
    Digest digest;
    if (bytes.size() != digest.bytes.size()) {
      continue;
    }
    std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
    if (digest.is_set() && allowed.contains(digest)) {
      wanted.push_back(digest);
    }
  }
  // What is launched is on disk only when the open batch is.
  pipeline_.after_commit([this, node, orders = std::move(orders), wanted = std::move(wanted)]() mutable {
    send_launches(node, std::move(orders), std::move(wanted));
  });
}

void Nodes::refuse(const std::string& peer, const std::string& name, const Error& error) {
  std::uint64_t dropped = 0;
  if (refusals_.allow(pipeline_.now(), dropped)) {
    io::log_warning("a node's message is refused", {{"node", name}, {"error", error.message}, {"unlogged", dropped}});
  }
  pb::ControllerMessage reply;
  reply.set_term(pipeline_.state().term.value);
  reply.mutable_refused()->set_code(static_cast<std::uint32_t>(error.code));
  reply.mutable_refused()->set_message(error.message);
  (void)outbox_.send(peer, wire::MessageKind::kControllerMessage, reply);
}

void Nodes::check_silence() {
  const Duration current = io::boottime_now();
  std::vector<NodeIndex> silent;
  for (const auto& [index, link] : links_) {
    if (current - link.heard > options_.node_timeout) {
      silent.emplace_back(index);
    }
  }
  std::sort(silent.begin(), silent.end());
  for (const NodeIndex node : silent) {
    drop(node, "it was not heard for node_timeout");
    (void)pipeline_.execute(LoseNode{node});
  }
  if (links_.empty()) {
    silence_timer_.stop();
  }
}

// ---------------------------------------------------------------- messages to nodes

Nodes::Link* Nodes::link_of(NodeIndex node) {
  const auto link = links_.find(node.value);
  return link == links_.end() ? nullptr : &link->second;
}

void Nodes::drop(NodeIndex node, const char* why) {
  const auto link = links_.find(node.value);
  if (link == links_.end()) {
    return;
  }
  io::log_warning("node's connection is given up", {{"node", link->second.name}, {"why", why}});
  by_peer_.erase(link->second.peer);
  links_.erase(link);
}

void Nodes::send(NodeIndex node, pb::ControllerMessage& message) {
  const Link* link = link_of(node);
  if (link == nullptr) {
    return;
  }
  message.set_term(pipeline_.state().term.value);
  const Status status = outbox_.send(link->peer, wire::MessageKind::kControllerMessage, message);
  if (!status.ok() && status.error().code == ErrorCode::kLimitReached) {
    // The node does not read. Its next heartbeat is answered with register_again, and then all that it is owed is sent.
    drop(node, "it does not read what it is sent");
  }
  // A peer that is gone comes back with a registration, or falls silent.
}

void Nodes::perform(const Effects& effects) {
  struct Owed {
    std::vector<const LaunchOrder*> launches;
    std::vector<AttemptKey> acks;
  };
  std::map<NodeIndex, Owed> owed;
  std::vector<const SendStop*> stops;
  std::vector<const SendLimit*> limits;
  std::vector<const SendSuspend*> suspensions;
  for (const auto& effect : effects) {
    if (const auto* launch = std::get_if<SendLaunch>(&effect)) {
      owed[launch->node].launches.push_back(&launch->order);
    } else if (const auto* ack = std::get_if<AcknowledgeReport>(&effect)) {
      owed[ack->node].acks.push_back(ack->key);
    } else if (const auto* stop = std::get_if<SendStop>(&effect)) {
      stops.push_back(stop);
    } else if (const auto* limit = std::get_if<SendLimit>(&effect)) {
      limits.push_back(limit);
    } else if (const auto* suspend = std::get_if<SendSuspend>(&effect)) {
      suspensions.push_back(suspend);
    } else if (const auto* ask = std::get_if<AskHealth>(&effect)) {
      pb::ControllerMessage message;
      message.mutable_ask_health();
      send(ask->node, message);
    }
  }
  for (const auto& [node, each] : owed) {
    if (!each.acks.empty()) {
      pb::ControllerMessage message;
      for (const auto& key : each.acks) {
        wire::to_pb(key, *message.mutable_acks()->add_keys());
      }
      send(node, message);
    }
    if (!each.launches.empty()) {
      launch(node, each.launches);
    }
  }
  // A stop that overtakes its launch is in order: the node remembers the attempt as ended.
  for (const auto* stop : stops) {
    pb::ControllerMessage message;
    wire::to_pb(stop->order, *message.mutable_stop());
    send(stop->node, message);
  }
  // One that overtakes its launch is lost on the node: the launch was made before it. So it is sent again when the node
  // says that it runs the attempt (AttemptConfirmed).
  for (const auto* limit : limits) {
    pb::ControllerMessage message;
    wire::to_pb(limit->order, *message.mutable_limit());
    send(limit->node, message);
  }
  for (const auto* suspend : suspensions) {
    pb::ControllerMessage message;
    wire::to_pb(suspend->order, *message.mutable_suspend());
    send(suspend->node, message);
  }
}

// Only the first node of a job runs its script.
void Nodes::launch(NodeIndex node, const std::vector<const LaunchOrder*>& orders) {
  Link* link = link_of(node);
  if (link == nullptr) {
    return;
  }
  for (std::size_t i = 0; i < orders.size(); i += kLaunchesPerMessage) {
    std::vector<LaunchOrder> some;
    std::vector<Digest> wanted;
    for (std::size_t k = i; k < std::min(orders.size(), i + kLaunchesPerMessage); ++k) {
      some.push_back(*orders[k]);
      if (orders[k]->node_rank != 0) {
        continue;
      }
      for (const Digest& digest : {orders[k]->spec->script, orders[k]->spec->environment}) {
        if (digest.is_set() && !link->blobs.contains(digest)) {
          if (link->blobs.size() >= kBlobsPerLinkMax) {
            link->blobs.clear();
          }
          link->blobs.insert(digest);
          wanted.push_back(digest);
        }
      }
    }
    send_launches(node, std::move(some), std::move(wanted));
  }
}

// Sends at once when the cache has all blobs, else after they were read.
void Nodes::send_launches(NodeIndex node, std::vector<LaunchOrder> orders, std::vector<Digest> wanted) {
  std::vector<std::pair<Digest, BlobCache::Bytes>> blobs;
  std::vector<Digest> missing;
  for (const auto& digest : wanted) {
    if (auto bytes = blobs_.get(digest)) {
      blobs.emplace_back(digest, std::move(bytes));
    } else {
      missing.push_back(digest);
    }
  }
  if (missing.empty()) {
    send_complete(node, orders, blobs);
    return;
  }
  journal_.read_blobs(missing, [this, node, missing, orders = std::move(orders),
                                blobs = std::move(blobs)](std::vector<Result<std::string>> answers) mutable {
    std::map<Digest, std::string> failed;
    for (std::size_t i = 0; i < missing.size(); ++i) {
      if (answers[i].ok()) {
        auto bytes = std::make_shared<const std::string>(std::move(*answers[i]));
        blobs_.put(missing[i], bytes);
        blobs.emplace_back(missing[i], std::move(bytes));
      } else {
        failed.emplace(missing[i], answers[i].error().message);
        io::log_error("a blob cannot be read", {{"error", answers[i].error().message}});
      }
    }
    std::vector<LaunchOrder> hopeless;
    std::string why;
    for (const auto& order : orders) {
      for (const Digest& digest : {order.spec->script, order.spec->environment}) {
        if (const auto found = failed.find(digest); order.node_rank == 0 && found != failed.end()) {
          hopeless.push_back(order);
          why = found->second;
          break;
        }
      }
    }
    std::erase_if(orders, [&](const LaunchOrder& order) {
      return std::any_of(hopeless.begin(), hopeless.end(),
                         [&](const LaunchOrder& each) { return each.key == order.key; });
    });
    send_complete(node, orders, blobs);
    if (!hopeless.empty()) {
      fail_launches(node, hopeless, why);
    }
  });
}

void Nodes::send_complete(NodeIndex node, const std::vector<LaunchOrder>& orders,
                          const std::vector<std::pair<Digest, BlobCache::Bytes>>& blobs) {
  // Large blobs go ahead in messages of their own; the launches come last and find everything.
  pb::ControllerMessage message;
  std::size_t bytes = 0;
  for (const auto& [digest, data] : blobs) {
    if (bytes != 0 && bytes + data->size() > kBlobBytesPerMessage) {
      send(node, message);
      message.Clear();
      bytes = 0;
    }
    auto& blob = *message.mutable_launches()->add_blobs();
    blob.set_digest(digest.bytes.data(), digest.bytes.size());
    blob.set_data(*data);
    bytes += data->size();
  }
  const Instant now = pipeline_.now();
  for (const auto& order : orders) {
    if (!engine::is_owed(pipeline_.state(), node, order)) {
      continue;
    }
    auto& launch = *message.mutable_launches()->add_launches();
    wire::to_pb(order, *launch.mutable_order());
    tickets_.for_job(order, now, *launch.mutable_ticket());
  }
  if (message.has_launches()) {
    send(node, message);
  }
}

// The script is gone from the store: the jobs end here, and the node is told not to wait for them.
void Nodes::fail_launches(NodeIndex node, const std::vector<LaunchOrder>& orders, const std::string& why) {
  ReportAttempts command;
  command.node = pipeline_.state().nodes[node.value].name;
  for (const auto& order : orders) {
    AttemptReport report;
    report.key = order.key;
    report.ended = true;
    report.outcome.cause = EndCause::kLaunchFailed;
    report.outcome.detail = "the controller has lost the job's script or environment (" + why + "): submit it again";
    command.reports.push_back(std::move(report));
    pb::ControllerMessage message;
    wire::to_pb(StopOrder{order.key, order.term, StopCause::kCancelled, 0}, *message.mutable_stop());
    send(node, message);
  }
  (void)pipeline_.execute(command);
}

}  // namespace muster::ctld
