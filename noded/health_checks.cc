#include "noded/health_checks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "lib/base/text.h"
#include "lib/io/files.h"
#include "noded/discover/discover.h"

namespace muster::noded {
namespace {

constexpr std::string_view kPciDevices = "/sys/bus/pci/devices/";

std::string mib(std::uint64_t bytes) {
  return format_memory_mib(bytes >> 20U);
}

// A device that has fallen off its bus answers every read of its configuration with ones.
bool answers(const std::string& address) {
  const std::string path = std::string(kPciDevices) + address + "/config";
  const io::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return errno != ENOENT && errno != ENODEV;
  }
  unsigned char vendor[2] = {};
  const ssize_t n = ::read(fd.get(), vendor, sizeof(vendor));
  return n != static_cast<ssize_t>(sizeof(vendor)) || vendor[0] != 0xff || vendor[1] != 0xff;
}

// Memory of this machine; 0: not known.
std::uint64_t machine_memory_mib() {
  constexpr std::size_t kBytesMax = 64U << 10U;
  const auto text = io::read_file("/proc/meminfo", kBytesMax);
  if (!text.ok()) {
    return 0;
  }
  constexpr std::string_view kTotal = "MemTotal:";
  for (const std::string_view line : split(*text, '\n')) {
    if (line.starts_with(kTotal)) {
      std::string_view number = trim(line.substr(kTotal.size()));
      number = number.substr(0, number.find(' '));
      const auto kib = parse_count(number, "MemTotal", {0, UINT64_MAX});
      return kib.ok() ? *kib >> 10U : 0;
    }
  }
  return 0;
}

// What a failed write to a folder says of it.
HealthProblem write_problem(const std::string& dir, int error_number) {
  if (error_number == ENOSPC || error_number == EDQUOT) {
    return {"disk", dir + ": a file cannot be written: " + std::string(io::errno_text("write", dir, error_number))};
  }
  if (error_number == EROFS) {
    return {"read_only", dir + ": its file system is read-only"};
  }
  return {"disk", io::errno_text("write a file in", dir, error_number)};
}

// 0, or the errno. In a folder of all users nobody can know the name before and put a pipe there, or a file of their own.
int write_probe(const std::string& dir) {
  std::string path = dir + "/.muster-health.XXXXXX";
  const io::Fd fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd.valid()) {
    return errno;
  }
  constexpr std::string_view kText = "muster: health check\n";
  int error_number = 0;
  const ssize_t n = ::write(fd.get(), kText.data(), kText.size());
  if (n != static_cast<ssize_t>(kText.size())) {
    error_number = n < 0 ? errno : ENOSPC;
  } else if (::fdatasync(fd.get()) != 0) {
    error_number = errno;
  }
  ::unlink(path.c_str());
  return error_number;
}

void append(std::vector<HealthProblem>& to, std::vector<HealthProblem> from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

std::vector<HealthProblem> check_folder(const std::string& dir, std::uint64_t disk_min_mib, std::uint64_t inodes_min) {
  std::vector<HealthProblem> out;
  struct statvfs info {};
  if (::statvfs(dir.c_str(), &info) != 0) {
    out.push_back({"disk", io::errno_text("look at", dir, errno)});
    return out;
  }
  const std::uint64_t free_bytes = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  if (disk_min_mib != 0 && (free_bytes >> 20U) < disk_min_mib) {
    out.push_back({"disk", dir + ": " + mib(free_bytes) + " free, at least " + format_memory_mib(disk_min_mib) +
                               " are wanted ([node] health_disk_min)"});
  }
  if (inodes_min != 0 && info.f_files != 0 && info.f_favail < inodes_min) {
    out.push_back({"disk", dir + ": " + std::to_string(info.f_favail) + " inodes free, at least " +
                               std::to_string(inodes_min) + " are wanted ([node] health_inodes_min)"});
  }
  const int error_number = write_probe(dir);
  // A disk that is known to be full need not be told of twice.
  if (error_number != 0 && (out.empty() || error_number == EROFS)) {
    out.push_back(write_problem(dir, error_number));
  }
  return out;
}

std::vector<HealthProblem> check_memory(std::uint64_t memory_mib) {
  const std::uint64_t there = machine_memory_mib();
  if (memory_mib == 0 || there == 0 || there >= memory_mib) {
    return {};
  }
  return {{"memory", "the machine has " + format_memory_mib(there) + ", " + format_memory_mib(memory_mib) +
                         " are declared or were there before ([node] memory)"}};
}

std::vector<HealthProblem> check_gpus(const std::vector<std::string>& pci_addresses,
                                      const std::vector<std::string>& devices) {
  std::vector<HealthProblem> out;
  for (const std::string& address : pci_addresses) {
    if (!answers(address)) {
      out.push_back({"gpu", "GPU " + address + " is gone: it does not answer on its bus"});
    }
  }
  for (const std::string& path : devices) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
      out.push_back({"gpu", "a GPU is gone: " + io::errno_text("look at", path, errno) + " ([node] gpu_devices)"});
    }
  }
  return out;
}

std::vector<HealthProblem> check_topology(const HealthChecks& checks) {
  if (checks.topology.empty()) {
    return {};
  }
  const auto now = discover(checks.topology, 0);
  if (!now.ok()) {
    return {};  // the file is gone, or being written: that says nothing of the machine
  }
  std::vector<HealthProblem> out;
  for (const std::string& address : checks.topology_gpus) {
    const bool there = std::any_of(now->gpus.begin(), now->gpus.end(),
                                   [&address](const Gpu& gpu) { return gpu.pci_address == address; });
    if (!there) {
      out.push_back({"gpu", "GPU " + address + " is gone: " + checks.topology + " has it no more"});
    }
  }
  if (now->mem_mib < checks.topology_memory_mib) {
    out.push_back({"memory", "the machine has " + format_memory_mib(now->mem_mib) + ", it had " +
                                 format_memory_mib(checks.topology_memory_mib)});
  }
  return out;
}

std::vector<HealthProblem> run_checks(const HealthChecks& checks) {
  std::vector<HealthProblem> out;
  std::vector<std::string> seen;
  for (const std::string& dir : checks.dirs) {
    if (std::find(seen.begin(), seen.end(), dir) == seen.end()) {
      append(out, check_folder(dir, checks.disk_min_mib, checks.inodes_min));
      seen.push_back(dir);
    }
  }
  append(out, check_memory(checks.memory_mib));
  append(out, check_gpus(checks.gpus, checks.gpu_devices));
  append(out, check_topology(checks));
  return out;
}

void watch_hardware(const NodeHardware& hardware, const std::string& topology, std::uint64_t configured_memory_mib,
                    HealthChecks& checks) {
  if (!hardware.pretended) {
    checks.memory_mib = configured_memory_mib != 0 ? configured_memory_mib : machine_memory_mib();
    for (const Gpu& gpu : hardware.gpus) {
      if (io::path_exists(std::string(kPciDevices) + gpu.pci_address + "/config")) {
        checks.gpus.push_back(gpu.pci_address);
      }
    }
    return;
  }
  if (topology.find(".xml") == std::string::npos) {
    return;  // a description that never changes
  }
  if (const auto now = discover(topology, 0); now.ok()) {
    checks.topology = topology;
    checks.topology_memory_mib = now->mem_mib;
    for (const Gpu& gpu : hardware.gpus) {
      checks.topology_gpus.push_back(gpu.pci_address);
    }
  }
}

// ---------------------------------------------------------------- arguments

std::vector<std::string> to_arguments(const HealthChecks& c) {
  std::vector<std::string> out;
  const auto add = [&out](std::string_view key, const std::string& value) {
    out.push_back(std::string(key) + "=" + value);
  };
  const auto add_all = [&add](std::string_view key, const std::vector<std::string>& values) {
    for (const std::string& value : values) {
      add(key, value);
    }
  };
  add_all("dir", c.dirs);
  add("disk_min_mib", std::to_string(c.disk_min_mib));
  add("inodes_min", std::to_string(c.inodes_min));
  add("memory_mib", std::to_string(c.memory_mib));
  add_all("gpu", c.gpus);
  add_all("gpu_device", c.gpu_devices);
  add("topology", c.topology);
  add("topology_memory_mib", std::to_string(c.topology_memory_mib));
  add_all("topology_gpu", c.topology_gpus);
  add("program", c.program);
  add_all("environment", c.program_environment);
  add("timeout_s", std::to_string(c.timeout_s));
  return out;
}

Result<HealthChecks> from_arguments(const std::vector<std::string>& arguments) {
  HealthChecks c;
  for (const std::string& argument : arguments) {
    const auto equals = argument.find('=');
    const std::string key = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    const auto number = [&]() { return parse_count(value, key, {0, INT64_MAX}); };
    if (key == "dir") {
      c.dirs.push_back(value);
    } else if (key == "gpu") {
      c.gpus.push_back(value);
    } else if (key == "gpu_device") {
      c.gpu_devices.push_back(value);
    } else if (key == "topology_gpu") {
      c.topology_gpus.push_back(value);
    } else if (key == "environment") {
      c.program_environment.push_back(value);
    } else if (key == "topology") {
      c.topology = value;
    } else if (key == "program") {
      c.program = value;
    } else if (key == "disk_min_mib") {
      MUSTER_ASSIGN(c.disk_min_mib, number());
    } else if (key == "inodes_min") {
      MUSTER_ASSIGN(c.inodes_min, number());
    } else if (key == "memory_mib") {
      MUSTER_ASSIGN(c.memory_mib, number());
    } else if (key == "topology_memory_mib") {
      MUSTER_ASSIGN(c.topology_memory_mib, number());
    } else if (key == "timeout_s") {
      MUSTER_ASSIGN(const std::uint64_t seconds, number());
      c.timeout_s = static_cast<std::int64_t>(seconds);
    } else {
      return invalid_argument("--run-checks: " + printable(argument) +
                              " is none of its arguments: muster-noded gives "
                              "them itself");
    }
  }
  return c;
}

}  // namespace muster::noded
