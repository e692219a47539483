// What tests that start shepherds share.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

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

}  // namespace muster::test
