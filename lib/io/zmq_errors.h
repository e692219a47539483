// What ZeroMQ's calls say when they fail. Only for the sources of lib/io.
#pragma once

#include <string>

#include "lib/base/result.h"

namespace muster::io {

struct CurveServer;
struct CurveClient;

// The text of the last failed ZeroMQ call of this thread, after "cannot OP WHAT: ".
Error zmq_error(const std::string& op, const std::string& what);

// Sets an integer option; a refusal is a bug.
void set_zmq_option(void* socket, int option, int value);
// Turns a socket into a CURVE server or client; a key that is no Z85 text of 40 characters is kInvalidArgument.
Status set_curve_server(void* socket, const CurveServer& keys);
Status set_curve_client(void* socket, const CurveClient& keys);

// Options every socket of Muster has: limits for kernel queues, dead TCP connections, and IPv6 where the endpoint asks
// for it.
void set_common_options(void* socket);
void allow_ipv6_for(void* socket, const std::string& endpoint);

}  // namespace muster::io
