// World: one whole run of the simulation. From a seed it draws a cluster, users, a network and the faults that strike
// them, lets it all run in virtual time, checks the rules of docs/architecture.md ("Rules that must always hold") after
// every step, and at the end, with the faults over, that everything ends and nothing is left.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace muster::sim {

struct WorldOptions {
  std::uint64_t seed = 1;
  std::uint64_t steps = 2'000;                  // events with faults; the calm end comes on top
  std::uint32_t nodes = 0;                      // 0: drawn from the seed
  std::function<void(const std::string&)> log;  // empty: silent
};

struct WorldResult {
  std::string problem;  // empty: every rule held
  std::uint64_t steps = 0;
  std::uint64_t jobs = 0;    // records in history
  std::uint64_t starts = 0;  // processes begun
  std::uint64_t faults = 0;
  // A hash of everything that happened: two runs of one seed have the same.
  std::uint64_t fingerprint = 0;
};

WorldResult run_world(const WorldOptions& options);

}  // namespace muster::sim
