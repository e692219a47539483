// The seed of a property test: MUSTER_SEED, or another one for each run. Printed, so that a run can be repeated.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace muster::test {

inline std::uint64_t first_seed() {
  const char* given = std::getenv("MUSTER_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("MUSTER_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace muster::test
