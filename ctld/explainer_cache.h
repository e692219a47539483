// ExplainerCache: the explanations of one moment, kept while the state does not change. To make them costs a planning
// pass, and a long listing comes in many parts. Lives with the questions, on the loop's thread.
#pragma once

#include <cstdint>
#include <optional>

#include "core/engine/engine.h"

namespace muster::ctld {

class ExplainerCache {
 public:
  // Times in what it says are told from the moment when it was made, so it is made again after this.
  static constexpr Duration kFreshFor = Duration::from_s(1);

  // Valid until the next call, and while the state does not change.
  const engine::Explainer& get(const engine::State& state, const sched::Policy& policy, Instant now) {
    if (!explainer_ || changes_ != state.changes.count || now < made_at_ || now - made_at_ >= kFreshFor) {
      looked_at_ = looked_at();
      explainer_.emplace(state, policy, now);
      changes_ = state.changes.count;
      made_at_ = now;
      ++made_;
    }
    return *explainer_;
  }
  [[nodiscard]] std::uint64_t made() const { return made_; }
  // Explainer::looked_at() of all that were made.
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_ + (explainer_ ? explainer_->looked_at() : 0); }

 private:
  std::optional<engine::Explainer> explainer_;
  std::uint64_t changes_ = 0;
  Instant made_at_;
  std::uint64_t made_ = 0;
  std::uint64_t looked_at_ = 0;
};

}  // namespace muster::ctld
