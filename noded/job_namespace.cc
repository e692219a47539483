#include "noded/job_namespace.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "lib/base/text.h"
#include "noded/shepherd_util.h"
#include "noded/user_rights.h"

namespace muster::noded {
namespace {

constexpr int kKinds = CLONE_NEWNS | CLONE_NEWIPC;

// A folder that keeps its place: its path, and a descriptor from before another mount hid it.
struct Kept {
  std::string path;
  int fd = -1;
};

// A path below one of the folders that the job has for itself: that folder, and the rest.
struct Below {
  std::string root;
  std::string rest;
};
std::optional<Below> below_hidden(const std::string& path) {
  for (const std::string root : {"/tmp", "/dev/shm"}) {
    if (path.starts_with(root + "/")) {
      return Below{root, path.substr(root.size() + 1)};
    }
  }
  return std::nullopt;
}

// A folder to which no symbolic link leads and that is not outside of `root` (openat2(2)); -1 with errno.
int open_beneath(int root, const std::string& rest) {
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  return static_cast<int>(syscall(SYS_openat2, root, rest.c_str(), &how, sizeof(how)));
}

int open_folder(const Below& path) {
  const int root = open(path.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) {
    return -1;
  }
  const int fd = open_beneath(root, path.rest);
  const int error_number = errno;
  close(root);
  errno = error_number;
  return fd;
}

std::string why(const std::string& what, int error_number) {
  return what + ": " + text_of_errno(error_number);
}

// The user names it, so it is opened with the user's rights, and the way to it must be the one that its path says: root
// makes that way again below the job's own folders.
std::string keep_work_dir(const LaunchFrame& launch, std::vector<Kept>& out) {
  const std::optional<Below> path = below_hidden(launch.work_dir);
  if (!path) {
    return {};
  }
  const std::string name = "its working directory " + printable(launch.work_dir);
  if (std::filesystem::path(launch.work_dir).lexically_normal() != launch.work_dir) {
    return name + " is no plain path: write it without . and ..";
  }
  const UserRights rights(launch.uid, launch.gid, launch.groups);
  if (!rights.ok()) {
    return "cannot act as user " + std::to_string(launch.uid);
  }
  const int fd = open_folder(*path);
  if (fd >= 0) {
    out.push_back({launch.work_dir, fd});
  } else if (errno != ENOENT && errno != EACCES &&
             errno != ENOTDIR) {  // else the task's start says what is wrong with it
    return errno == ELOOP ? name + " leads through a symbolic link: name the folder itself" : why(name, errno);
  }
  return {};
}

std::string open_kept(const LaunchFrame& launch, std::vector<Kept>& out) {
  if (std::string error = keep_work_dir(launch, out); !error.empty()) {
    return error;
  }
  if (const std::optional<Below> path = below_hidden(launch.directory)) {
    const int fd = open_folder(*path);
    if (fd < 0) {
      return why(launch.directory, errno);
    }
    out.push_back({launch.directory, fd});
  }
  // One inside the other comes after it.
  std::sort(out.begin(), out.end(), [](const Kept& a, const Kept& b) { return a.path < b.path; });
  return {};
}

void close_kept(const std::vector<Kept>& kept) {
  for (const Kept& one : kept) {
    close(one.fd);
  }
}

// Step by step, so that nothing that lies there already can lead elsewhere.
std::string put_back(const Kept& one) {
  const std::string what = "cannot keep " + printable(one.path);
  const Below path = *below_hidden(one.path);
  int at = open(path.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  for (const std::string_view part : split(path.rest, '/')) {
    const std::string name(part);
    int next = open_beneath(at, name);
    if (next < 0 && errno == ENOENT && mkdirat(at, name.c_str(), 0755) == 0) {
      next = open_beneath(at, name);
    }
    const int error_number = errno;
    close(at);
    at = next;
    if (at < 0) {
      return why(what, error_number);
    }
  }
  const std::string source = "/proc/self/fd/" + std::to_string(one.fd);
  const std::string target = "/proc/self/fd/" + std::to_string(at);
  const bool kept = mount(source.c_str(), target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0;
  const std::string error = kept ? std::string() : why(what, errno);
  close(at);
  return error;
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
  std::vector<Kept> kept;
  std::string error = open_kept(launch, kept);
  if (error.empty()) {
    error = mount_all(tmp, kept, launch.uid != 0);
  }
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
