// What the machine's user database says of users, remembered for a while: with a directory service each question
// takes milliseconds, and a node starts hundreds of jobs of one user in a second. Loop thread only.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/base/time.h"
#include "noded/attempts.h"

namespace muster::noded {

struct UserRecord {
  UserInfo info;
  std::vector<std::uint32_t> groups;  // supplementary, `gid` included; empty for an unknown user
};

class Users {
 public:
  // A user that the database does not know has the name given and no home.
  const UserRecord& find(std::uint32_t uid, std::uint32_t gid, const std::string& name);

 private:
  struct Entry {
    UserRecord record;
    std::uint32_t gid = 0;
    Duration read_at;  // since boot
  };
  std::map<std::uint32_t, Entry> entries_;
};

}  // namespace muster::noded
