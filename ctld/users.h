// Users: which uid and gid a user's jobs may run with. Reads the system's user database, with a memory of some minutes.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::ctld {

class Users {
 public:
  static constexpr Duration kMemory = Duration::from_s(300);
  static constexpr std::size_t kEntriesMax = 100'000;

  // kPermissionDenied when the user may not run with these. A user whom this host does not know may only be the one
  // that the controller itself runs as (a local cluster in a container without user names).
  Status check(const std::string& user, std::uint32_t uid, std::uint32_t gid, Instant now);

 private:
  struct Entry {
    Instant read;
    bool known = false;
    std::uint32_t uid = 0;
    std::vector<std::uint32_t> gids;
  };
  const Entry& entry(const std::string& user, Instant now);
  std::map<std::string, Entry> entries_;
};

}  // namespace muster::ctld
