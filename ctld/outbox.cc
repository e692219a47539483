#include "ctld/outbox.h"

#include <utility>

#include "lib/wire/muster.pb.h"

namespace muster::ctld {

Status Outbox::send(const std::string& peer, wire::MessageKind kind,
                    const google::protobuf::MessageLite& message) const {
  std::vector<std::string> frames;
  frames.reserve(2);
  frames.push_back(wire::header(kind));
  frames.push_back(message.SerializeAsString());
  return send_(peer, frames);
}

bool RateLimit::allow(Instant now, std::uint64_t& dropped) {
  if (now.seconds() != second_) {
    second_ = now.seconds();
    used_ = 0;
  }
  if (used_ >= per_second_) {
    ++dropped_;
    return false;
  }
  ++used_;
  dropped = std::exchange(dropped_, 0);
  return true;
}

}  // namespace muster::ctld
