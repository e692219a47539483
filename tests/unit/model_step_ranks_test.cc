#include "lib/model/step_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muster {
namespace {

using testing::ElementsAre;

TEST(StepRanks, AreDealtOutInBlocksOrInTurn) {
  EXPECT_THAT(deal_ranks({2, 1, 3}, 0), ElementsAre(ElementsAre(0, 1), ElementsAre(2), ElementsAre(3, 4, 5)));
  EXPECT_THAT(deal_ranks({2, 1, 3}, 1), ElementsAre(ElementsAre(0, 3), ElementsAre(1), ElementsAre(2, 4, 5)));
  EXPECT_THAT(deal_ranks({4, 3}, 2), ElementsAre(ElementsAre(0, 1, 4, 5), ElementsAre(2, 3, 6)));
  EXPECT_THAT(deal_ranks({2, 2}, 4'000'000'000U), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  EXPECT_TRUE(deal_ranks({}, 1).empty());
}

}  // namespace
}  // namespace muster
