#include "core/topo/gpu_sets.h"

#include <algorithm>
#include <bit>
#include <iterator>

#include "lib/base/check.h"

namespace muster::topo {
namespace {

// 8 TB/s: above what any link does, and low enough for the sum of 120 pairs (gpu_sets.h, kBandwidthShift).
constexpr std::uint32_t kBandwidthMax = 1U << 23U;
// What the tables may remember; when it is full they start anew, which costs time and changes nothing.
constexpr std::size_t kRankedSetsMax = std::size_t{1} << 22U;  // 8 MiB
constexpr std::size_t kPackingsMax = 32;  // of 512 KiB: every single size, and the mixes that a few queues ask for
constexpr std::size_t kSplitsMax = 4096;

using Bits = std::array<GpuMask, kTableGpusMax>;

std::uint32_t members(std::uint32_t mask) {
  return static_cast<std::uint32_t>(std::popcount(mask));
}
GpuMask lowest(GpuMask mask) {
  return static_cast<GpuMask>(mask & -mask);
}

// Calls f(base | T) for each set T of `need` of the bits from `first` on, in ascending order of members.
template <typename F>
void for_each_choice(const Bits& bits, std::uint32_t count, GpuMask base, std::uint32_t first, std::uint32_t need,
                     const F& f) {
  if (need == 0) {
    f(base);
    return;
  }
  for (std::uint32_t i = first; i + need <= count; ++i) {
    const auto with = static_cast<GpuMask>(base | bits[i]);
    if (need == 1) {
      f(with);
    } else {
      for_each_choice(bits, count, with, i + 1, need - 1, f);
    }
  }
}

std::uint32_t bits_of(GpuMask mask, Bits& bits) {
  std::uint32_t count = 0;
  for (GpuMask m = mask; m != 0; m = static_cast<GpuMask>(m & (m - 1))) {
    bits[count++] = lowest(m);
  }
  return count;
}

// Whether some of these sizes, two or more, add up to one that is in `sizes`: then one larger set is at least as good.
bool reducible(const std::vector<std::uint32_t>& parts, SizeMask sizes) {
  std::uint32_t sums = 1;  // bit s: some subset of the parts so far adds up to s
  for (const std::uint32_t part : parts) {
    const std::uint32_t larger = (sums & ~1U) << part;
    if ((larger & sizes) != 0) {
      return true;
    }
    sums |= sums << part;
  }
  return false;
}

// Adds to `used` the sizes of every irreducible way to write `left` as a sum of sizes not above `largest`.
void collect(std::uint32_t left, std::uint32_t largest, SizeMask sizes, std::vector<std::uint32_t>& parts,
             SizeMask& used) {
  if (reducible(parts, sizes)) {
    return;
  }
  if (left == 0) {
    for (const std::uint32_t part : parts) {
      used |= SizeMask{1} << part;
    }
    return;
  }
  for (std::uint32_t s = std::min(left, largest); s > 0; --s) {
    if ((sizes >> s & 1U) != 0) {
      parts.push_back(s);
      collect(left - s, s, sizes, parts, used);
      parts.pop_back();
    }
  }
}

// Finds the best groups of one set by what is left of it and how many larger groups are among them. Masks here count through
// the members of the set alone, so that small sets have small tables.
class Splitter {
 public:
  Splitter(const std::vector<std::int64_t>& score, GpuMask set, std::uint32_t groups)
      : size_(members(set) / groups), larger_(members(set) % groups) {
    Bits bits{};
    const std::size_t masks = std::size_t{1} << bits_of(set, bits);
    whole_.assign(masks, 0);
    score_.assign(masks, 0);
    for (std::size_t mask = 1; mask < masks; ++mask) {
      const GpuMask first = bits[static_cast<std::size_t>(std::countr_zero(mask))];
      whole_[mask] = static_cast<GpuMask>(whole_[mask & (mask - 1)] | first);
      score_[mask] = score[whole_[mask]];
    }
    best_.assign(masks * (larger_ + 1), kUnknown);
  }

  std::vector<GpuMask> split() {
    std::vector<GpuMask> out;
    std::uint32_t large_left = larger_;
    for (auto left = static_cast<GpuMask>(whole_.size() - 1); left != 0;) {
      const std::int64_t wanted = solve(left, large_left);
      GpuMask chosen = 0;  // the first of those that the best value comes from
      for_each_group(left, large_left, [&](GpuMask group, std::uint32_t large_after) {
        if (chosen == 0 && score_[group] + solve(static_cast<GpuMask>(left ^ group), large_after) == wanted) {
          chosen = group;
        }
      });
      out.push_back(whole_[chosen]);
      large_left -= members(chosen) > size_ ? 1U : 0U;
      left = static_cast<GpuMask>(left ^ chosen);
    }
    return out;
  }

 private:
  static constexpr std::int64_t kUnknown = INT64_MIN;

  // The groups that the lowest of `mask` may be in, with the number of larger groups that are left then.
  template <typename F>
  void for_each_group(GpuMask mask, std::uint32_t large_left, F f) {
    Bits bits{};
    const GpuMask low = lowest(mask);
    const std::uint32_t others = bits_of(static_cast<GpuMask>(mask ^ low), bits);
    if (large_left > 0) {
      const auto larger = [&](GpuMask group) { f(group, large_left - 1); };
      for_each_choice(bits, others, low, 0, size_, larger);
    }
    if (others + 1 > large_left * (size_ + 1)) {
      const auto smaller = [&](GpuMask group) { f(group, large_left); };
      for_each_choice(bits, others, low, 0, size_ - 1, smaller);
    }
  }

  std::int64_t solve(GpuMask mask, std::uint32_t large_left) {
    if (mask == 0) {
      return 0;
    }
    const std::size_t place = large_left * score_.size() + mask;
    if (best_[place] != kUnknown) {
      return best_[place];
    }
    std::int64_t best = kUnknown;
    for_each_group(mask, large_left, [&](GpuMask group, std::uint32_t large_after) {
      best = std::max(best, score_[group] + solve(static_cast<GpuMask>(mask ^ group), large_after));
    });
    best_[place] = best;
    return best;
  }

  std::uint32_t size_;               // of most groups
  std::uint32_t larger_;             // groups of one more
  std::vector<GpuMask> whole_;       // the set of GPUs that a mask stands for
  std::vector<std::int64_t> score_;  // by mask
  std::vector<std::int64_t> best_;   // by larger groups left and mask
};

}  // namespace

GpuSets::GpuSets(const NodeClass& node) : count_(node.gpus()) {
  MUSTER_CHECK(count_ <= kTableGpusMax);
  const NodeTopology& topology = node.topology();
  const auto& order = node.gpus_by_address();
  std::array<std::array<std::int64_t, kTableGpusMax>, kTableGpusMax> pair{};
  for (std::uint32_t a = 0; a < count_; ++a) {
    for (std::uint32_t b = 0; b < count_; ++b) {
      const GpuLink& link = topology.link(order[a], order[b]);
      const auto bandwidth = static_cast<std::int64_t>(std::min(link.bandwidth_mbps, kBandwidthMax));
      const auto tier = static_cast<std::int64_t>(link.tier);
      pair[a][b] = (bandwidth << kBandwidthShift) + (bandwidth == 0 ? tier << kValueShift : 0) + tier;
    }
  }
  const std::size_t masks = std::size_t{1} << count_;
  links_.assign(masks, 0);
  score_.assign(masks, 0);
  slowest_.assign(masks, UINT32_MAX);
  std::vector<std::uint64_t> packages(masks, 0);
  for (std::size_t mask = 1; mask < masks; ++mask) {
    const std::size_t rest = mask & (mask - 1);
    const auto first = static_cast<std::uint32_t>(std::countr_zero(mask));
    std::int64_t sum = links_[rest];
    std::uint32_t slowest = slowest_[rest];
    for (std::size_t m = rest; m != 0; m &= m - 1) {
      const std::int64_t value = pair[first][static_cast<std::size_t>(std::countr_zero(m))];
      sum += value;
      slowest = std::min(slowest, static_cast<std::uint32_t>(value >> kBandwidthShift << 3U | (value & 7)));
    }
    slowest_[mask] = slowest;
    links_[mask] = sum;
    packages[mask] = packages[rest] | node.packages_of_gpu(order[first]);
    // More than 16 packages count as 16, so that the sum stays below what comes before it.
    score_[mask] = sum - (std::int64_t{std::min(std::popcount(packages[mask]), 16)} << kPackageShift);
  }
  for (std::size_t level = 0; level < 3; ++level) {
    std::map<std::uint32_t, GpuMask> domains;
    for (std::uint32_t i = 0; i < count_; ++i) {
      GpuMask& mask = domains[node.gpu_domain(order[i], 2 - level)];
      mask = static_cast<GpuMask>(mask | 1U << i);
    }
    for (const auto& [number, mask] : domains) {
      domains_[level].push_back(mask);
    }
  }
}

GpuSets::Packing& GpuSets::packing(SizeMask sizes) const {
  if (const auto found = packings_.find(sizes); found != packings_.end()) {
    return *found->second;
  }
  if (packings_.size() >= kPackingsMax) {
    packings_.clear();
  }
  auto made = std::make_unique<Packing>();
  made->best.assign(links_.size(), kUnknown);
  made->best[0] = 0;
  std::array<bool, kTableGpusMax + 1> sum_of_sizes{true};
  for (std::uint32_t p = 1; p <= count_; ++p) {
    for (std::uint32_t s = 1; s <= p; ++s) {
      sum_of_sizes[p] = sum_of_sizes[p] || ((sizes >> s & 1U) != 0 && sum_of_sizes[p - s]);
    }
    // What no sets of these sizes can take stays together, as few as possible.
    std::uint32_t left_over = 0;
    while (!sum_of_sizes[p - left_over]) {
      ++left_over;
    }
    std::vector<std::uint32_t> parts;
    collect(p - left_over, p, sizes, parts, made->allowed[p]);
    if (left_over > 0) {
      made->allowed[p] |= SizeMask{1} << left_over;
    }
  }
  return *packings_.emplace(sizes, std::move(made)).first->second;
}

std::int64_t GpuSets::pack(Packing& packing, GpuMask mask) const {
  if (packing.best[mask] != kUnknown) {
    return packing.best[mask];
  }
  Bits bits{};
  const GpuMask low = lowest(mask);
  const std::uint32_t others = bits_of(static_cast<GpuMask>(mask ^ low), bits);
  std::int64_t best = kUnknown;
  const auto look_at = [&](GpuMask set) {
    const auto rest = static_cast<GpuMask>(mask ^ set);
    const std::int64_t packed = packing.best[rest];
    best = std::max(best, score_[set] + (packed != kUnknown ? packed : pack(packing, rest)));
  };
  for (SizeMask sizes = packing.allowed[others + 1]; sizes != 0; sizes &= sizes - 1) {
    for_each_choice(bits, others, low, 0, static_cast<std::uint32_t>(std::countr_zero(sizes)) - 1, look_at);
  }
  packing.best[mask] = best;
  return best;
}

std::vector<GpuMask> GpuSets::rank(GpuMask free, std::uint32_t size, Packing& packing) const {
  struct Entry {
    std::int64_t joint;  // J with the first two ties
    std::int64_t own;
    std::int64_t left;  // bandwidth
    std::uint32_t slowest;
    std::uint32_t opened;  // domains that nobody used, those of packages first
    GpuMask set;
  };
  std::vector<GpuMask> unused;
  for (const auto& level : domains_) {
    std::copy_if(level.begin(), level.end(), std::back_inserter(unused),
                 [&](GpuMask domain) { return (domain & ~free) == 0; });
    unused.push_back(0);  // the end of a level
  }
  std::vector<Entry> entries;
  const auto add = [&](GpuMask set) {
    const auto rest = static_cast<GpuMask>(free ^ set);
    std::uint32_t opened = 0;
    std::uint32_t here = 0;
    for (const GpuMask domain : unused) {
      here += static_cast<std::uint32_t>((domain & set) != 0);
      if (domain == 0) {
        opened = opened << 8U | here;
        here = 0;
      }
    }
    entries.push_back({.joint = score_[set] + pack(packing, rest),
                       .own = links_[set],
                       .left = links_[rest] >> kBandwidthShift,
                       .slowest = slowest_[set],
                       .opened = opened,
                       .set = set});
  };
  Bits bits{};
  const std::uint32_t count = bits_of(free, bits);
  for_each_choice(bits, count, GpuMask{0}, 0, size, add);
  // Sets come with the lowest addresses first, and stay so where nothing else tells them apart.
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    if (a.joint != b.joint) {
      return a.joint > b.joint;
    }
    if (a.slowest != b.slowest) {
      return a.slowest > b.slowest;
    }
    if (a.own != b.own) {
      return a.own > b.own;
    }
    return a.opened != b.opened ? a.opened < b.opened : a.left > b.left;
  });
  std::vector<GpuMask> out;
  out.reserve(entries.size());
  for (const Entry& entry : entries) {
    out.push_back(entry.set);
  }
  return out;
}

const std::vector<GpuMask>& GpuSets::ranking(GpuMask free, std::uint32_t size, SizeMask sizes) const {
  MUSTER_CHECK(size >= 1 && size <= members(free));
  const Key key{.free = free, .size = size, .sizes = sizes != 0 ? sizes : SizeMask{1} << size};
  if (const auto found = rankings_.find(key); found != rankings_.end()) {
    return found->second;
  }
  std::vector<GpuMask> made = rank(free, size, packing(key.sizes));
  if (ranked_sets_ + made.size() > kRankedSetsMax) {
    rankings_.clear();
    ranked_sets_ = 0;
  }
  ranked_sets_ += made.size();
  return rankings_.emplace(key, std::move(made)).first->second;
}

std::int64_t GpuSets::packing_value(GpuMask free, SizeMask sizes) const {
  // The packages are a tie rule and no value: what is added makes the shift round away from them.
  return (pack(packing(sizes), free) + (std::int64_t{1} << (kValueShift - 1))) >> kValueShift;
}

std::vector<GpuMask> GpuSets::split(GpuMask set, std::uint32_t groups) const {
  MUSTER_CHECK(groups >= 1 && groups <= members(set));
  if (const auto found = splits_.find({set, groups}); found != splits_.end()) {
    return found->second;
  }
  if (splits_.size() >= kSplitsMax) {
    splits_.clear();
  }
  return splits_.emplace(std::pair(set, groups), Splitter(score_, set, groups).split()).first->second;
}

}  // namespace muster::topo
