#include "lib/model/binding.h"

#include <gtest/gtest.h>

namespace muster {
namespace {

TEST(Binding, CpuBindIsReadAndPrinted) {
  for (const std::string text : {"none", "threads", "cores", "l3", "numa", "sockets", "rank", "map_cpu:49,57,17",
                                 "mask_cpu:0xff,0x100000000000000000"}) {
    const auto bind = parse_cpu_bind(text);
    ASSERT_TRUE(bind.ok()) << bind.error().message;
    EXPECT_EQ(format_cpu_bind(*bind), text);
  }
  EXPECT_EQ(parse_cpu_bind("verbose,ldoms")->kind, CpuBindKind::kNuma);
  EXPECT_EQ(parse_cpu_bind("q,cores")->kind, CpuBindKind::kCores);
  EXPECT_EQ(parse_cpu_bind("no")->kind, CpuBindKind::kNone);
  EXPECT_TRUE(parse_cpu_bind("cores")->chosen);
  for (const std::string text : {"", "quiet", "q"}) {
    EXPECT_EQ(*parse_cpu_bind(text), CpuBind{}) << text;
  }
  for (const std::string text : {"verbose", "v", "v,cores", "verbose,none"}) {
    EXPECT_TRUE(parse_cpu_bind(text)->verbose) << text;
  }
  EXPECT_EQ(format_cpu_bind(*parse_cpu_bind("map_cpu:0x10,3*2")), "map_cpu:16,3,3");
  EXPECT_EQ(format_cpu_bind(*parse_cpu_bind("mask_cpu:FF00*2,1")), "mask_cpu:0xff00,0xff00,0x1");
  EXPECT_EQ(parse_cpu_bind("mask_cpu:f0")->list.front().to_string(), "4-7");
}

TEST(Binding, BadCpuBindsAreRefused) {
  for (const std::string text : {"core", "cores:1", "map_cpu", "map_cpu:", "map_cpu:1,,2", "map_cpu:-1",
                                 "map_cpu:70000", "map_cpu:0x", "map_cpu:0x1g", "map_cpu:1*0", "map_cpu:1*70000",
                                 "mask_cpu:", "mask_cpu:0", "mask_cpu:xyz", "mask_cpu:0x", "quiet,", ","}) {
    EXPECT_FALSE(parse_cpu_bind(text).ok()) << text;
  }
  EXPECT_FALSE(parse_cpu_bind("mask_cpu:" + std::string(20'000, 'f')).ok());
}

TEST(Binding, GpuBindIsRead) {
  EXPECT_EQ(*parse_gpu_bind(""), GpuBind{});
  EXPECT_EQ(parse_gpu_bind("v,none")->kind, GpuBindKind::kAll);
  EXPECT_EQ(parse_gpu_bind("closest")->kind, GpuBindKind::kOwn);
  EXPECT_EQ(parse_gpu_bind("per_task:2")->per_task, 2U);
  EXPECT_EQ(parse_gpu_bind("single:2")->kind, GpuBindKind::kOwn);
  EXPECT_EQ(parse_gpu_bind("map_gpu:0*2,3")->list.size(), 3U);
  EXPECT_EQ(parse_gpu_bind("mask_gpu:0x3,c")->list.back().to_string(), "2-3");
  for (const std::string text : {"all", "closest:1", "per_task", "per_task:0", "single:x", "map_gpu",
                                 "map_gpu:", "map_gpu:-1", "mask_gpu:0", "none:1"}) {
    EXPECT_FALSE(parse_gpu_bind(text).ok()) << text;
  }
}

TEST(Binding, LocalityAndDistribution) {
  for (const std::string text : {"none", "prefer", "require"}) {
    EXPECT_EQ(locality_name(*parse_locality(text)), text);
  }
  EXPECT_FALSE(parse_locality("required").ok());
  using Kind = DistributionKind;
  const std::vector<std::pair<std::string, Distribution>> cases{
      {"", {}},
      {"block", {}},
      {"*", {}},
      {"block:*", {}},
      {"cyclic", {.kind = Kind::kCyclic, .node_plane = 1}},
      {"block:cyclic", {.kind = Kind::kCyclic, .node_plane = 0}},
      {"cyclic:block", {.kind = Kind::kBlock, .node_plane = 1}},
      {"*:fcyclic", {.kind = Kind::kCyclic, .node_plane = 0}},
      {"plane=4", {.kind = Kind::kPlane, .plane = 4, .node_plane = 4}},
      {"plane:2", {.kind = Kind::kPlane, .plane = 2, .node_plane = 2}},
      {"cyclic:plane=3", {.kind = Kind::kPlane, .plane = 3, .node_plane = 1}},
      {"plane=2:cyclic", {.kind = Kind::kCyclic, .node_plane = 2}},
  };
  for (const auto& [text, distribution] : cases) {
    EXPECT_EQ(*parse_distribution(text), distribution) << text;
  }
  for (const std::string text :
       {"plane", "plane=", "plane=0", "blocks", "cyclic:x", "block:block:block", "arbitrary"}) {
    EXPECT_FALSE(parse_distribution(text).ok()) << text;
  }
}

}  // namespace
}  // namespace muster
