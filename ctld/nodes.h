// Nodes: the controller's connections to node daemons. Turns their messages into commands and effects into messages.
//
// A node is heard over one connection at a time, the one on which it registered last. What is lost with a connection
// is sent again when the node registers on the next one (engine::outstanding). A node that is silent for node_timeout
// is unreachable: its jobs go on, nothing new is sent to it.
//
// Blobs (scripts, environments) travel with the first launch that needs them on a connection; a node that lacks one
// asks for it.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "ctld/outbox.h"
#include "ctld/pipeline.h"
#include "ctld/tickets.h"
#include "lib/io/loop.h"

namespace muster::pb {
class ControllerMessage;
class NeedBlobs;
class NodeMessage;
class Blob;
class Launch;
}  // namespace muster::pb

namespace muster::ctld {

// Recently used blobs in memory, so that a launch right after its submission reads nothing.
class BlobCache {
 public:
  static constexpr std::size_t kBytesMax = 64 << 20;
  using Bytes = std::shared_ptr<const std::string>;
  void put(const Digest& digest, Bytes bytes);
  Bytes get(const Digest& digest);

 private:
  using Order = std::list<std::pair<Digest, Bytes>>;
  Order order_;  // the most recently used first
  std::map<Digest, Order::iterator> entries_;
  std::size_t bytes_ = 0;
};

class Nodes {
 public:
  struct Options {
    std::string cluster;
    Duration node_timeout;
  };
  Nodes(io::Loop& loop, Options options, Pipeline& pipeline, Journal& journal, Outbox& outbox, const Tickets& tickets);
  ~Nodes();
  Nodes(const Nodes&) = delete;
  Nodes& operator=(const Nodes&) = delete;

  // `name` is the node whose key authenticated the connection.
  void on_message(const std::string& peer, const std::string& name, const pb::NodeMessage& message);
  void perform(const Effects& effects);

  BlobCache& blobs() { return blobs_; }
  [[nodiscard]] std::uint64_t connected() const { return links_.size(); }

 private:
  // Digests that a node is taken to have; more than it keeps is no harm, it asks.
  static constexpr std::size_t kBlobsPerLinkMax = 4'096;
  // Launches and bytes of blobs in one message.
  static constexpr int kLaunchesPerMessage = 200;
  static constexpr std::size_t kBlobBytesPerMessage = 8 << 20;

  struct Link {
    std::string peer;
    std::string name;
    Duration heard{};  // CLOCK_BOOTTIME
    std::set<Digest> blobs;
  };

  void on_registration(const std::string& peer, const std::string& name, const pb::NodeMessage& message);
  void on_heartbeat(const std::string& peer, NodeIndex node, const pb::NodeMessage& message);
  void on_reports(NodeIndex node, const std::string& name, const pb::NodeMessage& message);
  void on_health(NodeIndex node, const std::string& name, const pb::NodeMessage& message);
  void on_need_blobs(NodeIndex node, const pb::NeedBlobs& need);
  void refuse(const std::string& peer, const std::string& name, const Error& error);
  void check_silence();

  Link* link_of(NodeIndex node);
  void drop(NodeIndex node, const char* why);
  void send(NodeIndex node, pb::ControllerMessage& message);
  void launch(NodeIndex node, const std::vector<const LaunchOrder*>& orders);
  void send_launches(NodeIndex node, std::vector<LaunchOrder> orders, std::vector<Digest> wanted);
  void send_complete(NodeIndex node, const std::vector<LaunchOrder>& orders,
                     const std::vector<std::pair<Digest, BlobCache::Bytes>>& blobs);
  void fail_launches(NodeIndex node, const std::vector<LaunchOrder>& orders, const std::string& why);

  Options options_;
  Pipeline& pipeline_;
  Journal& journal_;
  Outbox& outbox_;
  const Tickets& tickets_;
  BlobCache blobs_;
  std::unordered_map<std::uint32_t, Link> links_;  // by node index
  std::unordered_map<std::string, NodeIndex> by_peer_;
  RateLimit refusals_{5};
  io::Timer silence_timer_;
};

}  // namespace muster::ctld
