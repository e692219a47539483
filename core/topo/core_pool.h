// CorePool and Picker: taking free cores of a node so that whole domains stay whole. Internal to topo.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/topo/node_class.h"

namespace muster::topo {

// The free cores of a node while a choice is made.
class CorePool {
 public:
  CorePool(const NodeClass& node, SlotSet free);

  [[nodiscard]] const SlotSet& free() const { return free_; }
  [[nodiscard]] std::uint32_t count() const { return count_; }
  [[nodiscard]] bool untouched(Level level, std::uint32_t domain) const {
    return free_in_[static_cast<std::size_t>(level)][domain] == node_->domains(level)[domain].size();
  }
  void take(std::uint32_t slot);

 private:
  const NodeClass* node_;
  SlotSet free_;
  std::uint32_t count_;
  std::array<std::vector<std::uint32_t>, 3> free_in_;
};

// For each domain, how much it is worth to stay away from it: the free GPUs that are local to a part of it.
using Penalties = std::array<std::vector<std::uint32_t>, 3>;
Penalties penalties_near(const NodeClass& node, const std::vector<std::uint32_t>& gpus);
Penalties no_penalties(const NodeClass& node);

// Takes cores out of `allowed` by best fit: from one L3 that holds all of them, if there is one, else from one NUMA node,
// else from one package; else the largest whole package, and the rest in the same way. Inside a domain that is larger than
// what is wanted the same holds for the domains in it. Among domains that hold all: the nearest to the cores of `own`, then
// the fewest penalties, then one of a package and then of a NUMA node that is partly used, then an exact fit, then a partly
// used one, then the one with the fewest cores, then the first. In an L3, the shortest run of neighbours that holds them.
class Picker {
 public:
  // `allowed` is a part of what is free in `pool`; both live as long as the picker. `penalties` too.
  Picker(const NodeClass& node, CorePool& pool, SlotSet allowed, const Penalties& penalties);

  [[nodiscard]] std::uint32_t available() const { return available_; }
  // Takes `count` of the available cores, also from the pool, and adds them to `out`; those in `out` are `own`.
  void pick(std::uint32_t count, SlotSet& out);

 private:
  // Domains of one level, by number.
  struct Range {
    std::uint32_t first = 0;
    std::uint32_t last = 0;
  };
  // The domains of each level that are in some domain, or in the machine.
  using Scope = std::array<Range, 3>;
  // Takes from `scope`, which is one domain of `level` - 1, or the machine for level 0, and holds enough.
  void fill(std::size_t level, const Scope& scope, std::uint32_t count, SlotSet& out);
  void fill_l3(std::uint32_t l3, std::uint32_t count, SlotSet& out);
  void take(std::uint32_t first, std::uint32_t count, SlotSet& out);
  [[nodiscard]] Scope scope_of(std::size_t level, std::uint32_t domain) const;
  [[nodiscard]] std::uint32_t find_one(std::size_t level, Range domains, std::uint32_t count) const;
  [[nodiscard]] std::uint32_t find_largest(std::size_t level, Range domains) const;
  [[nodiscard]] std::uint32_t steps_from_own(std::size_t level, std::uint32_t domain) const;

  const NodeClass* node_;
  CorePool* pool_;
  SlotSet allowed_;
  const Penalties* penalties_;
  std::array<std::vector<std::uint32_t>, 3> in_;   // available cores by level and domain
  std::array<std::vector<std::uint32_t>, 3> own_;  // the same of `own`; empty when there are none
  std::uint32_t available_ = 0;
};

}  // namespace muster::topo
