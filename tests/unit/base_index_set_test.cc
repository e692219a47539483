#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/base/index_set.h"

namespace muster {
namespace {

using testing::ElementsAre;

TEST(IndexSet, ParsesAndPrints) {
  for (const char* text : {"", "0", "0-7,64-71", "63-64", "5,7,9-10", "65535"}) {
    const auto set = IndexSet::parse(text);
    ASSERT_TRUE(set.ok()) << text;
    EXPECT_EQ(set->to_string(), text);
  }
  EXPECT_EQ(IndexSet::parse("3,1,2,2-4")->to_string(), "1-4");
  for (const char* text : {",", "a", "1-", "-1", "4-1", "65536", "1,,2", " 1", "1-2-3", "99999999999999999999"}) {
    EXPECT_FALSE(IndexSet::parse(text).ok()) << text;
  }
}

TEST(IndexSet, RangeCrossesWords) {
  EXPECT_TRUE(IndexSet::range(5, 0).empty());
  EXPECT_EQ(IndexSet::range(60, 10).to_string(), "60-69");
  EXPECT_EQ(IndexSet::range(0, 64).to_string(), "0-63");
  EXPECT_EQ(IndexSet::range(64, 64).count(), 64U);
  EXPECT_EQ(IndexSet::range(0, 65536).count(), 65536U);
  EXPECT_EQ(IndexSet::range(0, IndexSet::kStoredMax + 1).count(), IndexSet::kStoredMax + 1);
}

TEST(IndexSet, EqualSetsAreEqualWhateverTheirHistory) {
  IndexSet set = IndexSet::range(0, 3);
  set.insert(1000);
  set.erase(1000);
  EXPECT_EQ(set, IndexSet::range(0, 3));
  set -= set;
  EXPECT_TRUE(set.empty());
  EXPECT_EQ(set, IndexSet{});
  EXPECT_EQ(IndexSet::from_words({7, 0, 0}), IndexSet::range(0, 3));
}

TEST(IndexSet, Algebra) {
  const IndexSet a = *IndexSet::parse("0-3,100");
  const IndexSet b = *IndexSet::parse("2-5");
  EXPECT_EQ((a | b).to_string(), "0-5,100");
  EXPECT_EQ((a & b).to_string(), "2-3");
  EXPECT_EQ((a - b).to_string(), "0-1,100");
  EXPECT_TRUE(a.intersects(b));
  EXPECT_FALSE(a.intersects(*IndexSet::parse("4-99")));
  EXPECT_TRUE((a & b).is_subset_of(a));
  EXPECT_FALSE(a.is_subset_of(b));
  EXPECT_TRUE(IndexSet{}.is_subset_of(b));
  EXPECT_TRUE(a.contains(100));
  EXPECT_FALSE(a.contains(65'000));
}

TEST(IndexSet, LowestTakesFromTheFront) {
  const IndexSet a = *IndexSet::parse("3,70,200");
  EXPECT_THAT(a.lowest(2).to_vector(), ElementsAre(3, 70));
  EXPECT_EQ(a.lowest(9), a);
  EXPECT_TRUE(a.lowest(0).empty());
}

}  // namespace
}  // namespace muster
