#include "noded/users.h"

#include <grp.h>
#include <pwd.h>
#include <sys/types.h>

#include "lib/io/clock.h"

namespace muster::noded {
namespace {

// New groups of a user take effect after this time.
constexpr Duration kRememberFor = Duration::from_s(60);
// Linux allows 65,536 groups; more than this for one user is a broken directory.
constexpr int kGroupsMax = 65'536;

UserRecord read_record(std::uint32_t uid, std::uint32_t gid, const std::string& name) {
  UserRecord out;
  out.info.name = name;
  std::vector<char> buffer(64U << 10U);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) {
    return out;
  }
  out.info = UserInfo{found->pw_name, found->pw_dir, found->pw_shell};
  int count = 64;
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  if (getgrouplist(found->pw_name, gid, groups.data(), &count) < 0 && count > 0 && count <= kGroupsMax) {
    groups.resize(static_cast<std::size_t>(count));
    if (getgrouplist(found->pw_name, gid, groups.data(), &count) < 0) {
      count = 0;
    }
  }
  for (int i = 0; i < count && static_cast<std::size_t>(i) < groups.size(); ++i) {
    out.groups.push_back(groups[static_cast<std::size_t>(i)]);
  }
  return out;
}

}  // namespace

const UserRecord& Users::find(std::uint32_t uid, std::uint32_t gid, const std::string& name) {
  const Duration now = io::boottime_now();
  auto [it, fresh] = entries_.try_emplace(uid);
  Entry& entry = it->second;
  if (fresh || entry.gid != gid || now - entry.read_at > kRememberFor) {
    entry = Entry{read_record(uid, gid, name), gid, now};
  }
  return entry.record;
}

}  // namespace muster::noded
