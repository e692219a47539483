#include "core/sched/decay.h"

#include <algorithm>
#include <array>

#include "lib/base/check.h"

namespace muster::sched {
namespace {

constexpr int kBits = 62;
constexpr std::uint64_t kOneQ63 = std::uint64_t{1} << 63U;
// Rates above this are beyond any cluster.
constexpr Uint128 kRateMax = Uint128{1} << 70U;
// Spans shorter than this part of the half-life lose nothing worth counting: charging them in full is at most
// ln 2 / 2 * 2^-21 = 1.7e-7 too much.
constexpr int kShortShift = 21;
// 1 / ln 2 in units of 2^-32.
constexpr std::uint64_t kInverseLn2Q32 = 6'196'328'019;

// The square root of x, rounded down, by its bits.
constexpr std::uint64_t square_root(Uint128 x) {
  std::uint64_t root = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const std::uint64_t more = root | (std::uint64_t{1} << static_cast<unsigned>(bit));
    if (Uint128{more} * more <= x) {
      root = more;
    }
  }
  return root;
}

// At i: 2^(-2^-i) in units of 2^-63, each the square root of the one before.
constexpr std::array<std::uint64_t, kBits + 1> make_roots() {
  std::array<std::uint64_t, kBits + 1> roots{};
  roots[0] = kOneQ63 / 2;
  for (std::size_t i = 1; i < roots.size(); ++i) {
    roots[i] = square_root(Uint128{roots[i - 1]} << 63U);
  }
  return roots;
}
constexpr std::array<std::uint64_t, kBits + 1> kRoots = make_roots();

// 2^-x for the fraction of x alone: the product of the roots that its bits choose.
std::uint64_t fraction_power(std::uint64_t fraction_q62) {
  std::uint64_t power = kOneQ63;
  for (std::size_t i = 1; i <= kBits; ++i) {
    if ((fraction_q62 >> (kBits - i) & 1U) != 0) {
      power = static_cast<std::uint64_t>(Uint128{power} * kRoots[i] >> 63U);
    }
  }
  return power;
}

constexpr std::uint64_t kFractionMask = (std::uint64_t{1} << kBits) - 1;

Uint128 halvings_q62(Duration span, Duration half_life) {
  return (Uint128{static_cast<std::uint64_t>(span.us)} << static_cast<unsigned>(kBits)) /
         static_cast<std::uint64_t>(half_life.us);
}

}  // namespace

std::uint64_t exp2_negative_q63(Uint128 x_q62) {
  const Uint128 whole = x_q62 >> static_cast<unsigned>(kBits);
  if (whole > 63) {
    return 0;
  }
  return fraction_power(static_cast<std::uint64_t>(x_q62) & kFractionMask) >> static_cast<unsigned>(whole);
}

Uint128 scale_q63(Uint128 a, std::uint64_t b_q63) {
  MUSTER_CHECK(a <= kUseMax && b_q63 <= kOneQ63);
  const auto high = static_cast<std::uint64_t>(a >> 64U);
  const auto low = static_cast<std::uint64_t>(a);
  return (Uint128{high} * b_q63 << 1U) + (Uint128{low} * b_q63 >> 63U);
}

Uint128 decayed(Uint128 used, Duration span, Duration half_life) {
  if (half_life.us <= 0 || span.us <= 0 || used == 0) {
    return used;
  }
  const Uint128 x = halvings_q62(span, half_life);
  const Uint128 whole = x >> static_cast<unsigned>(kBits);
  if (whole > 126) {
    return 0;
  }
  // The whole halvings come last, so that they cost no precision.
  const std::uint64_t power = fraction_power(static_cast<std::uint64_t>(x) & kFractionMask);
  return scale_q63(std::min(used, kUseMax), power) >> static_cast<unsigned>(whole);
}

Uint128 charged(Uint128 rate, Duration span, Duration half_life) {
  if (span.us <= 0 || rate == 0) {
    return 0;
  }
  const Uint128 bounded = std::min(rate, kRateMax);
  if (half_life.us <= 0 || span.us < half_life.us >> kShortShift) {
    return std::min(bounded * static_cast<std::uint64_t>(std::min(span.us, std::int64_t{1} << 55)), kUseMax);
  }
  const Uint128 k = Uint128{static_cast<std::uint64_t>(half_life.us)} * kInverseLn2Q32 >> 32U;
  return scale_q63(std::min(bounded * k, kUseMax), kOneQ63 - exp2_negative_q63(halvings_q62(span, half_life)));
}

Uint128 saturating_add(Uint128 a, Uint128 b) {
  return std::min(std::min(a, kUseMax) + std::min(b, kUseMax), kUseMax);
}

}  // namespace muster::sched
