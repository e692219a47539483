// ZeroMQ sockets on a Loop. This class alone knows that ZMQ_FD is edge-triggered; users see whole messages.
//
// Everything but ZmqContext belongs to the loop's thread. Messages are lists of frames. Limits: message_bytes_max for a
// frame, kFramesMax for a message (longer ones are dropped and logged), high-water marks for a peer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/io/loop.h"

namespace muster::io {

// The ZeroMQ context of a process: its I/O thread and the meeting place of sockets and their ZapHandler. Destroy it
// after its sockets; the destructor waits for their linger time.
class ZmqContext {
 public:
  explicit ZmqContext(int io_threads = 1);
  ~ZmqContext();
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  void* handle() const { return handle_; }

 private:
  void* handle_;
};

// CURVE keys as Z85 text of 40 characters (keys.h makes and reads them).
struct CurveServer {
  std::string secret_key;
};
struct CurveClient {
  std::string public_key;
  std::string secret_key;
  std::string server_key;
};

struct ZmqOptions {
  // Accepts CURVE clients that this context's ZapHandler authorizes; what comes from others is dropped and logged.
  std::optional<CurveServer> curve_server;
  // Speaks to a CURVE server. Neither: no encryption, for ipc:// only (bind and connect refuse tcp:// without CURVE).
  std::optional<CurveClient> curve_client;

  // How long unsent messages outlive the socket.
  Duration linger{};
  // Messages queued for one peer before send() says kLimitReached; messages read ahead from one peer.
  int send_queue_max = 100'000;
  int receive_queue_max = 1'000;
  // A peer that sends a larger frame is disconnected.
  std::int64_t message_bytes_max = 64 << 20;
  // A peer that has not finished the handshake by then is dropped.
  Duration handshake_timeout = Duration::from_s(10);
  // ZMTP pings find dead connections; zero is none. A peer silent for `heartbeat_timeout` is disconnected.
  Duration heartbeat_interval{};
  Duration heartbeat_timeout{};
  Duration reconnect_min = Duration::from_ms(100);
  Duration reconnect_max = Duration::from_s(2);
  // True: a message is queued only for a finished connection, else send() says kLimitReached. False: messages wait for
  // the connection and survive a reconnection.
  bool only_connected = false;
  // File mode of a bound ipc:// socket.
  unsigned ipc_mode = 0600;
  // DEALER: a name for the connection; empty lets the ROUTER choose one. Never to be trusted as an identity.
  std::string routing_id;
};

struct ZmqMessage {
  // ROUTER: what send_to needs to answer; valid as long as that peer is connected. DEALER: empty.
  std::string peer;
  // Whom ZAP authenticated (zap.h says what it looks like); empty on sockets without CURVE.
  std::string user_id;
  std::vector<std::string> frames;
};

class ZmqSocket {
 public:
  static constexpr std::size_t kFramesMax = 64;
  static constexpr std::size_t kMessagesPerTurn = 1'000;  // then other handles of the loop get their turn

  enum class Type { kRouter, kDealer };
  using OnMessage = std::function<void(ZmqMessage message)>;

  // Callbacks may send, and may destroy the socket.
  static Result<ZmqSocket> create(Loop& loop, ZmqContext& context, Type type, const ZmqOptions& options,
                                  OnMessage on_message);
  ZmqSocket(ZmqSocket&&) noexcept;
  ZmqSocket& operator=(ZmqSocket&&) noexcept;
  ~ZmqSocket();

  // The endpoint really bound: port * becomes a number. "tcp://host:port", "tcp://*:*", "ipc:///path", "inproc://name".
  Result<std::string> bind(const std::string& endpoint);
  Status connect(const std::string& endpoint);
  Status disconnect(const std::string& endpoint);

  // ROUTER. kNotFound when the peer is not connected, kLimitReached when its queue is full; nothing is sent then.
  Status send_to(const std::string& peer, const std::vector<std::string>& frames);
  // DEALER. kLimitReached when the queue is full, or with only_connected when nobody is connected.
  Status send(const std::vector<std::string>& frames);

  // Stops and resumes receiving: back-pressure on the peers.
  void pause();
  void resume();

 private:
  struct Impl;
  explicit ZmqSocket(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace muster::io
