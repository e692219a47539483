#include "noded/job_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "noded/shepherd_util.h"

namespace muster::noded {
namespace {

constexpr int kKinds = CLONE_NEWNS | CLONE_NEWIPC;

// A folder that keeps its place: its path, and a descriptor from before another mount hid it.
struct Kept {
  std::string path;
  int fd = -1;
};

bool is_hidden(const std::string& path) {
  return path.starts_with("/tmp/") || path.starts_with("/dev/shm/");
}

std::vector<Kept> open_kept(const LaunchFrame& launch) {
  std::vector<Kept> out;
  for (const std::string& path : {launch.work_dir, launch.directory}) {
    if (is_hidden(path)) {
      const int fd = open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
      if (fd >= 0) {  // else the task's start says what is wrong with it
        out.push_back({path, fd});
      }
    }
  }
  // One inside the other comes after it.
  std::sort(out.begin(), out.end(), [](const Kept& a, const Kept& b) { return a.path < b.path; });
  return out;
}

void close_kept(const std::vector<Kept>& kept) {
  for (const Kept& one : kept) {
    close(one.fd);
  }
}

std::string why(const std::string& what, int error_number) {
  return what + ": " + text_of_errno(error_number);
}

std::string put_back(const Kept& one) {
  for (auto slash = one.path.find('/', 1); slash != std::string::npos; slash = one.path.find('/', slash + 1)) {
    mkdir(one.path.substr(0, slash).c_str(), 0755);
  }
  mkdir(one.path.c_str(), 0755);
  const std::string source = "/proc/self/fd/" + std::to_string(one.fd);
  return mount(source.c_str(), one.path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0
             ? std::string()
             : why("cannot keep " + one.path, errno);
}

std::string mount_all(const std::string& tmp, const std::vector<Kept>& kept, bool hide_processes) {
  if (mount(tmp.c_str(), "/tmp", nullptr, MS_BIND, nullptr) != 0 ||
      mount(nullptr, "/tmp", nullptr, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, nullptr) != 0) {
    return why("/tmp", errno);
  }
  if (access("/dev/shm", F_OK) == 0 && mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") != 0) {
    return why("/dev/shm", errno);
  }
  for (const Kept& one : kept) {
    if (std::string error = put_back(one); !error.empty()) {
      return error;
    }
  }
  if (hide_processes && mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2") != 0) {
    return why("/proc", errno);
  }
  return {};
}

// In the new namespaces.
std::string arrange(const std::string& tmp, const LaunchFrame& launch) {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    return why("/", errno);
  }
  // Of this namespace's mounts: another one's cannot be bound.
  const std::vector<Kept> kept = open_kept(launch);
  std::string error = mount_all(tmp, kept, launch.uid != 0);
  close_kept(kept);
  return error;
}

}  // namespace

JobNamespace::JobNamespace(const LaunchFrame& launch) : private_(launch.directory + "/private") {
  // Everybody may pass through the attempt's folder, and the job's /tmp is open to all: nobody comes to it from outside.
  const std::string tmp = private_ + "/tmp";
  for (const std::string& path : {private_, tmp}) {
    if ((mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) || chmod(path.c_str(), path == tmp ? 01777 : 0700) != 0) {
      failure_ = why(path, errno);
      return;
    }
  }
  make(tmp, launch);
}

void JobNamespace::make(const std::string& tmp, const LaunchFrame& launch) {
  const int old_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  const int old_ipc = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
  if (old_mounts < 0 || old_ipc < 0) {
    failure_ = why("/proc/self/ns", errno);
  } else if (unshare(kKinds) != 0) {
    failure_ = why("the kernel gives no namespaces", errno);
  } else {
    failure_ = arrange(tmp, launch);
    mounts_ = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    ipc_ = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
    if (failure_.empty() && (mounts_ < 0 || ipc_ < 0)) {
      failure_ = why("/proc/self/ns", errno);
    }
    // A shepherd that stayed inside would look for its files in the wrong places.
    MUSTER_CHECK(setns(old_mounts, CLONE_NEWNS) == 0 && setns(old_ipc, CLONE_NEWIPC) == 0 && chdir("/") == 0);
  }
  close(old_mounts);
  close(old_ipc);
}

JobNamespace::~JobNamespace() {
  if (mounts_ >= 0) {
    close(mounts_);
  }
  if (ipc_ >= 0) {
    close(ipc_);
  }
}

void JobNamespace::remove() {
  // The last reference to its mounts: the folder can go only without them.
  for (int* fd : {&mounts_, &ipc_}) {
    if (*fd >= 0) {
      close(std::exchange(*fd, -1));
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(private_, ignored);  // follows no links; what is left goes with the attempt's folder
}

std::string why_no_namespace() {
  const pid_t child = fork();
  if (child == 0) {
    _exit(unshare(kKinds) == 0 ? 0 : errno);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) {
    return why("cannot try", errno);
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? std::string()
                                                       : why("the kernel gives none", WEXITSTATUS(status));
}

}  // namespace muster::noded
