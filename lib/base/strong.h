// Strong<Tag, Rep>: an integer that does not convert into another kind of id or quantity.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace muster {

template <typename Tag, typename Rep = std::uint64_t>
struct Strong {
  Rep value = 0;

  constexpr Strong() = default;
  constexpr explicit Strong(Rep v) : value(v) {}
  friend constexpr auto operator<=>(const Strong&, const Strong&) = default;
};

}  // namespace muster

template <typename Tag, typename Rep>
struct std::hash<muster::Strong<Tag, Rep>> {
  std::size_t operator()(const muster::Strong<Tag, Rep>& s) const noexcept { return std::hash<Rep>{}(s.value); }
};
