// Words put into a directive line with quotes come out as they were, and no bytes at all harm the reader.
#include <gtest/gtest.h>

#include <random>

#include "cli/script_header.h"
#include "tests/support/seed.h"

namespace muster::cli {
namespace {

std::string random_word(std::mt19937_64& random) {
  static constexpr char kAlphabet[] = "ab-=#'\" \\\t$`%,[]";
  std::string word;
  const std::size_t size = random() % 8;
  for (std::size_t i = 0; i < size; ++i) word += kAlphabet[random() % (sizeof kAlphabet - 1)];
  return word;
}

std::string in_single_quotes(const std::string& word) {
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

std::string in_double_quotes(const std::string& word) {
  std::string out = "\"";
  for (const char c : word)
    out += (c == '"' || c == '\\' || c == '$' || c == '`') ? std::string("\\") + c : std::string(1, c);
  return out + "\"";
}

TEST(ScriptHeaderProperty, QuotedWordsComeBack) {
  const std::uint64_t seed = test::first_seed();
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2'000; ++round) {
    std::vector<std::string> words;
    std::string line = "#MUSTER";
    const std::size_t count = 1 + random() % 5;
    for (std::size_t i = 0; i < count; ++i) {
      words.push_back(random_word(random));
      line += " " + (random() % 2 == 0 ? in_single_quotes(words.back()) : in_double_quotes(words.back()));
    }
    const auto header = parse_script_header("#!/bin/sh\n" + line + (random() % 2 == 0 ? " # end\n" : "\n"), "x");
    ASSERT_TRUE(header.ok()) << "seed " << seed << ": " << line;
    ASSERT_EQ(header->directives.size(), 1U) << "seed " << seed << ": " << line;
    EXPECT_EQ(header->directives[0].words, words) << "seed " << seed << ": " << line;
  }
}

TEST(ScriptHeaderProperty, AnyTextIsReadOrRefused) {
  const std::uint64_t seed = test::first_seed();
  std::mt19937_64 random(seed);
  static constexpr const char* kPieces[] = {"#MUSTER", "#SBATCH", " ",    "\n", "\r\n", "'",    "\"", "\\",
                                            "#",       "-N2",     "echo", "\t", "=",    "\xff", "#!"};
  for (int round = 0; round < 5'000; ++round) {
    std::string text = random() % 8 != 0 ? "#!/bin/sh\n" : "";
    const std::size_t count = random() % 40;
    for (std::size_t i = 0; i < count; ++i) text += kPieces[random() % std::size(kPieces)];
    const auto header = parse_script_header(text, "x");
    if (header.ok()) {
      std::size_t previous = 1;
      for (const Directive& directive : header->directives) {
        EXPECT_GT(directive.line, previous) << "seed " << seed;
        EXPECT_FALSE(directive.words.empty()) << "seed " << seed;
        previous = directive.line;
      }
    } else {
      EXPECT_FALSE(header.error().message.empty()) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace muster::cli
