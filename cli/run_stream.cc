#include "cli/run_stream.h"

#include <utility>
#include <vector>

#include "lib/io/clock.h"
#include "lib/io/hash.h"
#include "lib/io/keys.h"
#include "lib/io/sync_dealer.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr Duration kKeepalive = Duration::from_s(2);
// A node that answers no keepalive for this long is taken for lost, and the connection made again.
constexpr Duration kSilenceMax = Duration::from_s(20);
constexpr std::size_t kStreamIdBytes = 8;

}  // namespace

ClientKey make_ephemeral_key() {
  const io::Key key = io::generate_user_key();
  return {.public_key = key.pub.curve_public, .secret_key = key.curve_secret};
}

struct NodeStream::Impl {
  NodeAddress address;
  ClientKey key;
  std::string stream = io::random_bytes(kStreamIdBytes);
  std::unique_ptr<io::SyncDealer> dealer;
  Duration sent;
  Duration heard;

  void make_dealer() {
    io::SyncDealerOptions options;
    options.endpoints = {address.endpoint};
    options.curve =
        io::CurveClient{.public_key = key.public_key, .secret_key = key.secret_key, .server_key = address.public_key};
    dealer = std::make_unique<io::SyncDealer>(std::move(options));
  }
};

NodeStream::NodeStream(NodeAddress address, ClientKey key) : impl_(std::make_unique<Impl>()) {
  impl_->address = std::move(address);
  impl_->key = std::move(key);
  impl_->make_dealer();
}
NodeStream::~NodeStream() = default;

Status NodeStream::open(Duration timeout) {
  if (impl_->dealer->connected()) {
    return ok_status();
  }
  MUSTER_TRY(impl_->dealer->connect(timeout));
  impl_->sent = impl_->heard = io::boottime_now();
  return ok_status();
}

void NodeStream::redirect(NodeAddress address) {
  impl_->address = std::move(address);
  impl_->stream = io::random_bytes(kStreamIdBytes);
  impl_->make_dealer();
}

bool NodeStream::connected() const {
  return impl_->dealer->connected();
}
const NodeAddress& NodeStream::address() const {
  return impl_->address;
}
int NodeStream::fd() const {
  return impl_->dealer->connected() ? impl_->dealer->fd() : -1;
}

bool NodeStream::send(const pb::NodeRequest& request) {
  impl_->sent = io::boottime_now();
  return impl_->dealer
      ->send({wire::header(wire::MessageKind::kNodeRequest), request.SerializeAsString(), impl_->stream})
      .ok();
}

Result<std::optional<pb::NodeReply>> NodeStream::receive() {
  if (!impl_->dealer->connected()) {
    return std::optional<pb::NodeReply>();
  }
  const auto frames = impl_->dealer->receive(Duration{});
  if (!frames) {
    return std::optional<pb::NodeReply>();
  }
  impl_->heard = io::boottime_now();
  pb::NodeReply reply;
  const auto kind =
      frames->empty() ? make_error(ErrorCode::kCorrupt, "an empty message") : wire::parse_header((*frames)[0]);
  if (!kind || *kind != wire::MessageKind::kNodeReply || frames->size() < 2 || !reply.ParseFromString((*frames)[1])) {
    return make_error(ErrorCode::kCorrupt, "the answer of " + impl_->address.endpoint +
                                               " cannot be read: is a muster-noded of a like version running there?");
  }
  return std::optional<pb::NodeReply>(std::move(reply));
}

void NodeStream::keep_alive() {
  if (!impl_->dealer->connected()) {
    return;
  }
  const Duration now = io::boottime_now();
  if (now - impl_->heard > kSilenceMax) {
    impl_->dealer->close();
    return;
  }
  if (now - impl_->sent >= kKeepalive) {
    pb::NodeRequest request;
    request.mutable_keepalive();
    (void)send(request);
  }
}

}  // namespace muster::cli
