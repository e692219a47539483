#include "noded/gpu_devices.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "lib/base/text.h"
#include "noded/small_files.h"

namespace muster::noded {
namespace {

std::optional<DeviceNumber> device_at(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISCHR(info.st_mode)) {
    return std::nullopt;
  }
  return DeviceNumber{major(info.st_rdev), minor(info.st_rdev)};
}

// "226:128\n", as sysfs has it.
std::optional<DeviceNumber> parse_number(const std::string& text) {
  DeviceNumber number;
  const char* end = text.data() + text.size();
  const auto [colon, error] = std::from_chars(text.data(), end, number.major);
  if (error != std::errc() || colon == end || *colon != ':') {
    return std::nullopt;
  }
  if (std::from_chars(colon + 1, end, number.minor).ec != std::errc()) {
    return std::nullopt;
  }
  return number;
}

// Nodes of the direct rendering manager, by whichever driver: card0, renderD128.
void add_drm(const std::string& pci_address, std::vector<DeviceNumber>& out) {
  for (const std::string& node : subgroups("/sys/bus/pci/devices/" + pci_address + "/drm")) {
    if (const auto number = parse_number(read_small(node + "/dev"))) {
      out.push_back(*number);
    }
  }
}

// Linux's list of devices: NVIDIA's GPUs.
constexpr std::uint32_t kNvidiaMajor = 195;

// "Device Minor: 	 0" tells which /dev/nvidiaN it is.
void add_nvidia(const std::string& pci_address, std::vector<DeviceNumber>& out) {
  constexpr std::string_view kField = "Device Minor:";
  const std::string text = read_small("/proc/driver/nvidia/gpus/" + pci_address + "/information");
  for (const std::string_view line : split(text, '\n')) {
    if (line.starts_with(kField)) {
      // The driver's tools make the file when somebody needs it first, with these numbers.
      const auto minor = parse_integer(trim(line.substr(kField.size())), kField, 0, UINT32_MAX);
      if (minor.ok()) {
        out.push_back(DeviceNumber{kNvidiaMajor, static_cast<std::uint32_t>(*minor)});
      }
    }
  }
}

}  // namespace

Result<std::vector<std::vector<DeviceNumber>>> gpu_devices(const NodeHardware& hardware, const std::string& setting) {
  std::vector<std::vector<DeviceNumber>> out(hardware.gpus.size());
  if (setting.empty()) {
    for (std::size_t i = 0; i < out.size() && !hardware.pretended; ++i) {
      add_drm(hardware.gpus[i].pci_address, out[i]);
      add_nvidia(hardware.gpus[i].pci_address, out[i]);
    }
    return out;
  }
  const auto gpus = split(setting, ',');
  if (gpus.size() != out.size()) {
    return invalid_argument("[node] gpu_devices names devices of " + std::to_string(gpus.size()) +
                            " GPUs, and the node has " + std::to_string(out.size()) +
                            ": give one entry for each, in their order");
  }
  for (std::size_t i = 0; i < gpus.size(); ++i) {
    for (const std::string_view path : split(gpus[i], '+')) {
      const std::string name(trim(path));
      const auto number = device_at(name);
      if (!number && !name.empty() && ::access(name.c_str(), F_OK) != 0 && errno == ENOENT) {
        continue;  // the check of the node's health says so
      }
      if (!number) {
        return invalid_argument("[node] gpu_devices: " + printable(path) +
                                " is no character device: correct it, or leave the key out");
      }
      out[i].push_back(*number);
    }
  }
  return out;
}

std::vector<std::vector<DeviceNumber>> gpu_devices_now(const NodeHardware& hardware, const std::string& setting,
                                                       const std::vector<std::vector<DeviceNumber>>& known) {
  auto now = gpu_devices(hardware, setting);
  if (setting.empty() || !now.ok()) {
    return known;
  }
  for (std::size_t i = 0; i < now->size() && i < known.size(); ++i) {
    if ((*now)[i].empty()) {
      (*now)[i] = known[i];
    }
  }
  return std::move(now).value();
}

std::vector<std::string> gpu_device_paths(const std::string& setting) {
  std::vector<std::string> out;
  for (const std::string_view of_one : split(setting, ',')) {
    for (const std::string_view path : split(of_one, '+')) {
      if (const std::string_view name = trim(path); !name.empty()) {
        out.emplace_back(name);
      }
    }
  }
  return out;
}

std::vector<DeviceNumber> denied_devices(const std::vector<std::vector<DeviceNumber>>& devices, const IndexSet& held) {
  std::vector<DeviceNumber> allowed;
  for (std::uint32_t i = 0; i < devices.size(); ++i) {
    if (held.contains(i)) {
      allowed.insert(allowed.end(), devices[i].begin(), devices[i].end());
    }
  }
  std::vector<DeviceNumber> out;
  for (std::uint32_t i = 0; i < devices.size(); ++i) {
    for (const DeviceNumber& device : devices[i]) {
      const auto is_it = [&](const DeviceNumber& other) { return other == device; };
      if (std::none_of(allowed.begin(), allowed.end(), is_it) && std::none_of(out.begin(), out.end(), is_it)) {
        out.push_back(device);
      }
    }
  }
  return out;
}

}  // namespace muster::noded
