#include "lib/io/hash.h"

#include <sodium.h>

#include <vector>

namespace muster::io {
namespace {
static_assert(sizeof(crypto_generichash_state) <= 384, "Hasher's room is too small for libsodium's state");

void ensure_sodium() {
  static const bool ready = sodium_init() >= 0;
  MUSTER_CHECK(ready);
}

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
}  // namespace

Hasher::Hasher() {
  ensure_sodium();
  auto* state = reinterpret_cast<crypto_generichash_state*>(state_.data());
  MUSTER_CHECK(crypto_generichash_init(state, nullptr, 0, kHashBytes) == 0);
}

void Hasher::update(std::string_view bytes) {
  auto* state = reinterpret_cast<crypto_generichash_state*>(state_.data());
  MUSTER_CHECK(crypto_generichash_update(state, bytes_of(bytes), bytes.size()) == 0);
}

Hash Hasher::finish() {
  Hash hash{};
  auto* state = reinterpret_cast<crypto_generichash_state*>(state_.data());
  MUSTER_CHECK(crypto_generichash_final(state, hash.data(), hash.size()) == 0);
  return hash;
}

Hash blake2b_256(std::string_view bytes) {
  Hasher hasher;
  hasher.update(bytes);
  return hasher.finish();
}

std::string to_hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text.append(1, kDigits[byte >> 4]).append(1, kDigits[byte & 15]);
  }
  return text;
}

std::string to_hex(const Hash& hash) {
  return to_hex(std::string_view(reinterpret_cast<const char*>(hash.data()), hash.size()));
}

Result<std::string> from_hex(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  if (text.size() % 2 != 0) return invalid_argument("hexadecimal text has an odd length");
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]);
    const int low = digit(text[i + 1]);
    if (high < 0 || low < 0) return invalid_argument("text is not hexadecimal");
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

std::string to_base64(std::string_view bytes) {
  std::vector<char> text(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL));
  sodium_bin2base64(text.data(), text.size(), bytes_of(bytes), bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  return std::string(text.data());
}

Result<std::string> from_base64(std::string_view text) {
  std::string bytes(text.size() / 4 * 3 + 3, '\0');
  std::size_t length = 0;
  const char* end = nullptr;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(bytes.data()), bytes.size(), text.data(), text.size(), nullptr,
                        &length, &end, sodium_base64_VARIANT_ORIGINAL) != 0 ||
      end != text.data() + text.size()) {
    return invalid_argument("text is not base64");
  }
  bytes.resize(length);
  return bytes;
}

std::string random_bytes(std::size_t count) {
  ensure_sodium();
  std::string bytes(count, '\0');
  randombytes_buf(bytes.data(), bytes.size());
  return bytes;
}

std::uint64_t random_u64() {
  ensure_sodium();
  std::uint64_t value = 0;
  randombytes_buf(&value, sizeof value);
  return value;
}

}  // namespace muster::io
