// Choices on recorded machines, against results that are known to be right. The same rules on machines made by hand, which
// are always there, are in topo_choose_test.cc and topo_gpu_sets_test.cc.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/topo/bind.h"
#include "core/topo/choose.h"
#include "tests/support/topologies.h"

namespace muster::topo {
namespace {

NodeUse all_of(const NodeTopology& t) {
  const auto cores = IndexSet::range(0, static_cast<std::uint32_t>(t.cores.size()));
  return {.usable_cores = cores,
          .free_cores = cores,
          .free_gpus = IndexSet::range(0, static_cast<std::uint32_t>(t.gpus.size()))};
}

std::string show(const NodeTopology& t, const Choice& choice) {
  std::string out;
  for (const ChosenTask& task : choice.tasks) {
    std::string gpus;
    for (const std::uint32_t gpu : task.gpus.to_vector()) {
      gpus += (gpus.empty() ? "" : ",") + std::to_string(t.gpus[gpu].vendor_index);
    }
    out += (out.empty() ? "" : " ") + gpus + (gpus.empty() ? "" : "->") + task.threads.to_string();
  }
  return out;
}

struct Expected {
  const char* file;
  std::uint32_t tasks;
  std::uint32_t gpus;
  std::uint32_t cores;
  const char* result;
};

constexpr Expected kGpuTasks[] = {
    {"tioga-mi250x-ex235a.xml", 8, 8, 8,
     "4->0-7,64-71 5->8-15,72-79 2->16-23,80-87 3->24-31,88-95 6->32-39,96-103 7->40-47,104-111 0->48-55,112-119 "
     "1->56-63,120-127"},
    {"tioga-mi250x-ex235a.xml", 4, 8, 16, "4,5->0-15,64-79 2,3->16-31,80-95 6,7->32-47,96-111 0,1->48-63,112-127"},
    {"lenovo-sd665n-4xh200-turin-nps4.xml", 4, 4, 16,
     "0->16-31,144-159 1->32-47,160-175 2->96-111,224-239 3->112-127,240-255"},
    {"lenovo-sd665n-4xh200-turin-nps4-nonvml.xml", 4, 4, 16,
     "0->16-31,144-159 1->32-47,160-175 2->96-111,224-239 3->112-127,240-255"},
    {"dgx-a100.constructed.xml", 8, 8, 8,
     "2->16-23,144-151 3->24-31,152-159 0->48-55,176-183 1->56-63,184-191 6->80-87,208-215 7->88-95,216-223 "
     "4->112-119,240-247 5->120-127,248-255"},
    {"pascal-2xp100-onesocket.xml", 2, 2, 9, "0->0-8,36-44 1->9-17,45-53"},
    {"lassen-ac922-4xv100.xml", 4, 4, 10, "0->8-47 1->48-87 2->96-135 3->136-175"},
};

TEST(TopoExpected, TasksBesideTheirGpus) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  for (const Expected& e : kGpuTasks) {
    SCOPED_TRACE(e.file);
    const NodeTopology t = test::load_topology(test::recorded_machines() + "/" + e.file);
    const NodeClass node(t);
    for (const Locality locality : {Locality::kPrefer, Locality::kRequire}) {
      Request request;
      request.tasks = e.tasks;
      request.gpus = e.gpus;
      request.cores_per_task = e.cores;
      request.locality = locality;
      const auto result = choose(node, all_of(t), request);
      ASSERT_TRUE(std::holds_alternative<Choice>(result)) << std::get<Refusal>(result).reason;
      const Choice& choice = std::get<Choice>(result);
      EXPECT_EQ(show(t, choice), e.result);
      for (const ChosenTask& task : choice.tasks) {
        EXPECT_EQ(task.grades, (Grades{.device = true, .numa = true, .package = true}));
      }
    }
  }
}

IndexSet indices(const std::string& text) {
  return *IndexSet::parse(text);
}

// The GPUs for one job of `count`, once as one task and once as a task for each; both must be the same.
std::string gpus_for(const NodeClass& node, NodeUse use, const IndexSet& free, std::uint32_t count, SizeMask sizes) {
  use.free_gpus = free;
  std::string out;
  for (const std::uint32_t tasks : {1U, count}) {
    Request request;
    request.tasks = tasks;
    request.gpus = count;
    request.sizes_asked = sizes;
    const auto result = choose(node, use, request);
    if (!std::holds_alternative<Choice>(result)) {
      return std::get<Refusal>(result).reason;
    }
    const std::string gpus = std::get<Choice>(result).gpus.to_string();
    if (!out.empty() && out != gpus) {
      return out + " as one task, " + gpus + " as several";
    }
    out = gpus;
  }
  return out;
}

// The same machine, once with its GPUs as NVML shows them and once as PCI devices only: whatever is free and asked, the
// placement is the same.
TEST(TopoExpected, GpusWithoutTheirVendorsLibraryArePlacedAlike) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  const std::string name = test::recorded_machines() + "/lenovo-sd665n-4xh200-turin-nps4";
  const NodeTopology full = test::load_topology(name + ".xml");
  const NodeTopology bare = test::load_topology(name + "-nonvml.xml");
  const NodeClass full_class(full);
  const NodeClass bare_class(bare);
  for (std::uint32_t free = 1; free < 16; ++free) {
    NodeUse use = all_of(full);
    use.free_gpus = IndexSet::from_words({free});
    for (std::uint32_t gpus = 1; gpus <= use.free_gpus.count(); ++gpus) {
      for (const std::uint32_t tasks : {1U, 2U, gpus, 2 * gpus}) {
        for (const std::uint32_t cores : {1U, 7U, 16U}) {
          Request request;
          request.tasks = tasks;
          request.gpus = gpus;
          request.cores_per_task = cores;
          const auto with = choose(full_class, use, request);
          const auto without = choose(bare_class, use, request);
          ASSERT_TRUE(std::holds_alternative<Choice>(with) && std::holds_alternative<Choice>(without));
          EXPECT_EQ(show(full, std::get<Choice>(with)), show(bare, std::get<Choice>(without)));
        }
      }
    }
  }
}

struct ExpectedSet {
  const char* file;
  const char* free;
  std::uint32_t count;
  SizeMask sizes;  // 0: same size
  const char* result;
};

constexpr SizeMask kMix = 1U << 1U | 1U << 2U | 1U << 4U;

constexpr ExpectedSet kSets[] = {
    // NVIDIA's go-gpuallocator.
    {"dgx-1v.constructed.xml", "0,2,4-5", 2, 0, "4-5"},
    {"dgx-1v.constructed.xml", "0,4-6", 2, 0, "5-6"},
    {"dgx-1v.constructed.xml", "0-1,3", 2, 0, "0,3"},
    {"dgx-1v.constructed.xml", "0-1,4", 2, 0, "0,4"},
    // Better than it.
    {"dgx-1v.constructed.xml", "0-3,5", 1, kMix, "5"},
    {"dgx-1v.constructed.xml", "0-3,5", 1, 1U << 2U, "5"},
    {"dgx-1v.constructed.xml", "0-3,5", 1, 0, "5"},
    {"pcie8-nvlbridge.constructed.xml", "0-2,4", 1, kMix, "1"},
    {"pcie8-nvlbridge.constructed.xml", "0-2,4", 1, 1U << 2U, "1"},
    {"pcie8-nvlbridge.constructed.xml", "0-2,4", 1, 0, "1"},
    {"dgx2-16xv100-nvswitch.xml", "0-15", 4, 0, "0-3"},
};

TEST(TopoExpected, SetsOfGpus) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  for (const ExpectedSet& e : kSets) {
    SCOPED_TRACE(std::string(e.file) + " free " + e.free + " count " + std::to_string(e.count) + " sizes " +
                 std::to_string(e.sizes));
    const NodeTopology t = test::load_topology(test::recorded_machines() + "/" + e.file);
    const NodeClass node(t);
    if (e.count <= 2) {
      EXPECT_EQ(gpus_for(node, all_of(t), indices(e.free), e.count, e.sizes), e.result);
    }
    const GpuMask best = node.gpu_sets().ranking(mask_of(node, indices(e.free).to_vector()), e.count, e.sizes).front();
    std::string set;
    for (const std::uint32_t gpu : gpus_of(node, best)) {
      set += (set.empty() ? "" : ",") + std::to_string(gpu);
    }
    EXPECT_EQ(indices(set).to_string(), e.result);
  }
}

struct ExpectedSequence {
  const char* file;
  std::uint32_t count;
  std::vector<std::string> results;
};

TEST(TopoExpected, SetsOfGpusOneJobAfterTheOther) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  const ExpectedSequence kSequences[] = {
      {"dgx-1v.constructed.xml", 2, {"0,3", "1-2", "4,7", "5-6"}},
      {"dgx-1v.constructed.xml", 4, {"0-3", "4-7"}},
      {"pcie8-nvlbridge.constructed.xml", 2, {"0,2", "1,3", "4-5", "6-7"}},
  };
  for (const ExpectedSequence& e : kSequences) {
    SCOPED_TRACE(e.file);
    const NodeTopology t = test::load_topology(test::recorded_machines() + "/" + e.file);
    const NodeClass node(t);
    for (const std::uint32_t tasks : {1U, e.count}) {
      NodeUse use = all_of(t);
      for (const std::string& expected : e.results) {
        Request request;
        request.tasks = tasks;
        request.gpus = e.count;
        const auto result = choose(node, use, request);
        ASSERT_TRUE(std::holds_alternative<Choice>(result));
        const Choice& choice = std::get<Choice>(result);
        EXPECT_EQ(choice.gpus.to_string(), expected);
        use.free_cores -= choice.cores;
        use.free_gpus -= choice.gpus;
      }
    }
  }
}

// Kubernetes' CPU manager counts hardware threads; siblings are n and n+40.
TEST(TopoExpected, PackedCores) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  const NodeTopology t = test::load_topology(test::recorded_machines() + "/k8s-2s4n-ht.constructed.xml");
  const NodeClass node(t);
  struct {
    std::uint32_t cores;
    const char* free;
    const char* result;
  } constexpr kVectors[] = {
      {20, "0-39", "0-19,40-59"}, {10, "0-39", "0-9,40-49"}, {10, "10-39", "10-19,50-59"}, {30, "1-39", "10-39,50-79"}};
  for (const auto& v : kVectors) {
    for (const std::uint32_t tasks : {1U, 2U, v.cores}) {
      SCOPED_TRACE(std::to_string(v.cores) + " cores of " + v.free + " for " + std::to_string(tasks) + " tasks");
      NodeUse use = all_of(t);
      use.free_cores = indices(v.free);
      Request request;
      request.tasks = tasks;
      request.cores_per_task = v.cores / tasks;
      const auto result = choose(node, use, request);
      ASSERT_TRUE(std::holds_alternative<Choice>(result));
      IndexSet threads;
      for (const ChosenTask& task : std::get<Choice>(result).tasks) {
        threads |= task.threads;
      }
      EXPECT_EQ(threads.to_string(), v.result);
    }
  }
}

// LUMI keeps the first core of each L3 for the system and publishes this map for "task i, GPU i".
TEST(TopoExpected, LumisMap) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  const NodeTopology t = test::load_topology(test::recorded_machines() + "/tioga-mi250x-ex235a.xml");
  const NodeClass node(t);
  const IndexSet reserved = system_cores(node, 8);
  EXPECT_EQ(reserved.to_string(), "0,8,16,24,32,40,48,56");
  const Held held{.cores = IndexSet::range(0, 64) - reserved, .gpus = IndexSet::range(0, 8)};

  // The map finds the GPUs.
  StepWish by_map;
  by_map.tasks = 8;
  by_map.cpu_bind = *parse_cpu_bind("map_cpu:49,57,17,25,1,9,33,41");
  const auto mapped = bind(node, held, by_map);
  ASSERT_TRUE(mapped.ok()) << mapped.error().message;
  for (std::uint32_t i = 0; i < 8; ++i) {
    EXPECT_EQ((*mapped)[i].gpus.to_string(), std::to_string(i));
    EXPECT_TRUE((*mapped)[i].grades.device);
  }

  // The GPUs find the map.
  StepWish by_gpu;
  by_gpu.tasks = 8;
  by_gpu.cores_per_task = 1;
  by_gpu.threads_per_core = 1;
  for (std::uint32_t i = 0; i < 8; ++i) {
    by_gpu.gpu_list.push_back(IndexSet::range(i, 1));
  }
  const auto listed = bind(node, held, by_gpu);
  ASSERT_TRUE(listed.ok()) << listed.error().message;
  std::string map;
  for (const ChosenTask& task : *listed) {
    map += (map.empty() ? "" : ",") + task.threads.to_string();
  }
  EXPECT_EQ(map, "49,57,17,25,1,9,33,41");
}

// What is said of other systems on the same machines: an even split of the cores with GPU i for task i.
TEST(TopoExpected, ThePlainOrderIsFarFromItsGpus) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  struct {
    const char* file;
    std::uint32_t local;
    std::uint64_t distance;  // of the choice: DGX A100 has eight NUMA nodes and GPUs on four of them
  } constexpr kMachines[] = {{"tioga-mi250x-ex235a.xml", 2, 0}, {"dgx-a100.constructed.xml", 0, 64 * kDistancePackage}};
  for (const auto& m : kMachines) {
    SCOPED_TRACE(m.file);
    const NodeTopology t = test::load_topology(test::recorded_machines() + "/" + m.file);
    const NodeClass node(t);
    Request request;
    request.tasks = 8;
    request.gpus = 8;
    request.cores_per_task = static_cast<std::uint32_t>(t.cores.size() / 8);
    const Supply supply{.cores = node.to_slots(all_of(t).free_cores), .gpus = all_of(t).free_gpus.to_vector()};
    const Cost cost = cost_of(node, supply, plain_order(node, supply, request), 0);
    EXPECT_EQ(8 - cost.tasks_without_local_gpu, m.local);
    const auto chosen = choose(node, all_of(t), request);
    ASSERT_TRUE(std::holds_alternative<Choice>(chosen));
    EXPECT_EQ(std::get<Choice>(chosen).cost.tasks_without_local_gpu, 0U);
    EXPECT_EQ(std::get<Choice>(chosen).cost.distance, m.distance);
  }
}

}  // namespace
}  // namespace muster::topo
