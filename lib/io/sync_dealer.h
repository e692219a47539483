// SyncDealer: a blocking DEALER for programs without a loop (the command line). One thread at a time.
//
// Several endpoints are tried in turn, again and again until the deadline; the first that completes the handshake is
// used. A lost connection is noticed at once and reported, so that the caller may connect again and repeat its request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/io/zmq_socket.h"

namespace muster::io {

struct SyncDealerOptions {
  std::vector<std::string> endpoints;
  // Needed for tcp://.
  std::optional<CurveClient> curve;
  // For one endpoint that accepts the connection but does not answer the handshake (the next one is tried after it).
  Duration endpoint_timeout = Duration::from_s(3);
  std::int64_t message_bytes_max = 256 << 20;
  int queue_max = 100'000;
};

class SyncDealer {
 public:
  explicit SyncDealer(SyncDealerOptions options);
  SyncDealer(SyncDealer&&) noexcept;
  SyncDealer& operator=(SyncDealer&&) noexcept;
  ~SyncDealer();

  // Connects if not connected. kUnavailable names every endpoint and why it failed; kPermissionDenied: the server
  // refuses this key.
  Status connect(Duration timeout);
  [[nodiscard]] bool connected() const;
  // The endpoint in use.
  [[nodiscard]] const std::string& endpoint() const;

  // Queues a message on the open connection. kUnavailable when there is none or it was lost.
  Status send(const std::vector<std::string>& frames);
  // The next message. kUnavailable: the connection was lost (connected() is false then) or the time is over
  // (connected() is still true).
  Result<std::vector<std::string>> receive(Duration timeout);

  // Sends a request and returns the next message. A connection lost before the answer is made again and the request
  // repeated until the time is over, so the request must be safe to repeat.
  Result<std::vector<std::string>> exchange(const std::vector<std::string>& frames, Duration timeout);

  // Closes the connection; the unsent is dropped.
  void close();
  // For poll(2) beside other descriptors: readable is only a hint, call receive(zero) until kUnavailable after it.
  [[nodiscard]] int fd() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace muster::io
