// Random: the simulation's only source of chance. The sequence belongs to the seed alone, on every machine and with
// every compiler (the standard library's distributions do not promise that).
#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/check.h"
#include "lib/base/time.h"

namespace muster::sim {

// splitmix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31U);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed)) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    return mix(state_);
  }
  // 0 .. n-1. The bias of the remainder is below n / 2^64.
  std::uint64_t below(std::uint64_t n) {
    MUSTER_CHECK(n > 0);
    return next() % n;
  }
  // first .. last, both included.
  std::uint64_t between(std::uint64_t first, std::uint64_t last) { return first + below(last - first + 1); }
  bool permille(std::uint64_t chance) { return below(1000) < chance; }
  Duration duration(Duration first, Duration last) {
    return Duration{first.us + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(last.us - first.us) + 1))};
  }
  template <typename T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }
  // A generator of its own, so that drawing more in one part does not change what another part draws.
  Random fork() { return Random(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace muster::sim
