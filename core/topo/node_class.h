// NodeClass: what is worked out once for all nodes of one kind, and shared by them: the tree of domains, how far each
// core is from each GPU, and the tables of GPU sets (gpu_sets.h).
//
// Owned by whoever decides, through a SharedClass; immutable but for the tables, which fill as they are used and never
// change an answer. One thread.
//
// Cores are handled by slot: their place in the order package, NUMA node, L3, so that each domain is a range of slots.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/topo/slot_set.h"
#include "lib/model/node_topology.h"

namespace muster::topo {

class GpuSets;

// How far a core is from a GPU, as it counts in the cost of a choice.
inline constexpr std::uint32_t kDistanceLocal = 0;    // the GPU's own cores
inline constexpr std::uint32_t kDistanceNuma = 1;     // the same NUMA node
inline constexpr std::uint32_t kDistancePackage = 2;  // the same package
inline constexpr std::uint32_t kDistanceOther = 10;
// The distances in this order, as levels 0..3.
inline constexpr std::array<std::uint32_t, 4> kDistances{kDistanceLocal, kDistanceNuma, kDistancePackage,
                                                         kDistanceOther};

// A range of slots, and of the domains one level below.
struct Domain {
  std::uint32_t first = 0;
  std::uint32_t last = 0;  // one past
  std::uint32_t first_child = 0;
  std::uint32_t last_child = 0;
  [[nodiscard]] std::uint32_t size() const { return last - first; }
};

enum class Level : std::uint8_t { kPackage, kNuma, kL3 };

class NodeClass {
 public:
  // The topology must pass check_node_topology().
  explicit NodeClass(const NodeTopology& topology);
  ~NodeClass();
  NodeClass(const NodeClass&) = delete;
  NodeClass& operator=(const NodeClass&) = delete;

  // Without names and identities (class_of).
  [[nodiscard]] const NodeTopology& topology() const { return topology_; }
  [[nodiscard]] std::uint32_t slots() const { return static_cast<std::uint32_t>(core_of_slot_.size()); }
  [[nodiscard]] std::uint32_t gpus() const { return static_cast<std::uint32_t>(topology_.gpus.size()); }

  [[nodiscard]] SlotSet to_slots(const IndexSet& cores) const;
  [[nodiscard]] IndexSet to_cores(const SlotSet& slots) const;
  [[nodiscard]] std::uint32_t core_of(std::uint32_t slot) const { return core_of_slot_[slot]; }

  [[nodiscard]] const std::vector<Domain>& domains(Level level) const {
    return domains_[static_cast<std::size_t>(level)];
  }
  // The domain of a slot at a level.
  [[nodiscard]] std::uint32_t domain_of(Level level, std::uint32_t slot) const {
    return domain_of_slot_[static_cast<std::size_t>(level)][slot];
  }

  // The cores no farther from the GPU than kDistances[level], level 0..2.
  [[nodiscard]] const SlotSet& near(std::uint32_t gpu, std::size_t level) const { return near_[gpu][level]; }
  // The same for a network adapter.
  [[nodiscard]] const SlotSet& near_nic(std::uint32_t nic, std::size_t level) const { return near_nic_[nic][level]; }

  // GPUs by PCI address, partitions of one by number; and each one's place in that order.
  [[nodiscard]] const std::vector<std::uint32_t>& gpus_by_address() const { return by_address_; }
  [[nodiscard]] std::uint32_t place_of_gpu(std::uint32_t gpu) const { return place_[gpu]; }
  // Packages that the GPU is local to, a bit each; those from the 64th on share the last bit.
  [[nodiscard]] std::uint64_t packages_of_gpu(std::uint32_t gpu) const { return gpu_packages_[gpu]; }
  // Which GPUs share a domain: their local cores, NUMA nodes, packages, as numbers that are equal for those that do.
  [[nodiscard]] std::uint32_t gpu_domain(std::uint32_t gpu, std::size_t level) const { return gpu_domain_[level][gpu]; }
  // The L3s that the GPU's local cores are in.
  [[nodiscard]] const std::vector<std::uint32_t>& l3s_of_gpu(std::uint32_t gpu) const { return gpu_l3s_[gpu]; }

  [[nodiscard]] const GpuSets& gpu_sets() const;

 private:
  void order_cores();
  void order_gpus();
  void measure_devices();

  NodeTopology topology_;
  std::vector<std::uint32_t> core_of_slot_;
  std::vector<std::uint32_t> slot_of_core_;
  bool slots_are_cores_ = true;
  std::array<std::vector<Domain>, 3> domains_;
  std::array<std::vector<std::uint32_t>, 3> domain_of_slot_;
  using Neighbourhood = std::array<SlotSet, 3>;
  [[nodiscard]] Neighbourhood around(const SlotSet& local) const;
  std::vector<Neighbourhood> near_;
  std::vector<Neighbourhood> near_nic_;
  std::vector<std::uint32_t> by_address_;
  std::vector<std::uint32_t> place_;
  std::vector<std::uint64_t> gpu_packages_;
  std::array<std::vector<std::uint32_t>, 3> gpu_domain_;
  std::vector<std::vector<std::uint32_t>> gpu_l3s_;
  mutable std::unique_ptr<GpuSets> gpu_sets_;
};

// A class that several nodes share, or none. Two are equal when their topologies are: each state of the cluster makes its
// own objects.
class SharedClass {
 public:
  SharedClass() = default;
  // The topology must pass check_node_topology().
  explicit SharedClass(const NodeTopology& topology) : made_(std::make_shared<const NodeClass>(topology)) {}
  [[nodiscard]] const NodeClass* get() const { return made_.get(); }
  friend bool operator==(const SharedClass& a, const SharedClass& b) {
    return a.made_ == b.made_ ||
           (a.made_ != nullptr && b.made_ != nullptr && a.made_->topology() == b.made_->topology());
  }

 private:
  std::shared_ptr<const NodeClass> made_;
};

}  // namespace muster::topo
