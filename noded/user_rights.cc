#include "noded/user_rights.h"

#include <grp.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "lib/base/check.h"
#include "noded/small_files.h"

namespace muster::noded {
namespace {

// user_namespaces(7): "deny" where setgroups is not allowed.
bool setgroups_denied() {
  return read_small("/proc/self/setgroups").starts_with("deny");
}

}  // namespace

bool is_known_user(std::uint32_t uid) {
  const std::string text = read_small("/proc/self/uid_map");
  if (text.empty()) {
    return true;  // no user namespaces in this kernel
  }
  const char* p = text.c_str();
  while (*p != '\0') {
    char* end = nullptr;
    const unsigned long inside = std::strtoul(p, &end, 10);
    const unsigned long outside = std::strtoul(end, &end, 10);
    static_cast<void>(outside);
    const unsigned long count = std::strtoul(end, &end, 10);
    if (end == p) {
      break;
    }
    if (uid >= inside && uid - inside < count) {
      return true;
    }
    p = end;
    while (*p == '\n') {
      ++p;
    }
  }
  return false;
}

bool set_groups(const std::vector<std::uint32_t>& groups, std::uint32_t gid) {
  const gid_t own = gid;
  std::vector<gid_t> all(groups.begin(), groups.end());
  if (all.empty()) {
    all.push_back(own);
  }
  return setgroups(all.size(), all.data()) == 0 || setgroups(1, &own) == 0 || setgroups_denied();
}

UserRights::UserRights(std::uint32_t uid, std::uint32_t gid, const std::vector<std::uint32_t>& groups)
    : uid_(geteuid()), gid_(getegid()) {
  if (uid_ == uid || !is_known_user(uid)) {
    return;
  }
  const int count = getgroups(0, nullptr);
  groups_.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  if (count > 0 && getgroups(count, groups_.data()) != count) {
    ok_ = false;
    return;
  }
  acts_ = true;
  ok_ = set_groups(groups, gid) && setegid(gid) == 0 && seteuid(uid) == 0;
}

UserRights::~UserRights() {
  if (acts_) {
    MUSTER_CHECK(seteuid(uid_) == 0 && setegid(gid_) == 0);
    MUSTER_CHECK(setgroups(groups_.size(), groups_.data()) == 0 || setgroups_denied());
  }
}

}  // namespace muster::noded
