#include "core/sched/order.h"

#include <algorithm>
#include <bit>

#include "lib/base/check.h"

namespace muster::sched {
namespace {

// Jobs that have just come are of the same age: what counts among them is everything else, not a second more or less.
constexpr Duration kAgeFloor = Duration::from_s(10);

}  // namespace

std::int64_t log2_q16(std::uint64_t x) {
  MUSTER_CHECK(x != 0);
  const int whole = 63 - std::countl_zero(x);
  // The mantissa in [1, 2) with 31 fraction bits; squaring it gives one bit of the logarithm after the other.
  std::uint64_t m = whole >= 31 ? x >> (whole - 31) : x << (31 - whole);
  std::int64_t result = whole;
  for (int i = 0; i < 16; ++i) {
    m = (m * m) >> 31;
    const std::uint64_t bit = m >> 32;  // without a branch: which way it goes is chance
    m >>= bit;
    result = (result << 1) | static_cast<std::int64_t>(bit);
  }
  return result;
}

std::int64_t age_points(Duration waited, Duration limit, std::uint64_t cpus, std::uint32_t exponent) {
  const auto w = static_cast<std::uint64_t>(std::max(waited, kAgeFloor).us);
  const auto e = static_cast<std::uint64_t>(std::clamp<std::int64_t>(limit.us, 1, kAgeLimitMax.us));
  return static_cast<std::int64_t>(exponent) * (log2_q16(w) - log2_q16(e)) + log2_q16(std::max<std::uint64_t>(cpus, 1));
}

}  // namespace muster::sched
