// Topologies for tests: dumps of machines beside the source tree, where there are any, and machines made by hand.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/model/node_topology.h"
#include "noded/discover/topology.h"

namespace muster::test {

// The folder of dumps: MUSTER_TOPOLOGIES, else shared/topologies beside the source tree. Empty when there is none.
inline std::string recorded_machines() {
  if (const char* given = std::getenv("MUSTER_TOPOLOGIES"); given != nullptr) {
    return given;
  }
  const char* source = std::getenv("MUSTER_SOURCE_DIR");
  const std::string folder = std::string(source != nullptr ? source : ".") + "/../shared/topologies";
  return std::filesystem::is_directory(folder) ? folder : "";
}

// The XML files of a folder, by name.
inline std::vector<std::string> topology_files(const std::string& folder) {
  std::vector<std::string> out;
  if (!folder.empty()) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".xml") {
        out.push_back(entry.path().string());
      }
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

// What stands in the repository.
inline std::string own_machines() {
  const char* source = std::getenv("MUSTER_SOURCE_DIR");
  return std::string(source != nullptr ? source : ".") + "/tests/data/topologies";
}

inline NodeTopology load_topology(const std::string& description) {
  auto loaded = noded::discover_topology(description, 0);
  EXPECT_TRUE(loaded.ok()) << description << ": " << (loaded.ok() ? "" : loaded.error().message);
  return loaded.ok() ? *loaded : NodeTopology{};
}

}  // namespace muster::test

// Skips the test, and says so, where the recorded machines are not there.
#define MUSTER_NEEDS_RECORDED_MACHINES()                                                                       \
  if (muster::test::recorded_machines().empty()) {                                                             \
    GTEST_SKIP() << "no recorded machines: set MUSTER_TOPOLOGIES, or put shared/topologies beside the source"; \
  }                                                                                                            \
  static_cast<void>(0)
