// Instant and Duration: time as plain integers of microseconds. Nothing here reads a clock: time is an
// argument that shells pass in. Instants are wall time since the Unix epoch unless a comment says otherwise.
#pragma once

#include <compare>
#include <cstdint>

namespace muster {

struct Duration {
  std::int64_t us = 0;

  static constexpr Duration from_us(std::int64_t v) { return Duration{v}; }
  static constexpr Duration from_ms(std::int64_t v) { return Duration{v * 1000}; }
  static constexpr Duration from_s(std::int64_t v) { return Duration{v * 1'000'000}; }
  // "No limit" as a value that survives addition to any realistic instant.
  static constexpr Duration infinite() { return Duration{INT64_MAX / 4}; }

  [[nodiscard]] constexpr bool is_infinite() const { return us >= INT64_MAX / 4; }
  [[nodiscard]] constexpr std::int64_t seconds() const { return us / 1'000'000; }
  [[nodiscard]] constexpr std::int64_t ms() const { return us / 1000; }

  friend constexpr auto operator<=>(Duration, Duration) = default;
  friend constexpr Duration operator+(Duration a, Duration b) { return Duration{a.us + b.us}; }
  friend constexpr Duration operator-(Duration a, Duration b) { return Duration{a.us - b.us}; }
};

struct Instant {
  std::int64_t us = 0;

  static constexpr Instant from_us(std::int64_t v) { return Instant{v}; }
  static constexpr Instant from_s(std::int64_t v) { return Instant{v * 1'000'000}; }
  [[nodiscard]] constexpr bool is_set() const { return us != 0; }
  [[nodiscard]] constexpr std::int64_t seconds() const { return us / 1'000'000; }

  friend constexpr auto operator<=>(Instant, Instant) = default;
  friend constexpr Instant operator+(Instant a, Duration d) { return Instant{a.us + d.us}; }
  friend constexpr Instant operator-(Instant a, Duration d) { return Instant{a.us - d.us}; }
  friend constexpr Duration operator-(Instant a, Instant b) { return Duration{a.us - b.us}; }
};

}  // namespace muster
