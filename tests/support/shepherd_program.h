// What tests that start shepherds share.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "noded/shepherd_protocol.h"

namespace muster::test {

// The program that was built with the test.
inline std::string shepherd_program() {
  const char* build = std::getenv("MUSTER_BUILD_DIR");
  const std::filesystem::path root = build != nullptr
                                         ? std::filesystem::path(build)
                                         : std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  return root / "bin/muster-shepherd";
}

inline std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Starts one; `connection` is our end of its socket. Its pid, or 0 when it cannot be started.
inline pid_t start_shepherd(int& connection) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return 0;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // The child's end gets its number without close-on-exec; a same-number dup2 would keep the flag.
  const int high = fcntl(ends[1], F_DUPFD_CLOEXEC, 100);
  posix_spawn_file_actions_adddup2(&actions, high, noded::kShepherdFd);
  const std::string path = shepherd_program();
  char* const argv[] = {const_cast<char*>("muster-shepherd"), nullptr};
  pid_t pid = 0;
  if (posix_spawn(&pid, path.c_str(), &actions, nullptr, argv, environ) != 0) {
    pid = 0;
  }
  posix_spawn_file_actions_destroy(&actions);
  close(high);
  close(ends[1]);
  connection = ends[0];
  return pid;
}

}  // namespace muster::test
