// The encoding of a node's topology.
#include <algorithm>
#include <string>
#include <utility>

#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::wire {
namespace {

// Limits of what is read, all far above real use.
constexpr int kCoresMax = static_cast<int>(IndexSet::kIndexMax) + 1;
constexpr int kGpusMax = 1'024;
constexpr int kNicsMax = 4'096;
constexpr int kNamesMax = 64;  // of one adapter
constexpr int kIndexWordsMax = kCoresMax / 64;

Error corrupt(const std::string& problem) {
  return make_error(ErrorCode::kCorrupt,
                    "damaged message: NodeTopology " + problem + ": send it again, or use the release that wrote it");
}

template <typename Words>
void write_words(const IndexSet& in, Words& out) {
  out.Assign(in.words().begin(), in.words().end());
}

template <typename Words>
Result<IndexSet> read_words(const Words& in) {
  if (in.size() > kIndexWordsMax) {
    return corrupt("holds an index above " + std::to_string(IndexSet::kIndexMax));
  }
  return IndexSet::from_words({in.begin(), in.end()});
}

Result<PcieTier> read_tier(std::uint32_t value) {
  if (value > static_cast<std::uint32_t>(PcieTier::kSameDevice)) {
    return corrupt("holds the tier " + std::to_string(value) + ", which this release does not know");
  }
  return static_cast<PcieTier>(value);
}

void write_cores(const std::vector<TopologyCore>& in, pb::NodeTopology& out) {
  for (const TopologyCore& core : in) {
    out.add_core_packages(core.package);
    out.add_core_numa(core.numa);
    out.add_core_l3(core.l3);
    const std::vector<std::uint32_t> threads = core.threads.to_vector();
    out.add_core_threads(static_cast<std::uint32_t>(threads.size()));
    for (const std::uint32_t thread : threads) {
      out.add_threads(thread);
    }
  }
}

Status read_cores(const pb::NodeTopology& in, std::vector<TopologyCore>& out) {
  const int count = in.core_packages_size();
  if (count > kCoresMax || in.core_numa_size() != count || in.core_l3_size() != count ||
      in.core_threads_size() != count) {
    return corrupt("has too many cores, or not the same of each field of theirs");
  }
  int next = 0;
  for (int i = 0; i < count; ++i) {
    TopologyCore core{.package = in.core_packages(i), .numa = in.core_numa(i), .l3 = in.core_l3(i), .threads = {}};
    if (in.core_threads(i) > static_cast<std::uint32_t>(in.threads_size() - next)) {
      return corrupt("has fewer hardware threads than its cores");
    }
    for (std::uint32_t k = 0; k < in.core_threads(i); ++k) {
      const std::uint32_t thread = in.threads(next++);
      if (thread > IndexSet::kIndexMax) {
        return corrupt("holds an index above " + std::to_string(IndexSet::kIndexMax));
      }
      core.threads.insert(thread);
    }
    out.push_back(std::move(core));
  }
  return next == in.threads_size() ? ok_status() : Status(corrupt("has more hardware threads than its cores"));
}

Result<TopologyGpu> read_gpu(const pb::TopologyGpu& in) {
  TopologyGpu out;
  out.pci_address = in.pci_address();
  out.uuid = in.uuid();
  out.model = in.model();
  out.vendor_index = in.vendor_index();
  out.partition = in.partition();
  MUSTER_ASSIGN(out.cores, read_words(in.cores()));
  return out;
}

Result<TopologyNic> read_nic(const pb::TopologyNic& in) {
  TopologyNic out;
  if (in.names_size() > kNamesMax || in.to_gpu_size() > kGpusMax) {
    return corrupt("has too much of a network adapter");
  }
  out.pci_address = in.pci_address();
  out.names.assign(in.names().begin(), in.names().end());
  out.fabric = in.fabric();
  out.speed_mbps = in.speed_mbps();
  MUSTER_ASSIGN(out.cores, read_words(in.cores()));
  for (const std::uint32_t value : in.to_gpu()) {
    MUSTER_ASSIGN(const PcieTier tier, read_tier(value));
    out.to_gpu.push_back(tier);
  }
  return out;
}

}  // namespace

void to_pb(const NodeTopology& in, pb::NodeTopology& out) {
  out.Clear();
  out.set_packages(in.packages);
  for (const TopologyNuma& numa : in.numa) {
    pb::TopologyNuma& to = *out.add_numa();
    write_words(numa.os_nodes, *to.mutable_os_nodes());
    to.set_mem_mib(numa.mem_mib);
  }
  write_cores(in.cores, out);
  for (const TopologyGpu& gpu : in.gpus) {
    pb::TopologyGpu& to = *out.add_gpus();
    to.set_pci_address(gpu.pci_address);
    to.set_uuid(gpu.uuid);
    to.set_model(gpu.model);
    to.set_vendor_index(gpu.vendor_index);
    to.set_partition(gpu.partition);
    write_words(gpu.cores, *to.mutable_cores());
  }
  for (const GpuLink& link : in.links) {
    out.add_link_mbps(link.bandwidth_mbps);
    out.add_link_tiers(static_cast<std::uint32_t>(link.tier));
  }
  for (const TopologyNic& nic : in.nics) {
    pb::TopologyNic& to = *out.add_nics();
    to.set_pci_address(nic.pci_address);
    to.mutable_names()->Assign(nic.names.begin(), nic.names.end());
    to.set_fabric(nic.fabric);
    to.set_speed_mbps(nic.speed_mbps);
    write_words(nic.cores, *to.mutable_cores());
    for (const PcieTier tier : nic.to_gpu) {
      to.add_to_gpu(static_cast<std::uint32_t>(tier));
    }
  }
  out.set_mem_mib(in.mem_mib);
  out.set_pretended(in.pretended);
}

Result<NodeTopology> from_pb(const pb::NodeTopology& in) {
  NodeTopology out;
  if (in.numa_size() > kCoresMax || in.gpus_size() > kGpusMax || in.nics_size() > kNicsMax ||
      in.link_mbps_size() > kGpusMax * kGpusMax || in.link_mbps_size() != in.link_tiers_size()) {
    return corrupt("has too many NUMA nodes, GPUs, links or network adapters");
  }
  out.packages = in.packages();
  for (const pb::TopologyNuma& numa : in.numa()) {
    MUSTER_ASSIGN(IndexSet os_nodes, read_words(numa.os_nodes()));
    out.numa.push_back({.os_nodes = std::move(os_nodes), .mem_mib = numa.mem_mib()});
  }
  MUSTER_TRY(read_cores(in, out.cores));
  for (const pb::TopologyGpu& gpu : in.gpus()) {
    MUSTER_ASSIGN(TopologyGpu read, read_gpu(gpu));
    out.gpus.push_back(std::move(read));
  }
  for (int i = 0; i < in.link_mbps_size(); ++i) {
    MUSTER_ASSIGN(const PcieTier tier, read_tier(in.link_tiers(i)));
    out.links.push_back({.bandwidth_mbps = in.link_mbps(i), .tier = tier});
  }
  for (const pb::TopologyNic& nic : in.nics()) {
    MUSTER_ASSIGN(TopologyNic read, read_nic(nic));
    out.nics.push_back(std::move(read));
  }
  out.mem_mib = in.mem_mib();
  out.pretended = in.pretended();
  return out;
}

void to_pb(const TopologyHash& in, pb::TopologyHash& out) {
  out.set_high(in.high);
  out.set_low(in.low);
}
TopologyHash from_pb(const pb::TopologyHash& in) {
  return {in.high(), in.low()};
}

void to_pb(const NodeClassAdded& in, pb::NodeClassAdded& out) {
  to_pb(in.hash, *out.mutable_hash());
  to_pb(in.topology, *out.mutable_topology());
}
Result<NodeClassAdded> from_pb(const pb::NodeClassAdded& in) {
  NodeClassAdded out;
  out.hash = from_pb(in.hash());
  MUSTER_ASSIGN(out.topology, from_pb(in.topology()));
  return out;
}

}  // namespace muster::wire
