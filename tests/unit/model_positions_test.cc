// Sets of positions against the plain definition, and changes of a specification.
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>

#include "lib/model/job_change.h"
#include "lib/model/positions.h"

namespace muster {
namespace {

std::set<std::uint64_t> members(const Positions& set) {
  std::set<std::uint64_t> out;
  std::uint64_t end = 0;
  bool first = true;
  for (const PositionRange& r : set) {
    EXPECT_LT(r.begin, r.end);
    EXPECT_TRUE(first || r.begin >= end);
    for (std::uint64_t p = r.begin; p < r.end; ++p) out.insert(p);
    end = r.end;
    first = false;
  }
  return out;
}

TEST(Positions, BehaveAsSets) {
  std::mt19937_64 random(7);
  const auto range = [&] {
    const std::uint64_t begin = random() % 30;
    return PositionRange{begin, begin + random() % 6};
  };
  for (int round = 0; round < 20'000; ++round) {
    Positions a;
    Positions b;
    std::set<std::uint64_t> x;
    std::set<std::uint64_t> y;
    for (auto* pair : {&a, &b}) {
      for (std::uint64_t i = random() % 6; i > 0; --i) {
        const PositionRange r = range();
        add(*pair, r);
        for (std::uint64_t p = r.begin; p < r.end; ++p) (pair == &a ? x : y).insert(p);
      }
    }
    ASSERT_EQ(members(a), x);
    ASSERT_EQ(count(a), x.size());
    for (std::uint64_t p = 0; p < 40; ++p) ASSERT_EQ(contains(a, p), x.contains(p));
    std::set<std::uint64_t> minus;
    std::set<std::uint64_t> common;
    for (const std::uint64_t p : x) (y.contains(p) ? common : minus).insert(p);
    ASSERT_EQ(members(without(a, b)), minus);
    ASSERT_EQ(members(both(a, b)), common);
    const PositionRange gone = range();
    Positions removed = a;
    remove(removed, gone);
    std::set<std::uint64_t> left = x;
    std::set<std::uint64_t> inside;
    for (std::uint64_t p = gone.begin; p < gone.end; ++p) {
      if (left.erase(p) != 0) inside.insert(p);
    }
    ASSERT_EQ(members(removed), left);
    ASSERT_EQ(members(within(a, gone)), inside);
  }
}

TEST(JobChange, OnlyTheNamedFieldsCount) {
  JobSpec spec;
  spec.name = "old";
  spec.comment = "kept";
  spec.nodes_min = spec.nodes_max = spec.ntasks = 2;
  JobChange change;
  change.fields = {SpecField::kName, SpecField::kNodes};
  change.values.name = "new";
  change.values.comment = "not meant";
  change.values.nodes_min = change.values.nodes_max = 3;
  const JobSpec changed = with_change(spec, change);
  EXPECT_EQ(changed.name, "new");
  EXPECT_EQ(changed.comment, "kept");
  EXPECT_EQ(changed.ntasks, 0U) << "one task a node was derived, not asked for";
  for (std::uint8_t f = 0; f <= static_cast<std::uint8_t>(kSpecFieldLast); ++f) {
    EXPECT_TRUE(option_of(static_cast<SpecField>(f)).starts_with("--"));
  }
}

}  // namespace
}  // namespace muster
