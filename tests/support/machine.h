// Machines made by hand for tests of core/topo.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "core/topo/choose.h"

namespace muster::test {

struct Shape {
  std::uint32_t packages = 2;
  std::uint32_t numa = 1;     // in each package
  std::uint32_t l3 = 1;       // in each NUMA node
  std::uint32_t cores = 4;    // in each L3
  std::uint32_t threads = 1;  // of each core; siblings are as far apart as there are cores
};

class Machine {
 public:
  explicit Machine(const Shape& shape) {
    t_.packages = shape.packages;
    const std::uint32_t count = shape.packages * shape.numa * shape.l3 * shape.cores;
    for (std::uint32_t n = 0; n < shape.packages * shape.numa; ++n) {
      t_.numa.emplace_back();
      t_.numa.back().os_nodes.insert(n);
      t_.numa.back().mem_mib = 1024;
    }
    for (std::uint32_t c = 0; c < count; ++c) {
      TopologyCore core{.package = c / (count / shape.packages),
                        .numa = c / (shape.l3 * shape.cores),
                        .l3 = c / shape.cores,
                        .threads = {}};
      for (std::uint32_t i = 0; i < shape.threads; ++i) {
        core.threads.insert(c + i * count);
      }
      t_.cores.push_back(std::move(core));
    }
    t_.mem_mib = 1024 * t_.numa.size();
  }

  // GPU number i in the order of calls; `address` is a bus, "17".
  Machine& gpu(const std::string& address, const std::string& cores, const std::string& partition = "") {
    TopologyGpu gpu;
    gpu.pci_address = "0000:" + address + ":00.0";
    gpu.vendor_index = static_cast<std::uint32_t>(t_.gpus.size());
    gpu.partition = partition;
    gpu.cores = *IndexSet::parse(cores);
    t_.gpus.push_back(std::move(gpu));
    std::vector<GpuLink> links(t_.gpus.size() * t_.gpus.size());
    const std::size_t before = t_.gpus.size() - 1;
    for (std::size_t a = 0; a < t_.gpus.size(); ++a) {
      for (std::size_t b = 0; b < t_.gpus.size(); ++b) {
        GpuLink& link = links[a * t_.gpus.size() + b];
        if (a < before && b < before) {
          link = t_.links[a * before + b];
        } else {
          link.tier = a == b ? PcieTier::kSameDevice : tier(t_.gpus[a].cores, t_.gpus[b].cores);
        }
      }
    }
    t_.links = std::move(links);
    return *this;
  }
  Machine& link(std::uint32_t a, std::uint32_t b, std::uint32_t mbps) {
    at(a, b).bandwidth_mbps = mbps;
    at(b, a).bandwidth_mbps = mbps;
    return *this;
  }
  Machine& near(std::uint32_t a, std::uint32_t b, PcieTier tier) {
    at(a, b).tier = tier;
    at(b, a).tier = tier;
    return *this;
  }
  // After all GPUs.
  Machine& nic(const std::string& address, const std::string& cores, std::vector<PcieTier> to_gpu, bool fabric = true,
               std::uint32_t speed_mbps = 30'000) {
    t_.nics.push_back({.pci_address = "0000:" + address + ":00.0",
                       .names = {"nic" + std::to_string(t_.nics.size())},
                       .fabric = fabric,
                       .speed_mbps = speed_mbps,
                       .cores = *IndexSet::parse(cores),
                       .to_gpu = std::move(to_gpu)});
    return *this;
  }

  [[nodiscard]] const NodeTopology& topology() const {
    EXPECT_EQ(check_node_topology(t_), "");
    return t_;
  }

 private:
  GpuLink& at(std::uint32_t a, std::uint32_t b) { return t_.links[a * t_.gpus.size() + b]; }
  [[nodiscard]] PcieTier tier(const IndexSet& a, const IndexSet& b) const {
    PcieTier best = PcieTier::kOtherPackage;
    for (const std::uint32_t x : a.to_vector()) {
      for (const std::uint32_t y : b.to_vector()) {
        best = std::max(best, t_.cores[x].numa == t_.cores[y].numa         ? PcieTier::kSameNuma
                              : t_.cores[x].package == t_.cores[y].package ? PcieTier::kOtherNuma
                                                                           : PcieTier::kOtherPackage);
      }
    }
    return best;
  }
  NodeTopology t_;
};

// The links of a DGX-1 with V100 as NVIDIA's go-gpuallocator has them: (a, b, number of links); switches hold (0,1), (2,3),
// (4,5), (6,7).
inline Machine dgx1v() {
  Machine m({.packages = 2, .numa = 1, .l3 = 1, .cores = 20, .threads = 2});
  const char* const kBuses[] = {"06", "07", "0a", "0b", "85", "86", "89", "8a"};
  for (std::uint32_t g = 0; g < 8; ++g) {
    m.gpu(kBuses[g], g < 4 ? "0-19" : "20-39");
  }
  constexpr std::uint32_t kLinks[][3] = {{0, 1, 1}, {0, 2, 1}, {0, 3, 2}, {0, 4, 2}, {1, 2, 2}, {1, 3, 1},
                                         {1, 5, 2}, {2, 3, 2}, {2, 6, 1}, {3, 7, 1}, {4, 5, 1}, {4, 6, 1},
                                         {4, 7, 2}, {5, 6, 2}, {5, 7, 1}, {6, 7, 2}};
  for (const auto& [a, b, count] : kLinks) {
    m.link(a, b, count * 25'000);
  }
  for (const std::uint32_t g : {0U, 2U, 4U, 6U}) {
    m.near(g, g + 1, PcieTier::kSwitch);
  }
  return m;
}

// Eight GPUs on PCIe in two packages, in pairs that are bridged.
inline Machine bridged_pairs() {
  Machine m({.packages = 2, .numa = 1, .l3 = 4, .cores = 8, .threads = 1});
  const char* const kBuses[] = {"01", "21", "41", "61", "81", "a1", "c1", "e1"};
  for (std::uint32_t g = 0; g < 8; ++g) {
    m.gpu(kBuses[g], g < 4 ? "0-31" : "32-63");
  }
  m.link(0, 2, 300'000).link(1, 3, 300'000).link(4, 5, 300'000).link(6, 7, 300'000);
  return m;
}

// Everything free.
inline topo::NodeUse all_free(const NodeTopology& t) {
  const auto cores = IndexSet::range(0, static_cast<std::uint32_t>(t.cores.size()));
  return {.usable_cores = cores,
          .free_cores = cores,
          .free_gpus = IndexSet::range(0, static_cast<std::uint32_t>(t.gpus.size()))};
}

inline topo::Choice chosen(const topo::NodeClass& node, const topo::NodeUse& use, const topo::Request& request) {
  const auto result = topo::choose(node, use, request);
  if (const auto* refusal = std::get_if<topo::Refusal>(&result)) {
    ADD_FAILURE() << "refused: " << refusal->reason;
    return {};
  }
  return std::get<topo::Choice>(result);
}

// "2->16-19 0,1->20-23": GPUs by vendor index, hardware threads that each task is bound to.
inline std::string show(const NodeTopology& t, const std::vector<topo::ChosenTask>& tasks) {
  std::string out;
  for (const topo::ChosenTask& task : tasks) {
    std::string gpus;
    for (const std::uint32_t gpu : task.gpus.to_vector()) {
      gpus += (gpus.empty() ? "" : ",") + std::to_string(t.gpus[gpu].vendor_index);
    }
    out += (out.empty() ? "" : " ") + gpus + (gpus.empty() ? "" : "->") + task.threads.to_string();
  }
  return out;
}

inline IndexSet indices(const std::string& text) {
  return *IndexSet::parse(text);
}

}  // namespace muster::test
