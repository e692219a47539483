// Acting with the rights of a job's user, for the shepherd.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace muster::noded {

// Whether this process's user namespace knows the user. Under an unprivileged local cluster it knows one alone, and the
// daemons are that user outside, though they are root inside.
bool is_known_user(std::uint32_t uid);
// setgroups(2) to these, or to the group alone where the namespace does not know them all; true where it may not be called
// at all, because the daemon has no other groups there.
bool set_groups(const std::vector<std::uint32_t>& groups, std::uint32_t gid);

// While it lives, files are opened with the user's rights; the process stays able to be root again. For a process with one
// thread. Nothing to do where the process is that user already.
class UserRights {
 public:
  UserRights(std::uint32_t uid, std::uint32_t gid, const std::vector<std::uint32_t>& groups);
  // Stops the process if it cannot be what it was.
  ~UserRights();
  UserRights(const UserRights&) = delete;
  UserRights& operator=(const UserRights&) = delete;
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  bool acts_ = false;
  bool ok_ = true;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  std::vector<gid_t> groups_;
};

}  // namespace muster::noded
