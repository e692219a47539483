#include "core/sched/licenses.h"

#include <algorithm>

#include "core/sched/horizon.h"
#include "lib/base/check.h"

namespace muster::sched {
namespace {

// An attempt that is over its time is about to be stopped by its node.
constexpr Duration kOverdue = Duration::from_s(1);

}  // namespace

void LicenseHolds::hold(const LicenseCounts& licenses, Instant until) {
  for (const LicenseCount& one : licenses) {
    holds_[one.name][until] += one.count;
  }
}

void LicenseHolds::release(const LicenseCounts& licenses, Instant until) {
  for (const LicenseCount& one : licenses) {
    const auto held = holds_.find(one.name);
    MUSTER_CHECK(held != holds_.end());
    const auto at = held->second.find(until);
    MUSTER_CHECK(at != held->second.end() && at->second >= one.count);
    at->second -= one.count;
    if (at->second == 0) {
      held->second.erase(at);
    }
    if (held->second.empty()) {
      holds_.erase(held);
    }
    ++released_;
  }
}

std::uint64_t LicenseHolds::used(const std::string& name) const {
  std::uint64_t sum = 0;
  for (const auto& [until, count] : on(name)) {
    sum += count;
  }
  return sum;
}

const std::map<Instant, std::uint64_t>& LicenseHolds::on(const std::string& name) const {
  static const std::map<Instant, std::uint64_t> kNone;
  const auto it = holds_.find(name);
  return it == holds_.end() ? kNone : it->second;
}

LicenseLine::Steps& LicenseLine::steps(const std::string& name) const {
  const auto [it, is_new] = steps_.try_emplace(name);
  Steps& steps = it->second;
  if (!is_new) {
    return steps;
  }
  std::int64_t free = 0;
  if (totals_ != nullptr) {
    const auto total = totals_->find(name);
    free = total == totals_->end() ? 0 : static_cast<std::int64_t>(total->second);
    free -= static_cast<std::int64_t>(holds_->used(name));
  }
  steps[now_] = free;
  if (holds_ != nullptr) {
    for (const auto& [until, count] : holds_->on(name)) {
      free += static_cast<std::int64_t>(count);
      steps[std::max(until, now_ + kOverdue)] = free;
    }
  }
  return steps;
}

void LicenseLine::add(const LicenseCounts& licenses, Instant from, Instant until, std::int64_t sign) {
  from = std::max(from, now_);
  if (until <= from) {
    return;
  }
  for (const LicenseCount& one : licenses) {
    Steps& all = steps(one.name);
    const auto split = [&all](Instant at) {
      const auto before = std::prev(all.upper_bound(at));
      return all.emplace(at, before->second).first;
    };
    const auto first = split(from);
    const auto last = split(until);
    for (auto it = first; it != last; ++it) {
      it->second += sign * static_cast<std::int64_t>(one.count);
    }
  }
}

void LicenseLine::take(const LicenseCounts& licenses, Instant from, Instant until) {
  add(licenses, from, until, -1);
}

void LicenseLine::give_back(const LicenseCounts& licenses, Instant from, Instant until) {
  add(licenses, from, until, 1);
}

std::int64_t LicenseLine::free(const std::string& name, Instant from, Instant until) const {
  const Steps& all = steps(name);
  auto it = std::prev(all.upper_bound(std::max(from, now_)));
  std::int64_t least = it->second;
  for (++it; it != all.end() && it->first < until; ++it) {
    least = std::min(least, it->second);
  }
  return least;
}

bool LicenseLine::covers(const LicenseCounts& licenses, Instant from, Instant until) const {
  return std::all_of(licenses.begin(), licenses.end(), [&](const LicenseCount& one) {
    return free(one.name, from, until) >= static_cast<std::int64_t>(one.count);
  });
}

std::optional<Instant> LicenseLine::earliest(const LicenseCounts& licenses, Duration limit, Instant from) const {
  Instant at = from;
  for (bool moved = true; moved;) {
    moved = false;
    for (const LicenseCount& one : licenses) {
      const Steps& all = steps(one.name);
      // Behind the last step within the span that is too small.
      auto it = std::prev(all.upper_bound(std::max(at, now_)));
      const Instant until = end_of(at, limit);
      std::optional<Instant> behind;
      for (; it != all.end() && (it->first < until || it->first <= at); ++it) {
        if (it->second < static_cast<std::int64_t>(one.count)) {
          const auto next = std::next(it);
          if (next == all.end()) {
            return std::nullopt;
          }
          behind = next->first;
        }
      }
      if (behind) {
        at = *behind;
        moved = true;
      }
    }
  }
  return at;
}

}  // namespace muster::sched
