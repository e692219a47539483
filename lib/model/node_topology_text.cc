#include "lib/model/node_topology_text.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "lib/base/text.h"

namespace muster {
namespace {

// MB/s of one NVLink in one direction: of its first generation, and of the second to fourth. hwloc tells sums only.
constexpr std::uint32_t kFirstLinkMbps = 20'000;
constexpr std::uint32_t kLinkMbps = 25'000;

std::string numbered(const char* what, std::size_t number) {
  return what + std::to_string(number);
}

std::string counted(std::size_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

std::string head(const NodeTopology& t) {
  std::set<std::uint32_t> l3s;
  std::size_t threads = 0;
  for (const TopologyCore& core : t.cores) {
    l3s.insert(core.l3);
    threads += core.threads.count();
  }
  return counted(t.packages, "package") + ", " + counted(t.numa.size(), "NUMA node") + ", " +
         counted(l3s.size(), "L3") + ", " + counted(t.cores.size(), "core") + ", " +
         counted(threads, "hardware thread") + ", " + counted(t.gpus.size(), "GPU") + ", " + std::to_string(t.mem_mib) +
         " MiB\nclass " + format_topology_hash(topology_hash(t)) + "\n";
}

std::string tree(const NodeTopology& t) {
  std::string out;
  std::uint32_t package = UINT32_MAX;
  std::uint32_t numa = UINT32_MAX;
  for (std::size_t first = 0; first < t.cores.size();) {
    const TopologyCore& core = t.cores[first];
    std::size_t last = first;
    IndexSet threads;
    while (last < t.cores.size() && t.cores[last].l3 == core.l3 && t.cores[last].package == core.package) {
      threads |= t.cores[last++].threads;
    }
    if (core.package != package) {
      out += numbered("package ", core.package) + "\n";
      numa = UINT32_MAX;
    }
    if (core.numa != numa) {
      const std::string os = t.numa[core.numa].os_nodes.to_string();
      out += numbered("  NUMA node ", core.numa) + " (OS " + (os.empty() ? "none" : os) + "), " +
             std::to_string(t.numa[core.numa].mem_mib) + " MiB\n";
    }
    package = core.package;
    numa = core.numa;
    const auto cores = IndexSet::range(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last - first));
    out += numbered("    L3 ", core.l3) + ": cores " + cores.to_string() + ", hardware threads " + threads.to_string() +
           "\n";
    first = last;
  }
  return out;
}

std::string place(const std::string& address, const IndexSet& cores) {
  return " " + address + " local cores " + (cores.empty() ? "none" : cores.to_string());
}

std::string devices(const NodeTopology& t) {
  std::string out;
  for (const TopologyGpu& gpu : t.gpus) {
    out += numbered("GPU", gpu.vendor_index) + place(gpu.pci_address, gpu.cores) +
           (gpu.uuid.empty() ? "" : " " + printable(gpu.uuid)) + (gpu.model.empty() ? "" : " " + printable(gpu.model)) +
           "\n";
  }
  for (std::size_t i = 0; i < t.nics.size(); ++i) {
    out += numbered("NIC", i) + place(t.nics[i].pci_address, t.nics[i].cores);
    for (const std::string& name : t.nics[i].names) {
      out += " " + printable(name);
    }
    out += t.nics[i].fabric ? "\n" : " (not for messages)\n";
  }
  return out;
}

// Columns are as wide as their widest entry.
std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i] + std::string(widths[i] + 2 - row[i].size(), ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string connections(const NodeTopology& t) {
  std::vector<std::vector<std::string>> rows(1, {""});
  for (const TopologyGpu& gpu : t.gpus) {
    rows.front().push_back(numbered("GPU", gpu.vendor_index));
  }
  for (std::size_t n = 0; n < t.nics.size(); ++n) {
    rows.front().push_back(numbered("NIC", n));
  }
  for (std::size_t a = 0; a < t.gpus.size(); ++a) {
    std::vector<std::string> row{numbered("GPU", t.gpus[a].vendor_index)};
    for (std::size_t b = 0; b < t.gpus.size(); ++b) {
      row.push_back(gpu_link_name(t.link(a, b)));
    }
    for (const TopologyNic& nic : t.nics) {
      row.emplace_back(pcie_tier_name(nic.to_gpu[a]));
    }
    rows.push_back(std::move(row));
  }
  return table(rows) +
         "X itself, NVn n NVLinks, PIX one PCIe switch, PXB several PCIe bridges, PHB a host bridge, NODE a NUMA node, "
         "SYS beyond it\n";
}

}  // namespace

std::string format_topology_hash(const TopologyHash& hash) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const std::uint64_t half : {hash.high, hash.low}) {
    for (unsigned shift = 64; shift > 0; shift -= 4) {
      out += kDigits[half >> (shift - 4) & 0xfU];
    }
  }
  return out;
}

std::string gpu_link_name(const GpuLink& link) {
  if (link.bandwidth_mbps == 0) {
    return std::string(pcie_tier_name(link.tier));
  }
  const std::uint32_t one =
      link.bandwidth_mbps % kLinkMbps != 0 && link.bandwidth_mbps % kFirstLinkMbps == 0 ? kFirstLinkMbps : kLinkMbps;
  return numbered("NV", std::max(1U, (link.bandwidth_mbps + one / 2) / one));
}

std::string show_topology(const NodeTopology& topology) {
  std::string out = head(topology) + tree(topology) + devices(topology);
  if (!topology.gpus.empty()) {
    out += connections(topology);
  }
  return out;
}

}  // namespace muster
