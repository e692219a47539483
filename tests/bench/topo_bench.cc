// What a choice on one node costs: 16 GPUs and 384 CPUs, which are 192 cores in 24 L3s, 8 NUMA nodes and 2 packages.
//
//   cold         a class nobody has decided on: its tables, and the choice on the empty node
//   warm         a class on which these sets of GPUs were decided on before, with other cores free: random jobs
//   warm_packed  the same for jobs without GPUs, up to one task for each core
//
// The argument is the links of the GPUs: 0 none, 1 all alike, 2 unequal. `median_us`, `p99_us` and `worst_us` are of
// questions, each with the best of its times.
#include <benchmark/benchmark.h>

#include <time.h>

#include <algorithm>
#include <random>
#include <vector>

#include "core/topo/choose.h"

namespace muster::topo {
namespace {

constexpr std::uint32_t kCores = 192;
constexpr std::uint32_t kGpus = 16;
constexpr std::size_t kQuestions = 4096;
constexpr std::uint64_t kSeed = 20'240'117;

NodeTopology machine(std::int64_t links) {
  std::mt19937_64 random(kSeed);
  NodeTopology t;
  t.packages = 2;
  t.numa.resize(8);
  for (std::uint32_t c = 0; c < kCores; ++c) {
    TopologyCore core{.package = c / 96, .numa = c / 24, .l3 = c / 8, .threads = IndexSet::range(c, 1)};
    core.threads.insert(c + kCores);
    t.cores.push_back(std::move(core));
  }
  for (std::uint32_t g = 0; g < kGpus; ++g) {
    TopologyGpu gpu;
    gpu.pci_address = "0000:" + std::string(1, "0123456789abcdef"[g]) + "1:00.0";
    gpu.vendor_index = g;
    gpu.cores = IndexSet::range(g / 2 * 24, 24);
    t.gpus.push_back(std::move(gpu));
  }
  t.links.resize(kGpus * kGpus);
  for (std::uint32_t a = 0; a < kGpus; ++a) {
    for (std::uint32_t b = 0; b <= a; ++b) {
      GpuLink link{.bandwidth_mbps = links == 0   ? 0
                                     : links == 1 ? 300'000
                                                  : static_cast<std::uint32_t>(random() % 3) * 25'000,
                   .tier = a / 2 == b / 2   ? PcieTier::kSwitch
                           : a / 8 == b / 8 ? PcieTier::kOtherNuma
                                            : PcieTier::kOtherPackage};
      if (a == b) {
        link = {.bandwidth_mbps = 0, .tier = PcieTier::kSameDevice};
      }
      t.links[a * kGpus + b] = link;
      t.links[b * kGpus + a] = link;
    }
  }
  return t;
}

struct Question {
  NodeUse use;
  Request request;
};

std::vector<Question> questions(bool with_gpus) {
  std::mt19937_64 random(kSeed);
  const auto below = [&](std::uint64_t n) { return static_cast<std::uint32_t>(random() % n); };
  std::vector<Question> out;
  while (out.size() < kQuestions) {
    Question q;
    q.use.usable_cores = IndexSet::range(0, kCores);
    // Jobs take neighbouring cores, so what is free are runs.
    q.use.free_cores = q.use.usable_cores;
    for (std::uint32_t i = below(16); i > 0; --i) {
      q.use.free_cores -= IndexSet::range(below(kCores - 24), 1 + below(24));
    }
    for (std::uint32_t g = 0; g < kGpus; ++g) {
      if (below(3) != 0) {
        q.use.free_gpus.insert(g);
      }
    }
    const std::uint32_t free = q.use.free_cores.count();
    q.request.gpus = with_gpus ? std::min(q.use.free_gpus.count(), 1 + below(8)) : 0;
    q.request.tasks = with_gpus ? 1 + below(q.request.gpus + 2) : 1U << below(8);
    if (q.request.tasks > free || (with_gpus && q.request.gpus == 0)) {
      continue;
    }
    q.request.cores_per_task = 1 + below(std::min(16U, free / q.request.tasks));
    q.request.sizes_asked = below(2) == 0 ? 0 : 1U << 1U | 1U << 2U | 1U << 4U | 1U << 8U;
    out.push_back(std::move(q));
  }
  return out;
}

// Processor time of each question, the best of its repetitions: what others do on the machine is not to be measured.
class BestTimes {
 public:
  explicit BestTimes(std::size_t questions) : best_us_(questions, 1e9) {}
  void begin() { started_us_ = now_us(); }
  void end(std::size_t question) { best_us_[question] = std::min(best_us_[question], now_us() - started_us_); }
  void report(benchmark::State& state) {
    std::sort(best_us_.begin(), best_us_.end());
    state.counters["median_us"] = best_us_[best_us_.size() / 2];
    state.counters["p99_us"] = best_us_[best_us_.size() * 99 / 100];
    state.counters["worst_us"] = best_us_.back();
  }

 private:
  static double now_us() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
  }
  double started_us_ = 0;
  std::vector<double> best_us_;
};

void cold(benchmark::State& state) {
  const NodeTopology t = machine(state.range(0));
  BestTimes times(8);
  for (auto _ : state) {
    std::size_t question = 0;
    for (const std::uint32_t gpus : {1U, 2U, 4U, 8U}) {
      for (const SizeMask sizes : {0U, 1U << 1U | 1U << 2U | 1U << 4U | 1U << 8U}) {
        times.begin();
        const NodeClass node(t);
        Request request;
        request.gpus = gpus;
        request.tasks = gpus;
        request.cores_per_task = 8;
        request.sizes_asked = sizes;
        const NodeUse use{.usable_cores = IndexSet::range(0, kCores),
                          .free_cores = IndexSet::range(0, kCores),
                          .free_gpus = IndexSet::range(0, kGpus)};
        benchmark::DoNotOptimize(choose(node, use, request));
        times.end(question++);
      }
    }
  }
  state.SetItemsProcessed(state.iterations() * 8);
  times.report(state);
}
BENCHMARK(cold)->Arg(0)->Arg(1)->Arg(2)->Iterations(20)->Unit(benchmark::kMillisecond);

void answer(benchmark::State& state, bool with_gpus) {
  const NodeClass node(machine(state.range(0)));
  std::vector<Question> all = questions(with_gpus);
  for (const Question& q : all) {
    benchmark::DoNotOptimize(choose(node, q.use, q.request));
  }
  // The tables know the sets of GPUs now; where cores are free is new.
  for (std::size_t i = 0; i < all.size(); ++i) {
    const IndexSet& cores = all[(i + all.size() / 2) % all.size()].use.free_cores;
    if (cores.count() >= all[i].request.tasks * all[i].request.cores_per_task) {
      all[i].use.free_cores = cores;
    }
  }
  BestTimes times(all.size());
  std::size_t next = 0;
  for (auto _ : state) {
    const Question& q = all[next];
    times.begin();
    benchmark::DoNotOptimize(choose(node, q.use, q.request));
    times.end(next);
    next = (next + 1) % all.size();
  }
  times.report(state);
}
void warm(benchmark::State& state) {
  answer(state, true);
}
void warm_packed(benchmark::State& state) {
  answer(state, false);
}
// A task of one core on a node of 2 packages of 16 cores, as an array starts them by the thousand.
void one_core(benchmark::State& state) {
  NodeTopology t;
  t.packages = 2;
  t.numa.resize(2);
  for (std::uint32_t c = 0; c < 32; ++c) {
    t.cores.push_back({.package = c / 16, .numa = c / 16, .l3 = c / 16, .threads = IndexSet::range(c, 1)});
  }
  const NodeClass node(t);
  const auto all = IndexSet::range(0, 32);
  std::mt19937_64 random(kSeed);
  std::vector<NodeUse> uses;
  for (std::size_t i = 0; i < kQuestions; ++i) {
    uses.push_back(
        {.usable_cores = all, .free_cores = IndexSet::from_words({1U + (random() & 0xfffffffeU)}), .free_gpus = {}});
  }
  BestTimes times(uses.size());
  std::size_t next = 0;
  for (auto _ : state) {
    times.begin();
    benchmark::DoNotOptimize(choose(node, uses[next], Request{}));
    times.end(next);
    next = (next + 1) % uses.size();
  }
  times.report(state);
}
BENCHMARK(one_core)->Iterations(8 * kQuestions)->Unit(benchmark::kMicrosecond);
BENCHMARK(warm)->Arg(0)->Arg(1)->Arg(2)->Iterations(8 * kQuestions)->Unit(benchmark::kMicrosecond);
BENCHMARK(warm_packed)->Arg(0)->Iterations(8 * kQuestions)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace muster::topo

BENCHMARK_MAIN();
