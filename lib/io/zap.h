// ZapHandler: decides which CURVE keys may connect to the servers of a ZmqContext, in a thread of its own.
//
// The name it gives a peer is ZmqMessage::user_id:
//   accept-any      the peer's public key, Z85 text of 40 characters
//   authorized file "node:NAME", "user:NAME" or "admin:NAME"
//
// An authorized-keys file has lines `node NAME PUBKEY`, `user NAME PUBKEY [admin]`; blank lines and lines that begin
// with # are ignored, as is what follows the fields after " #" (a key may itself contain #). A name may have several
// keys; a key has one name. At every handshake the file is read again if it changed (modification time, size or inode),
// so added and removed keys take effect for new connections at once.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/io/zmq_socket.h"

namespace muster::io {

// Public key (Z85) -> user id.
using AuthorizedKeys = std::map<std::string, std::string>;

inline constexpr std::size_t kAuthorizedBytesMax = 16 << 20;  // some 100,000 keys

// The table in `text`; an error names `file` and the line.
Result<AuthorizedKeys> parse_authorized_keys(std::string_view text, const std::string& file);

// A user id of the authorized file taken apart. Not for those of accept-any: a key may be made to begin with "node:".
struct PeerIdentity {
  enum class Kind { kNode, kUser, kAdmin, kKey };
  Kind kind = Kind::kKey;
  std::string name;  // for kKey the public key
};
PeerIdentity parse_user_id(std::string_view user_id);

class ZapHandler {
 public:
  // From then on every CURVE server of the context asks this handler. A missing or bad file is an error here; one that
  // becomes bad later is logged and the last good table stays.
  static Result<std::unique_ptr<ZapHandler>> accept_any(ZmqContext& context);
  static Result<std::unique_ptr<ZapHandler>> authorized_file(ZmqContext& context, const std::string& path);
  // Ends the thread. Destroy it before the context; servers accept nobody from then on.
  ~ZapHandler();
  ZapHandler(const ZapHandler&) = delete;
  ZapHandler& operator=(const ZapHandler&) = delete;

 private:
  struct Impl;
  explicit ZapHandler(std::unique_ptr<Impl> impl);
  static Result<std::unique_ptr<ZapHandler>> start(ZmqContext& context, const std::string& path);
  std::unique_ptr<Impl> impl_;
};

}  // namespace muster::io
