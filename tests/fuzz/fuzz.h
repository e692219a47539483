// For the fuzz targets: the input as text, and properties that are bugs when they fail (MUSTER_CHECK aborts, which is
// what the fuzzer reports).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/check.h"
#include "lib/base/result.h"
#include "lib/base/text.h"

namespace muster::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// What every error owes its reader: a code that says whose fault it is, and one line of text that a terminal can show.
inline void check_error(const Error& error) {
  MUSTER_CHECK(error.code != ErrorCode::kInternal);
  MUSTER_CHECK(!error.message.empty() && error.message.size() < 4096);
  MUSTER_CHECK(printable(error.message) == error.message);
}

}  // namespace muster::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
