// Use that is forgotten: what was used counts half as much after each half-life. Whole numbers only, so that replaying
// the journal gives the same values on every machine.
//
// Use is counted in 10^-10 CPU seconds: hundredths of a billing weight, times percent of a usage factor, times
// microseconds. 128 bits hold a million nodes for a thousand years.
#pragma once

#include <cstdint>

#include "lib/base/time.h"

namespace muster::sched {

__extension__ typedef unsigned __int128 Uint128;

inline constexpr std::uint64_t kUseUnitsPerCpuSecond = 10'000'000'000;
// Sums stop here instead of wrapping around.
inline constexpr Uint128 kUseMax = Uint128{1} << 126U;

// 2^-(x / 2^62) in units of 2^-63: at most 186 units (2^-55) below the exact value and never above it. It is a product of
// up to 62 roots, each rounded down by less than 2 units, and each multiplication by less than 1.
[[nodiscard]] std::uint64_t exp2_negative_q63(Uint128 x_q62);

// a * b / 2^63, rounded down; b is at most 2^63, and a below 2^126.
[[nodiscard]] Uint128 scale_q63(Uint128 a, std::uint64_t b_q63);

// What is left of `used` after the span: used * 2^(-span / half_life). A half-life of zero forgets nothing.
[[nodiscard]] Uint128 decayed(Uint128 used, Duration span, Duration half_life);

// What using `rate` units a microsecond for the span adds at its end: rate * K * (1 - 2^(-span / half_life)) with
// K = half_life / ln 2, which is the integral of rate * 2^(-t / half_life) over the span.
[[nodiscard]] Uint128 charged(Uint128 rate, Duration span, Duration half_life);

[[nodiscard]] Uint128 saturating_add(Uint128 a, Uint128 b);

}  // namespace muster::sched
