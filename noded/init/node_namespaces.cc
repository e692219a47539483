#include "noded/init/node_namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace muster::nodeinit {
namespace {

Error failed(const std::string& what) {
  return make_error(ErrorCode::kIo, "cannot " + what + ": " + strerror(errno));
}

// /proc files take the whole text in one write.
Status write_proc(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return failed(std::string("open ") + path);
  const ssize_t written = write(fd, text.data(), text.size());
  const int saved = errno;
  close(fd);
  errno = saved;
  if (written != static_cast<ssize_t>(text.size())) return failed(std::string("write ") + path);
  return ok_status();
}

Status keep_own_ids(uid_t uid, gid_t gid) {
  const std::string user = std::to_string(uid);
  const std::string group = std::to_string(gid);
  MUSTER_TRY(write_proc("/proc/self/setgroups", "deny"));
  MUSTER_TRY(write_proc("/proc/self/uid_map", user + " " + user + " 1"));
  return write_proc("/proc/self/gid_map", group + " " + group + " 1");
}

}  // namespace

const char* to_string(Isolation isolation) {
  switch (isolation) {
    case Isolation::kFull:
      return "full";
    case Isolation::kHost:
      return "host";
    case Isolation::kNone:
      return "none";
  }
  return "none";
}

Status enter(Isolation isolation, const NamespaceOptions& options) {
  if (isolation == Isolation::kNone) return ok_status();
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (uid != 0) {
    if (unshare(CLONE_NEWUSER) != 0) return failed("make a user namespace");
    MUSTER_TRY(keep_own_ids(uid, gid));
  }
  int flags = CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWIPC;
  if (isolation == Isolation::kFull) flags |= CLONE_NEWPID;
  if (unshare(flags) != 0) return failed("make namespaces");
  if (sethostname(options.host_name.data(), options.host_name.size()) != 0) return failed("set the host name");
  // Nothing mounted here may reach the machine; what the machine mounts later is still seen.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return failed("make mounts private");
  if (mount("muster-shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") != 0) return failed("mount /dev/shm");
  // Names of the other nodes; without it they are reached by address, so a failure is no reason to stop.
  if (!options.hosts_file.empty()) (void)!mount(options.hosts_file.c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr);
  return ok_status();
}

Status enter_as_first() {
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) return failed("mount /proc");
  return ok_status();
}

Isolation strongest_isolation(const NamespaceOptions& options) {
  for (const Isolation isolation : {Isolation::kFull, Isolation::kHost}) {
    const pid_t child = fork();
    if (child < 0) return Isolation::kNone;
    if (child == 0) {
      if (!enter(isolation, options).ok()) _exit(1);
      if (isolation != Isolation::kFull) _exit(0);
      const pid_t first = fork();
      if (first == 0) _exit(enter_as_first().ok() ? 0 : 1);
      int status = 1;
      if (first < 0 || waitpid(first, &status, 0) != first) _exit(1);
      _exit(status == 0 ? 0 : 1);
    }
    int status = 1;
    if (waitpid(child, &status, 0) == child && status == 0) return isolation;
  }
  return Isolation::kNone;
}

}  // namespace muster::nodeinit
