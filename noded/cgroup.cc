#include "noded/cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <vector>

#include "lib/base/text.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"

namespace muster::noded {
namespace {

constexpr std::size_t kMountsBytesMax = 16U << 20U;

// Mount points of cgroup2 trees, from /proc/self/mountinfo (proc(5)): the fifth field, and the type behind " - ".
std::vector<std::string> cgroup2_mounts() {
  std::vector<std::string> out;
  auto text = io::read_file("/proc/self/mountinfo", kMountsBytesMax);
  if (!text.ok()) {
    return out;
  }
  for (const std::string_view line : split(*text, '\n')) {
    const auto fields = split(line, ' ');
    if (line.find(" - cgroup2 ") != std::string_view::npos && fields.size() > 5) {
      out.emplace_back(fields[4]);
    }
  }
  return out;
}

// This process's own group in the cgroup2 hierarchy: the line "0::/path".
std::string own_group() {
  auto text = io::read_file("/proc/self/cgroup", kMountsBytesMax);
  if (text.ok()) {
    for (const std::string_view line : split(*text, '\n')) {
      if (line.starts_with("0::/")) {
        return std::string(line.substr(3));
      }
    }
  }
  return "/";
}

// Groups of attempts can be made in it, and processes may be born there. Looked at in the group itself: a child made
// for a trial would stay behind when this process is killed in between.
bool usable(const std::string& group) {
  return ::access(group.c_str(), W_OK) == 0 && ::access((group + "/cgroup.procs").c_str(), W_OK) == 0 &&
         ::access((group + "/cgroup.kill").c_str(), W_OK) == 0;
}

bool make(const std::string& group, const AnnounceGroup& announce) {
  if (::access(group.substr(0, group.rfind('/')).c_str(), W_OK) != 0) {
    return false;
  }
  announce(group);
  if (::mkdir(group.c_str(), 0755) != 0 && errno != EEXIST) {
    return false;
  }
  if (usable(group)) {
    return true;
  }
  ::rmdir(group.c_str());
  return false;
}

}  // namespace

Result<std::string> make_node_cgroup(const std::string& setting, const std::string& spool_dir,
                                     const AnnounceGroup& announce, const PreferGroup& prefers) {
  if (setting == "off") {
    return std::string();
  }
  const std::string name = "/muster-" + io::to_hex(io::blake2b_256(spool_dir)).substr(0, 12);
  if (!setting.empty() && setting != "auto") {
    if (!make(setting + name, announce)) {
      return make_error(ErrorCode::kRefused, "[node] cgroup: no group can be made below " + printable(setting) +
                                                 ": delegate a cgroup2 group to this user, or set it to auto or off");
    }
    return setting + name;
  }
  const std::string own = own_group();
  std::vector<std::string> groups;
  for (const std::string& mount : cgroup2_mounts()) {
    // Its own group first: that is what a service manager delegates.
    if (own != "/") {
      groups.push_back(mount + own + name);
    }
    groups.push_back(mount + name);
  }
  std::string usable_one;
  for (const std::string& group : groups) {
    if (!make(group, announce)) {
      continue;
    }
    if (!prefers || prefers(group)) {
      return group;
    }
    usable_one = usable_one.empty() ? group : usable_one;
    ::rmdir(group.c_str());  // refused where attempts of an earlier life are in it
  }
  if (!usable_one.empty() && make(usable_one, announce)) {
    return usable_one;
  }
  return std::string();
}

}  // namespace muster::noded
