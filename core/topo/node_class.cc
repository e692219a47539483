#include "core/topo/node_class.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "core/topo/gpu_sets.h"
#include "lib/base/check.h"

namespace muster::topo {
namespace {

constexpr std::uint32_t kPackageBits = 64;

std::uint64_t package_bit(std::uint32_t package) {
  return std::uint64_t{1} << std::min(package, kPackageBits - 1);
}

}  // namespace

NodeClass::NodeClass(const NodeTopology& topology) : topology_(class_of(topology)) {
  MUSTER_CHECK(check_node_topology(topology_).empty());
  order_cores();
  order_gpus();
  measure_devices();
}

NodeClass::~NodeClass() = default;

// Domains stand in the order of their first cores; hwloc's order has that property, so slots are nearly always cores.
void NodeClass::order_cores() {
  const auto& cores = topology_.cores;
  const auto count = static_cast<std::uint32_t>(cores.size());
  std::array<std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>, std::uint32_t>, 3> first_core;
  const auto key = [&](std::size_t level, std::uint32_t core) {
    const TopologyCore& c = cores[core];
    return std::tuple(c.package, level >= 1 ? c.numa : 0, level >= 2 ? c.l3 : 0);
  };
  for (std::uint32_t core = 0; core < count; ++core) {
    for (std::size_t level = 0; level < 3; ++level) {
      first_core[level].emplace(key(level, core), core);
    }
  }
  std::vector<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>> order;
  for (std::uint32_t core = 0; core < count; ++core) {
    order.emplace_back(first_core[0][key(0, core)], first_core[1][key(1, core)], first_core[2][key(2, core)], core);
  }
  std::sort(order.begin(), order.end());
  slot_of_core_.resize(count);
  for (std::uint32_t slot = 0; slot < count; ++slot) {
    const std::uint32_t core = std::get<3>(order[slot]);
    core_of_slot_.push_back(core);
    slot_of_core_[core] = slot;
    slots_are_cores_ = slots_are_cores_ && core == slot;
    bool begins = slot == 0;
    for (std::size_t level = 0; level < 3; ++level) {
      begins = begins || key(level, core) != key(level, core_of_slot_[slot - 1]);
      if (begins) {
        domains_[level].push_back({.first = slot, .last = slot, .first_child = 0, .last_child = 0});
      }
      domains_[level].back().last = slot + 1;
      domain_of_slot_[level].push_back(static_cast<std::uint32_t>(domains_[level].size() - 1));
    }
  }
  for (std::size_t level = 0; level < 2; ++level) {
    for (Domain& domain : domains_[level]) {
      domain.first_child = domain_of_slot_[level + 1][domain.first];
      domain.last_child = domain_of_slot_[level + 1][domain.last - 1] + 1;
    }
  }
}

void NodeClass::order_gpus() {
  by_address_.resize(gpus());
  std::iota(by_address_.begin(), by_address_.end(), 0U);
  std::stable_sort(by_address_.begin(), by_address_.end(), [&](std::uint32_t a, std::uint32_t b) {
    return pci_less(topology_.gpus[a].pci_address, topology_.gpus[b].pci_address);
  });
  place_.resize(gpus());
  for (std::uint32_t i = 0; i < gpus(); ++i) {
    place_[by_address_[i]] = i;
  }
}

NodeClass::Neighbourhood NodeClass::around(const SlotSet& local) const {
  std::vector<bool> numa(topology_.numa.size(), false);
  std::vector<bool> packages(topology_.packages, false);
  local.for_each([&](std::uint32_t slot) {
    numa[topology_.cores[core_of_slot_[slot]].numa] = true;
    packages[topology_.cores[core_of_slot_[slot]].package] = true;
  });
  Neighbourhood out{local, local, local};
  for (std::uint32_t slot = 0; slot < slots(); ++slot) {
    const TopologyCore& core = topology_.cores[core_of_slot_[slot]];
    if (numa[core.numa]) {
      out[1].insert(slot);
    }
    if (numa[core.numa] || packages[core.package]) {
      out[2].insert(slot);
    }
  }
  return out;
}

void NodeClass::measure_devices() {
  std::array<std::map<std::vector<std::uint64_t>, std::uint32_t>, 3> numbers;
  for (std::uint32_t gpu = 0; gpu < gpus(); ++gpu) {
    const SlotSet local = to_slots(topology_.gpus[gpu].cores);
    std::vector<std::uint32_t> l3s;
    std::uint64_t packages = 0;
    local.for_each([&](std::uint32_t slot) {
      packages |= package_bit(topology_.cores[core_of_slot_[slot]].package);
      if (const std::uint32_t l3 = domain_of(Level::kL3, slot); l3s.empty() || l3s.back() != l3) {
        l3s.push_back(l3);
      }
    });
    near_.push_back(around(local));
    for (std::size_t level = 0; level < numbers.size(); ++level) {
      const auto next = static_cast<std::uint32_t>(numbers[level].size());
      gpu_domain_[level].push_back(numbers[level].emplace(near_.back()[level].words(), next).first->second);
    }
    gpu_packages_.push_back(packages);
    gpu_l3s_.push_back(std::move(l3s));
  }
  for (const TopologyNic& nic : topology_.nics) {
    near_nic_.push_back(around(to_slots(nic.cores)));
  }
}

SlotSet NodeClass::to_slots(const IndexSet& cores) const {
  SlotSet out(slots());
  if (slots_are_cores_) {
    const auto& words = cores.words();
    MUSTER_CHECK(words.size() <= out.words().size());
    std::copy(words.begin(), words.end(), out.words().begin());
    return out;
  }
  for (const std::uint32_t core : cores.to_vector()) {
    out.insert(slot_of_core_[core]);
  }
  return out;
}

IndexSet NodeClass::to_cores(const SlotSet& slots) const {
  if (slots_are_cores_) {
    return IndexSet::from_words(slots.words());
  }
  IndexSet out;
  slots.for_each([&](std::uint32_t slot) { out.insert(core_of_slot_[slot]); });
  return out;
}

const GpuSets& NodeClass::gpu_sets() const {
  if (gpu_sets_ == nullptr) {
    gpu_sets_ = std::make_unique<GpuSets>(*this);
  }
  return *gpu_sets_;
}

}  // namespace muster::topo
