// Ledger: who holds what. Free cores, GPUs and memory of every node, kept by evolve() alone, so that a plan is judged
// against what the journal says. A value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/sched/fit_index.h"
#include "core/sched/horizon.h"
#include "core/sched/sites.h"
#include "core/topo/node_class.h"
#include "lib/model/hardware.h"

namespace muster::sched {

struct NodeCapacity {
  std::string name;
  bool known = false;   // has registered once
  bool usable = false;  // connected and not drained: new work may start here
  bool connected = false;
  bool suspect = false;  // it has failed jobs: taken last
  std::string absence;   // what keeps it out of service: "drained (health: disk)"; empty: nothing
  IndexSet all_cores;
  IndexSet free_cores;
  IndexSet all_gpus;
  IndexSet free_gpus;
  std::uint64_t mem_mib = 0;
  std::uint64_t free_mem_mib = 0;
  std::vector<std::string> features;  // that the node itself says it has
  topo::SharedClass node_class;       // how it hangs together; none: not known
  // Counts of the above.
  Amount all;
  Amount free;
  friend bool operator==(const NodeCapacity&, const NodeCapacity&) = default;
};

class Ledger {
 public:
  // Sets what a node has. What is held stays held, also cores or GPUs that are gone from the new hardware.
  void set_hardware(NodeIndex node, const std::string& name, const NodeHardware& hardware);
  void set_usable(NodeIndex node, bool usable);
  void set_connected(NodeIndex node, bool connected) { at(node).connected = connected; }
  void set_suspect(NodeIndex node, bool suspect);
  void set_absence(NodeIndex node, std::string absence) { at(node).absence = std::move(absence); }
  void set_features(NodeIndex node, const std::vector<std::string>& features);
  // Of a node with as many cores and GPUs as its hardware has.
  void set_class(NodeIndex node, topo::SharedClass node_class);

  // Takes the share; what is not free is a bug of the caller. Taking is not limited to usable nodes: replay does it too.
  void take(const NodeShare& share);
  void give_back(const NodeShare& share);

  [[nodiscard]] const std::vector<NodeCapacity>& nodes() const { return nodes_; }
  // The known nodes in the order in which they are filled and listed: by name, as people count.
  [[nodiscard]] const std::vector<NodeIndex>& order() const { return order_; }
  // A node's place in order(); the node must be known.
  [[nodiscard]] std::uint32_t rank(NodeIndex node) const { return ranks()[node.value]; }
  // Null when no node of this name is known.
  [[nodiscard]] const NodeIndex* find(std::string_view name) const;
  // The known nodes by what they have.
  struct NodeClass {
    Amount all;
    NodeIndex example;
    IndexSet ranks;
    std::uint32_t nodes = 0;
  };
  [[nodiscard]] const std::vector<NodeClass>& classes() const;

  // What `sites` (null: nothing) says of the known nodes. Made once for the nodes and the sites of the last call.
  [[nodiscard]] const std::shared_ptr<const Places>& places(const std::shared_ptr<const Sites>& sites) const;
  // The ranks of the suspect ones.
  [[nodiscard]] const IndexSet& suspects() const;
  // The ranks of the known ones among these nodes.
  [[nodiscard]] const IndexSet& ranks_of(const std::vector<std::string>& names) const;

  // The nodes on which something became free or which came into service, in the order in which it happened, as a log
  // whose first entries are dropped now and then. released_since(n) gives what came after released_count() was n, or
  // nothing when that is no longer known.
  [[nodiscard]] std::uint64_t released_count() const { return released_dropped_ + released_.size(); }
  [[nodiscard]] std::optional<std::vector<NodeIndex>> released_since(std::uint64_t count) const;

  // The usable nodes by what is free on them.
  [[nodiscard]] const FitIndex& fit_index() const;
  friend bool operator==(const Ledger& a, const Ledger& b) {
    return a.nodes_ == b.nodes_ && a.order_ == b.order_ && a.held_ == b.held_;
  }

 private:
  NodeCapacity& at(NodeIndex node);
  struct Held {
    IndexSet cores;
    IndexSet gpus;
    std::uint64_t mem_mib = 0;
    friend bool operator==(const Held&, const Held&) = default;
  };
  void recompute(std::size_t i);
  void note_release(NodeIndex node);
  void leave_index(std::size_t i);
  void enter_index(std::size_t i);
  [[nodiscard]] const std::vector<std::uint32_t>& ranks() const;
  std::vector<NodeCapacity> nodes_;
  std::vector<NodeIndex> order_;
  std::vector<Held> held_;
  // Made again when it is asked for after a new node came, because that moves the ranks of others: ten thousand nodes
  // register one after the other.
  mutable FitIndex fit_index_;
  mutable std::vector<std::uint32_t> ranks_;  // by node index
  mutable std::vector<NodeClass> classes_;
  mutable IndexSet suspects_;  // ranks
  mutable bool ranked_ = false;
  mutable std::shared_ptr<const Sites> places_of_;
  mutable std::shared_ptr<const Places> places_;  // null: to be made again
  // Lists of nodes are few (those of queues) and long.
  mutable std::map<std::vector<std::string>, IndexSet> ranks_of_lists_;
  std::vector<NodeIndex> released_;
  std::uint64_t released_dropped_ = 0;
};

// A ledger with more taken from it than the journal says: what a plan uses up while it is made. Costs only what differs
// from the ledger below, which must not change meanwhile.
class Draft {
 public:
  explicit Draft(const Ledger& base) : base_(&base) {}

  [[nodiscard]] const Ledger& base() const { return *base_; }
  [[nodiscard]] std::size_t size() const { return base_->nodes().size(); }
  [[nodiscard]] const std::vector<NodeIndex>& order() const { return base_->order(); }
  // Asked for every node of a pass, of which few have changed.
  [[nodiscard]] const NodeCapacity& node(std::size_t i) const {
    return !taken_ || !is_changed_[i] ? base_->nodes()[i] : changed_.find(i)->second;
  }
  [[nodiscard]] const FitIndex& fit_index() const { return taken_ ? fit_index_ : base_->fit_index(); }
  // Whether the share is free now on a usable node.
  [[nodiscard]] bool can_take(const NodeShare& share) const;
  // The same of its numbers alone, whichever cores and GPUs it names.
  [[nodiscard]] bool has_room(const NodeShare& share) const;
  // Takes a share for which can_take() is true.
  void take(const NodeShare& share);
  // The same with the cores of an attempt that goes on, which may also be on a node where nothing new may start.
  [[nodiscard]] bool has_cores(NodeIndex node, const IndexSet& cores) const;
  void take_cores(NodeIndex node, const IndexSet& cores);

 private:
  void use(const NodeShare& share);
  const Ledger* base_;
  std::map<std::size_t, NodeCapacity> changed_;
  std::vector<bool> is_changed_;  // of all nodes, from the first take() on
  FitIndex fit_index_;            // of its own from the first take() on
  bool taken_ = false;
};

}  // namespace muster::sched
