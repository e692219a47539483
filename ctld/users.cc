#include "ctld/users.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>

#include "lib/base/text.h"

namespace muster::ctld {
namespace {

constexpr std::size_t kPasswdBytesMax = 1 << 20;
constexpr int kGroupsMax = 65'536;  // the kernel's own limit (NGROUPS_MAX)

}  // namespace

const Users::Entry& Users::entry(const std::string& user, Instant now) {
  auto& entry = entries_[user];
  if (entry.read.is_set() && now - entry.read < kMemory) {
    return entry;
  }
  entry = Entry{};
  entry.read = now;
  std::vector<char> buffer(16'384);
  passwd record{};
  passwd* found = nullptr;
  while (getpwnam_r(user.c_str(), &record, buffer.data(), buffer.size(), &found) == ERANGE &&
         buffer.size() < kPasswdBytesMax) {
    buffer.resize(buffer.size() * 2);
  }
  if (found == nullptr) {
    return entry;
  }
  entry.known = true;
  entry.uid = found->pw_uid;
  std::vector<gid_t> groups(64);
  int count = static_cast<int>(groups.size());
  if (getgrouplist(user.c_str(), found->pw_gid, groups.data(), &count) < 0 && count <= kGroupsMax) {
    groups.resize(static_cast<std::size_t>(count));
    count = getgrouplist(user.c_str(), found->pw_gid, groups.data(), &count) < 0 ? 0 : count;
  }
  entry.gids.assign(groups.begin(), groups.begin() + std::clamp(count, 0, static_cast<int>(groups.size())));
  entry.gids.push_back(found->pw_gid);
  return entry;
}

Status Users::check(const std::string& user, std::uint32_t uid, std::uint32_t gid, Instant now) {
  if (entries_.size() > kEntriesMax) {
    entries_.clear();
  }
  const Entry& known = entry(user, now);
  if (!known.known) {
    // A local cluster of a user who has no entry runs as that user. Never as root, whatever the controller runs as.
    if (uid != 0 && uid == geteuid() && gid == getegid()) {
      return ok_status();
    }
    return make_error(ErrorCode::kPermissionDenied,
                      "user " + printable(user) + " is unknown on the controller's host: add the user there");
  }
  if (known.uid != uid) {
    return make_error(ErrorCode::kPermissionDenied, "user " + printable(user) + " has uid " +
                                                        std::to_string(known.uid) + " on the controller's host, not " +
                                                        std::to_string(uid) + ": submit as that user");
  }
  if (std::find(known.gids.begin(), known.gids.end(), gid) == known.gids.end()) {
    return make_error(ErrorCode::kPermissionDenied,
                      "user " + printable(user) + " is not in group " + std::to_string(gid) +
                          " on the controller's host: submit with a group of the user's own");
  }
  return ok_status();
}

}  // namespace muster::ctld
