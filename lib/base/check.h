// MUSTER_CHECK: an assertion that stays on in release builds. A failed check is a bug in Muster, never
// bad input; it prints the condition and its place and aborts.
#pragma once

namespace muster {
[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;
}  // namespace muster

#define MUSTER_CHECK(cond) ((cond) ? static_cast<void>(0) : ::muster::check_failed(#cond, __FILE__, __LINE__))
