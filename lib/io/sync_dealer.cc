#include "lib/io/sync_dealer.h"

#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/zmq_errors.h"

namespace muster::io {
namespace {

constexpr const char kMonitorEndpoint[] = "inproc://muster-monitor";
constexpr Duration kPauseBetweenRounds = Duration::from_ms(100);
// So many handshakes that end without a reason within one connect() are no restarting controller but a wrong key.
constexpr int kBrokenHandshakesMax = 5;
constexpr std::size_t kFramesMax = ZmqSocket::kFramesMax;

struct SocketCloser {
  void operator()(void* socket) const { zmq_close(socket); }
};
using Socket = std::unique_ptr<void, SocketCloser>;

enum class Happened { kNothing, kConnected, kNoConnection, kBroken, kKeyRefused, kLost };

// The next event of a socket monitor that matters, without waiting.
Happened next_event(void* monitor) {
  while (true) {
    zmq_msg_t msg;
    zmq_msg_init(&msg);
    if (zmq_msg_recv(&msg, monitor, ZMQ_DONTWAIT) < 0) {
      zmq_msg_close(&msg);
      return Happened::kNothing;
    }
    std::uint16_t event = 0;
    if (zmq_msg_size(&msg) >= sizeof event) std::memcpy(&event, zmq_msg_data(&msg), sizeof event);
    zmq_msg_close(&msg);
    // The address follows in a second part, which is of no interest.
    zmq_msg_init(&msg);
    static_cast<void>(zmq_msg_recv(&msg, monitor, ZMQ_DONTWAIT));
    zmq_msg_close(&msg);
    switch (event) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return Happened::kConnected;
      case ZMQ_EVENT_CLOSED:
      case ZMQ_EVENT_CONNECT_RETRIED:
        return Happened::kNoConnection;
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return Happened::kKeyRefused;
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return Happened::kBroken;
      case ZMQ_EVENT_DISCONNECTED:
        return Happened::kLost;
      default:
        break;
    }
  }
}

long poll_ms(Duration left) {
  constexpr std::int64_t kMsMax = 60'000;
  if (left.us <= 0) return 0;
  return static_cast<long>(std::min((left.us + 999) / 1000, kMsMax));
}

}  // namespace

struct SyncDealer::Impl {
  SyncDealerOptions options;
  ZmqContext context;
  Socket socket;
  Socket monitor;
  std::string endpoint;
  bool interrupted = false;  // the last receive() ended because of a signal

  explicit Impl(SyncDealerOptions o) : options(std::move(o)) {}

  void close() {
    // The monitor ends first. Its messages are sent by the I/O thread, which waits for ever when nobody reads them: a
    // connection that broke while the socket closed would stop every later socket of this context.
    if (socket) static_cast<void>(zmq_socket_monitor(socket.get(), nullptr, 0));
    socket.reset();
    monitor.reset();
    endpoint.clear();
  }

  Status open_socket(const std::string& target) {
    close();
    Socket fresh(zmq_socket(context.handle(), ZMQ_DEALER));
    if (!fresh) return zmq_error("create", "a ZeroMQ socket");
    set_common_options(fresh.get());
    set_zmq_option(fresh.get(), ZMQ_LINGER, 0);
    set_zmq_option(fresh.get(), ZMQ_SNDHWM, options.queue_max);
    set_zmq_option(fresh.get(), ZMQ_RCVHWM, options.queue_max);
    MUSTER_CHECK(
        zmq_setsockopt(fresh.get(), ZMQ_MAXMSGSIZE, &options.message_bytes_max, sizeof options.message_bytes_max) == 0);
    if (options.curve) {
      MUSTER_TRY(set_curve_client(fresh.get(), *options.curve));
    } else if (target.compare(0, 6, "tcp://") == 0) {
      return invalid_argument("endpoint \"" + printable(target) + "\" would not be encrypted: TCP needs CURVE keys");
    }
    constexpr int kEvents = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED |
                            ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                            ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_DISCONNECTED;
    // A fresh name each time: the monitor of the last socket may still be closing.
    const std::string name = kMonitorEndpoint + std::string("-") + std::to_string(++monitors);
    if (zmq_socket_monitor(fresh.get(), name.c_str(), kEvents) != 0) return zmq_error("watch", target);
    Socket watch(zmq_socket(context.handle(), ZMQ_PAIR));
    if (!watch) return zmq_error("create", "a ZeroMQ socket");
    set_zmq_option(watch.get(), ZMQ_LINGER, 0);
    if (zmq_connect(watch.get(), name.c_str()) != 0) return zmq_error("watch", target);
    allow_ipv6_for(fresh.get(), target);
    if (zmq_connect(fresh.get(), target.c_str()) != 0) return zmq_error("connect to", target);
    socket = std::move(fresh);
    monitor = std::move(watch);
    return ok_status();
  }

  // One endpoint, until it is connected or has failed.
  Happened try_endpoint(Duration deadline) {
    while (true) {
      const Happened event = next_event(monitor.get());
      if (event == Happened::kLost) return Happened::kBroken;
      if (event != Happened::kNothing) return event;
      const Duration left = deadline - boottime_now();
      if (left.us <= 0) return Happened::kNothing;
      zmq_pollitem_t item{monitor.get(), 0, ZMQ_POLLIN, 0};
      static_cast<void>(zmq_poll(&item, 1, poll_ms(left)));
    }
  }

  Status connect(Duration timeout) {
    if (socket) return ok_status();
    if (options.endpoints.empty())
      return invalid_argument("no address of a controller is known: set [cluster] controller");
    const Duration deadline = boottime_now() + timeout;
    std::vector<std::string> failures(options.endpoints.size());
    int broken = 0;
    while (true) {
      for (std::size_t i = 0; i < options.endpoints.size(); ++i) {
        MUSTER_TRY(open_socket(options.endpoints[i]));
        const Duration now = boottime_now();
        const Duration left = std::max(deadline - now, Duration::from_ms(1));
        const Happened event = try_endpoint(now + std::min(left, options.endpoint_timeout));
        if (event == Happened::kConnected) {
          endpoint = options.endpoints[i];
          return ok_status();
        }
        close();
        if (event == Happened::kKeyRefused) return key_refused(options.endpoints[i]);
        if (event == Happened::kBroken) ++broken;
        failures[i] = reason(event);
      }
      if (broken >= kBrokenHandshakesMax || boottime_now() + kPauseBetweenRounds >= deadline) break;
      std::this_thread::sleep_for(std::chrono::microseconds(kPauseBetweenRounds.us));
    }
    return unreachable(failures);
  }

  static std::string reason(Happened event) {
    switch (event) {
      case Happened::kBroken:
      case Happened::kLost:
        return "closed the connection during the handshake, so its key may not be the configured one";
      case Happened::kNoConnection:
        return "no connection";
      case Happened::kNothing:
      case Happened::kConnected:
      case Happened::kKeyRefused:
        return "no answer";
    }
    return "no answer";
  }

  static Status key_refused(const std::string& target) {
    return make_error(
        ErrorCode::kPermissionDenied,
        printable(target) + " does not accept this key: ask the administrator to authorize its public key");
  }

  [[nodiscard]] Status unreachable(const std::vector<std::string>& failures) const {
    std::string text;
    for (std::size_t i = 0; i < failures.size(); ++i) {
      if (failures[i].empty()) continue;
      if (!text.empty()) text += "; ";
      text += printable(options.endpoints[i]) + " (" + failures[i] + ")";
    }
    return make_error(ErrorCode::kUnavailable,
                      "cannot reach " + text + ": check the address and that the daemon is running");
  }

  Status lost() {
    const std::string target = endpoint;
    close();
    return make_error(ErrorCode::kUnavailable, "the connection to " + printable(target) + " was lost: try again");
  }

  // True when the monitor says that the connection is gone.
  bool is_lost() {
    while (true) {
      const Happened event = next_event(monitor.get());
      if (event == Happened::kNothing) return false;
      if (event != Happened::kConnected) return true;
    }
  }

  Status send(const std::vector<std::string>& frames) {
    MUSTER_CHECK(!frames.empty());
    if (!socket) return make_error(ErrorCode::kUnavailable, "not connected: connect first");
    for (std::size_t i = 0; i < frames.size(); ++i) {
      const int flags = ZMQ_DONTWAIT | (i + 1 < frames.size() ? ZMQ_SNDMORE : 0);
      while (zmq_send(socket.get(), frames[i].data(), frames[i].size(), flags) < 0) {
        if (zmq_errno() == EINTR) continue;
        MUSTER_CHECK(i == 0);
        if (is_lost()) return lost();
        return make_error(ErrorCode::kLimitReached, "too many unsent messages: receive answers first");
      }
    }
    return ok_status();
  }

  // The message that waits, if any.
  std::optional<std::vector<std::string>> take() {
    std::vector<std::string> frames;
    bool more = true;
    while (more) {
      zmq_msg_t msg;
      zmq_msg_init(&msg);
      int got = -1;
      do {
        got = zmq_msg_recv(&msg, socket.get(), ZMQ_DONTWAIT);
      } while (got < 0 && zmq_errno() == EINTR);
      if (got < 0) {
        zmq_msg_close(&msg);
        return std::nullopt;
      }
      if (frames.size() < kFramesMax) {
        frames.emplace_back(static_cast<const char*>(zmq_msg_data(&msg)), zmq_msg_size(&msg));
      }
      more = zmq_msg_more(&msg) != 0;
      zmq_msg_close(&msg);
    }
    return frames;
  }

  Result<std::vector<std::string>> receive(Duration timeout) {
    if (!socket) return make_error(ErrorCode::kUnavailable, "not connected: connect first");
    const Duration deadline = boottime_now() + timeout;
    interrupted = false;
    while (true) {
      // Asked in this order: what arrived before the loss is still handed out.
      const bool gone = is_lost();
      if (auto frames = take()) {
        if (gone) lost_later = true;
        return std::move(*frames);
      }
      if (gone || lost_later) {
        lost_later = false;
        return lost().error();
      }
      const Duration left = deadline - boottime_now();
      if (left.us <= 0 || interrupted) {
        return make_error(ErrorCode::kUnavailable, "no answer from " + printable(endpoint) + " in time: try again");
      }
      zmq_pollitem_t items[] = {{socket.get(), 0, ZMQ_POLLIN, 0}, {monitor.get(), 0, ZMQ_POLLIN, 0}};
      interrupted = zmq_poll(items, 2, poll_ms(left)) < 0;
    }
  }

  int monitors = 0;
  bool lost_later = false;  // the connection is gone, but messages of it are still being handed out
};

SyncDealer::SyncDealer(SyncDealerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
SyncDealer::SyncDealer(SyncDealer&&) noexcept = default;
SyncDealer& SyncDealer::operator=(SyncDealer&&) noexcept = default;
SyncDealer::~SyncDealer() = default;

Status SyncDealer::connect(Duration timeout) {
  return impl_->connect(timeout);
}
bool SyncDealer::connected() const {
  return impl_->socket != nullptr;
}
const std::string& SyncDealer::endpoint() const {
  return impl_->endpoint;
}
Status SyncDealer::send(const std::vector<std::string>& frames) {
  return impl_->send(frames);
}
Result<std::vector<std::string>> SyncDealer::receive(Duration timeout) {
  return impl_->receive(timeout);
}
void SyncDealer::close() {
  impl_->close();
}

Result<std::vector<std::string>> SyncDealer::exchange(const std::vector<std::string>& frames, Duration timeout) {
  const Duration deadline = boottime_now() + timeout;
  while (true) {
    MUSTER_TRY(impl_->connect(deadline - boottime_now()));
    if (const Status sent = impl_->send(frames); !sent.ok()) {
      if (impl_->socket) return sent.error();
      continue;
    }
    auto answer = impl_->receive(deadline - boottime_now());
    while (!answer.ok() && impl_->socket && impl_->interrupted) answer = impl_->receive(deadline - boottime_now());
    if (answer.ok()) return answer;
    if (!impl_->socket && boottime_now() < deadline) continue;
    // A late answer must not be taken for that of the next request.
    impl_->close();
    return answer;
  }
}

int SyncDealer::fd() const {
  int fd = -1;
  std::size_t size = sizeof fd;
  if (impl_->socket) static_cast<void>(zmq_getsockopt(impl_->socket.get(), ZMQ_FD, &fd, &size));
  return fd;
}

}  // namespace muster::io
