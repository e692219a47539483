#include "ctld/explainer_cache.h"

#include "tests/support/engine_scenario.h"

namespace muster::testing {
namespace {

// A listing of a hundred parts makes one look-ahead, not a hundred.
TEST(ExplainerCache, IsMadeAgainWhenTheStateOrTheTimeHasChanged) {
  Scenario s;
  s.node("n1", 1);
  s.submit(job(1, 1));
  const JobId waits = s.submit(job(1, 1));
  s.schedule();
  ctld::ExplainerCache cache;
  const Instant now = s.state.now;
  EXPECT_EQ(cache.get(s.state, s.rules, now).reason(s.state.jobs.at(waits)).word, "Resources");
  for (int i = 0; i < 100; ++i) {
    static_cast<void>(cache.get(s.state, s.rules, now + Duration::from_ms(i)));
  }
  EXPECT_EQ(cache.made(), 1U);
  static_cast<void>(cache.get(s.state, s.rules, now + ctld::ExplainerCache::kFreshFor));
  EXPECT_EQ(cache.made(), 2U);
  s.run(HoldJobs{{"alice", false},
                 JobSelector{.items = {{waits, false, {}}}, .user = {}, .queue = {}, .name = {}, .states = {}}});
  EXPECT_EQ(cache.get(s.state, s.rules, now + ctld::ExplainerCache::kFreshFor).reason(s.state.jobs.at(waits)).word,
            "JobHeldUser");
  EXPECT_EQ(cache.made(), 3U);
  s.drop_effects();
}

}  // namespace
}  // namespace muster::testing
