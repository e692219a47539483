// GpuSets: which GPUs of a node belong together. Tables of one node class with at most kTableGpusMax GPUs.
//
// The value of a set is the sum over its pairs of their link bandwidth, and where a pair has no link of its PCIe tier, which
// counts less than any link. J(S) = value(S) + the best packing of what stays free into sets of the sizes that are asked
// for. Among equal J: fewest packages, counted over S and the whole packing; then the nearest by PCIe over all of it; then
// the set that is better itself, by its slowest pair and then by all of them, PCIe last; then one that breaks into fewer
// packages, NUMA nodes and localities that nobody uses; then one that leaves more bandwidth among the rest; then the
// lowest PCI addresses.
//
// The third of these is what NVIDIA's go-gpuallocator decides by: its best partition first, then the best set of it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/topo/node_class.h"

namespace muster::topo {

// Beyond it there are too many subsets to look at, and gpu_pick.h goes by other means.
inline constexpr std::uint32_t kTableGpusMax = 16;

// A set of GPUs by their places in the order of PCI addresses (NodeClass::gpus_by_address).
using GpuMask = std::uint16_t;
// Sizes of sets: bit s for s GPUs.
using SizeMask = std::uint32_t;

class GpuSets {
 public:
  explicit GpuSets(const NodeClass& node);

  // The sets of `size` members of `free`, best first. 1 <= size <= members of `free`. `sizes` are those that the queue
  // asks for; 0 when unknown, which means the same size. The reference is good until the next call.
  [[nodiscard]] const std::vector<GpuMask>& ranking(GpuMask free, std::uint32_t size, SizeMask sizes) const;

  // What the best packing of `free` is worth, links and tiers, to compare with another; see also `sizes` above.
  [[nodiscard]] std::int64_t packing_value(GpuMask free, SizeMask sizes) const;

  // `set` as groups, the packing that is best by the same order: `groups` of equal size, the first ones one larger when
  // it does not come out even. 1 <= groups <= members of `set`. Groups stand by their lowest address.
  [[nodiscard]] std::vector<GpuMask> split(GpuMask set, std::uint32_t groups) const;

 private:
  // The best packing of each mask, as far as it was asked for, for one choice of sizes.
  struct Packing {
    std::array<SizeMask, kTableGpusMax + 1> allowed{};  // by the number of GPUs left: sizes of the next set
    std::vector<std::int64_t> best;
  };
  struct Key {
    GpuMask free;
    std::uint32_t size;
    SizeMask sizes;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  static constexpr std::int64_t kUnknown = INT64_MIN;
  // In the sums: bits 30.. bandwidth, 20.. tiers of pairs without a link, 0.. tiers of all pairs. Packages count against
  // a set from bit 10, so that one number compares all of it. 120 pairs of tier 6 stay below 1024.
  static constexpr int kBandwidthShift = 30;
  static constexpr int kValueShift = 20;
  static constexpr int kPackageShift = 10;

  Packing& packing(SizeMask sizes) const;
  std::int64_t pack(Packing& packing, GpuMask mask) const;
  [[nodiscard]] std::vector<GpuMask> rank(GpuMask free, std::uint32_t size, Packing& packing) const;

  std::uint32_t count_ = 0;
  std::vector<std::int64_t> links_;              // by mask
  std::vector<std::int64_t> score_;              // links_ less the packages
  std::vector<std::uint32_t> slowest_;           // the lowest value of a pair, bandwidth and tier
  std::array<std::vector<GpuMask>, 3> domains_;  // packages, NUMA nodes, localities
  mutable std::map<SizeMask, std::unique_ptr<Packing>> packings_;
  mutable std::map<Key, std::vector<GpuMask>> rankings_;
  mutable std::size_t ranked_sets_ = 0;
  mutable std::map<std::pair<GpuMask, std::uint32_t>, std::vector<GpuMask>> splits_;
};

}  // namespace muster::topo
