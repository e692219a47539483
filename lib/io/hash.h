// Content hashes and random bytes. Callable from every thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace muster::io {

inline constexpr std::size_t kHashBytes = 32;
using Hash = std::array<std::uint8_t, kHashBytes>;

// BLAKE2b with 256 bits (RFC 7693), no key.
Hash blake2b_256(std::string_view bytes);

// A hash made piece by piece; finish() once.
class Hasher {
 public:
  Hasher();
  void update(std::string_view bytes);
  Hash finish();

 private:
  // Room for libsodium's state (384 bytes, 64-byte aligned), so that its header stays out of this one.
  alignas(64) std::array<std::uint8_t, 384> state_;
};

// Lower-case hexadecimal of the bytes, and back; from_hex refuses odd lengths and other characters.
std::string to_hex(std::string_view bytes);
std::string to_hex(const Hash& hash);
Result<std::string> from_hex(std::string_view text);

// Standard base64 with padding.
std::string to_base64(std::string_view bytes);
Result<std::string> from_base64(std::string_view text);

// Bytes from the kernel's generator, good for keys and ids.
std::string random_bytes(std::size_t count);
std::uint64_t random_u64();

}  // namespace muster::io
