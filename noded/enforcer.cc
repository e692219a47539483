#include "noded/enforcer.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "lib/base/index_set.h"
#include "lib/base/text.h"
#include "noded/control_groups.h"
#include "noded/shepherd_util.h"
#include "noded/small_files.h"

namespace muster::noded {
namespace {

// Names of killed processes in one sentence.
constexpr std::size_t kNamesMax = 3;
// Of the kernel's log, the newest part of which is read when it killed something.
constexpr std::size_t kKernelLogBytesMax = 4U << 20U;

std::string why(const std::string& path, int error_number) {
  return path + ": " + text_of_errno(error_number);
}

std::string put(const std::string& path, const std::string& text) {
  return write_small(path, text) ? std::string() : why(path, errno);
}

std::string mebibytes(std::uint64_t bytes) {
  constexpr std::uint64_t kMebibyte = 1ULL << 20U;
  return std::to_string((bytes + kMebibyte / 2) / kMebibyte) + " MiB";
}

std::int64_t monotonic_us() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return std::int64_t{ts.tv_sec} * 1'000'000 + ts.tv_nsec / 1'000;
}

// A file that a cgroup2 group has when the controller is switched on in it; null: none is needed.
const char* v2_file_of(ControlKind kind) {
  switch (kind) {
    case ControlKind::kCpus:
      return "/cpuset.cpus";
    case ControlKind::kMemory:
      return "/memory.max";
    case ControlKind::kProcesses:
      return "/pids.max";
    case ControlKind::kIo:
      return "/io.stat";
    case ControlKind::kCpuShare:
      return "/cpu.weight";
    default:
      return nullptr;
  }
}

std::string path_below(const std::string& group, const LaunchFrame& launch) {
  return group + "/" + launch.name;
}

// What the processes that were waited for have used, as the kernel counts for each of them.
Usage usage_of_children() {
  Usage out;
  rusage used{};
  if (getrusage(RUSAGE_CHILDREN, &used) == 0) {
    const auto us = [](const timeval& t) { return std::int64_t{t.tv_sec} * 1'000'000 + t.tv_usec; };
    out.cpu = Duration::from_us(us(used.ru_utime) + us(used.ru_stime));
    out.memory_peak_bytes = static_cast<std::uint64_t>(used.ru_maxrss) * 1024;  // of the largest
    out.read_bytes = static_cast<std::uint64_t>(used.ru_inblock) * 512;
    out.written_bytes = static_cast<std::uint64_t>(used.ru_oublock) * 512;
  }
  return out;
}

// io.stat: "8:0 rbytes=1 wbytes=2 rios=..." for each device.
void sum_io(const std::string& text, Usage& out) {
  for (const std::string_view line : split(text, '\n')) {
    for (const std::string_view field : split(line, ' ')) {
      std::uint64_t* sum = field.starts_with("rbytes=")   ? &out.read_bytes
                           : field.starts_with("wbytes=") ? &out.written_bytes
                                                          : nullptr;
      if (sum != nullptr) {
        *sum += std::strtoull(std::string(field.substr(7)).c_str(), nullptr, 10);
      }
    }
  }
}

// The messages that the kernel's log holds, without waiting for more; nothing where it may not be read.
std::string kernel_log() {
  std::string out;
  const int fd = open("/dev/kmsg", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return out;
  }
  char buffer[8192];
  while (true) {
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && (errno == EPIPE || errno == EINTR)) {
      continue;  // EPIPE: what was to be read next has been overwritten
    }
    if (n <= 0) {
      break;
    }
    out.append(buffer, static_cast<std::size_t>(n));
    if (out.size() > 2 * kKernelLogBytesMax) {
      out.erase(0, out.size() - kKernelLogBytesMax);
    }
  }
  close(fd);
  return out;
}

// The value of a field in a line of the kernel's log that ends at a comma.
std::string_view field_of(std::string_view line, std::string_view name) {
  const auto at = line.find(name);
  if (at == std::string_view::npos) {
    return {};
  }
  line.remove_prefix(at + name.size());
  return line.substr(0, line.find(','));
}

// When the line was written: "6,1234,5678901,-;text" has microseconds since boot as its third field.
std::int64_t time_of(std::string_view line) {
  for (int i = 0; i < 2; ++i) {
    const auto comma = line.find(',');
    if (comma == std::string_view::npos) {
      return 0;
    }
    line.remove_prefix(comma + 1);
  }
  return std::strtoll(std::string(line.substr(0, line.find(','))).c_str(), nullptr, 10);
}

}  // namespace

std::string Enforcer::freezer_of(const LaunchFrame& launch) {
  for (const Control& control : launch.controls) {
    if (control.kind == ControlKind::kFreezer && !control.v2) {
      return path_below(control.group, launch);
    }
  }
  return {};
}

Enforcer::Enforcer(const LaunchFrame& launch, std::string tree)
    : tree_(std::move(tree)), limits_(launch.limits), since_us_(monotonic_us()), before_(usage_of_children()) {
  for (const Control& control : launch.controls) {
    std::string failure = make(control, launch);
    if (failure.empty() && !groups_.empty() && groups_.back().kind == control.kind) {
      groups_.back().works = true;
    }
    if (!failure.empty() && limits_something(control.kind)) {
      failure_ = std::move(failure);
      return;
    }
  }
}

Enforcer::~Enforcer() {
  for (const int fd : joins_) {
    close(fd);
  }
}

// Else it counts, or freezes, for which there are other ways.
bool Enforcer::limits_something(ControlKind kind) const {
  switch (kind) {
    case ControlKind::kCpus:
      return limits_.cpus;
    case ControlKind::kMemory:
      return limits_.memory_bytes != 0;
    case ControlKind::kProcesses:
      return limits_.processes != 0;
    case ControlKind::kDevices:
      return !limits_.denied_devices.empty();
    case ControlKind::kFreezer:
    case ControlKind::kCpuTime:
    case ControlKind::kIo:
    case ControlKind::kCpuShare:
      return false;
  }
  return false;
}

std::string Enforcer::make(const Control& control, const LaunchFrame& launch) {
  if (control.kind == ControlKind::kCpus && !limits_.cpus) {
    return {};
  }
  if (control.kind == ControlKind::kDevices && limits_.denied_devices.empty()) {
    return {};
  }
  Group group{control.kind, control.v2, control.v2 ? tree_ : path_below(control.group, launch)};
  if (group.path.empty()) {
    return "there is no group of the cgroup2 tree for it";
  }
  groups_.push_back(group);
  if (!control.v2 && mkdir(group.path.c_str(), 0755) != 0 && errno == ENOENT) {
    // The node's own group went with the last attempt; make it again.
    if (std::string error = make_v1_group(control.kind, control.group); !error.empty()) {
      return error;
    }
    mkdir(group.path.c_str(), 0755);
  }
  if (const char* file = v2_file_of(control.kind);
      control.v2 && file != nullptr && access((group.path + file).c_str(), F_OK) != 0) {
    enable_v2_controller(control.kind, control.group);  // as above, by ProcessTree, which knows no controllers
  }
  if (std::string error = set_limits(group, launch); !error.empty()) {
    return error;
  }
  if (!control.v2) {
    const std::string tasks = group.path + "/tasks";
    const int fd = open(tasks.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
      return why(tasks, errno);
    }
    joins_.push_back(fd);
  }
  return {};
}

std::string Enforcer::set_limits(const Group& group, const LaunchFrame& launch) const {
  const std::string& path = group.path;
  switch (group.kind) {
    case ControlKind::kCpus: {
      if (!group.v2) {
        // Load is balanced above it; said first, so that the kernel does not work its domains out anew each time.
        write_small(path + "/cpuset.sched_load_balance", "0");
      }
      std::string error = put(path + "/cpuset.cpus", IndexSet::from_words(launch.cpus).to_string());
      if (error.empty() && !group.v2) {
        error = put(path + "/cpuset.mems", read_small(path.substr(0, path.rfind('/')) + "/cpuset.mems"));
      }
      return error;
    }
    case ControlKind::kMemory: {
      if (limits_.memory_bytes == 0) {
        return {};
      }
      const std::string bytes = std::to_string(limits_.memory_bytes);
      std::string error = put(path + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"), bytes);
      if (error.empty()) {
        // No swap beyond it, where the kernel counts that.
        write_small(path + (group.v2 ? "/memory.swap.max" : "/memory.memsw.limit_in_bytes"), group.v2 ? "0" : bytes);
      }
      return error;
    }
    case ControlKind::kProcesses:
      return limits_.processes == 0 ? std::string() : put(path + "/pids.max", std::to_string(limits_.processes));
    case ControlKind::kDevices: {
      if (group.v2) {
        return deny_devices_v2(path, limits_.denied_devices);
      }
      for (const DeviceNumber& device : limits_.denied_devices) {
        const std::string line = "c " + std::to_string(device.major) + ":" + std::to_string(device.minor) + " rwm";
        if (std::string error = put(path + "/devices.deny", line); !error.empty()) {
          return error;
        }
      }
      return {};
    }
    case ControlKind::kFreezer:
    case ControlKind::kCpuTime:
    case ControlKind::kIo:
    case ControlKind::kCpuShare:  // being in the group is all
      break;
  }
  return {};
}

const Enforcer::Group* Enforcer::group(ControlKind kind) const {
  const auto found =
      std::find_if(groups_.begin(), groups_.end(), [kind](const Group& g) { return g.kind == kind && g.works; });
  return found == groups_.end() ? nullptr : &*found;
}

bool Enforcer::needs_tree() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [this](const Group& g) { return g.v2 && limits_something(g.kind); });
}

std::uint64_t Enforcer::data_bytes_max() const {
  return group(ControlKind::kMemory) == nullptr ? limits_.memory_bytes : 0;
}

Usage Enforcer::usage() const {
  Usage out = usage_of_children();
  out.cpu = out.cpu - before_.cpu;
  out.read_bytes -= before_.read_bytes;
  out.written_bytes -= before_.written_bytes;
  if (const Group* time = group(ControlKind::kCpuTime); time != nullptr) {
    out.cpu =
        Duration::from_us(static_cast<std::int64_t>(time->v2 ? read_number(time->path + "/cpu.stat", "usage_usec")
                                                             : read_number(time->path + "/cpuacct.usage") / 1'000));
  }
  if (const Group* io = group(ControlKind::kIo); io != nullptr) {
    out.read_bytes = 0;
    out.written_bytes = 0;
    sum_io(read_small(io->path + "/io.stat"), out);
  }
  if (const Group* memory = group(ControlKind::kMemory); memory != nullptr) {
    const std::uint64_t peak = read_number(memory->path + (memory->v2 ? "/memory.peak" : "/memory.max_usage_in_bytes"));
    out.memory_peak_bytes = peak != 0 ? peak : out.memory_peak_bytes;  // kernels before 5.19 have no memory.peak
    out.memory_limit_bytes = limits_.memory_bytes;
    out.oom_kills = oom_kills();
  }
  return out;
}

std::uint64_t Enforcer::oom_kills() const {
  const Group* memory = group(ControlKind::kMemory);
  if (memory == nullptr) {
    return 0;
  }
  return read_number(memory->path + (memory->v2 ? "/memory.events" : "/memory.oom_control"), "oom_kill");
}

// From the kernel's log, the one place that names them: "oom-kill:constraint=...,task_memcg=/...,task=NAME,pid=1,uid=0".
// Of kills in quick succession the kernel writes only some.
std::string Enforcer::killed_names() const {
  constexpr std::int64_t kClocksDifferUs = 1'000'000;  // the log's clock and the monotonic one
  const Group* memory = group(ControlKind::kMemory);
  if (memory == nullptr) {
    return {};
  }
  // The log has the path inside the whole hierarchy: the end of it is ours alone.
  const auto name_at = memory->path.rfind('/');
  const std::string ours = memory->path.substr(memory->path.rfind('/', name_at - 1));
  std::vector<std::string> names;
  const std::string log = kernel_log();
  for (const std::string_view line : split(log, '\n')) {
    std::string_view place = field_of(line, ",task_memcg=");
    if (line.find("oom-kill:") == std::string_view::npos || time_of(line) < since_us_ - kClocksDifferUs) {
      continue;
    }
    if (!place.ends_with(ours)) {
      place = place.substr(0, place.rfind('/'));  // a step's
    }
    const std::string name = printable(field_of(line, ",task="));
    if (place.ends_with(ours) && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  std::string out;
  for (std::size_t i = 0; i < names.size() && i < kNamesMax; ++i) {
    out += (i == 0 ? "" : ", ") + names[i];
  }
  return out + (names.size() > kNamesMax ? ", ..." : "");
}

// Or a group above it has none left. Of cgroup v1 newer kernels do not count how often a limit was met, so there the peak
// must say it: the last pages before the limit may be of a size that does not fit.
bool Enforcer::limit_was_reached(const Usage& usage) const {
  const Group* memory = group(ControlKind::kMemory);
  if (memory == nullptr || limits_.memory_bytes == 0) {
    return false;
  }
  return memory->v2 ? read_number(memory->path + "/memory.events", "oom") != 0
                    : usage.memory_peak_bytes >= limits_.memory_bytes - limits_.memory_bytes / 16;
}

std::string Enforcer::explain_oom(const Usage& usage) const {
  const std::string names = killed_names();
  const std::string count = usage.oom_kills == 1 ? "a process" : std::to_string(usage.oom_kills) + " processes";
  std::string text = "the kernel killed " + (names.empty()          ? count
                                             : usage.oom_kills == 1 ? names
                                                                    : count + " (" + names + ")");
  text += limit_was_reached(usage)
              ? ": the job reached its limit of " + mebibytes(limits_.memory_bytes) + " of memory on this node"
              : ": the node had no memory left";
  return text + " (its peak was " + mebibytes(usage.memory_peak_bytes) + ")";
}

std::uint64_t Enforcer::forks_refused() const {
  const Group* pids = group(ControlKind::kProcesses);
  return pids == nullptr || limits_.processes == 0 ? 0 : read_number(pids->path + "/pids.events", "max");
}

std::string Enforcer::explain_processes() const {
  if (forks_refused() == 0) {
    return {};
  }
  return "it reached the limit of " + std::to_string(limits_.processes) + " processes and threads on this node";
}

bool Enforcer::remove() {
  bool removed = true;
  for (const Group& group : groups_) {
    removed = (group.v2 || remove_group(group.path)) && removed;
  }
  return removed;
}

}  // namespace muster::noded
