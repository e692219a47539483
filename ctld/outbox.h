// Outbox: sends framed messages through the controller's ROUTER. Also the small things that both sides of it share.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/wire/codec.h"

namespace google::protobuf {
class MessageLite;
}

namespace muster::ctld {

class Outbox {
 public:
  using Send = std::function<Status(const std::string& peer, const std::vector<std::string>& frames)>;
  explicit Outbox(Send send) : send_(std::move(send)) {}

  // kNotFound: the peer is gone; kLimitReached: it does not read what it is sent. Nothing is sent then.
  Status send(const std::string& peer, wire::MessageKind kind, const google::protobuf::MessageLite& message) const;

 private:
  Send send_;
};

// Lets through a few messages a second, for logs that anybody on the network can fill.
class RateLimit {
 public:
  explicit RateLimit(std::uint32_t per_second) : per_second_(per_second) {}
  // Whether this one may be logged; `dropped` is how many were not since the last that was.
  bool allow(Instant now, std::uint64_t& dropped);

 private:
  std::uint32_t per_second_;
  std::int64_t second_ = 0;
  std::uint32_t used_ = 0;
  std::uint64_t dropped_ = 0;
};

}  // namespace muster::ctld
