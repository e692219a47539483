// Timeline: virtual time. What happens at one instant happens in the order in which it was asked for.
#pragma once

#include <functional>
#include <map>
#include <utility>

#include "lib/base/time.h"

namespace muster::sim {

class Timeline {
 public:
  explicit Timeline(Instant start) : now_(start) {}

  [[nodiscard]] Instant now() const { return now_; }
  void after(Duration delay, std::function<void()> event) {
    events_.emplace(std::pair{now_ + delay, sequence_++}, std::move(event));
  }
  // Does the next event; false when there is none.
  bool step() {
    if (events_.empty()) return false;
    auto first = events_.begin();
    now_ = first->first.first;
    auto event = std::move(first->second);
    events_.erase(first);
    event();
    return true;
  }

 private:
  Instant now_;
  std::uint64_t sequence_ = 0;
  std::map<std::pair<Instant, std::uint64_t>, std::function<void()>> events_;
};

}  // namespace muster::sim
