#include "sim/random_spec.h"

#include <algorithm>
#include <memory>
#include <string>

#include "lib/base/check.h"

namespace muster::sim {
namespace {

std::string node_name(std::uint64_t number) {
  return "n" + std::to_string(number);
}

ArraySpec random_array(Random& random, std::uint64_t tasks_max) {
  ArraySpec array;
  const std::uint64_t first = random.permille(500) ? 0 : random.below(5);
  const std::uint64_t step = random.permille(500) ? 1 : random.between(1, 3);
  const std::uint64_t count = random.between(1, tasks_max);
  array.ranges.push_back(ArrayRange{first, first + (count - 1) * step, step});
  if (random.permille(300)) {
    const std::uint64_t next = array.ranges.back().last + 5;
    array.ranges.push_back(ArrayRange{next, next, 1});
  }
  if (random.permille(400)) array.max_running = random.between(1, 3);
  return array;
}

void draw_memory(Random& random, JobSpec& spec) {
  switch (random.below(8)) {
    case 0:
      spec.mem_per_node_mib = random.between(1, 4096);
      break;
    case 1:
      spec.mem_per_cpu_mib = random.between(1, 1024);
      break;
    default:
      break;  // its share
  }
}

void draw_gpus(Random& random, JobSpec& spec) {
  switch (random.below(10)) {
    case 0:
      spec.gpus_per_node = 1;
      break;
    case 1:
      spec.gpus_per_task = 1;
      break;
    case 2:
      spec.gpus = static_cast<std::uint32_t>(random.between(1, 3));
      break;
    default:
      break;
  }
}

void draw_place(Random& random, JobSpec& spec) {
  static const std::vector<std::string> kConstraints = {
      "f1", "f1&f2", "f1|f2", "[f1|f2]", "f1*1", "f2*2", "(f1|f2)*1&[f1|f2]"};
  if (random.permille(80)) spec.constraint = random.pick(kConstraints);
  if (random.permille(60)) spec.switches = static_cast<std::uint32_t>(random.between(1, 2));
  if (random.permille(40)) spec.segment = static_cast<std::uint32_t>(random.between(1, 2));
}

void draw_dependency(Random& random, const SpecOptions& options, JobSpec& spec) {
  spec.dependency.any = random.permille(300);
  for (std::uint64_t i = random.between(1, 3); i > 0; --i) {
    DependencyTerm term;
    term.kind = static_cast<DependencyKind>(random.below(spec.array && !spec.dependency.any ? 7 : 5));
    if (term.kind > DependencyKind::kAfterCorr) term.kind = DependencyKind::kAfterCorr;
    if (term.kind != DependencyKind::kSingleton) {
      if (options.jobs.empty()) continue;
      // Mostly recent ones, which have not ended.
      const std::size_t recent = options.jobs.size() > 6 ? options.jobs.size() - 6 : 0;
      term.target.job = options.jobs[random.between(recent, options.jobs.size() - 1)];
      term.target.has_task = term.kind != DependencyKind::kAfterCorr && random.permille(150);
      if (term.target.has_task) term.target.task = random.below(8);
    }
    if (term.kind == DependencyKind::kAfter && !spec.dependency.any && random.permille(300)) {
      term.delay = Duration::from_s(60);
    }
    spec.dependency.terms.push_back(term);
  }
  if (spec.dependency.terms.empty()) spec.dependency = {};
}

}  // namespace

JobChange random_change(Random& random, const SpecOptions& options) {
  JobChange change;
  change.values = random_spec(random, options);
  change.values.time_limit = Duration::from_s(static_cast<std::int64_t>(random.between(1, 60)));
  if (random.permille(300)) change.values.dependency = {};
  if (random.permille(300)) change.values.deadline = {};
  if (random.permille(300)) change.values.time_min = {};
  for (std::uint64_t i = random.between(1, 3); i > 0; --i) {
    change.fields.push_back(static_cast<SpecField>(random.below(static_cast<std::uint64_t>(kSpecFieldLast) + 1)));
  }
  return change;
}

JobSpec random_spec(Random& random, const SpecOptions& options) {
  JobSpec spec;
  spec.kind = random.permille(300) ? JobKind::kRun : JobKind::kBatch;
  spec.name = "job" + std::to_string(random.below(5));
  spec.user = options.user;
  spec.queue = random.permille(700) ? "" : "low";
  spec.nodes_min = random.permille(500) ? 0 : static_cast<std::uint32_t>(random.between(1, options.nodes));
  if (random.permille(30)) spec.nodes_min = options.nodes + 1;  // can never fit
  spec.nodes_max = spec.nodes_min;
  if (random.permille(200)) spec.nodes_max = options.nodes;
  if (random.permille(600)) spec.ntasks = static_cast<std::uint32_t>(random.between(1, options.nodes * 3));
  if (random.permille(200)) spec.ntasks_per_node = static_cast<std::uint32_t>(random.between(1, 3));
  if (random.permille(400)) {
    spec.cpus_per_task = static_cast<std::uint32_t>(random.between(1, std::max(1U, options.cores_max / 2)));
  }
  spec.exclusive = random.permille(80);
  if (random.permille(80)) spec.nodelist.push_back(node_name(random.between(1, options.nodes)));
  if (random.permille(80)) spec.exclude.push_back(node_name(random.between(1, options.nodes)));
  draw_memory(random, spec);
  draw_gpus(random, spec);
  draw_place(random, spec);
  spec.time_limit = Duration::from_s(static_cast<std::int64_t>(random.between(1, 60)));
  spec.nice = static_cast<std::int32_t>(random.below(4));
  if (random.permille(30)) spec.nice = -2;  // an administrator's
  if (random.permille(150)) spec.time_min = Duration::from_s(static_cast<std::int64_t>(random.between(1, 20)));
  if (random.permille(150)) spec.deadline = options.now + random.duration(Duration{}, Duration::from_s(150));
  if (random.permille(80)) spec.begin = options.now + random.duration(Duration{}, Duration::from_s(20));
  spec.hold = random.permille(80);
  spec.requeue = random.permille(500);
  spec.requeue_given = random.permille(400);
  if (random.permille(200)) spec.array = random_array(random, options.array_tasks_max);
  if (random.permille(250)) draw_dependency(random, options, spec);
  if (!options.licenses.empty() && random.permille(150)) {
    const auto& [name, total] = *options.licenses.begin();
    spec.licenses.push_back({name, random.between(1, random.permille(950) ? total : total + 1)});
  }
  if (!options.reservations.empty() && random.permille(60)) {
    spec.reservation = random.pick(options.reservations);
    spec.time_limit = Duration::from_s(static_cast<std::int64_t>(random.between(1, 8)));
  }
  spec.work_dir = "/work";
  spec.submit_host = "login";
  spec.script_name = "job.sh";
  if (random.permille(300)) spec.account = "a" + std::to_string(random.below(3));
  if (random.permille(200)) spec.qos = "q" + std::to_string(random.below(2));
  return spec;
}

std::shared_ptr<const sched::Sites> random_sites(Random& random, std::uint32_t nodes) {
  auto sites = std::make_shared<sched::Sites>();
  for (std::uint64_t i = 1; i <= nodes; ++i) {
    for (const char* feature : {"f1", "f2"}) {
      if (random.permille(300)) sites->features[feature].push_back(node_name(i));
    }
  }
  const std::uint64_t kind = random.below(3);
  if (kind == 0) return sites;
  std::vector<std::vector<std::string>> leaves(random.between(1, 2));
  for (std::uint64_t i = 1; i <= nodes; ++i) leaves[random.below(leaves.size())].push_back(node_name(i));
  Topology& topology = sites->topology;
  topology.kind = kind == 1 ? TopologyKind::kTree : TopologyKind::kBlock;
  Topology::Switch top{"top", {}, {}, ""};
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const std::string name = "d" + std::to_string(i);
    if (leaves[i].empty()) leaves[i].push_back("away" + std::to_string(i));  // one that never registers
    top.switches.push_back(name);
    topology.switches.push_back({name, leaves[i], {}, ""});
    topology.blocks.push_back({name, leaves[i], ""});
  }
  topology.switches.push_back(top);
  MUSTER_CHECK(check_topology(topology).ok());
  return sites;
}

std::vector<std::string> random_features(Random& random) {
  std::vector<std::string> features;
  for (const char* feature : {"f1", "f2"}) {
    if (random.permille(300)) features.emplace_back(feature);
  }
  return features;
}

NodeHardware random_hardware(Random& random, std::uint32_t cores_max) {
  NodeHardware hardware;
  const auto cores = static_cast<std::uint32_t>(random.between(std::max(1U, cores_max / 2), cores_max));
  for (std::uint32_t i = 0; i < cores; ++i) {
    Core core;
    core.numa = 2 * i / cores;
    core.threads = IndexSet::range(i, 1);
    core.threads.insert(i + cores);
    hardware.cores.push_back(std::move(core));
  }
  const auto gpus = static_cast<std::uint32_t>(random.below(4));
  for (std::uint32_t i = 0; i < gpus; ++i) {
    Gpu gpu;
    gpu.pci_address = "0000:0" + std::to_string(i) + ":00.0";
    gpu.model = "Simulated";
    gpu.vendor_index = i;
    hardware.gpus.push_back(std::move(gpu));
  }
  hardware.mem_mib = 1024 * random.between(4, 16);
  hardware.numa_nodes = 2;
  hardware.numa_mem_mib = {hardware.mem_mib / 2, hardware.mem_mib / 2};
  return hardware;
}

NodeTopology topology_of(const NodeHardware& hardware) {
  NodeTopology t;
  t.packages = hardware.packages;
  for (std::uint32_t n = 0; n < hardware.numa_nodes; ++n) {
    t.numa.push_back({.os_nodes = IndexSet::range(n, 1), .mem_mib = hardware.numa_mem_mib[n]});
  }
  std::array<IndexSet, 2> cores_of_numa;
  for (std::uint32_t c = 0; c < hardware.cores.size(); ++c) {
    const Core& core = hardware.cores[c];
    // L3s of two cores, none across NUMA nodes.
    t.cores.push_back(
        {.package = core.package, .numa = core.numa, .l3 = c / 2 * 2 + core.numa, .threads = core.threads});
    cores_of_numa[core.numa].insert(c);
  }
  for (std::uint32_t g = 0; g < hardware.gpus.size(); ++g) {
    TopologyGpu gpu;
    gpu.pci_address = hardware.gpus[g].pci_address;
    gpu.vendor_index = g;
    gpu.cores = cores_of_numa[g % 2];
    t.gpus.push_back(std::move(gpu));
  }
  for (std::uint32_t a = 0; a < t.gpus.size(); ++a) {
    for (std::uint32_t b = 0; b < t.gpus.size(); ++b) {
      const PcieTier tier = a == b           ? PcieTier::kSameDevice
                            : a % 2 == b % 2 ? PcieTier::kSameNuma
                                             : PcieTier::kOtherNuma;
      t.links.push_back({.bandwidth_mbps = a + b == 3 ? 50'000U : 0U, .tier = tier});
    }
  }
  t.mem_mib = hardware.mem_mib;
  return t;
}

}  // namespace muster::sim
