#include "lib/io/zmq_socket.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/files.h"
#include "lib/io/log.h"
#include "lib/io/zmq_errors.h"

namespace muster::io {
namespace {

constexpr std::string_view kIpc = "ipc://";

bool starts_with(const std::string& text, std::string_view head) {
  return text.compare(0, head.size(), head) == 0;
}

int to_ms(Duration d) {
  constexpr std::int64_t kMsMax = 24 * 3600 * 1000;
  return static_cast<int>(std::clamp<std::int64_t>((d.us + 999) / 1000, 0, kMsMax));
}

// A received part of a message, closed by itself.
class Part {
 public:
  Part() { zmq_msg_init(&msg_); }
  ~Part() { zmq_msg_close(&msg_); }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  // False when there is nothing to receive now.
  bool receive(void* socket) {
    while (zmq_msg_recv(&msg_, socket, ZMQ_DONTWAIT) < 0) {
      if (zmq_errno() == EAGAIN) return false;
      MUSTER_CHECK(zmq_errno() == EINTR);
    }
    return true;
  }
  [[nodiscard]] std::string bytes() {
    return std::string(static_cast<const char*>(zmq_msg_data(&msg_)), zmq_msg_size(&msg_));
  }
  [[nodiscard]] bool more() { return zmq_msg_more(&msg_) != 0; }
  // Whom ZAP authenticated on the connection the part came by; null without ZAP.
  [[nodiscard]] const char* user_id() { return zmq_msg_gets(&msg_, "User-Id"); }

 private:
  zmq_msg_t msg_;
};

// Sends one part. False when ZeroMQ will not take it now; only the first part of a message can meet that.
bool send_part(void* socket, std::string_view bytes, bool more) {
  const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
  while (zmq_send(socket, bytes.data(), bytes.size(), flags) < 0) {
    if (zmq_errno() != EINTR) return false;
  }
  return true;
}

Status check_endpoint(const std::string& endpoint, bool encrypted) {
  const auto bad = [&](const std::string& what) {
    return invalid_argument("endpoint \"" + printable(endpoint) + "\" " + what);
  };
  if (starts_with(endpoint, "inproc://")) return ok_status();
  if (starts_with(endpoint, kIpc)) {
    const std::size_t length_max = sizeof(sockaddr_un::sun_path) - 1;
    if (endpoint.size() - kIpc.size() <= length_max) return ok_status();
    return bad("is too long: a Unix socket's path has at most " + std::to_string(length_max) + " characters");
  }
  if (!starts_with(endpoint, "tcp://")) return bad("is not understood: write tcp://HOST:PORT or ipc:///PATH");
  if (!encrypted) return bad("would not be encrypted: TCP needs CURVE keys");
  return ok_status();
}

}  // namespace

ZmqContext::ZmqContext(int io_threads) : handle_(zmq_ctx_new()) {
  MUSTER_CHECK(handle_ != nullptr);
  MUSTER_CHECK(zmq_ctx_set(handle_, ZMQ_IO_THREADS, io_threads) == 0);
}

ZmqContext::~ZmqContext() {
  while (zmq_ctx_term(handle_) != 0 && zmq_errno() == EINTR) {
  }
}

// Why turns are scheduled: ZMQ_FD becomes readable only when ZeroMQ's mailbox gets a command while it was empty, and
// every call on the socket, zmq_send too, empties it. So a message may be waiting though the descriptor is quiet. After
// each wake-up we therefore receive to EAGAIN, and after each send we do the same in the loop's next free moment.
struct ZmqSocket::Impl : std::enable_shared_from_this<ZmqSocket::Impl> {
  Loop& loop;
  Type type;
  OnMessage on_message;
  bool encrypted = false;
  bool needs_user_id = false;
  unsigned ipc_mode = 0600;
  void* socket = nullptr;
  std::optional<FdWatcher> watcher;
  bool turn_scheduled = false;
  bool paused = false;

  Impl(Loop& l, Type t, OnMessage callback) : loop(l), type(t), on_message(std::move(callback)) {}
  ~Impl() { close(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Status open(ZmqContext& context, const ZmqOptions& options) {
    socket = zmq_socket(context.handle(), type == Type::kRouter ? ZMQ_ROUTER : ZMQ_DEALER);
    if (socket == nullptr) return zmq_error("create", "a ZeroMQ socket");
    MUSTER_TRY(configure(options));
    int fd = -1;
    std::size_t size = sizeof fd;
    MUSTER_CHECK(zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0);
    auto started = FdWatcher::start(loop, fd, FdWatcher::kReadable, [this](unsigned) { take_turn(); });
    if (!started.ok()) return started.error();
    watcher.emplace(std::move(started).value());
    return ok_status();
  }

  Status configure(const ZmqOptions& options) {
    set_common_options(socket);
    set_zmq_option(socket, ZMQ_LINGER, to_ms(options.linger));
    set_zmq_option(socket, ZMQ_SNDHWM, options.send_queue_max);
    set_zmq_option(socket, ZMQ_RCVHWM, options.receive_queue_max);
    MUSTER_CHECK(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &options.message_bytes_max, sizeof options.message_bytes_max) ==
                 0);
    set_zmq_option(socket, ZMQ_HANDSHAKE_IVL, to_ms(options.handshake_timeout));
    if (options.heartbeat_interval.us > 0) {
      set_zmq_option(socket, ZMQ_HEARTBEAT_IVL, to_ms(options.heartbeat_interval));
      if (options.heartbeat_timeout.us > 0) {
        set_zmq_option(socket, ZMQ_HEARTBEAT_TIMEOUT, to_ms(options.heartbeat_timeout));
      }
    }
    set_zmq_option(socket, ZMQ_RECONNECT_IVL, std::max(to_ms(options.reconnect_min), 1));
    set_zmq_option(socket, ZMQ_RECONNECT_IVL_MAX, to_ms(options.reconnect_max));
    if (options.only_connected) set_zmq_option(socket, ZMQ_IMMEDIATE, 1);
    if (type == Type::kRouter) set_zmq_option(socket, ZMQ_ROUTER_MANDATORY, 1);
    if (!options.routing_id.empty() &&
        zmq_setsockopt(socket, ZMQ_ROUTING_ID, options.routing_id.data(), options.routing_id.size()) != 0) {
      return zmq_error("use the routing id", options.routing_id);
    }
    ipc_mode = options.ipc_mode;
    needs_user_id = options.curve_server.has_value();
    encrypted = needs_user_id || options.curve_client.has_value();
    if (options.curve_server) MUSTER_TRY(set_curve_server(socket, *options.curve_server));
    if (options.curve_client) MUSTER_TRY(set_curve_client(socket, *options.curve_client));
    return ok_status();
  }

  void close() {
    watcher.reset();
    if (socket != nullptr) zmq_close(std::exchange(socket, nullptr));
  }

  void schedule_turn() {
    if (turn_scheduled || paused) return;
    turn_scheduled = true;
    loop.defer([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      self->turn_scheduled = false;
      self->take_turn();
    });
  }

  // Hands out messages until there is none, or until others should get their turn.
  void take_turn() {
    const auto keep_alive = shared_from_this();  // a callback may destroy the socket
    for (std::size_t count = 0; count < kMessagesPerTurn;) {
      if (socket == nullptr || paused) return;
      ZmqMessage message;
      switch (receive(message)) {
        case Received::kNothing:
          return;
        case Received::kDropped:
          ++count;
          break;
        case Received::kMessage:
          ++count;
          on_message(std::move(message));
          break;
      }
    }
    if (socket != nullptr) schedule_turn();
  }

  enum class Received { kNothing, kDropped, kMessage };

  Received receive(ZmqMessage& message) {
    Part part;
    while (!part.receive(socket)) {
      // A message that came between the refusal and this question would raise no event later.
      if (!has_input()) return Received::kNothing;
    }
    bool addressed = type == Type::kDealer;
    std::size_t frames = 0;
    while (true) {
      // The ROUTER's routing id does not carry the name when ZeroMQ fetched the message ahead, while it was only asked
      // whether there is one; the parts behind it always do.
      if (const char* user_id = message.user_id.empty() ? part.user_id() : nullptr) message.user_id = user_id;
      if (!addressed) {
        message.peer = part.bytes();
        addressed = true;
      } else if (++frames <= kFramesMax) {
        message.frames.push_back(part.bytes());
      }
      if (!part.more()) break;
      // The parts of one message arrive together.
      MUSTER_CHECK(part.receive(socket));
    }
    if (needs_user_id && message.user_id.empty()) {
      // ZeroMQ lets every key in while no ZapHandler answers, as during a shutdown.
      log_warning("message dropped: its sender was not authenticated", {{"frames", frames}});
      return Received::kDropped;
    }
    if (frames <= kFramesMax) return Received::kMessage;
    log_warning("message dropped: too many frames", {{"user", message.user_id}, {"frames", frames}});
    return Received::kDropped;
  }

  bool has_input() {
    int events = 0;
    std::size_t size = sizeof events;
    // Reading this option handles the socket's commands, which a signal may interrupt.
    while (zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) != 0) {
      MUSTER_CHECK(zmq_errno() == EINTR);
    }
    return (events & ZMQ_POLLIN) != 0;
  }

  Status send(const std::string* peer, const std::vector<std::string>& frames) {
    MUSTER_CHECK(!frames.empty() && (peer != nullptr) == (type == Type::kRouter));
    schedule_turn();
    bool first = true;
    if (peer != nullptr) {
      if (!send_part(socket, *peer, true)) return refusal();
      first = false;
    }
    for (std::size_t i = 0; i < frames.size(); ++i) {
      if (send_part(socket, frames[i], i + 1 < frames.size())) {
        first = false;
        continue;
      }
      MUSTER_CHECK(first);
      return refusal();
    }
    return ok_status();
  }

  static Status refusal() {
    switch (zmq_errno()) {
      case EHOSTUNREACH:
        return make_error(ErrorCode::kNotFound, "the peer is not connected any more");
      case EAGAIN:
        return make_error(ErrorCode::kLimitReached, "the peer's queue is full, or nobody is connected");
      default:
        return zmq_error("send", "a message");
    }
  }
};

Result<ZmqSocket> ZmqSocket::create(Loop& loop, ZmqContext& context, Type type, const ZmqOptions& options,
                                    OnMessage on_message) {
  auto impl = std::make_shared<Impl>(loop, type, std::move(on_message));
  MUSTER_TRY(impl->open(context, options));
  return ZmqSocket(std::move(impl));
}

ZmqSocket::ZmqSocket(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqSocket::ZmqSocket(ZmqSocket&&) noexcept = default;
ZmqSocket& ZmqSocket::operator=(ZmqSocket&& other) noexcept {
  if (this != &other) {
    if (impl_) impl_->close();
    impl_ = std::move(other.impl_);
  }
  return *this;
}
ZmqSocket::~ZmqSocket() {
  if (impl_) impl_->close();
}

Result<std::string> ZmqSocket::bind(const std::string& endpoint) {
  MUSTER_TRY(check_endpoint(endpoint, impl_->encrypted));
  allow_ipv6_for(impl_->socket, endpoint);
  if (zmq_bind(impl_->socket, endpoint.c_str()) != 0) return zmq_error("listen on", endpoint);
  impl_->schedule_turn();
  if (starts_with(endpoint, kIpc)) {
    const std::string path = endpoint.substr(kIpc.size());
    if (path.front() != '@' && ::chmod(path.c_str(), impl_->ipc_mode) != 0) {
      return errno_error("set the mode of", path, errno);
    }
  }
  char actual[512];
  std::size_t size = sizeof actual;
  if (zmq_getsockopt(impl_->socket, ZMQ_LAST_ENDPOINT, actual, &size) != 0) return zmq_error("listen on", endpoint);
  return std::string(actual);
}

Status ZmqSocket::connect(const std::string& endpoint) {
  MUSTER_TRY(check_endpoint(endpoint, impl_->encrypted));
  allow_ipv6_for(impl_->socket, endpoint);
  if (zmq_connect(impl_->socket, endpoint.c_str()) != 0) return zmq_error("connect to", endpoint);
  impl_->schedule_turn();
  return ok_status();
}

Status ZmqSocket::disconnect(const std::string& endpoint) {
  if (zmq_disconnect(impl_->socket, endpoint.c_str()) != 0) return zmq_error("disconnect from", endpoint);
  impl_->schedule_turn();
  return ok_status();
}

Status ZmqSocket::send_to(const std::string& peer, const std::vector<std::string>& frames) {
  return impl_->send(&peer, frames);
}

Status ZmqSocket::send(const std::vector<std::string>& frames) {
  return impl_->send(nullptr, frames);
}

void ZmqSocket::pause() {
  impl_->paused = true;
}

void ZmqSocket::resume() {
  impl_->paused = false;
  impl_->schedule_turn();
}

}  // namespace muster::io
