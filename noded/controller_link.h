// ControllerLink: the node's side of its conversation with the controller (docs/spec/wire.md).
//
// One endpoint at a time; when it is silent, the next one. The node registers whenever the connection or the controller
// is new: until it is registered it says nothing else, and after that it sends heartbeats. What could not be sent is
// dropped: a registration names everything that is not acknowledged. Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/io/keys.h"
#include "lib/io/loop.h"
#include "lib/io/zmq_socket.h"
#include "noded/attempt_table.h"

namespace muster::pb {
class ControllerMessage;
class Launches;
class NodeMessage;
}  // namespace muster::pb

namespace muster::noded {

// Scripts and environments by digest: tasks of an array share theirs.
class BlobCache {
 public:
  // The oldest go beyond this; a launch that needs one of them asks for it again.
  static constexpr std::size_t kBytesMax = 64U << 20U;

  // Null when it is not here.
  std::shared_ptr<const std::string> find(const Digest& digest);
  void insert(const Digest& digest, std::string bytes);

 private:
  struct Entry {
    std::shared_ptr<const std::string> bytes;
    std::list<Digest>::iterator place;
  };
  std::map<Digest, Entry> entries_;
  std::list<Digest> order_;  // most recently used first
  std::size_t bytes_ = 0;
};

struct ControllerLinkOptions {
  io::Loop* loop = nullptr;
  io::ZmqContext* context = nullptr;
  AttemptTable* attempts = nullptr;  // outlives the link
  std::vector<std::string> endpoints;
  io::Key key;
  std::string controller_key;  // Z85
  Duration heartbeat_interval;
  std::string boot_id;
  // What the node's checks find now; not set: nothing.
  std::function<std::vector<HealthProblem>()> health = {};
  // The controller wants the checks to be run and report_health() to be called.
  std::function<void()> check_health = {};
  // How far this node's clock is ahead of the controller's, and how long the question took: the answer is right to half of it.
  std::function<void(Duration ahead, Duration round_trip)> clock = {};
};

class ControllerLink {
 public:
  explicit ControllerLink(ControllerLinkOptions options);
  ~ControllerLink();
  ControllerLink(const ControllerLink&) = delete;
  ControllerLink& operator=(const ControllerLink&) = delete;

  // Begins to connect and register.
  Status start();
  // Sent with others at the end of the loop's turn; dropped while the node is not registered.
  void report(const AttemptReport& report);
  // Says what options.health finds; dropped while the node is not registered, because a registration says it too.
  void report_health();

 private:
  void on_heartbeat(std::uint64_t sequence, Instant controller_now);
  Status open_socket();
  void on_tick();
  void on_message(const io::ZmqMessage& message);
  void on_launches(const pb::Launches& message);
  void register_node();
  void lose(const char* why);
  void send_reports();
  bool send(const pb::NodeMessage& message);

  ControllerLinkOptions options_;
  std::optional<io::ZmqSocket> socket_;
  std::size_t endpoint_ = 0;
  io::Timer tick_;
  bool registered_ = false;
  bool ever_registered_ = false;
  std::uint64_t sequence_ = 0;
  std::uint64_t registration_sequence_ = 0;  // of the last registration sent
  Duration heard_;                           // last message, since boot
  Duration asked_;                           // last registration sent
  Duration beat_;                            // last heartbeat sent
  Duration retried_;                         // last repetition of unacknowledged reports
  Duration opened_;                          // the socket
  std::vector<AttemptReport> reports_;
  bool reports_due_ = false;
  BlobCache blobs_;
};

}  // namespace muster::noded
