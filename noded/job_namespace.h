// JobNamespace: what a job alone sees of the machine: its own /tmp and /dev/shm, its own System V IPC and POSIX message
// queues, and of processes only those of its user.
//
// /tmp is a folder in the attempt's own (so it has that file system's room, and goes with it), /dev/shm a new tmpfs. The
// working directory and the attempt's folder keep their places, also below /tmp. The shepherd itself stays outside; tasks
// enter before their exec. Mounts that the machine makes later are seen. Part of the shepherd: single-threaded, lib/base only.
#pragma once

#include <string>

#include "noded/shepherd_protocol.h"

namespace muster::noded {

class JobNamespace {
 public:
  // Makes it; failure() says whether that went well.
  explicit JobNamespace(const LaunchFrame& launch);
  ~JobNamespace();
  JobNamespace(const JobNamespace&) = delete;
  JobNamespace& operator=(const JobNamespace&) = delete;

  // Empty, or why it could not be made.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  // For setns(2).
  [[nodiscard]] int mounts() const { return mounts_; }
  [[nodiscard]] int ipc() const { return ipc_; }

  // When nothing is left that is in it.
  void remove();

 private:
  void make(const std::string& tmp, const LaunchFrame& launch);
  std::string private_;  // the folder that has the job's /tmp
  int mounts_ = -1;
  int ipc_ = -1;
  std::string failure_;
};

// Whether this process may make one. Empty, or why not.
std::string why_no_namespace();

}  // namespace muster::noded
