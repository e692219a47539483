// NodeStream: a client's stream to a node's daemon, for steps and logs: one connection, one stream id, keepalives.
//
// A lost connection is made again by open(); the stream id stays, so that the node knows the stream. One thread; every
// call but open() returns at once.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::pb {
class NodeRequest;
class NodeReply;
class Ticket;
}  // namespace muster::pb

namespace muster::cli {

// Where a node listens.
struct NodeAddress {
  std::string name;  // for messages; may be empty
  std::string endpoint;
  std::string public_key;
};

// The key pair that the client speaks with; tickets that name a client name this public key.
struct ClientKey {
  std::string public_key;
  std::string secret_key;
};
ClientKey make_ephemeral_key();

class NodeStream {
 public:
  NodeStream(NodeAddress address, ClientKey key);
  ~NodeStream();
  NodeStream(const NodeStream&) = delete;
  NodeStream& operator=(const NodeStream&) = delete;

  // Connects if not connected.
  Status open(Duration timeout);
  // Goes on with another node, with a new stream.
  void redirect(NodeAddress address);
  [[nodiscard]] bool connected() const;
  [[nodiscard]] const NodeAddress& address() const;
  // For poll(2); -1 while not connected. Edge-triggered: call receive() until it has nothing before waiting.
  [[nodiscard]] int fd() const;

  // False when the connection is lost.
  bool send(const pb::NodeRequest& request);
  // The next reply that has arrived. Nothing: none has, or the connection is lost (connected() tells). Messages that
  // cannot be read are an error.
  Result<std::optional<pb::NodeReply>> receive();

  // Sends a keepalive when one is due, and closes a connection that has been silent too long.
  void keep_alive();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace muster::cli
