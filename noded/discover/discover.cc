#include "noded/discover/discover.h"

#include <hwloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "lib/base/text.h"

namespace muster::noded {
namespace {

// Cores of one node: some times what the largest machines have; a description with more is a mistake.
constexpr std::uint64_t kCoresMax = 16'384;

// PCI vendors of display controllers that compute nothing: ASPEED, Matrox (management controllers), Huawei iBMC, QEMU,
// Cirrus, VMware, virtio, Red Hat QXL, VirtualBox.
constexpr std::array<unsigned short, 9> kDisplayOnlyVendors{0x1a03, 0x102b, 0x19e5, 0x1234, 0x1013,
                                                            0x15ad, 0x1af4, 0x1b36, 0x80ee};
constexpr unsigned short kIntel = 0x8086;

struct TopologyDeleter {
  void operator()(hwloc_topology* t) const { hwloc_topology_destroy(t); }
};
using Topology = std::unique_ptr<hwloc_topology, TopologyDeleter>;

struct Description {
  std::string text;  // without the suffix
  std::uint64_t extra_gpus = 0;
};

Error bad_topology(std::string_view text, const std::string& why) {
  return invalid_argument("topology '" + printable(text) + "': " + why);
}

Result<Description> parse_description(std::string_view text) {
  Description out;
  const auto plus = text.rfind("+gpu:");
  out.text = std::string(trim(text.substr(0, plus)));
  if (plus != std::string_view::npos) {
    auto count = parse_count(trim(text.substr(plus + 5)), "+gpu:", {0, kPretendedGpusMax});
    if (!count.ok()) {
      return bad_topology(text, count.error().message);
    }
    out.extra_gpus = *count;
    if (out.text.empty()) {
      return bad_topology(text,
                          "+gpu: needs a file or a description in front of it, such as 'package:2 core:16 pu:1+gpu:4'");
    }
  }
  return out;
}

bool looks_like_file(const std::string& text) {
  return text.find('/') != std::string::npos || text.ends_with(".xml") || access(text.c_str(), F_OK) == 0;
}

Status choose_source(hwloc_topology* t, const std::string& text) {
  if (text.empty()) {
    return ok_status();
  }
  if (looks_like_file(text)) {
    if (access(text.c_str(), R_OK) != 0) {
      return bad_topology(text, std::string("cannot read the file: ") + std::strerror(errno));
    }
    if (hwloc_topology_set_xml(t, text.c_str()) != 0) {
      return bad_topology(text, "the file is not an hwloc XML topology: make one with lstopo --of xml");
    }
    return ok_status();
  }
  if (hwloc_topology_set_synthetic(t, text.c_str()) != 0) {
    return bad_topology(
        text, "neither a file nor an hwloc synthetic description: write for example 'package:2 core:16 pu:1'");
  }
  return ok_status();
}

Result<Topology> load(const std::string& text) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) {
    return make_error(ErrorCode::kInternal, "hwloc cannot be initialised");
  }
  Topology t(raw);
  MUSTER_TRY(choose_source(raw, text));
  // I/O objects are hidden unless asked for, and accelerators are not "important" to every version.
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(raw) != 0) {
    return text.empty() ? make_error(ErrorCode::kIo, "hwloc cannot read this machine's topology")
                        : bad_topology(text, "hwloc cannot load it: the file is damaged or no topology");
  }
  return t;
}

// NUMA nodes with CPUs, those with equal CPU sets merged, in hwloc's order.
std::vector<hwloc_obj_t> numa_groups(hwloc_topology* t) {
  std::vector<hwloc_obj_t> groups;
  const int count = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
  for (int i = 0; i < count; ++i) {
    hwloc_obj_t node = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, static_cast<unsigned>(i));
    const bool known = std::any_of(groups.begin(), groups.end(),
                                   [&](hwloc_obj_t g) { return hwloc_bitmap_isequal(g->cpuset, node->cpuset) != 0; });
    if (hwloc_bitmap_iszero(node->cpuset) == 0 && !known) {
      groups.push_back(node);
    }
  }
  return groups;
}

// The smallest group around these CPUs.
std::optional<std::size_t> group_of(const std::vector<hwloc_obj_t>& groups, hwloc_const_cpuset_t cpus) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (hwloc_bitmap_isincluded(cpus, groups[i]->cpuset) != 0 &&
        (!best || hwloc_bitmap_weight(groups[i]->cpuset) < hwloc_bitmap_weight(groups[*best]->cpuset))) {
      best = i;
    }
  }
  return best;
}

Status add_cores(hwloc_topology* t, std::string_view text, NodeHardware& out) {
  // Some virtual machines show no cores: then each hardware thread is one.
  const bool has_cores = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE) > 0;
  const hwloc_obj_type_t type = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  const int count = hwloc_get_nbobjs_by_type(t, type);
  if (count <= 0 || static_cast<std::uint64_t>(count) > kCoresMax) {
    return bad_topology(
        text, "it has " + std::to_string(count) + " cores: 1 to " + std::to_string(kCoresMax) + " are accepted");
  }
  const std::vector<hwloc_obj_t> groups = numa_groups(t);
  std::map<std::size_t, std::uint32_t> numbers;  // only groups that are nearest to some core count
  for (int i = 0; i < count; ++i) {
    hwloc_obj_t object = hwloc_get_obj_by_type(t, type, static_cast<unsigned>(i));
    Core core;
    hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(t, HWLOC_OBJ_PACKAGE, object);
    core.package = package != nullptr ? package->logical_index : 0;
    for (int pu = hwloc_bitmap_first(object->cpuset); pu >= 0; pu = hwloc_bitmap_next(object->cpuset, pu)) {
      if (static_cast<std::uint32_t>(pu) > IndexSet::kIndexMax) {
        return bad_topology(text, "it numbers a hardware thread " + std::to_string(pu) + ": at most " +
                                      std::to_string(IndexSet::kIndexMax) + " is accepted");
      }
      core.threads.insert(static_cast<std::uint32_t>(pu));
    }
    if (auto group = group_of(groups, object->cpuset)) {
      numbers.emplace(*group, 0);
      core.numa = static_cast<std::uint32_t>(*group);
    }
    if (!core.threads.empty()) {
      out.cores.push_back(std::move(core));
    }
  }
  std::uint32_t next = 0;
  for (auto& [group, number] : numbers) {
    number = next++;
  }
  for (Core& core : out.cores) {
    auto found = numbers.find(core.numa);
    core.numa = found != numbers.end() ? found->second : 0;
    out.packages = std::max(out.packages, core.package + 1);
  }
  out.numa_nodes = std::max(next, 1U);
  return ok_status();
}

std::uint64_t memory_of(hwloc_topology* t) {
  std::uint64_t bytes = 0;
  const int count = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
  for (int i = 0; i < count; ++i) {
    hwloc_obj_t node = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, static_cast<unsigned>(i));
    const bool of_gpu = node->subtype != nullptr && std::strcmp(node->subtype, "GPUMemory") == 0;
    if (hwloc_bitmap_iszero(node->cpuset) == 0 && !of_gpu) {
      bytes += node->attr->numanode.local_memory;
    }
  }
  return bytes >> 20U;
}

bool is_gpu(const hwloc_obj_attr_u::hwloc_pcidev_attr_s& pci) {
  const unsigned short c = pci.class_id;
  if (c != 0x0300 && c != 0x0302 && c != 0x0380 && c != 0x1200) {
    return false;
  }
  if (std::find(kDisplayOnlyVendors.begin(), kDisplayOnlyVendors.end(), pci.vendor_id) != kDisplayOnlyVendors.end()) {
    return false;
  }
  // The graphics inside Intel's desktop processors.
  return !(pci.vendor_id == kIntel && pci.domain == 0 && pci.bus == 0 && pci.dev == 2);
}

// "nvml3", "rsmi3", "ze3", "cuda3", "opencl0d3": the number that the vendor's tools use, best source first.
int rank_of_source(const char* name, std::uint32_t& index) {
  constexpr std::array kSources{"nvml", "rsmi", "ze", "cuda", "opencl"};
  for (std::size_t i = 0; i < kSources.size(); ++i) {
    const std::size_t length = std::strlen(kSources[i]);
    if (std::strncmp(name, kSources[i], length) != 0) {
      continue;
    }
    const char* digits = name + length;
    if (const char* d = std::strchr(digits, 'd'); d != nullptr) {
      digits = d + 1;
    }
    char* end = nullptr;
    const unsigned long number = std::strtoul(digits, &end, 10);
    if (end == digits || *end != '\0' || number > 4095) {
      return -1;
    }
    index = static_cast<std::uint32_t>(number);
    return static_cast<int>(kSources.size() - i);
  }
  return -1;
}

// The number of the core set's NUMA node by way of one of its cores.
std::uint32_t numa_near(hwloc_topology* t, hwloc_obj_t device, const NodeHardware& hardware) {
  hwloc_obj_t near = hwloc_get_non_io_ancestor_obj(t, device);
  if (near == nullptr || near->cpuset == nullptr) {
    return 0;
  }
  for (const Core& core : hardware.cores) {
    const std::uint32_t first = core.threads.lowest(1).to_vector().front();
    if (hwloc_bitmap_isset(near->cpuset, first) != 0) {
      return core.numa;
    }
  }
  return 0;
}

struct FoundGpu {
  Gpu gpu;
  int source = -1;  // of the vendor index; larger is better
};

void look_at_os_devices(hwloc_topology* t, std::map<std::string, FoundGpu>& gpus,
                        const std::map<hwloc_obj_t, std::string>& addresses) {
  for (hwloc_obj_t os = nullptr; (os = hwloc_get_next_osdev(t, os)) != nullptr;) {
    auto address = addresses.find(os->parent);
    if (address == addresses.end() || os->name == nullptr) {
      continue;
    }
    FoundGpu& found = gpus[address->second];
    std::uint32_t index = 0;
    if (const int source = rank_of_source(os->name, index); source > found.source) {
      found.source = source;
      found.gpu.vendor_index = index;
    }
    for (const char* key : {"NVIDIAUUID", "AMDUUID", "LevelZeroUUID"}) {
      if (const char* uuid = hwloc_obj_get_info_by_name(os, key); uuid != nullptr && found.gpu.uuid.empty()) {
        found.gpu.uuid = uuid;
      }
    }
    if (const char* model = hwloc_obj_get_info_by_name(os, "GPUModel"); model != nullptr && *model != '\0') {
      found.gpu.model = model;
    }
  }
}

void add_gpus(hwloc_topology* t, NodeHardware& out) {
  std::map<std::string, FoundGpu> gpus;  // by address, which is also their order
  std::map<hwloc_obj_t, std::string> addresses;
  for (hwloc_obj_t pci = nullptr; (pci = hwloc_get_next_pcidev(t, pci)) != nullptr;) {
    const hwloc_obj_attr_u::hwloc_pcidev_attr_s& attr = pci->attr->pcidev;
    if (!is_gpu(attr)) {
      continue;
    }
    char address[32];
    std::snprintf(address, sizeof(address), "%04x:%02x:%02x.%01x", attr.domain, attr.bus, attr.dev, attr.func);
    addresses.emplace(pci, address);
    FoundGpu& found = gpus[address];
    found.gpu.pci_address = address;
    found.gpu.numa = numa_near(t, pci, out);
    if (const char* name = hwloc_obj_get_info_by_name(pci, "PCIDevice"); name != nullptr) {
      found.gpu.model = name;
    }
  }
  look_at_os_devices(t, gpus, addresses);
  // Numbers of one source for all, each once; otherwise the order of the addresses, as nvidia-smi counts.
  std::map<std::uint32_t, int> numbers;
  bool usable = true;
  for (const auto& [address, found] : gpus) {
    usable = usable && found.source > 0 && numbers[found.gpu.vendor_index]++ == 0;
  }
  std::uint32_t next = 0;
  for (auto& [address, found] : gpus) {
    if (!usable) {
      found.gpu.vendor_index = next++;
    }
    out.gpus.push_back(std::move(found.gpu));
  }
  std::stable_sort(out.gpus.begin(), out.gpus.end(),
                   [](const Gpu& a, const Gpu& b) { return a.vendor_index < b.vendor_index; });
}

void add_pretended_gpus(std::uint64_t count, NodeHardware& out) {
  const auto first = static_cast<std::uint32_t>(out.gpus.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    Gpu gpu;
    char address[32];
    std::snprintf(address, sizeof(address), "ffff:%02x:00.0", i + 1);
    gpu.pci_address = address;
    gpu.model = "pretended";
    gpu.vendor_index = first + i;
    gpu.numa = static_cast<std::uint32_t>(i * out.numa_nodes / count);
    out.gpus.push_back(std::move(gpu));
  }
}

}  // namespace

Result<NodeHardware> discover(std::string_view topology, std::uint64_t memory_mib) {
  MUSTER_ASSIGN(const Description description, parse_description(topology));
  MUSTER_ASSIGN(const Topology loaded, load(description.text));
  NodeHardware out;
  out.pretended = !description.text.empty();
  MUSTER_TRY(add_cores(loaded.get(), topology, out));
  add_gpus(loaded.get(), out);
  add_pretended_gpus(description.extra_gpus, out);
  // hwloc gives each NUMA node of a synthetic description 1 GiB when it names no memory.
  const bool names_none =
      out.pretended && !looks_like_file(description.text) && description.text.find("memory=") == std::string::npos;
  out.mem_mib = names_none ? 0 : memory_of(loaded.get());
  if (memory_mib != 0) {
    out.mem_mib = memory_mib;
  } else if (out.mem_mib == 0 && out.pretended) {
    out.mem_mib = kPretendedMemoryMib;
  } else if (out.mem_mib == 0) {
    return make_error(ErrorCode::kRefused, "this machine's memory cannot be found out: set [node] memory");
  }
  return out;
}

}  // namespace muster::noded
