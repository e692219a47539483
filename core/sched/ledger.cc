#include "core/sched/ledger.h"

#include <algorithm>

#include "lib/base/check.h"
#include "lib/base/text.h"

namespace muster::sched {

NodeCapacity& Ledger::at(NodeIndex node) {
  if (node.value >= nodes_.size()) {
    nodes_.resize(node.value + 1);
    held_.resize(node.value + 1);
  }
  return nodes_[node.value];
}

void Ledger::recompute(std::size_t i) {
  NodeCapacity& n = nodes_[i];
  const Held& h = held_[i];
  n.free_cores = n.all_cores - h.cores;
  n.free_gpus = n.all_gpus - h.gpus;
  n.free_mem_mib = n.mem_mib > h.mem_mib ? n.mem_mib - h.mem_mib : 0;
}

void Ledger::set_hardware(NodeIndex node, const std::string& name, const NodeHardware& hardware) {
  NodeCapacity& n = at(node);
  if (!n.known) {
    const auto before = [this](NodeIndex other, const std::string& text) {
      return natural_less(nodes_[other.value].name, text);
    };
    order_.insert(std::lower_bound(order_.begin(), order_.end(), name, before), node);
  }
  n.name = name;
  n.known = true;
  n.all_cores = IndexSet::range(0, static_cast<std::uint32_t>(hardware.cores.size()));
  n.all_gpus = IndexSet::range(0, static_cast<std::uint32_t>(hardware.gpus.size()));
  n.mem_mib = hardware.mem_mib;
  recompute(node.value);
}

void Ledger::set_usable(NodeIndex node, bool usable) { at(node).usable = usable; }

void Ledger::take(const NodeShare& share) {
  at(share.node);
  Held& h = held_[share.node.value];
  MUSTER_CHECK(!h.cores.intersects(share.cores));
  MUSTER_CHECK(!h.gpus.intersects(share.gpus));
  h.cores |= share.cores;
  h.gpus |= share.gpus;
  h.mem_mib += share.mem_mib;
  recompute(share.node.value);
}

void Ledger::give_back(const NodeShare& share) {
  at(share.node);
  Held& h = held_[share.node.value];
  MUSTER_CHECK(share.cores.is_subset_of(h.cores));
  MUSTER_CHECK(share.gpus.is_subset_of(h.gpus));
  MUSTER_CHECK(share.mem_mib <= h.mem_mib);
  h.cores -= share.cores;
  h.gpus -= share.gpus;
  h.mem_mib -= share.mem_mib;
  recompute(share.node.value);
}

const NodeCapacity& Draft::node(std::size_t i) const {
  const auto it = changed_.find(i);
  return it == changed_.end() ? base_->nodes()[i] : it->second;
}

bool Draft::can_take(const NodeShare& share) const {
  if (share.node.value >= size()) {
    return false;
  }
  const NodeCapacity& n = node(share.node.value);
  return n.usable && share.cores.is_subset_of(n.free_cores) && share.gpus.is_subset_of(n.free_gpus) &&
         share.mem_mib <= n.free_mem_mib;
}

void Draft::take(const NodeShare& share) {
  MUSTER_CHECK(can_take(share));
  const std::size_t i = share.node.value;
  NodeCapacity& n = changed_.try_emplace(i, base_->nodes()[i]).first->second;
  n.free_cores -= share.cores;
  n.free_gpus -= share.gpus;
  n.free_mem_mib -= share.mem_mib;
}

}  // namespace muster::sched
