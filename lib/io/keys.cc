#include "lib/io/keys.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <map>

#include "lib/base/text.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"

namespace muster::io {
namespace {

constexpr std::size_t kKeyFileBytesMax = 64 * 1024;
constexpr std::size_t kZ85Length = 40;
constexpr std::size_t kCurveKeyBytes = 32;

bool is_z85_key(const std::string& text) {
  std::array<std::uint8_t, kCurveKeyBytes> bytes;
  return text.size() == kZ85Length && zmq_z85_decode(bytes.data(), text.c_str()) != nullptr;
}

void ensure_sodium() {
  static const bool ready = sodium_init() >= 0;
  MUSTER_CHECK(ready);
}

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* bytes_of(std::string& text) {
  return reinterpret_cast<unsigned char*>(text.data());
}

Error damaged(const std::string& file, const std::string& why) {
  return make_error(ErrorCode::kCorrupt, "key file " + printable(file) + " is damaged (" + why +
                                             "): restore it, or make a new one with muster keygen");
}

using Values = std::map<std::string, std::string>;

struct KeyText {
  KeyKind kind = KeyKind::kUser;
  Values values;
};

// The names a file of this kind may have.
bool is_known_name(KeyKind kind, const std::string& name) {
  if (name == "curve_public" || name == "curve_secret") return true;
  return kind == KeyKind::kCluster && (name == "sign_public" || name == "sign_secret");
}

Result<KeyText> read_text(std::string_view text, const std::string& file) {
  KeyText result;
  bool has_head = false;
  std::size_t number = 0;
  for (const std::string_view raw : split(text, '\n')) {
    ++number;
    const std::string_view line = trim(raw);
    if (line.empty() || line.front() == '#') continue;
    const std::string where = "line " + std::to_string(number);
    if (!has_head) {
      constexpr std::string_view kHead = "muster-key 1 ";
      const auto kind = line.starts_with(kHead) ? parse_key_kind(line.substr(kHead.size())) : invalid_argument("");
      if (!kind.ok()) return damaged(file, "its first line is not \"muster-key 1 KIND\"");
      result.kind = *kind;
      has_head = true;
      continue;
    }
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) return damaged(file, where + " has no \"=\"");
    const std::string name(trim(line.substr(0, equals)));
    if (!is_known_name(result.kind, name)) {
      return damaged(file, where + " has the unknown name \"" + printable(name.substr(0, 40)) + "\"");
    }
    if (!result.values.emplace(name, trim(line.substr(equals + 1))).second)
      return damaged(file, name + " is given twice");
  }
  if (!has_head) return damaged(file, "it is empty");
  return result;
}

Result<PublicKey> public_part(const KeyText& text, const std::string& file) {
  PublicKey key;
  key.kind = text.kind;
  const auto curve = text.values.find("curve_public");
  if (curve == text.values.end()) return damaged(file, "curve_public is missing");
  if (!is_z85_key(curve->second)) return damaged(file, "curve_public is no Z85 key of 40 characters");
  key.curve_public = curve->second;
  if (key.kind != KeyKind::kCluster) return key;
  const auto sign = text.values.find("sign_public");
  if (sign == text.values.end()) return damaged(file, "sign_public is missing");
  const auto bytes = from_hex(sign->second);
  if (!bytes.ok() || bytes->size() != crypto_sign_PUBLICKEYBYTES) {
    return damaged(file, "sign_public is not hexadecimal of 64 characters");
  }
  key.sign_public = *bytes;
  return key;
}

// Writes a file that must not exist yet.
Status create_file(const std::string& path, std::string_view bytes, mode_t mode) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file.valid()) {
    if (errno != EEXIST) return errno_error("create", path, errno);
    return make_error(ErrorCode::kAlreadyExists,
                      printable(path) + " exists already: remove it first if it is really to be replaced");
  }
  const auto failed = [&](const char* op) {
    const Error error = errno_error(op, path, errno);
    ::unlink(path.c_str());
    return error;
  };
  if (::fchmod(file.get(), mode) != 0) return failed("set the mode of");
  // Key files are far smaller than what one write takes.
  if (::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) return failed("write");
  if (::fsync(file.get()) != 0) return failed("sync");
  return ok_status();
}

Result<std::string> read_key_file(const std::string& path) {
  auto text = read_file(path, kKeyFileBytesMax);
  if (text.ok()) return text;
  if (text.error().code == ErrorCode::kNotFound) {
    return make_error(ErrorCode::kNotFound,
                      "key file " + printable(path) + " does not exist: make one with muster keygen");
  }
  return text;
}

}  // namespace

std::string_view to_string(KeyKind kind) {
  switch (kind) {
    case KeyKind::kCluster:
      return "cluster";
    case KeyKind::kNode:
      return "node";
    case KeyKind::kUser:
      return "user";
  }
  return "";
}

Result<KeyKind> parse_key_kind(std::string_view text) {
  for (const KeyKind kind : {KeyKind::kCluster, KeyKind::kNode, KeyKind::kUser}) {
    if (text == to_string(kind)) return kind;
  }
  return invalid_argument("unknown kind of key \"" + printable(text.substr(0, 40)) + "\": give cluster, node or user");
}

Key generate_key(KeyKind kind) {
  ensure_sodium();
  Key key;
  key.pub.kind = kind;
  char public_text[kZ85Length + 1];
  char secret_text[kZ85Length + 1];
  MUSTER_CHECK(zmq_curve_keypair(public_text, secret_text) == 0);
  key.pub.curve_public = public_text;
  key.curve_secret = secret_text;
  if (kind == KeyKind::kCluster) {
    key.pub.sign_public.resize(crypto_sign_PUBLICKEYBYTES);
    key.sign_secret.resize(crypto_sign_SECRETKEYBYTES);
    MUSTER_CHECK(crypto_sign_keypair(bytes_of(key.pub.sign_public), bytes_of(key.sign_secret)) == 0);
  }
  return key;
}

std::string format_public_key(const PublicKey& key) {
  std::string text = "muster-key 1 " + std::string(to_string(key.kind)) + "\ncurve_public = " + key.curve_public + "\n";
  if (key.kind == KeyKind::kCluster) text += "sign_public = " + to_hex(key.sign_public) + "\n";
  return text;
}

std::string format_key(const Key& key) {
  std::string text = format_public_key(key.pub) + "curve_secret = " + key.curve_secret + "\n";
  if (key.pub.kind == KeyKind::kCluster) text += "sign_secret = " + to_hex(key.sign_secret) + "\n";
  return text;
}

Result<PublicKey> parse_public_key(std::string_view text, const std::string& file) {
  MUSTER_ASSIGN(const KeyText key_text, read_text(text, file));
  return public_part(key_text, file);
}

Result<Key> parse_key(std::string_view text, const std::string& file) {
  ensure_sodium();
  MUSTER_ASSIGN(const KeyText key_text, read_text(text, file));
  Key key;
  MUSTER_ASSIGN(key.pub, public_part(key_text, file));
  const auto curve = key_text.values.find("curve_secret");
  if (curve == key_text.values.end()) {
    return invalid_argument("key file " + printable(file) + " has no secret part: give the file without .pub");
  }
  char derived[kZ85Length + 1];
  if (!is_z85_key(curve->second) || zmq_curve_public(derived, curve->second.c_str()) != 0) {
    return damaged(file, "curve_secret is no Z85 key of 40 characters");
  }
  if (derived != key.pub.curve_public) return damaged(file, "curve_secret does not belong to curve_public");
  key.curve_secret = curve->second;
  if (key.pub.kind != KeyKind::kCluster) return key;
  const auto sign_text = key_text.values.find("sign_secret");
  if (sign_text == key_text.values.end()) return damaged(file, "sign_secret is missing");
  const auto secret = from_hex(sign_text->second);
  if (!secret.ok() || secret->size() != crypto_sign_SECRETKEYBYTES) {
    return damaged(file, "sign_secret is not hexadecimal of 128 characters");
  }
  // An Ed25519 secret is the seed followed by the public key, which is made from the seed again to find damage in
  // either.
  std::string public_again(crypto_sign_PUBLICKEYBYTES, '\0');
  std::string secret_again(crypto_sign_SECRETKEYBYTES, '\0');
  MUSTER_CHECK(crypto_sign_seed_keypair(bytes_of(public_again), bytes_of(secret_again),
                                        bytes_of(std::string_view(*secret))) == 0);
  if (public_again != key.pub.sign_public || secret_again != *secret) {
    return damaged(file, "sign_secret does not belong to sign_public");
  }
  key.sign_secret = *secret;
  return key;
}

Status write_key_files(const std::string& path, const Key& key) {
  const std::string public_path = path + ".pub";
  if (path_exists(public_path)) {
    return make_error(ErrorCode::kAlreadyExists,
                      printable(public_path) + " exists already: remove it first if it is really to be replaced");
  }
  MUSTER_TRY(create_file(path, format_key(key), 0600));
  const Status written = create_file(public_path, format_public_key(key.pub), 0644);
  if (!written.ok()) ::unlink(path.c_str());
  return written;
}

Result<Key> load_key(const std::string& path) {
  MUSTER_ASSIGN(const std::string text, read_key_file(path));
  MUSTER_ASSIGN(Key key, parse_key(text, path));
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_error("read", path, errno);
  if ((info.st_mode & 077) != 0) {
    return make_error(ErrorCode::kPermissionDenied,
                      "key file " + printable(path) +
                          " may be read by others: run chmod 600 on it, and make a new key "
                          "if somebody else could have read it");
  }
  return key;
}

Result<PublicKey> load_public_key(const std::string& path) {
  MUSTER_ASSIGN(const std::string text, read_key_file(path));
  return parse_public_key(text, path);
}

std::string sign(const Key& key, std::string_view message) {
  MUSTER_CHECK(key.sign_secret.size() == crypto_sign_SECRETKEYBYTES);
  std::string signature(crypto_sign_BYTES, '\0');
  MUSTER_CHECK(crypto_sign_detached(bytes_of(signature), nullptr, bytes_of(message), message.size(),
                                    bytes_of(std::string_view(key.sign_secret))) == 0);
  return signature;
}

bool verify(const PublicKey& key, std::string_view message, std::string_view signature) {
  ensure_sodium();
  if (key.sign_public.size() != crypto_sign_PUBLICKEYBYTES || signature.size() != crypto_sign_BYTES) return false;
  return crypto_sign_verify_detached(bytes_of(signature), bytes_of(message), message.size(),
                                     bytes_of(std::string_view(key.sign_public))) == 0;
}

}  // namespace muster::io
