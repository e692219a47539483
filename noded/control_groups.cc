#include "noded/control_groups.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "noded/shepherd_util.h"
#include "noded/small_files.h"

namespace muster::noded {
namespace {

std::string why(const std::string& path, int error_number) {
  return path + ": " + text_of_errno(error_number);
}

std::string parent_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

bool has_word(std::string_view text, std::string_view word) {
  while (!text.empty()) {
    const auto end = text.find_first_of(" \n");
    if (text.substr(0, end) == word) {
      return true;
    }
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return false;
}

// What a new cpuset lacks, as a kernel without clone_children leaves it.
std::string fill_cpuset(const std::string& path) {
  for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
    const std::string all = read_small(parent_of(path) + file);
    const std::string mine = read_small(path + file);
    if ((mine.empty() || mine == "\n") && !write_small(path + file, all)) {
      return why(path + file, errno);
    }
  }
  return {};
}

bpf_insn instruction(int code, int destination, int source, int offset, std::uint32_t immediate) {
  bpf_insn out{};
  out.code = static_cast<__u8>(code);
  out.dst_reg = static_cast<__u8>(destination & 0xf);
  out.src_reg = static_cast<__u8>(source & 0xf);
  out.off = static_cast<__s16>(offset);
  out.imm = static_cast<__s32>(immediate);
  return out;
}

// r1 points to a bpf_cgroup_dev_ctx; the answer is 0 for a denied device and 1 for any other.
std::vector<bpf_insn> device_program(const std::vector<DeviceNumber>& devices) {
  constexpr int kJumpIfNot = BPF_JMP | BPF_JNE | BPF_K;
  constexpr int kLoad = BPF_LDX | BPF_W | BPF_MEM;
  std::vector<bpf_insn> program;
  program.push_back(instruction(kLoad, BPF_REG_2, BPF_REG_1, offsetof(bpf_cgroup_dev_ctx, access_type), 0));
  program.push_back(instruction(kLoad, BPF_REG_3, BPF_REG_1, offsetof(bpf_cgroup_dev_ctx, major), 0));
  program.push_back(instruction(kLoad, BPF_REG_4, BPF_REG_1, offsetof(bpf_cgroup_dev_ctx, minor), 0));
  program.push_back(instruction(BPF_ALU | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff));
  for (const DeviceNumber& device : devices) {
    program.push_back(instruction(kJumpIfNot, BPF_REG_2, 0, 4, BPF_DEVCG_DEV_CHAR));
    program.push_back(instruction(kJumpIfNot, BPF_REG_3, 0, 3, device.major));
    program.push_back(instruction(kJumpIfNot, BPF_REG_4, 0, 2, device.minor));
    program.push_back(instruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0));
    program.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
  }
  program.push_back(instruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1));
  program.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
  return program;
}

std::string attach_device_program(const std::string& path, const std::vector<DeviceNumber>& devices, bool stays);

}  // namespace

const char* controller_of(ControlKind kind) {
  switch (kind) {
    case ControlKind::kCpus:
      return "cpuset";
    case ControlKind::kMemory:
      return "memory";
    case ControlKind::kProcesses:
      return "pids";
    case ControlKind::kDevices:
      return "devices";
    case ControlKind::kFreezer:
      return "freezer";
    case ControlKind::kCpuTime:
      return "cpuacct";
    case ControlKind::kIo:
      return "io";
    case ControlKind::kCpuShare:
      return "cpu";
  }
  return "";
}

std::string make_v1_group(ControlKind kind, const std::string& path) {
  if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return why(path, errno);
  }
  const std::string error = kind == ControlKind::kCpus ? fill_cpuset(path) : std::string();
  if (!error.empty()) {
    rmdir(path.c_str());
    return error;
  }
  if (access((path + "/tasks").c_str(), W_OK) != 0) {
    const int error_number = errno;
    rmdir(path.c_str());
    return why(path + "/tasks", error_number);
  }
  return {};
}

std::string enable_v2_controller(ControlKind kind, const std::string& path) {
  const std::string name = controller_of(kind);
  for (const std::string& group : {parent_of(path), path}) {
    if (has_word(read_small(group + "/cgroup.subtree_control"), name)) {
      continue;
    }
    if (!has_word(read_small(group + "/cgroup.controllers"), name)) {
      return group + " has no controller " + name;
    }
    if (!write_small(group + "/cgroup.subtree_control", "+" + name)) {
      return why(group + "/cgroup.subtree_control", errno);
    }
  }
  return {};
}

std::string why_no_device_program(const std::string& path) {
  return attach_device_program(path, {}, false);
}

std::string deny_devices_v2(const std::string& path, const std::vector<DeviceNumber>& devices) {
  return attach_device_program(path, devices, true);
}

namespace {

std::string attach_device_program(const std::string& path, const std::vector<DeviceNumber>& devices, bool stays) {
  const std::vector<bpf_insn> program = device_program(devices);
  const int group = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (group < 0) {
    return why(path, errno);
  }
  static const char kLicense[] = "Apache-2.0";
  bpf_attr load{};
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.insns = reinterpret_cast<std::uintptr_t>(program.data());
  load.insn_cnt = static_cast<__u32>(program.size());
  load.license = reinterpret_cast<std::uintptr_t>(kLicense);
  const auto loaded = static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load)));
  std::string error = loaded < 0 ? "the kernel takes no device program: " + text_of_errno(errno) : std::string();
  if (loaded >= 0) {
    bpf_attr attach{};
    attach.target_fd = static_cast<__u32>(group);
    attach.attach_bpf_fd = static_cast<__u32>(loaded);
    attach.attach_type = BPF_CGROUP_DEVICE;
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof(attach)) != 0) {
      error = "a device program cannot be attached to " + why(path, errno);
    } else if (!stays) {
      syscall(SYS_bpf, BPF_PROG_DETACH, &attach, sizeof(attach));
    }
    close(loaded);  // the group holds it
  }
  close(group);
  return error;
}

}  // namespace

}  // namespace muster::noded
