#include "noded/discover/hwloc_devices.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace muster::noded {
namespace {

// PCI vendors of display controllers that compute nothing: ASPEED, Matrox (management controllers), Huawei iBMC, QEMU,
// Cirrus, VMware, virtio, Red Hat QXL, VirtualBox.
constexpr std::array<unsigned short, 9> kDisplayOnlyVendors{0x1a03, 0x102b, 0x19e5, 0x1234, 0x1013,
                                                            0x15ad, 0x1af4, 0x1b36, 0x80ee};
constexpr unsigned short kIntel = 0x8086;
constexpr unsigned short kCray = 0x17db;  // Slingshot

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

std::string address_of(hwloc_obj_t pci) {
  const hwloc_obj_attr_u::hwloc_pcidev_attr_s& attr = pci->attr->pcidev;
  char address[32];
  std::snprintf(address, sizeof(address), "%04x:%02x:%02x.%01x", attr.domain, attr.bus, attr.dev, attr.func);
  return address;
}

struct PciLess {
  bool operator()(const std::string& a, const std::string& b) const { return pci_less(a, b); }
};

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

// The PCI device of an OS device: some versions put other objects between the two.
hwloc_obj_t pci_of(hwloc_obj_t os) {
  hwloc_obj_t up = os->parent;
  while (up != nullptr && up->type == HWLOC_OBJ_OS_DEVICE) {
    up = up->parent;
  }
  return up != nullptr && up->type == HWLOC_OBJ_PCI_DEVICE ? up : nullptr;
}

using GpusByAddress = std::map<std::string, FoundGpu, PciLess>;

void look_at_os_devices(hwloc_topology* t, GpusByAddress& gpus) {
  for (hwloc_obj_t os = nullptr; (os = hwloc_get_next_osdev(t, os)) != nullptr;) {
    hwloc_obj_t pci = pci_of(os);
    const auto at = pci != nullptr ? gpus.find(address_of(pci)) : gpus.end();
    if (at == gpus.end() || os->name == nullptr) {
      continue;
    }
    FoundGpu& found = at->second;
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

// Numbers of one source for all, each once; otherwise the order of the addresses, as nvidia-smi counts.
void number_gpus(GpusByAddress& gpus) {
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
  }
}

std::uint32_t link_speed_mbps(hwloc_obj_t pci) {
  return static_cast<std::uint32_t>(std::lround(pci->attr->pcidev.linkspeed * 1000));
}

// Adapters that can do remote direct memory access, and are not much slower than the node's fastest: a node has slow
// ones of that kind for its administration.
void mark_fabric(std::vector<FoundNic>& nics, const std::vector<bool>& capable) {
  std::uint32_t fastest = 0;
  for (std::size_t i = 0; i < nics.size(); ++i) {
    fastest = std::max(fastest, capable[i] ? nics[i].nic.speed_mbps : 0);
  }
  for (std::size_t i = 0; i < nics.size(); ++i) {
    nics[i].nic.fabric = capable[i] && nics[i].nic.speed_mbps >= fastest / 2;
  }
}

// From the device up to its host bridge.
std::vector<hwloc_obj_t> bridges_above(hwloc_obj_t device) {
  std::vector<hwloc_obj_t> out;
  for (hwloc_obj_t up = device->parent; up != nullptr && up->type == HWLOC_OBJ_BRIDGE; up = up->parent) {
    out.push_back(up);
  }
  return out;
}

bool is_switch(hwloc_obj_t object) {
  return object->subtype != nullptr && std::strcmp(object->subtype, "NVSwitch") == 0;
}

class Distances {
 public:
  Distances(hwloc_topology* t, const char* name) : topology_(t) {
    unsigned count = 1;
    if (hwloc_distances_get_by_name(t, name, &count, &matrix_, 0) != 0 || count == 0) {
      matrix_ = nullptr;
    }
  }
  ~Distances() {
    if (matrix_ != nullptr) {
      hwloc_distances_release(topology_, matrix_);
    }
  }
  Distances(const Distances&) = delete;
  Distances& operator=(const Distances&) = delete;

  // GPUs behind switches are connected to ports of these, not to each other: all ports become one, and what goes through
  // it counts as a link.
  void connect_over_switches() {
    const bool switched = matrix_ != nullptr && std::any_of(matrix_->objs, matrix_->objs + matrix_->nbobjs, is_switch);
    if (switched) {
      hwloc_distances_transform(topology_, matrix_, HWLOC_DISTANCES_TRANSFORM_MERGE_SWITCH_PORTS, nullptr, 0);
      hwloc_distances_transform(topology_, matrix_, HWLOC_DISTANCES_TRANSFORM_TRANSITIVE_CLOSURE, nullptr, 0);
    }
  }
  [[nodiscard]] const hwloc_distances_s* get() const { return matrix_; }

 private:
  hwloc_topology* topology_;
  hwloc_distances_s* matrix_ = nullptr;
};

// The GPU of an object in a matrix: an OS device or a PCI device.
std::optional<std::size_t> gpu_of(hwloc_obj_t object, const std::vector<FoundGpu>& gpus) {
  hwloc_obj_t pci = object;
  if (object != nullptr && object->type == HWLOC_OBJ_OS_DEVICE) {
    pci = pci_of(object);
  }
  for (std::size_t i = 0; pci != nullptr && i < gpus.size(); ++i) {
    if (gpus[i].pci == pci) {
      return i;
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<FoundGpu> find_gpus(hwloc_topology* t) {
  GpusByAddress gpus;
  for (hwloc_obj_t pci = nullptr; (pci = hwloc_get_next_pcidev(t, pci)) != nullptr;) {
    if (!is_gpu(pci->attr->pcidev)) {
      continue;
    }
    FoundGpu found;
    found.pci = pci;
    found.gpu.pci_address = address_of(pci);
    if (const char* name = hwloc_obj_get_info_by_name(pci, "PCIDevice"); name != nullptr) {
      found.gpu.model = name;
    }
    gpus.emplace(found.gpu.pci_address, std::move(found));
  }
  look_at_os_devices(t, gpus);
  number_gpus(gpus);
  std::vector<FoundGpu> out;
  for (auto& [address, found] : gpus) {
    out.push_back(std::move(found));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const FoundGpu& a, const FoundGpu& b) { return a.gpu.vendor_index < b.gpu.vendor_index; });
  return out;
}

std::vector<FoundNic> find_nics(hwloc_topology* t) {
  std::map<std::string, FoundNic, PciLess> by_address;
  std::map<std::string, bool, PciLess> capable;
  for (hwloc_obj_t os = nullptr; (os = hwloc_get_next_osdev(t, os)) != nullptr;) {
    const auto type = os->attr->osdev.type;
    hwloc_obj_t pci = pci_of(os);
    if (pci == nullptr || os->name == nullptr ||
        (type != HWLOC_OBJ_OSDEV_NETWORK && type != HWLOC_OBJ_OSDEV_OPENFABRICS)) {
      continue;
    }
    const std::string address = address_of(pci);
    FoundNic& found = by_address[address];
    found.pci = pci;
    found.nic.pci_address = address;
    found.nic.names.emplace_back(os->name);
    found.nic.speed_mbps = link_speed_mbps(pci);
    capable[address] = capable[address] || type == HWLOC_OBJ_OSDEV_OPENFABRICS || pci->attr->pcidev.vendor_id == kCray;
  }
  std::vector<FoundNic> out;
  std::vector<bool> flags;
  for (auto& [address, found] : by_address) {
    std::sort(found.nic.names.begin(), found.nic.names.end());
    out.push_back(std::move(found));
    flags.push_back(capable[address]);
  }
  mark_fabric(out, flags);
  return out;
}

PcieTier bridge_tier(hwloc_obj_t a, hwloc_obj_t b) {
  if (a == b) {
    return PcieTier::kSameDevice;
  }
  const std::vector<hwloc_obj_t> above_a = bridges_above(a);
  const std::vector<hwloc_obj_t> above_b = bridges_above(b);
  for (std::size_t i = 0; i < above_a.size(); ++i) {
    const auto common = std::find(above_b.begin(), above_b.end(), above_a[i]);
    if (common == above_b.end()) {
      continue;
    }
    if (above_a[i]->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_HOST) {
      return PcieTier::kHostBridge;
    }
    // A switch is a bridge for the port towards the host and one for each port towards a device.
    const auto between = std::max<std::size_t>(i, static_cast<std::size_t>(common - above_b.begin()));
    return between <= 1 ? PcieTier::kSwitch : PcieTier::kSwitches;
  }
  return PcieTier::kOtherPackage;
}

std::vector<std::uint32_t> link_bandwidths(hwloc_topology* t, const std::vector<FoundGpu>& gpus) {
  std::vector<std::uint32_t> out(gpus.size() * gpus.size(), 0);
  // XGMIBandwidth is left out: hwloc fills it with a constant.
  for (const char* name : {"NVLinkBandwidth", "XeLinkBandwidth"}) {
    Distances distances(t, name);
    distances.connect_over_switches();
    const hwloc_distances_s* matrix = distances.get();
    for (unsigned i = 0; matrix != nullptr && i < matrix->nbobjs; ++i) {
      const auto a = gpu_of(matrix->objs[i], gpus);
      for (unsigned j = 0; a && j < matrix->nbobjs; ++j) {
        const auto b = gpu_of(matrix->objs[j], gpus);
        if (!b || *a == *b) {
          continue;
        }
        // Both directions, the lower where they differ: links work both ways, and the matrix must be symmetric.
        const auto there = matrix->values[i * matrix->nbobjs + j];
        const auto back = matrix->values[j * matrix->nbobjs + i];
        const auto mbps = static_cast<std::uint32_t>(std::min<hwloc_uint64_t>(std::min(there, back), UINT32_MAX));
        out[*a * gpus.size() + *b] = std::max(out[*a * gpus.size() + *b], mbps);
      }
    }
  }
  return out;
}

}  // namespace muster::noded
