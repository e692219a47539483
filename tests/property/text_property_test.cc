// Properties of the small notations: what is printed is read back as the same value, and no text whatever breaks a
// reader.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "lib/base/index_set.h"
#include "lib/base/text.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

class TextProperty : public testing::Test {
 protected:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  std::string random_name() {
    static const std::vector<std::string> kPrefixes = {"n", "gpu", "rack-1.", "", "a_", "n0", "9x"};
    const std::string prefix = kPrefixes[below(kPrefixes.size())];
    if (!prefix.empty() && prefix != "rack-1." && below(8) == 0) return prefix;
    std::string digits = std::to_string(below(below(2) == 0 ? 12 : 1100));
    if (below(3) == 0) digits.insert(0, below(3), '0');
    if (below(20) == 0) digits = std::string(17 + below(5), '9');
    return prefix + digits;
  }
  std::mt19937_64 random_{test::first_seed()};
};

TEST_F(TextProperty, FoldedNamesExpandToThemselves) {
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> names;
    std::set<std::string> seen;
    for (std::uint64_t i = below(30); i > 0; --i) {
      std::string name = random_name();
      if (seen.insert(name).second) names.push_back(std::move(name));
    }
    if (below(2) == 0) std::sort(names.begin(), names.end());
    const std::string folded = fold_node_list(names);
    const auto expanded = expand_node_list(folded);
    ASSERT_TRUE(expanded.ok()) << folded << ": " << expanded.error().message;
    ASSERT_EQ(*expanded, names) << folded;
  }
}

TEST_F(TextProperty, DurationsAndMemoryReadBackTheSame) {
  for (int round = 0; round < 20000; ++round) {
    const Duration d = Duration::from_s(static_cast<std::int64_t>(below(std::uint64_t{1} << below(40))));
    ASSERT_EQ(*parse_duration(format_duration(d)), d) << format_duration(d);
    const std::uint64_t mib = below(std::uint64_t{1} << below(54));
    ASSERT_EQ(*parse_memory_mib(format_memory_mib(mib)), mib) << format_memory_mib(mib);
  }
}

TEST_F(TextProperty, IndexSetsReadBackTheSame) {
  for (int round = 0; round < 2000; ++round) {
    IndexSet set;
    std::set<std::uint32_t> model;
    for (std::uint64_t i = below(40); i > 0; --i) {
      const auto index = static_cast<std::uint32_t>(below(200));
      if (below(3) == 0) {
        set.erase(index);
        model.erase(index);
      } else {
        set.insert(index);
        model.insert(index);
      }
    }
    ASSERT_EQ(set.count(), model.size());
    ASSERT_EQ(set.to_vector(), std::vector<std::uint32_t>(model.begin(), model.end()));
    ASSERT_EQ(*IndexSet::parse(set.to_string()), set);
  }
}

TEST_F(TextProperty, NoTextBreaksAReader) {
  const std::string alphabet = "0123456789-:,[]nshmdGKTib .\xff\x01";
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (std::uint64_t i = below(24); i > 0; --i) text += alphabet[below(alphabet.size())];
    static_cast<void>(parse_duration(text));
    static_cast<void>(parse_memory_mib(text));
    static_cast<void>(parse_integer(text, "x", INT64_MIN, INT64_MAX));
    static_cast<void>(IndexSet::parse(text));
    const auto names = expand_node_list(text);
    if (names.ok()) {
      ASSERT_EQ(*expand_node_list(fold_node_list(*names)), *names) << text;
    }
    ASSERT_TRUE(is_valid_utf8(printable(text)));
  }
}

}  // namespace
}  // namespace muster
