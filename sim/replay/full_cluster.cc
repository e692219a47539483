#include "sim/replay/full_cluster.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>

#include "lib/base/check.h"

namespace muster::sim {
namespace {

constexpr std::uint64_t kSeed = 20'240'117;
// Jobs that wait when the cluster counts as full; it takes no more than some thousand shapes to find every gap.
constexpr std::uint64_t kLeftOver = 4'000;

NodeRegistration registration(const FullClusterOptions& options) {
  NodeRegistration r;
  r.boot_id = "boot";
  r.hardware.mem_mib = 8'192ULL * options.cores;
  for (std::uint32_t c = 0; c < options.cores; ++c) {
    r.hardware.cores.push_back(Core{.package = c / 32, .numa = c / 16, .threads = IndexSet::range(c, 1)});
  }
  for (std::uint32_t g = 0; g < options.gpus; ++g) {
    r.hardware.gpus.push_back(Gpu{.pci_address = "0000:" + std::to_string(g) + ":00.0",
                                  .uuid = {},
                                  .model = {},
                                  .vendor_index = g,
                                  .numa = g / 2});
  }
  return r;
}

std::shared_ptr<const sched::Sites> tree(const FullClusterOptions& options) {
  auto sites = std::make_shared<sched::Sites>();
  sites->topology.kind = TopologyKind::kTree;
  Topology::Switch core{"core", {}, {}, ""};
  for (std::uint32_t first = 0; first < options.nodes; first += options.leaf_nodes) {
    Topology::Switch leaf{"leaf" + std::to_string(first / options.leaf_nodes), {}, {}, ""};
    for (std::uint32_t i = first; i < std::min(options.nodes, first + options.leaf_nodes); ++i) {
      leaf.nodes.push_back("n" + std::to_string(i + 1));
    }
    core.switches.push_back(leaf.name);
    sites->topology.switches.push_back(std::move(leaf));
  }
  sites->topology.switches.push_back(std::move(core));
  MUSTER_CHECK(check_topology(sites->topology).ok());
  return sites;
}

}  // namespace

FullCluster::FullCluster(const FullClusterOptions& options)
    : options_(options), random_(kSeed), now_(Instant::from_s(1'700'000'000)) {
  sched::QueuePolicy q;
  q.name = "main";
  q.time_default = Duration::from_s(3600);
  policy_.queues = {q};
  policy_.default_queue = "main";
  policy_.jobs_max = 100'000'000;
  if (options.leaf_nodes != 0) {
    policy_.sites = tree(options);
  }
  NodeRegistration r = registration(options);
  for (std::uint32_t i = 0; i < options.nodes; ++i) {
    r.name = "n" + std::to_string(i + 1);
    run(RegisterNode{r});
  }
  for (std::uint32_t i = 0; i < options.shapes; ++i) {
    shapes_.push_back(shape());
  }
  do {
    for (int i = 0; i < 2'000; ++i) {
      submit();
    }
  } while (plan_all() != 0 && state_.waiting_tasks < kLeftOver);
  fill(options.pending);
}

void FullCluster::fill(std::uint64_t pending) {
  while (state_.waiting_tasks < pending) {
    submit();
  }
  plan_all();
}

// Single nodes and several, even layouts and uneven ones, memory, and GPUs by node, by task and in total.
JobSpecPtr FullCluster::shape() {
  auto s = std::make_shared<JobSpec>();
  s->user = "user0";
  s->name = "bench";
  s->work_dir = "/tmp";
  const auto draw = [this](std::uint64_t low, std::uint64_t high) {
    return static_cast<std::uint32_t>(random_.between(low, std::max(low, high)));
  };
  const std::uint64_t kind = random_.below(10);
  const std::uint32_t nodes_most = std::max(1U, options_.nodes);
  if (kind < 5) {
    s->ntasks = draw(1, options_.cores);
    s->nodes_min = s->nodes_max = 1;
    s->gpus_per_node = random_.permille(500) ? draw(0, options_.gpus) : 0;
  } else if (kind < 8) {
    s->nodes_min = s->nodes_max = std::min(draw(2, kind == 7 ? 512 : 16), nodes_most);
    s->ntasks_per_node = draw(1, options_.cores);
    s->ntasks = s->nodes_min * s->ntasks_per_node;
    s->gpus_per_node = draw(0, options_.gpus);
  } else {
    // As many tasks as give no equal shares, on a range of nodes.
    s->nodes_min = std::min(draw(1, 8), nodes_most);
    s->nodes_max = std::min(s->nodes_min + draw(0, 8), nodes_most);
    s->ntasks = s->nodes_min * draw(1, options_.cores) + draw(0, s->nodes_min - 1);
    if (kind == 8 && options_.gpus != 0) {
      s->gpus = draw(1, std::uint64_t{s->nodes_min} * options_.gpus);
    } else if (options_.gpus != 0 && random_.permille(300)) {
      s->gpus_per_task = 1;
      s->ntasks = std::min(s->ntasks, s->nodes_min * options_.gpus);
    }
  }
  if (random_.permille(200)) {
    s->mem_per_cpu_mib = random_.between(512, 8'192);
  } else if (random_.permille(150)) {
    s->mem_per_node_mib = random_.between(1'024, 8'192ULL * options_.cores);
  }
  s->time_limit = Duration::from_s(static_cast<std::int64_t>(random_.between(5, 48 * 60)) * 60);
  return s;
}

void FullCluster::submit_one() {
  submit();
}

void FullCluster::submit() {
  JobSpecPtr spec = random_.pick(shapes_);
  if (options_.users > 1) {
    auto other = std::make_shared<JobSpec>(*spec);
    other->user = "user" + std::to_string(random_.below(options_.users));
    spec = std::move(other);
  }
  run(SubmitJob{{spec->user, false}, {}, spec});
}

void FullCluster::end_one() {
  auto it = state_.jobs.lower_bound(JobId{random_.below(state_.next_job.value)});
  const bool any = state_.active_jobs != 0;
  while (any && (it == state_.jobs.end() || !it->second.is_active())) {
    it = it == state_.jobs.end() ? state_.jobs.begin() : std::next(it);
  }
  if (!any) {
    return;
  }
  const AttemptKey key{it->first, it->second.attempt};
  std::vector<std::string> nodes;
  for (const AttemptOnNode& on : std::get<Active>(it->second.phase).nodes) {
    nodes.push_back(state_.nodes[on.share.node.value].name);
  }
  for (const std::string& node : nodes) {
    run(ReportAttempts{node, {AttemptReport{key, true, {}}}});
  }
}

std::uint64_t FullCluster::plan_all() {
  std::uint64_t started = 0;
  while (true) {
    sched::Plan plan = engine::plan(state_, policy_, {}, now_, memory_);
    if (plan.resting) {
      continue;
    }
    const bool complete = plan.complete;
    const std::uint64_t matched = run(engine::apply_plan(state_, std::move(plan))).matched;
    started += matched;
    if (complete || matched == 0) {
      return started;
    }
  }
}

std::size_t FullCluster::full_pass() const {
  return engine::plan(state_, policy_, {}, now_).placements.size();
}

sched::Plan FullCluster::slice(sched::PlanMemory& memory) const {
  return engine::plan(state_, policy_, {}, now_, memory);
}

engine::Decision FullCluster::run(const Command& command) {
  now_ = now_ + Duration::from_ms(1);
  auto decision = engine::decide(state_, policy_, command, now_);
  if (!decision.ok()) {
    return {};  // a shape that can never run on these nodes
  }
  Effects effects;
  for (const Fact& fact : decision->facts) {
    engine::apply(state_, fact, effects);
  }
  return std::move(*decision);
}

}  // namespace muster::sim
