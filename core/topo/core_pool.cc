#include "core/topo/core_pool.h"

#include <algorithm>
#include <utility>

#include "lib/base/check.h"

namespace muster::topo {
namespace {

constexpr std::array kLevels{Level::kPackage, Level::kNuma, Level::kL3};
constexpr std::uint32_t kNone = UINT32_MAX;

std::size_t index(Level level) {
  return static_cast<std::size_t>(level);
}

// Members of `set` by domain: L3s are counted, the others are sums.
std::array<std::vector<std::uint32_t>, 3> count_by_domain(const NodeClass& node, const SlotSet& set) {
  std::array<std::vector<std::uint32_t>, 3> out;
  for (const Level level : kLevels) {
    out[index(level)].assign(node.domains(level).size(), 0);
  }
  const auto& l3s = node.domains(Level::kL3);
  for (std::size_t i = 0; i < l3s.size(); ++i) {
    const std::uint32_t count = set.count(l3s[i].first, l3s[i].last);
    if (count > 0) {
      out[index(Level::kL3)][i] = count;
      out[index(Level::kNuma)][node.domain_of(Level::kNuma, l3s[i].first)] += count;
      out[index(Level::kPackage)][node.domain_of(Level::kPackage, l3s[i].first)] += count;
    }
  }
  return out;
}

}  // namespace

CorePool::CorePool(const NodeClass& node, SlotSet free)
    : node_(&node), free_(std::move(free)), count_(free_.count()), free_in_(count_by_domain(node, free_)) {}

void CorePool::take(std::uint32_t slot) {
  MUSTER_CHECK(free_.contains(slot));
  free_.erase(slot);
  --count_;
  for (const Level level : kLevels) {
    --free_in_[index(level)][node_->domain_of(level, slot)];
  }
}

Penalties no_penalties(const NodeClass& node) {
  Penalties out;
  for (const Level level : kLevels) {
    out[index(level)].assign(node.domains(level).size(), 0);
  }
  return out;
}

Penalties penalties_near(const NodeClass& node, const std::vector<std::uint32_t>& gpus) {
  Penalties out = no_penalties(node);
  for (const std::uint32_t gpu : gpus) {
    std::uint32_t numa = kNone;
    std::uint32_t package = kNone;
    for (const std::uint32_t l3 : node.l3s_of_gpu(gpu)) {
      ++out[index(Level::kL3)][l3];
      const std::uint32_t slot = node.domains(Level::kL3)[l3].first;
      if (const std::uint32_t here = node.domain_of(Level::kNuma, slot); here != numa) {
        numa = here;
        ++out[index(Level::kNuma)][numa];
      }
      if (const std::uint32_t here = node.domain_of(Level::kPackage, slot); here != package) {
        package = here;
        ++out[index(Level::kPackage)][package];
      }
    }
  }
  return out;
}

Picker::Picker(const NodeClass& node, CorePool& pool, SlotSet allowed, const Penalties& penalties)
    : node_(&node),
      pool_(&pool),
      allowed_(std::move(allowed)),
      penalties_(&penalties),
      in_(count_by_domain(node, allowed_)),
      available_(allowed_.count()) {
  MUSTER_CHECK(allowed_.is_subset_of(pool.free()));
}

void Picker::pick(std::uint32_t count, SlotSet& out) {
  MUSTER_CHECK(count <= available_);
  own_ = {};
  if (!out.empty()) {
    own_ = count_by_domain(*node_, out);
  }
  Scope machine;
  for (std::size_t level = 0; level < machine.size(); ++level) {
    machine[level].last = static_cast<std::uint32_t>(in_[level].size());
  }
  fill(0, machine, count, out);
}

Picker::Scope Picker::scope_of(std::size_t level, std::uint32_t domain) const {
  Scope out;
  out[level] = {.first = domain, .last = domain + 1};
  for (std::size_t below = level + 1; below < out.size(); ++below) {
    const auto& above = node_->domains(kLevels[below - 1]);
    out[below] = {.first = above[out[below - 1].first].first_child, .last = above[out[below - 1].last - 1].last_child};
  }
  return out;
}

std::uint32_t Picker::steps_from_own(std::size_t level, std::uint32_t domain) const {
  if (own_[0].empty()) {
    return 0;
  }
  const std::uint32_t slot = node_->domains(kLevels[level])[domain].first;
  for (std::size_t up = level + 1; up-- > 0;) {
    if (own_[up][node_->domain_of(kLevels[up], slot)] > 0) {
      return static_cast<std::uint32_t>(level - up);
    }
  }
  return static_cast<std::uint32_t>(level) + 1;
}

std::uint32_t Picker::find_one(std::size_t level, Range domains, std::uint32_t count) const {
  const auto& in = in_[level];
  // The criteria in their order as one number, from the highest bits on; a machine has at most 16,384 cores and fewer GPUs.
  std::uint32_t best = kNone;
  std::uint64_t best_key = UINT64_MAX;
  for (std::uint32_t d = domains.first; d < domains.last; ++d) {
    if (in[d] < count) {
      continue;
    }
    const std::uint32_t slot = node_->domains(kLevels[level])[d].first;
    const bool package = pool_->untouched(Level::kPackage, node_->domain_of(Level::kPackage, slot));
    const bool numa = level >= 1 && pool_->untouched(Level::kNuma, node_->domain_of(Level::kNuma, slot));
    const bool itself = pool_->untouched(kLevels[level], d);
    const std::uint64_t flags =
        (package ? 8U : 0U) | (numa ? 4U : 0U) | (in[d] != count ? 2U : 0U) | (itself ? 1U : 0U);
    const std::uint64_t key = std::uint64_t{steps_from_own(level, d)} << 56U |
                              std::uint64_t{(*penalties_)[level][d]} << 36U | flags << 32U | in[d];
    if (key < best_key) {
      best = d;
      best_key = key;
    }
  }
  return best;
}

std::uint32_t Picker::find_largest(std::size_t level, Range domains) const {
  const auto& in = in_[level];
  const auto& penalty = (*penalties_)[level];
  std::uint32_t best = kNone;
  for (std::uint32_t d = domains.first; d < domains.last; ++d) {
    if (in[d] > 0 &&
        (best == kNone || penalty[d] < penalty[best] || (penalty[d] == penalty[best] && in[d] > in[best]))) {
      best = d;
    }
  }
  MUSTER_CHECK(best != kNone);
  return best;
}

void Picker::fill(std::size_t level, const Scope& scope, std::uint32_t count, SlotSet& out) {
  while (count > 0) {
    for (std::size_t finest = scope.size(); finest-- > level;) {
      if (const std::uint32_t one = find_one(finest, scope[finest], count); one != kNone) {
        if (finest + 1 == scope.size()) {
          fill_l3(one, count, out);
        } else {
          fill(finest + 1, scope_of(finest, one), count, out);
        }
        return;
      }
    }
    const std::uint32_t largest = find_largest(level, scope[level]);
    const std::uint32_t all = in_[level][largest];
    const Domain& domain = node_->domains(kLevels[level])[largest];
    for (std::uint32_t slot = allowed_.next(domain.first); slot < domain.last; slot = allowed_.next(slot + 1)) {
      take(slot, 1, out);
    }
    count -= all;
  }
}

void Picker::fill_l3(std::uint32_t l3, std::uint32_t count, SlotSet& out) {
  const Domain& domain = node_->domains(Level::kL3)[l3];
  while (count > 0) {
    // The shortest run that holds all; without one, the longest.
    std::uint32_t best = kNone;
    std::uint32_t best_length = 0;
    for (std::uint32_t first = allowed_.next(domain.first); first < domain.last;) {
      std::uint32_t last = first + 1;
      while (last < domain.last && allowed_.contains(last)) {
        ++last;
      }
      const std::uint32_t length = last - first;
      const bool better =
          best == kNone || (length >= count ? best_length < count || length < best_length : length > best_length);
      if (better) {
        best = first;
        best_length = length;
      }
      first = allowed_.next(last);
    }
    const std::uint32_t here = std::min(count, best_length);
    take(best, here, out);
    count -= here;
  }
}

void Picker::take(std::uint32_t first, std::uint32_t count, SlotSet& out) {
  for (std::uint32_t slot = first; slot < first + count; ++slot) {
    allowed_.erase(slot);
    --available_;
    for (const Level level : kLevels) {
      --in_[index(level)][node_->domain_of(level, slot)];
    }
    pool_->take(slot);
    out.insert(slot);
  }
}

}  // namespace muster::topo
