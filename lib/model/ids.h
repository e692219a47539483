// Identifiers. All are 64-bit or name what bounds them; ids are never reused.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>

#include "lib/base/strong.h"

namespace muster {

// A job, or one task of an array: base id + position of the task in the array. 0 is "no job".
using JobId = Strong<struct JobIdTag>;
// Counts the executions of a job, from 1. 0: none yet.
using Attempt = Strong<struct AttemptTag, std::uint32_t>;
// Raised by each start of the controller; nodes ignore messages of a lower term.
using Term = Strong<struct TermTag>;
// A node's place in the controller's State, given at its first registration and never changed.
using NodeIndex = Strong<struct NodeIndexTag, std::uint32_t>;

// Made by a client for one submission and kept over its retries, so that a retry makes no second job.
struct RequestId {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  [[nodiscard]] bool is_set() const { return high != 0 || low != 0; }
  friend auto operator<=>(const RequestId&, const RequestId&) = default;
};

// BLAKE2b-256 of a blob (script, environment). All zero: no blob.
struct Digest {
  std::array<std::uint8_t, 32> bytes{};
  [[nodiscard]] bool is_set() const { return *this != Digest{}; }
  friend auto operator<=>(const Digest&, const Digest&) = default;
};

// (job, attempt): what a launch, a kill and a report are about.
struct AttemptKey {
  JobId job;
  Attempt attempt;
  friend auto operator<=>(const AttemptKey&, const AttemptKey&) = default;
};

}  // namespace muster
