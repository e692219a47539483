// SlotSet: a set of cores of one machine by their slots (node_class.h), as words of a fixed number. Internal to topo;
// IndexSet is what others see.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace muster::topo {

class SlotSet {
 public:
  SlotSet() = default;
  explicit SlotSet(std::uint32_t slots) : words_((slots + 63) / 64, 0) {}

  void insert(std::uint32_t slot) { words_[slot / 64] |= bit(slot); }
  void erase(std::uint32_t slot) { words_[slot / 64] &= ~bit(slot); }
  [[nodiscard]] bool contains(std::uint32_t slot) const { return (words_[slot / 64] & bit(slot)) != 0; }

  SlotSet& operator|=(const SlotSet& o) {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      words_[i] |= o.words_[i];
    }
    return *this;
  }
  SlotSet& operator&=(const SlotSet& o) {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      words_[i] &= o.words_[i];
    }
    return *this;
  }
  SlotSet& operator-=(const SlotSet& o) {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      words_[i] &= ~o.words_[i];
    }
    return *this;
  }
  friend SlotSet operator&(SlotSet a, const SlotSet& b) { return a &= b; }
  friend SlotSet operator-(SlotSet a, const SlotSet& b) { return a -= b; }
  friend bool operator==(const SlotSet&, const SlotSet&) = default;

  [[nodiscard]] std::uint32_t count() const {
    std::uint32_t n = 0;
    for (const std::uint64_t w : words_) {
      n += static_cast<std::uint32_t>(std::popcount(w));
    }
    return n;
  }
  [[nodiscard]] bool empty() const { return count() == 0; }
  [[nodiscard]] std::uint32_t count_and(const SlotSet& o) const {
    std::uint32_t n = 0;
    for (std::size_t i = 0; i < words_.size(); ++i) {
      n += static_cast<std::uint32_t>(std::popcount(words_[i] & o.words_[i]));
    }
    return n;
  }
  [[nodiscard]] bool intersects(const SlotSet& o) const {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if ((words_[i] & o.words_[i]) != 0) {
        return true;
      }
    }
    return false;
  }
  [[nodiscard]] bool is_subset_of(const SlotSet& o) const {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if ((words_[i] & ~o.words_[i]) != 0) {
        return false;
      }
    }
    return true;
  }
  // Members in [first, last).
  [[nodiscard]] std::uint32_t count(std::uint32_t first, std::uint32_t last) const {
    std::uint32_t n = 0;
    for (std::uint32_t i = first / 64; first < last; ++i, first = i * 64) {
      std::uint64_t w = words_[i] >> (first % 64);
      const std::uint32_t width = last - first;
      if (width < 64) {
        w &= (std::uint64_t{1} << width) - 1;
      }
      n += static_cast<std::uint32_t>(std::popcount(w));
    }
    return n;
  }
  // The lowest member not below `from`; the number of slots rounded up to a word when there is none.
  [[nodiscard]] std::uint32_t next(std::uint32_t from) const {
    std::size_t i = from / 64;
    if (i >= words_.size()) {
      return end();
    }
    std::uint64_t w = words_[i] & (~std::uint64_t{0} << (from % 64));
    while (w == 0) {
      if (++i == words_.size()) {
        return end();
      }
      w = words_[i];
    }
    return static_cast<std::uint32_t>(i * 64) + static_cast<std::uint32_t>(std::countr_zero(w));
  }
  [[nodiscard]] std::uint32_t end() const { return static_cast<std::uint32_t>(words_.size() * 64); }
  template <typename F>
  void for_each(F f) const {
    for (std::uint32_t s = next(0); s < end(); s = next(s + 1)) {
      f(s);
    }
  }
  [[nodiscard]] const std::vector<std::uint64_t>& words() const { return words_; }
  [[nodiscard]] std::vector<std::uint64_t>& words() { return words_; }

 private:
  static std::uint64_t bit(std::uint32_t slot) { return std::uint64_t{1} << (slot % 64); }
  std::vector<std::uint64_t> words_;
};

}  // namespace muster::topo
