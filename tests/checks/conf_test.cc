// The example configuration is one that the daemons accept, and says what README.md builds on.
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "lib/config/config.h"

namespace muster::config {
namespace {

std::string example() {
  const char* root = std::getenv("MUSTER_SOURCE_DIR");
  return std::string(root == nullptr ? "." : root) + "/conf/muster.toml";
}

TEST(ExampleConfiguration, IsAccepted) {
  const auto config = load(example());
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->cluster.controller, std::vector<std::string>{"tcp://head:7701"});
  EXPECT_TRUE(config->queues.contains(config->job.default_queue));
  EXPECT_EQ(config->queues.size(), 2U);
}

TEST(ExampleConfiguration, LeavesTheKeyToTheServiceUnits) {
  const auto config = load(example(), {"cluster.key=/etc/muster/node.key"});
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->cluster.key, "/etc/muster/node.key");
}

}  // namespace
}  // namespace muster::config
