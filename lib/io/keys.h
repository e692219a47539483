// Key files: the CURVE key pair of a cluster, node or user, and the cluster's signing key.
//
// `muster keygen KIND --out FILE` writes FILE (mode 0600) and FILE.pub (mode 0644), text of the same form:
//
//   muster-key 1 cluster
//   curve_public = <Z85, 40 characters>
//   curve_secret = <Z85, 40 characters>          only in FILE
//   sign_public = <hex, 64 characters>           only of kind cluster (Ed25519)
//   sign_secret = <hex, 128 characters>          only of kind cluster and in FILE
//
// Blank lines and lines that begin with # are ignored; unknown names are refused.
#pragma once

#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace muster::io {

enum class KeyKind { kCluster, kNode, kUser };
std::string_view to_string(KeyKind kind);
Result<KeyKind> parse_key_kind(std::string_view text);

struct PublicKey {
  KeyKind kind = KeyKind::kUser;
  std::string curve_public;  // Z85
  std::string sign_public;   // 32 bytes; empty unless kCluster
};

struct Key {
  PublicKey pub;
  std::string curve_secret;  // Z85
  std::string sign_secret;   // 64 bytes; empty unless kCluster
};

Key generate_key(KeyKind kind);
inline Key generate_cluster_key() {
  return generate_key(KeyKind::kCluster);
}
inline Key generate_node_key() {
  return generate_key(KeyKind::kNode);
}
inline Key generate_user_key() {
  return generate_key(KeyKind::kUser);
}

// Writes PATH and PATH.pub. An existing file of either name is kAlreadyExists and left alone.
Status write_key_files(const std::string& path, const Key& key);

// Refused with a sentence that says what to do: missing, damaged, a public file where a secret one is needed, a secret
// file that others may read.
Result<Key> load_key(const std::string& path);
// Reads FILE.pub, and also FILE itself.
Result<PublicKey> load_public_key(const std::string& path);

std::string format_key(const Key& key);
std::string format_public_key(const PublicKey& key);
Result<Key> parse_key(std::string_view text, const std::string& file);
Result<PublicKey> parse_public_key(std::string_view text, const std::string& file);

// An Ed25519 signature of 64 bytes. The key must be of kind cluster.
std::string sign(const Key& key, std::string_view message);
bool verify(const PublicKey& key, std::string_view message, std::string_view signature);

}  // namespace muster::io
