// The table of authorized keys, and key files.
#include "lib/io/keys.h"
#include "lib/io/zap.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const std::string_view text = fuzz::text_of(data, size);
  const auto table = io::parse_authorized_keys(text, "authorized_keys");
  if (table.ok()) {
    for (const auto& [key, user_id] : *table) {
      MUSTER_CHECK(key.size() == 40);
      const io::PeerIdentity identity = io::parse_user_id(user_id);
      MUSTER_CHECK(identity.kind != io::PeerIdentity::Kind::kKey && !identity.name.empty());
    }
  } else {
    fuzz::check_error(table.error());
  }
  const auto key = io::parse_key(text, "key");
  if (key.ok()) {
    const auto again = io::parse_key(io::format_key(*key), "key");
    MUSTER_CHECK(again.ok() && again->curve_secret == key->curve_secret && again->sign_secret == key->sign_secret &&
                 again->pub.curve_public == key->pub.curve_public && again->pub.kind == key->pub.kind);
  } else {
    fuzz::check_error(key.error());
  }
  const auto pub = io::parse_public_key(text, "key.pub");
  if (pub.ok()) {
    const auto again = io::parse_public_key(io::format_public_key(*pub), "key.pub");
    MUSTER_CHECK(again.ok() && again->curve_public == pub->curve_public && again->sign_public == pub->sign_public);
  } else {
    fuzz::check_error(pub.error());
  }
  return 0;
}
