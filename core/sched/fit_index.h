// FitIndex: the nodes that may take work, by how much is free on them, so that a planner finds the tightest fit without
// looking at every node. A value.
#pragma once

#include <compare>
#include <cstdint>
#include <map>

#include "lib/base/index_set.h"

namespace muster::sched {

class FitIndex {
 public:
  // What is free on a node. The order is that of filling: CPU jobs go to nodes with few GPUs, and the fullest node first.
  struct Free {
    std::uint32_t gpus = 0;
    std::uint32_t cores = 0;
    friend auto operator<=>(const Free&, const Free&) = default;
  };
  struct Bucket {
    IndexSet ranks;  // of nodes in the ledger's order
    std::uint32_t nodes = 0;
  };
  using Buckets = std::map<Free, Bucket>;

  void insert(std::uint32_t rank, Free free) {
    Bucket& bucket = buckets_[free];
    bucket.ranks.insert(rank);
    ++bucket.nodes;
  }
  void erase(std::uint32_t rank, Free free);
  void clear() { buckets_.clear(); }
  [[nodiscard]] const Buckets& buckets() const { return buckets_; }

 private:
  Buckets buckets_;
};

}  // namespace muster::sched
