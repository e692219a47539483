#include "lib/model/constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string formatted(std::string_view text) {
  const auto c = parse_constraint(text, "--constraint");
  return c.ok() ? format_constraint(*c) : "refused: " + c.error().message;
}

TEST(Constraint, AndBindsMoreTightlyThanOr) {
  EXPECT_EQ(formatted(""), "");
  EXPECT_EQ(formatted("a100"), "a100");
  EXPECT_EQ(formatted(" a & b "), "a&b");
  EXPECT_EQ(formatted("a|b&c"), "(a|(b&c))");
  EXPECT_EQ(formatted("(a|b)&c"), "(a|b)&c");
  EXPECT_EQ(formatted("a|(b|c)"), "(a|b|c)");
}

TEST(Constraint, CountsAndChoicesStandBetweenAnds) {
  const auto counts = parse_constraint("[rack1*2&rack2*4]", "--constraint");
  ASSERT_TRUE(counts.ok());
  ASSERT_EQ(counts->counted.size(), 2U);
  EXPECT_EQ(counts->counted[1].what.name, "rack2");
  EXPECT_EQ(counts->counted[1].nodes, 4U);
  EXPECT_TRUE(counts->every.empty());
  EXPECT_EQ(*parse_constraint("rack1*2&rack2*4", "--constraint"), *counts);

  const auto same = parse_constraint("x&[a|b&c]", "--constraint");
  ASSERT_TRUE(same.ok());
  ASSERT_EQ(same->same.size(), 1U);
  EXPECT_EQ(same->same[0].size(), 2U);
  EXPECT_EQ(same->every.size(), 1U);
  EXPECT_THAT(features_of(*same), ElementsAre("a", "b", "c", "x"));
  // One choice is no choice.
  EXPECT_EQ(formatted("[a]"), "a");
}

TEST(Constraint, BadTextIsRefusedWithItsPosition) {
  EXPECT_THAT(formatted("a&&b"), HasSubstr("--constraint: at position 3 the name of a feature"));
  EXPECT_THAT(formatted("a&"), HasSubstr("position 3"));
  EXPECT_THAT(formatted("a&"), HasSubstr("not the end"));
  EXPECT_THAT(formatted("a b"), HasSubstr("at position 3 & between conditions is expected, not \"b\""));
  EXPECT_THAT(formatted("(a"), HasSubstr("&, | or ) is expected"));
  EXPECT_THAT(formatted("[a|b"), HasSubstr("| or ] is expected"));
  EXPECT_THAT(formatted("a*0"), HasSubstr("at position 3 a number of nodes from 1 to"));
  EXPECT_THAT(formatted("a*x"), HasSubstr("at position 3 a number of nodes"));
  EXPECT_THAT(formatted("a*2|b"), HasSubstr("refused"));
  EXPECT_THAT(formatted("(a*2)"), HasSubstr("refused"));
  EXPECT_THAT(formatted("a\xff"), HasSubstr("\\xff"));
  EXPECT_THAT(formatted(std::string(100, '(') + "a"), HasSubstr("parentheses"));
  EXPECT_THAT(formatted("a*1&b*1&c*1&d*1&e*1"), HasSubstr("more than 4 counts"));
  EXPECT_THAT(formatted("[a|b]&[a|b]&[a|b]&[a|b]&[a|b]&[a|b]"), HasSubstr("64 choices"));
  EXPECT_THAT(formatted(std::string(5'000, 'a')), HasSubstr("bytes"));
}

}  // namespace
}  // namespace muster
