// What the parts of the store share: names of files, the journal's chain of hashes, the head. docs/spec/journal.md fixes
// the format.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ctld/journal.h"
#include "lib/io/hash.h"

namespace muster::ctld {

inline constexpr std::size_t kHeadBytes = 8 + io::kHashBytes + io::kHashBytes;

inline std::string head_path(const std::string& state_dir) {
  return state_dir + "/journal.head";
}

inline std::string restore_advice(const std::string& path) {
  const auto slash = path.rfind('/');
  return "restore a copy of the folder " + (slash == std::string::npos ? std::string(".") : path.substr(0, slash));
}

inline Error corrupt(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::kCorrupt, path + " is damaged: " + what + ": " + restore_advice(path));
}

inline std::string_view view_of(const io::Hash& hash) {
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}
inline std::string_view view_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

inline io::Hash chain_hash(const io::Hash& previous, std::string_view data) {
  io::Hasher hasher;
  hasher.update(view_of(previous));
  hasher.update(data);
  return hasher.finish();
}

inline void put_u64(std::string& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) {
    out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
}
inline std::uint64_t get_u64(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return value;
}

inline std::string encode_head(const JournalPosition& position) {
  std::string bytes;
  put_u64(bytes, position.seq);
  bytes += view_of(position.chain);
  bytes += view_of(io::blake2b_256(bytes));
  return bytes;
}

}  // namespace muster::ctld
