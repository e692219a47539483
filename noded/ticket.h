// Tickets: rights to speak with a node about one job, signed by the controller with the cluster's key and checked here
// without asking it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/io/keys.h"
#include "lib/model/ids.h"

namespace muster::noded {

struct Ticket {
  AttemptKey key;  // attempt 0: only to read files of an ended job
  std::string user;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string client_key;  // empty: for whoever holds it
  Instant expires;
  std::string stdout_path;
  std::string stderr_path;
  std::string node;
};

// The clocks of controller and nodes may differ by this much.
inline constexpr Duration kTicketClockSlack = Duration::from_s(60);
// A ticket's body: keys, names and two paths.
inline constexpr std::size_t kTicketBytesMax = 16U << 10U;

// The ticket in `body` (bytes of pb::TicketBody), if the controller signed exactly these bytes, it has not expired and
// it was made for the client that authenticated with `client_key`. Otherwise kPermissionDenied, or kCorrupt.
Result<Ticket> check_ticket(const io::PublicKey& cluster_key, std::string_view body, std::string_view signature,
                            std::string_view client_key, Instant now);

}  // namespace muster::noded
