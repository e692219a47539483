// IndexSet: a set of small non-negative integers (cores, GPUs, hardware threads) as a sequence of 64-bit words.
// A value: copies are independent. Trailing zero words are never stored, so equal sets compare equal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"

namespace muster {

class IndexSet {
 public:
  // The largest index that input may name; parsing more is an error.
  static constexpr std::uint32_t kIndexMax = 65'535;
  // The largest index that may be stored; inserting more is a bug. Replays of recorded workloads have machines of
  // several hundred thousand cores in one set.
  static constexpr std::uint32_t kStoredMax = 1'048'575;

  IndexSet() = default;
  // {first, first+1, .. first+count-1}
  static IndexSet range(std::uint32_t first, std::uint32_t count);
  // Accepts "0-7,64-71", "" is the empty set.
  static Result<IndexSet> parse(std::string_view text);

  void insert(std::uint32_t index);
  void erase(std::uint32_t index);
  [[nodiscard]] bool contains(std::uint32_t index) const;
  [[nodiscard]] std::uint32_t count() const;
  [[nodiscard]] bool empty() const { return words_.empty(); }

  IndexSet& operator|=(const IndexSet& other);
  IndexSet& operator&=(const IndexSet& other);
  IndexSet& operator-=(const IndexSet& other);
  friend IndexSet operator|(IndexSet a, const IndexSet& b) { return a |= b; }
  friend IndexSet operator&(IndexSet a, const IndexSet& b) { return a &= b; }
  friend IndexSet operator-(IndexSet a, const IndexSet& b) { return a -= b; }
  friend bool operator==(const IndexSet&, const IndexSet&) = default;

  [[nodiscard]] bool intersects(const IndexSet& other) const;
  [[nodiscard]] bool is_subset_of(const IndexSet& other) const;
  // The `count` lowest members; all of them when there are fewer.
  [[nodiscard]] IndexSet lowest(std::uint32_t count) const;
  // Members in ascending order.
  [[nodiscard]] std::vector<std::uint32_t> to_vector() const;
  // "0-7,64-71"; the empty set is "".
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] const std::vector<std::uint64_t>& words() const { return words_; }
  static IndexSet from_words(std::vector<std::uint64_t> words);

 private:
  void trim();
  std::vector<std::uint64_t> words_;
};

}  // namespace muster
