#include "lib/model/positions.h"

#include <algorithm>

namespace muster {
namespace {

// The first range that ends behind the position.
Positions::const_iterator first_behind(const Positions& set, std::uint64_t position) {
  return std::partition_point(set.begin(), set.end(), [position](const PositionRange& r) { return r.end <= position; });
}

}  // namespace

bool contains(const Positions& set, std::uint64_t position) {
  const auto it = first_behind(set, position);
  return it != set.end() && it->begin <= position;
}

std::uint64_t count(const Positions& set) {
  std::uint64_t n = 0;
  for (const PositionRange& r : set) {
    n += r.end - r.begin;
  }
  return n;
}

Positions within(const Positions& set, PositionRange range) {
  Positions out;
  if (range.begin >= range.end) {
    return out;
  }
  for (auto it = first_behind(set, range.begin); it != set.end() && it->begin < range.end; ++it) {
    out.push_back({std::max(it->begin, range.begin), std::min(it->end, range.end)});
  }
  return out;
}

Positions without(const Positions& set, const Positions& gone) {
  Positions out;
  auto next = gone.begin();
  for (PositionRange r : set) {
    while (next != gone.end() && next->end <= r.begin) {
      ++next;
    }
    for (auto it = next; it != gone.end() && it->begin < r.end && r.begin < r.end; ++it) {
      if (r.begin < it->begin) {
        out.push_back({r.begin, it->begin});
      }
      r.begin = std::min(it->end, r.end);
    }
    if (r.begin < r.end) {
      out.push_back(r);
    }
  }
  return out;
}

Positions both(const Positions& a, const Positions& b) {
  Positions out;
  auto y = b.begin();
  for (const PositionRange& x : a) {
    while (y != b.end() && y->end <= x.begin) {
      ++y;
    }
    for (auto it = y; it != b.end() && it->begin < x.end; ++it) {
      out.push_back({std::max(x.begin, it->begin), std::min(x.end, it->end)});
    }
  }
  return out;
}

void add(Positions& set, PositionRange range) {
  if (range.begin >= range.end) {
    return;
  }
  // What it overlaps or touches becomes one with it.
  const auto first =
      std::partition_point(set.begin(), set.end(), [&range](const PositionRange& r) { return r.end < range.begin; });
  auto last = first;
  for (; last != set.end() && last->begin <= range.end; ++last) {
    range.begin = std::min(range.begin, last->begin);
    range.end = std::max(range.end, last->end);
  }
  if (first == last) {
    set.insert(first, range);
    return;
  }
  *first = range;
  set.erase(first + 1, last);
}

void remove(Positions& set, PositionRange gone) {
  if (gone.begin >= gone.end) {
    return;
  }
  const auto at = set.begin() + (first_behind(set, gone.begin) - set.cbegin());
  if (at == set.end() || at->begin >= gone.end) {
    return;
  }
  if (at->begin < gone.begin && gone.end < at->end) {
    const PositionRange rest{gone.end, at->end};
    at->end = gone.begin;
    set.insert(at + 1, rest);
    return;
  }
  auto first = at;
  if (first->begin < gone.begin) {
    first->end = gone.begin;
    ++first;
  }
  auto last = first;
  while (last != set.end() && last->end <= gone.end) {
    ++last;
  }
  if (last != set.end() && last->begin < gone.end) {
    last->begin = gone.end;
  }
  set.erase(first, last);
}

}  // namespace muster
