// Which program a task of `muster run --multi-prog` runs.
#include "noded/step_programs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lib/wire/muster.pb.h"

namespace muster::noded {
namespace {

using testing::ElementsAre;
using testing::Optional;

pb::StepSpec spec_of_three() {
  pb::StepSpec spec;
  auto& some = *spec.add_programs();
  for (const char* word : {"./a", "%t-%o", "100%%", "%x"}) some.add_argv(word);
  some.add_first(2);
  some.add_last(3);
  some.add_first(6);
  some.add_last(6);
  auto& rest = *spec.add_programs();
  rest.add_argv("./b%t");
  return spec;
}

TEST(StepPrograms, RankAndPlaceAreFilledIn) {
  const pb::StepSpec spec = spec_of_three();
  EXPECT_THAT(program_of(spec, 2), Optional(ElementsAre("./a", "2-0", "100%", "%x")));
  EXPECT_THAT(program_of(spec, 6), Optional(ElementsAre("./a", "6-2", "100%", "%x")));
  EXPECT_THAT(program_of(spec, 4), Optional(ElementsAre("./b4")));
  EXPECT_EQ(rank_without_program(spec, 100), std::nullopt);
}

TEST(StepPrograms, ARankWithoutAProgramIsFound) {
  pb::StepSpec spec = spec_of_three();
  spec.mutable_programs()->RemoveLast();
  EXPECT_EQ(rank_without_program(spec, 4), 0U);
  spec.mutable_programs(0)->set_first(0, 0);
  EXPECT_EQ(rank_without_program(spec, 4), std::nullopt);
  EXPECT_EQ(rank_without_program(spec, 7), 4U);
  EXPECT_EQ(program_of(spec, 4), std::nullopt);
}

TEST(StepPrograms, AMillionRangesAreLookedThroughOnce) {
  pb::StepSpec spec;
  auto& program = *spec.add_programs();
  program.add_argv("a");
  for (std::uint32_t rank = 0; rank < 1'000'000; ++rank) {
    program.add_first(999'999 - rank);
    program.add_last(999'999 - rank);
  }
  EXPECT_EQ(rank_without_program(spec, 1'000'000), std::nullopt);
  EXPECT_EQ(rank_without_program(spec, 1'000'001), 1'000'000U);
  EXPECT_TRUE(has_too_many_ranges(spec, 1'000'000));
  EXPECT_FALSE(has_too_many_ranges(spec, 10));
}

TEST(StepPrograms, OneProgramIsForAll) {
  pb::StepSpec spec;
  spec.add_argv("echo");
  spec.add_argv("%t");
  EXPECT_THAT(program_of(spec, 7), Optional(ElementsAre("echo", "%t")));
  EXPECT_EQ(rank_without_program(spec, 7), std::nullopt);
}

}  // namespace
}  // namespace muster::noded
