// The topology of a node as hwloc tells it: counts on recorded machines, and one oddity at a time on machines made by
// hand (tests/data/make_topologies.py).
#include "noded/discover/topology.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <set>
#include <string>

#include "lib/model/node_topology_text.h"
#include "noded/discover/discover.h"
#include "tests/support/topologies.h"

namespace muster::noded {
namespace {

NodeTopology own(const std::string& name) {
  return test::load_topology(test::own_machines() + "/" + name);
}

std::string tiers_of(const NodeTopology& t, std::size_t gpu) {
  std::string out;
  for (std::size_t other = 0; other < t.gpus.size(); ++other) {
    out += (out.empty() ? "" : " ") + std::string(pcie_tier_name(t.link(gpu, other).tier));
  }
  return out;
}

TEST(NodeTopology, GpusAreLocalToWhatTheyHangUnder) {
  const NodeTopology t = own("crossed.xml");
  ASSERT_EQ(t.gpus.size(), 4U);  // the management controller's display is none
  EXPECT_EQ(t.gpus[0].cores.to_string(), "8-11");
  EXPECT_EQ(t.gpus[1].cores.to_string(), "12-15");
  EXPECT_EQ(t.gpus[2].cores.to_string(), "0-3");
  EXPECT_EQ(t.gpus[3].cores.to_string(), "4-7");
  EXPECT_EQ(t.gpus[2].uuid, "GPU-00000002");
  EXPECT_EQ(t.numa.size(), 2U);
  EXPECT_EQ(t.cores[5].l3, t.cores[4].l3);
  EXPECT_NE(t.cores[4].l3, t.cores[3].l3);
  EXPECT_EQ(t.cores[5].threads.to_string(), "5,21");
}

TEST(NodeTopology, AdaptersForMessagesAreToldFromOthers) {
  const NodeTopology t = own("crossed.xml");
  ASSERT_EQ(t.nics.size(), 2U);
  EXPECT_EQ(t.nics[0].names, (std::vector<std::string>{"eno1"}));
  EXPECT_FALSE(t.nics[0].fabric);
  EXPECT_EQ(t.nics[0].cores.to_string(), "0-7");
  EXPECT_EQ(t.nics[1].names, (std::vector<std::string>{"ib0", "mlx5_0"}));
  EXPECT_TRUE(t.nics[1].fabric);
  EXPECT_EQ(t.nics[1].speed_mbps, 31'500U);
  EXPECT_EQ(t.nics[1].to_gpu[1], PcieTier::kHostBridge);
  EXPECT_EQ(t.nics[1].to_gpu[0], PcieTier::kSameNuma);
  EXPECT_EQ(t.nics[1].to_gpu[2], PcieTier::kOtherNuma);
}

TEST(NodeTopology, AGpuIsOneWhateverItsOsDevices) {
  const NodeTopology t = own("doubled.xml");
  ASSERT_EQ(t.gpus.size(), 2U);
  // By NVML's number, not by OpenCL's, CUDA's or the address.
  EXPECT_EQ(t.gpus[0].pci_address, "0000:21:00.0");
  EXPECT_EQ(t.gpus[0].uuid, "GPU-00000000");
  EXPECT_EQ(t.gpus[1].pci_address, "0000:11:00.0");
}

TEST(NodeTopology, NumaNodesWithTheSameCoresAreOneAndGpuMemoryIsNone) {
  const NodeTopology t = own("doubled.xml");
  ASSERT_EQ(t.numa.size(), 2U);
  EXPECT_EQ(t.numa[0].os_nodes.to_string(), "0,2");
  EXPECT_EQ(t.numa[1].os_nodes.to_string(), "1,3");
  EXPECT_EQ(t.numa[0].mem_mib, 32'768U + 8'192U);
  EXPECT_EQ(t.mem_mib, 2 * (32'768U + 8'192U));
  EXPECT_EQ(t.cores.size(), 8U);
}

TEST(NodeTopology, LinksThroughSwitchesConnectAllGpus) {
  const NodeTopology t = own("switched.xml");
  ASSERT_EQ(t.gpus.size(), 4U);
  for (std::size_t a = 0; a < 4; ++a) {
    for (std::size_t b = 0; b < 4; ++b) {
      EXPECT_EQ(t.link(a, b).bandwidth_mbps, a == b ? 0U : 150'000U);
    }
  }
}

TEST(NodeTopology, TiersAreThoseOfNvidiaSmi) {
  const NodeTopology t = own("tiers.xml");
  ASSERT_EQ(t.gpus.size(), 7U);
  EXPECT_EQ(t.gpus[6].pci_address, "0000:09:00.0");
  EXPECT_EQ(tiers_of(t, 0), "X PIX PXB PHB NODE SYS SYS");
  EXPECT_EQ(tiers_of(t, 3), "PHB PHB PHB X NODE SYS SYS");
  EXPECT_EQ(t.link(0, 5).tier, PcieTier::kOtherNuma);
  EXPECT_EQ(t.link(0, 6).tier, PcieTier::kOtherPackage);
  EXPECT_EQ(t.nics.at(0).to_gpu[1], PcieTier::kSwitch);
  EXPECT_EQ(t.nics.at(0).to_gpu[2], PcieTier::kSwitches);
}

TEST(NodeTopology, SyntheticMachines) {
  const NodeTopology t = test::load_topology("package:2 [numa] l3:2 core:4 pu:2+gpu:4");
  EXPECT_EQ(t.packages, 2U);
  EXPECT_EQ(t.numa.size(), 2U);
  EXPECT_EQ(t.cores.size(), 16U);
  EXPECT_EQ(t.cores[3].l3, t.cores[0].l3);
  EXPECT_NE(t.cores[4].l3, t.cores[0].l3);
  EXPECT_EQ(t.gpus[0].cores.to_string(), "0-7");
  EXPECT_EQ(t.gpus[3].cores.to_string(), "8-15");
  EXPECT_EQ(tiers_of(t, 0), "X NODE SYS SYS");
  EXPECT_TRUE(t.pretended);
  // Real GPUs and pretended ones together.
  const NodeTopology both = test::load_topology(test::own_machines() + "/crossed.xml+gpu:2");
  ASSERT_EQ(both.gpus.size(), 6U);
  EXPECT_EQ(both.gpus[5].vendor_index, 5U);
  EXPECT_EQ(tiers_of(both, 4), "SYS SYS NODE NODE X SYS");
  EXPECT_EQ(both.nics[0].to_gpu.size(), 6U);
}

TEST(NodeTopology, CachesStandInForEachOther) {
  // An L3 over two NUMA nodes is two domains; without an L3 an L2 counts that has several cores; without any the NUMA node.
  const NodeTopology spanned = test::load_topology("package:1 l3:1 numa:2 core:2 pu:1");
  EXPECT_EQ(spanned.numa.size(), 2U);
  EXPECT_NE(spanned.cores[0].l3, spanned.cores[2].l3);
  EXPECT_EQ(spanned.cores[0].l3, spanned.cores[1].l3);
  const NodeTopology tiles = test::load_topology("package:1 [numa] l2:2 core:2 pu:1");
  EXPECT_NE(tiles.cores[0].l3, tiles.cores[2].l3);
  const NodeTopology own_l2 = test::load_topology("package:1 [numa] core:4 l2:1 pu:1");
  EXPECT_EQ(own_l2.cores[0].l3, own_l2.cores[3].l3);
  const NodeTopology threads = test::load_topology("numa:2 pu:3");
  EXPECT_EQ(threads.cores.size(), 6U);
  EXPECT_EQ(threads.cores[0].l3, threads.cores[2].l3);
  EXPECT_NE(threads.cores[0].l3, threads.cores[3].l3);
}

TEST(NodeTopology, EqualNodesHaveEqualHashes) {
  NodeTopology a = own("crossed.xml");
  NodeTopology b = a;
  b.gpus[0].uuid = "GPU-another";
  b.gpus[1].model = "the same with another name";
  b.gpus[3].pci_address = "0000:91:00.0";  // still the last
  b.nics[0].names = {"enp1s0"};
  b.mem_mib += 3;
  b.numa[1].mem_mib += 3;
  EXPECT_EQ(topology_hash(a), topology_hash(b));
  EXPECT_EQ(class_of(a), class_of(b));
  b.gpus[3].pci_address = "0000:01:00.0";  // now the first
  EXPECT_NE(topology_hash(a), topology_hash(b));
  // The value is kept: classes may be named by it on disk and between releases.
  EXPECT_EQ(topology_hash(a).high, 0xcc3d44ed97de2214U);
  EXPECT_EQ(topology_hash(a).low, 0x20bffe4228931f34U);
}

TEST(NodeTopology, IsShownInTheWordsOfNvidiaSmi) {
  const std::string crossed = show_topology(own("crossed.xml"));
  EXPECT_EQ(crossed.substr(0, crossed.find('\n')),
            "1 package, 2 NUMA nodes, 4 L3s, 16 cores, 32 hardware threads, 4 GPUs, 131072 MiB");
  EXPECT_NE(crossed.find("  NUMA node 1 (OS 1), 65536 MiB\n    L3 2: cores 8-11, hardware threads 8-11,24-27\n"),
            std::string::npos)
      << crossed;
  EXPECT_NE(crossed.find("GPU2 0000:61:00.0 local cores 0-3 GPU-00000002 Model T\n"), std::string::npos) << crossed;
  EXPECT_NE(crossed.find("NIC0 0000:11:00.0 local cores 0-7 eno1 (not for messages)\n"), std::string::npos) << crossed;
  EXPECT_NE(crossed.find("      GPU0  GPU1  GPU2  GPU3  NIC0  NIC1\n"
                         "GPU0  X     NODE  SYS   SYS   SYS   NODE\n"
                         "GPU1  NODE  X     SYS   SYS   SYS   PHB\n"),
            std::string::npos)
      << crossed;
  EXPECT_NE(show_topology(own("switched.xml")).find("GPU0  X     NV6   NV6   NV6\n"), std::string::npos);
  EXPECT_EQ(show_topology(test::load_topology("package:1 core:2 pu:1")).find("GPU0"), std::string::npos);
}

TEST(NodeTopology, ThisMachine) {
  const NodeTopology t = test::load_topology("");
  EXPECT_FALSE(t.pretended);
  EXPECT_EQ(check_node_topology(t), "");
}

TEST(NodeTopology, FilesThatCannotBeUsedAreRefusedWithTheReason) {
  const std::string folder = testing::TempDir();
  const auto refusal = [&](const std::string& text) {
    const auto loaded = discover_topology(text, 0);
    return loaded.ok() ? "loaded" : loaded.error().message;
  };
  const std::string path = folder + "/muster-topology-" + std::to_string(getpid()) + ".xml";
  EXPECT_NE(refusal(path).find("cannot read the file"), std::string::npos) << refusal(path);
  std::ofstream(path)
      << "<?xml version=\"1.0\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology version=\"3.0\">\n"
         "</topology>\n";
  EXPECT_NE(refusal(path).find("format of hwloc 3"), std::string::npos) << refusal(path);
  EXPECT_NE(refusal(path).find("--export-xml-flags v2"), std::string::npos) << refusal(path);
  EXPECT_NE(refusal(path + "+gpu:2").find("format of hwloc 3"), std::string::npos);
  std::ofstream(path) << "<?xml version=\"1.0\"?>\n<topology version=\"2.0\"><object type=\"Machine\"";
  EXPECT_NE(refusal(path).find("topology '"), std::string::npos) << refusal(path);
  std::ofstream(path) << "";
  EXPECT_NE(refusal(path).find("topology '"), std::string::npos) << refusal(path);
  unlink(path.c_str());
  EXPECT_NE(refusal(folder).find("topology '"), std::string::npos) << refusal(folder);
}

struct Counts {
  const char* file;
  std::size_t packages;
  std::size_t numa;
  std::size_t l3s;
  std::size_t cores;
  std::size_t threads;
  std::size_t gpus;
  std::size_t nics;
  std::size_t fabric;
  friend bool operator==(const Counts&, const Counts&) = default;
};

constexpr Counts kRecorded[] = {
    {"a64fx-fugaku.constructed.xml", 1, 6, 6, 50, 50, 0, 0, 0},
    {"aws-g4dn-metal-8xt4.xml", 2, 2, 2, 48, 96, 8, 2, 1},
    {"corona-phase1-4xvega20-nps4.xml", 2, 8, 16, 48, 96, 4, 3, 1},
    {"dgx-1v.constructed.xml", 2, 2, 2, 40, 80, 8, 4, 4},
    {"dgx-a100.constructed.xml", 2, 8, 32, 128, 256, 8, 8, 8},
    {"dgx-h100.constructed.xml", 2, 2, 2, 112, 224, 8, 8, 8},
    {"dgx2-16xv100-nvswitch.xml", 2, 2, 2, 4, 4, 16, 0, 0},
    {"epyc-9654-2p-cpuid.xml", 2, 1, 24, 192, 384, 0, 0, 0},
    {"fake-hetero-memtiers.xml", 1, 3, 3, 6, 6, 0, 0, 0},
    {"gh200-quad-gpunuma.constructed.xml", 4, 4, 4, 288, 288, 4, 4, 4},
    {"gh200-quad.constructed.xml", 4, 4, 4, 288, 288, 4, 4, 4},
    {"intel-hybrid-raptorlake.xml", 1, 1, 1, 14, 20, 0, 0, 0},
    {"k8s-2s4n-ht.constructed.xml", 2, 4, 4, 40, 80, 0, 0, 0},
    {"knl-snc4-flat.hwloc1.xml", 1, 4, 34, 68, 272, 0, 3, 1},
    {"kunpeng-2x64c-clusters.xml", 2, 4, 4, 128, 128, 0, 0, 0},
    {"lassen-ac922-4xv100.xml", 2, 2, 20, 40, 160, 4, 6, 4},
    {"lenovo-sd665n-4xh200-turin-nps4-nonvml.xml", 2, 8, 16, 128, 256, 4, 7, 4},
    {"lenovo-sd665n-4xh200-turin-nps4.xml", 2, 8, 16, 128, 256, 4, 7, 4},
    {"pascal-2xp100-onesocket.xml", 2, 2, 2, 36, 72, 2, 3, 1},
    {"pcie8-nvlbridge.constructed.xml", 2, 2, 8, 64, 64, 8, 0, 0},
    {"power8-4xp100-nvlink.xml", 2, 2, 8, 8, 16, 4, 0, 0},
    {"quartz-2xbdw-smt1.xml", 2, 2, 2, 36, 36, 0, 5, 1},
    {"r740-snc2-optane-interleaved-ids.xml", 2, 4, 4, 40, 80, 0, 0, 0},
    {"tioga-mi250x-ex235a.xml", 1, 4, 8, 64, 128, 8, 5, 4},
};

std::string show(const Counts& c) {
  return std::to_string(c.packages) + " " + std::to_string(c.numa) + " " + std::to_string(c.l3s) + " " +
         std::to_string(c.cores) + " " + std::to_string(c.threads) + " " + std::to_string(c.gpus) + " " +
         std::to_string(c.nics) + " " + std::to_string(c.fabric);
}

TEST(NodeTopology, RecordedMachinesHaveTheirCounts) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  for (const Counts& expected : kRecorded) {
    SCOPED_TRACE(expected.file);
    const NodeTopology t = test::load_topology(test::recorded_machines() + "/" + expected.file);
    Counts found{expected.file, t.packages, t.numa.size(), 0, t.cores.size(), 0, t.gpus.size(), t.nics.size(), 0};
    std::set<std::uint32_t> l3s;
    for (const TopologyCore& core : t.cores) {
      l3s.insert(core.l3);
      found.threads += core.threads.count();
    }
    found.l3s = l3s.size();
    for (const TopologyNic& nic : t.nics) {
      found.fabric += nic.fabric ? 1 : 0;
    }
    EXPECT_EQ(show(found), show(expected));
  }
}

// Whatever else stands in the folder loads as well, and the two views of a node agree.
TEST(NodeTopology, EveryFileLoadsAndHardwareIsTheSameMachine) {
  std::vector<std::string> files = test::topology_files(test::own_machines());
  ASSERT_FALSE(files.empty());
  for (const std::string& file : test::topology_files(test::recorded_machines())) {
    files.push_back(file);
  }
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    const NodeTopology t = test::load_topology(file);
    ASSERT_EQ(check_node_topology(t), "");
    const auto hardware = discover(file, 0);
    ASSERT_TRUE(hardware.ok());
    ASSERT_EQ(hardware->cores.size(), t.cores.size());
    ASSERT_EQ(hardware->gpus.size(), t.gpus.size());
    EXPECT_EQ(hardware->mem_mib, t.mem_mib);
    for (std::size_t c = 0; c < t.cores.size(); ++c) {
      EXPECT_EQ(hardware->cores[c].threads, t.cores[c].threads);
      EXPECT_EQ(hardware->cores[c].numa, t.cores[c].numa);
      EXPECT_EQ(hardware->cores[c].package, t.cores[c].package);
    }
    for (std::size_t g = 0; g < t.gpus.size(); ++g) {
      EXPECT_EQ(hardware->gpus[g].pci_address, t.gpus[g].pci_address);
      EXPECT_EQ(hardware->gpus[g].vendor_index, t.gpus[g].vendor_index);
      EXPECT_FALSE(t.gpus[g].cores.empty());
    }
  }
}

}  // namespace
}  // namespace muster::noded
