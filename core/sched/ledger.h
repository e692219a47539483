// Ledger: who holds what. Free cores, GPUs and memory of every node, kept by evolve() alone, so that a plan is judged
// against what the journal says. A value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/model/hardware.h"

namespace muster::sched {

struct NodeCapacity {
  std::string name;
  bool known = false;     // has registered once
  bool usable = false;    // connected and not drained: new work may start here
  IndexSet all_cores;
  IndexSet free_cores;
  IndexSet all_gpus;
  IndexSet free_gpus;
  std::uint64_t mem_mib = 0;
  std::uint64_t free_mem_mib = 0;
  friend bool operator==(const NodeCapacity&, const NodeCapacity&) = default;
};

class Ledger {
 public:
  // Sets what a node has. What is held stays held, also cores or GPUs that are gone from the new hardware.
  void set_hardware(NodeIndex node, const std::string& name, const NodeHardware& hardware);
  void set_usable(NodeIndex node, bool usable);

  // Takes the share; what is not free is a bug of the caller. Taking is not limited to usable nodes: replay does it too.
  void take(const NodeShare& share);
  void give_back(const NodeShare& share);

  [[nodiscard]] const std::vector<NodeCapacity>& nodes() const { return nodes_; }
  // The known nodes in the order in which they are filled and listed: by name, as people count.
  [[nodiscard]] const std::vector<NodeIndex>& order() const { return order_; }
  friend bool operator==(const Ledger&, const Ledger&) = default;

 private:
  NodeCapacity& at(NodeIndex node);
  struct Held {
    IndexSet cores;
    IndexSet gpus;
    std::uint64_t mem_mib = 0;
    friend bool operator==(const Held&, const Held&) = default;
  };
  void recompute(std::size_t i);
  std::vector<NodeCapacity> nodes_;
  std::vector<NodeIndex> order_;
  std::vector<Held> held_;
};

// A ledger with more taken from it than the journal says: what a plan uses up while it is made. Costs only what differs
// from the ledger below, which must not change meanwhile.
class Draft {
 public:
  explicit Draft(const Ledger& base) : base_(&base) {}

  [[nodiscard]] std::size_t size() const { return base_->nodes().size(); }
  [[nodiscard]] const std::vector<NodeIndex>& order() const { return base_->order(); }
  [[nodiscard]] const NodeCapacity& node(std::size_t i) const;
  // Whether the share is free now on a usable node.
  [[nodiscard]] bool can_take(const NodeShare& share) const;
  // Takes a share for which can_take() is true.
  void take(const NodeShare& share);

 private:
  const Ledger* base_;
  std::map<std::size_t, NodeCapacity> changed_;
};

}  // namespace muster::sched
