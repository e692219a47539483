#include "noded/enforcement.h"

#include <unistd.h>

#include <cerrno>
#include <map>
#include <string_view>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"
#include "noded/cgroup.h"
#include "noded/control_groups.h"
#include "noded/job_namespace.h"

namespace muster::noded {
namespace {

constexpr std::size_t kMountsBytesMax = 16U << 20U;

// Of cgroup v1: where the hierarchy of a controller is mounted, and this process's group in it.
struct Hierarchy {
  std::string mount;
  std::string own;  // "/" for the root
};

bool names(std::string_view list, std::string_view name) {
  for (const std::string_view word : split(list, ',')) {
    if (word == name) {
      return true;
    }
  }
  return false;
}

// proc(5): the mount point is the fifth field; type, source and options stand behind " - ", the options last.
std::string mount_of(const std::string& mounts, std::string_view controller) {
  for (const std::string_view line : split(mounts, '\n')) {
    const auto dash = line.find(" - cgroup ");
    const auto fields = split(line, ' ');
    if (dash != std::string_view::npos && fields.size() > 5 && names(fields.back(), controller)) {
      return std::string(fields[4]);
    }
  }
  return {};
}

// cgroups(7): lines "4:memory:/path".
std::string own_group_of(const std::string& groups, std::string_view controller) {
  for (const std::string_view line : split(groups, '\n')) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second != std::string_view::npos && names(line.substr(first + 1, second - first - 1), controller)) {
      return std::string(line.substr(second + 1));
    }
  }
  return "/";
}

class Chooser {
 public:
  Chooser(const EnforcementOptions& options, const AnnounceGroups& announce)
      : options_(options),
        announce_(announce),
        name_("/muster-" + io::to_hex(io::blake2b_256(options.spool_dir)).substr(0, 12)),
        may_v1_(options.cgroup != "off" && options.cgroup != "v2"),
        may_v2_(options.cgroup != "off" && options.cgroup != "v1") {
    if (auto text = io::read_file(options.mounts, kMountsBytesMax); text.ok()) {
      mounts_ = std::move(*text);
    }
    if (auto text = io::read_file(options.own_groups, kMountsBytesMax); text.ok()) {
      own_groups_ = std::move(*text);
    }
  }

  Result<Enforcement> choose() {
    if (may_v2_) {
      const bool any = options_.cgroup == "v2";
      MUSTER_ASSIGN(out_.tree, make_node_cgroup(
                                   any ? "auto" : options_.cgroup, options_.spool_dir,
                                   [this](const std::string& group) { announce_(group, others_); },
                                   [this](const std::string& group) { return gives_memory(group); }));
    }
    announce_(out_.tree, others_);
    say("kill", out_.tree.empty() ? "process tree" : "cgroup v2");
    freezer();
    limit(ControlKind::kCpus, "cpuset", options_.cpus, "the node's cores are pretended", "affinity alone: ");
    // Its group counts as well, so it is wanted in any case.
    limit(ControlKind::kMemory, "memory", true, "", options_.memory ? "each process alone, by rlimit: " : "none: ");
    if (!options_.memory && out_.statement.back().by.starts_with("cgroup")) {
      out_.statement.back().by = "none: [node] enforce_memory is false";
    }
    limit(ControlKind::kProcesses, "pids", options_.processes, "[node] pids_max is 0", "none: ");
    devices();
    limit(ControlKind::kCpuShare, "cpu_share", true, "", "none: ");
    cpu_time();
    io();
    namespaces();
    return std::move(out_);
  }

 private:
  void say(const char* function, std::string by) { out_.statement.push_back({function, std::move(by)}); }

  // A cgroup2 group in which the kernel's controller of memory can be had, or no cgroup2 group has it.
  [[nodiscard]] bool gives_memory(const std::string& group) const {
    return (may_v1_ && !mount_of(mounts_, "memory").empty()) ||
           enable_v2_controller(ControlKind::kMemory, group).empty();
  }

  // The group of cgroup v1 for it; empty: `why` says why there is none.
  std::string v1_group(ControlKind kind, std::string& why) {
    const char* name = controller_of(kind);
    const std::string mount = mount_of(mounts_, name);
    if (!may_v1_ || mount.empty()) {
      return {};
    }
    const std::string own = own_group_of(own_groups_, name);
    std::vector<std::string> places;
    if (own != "/") {
      places.push_back(mount + own);  // what a service manager gave to the daemon
    }
    places.push_back(mount);
    for (const std::string& place : places) {
      if (::access(place.c_str(), W_OK) != 0) {
        why = place + ": " + (errno == EROFS ? "it is mounted read-only" : "this user may not make groups there");
        continue;
      }
      others_.push_back(place + name_);
      announce_(out_.tree, others_);
      why = make_v1_group(kind, others_.back());
      if (why.empty()) {
        return others_.back();
      }
      others_.pop_back();
    }
    return {};
  }

  std::string v2_group(ControlKind kind, std::string& why) {
    if (out_.tree.empty()) {
      if (why.empty()) {
        why = options_.cgroup == "off" ? "[node] cgroup is off" : "no control group of this machine may be used";
      }
      return {};
    }
    const std::string refusal = enable_v2_controller(kind, out_.tree);
    if (refusal.empty()) {
      return out_.tree;
    }
    why += (why.empty() ? "" : "; ") + refusal;
    return {};
  }

  void limit(ControlKind kind, const char* function, bool wanted, const char* not_wanted, const std::string& without) {
    if (!wanted) {
      say(function, std::string("none: ") + not_wanted);
      return;
    }
    std::string why;
    if (std::string group = v1_group(kind, why); !group.empty()) {
      out_.controls.push_back({kind, false, std::move(group)});
      say(function, "cgroup v1");
    } else if (group = v2_group(kind, why); !group.empty()) {
      out_.controls.push_back({kind, true, std::move(group)});
      say(function, "cgroup v2");
    } else {
      say(function, without + why);
    }
  }

  void freezer() {
    std::string why;
    if (!out_.tree.empty() && ::access((out_.tree + "/cgroup.freeze").c_str(), W_OK) == 0) {
      say("freezer", "cgroup v2");
    } else if (std::string group = v1_group(ControlKind::kFreezer, why); !group.empty()) {
      out_.controls.push_back({ControlKind::kFreezer, false, std::move(group)});
      say("freezer", "cgroup v1");
    } else {
      say("freezer", "SIGSTOP");
    }
  }

  void devices() {
    if (!options_.devices) {
      say("devices", "none: no GPU of this node has a device file");
      return;
    }
    std::string why;
    if (std::string group = v1_group(ControlKind::kDevices, why); !group.empty()) {
      out_.controls.push_back({ControlKind::kDevices, false, std::move(group)});
      say("devices", "cgroup v1");
      return;
    }
    const std::string refusal =
        out_.tree.empty() ? "no control group of this machine may be used" : why_no_device_program(out_.tree);
    if (refusal.empty()) {
      out_.controls.push_back({ControlKind::kDevices, true, out_.tree});
      say("devices", "cgroup v2");
    } else {
      say("devices", "none: " + (why.empty() ? "" : why + "; ") + refusal);
    }
  }

  void cpu_time() {
    std::string why;
    if (!out_.tree.empty() && ::access((out_.tree + "/cpu.stat").c_str(), R_OK) == 0) {
      out_.controls.push_back({ControlKind::kCpuTime, true, out_.tree});
      say("cpu_time", "cgroup v2");
    } else if (std::string group = v1_group(ControlKind::kCpuTime, why); !group.empty()) {
      out_.controls.push_back({ControlKind::kCpuTime, false, std::move(group)});
      say("cpu_time", "cgroup v1");
    } else {
      say("cpu_time", "rusage");
    }
  }

  // Of cgroup v1 only direct I/O could be told, so what the kernel counts for each process says more there.
  void io() {
    std::string why;
    if (!v2_group(ControlKind::kIo, why).empty()) {
      out_.controls.push_back({ControlKind::kIo, true, out_.tree});
      say("io", "cgroup v2");
    } else {
      say("io", "rusage");
    }
  }

  void namespaces() {
    if (!options_.isolate) {
      say("namespaces", "none: [node] isolate is off, or auto for a node that pretends or has no root");
      return;
    }
    const std::string refusal = why_no_namespace();
    out_.isolate = refusal.empty();
    say("namespaces", refusal.empty() ? "mount and ipc" : "none: " + refusal);
  }

  const EnforcementOptions& options_;
  const AnnounceGroups& announce_;
  std::string name_;
  bool may_v1_;
  bool may_v2_;
  std::string mounts_;
  std::string own_groups_;
  std::vector<std::string> others_;
  Enforcement out_;
};

}  // namespace

Result<Enforcement> choose_enforcement(const EnforcementOptions& options, const AnnounceGroups& announce) {
  return Chooser(options, announce).choose();
}

}  // namespace muster::noded
