// Properties of choices on one node: over every recorded machine that is there and over machines made at random, with
// random parts of them free.
#include <gtest/gtest.h>

#include <bit>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "core/topo/bind.h"
#include "core/topo/choose.h"
#include "tests/support/seed.h"
#include "tests/support/topo_oracle.h"
#include "tests/support/topologies.h"

namespace muster::topo {
namespace {

class TopoProperty : public testing::Test {
 protected:
  std::uint32_t below(std::uint64_t n) { return static_cast<std::uint32_t>(random_() % n); }
  std::uint32_t between(std::uint32_t first, std::uint32_t last) { return first + below(last - first + 1); }

  // Members with the same chance, or all but a few, or all.
  IndexSet some_of(std::uint32_t count) {
    IndexSet out;
    const std::uint32_t chance = below(4) == 0 ? 100 : below(101);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (below(100) < chance) {
        out.insert(i);
      }
    }
    return out;
  }

  NodeUse random_use(const NodeTopology& t) {
    NodeUse use;
    use.usable_cores = IndexSet::range(0, static_cast<std::uint32_t>(t.cores.size()));
    if (below(4) == 0) {
      use.usable_cores -=
          IndexSet::range(0, std::min<std::uint32_t>(2, static_cast<std::uint32_t>(t.cores.size() - 1)));
    }
    use.free_cores = some_of(static_cast<std::uint32_t>(t.cores.size()));
    use.free_gpus = some_of(static_cast<std::uint32_t>(t.gpus.size()));
    return use;
  }

  // 1 to 2n tasks for n GPUs of the node, on as many cores as there are at most.
  std::optional<Request> random_request(const NodeTopology& t, const NodeUse& use) {
    const std::uint32_t cores = (use.free_cores & use.usable_cores).count();
    if (cores == 0) {
      return std::nullopt;
    }
    Request request;
    const auto gpus = static_cast<std::uint32_t>(t.gpus.size());
    request.tasks = std::min(cores, between(1, gpus > 0 ? 2 * gpus : 8));
    request.cores_per_task = between(1, below(3) == 0 ? cores / request.tasks : std::min(3U, cores / request.tasks));
    request.gpus = use.free_gpus.empty() || below(8) == 0 ? 0 : between(1, use.free_gpus.count());
    request.sizes_asked = below(2) == 0 ? 0 : below(1U << 9U) & ~1U;
    return request;
  }

  // Packages, NUMA nodes, L3s and cores in random numbers; GPUs local to one of these; links at random.
  NodeTopology random_machine(std::uint32_t gpus_max, std::uint32_t width_max) {
    NodeTopology t;
    t.packages = between(1, 2);
    const std::uint32_t numa = between(1, width_max);
    const std::uint32_t l3 = between(1, width_max);
    const std::uint32_t cores = between(1, width_max);
    std::uint32_t thread = 0;
    for (std::uint32_t p = 0; p < t.packages; ++p) {
      for (std::uint32_t n = 0; n < numa; ++n) {
        t.numa.emplace_back();
        t.numa.back().os_nodes.insert(static_cast<std::uint32_t>(t.numa.size() - 1));
        for (std::uint32_t c = 0; c < l3 * cores; ++c) {
          t.cores.push_back({.package = p,
                             .numa = static_cast<std::uint32_t>(t.numa.size() - 1),
                             .l3 = static_cast<std::uint32_t>(t.cores.size() / cores),
                             .threads = IndexSet::range(thread, 2)});
          thread += 2;
        }
      }
    }
    const std::uint32_t gpus = below(gpus_max + 1);
    const std::uint32_t kind = below(3);
    for (std::uint32_t g = 0; g < gpus; ++g) {
      const TopologyCore& beside = t.cores[below(t.cores.size())];
      TopologyGpu gpu;
      gpu.pci_address = "0000:" + std::string(1, static_cast<char>('a' + g)) + "0:00.0";
      gpu.vendor_index = g;
      for (std::uint32_t c = 0; c < t.cores.size(); ++c) {
        const bool local = kind == 0   ? t.cores[c].l3 == beside.l3
                           : kind == 1 ? t.cores[c].numa == beside.numa
                                       : t.cores[c].package == beside.package;
        if (local) {
          gpu.cores.insert(c);
        }
      }
      t.gpus.push_back(std::move(gpu));
    }
    t.links.resize(std::size_t{gpus} * gpus);
    const std::uint32_t rates = below(3);
    for (std::uint32_t a = 0; a < gpus; ++a) {
      t.links[a * gpus + a].tier = PcieTier::kSameDevice;
      for (std::uint32_t b = 0; b < a; ++b) {
        const GpuLink link{.bandwidth_mbps = rates == 0 ? 0 : below(rates + 1) * 25'000,
                           .tier = static_cast<PcieTier>(below(6))};
        t.links[a * gpus + b] = link;
        t.links[b * gpus + a] = link;
      }
    }
    t.mem_mib = 1024;
    EXPECT_EQ(check_node_topology(t), "");
    return t;
  }

  void check_one(const NodeTopology& t, const NodeClass& node);
  void check_binding(const NodeTopology& t, const NodeClass& node, const Choice& choice);

  std::mt19937_64 random_{test::first_seed()};
  std::map<std::string, int> seen_;
};

void TopoProperty::check_one(const NodeTopology& t, const NodeClass& node) {
  const NodeUse use = random_use(t);
  std::optional<Request> request = random_request(t, use);
  if (!request) {
    return;
  }
  SCOPED_TRACE("cores " + use.free_cores.to_string() + " of " + use.usable_cores.to_string() + " gpus " +
               use.free_gpus.to_string() + " tasks " + std::to_string(request->tasks) + " of " +
               std::to_string(request->cores_per_task) + " cores, gpus " + std::to_string(request->gpus) + " sizes " +
               std::to_string(request->sizes_asked));
  const auto preferred = choose(node, use, *request);
  ASSERT_TRUE(std::holds_alternative<Choice>(preferred)) << std::get<Refusal>(preferred).reason;
  const Choice& choice = std::get<Choice>(preferred);
  ASSERT_NO_FATAL_FAILURE(test::check_choice(t, use, *request, choice));

  // Never worse than the plain order: the head of the list by an own reckoning, the whole of it by the library's.
  const test::PlainCost cost = test::plain_cost(t, test::plain(choice.tasks));
  {
    const Supply supply{.cores = node.to_slots(use.free_cores & use.usable_cores), .gpus = use.free_gpus.to_vector()};
    std::vector<TaskPlacement> order = plain_order(node, supply, *request);
    choose_nics(node, order);
    const test::PlainCost plain = test::plain_cost(t, test::plain(node, order));
    ASSERT_LE(cost, plain);
    ASSERT_LE(compare(choice.cost, cost_of(node, supply, order, request->sizes_asked)), 0);
    ++seen_[cost < plain ? "better than the plain order" : "as good as the plain order"];
  }
  ASSERT_EQ(choice.cost.tasks_without_local_gpu, std::get<0>(cost));
  ASSERT_EQ(choice.cost.distance, std::get<1>(cost));

  // What was worked out before changes nothing.
  const NodeClass fresh(t);
  ASSERT_EQ(std::get<Choice>(choose(fresh, use, *request)), choice);

  // Required locality: kept, or refused.
  request->locality = Locality::kRequire;
  const auto required = choose(node, use, *request);
  if (std::holds_alternative<Choice>(required)) {
    const Choice& near = std::get<Choice>(required);
    ASSERT_NO_FATAL_FAILURE(test::check_choice(t, use, *request, near));
    ASSERT_EQ(near.cost.tasks_without_local_gpu, 0U);
    for (const ChosenTask& task : near.tasks) {
      ASSERT_TRUE(task.grades.numa);
    }
    ++seen_["require kept"];
  } else {
    const Refusal& refusal = std::get<Refusal>(required);
    ASSERT_NE(refusal.reason.find("--locality=require"), std::string::npos) << refusal.reason;
    // An acceptable choice that was there already must not be refused.
    ASSERT_TRUE(choice.cost.tasks_without_local_gpu > 0 || choice.cost.distance_max > 1);
    ++seen_[refusal.for_ever ? "require refused" : "require waits"];
  }
  ASSERT_NO_FATAL_FAILURE(check_binding(t, node, choice));
  // A step of the job's own size runs where its tasks were placed, or as near.
  StepWish same;
  same.tasks = request->tasks;
  same.cores_per_task = request->cores_per_task;
  const auto bound = bind(node, {.cores = choice.cores, .gpus = choice.gpus}, same);
  ASSERT_TRUE(bound.ok());
  const test::PlainCost after = test::plain_cost(t, test::plain(*bound));
  const bool as_near =
      std::pair(std::get<0>(after), std::get<1>(after)) <= std::pair(std::get<0>(cost), std::get<1>(cost));
  // With several GPUs for a task, the order in which tasks choose among overlapping neighbourhoods matters, and other
  // cores are there to choose from now.
  ASSERT_TRUE(as_near || request->gpus > request->tasks);
  ++seen_[*bound == choice.tasks ? "the step's tasks are the job's"
          : as_near              ? "the step's tasks are as near"
                                 : "the step's tasks are farther away"];
}

// A step over the whole of what a job holds: again no core twice, no task without its GPU.
void TopoProperty::check_binding(const NodeTopology& t, const NodeClass& node, const Choice& choice) {
  const Held held{.cores = choice.cores, .gpus = choice.gpus};
  StepWish wish;
  wish.tasks = between(1, held.cores.count());
  wish.cpu_bind.kind = static_cast<CpuBindKind>(below(7));
  const auto bound = bind(node, held, wish);
  ASSERT_TRUE(bound.ok()) << bound.error().message;
  ASSERT_EQ(bound->size(), wish.tasks);
  IndexSet cores;
  IndexSet gpus;
  IndexSet all_threads;
  for (const std::uint32_t core : held.cores.to_vector()) {
    all_threads |= t.cores[core].threads;
  }
  for (const ChosenTask& task : *bound) {
    ASSERT_FALSE(task.cores.empty());
    ASSERT_FALSE(task.cores.intersects(cores));
    cores |= task.cores;
    ASSERT_TRUE(held.gpus.empty() || !task.gpus.empty());
    gpus |= task.gpus;
    ASSERT_TRUE(task.threads.is_subset_of(all_threads));
    for (const std::uint32_t core : task.cores.to_vector()) {
      ASSERT_TRUE(task.threads.intersects(t.cores[core].threads));
    }
  }
  ASSERT_EQ(cores, held.cores);
  ASSERT_EQ(gpus, held.gpus);
}

TEST_F(TopoProperty, EveryRecordedMachine) {
  MUSTER_NEEDS_RECORDED_MACHINES();
  for (const std::string& file : test::topology_files(test::recorded_machines())) {
    SCOPED_TRACE(file);
    const NodeTopology t = test::load_topology(file);
    const NodeClass node(t);
    for (int round = 0; round < 60; ++round) {
      ASSERT_NO_FATAL_FAILURE(check_one(t, node));
    }
  }
  for (const auto& [what, count] : seen_) {
    std::printf("%s: %d\n", what.c_str(), count);
  }
}

TEST_F(TopoProperty, MachinesMadeAtRandom) {
  for (int machine = 0; machine < 400; ++machine) {
    const NodeTopology t = random_machine(8, 4);
    const NodeClass node(t);
    for (int round = 0; round < 10; ++round) {
      ASSERT_NO_FATAL_FAILURE(check_one(t, node));
    }
  }
  for (const auto& [what, count] : seen_) {
    std::printf("%s: %d\n", what.c_str(), count);
  }
  // The properties say something only when all of it happens.
  EXPECT_GT(seen_["better than the plain order"], 0);
  EXPECT_GT(seen_["require kept"], 0);
  EXPECT_GT(seen_["require waits"], 0);
  EXPECT_GT(seen_["require refused"], 0);
}

// The least (tasks without a local GPU, distance) of tasks with one GPU each: every set of GPUs, and for each the best
// assignment of cores, found by trying all.
std::pair<std::int64_t, std::int64_t> least_distance(const NodeTopology& t, const NodeUse& use,
                                                     const Request& request) {
  constexpr std::int64_t kTask = 1'000'000;  // more than any sum of distances
  const std::vector<std::uint32_t> gpus = use.free_gpus.to_vector();
  const std::vector<std::uint32_t> cores = (use.free_cores & use.usable_cores).to_vector();
  const std::uint32_t slots = request.tasks * request.cores_per_task;
  std::int64_t best = INT64_MAX;
  for (std::uint32_t set = 0; set < 1U << gpus.size(); ++set) {
    if (std::popcount(set) != static_cast<int>(request.tasks)) {
      continue;
    }
    std::vector<std::uint32_t> mine;
    for (std::size_t i = 0; i < gpus.size(); ++i) {
      if ((set >> i & 1U) != 0) {
        mine.push_back(gpus[i]);
      }
    }
    // By the slots that have a core; the first slot of a task counts it as local, which it needs once.
    std::vector<std::int64_t> least(std::size_t{1} << slots, INT64_MAX);
    least[0] = 0;
    for (const std::uint32_t core : cores) {
      for (std::size_t given = least.size(); given-- > 0;) {
        for (std::uint32_t slot = 0; least[given] != INT64_MAX && slot < slots; ++slot) {
          const std::int64_t distance = test::core_distance(t, mine[slot / request.cores_per_task], core);
          const bool first = slot % request.cores_per_task == 0;
          const std::int64_t cost = distance + (first && distance != 0 ? kTask : 0);
          if ((given >> slot & 1U) == 0) {
            std::int64_t& after = least[given | std::size_t{1} << slot];
            after = std::min(after, least[given] + cost);
          }
        }
      }
    }
    best = std::min(best, least.back());
  }
  return {best / kTask, best % kTask};
}

TEST_F(TopoProperty, TasksOfOneGpuAreAsNearAsCanBe) {
  int compared = 0;
  for (int round = 0; round < 1500; ++round) {
    const NodeTopology t = random_machine(5, 2);
    const NodeUse use = random_use(t);
    Request request;
    request.gpus = std::min(between(1, 3), use.free_gpus.count());
    request.tasks = request.gpus;
    request.cores_per_task = between(1, 2);
    if (request.tasks == 0 || (use.free_cores & use.usable_cores).count() < request.tasks * request.cores_per_task) {
      continue;
    }
    ++compared;
    const NodeClass node(t);
    const Choice choice = std::get<Choice>(choose(node, use, request));
    const auto [without, distance] = least_distance(t, use, request);
    ASSERT_EQ(choice.cost.tasks_without_local_gpu, without);
    ASSERT_EQ(choice.cost.distance, distance)
        << "tasks " << request.tasks << " of " << request.cores_per_task << " cores " << use.free_cores.to_string()
        << " gpus " << use.free_gpus.to_string();
    // So whatever can be had near is not refused.
    request.locality = Locality::kRequire;
    if (distance == 0) {
      ASSERT_TRUE(std::holds_alternative<Choice>(choose(node, use, request)));
    }
  }
  EXPECT_GT(compared, 500);
}

// J and its ties, found by trying every packing, on random links.
class PlainSets {
 public:
  PlainSets(const NodeTopology& t, SizeMask sizes) : t_(t), sizes_(sizes) {}

  // The first ties of the order: bandwidth, tiers without links, packages, tiers.
  using Joint = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

  [[nodiscard]] Joint of_set(const std::vector<std::uint32_t>& set) const {
    Joint out{0, 0, 0, 0};
    std::set<std::uint32_t> packages;
    for (const std::uint32_t a : set) {
      for (const std::uint32_t core : t_.gpus[a].cores.to_vector()) {
        packages.insert(t_.cores[core].package);
      }
      for (const std::uint32_t b : set) {
        if (a < b) {
          const GpuLink& link = t_.link(a, b);
          std::get<0>(out) += link.bandwidth_mbps;
          std::get<1>(out) += link.bandwidth_mbps == 0 ? static_cast<std::int64_t>(link.tier) : 0;
          std::get<3>(out) += static_cast<std::int64_t>(link.tier);
        }
      }
    }
    std::get<2>(out) = -static_cast<std::int64_t>(packages.size());
    return out;
  }

  // Of all ways to put `left` into sets of the sizes asked for, with as few as can be in one smaller set.
  [[nodiscard]] Joint best_packing(const std::vector<std::uint32_t>& left) const {
    for (std::size_t over = 0; over <= left.size(); ++over) {
      if (const auto found = pack(left, over)) {
        return *found;
      }
    }
    return {};
  }

 private:
  [[nodiscard]] std::optional<Joint> pack(const std::vector<std::uint32_t>& left, std::size_t over) const {
    if (left.empty()) {
      return over == 0 ? std::optional(Joint{0, 0, 0, 0}) : std::nullopt;
    }
    std::optional<Joint> best;
    for (std::uint32_t mask = 0; mask < 1U << (left.size() - 1); ++mask) {
      std::vector<std::uint32_t> set{left.front()};
      std::vector<std::uint32_t> rest;
      for (std::size_t i = 1; i < left.size(); ++i) {
        ((mask >> (i - 1) & 1U) != 0 ? set : rest).push_back(left[i]);
      }
      const bool asked = (sizes_ >> set.size() & 1U) != 0;
      std::optional<Joint> with;
      if (asked) {
        with = pack(rest, over);
      }
      if (set.size() == over) {
        const auto also = pack(rest, 0);
        with = !with || (also && *also > *with) ? also : with;
      }
      if (with) {
        const Joint here = of_set(set);
        const Joint sum{std::get<0>(here) + std::get<0>(*with), std::get<1>(here) + std::get<1>(*with),
                        std::get<2>(here) + std::get<2>(*with), std::get<3>(here) + std::get<3>(*with)};
        best = !best || sum > *best ? sum : *best;
      }
    }
    return best;
  }

  const NodeTopology& t_;
  SizeMask sizes_;
};

TEST_F(TopoProperty, SetsOfGpusAreThoseThatTryingAllFinds) {
  for (int round = 0; round < 1500; ++round) {
    const NodeTopology t = random_machine(7, 2);
    const IndexSet free = some_of(static_cast<std::uint32_t>(t.gpus.size()));
    if (free.empty()) {
      continue;
    }
    const std::vector<std::uint32_t> gpus = free.to_vector();
    const std::uint32_t count = between(1, free.count());
    const SizeMask asked = below(2) == 0 ? 0 : below(1U << 5U) & ~1U;
    const PlainSets plain(t, asked != 0 ? asked : 1U << count);
    const NodeClass node(t);
    const auto joint = [&](const std::vector<std::uint32_t>& set) {
      std::vector<std::uint32_t> rest;
      std::set_difference(gpus.begin(), gpus.end(), set.begin(), set.end(), std::back_inserter(rest));
      const PlainSets::Joint own = plain.of_set(set);
      const PlainSets::Joint other = plain.best_packing(rest);
      return PlainSets::Joint{std::get<0>(own) + std::get<0>(other), std::get<1>(own) + std::get<1>(other),
                              std::get<2>(own) + std::get<2>(other), std::get<3>(own) + std::get<3>(other)};
    };
    const std::vector<GpuMask> ranking = node.gpu_sets().ranking(mask_of(node, gpus), count, asked);
    std::optional<PlainSets::Joint> before;
    std::set<GpuMask> all;
    for (const GpuMask mask : ranking) {
      const PlainSets::Joint here = joint(gpus_of(node, mask));
      ASSERT_TRUE(!before || here <= *before)
          << "free " << free.to_string() << " count " << count << " sizes " << asked;
      before = here;
      ASSERT_TRUE(all.insert(mask).second);
    }
    std::size_t sets = 1;
    for (std::uint32_t i = 0; i < count; ++i) {
      sets = sets * (gpus.size() - i) / (i + 1);
    }
    ASSERT_EQ(ranking.size(), sets);
  }
}

// Splitting GPUs among tasks, held against every way to do it.
TEST_F(TopoProperty, TaskGroupsAreThoseThatTryingAllFinds) {
  for (int round = 0; round < 1500; ++round) {
    const NodeTopology t = random_machine(7, 2);
    if (t.gpus.empty()) {
      continue;
    }
    const NodeClass node(t);
    const auto count = static_cast<std::uint32_t>(t.gpus.size());
    const std::uint32_t groups = between(1, count);
    std::vector<std::uint32_t> all;
    for (std::uint32_t g = 0; g < count; ++g) {
      all.push_back(g);
    }
    const PlainSets plain(t, 0);
    std::int64_t best = -1;
    std::vector<std::uint32_t> group_of(count, 0);
    const auto try_all = [&](auto& self, std::uint32_t gpu) -> void {
      if (gpu == count) {
        std::vector<std::vector<std::uint32_t>> sets(groups);
        for (std::uint32_t g = 0; g < count; ++g) {
          sets[group_of[g]].push_back(g);
        }
        std::int64_t sum = 0;
        for (std::uint32_t i = 0; i < groups; ++i) {
          if (sets[i].size() != count / groups + (i < count % groups ? 1 : 0)) {
            return;
          }
          sum += std::get<0>(plain.of_set(sets[i]));
        }
        best = std::max(best, sum);
        return;
      }
      for (std::uint32_t i = 0; i < groups; ++i) {
        group_of[gpu] = i;
        self(self, gpu + 1);
      }
    };
    if (groups <= 4) {
      try_all(try_all, 0);
      std::int64_t sum = 0;
      GpuMask seen = 0;
      for (const GpuMask mask : node.gpu_sets().split(mask_of(node, all), groups)) {
        sum += std::get<0>(plain.of_set(gpus_of(node, mask)));
        ASSERT_EQ(seen & mask, 0);
        seen = static_cast<GpuMask>(seen | mask);
      }
      ASSERT_EQ(seen, mask_of(node, all));
      ASSERT_EQ(sum, best);
    }
  }
}

}  // namespace
}  // namespace muster::topo
