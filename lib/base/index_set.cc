#include "lib/base/index_set.h"

#include <algorithm>
#include <bit>

#include "lib/base/text.h"

namespace muster {
namespace {
constexpr std::uint32_t kWordBits = 64;
constexpr std::size_t kWordsMax = (IndexSet::kStoredMax + 1) / kWordBits;

// The bits [low, high] of one word, both within 0..63.
std::uint64_t mask_between(std::uint32_t low, std::uint32_t high) {
  const std::uint64_t up_to_high = high == 63 ? ~std::uint64_t{0} : (std::uint64_t{1} << (high + 1)) - 1;
  return up_to_high & (~std::uint64_t{0} << low);
}
}  // namespace

IndexSet IndexSet::range(std::uint32_t first, std::uint32_t count) {
  IndexSet set;
  if (count == 0) return set;
  MUSTER_CHECK(first <= kStoredMax && count - 1 <= kStoredMax - first);
  const std::uint32_t last = first + (count - 1);
  set.words_.assign(last / kWordBits + 1, 0);
  for (std::uint32_t word = first / kWordBits; word <= last / kWordBits; ++word) {
    const std::uint32_t base = word * kWordBits;
    const std::uint32_t low = first > base ? first - base : 0;
    const std::uint32_t high = last - base < kWordBits ? last - base : kWordBits - 1;
    set.words_[word] = mask_between(low, high);
  }
  return set;
}

Result<IndexSet> IndexSet::parse(std::string_view text) {
  IndexSet set;
  if (text.empty()) return set;
  for (const std::string_view item : split(text, ',')) {
    const std::size_t dash = item.find('-');
    const std::string_view first_text = item.substr(0, dash);
    const std::string_view last_text = dash == std::string_view::npos ? first_text : item.substr(dash + 1);
    const auto first = parse_count(first_text, "index list", {0, kIndexMax});
    const auto last = parse_count(last_text, "index list", {0, kIndexMax});
    if (!first.ok() || !last.ok() || *first > *last) {
      return invalid_argument("\"" + printable(item.substr(0, 40)) +
                              "\" is not a range of indices: write lists as 0-7,64-71, at most " +
                              std::to_string(kIndexMax));
    }
    set |= range(static_cast<std::uint32_t>(*first), static_cast<std::uint32_t>(*last - *first + 1));
  }
  return set;
}

void IndexSet::insert(std::uint32_t index) {
  MUSTER_CHECK(index <= kStoredMax);
  const std::size_t word = index / kWordBits;
  if (word >= words_.size()) words_.resize(word + 1, 0);
  words_[word] |= std::uint64_t{1} << (index % kWordBits);
}

void IndexSet::erase(std::uint32_t index) {
  const std::size_t word = index / kWordBits;
  if (word >= words_.size()) return;
  words_[word] &= ~(std::uint64_t{1} << (index % kWordBits));
  trim();
}

bool IndexSet::contains(std::uint32_t index) const {
  const std::size_t word = index / kWordBits;
  return word < words_.size() && ((words_[word] >> (index % kWordBits)) & 1) != 0;
}

std::uint32_t IndexSet::count() const {
  std::uint32_t total = 0;
  for (const std::uint64_t word : words_) total += static_cast<std::uint32_t>(std::popcount(word));
  return total;
}

IndexSet& IndexSet::operator|=(const IndexSet& other) {
  if (other.words_.size() > words_.size()) words_.resize(other.words_.size(), 0);
  for (std::size_t i = 0; i < other.words_.size(); ++i) words_[i] |= other.words_[i];
  return *this;
}

IndexSet& IndexSet::operator&=(const IndexSet& other) {
  if (words_.size() > other.words_.size()) words_.resize(other.words_.size());
  for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
  trim();
  return *this;
}

IndexSet& IndexSet::operator-=(const IndexSet& other) {
  const std::size_t common = std::min(words_.size(), other.words_.size());
  // With x -= x both sides are one vector; each word is read before it is written.
  for (std::size_t i = 0; i < common; ++i) words_[i] &= ~other.words_[i];
  trim();
  return *this;
}

bool IndexSet::intersects(const IndexSet& other) const {
  const std::size_t common = std::min(words_.size(), other.words_.size());
  for (std::size_t i = 0; i < common; ++i) {
    if ((words_[i] & other.words_[i]) != 0) return true;
  }
  return false;
}

bool IndexSet::is_subset_of(const IndexSet& other) const {
  if (words_.size() > other.words_.size()) return false;
  for (std::size_t i = 0; i < words_.size(); ++i) {
    if ((words_[i] & ~other.words_[i]) != 0) return false;
  }
  return true;
}

IndexSet IndexSet::lowest(std::uint32_t count) const {
  IndexSet result;
  for (const std::uint64_t word : words_) {
    if (count == 0) break;
    std::uint64_t left = word;
    std::uint64_t taken = 0;
    while (left != 0 && count > 0) {
      const std::uint64_t bit = left & (~left + 1);
      taken |= bit;
      left ^= bit;
      --count;
    }
    result.words_.push_back(taken);
  }
  result.trim();
  return result;
}

std::vector<std::uint32_t> IndexSet::to_vector() const {
  std::vector<std::uint32_t> members;
  members.reserve(count());
  for (std::size_t i = 0; i < words_.size(); ++i) {
    for (std::uint64_t left = words_[i]; left != 0; left &= left - 1) {
      members.push_back(static_cast<std::uint32_t>(i * kWordBits) + static_cast<std::uint32_t>(std::countr_zero(left)));
    }
  }
  return members;
}

std::string IndexSet::to_string() const {
  std::string text;
  const std::vector<std::uint32_t> members = to_vector();
  for (std::size_t i = 0; i < members.size();) {
    std::size_t last = i;
    while (last + 1 < members.size() && members[last + 1] == members[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(members[i]);
    if (last > i) text += '-' + std::to_string(members[last]);
    i = last + 1;
  }
  return text;
}

IndexSet IndexSet::from_words(std::vector<std::uint64_t> words) {
  IndexSet set;
  set.words_ = std::move(words);
  set.trim();
  MUSTER_CHECK(set.words_.size() <= kWordsMax);
  return set;
}

void IndexSet::trim() {
  while (!words_.empty() && words_.back() == 0) words_.pop_back();
}

}  // namespace muster
