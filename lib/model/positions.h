// Sets of positions of an array, as half-open ranges: ascending, not empty, not touching each other. An array of a
// million tasks is one range as long as its tasks start in order.
#pragma once

#include <cstdint>
#include <vector>

namespace muster {

// A half-open range of positions of an array.
struct PositionRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  friend bool operator==(const PositionRange&, const PositionRange&) = default;
};
using Positions = std::vector<PositionRange>;

[[nodiscard]] bool contains(const Positions& set, std::uint64_t position);
[[nodiscard]] std::uint64_t count(const Positions& set);
// The members of `set` that are in `range`.
[[nodiscard]] Positions within(const Positions& set, PositionRange range);
[[nodiscard]] Positions without(const Positions& set, const Positions& gone);
[[nodiscard]] Positions both(const Positions& a, const Positions& b);
// Adds what may be there already. Cheap at the end.
void add(Positions& set, PositionRange range);
void remove(Positions& set, PositionRange gone);

}  // namespace muster
