#include "lib/io/zmq_errors.h"

#include <zmq.h>

#include <cerrno>

#include "lib/base/text.h"
#include "lib/io/zmq_socket.h"

namespace muster::io {
namespace {

// ZAP requests carry it.
constexpr const char kZapDomain[] = "muster";

Status set_key(void* socket, int option, const std::string& key, const char* which) {
  constexpr std::size_t kZ85Length = 40;
  if (key.size() == kZ85Length && zmq_setsockopt(socket, option, key.c_str(), key.size() + 1) == 0) return ok_status();
  return invalid_argument(std::string("the CURVE ") + which + " key is damaged: it must be Z85 text of 40 characters");
}

}  // namespace

Error zmq_error(const std::string& op, const std::string& what) {
  const int error_number = zmq_errno();
  ErrorCode code = ErrorCode::kIo;
  switch (error_number) {
    case EINVAL:
    case EPROTONOSUPPORT:
    case ENAMETOOLONG:
      code = ErrorCode::kInvalidArgument;
      break;
    case EACCES:
    case EPERM:
      code = ErrorCode::kPermissionDenied;
      break;
    case EADDRINUSE:
      code = ErrorCode::kAlreadyExists;
      break;
    case EADDRNOTAVAIL:
    case ENODEV:
    case ENOENT:
      code = ErrorCode::kNotFound;
      break;
    case EMFILE:
    case ENFILE:
      code = ErrorCode::kLimitReached;
      break;
    default:
      break;
  }
  return make_error(code, "cannot " + op + " " + printable(what) + ": " + zmq_strerror(error_number));
}

void set_zmq_option(void* socket, int option, int value) {
  MUSTER_CHECK(zmq_setsockopt(socket, option, &value, sizeof value) == 0);
}

Status set_curve_server(void* socket, const CurveServer& keys) {
  set_zmq_option(socket, ZMQ_CURVE_SERVER, 1);
  MUSTER_TRY(set_key(socket, ZMQ_CURVE_SECRETKEY, keys.secret_key, "secret"));
  MUSTER_CHECK(zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, kZapDomain, sizeof kZapDomain - 1) == 0);
  return ok_status();
}

Status set_curve_client(void* socket, const CurveClient& keys) {
  MUSTER_TRY(set_key(socket, ZMQ_CURVE_SERVERKEY, keys.server_key, "server"));
  MUSTER_TRY(set_key(socket, ZMQ_CURVE_PUBLICKEY, keys.public_key, "public"));
  return set_key(socket, ZMQ_CURVE_SECRETKEY, keys.secret_key, "secret");
}

void set_common_options(void* socket) {
  // Thousands of nodes connect at once after a restart; the kernel cuts this to net.core.somaxconn.
  set_zmq_option(socket, ZMQ_BACKLOG, 4096);
  // A peer whose machine is gone is noticed after 60 + 6 * 10 seconds also without heartbeats.
  set_zmq_option(socket, ZMQ_TCP_KEEPALIVE, 1);
  set_zmq_option(socket, ZMQ_TCP_KEEPALIVE_IDLE, 60);
  set_zmq_option(socket, ZMQ_TCP_KEEPALIVE_INTVL, 10);
  set_zmq_option(socket, ZMQ_TCP_KEEPALIVE_CNT, 6);
}

void allow_ipv6_for(void* socket, const std::string& endpoint) {
  // Always on, a name such as localhost would resolve to ::1 alone, where an IPv4 server does not listen.
  set_zmq_option(socket, ZMQ_IPV6, endpoint.find('[') != std::string::npos ? 1 : 0);
}

}  // namespace muster::io
