// Which cores and GPUs steps of one job get, and what they wait for.
#include "noded/step_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <list>
#include <random>

namespace muster::noded {
namespace {

using testing::HasSubstr;

std::vector<JobNode> two_by_four() {
  return {{.name = "n1", .tasks = 1, .cpus = 4, .gpus = 2}, {.name = "n2", .tasks = 1, .cpus = 4, .gpus = 2}};
}

// "n1:0-1/0 n2:-/-", "wait: REASON" or "error: MESSAGE".
std::string show(const std::vector<JobNode>& job, const Result<StepDecision>& decision) {
  if (!decision) {
    return "error: " + decision.error().message;
  }
  if (const auto* delay = std::get_if<StepDelay>(&*decision)) {
    return "wait: " + delay->reason;
  }
  const auto& grant = std::get<StepGrant>(*decision);
  const auto text = [](const IndexSet& set) { return set.empty() ? std::string("-") : set.to_string(); };
  std::string out;
  for (std::size_t i = 0; i < grant.nodes.size(); ++i) {
    out += (out.empty() ? "" : " ") + job[grant.nodes[i].job_node].name + "x" +
           std::to_string(grant.plan.nodes[i].tasks) + ":" + text(grant.nodes[i].cores) + "/" +
           text(grant.nodes[i].gpus);
  }
  return out;
}

StepUse use(std::uint32_t step, StepSharing sharing, std::vector<StepNodeUse> nodes) {
  return {.step = step, .sharing = sharing, .nodes = std::move(nodes)};
}

struct Case {
  const char* what;
  std::vector<StepUse> running;
  StepsAhead ahead;
  StepShareWish wish;
  const char* expected;
};

TEST(StepShares, Table) {
  const StepUse exact_n1 = use(1, StepSharing::kExact, {{0, IndexSet::range(0, 3), IndexSet::range(0, 1)}});
  const StepUse full_n1 = use(1, StepSharing::kExact, {{0, IndexSet::range(0, 4), {}}});
  const StepUse whole = use(2, StepSharing::kWhole, {{0, {}, {}}, {1, {}, {}}});
  const StepUse alone = use(3, StepSharing::kExclusive, {{1, IndexSet::range(0, 1), {}}});
  const StepUse overlap = use(4, StepSharing::kOverlap, {{0, {}, {}}, {1, {}, {}}});
  using enum StepSharing;
  const std::vector<Case> cases = {
      {"a whole step waits for no exact one", {full_n1}, {}, {.sharing = kWhole}, "n1x1:-/- n2x1:-/-"},
      {"nor for one that waits", {}, {.wanted = IndexSet::range(0, 2)}, {.sharing = kWhole}, "n1x1:-/- n2x1:-/-"},
      {"but for an exclusive one", {alone}, {}, {.sharing = kWhole}, "wait: step 42.3 has n2 for itself"},
      {"not where that is not", {alone}, {}, {.sharing = kWhole, .layout = {.nodes = 1}}, "n1x1:-/-"},
      {"and for an exclusive one that waits",
       {},
       {.wanted = IndexSet::range(1, 1), .exclusive = IndexSet::range(1, 1)},
       {.sharing = kWhole},
       "wait: a step before it waits for n2"},
      {"an overlapping step waits for nobody", {alone, full_n1}, {}, {.sharing = kOverlap}, "n1x1:-/- n2x1:-/-"},
      {"an exact step gets what it asks for", {}, {}, {.sharing = kExact, .layout = {.ntasks = 1}}, "n1x1:0/-"},
      {"beside a whole step", {whole}, {}, {.sharing = kExact, .layout = {.ntasks = 1}}, "n1x1:0/-"},
      {"cores of each task",
       {},
       {},
       {.sharing = kExact, .layout = {.ntasks = 2, .cpus_per_task = 2}},
       "n1x1:0-1/- n2x1:0-1/-"},
      {"what is left of a node", {exact_n1}, {}, {.sharing = kExact, .layout = {.ntasks = 1}}, "n1x1:3/-"},
      {"a node with room", {full_n1}, {}, {.sharing = kExact, .layout = {.ntasks = 1}}, "n2x1:0/-"},
      {"the node with room where one is asked for",
       {exact_n1},
       {},
       {.sharing = kExact, .layout = {.nodes = 1, .ntasks = 4}},
       "n2x4:0-3/-"},
      {"waits",
       {full_n1},
       {},
       {.sharing = kExact, .layout = {.ntasks = 8}},
       "wait: step 42.1 holds 4 of 4 cores of n1"},
      {"its layout is the job's, on all nodes",
       {full_n1},
       {},
       {.sharing = kExact},
       "wait: step 42.1 holds 4 of 4 cores of n1"},
      {"a node that is named",
       {full_n1},
       {},
       {.sharing = kExact, .layout = {.ntasks = 1, .nodelist = {"n1"}}},
       "wait: step 42.1 holds 4 of 4 cores of n1"},
      {"who came before goes first",
       {},
       {.wanted = IndexSet::range(0, 2)},
       {.sharing = kExact, .layout = {.ntasks = 1}},
       "wait: a step before it waits for n1, a step before it waits for n2"},
      {"an exclusive step waits for whole ones",
       {whole},
       {},
       {.sharing = kExclusive, .layout = {.ntasks = 1}},
       "wait: step 42.2 has all of n1, step 42.2 has all of n2"},
      {"an exclusive step beside an exact one",
       {exact_n1, overlap},
       {},
       {.sharing = kExclusive, .layout = {.ntasks = 1}},
       "n1x1:3/-"},
      {"an exact step beside an exclusive one",
       {alone},
       {},
       {.sharing = kExact, .layout = {.ntasks = 1, .nodelist = {"n2"}}},
       "n2x1:1/-"},
      {"GPUs of each node",
       {},
       {},
       {.sharing = kExact, .layout = {.nodes = 2, .ntasks = 2}, .gpus_per_node = 1},
       "n1x1:0/0 n2x1:0/0"},
      {"GPUs of each task",
       {exact_n1},
       {},
       {.sharing = kExact, .layout = {.ntasks = 1}, .gpus_per_task = 2},
       "n2x1:0/0-1"},
      {"GPUs in total",
       {exact_n1},
       {},
       {.sharing = kExact, .layout = {.nodes = 2, .ntasks = 2}, .gpus = 3},
       "n1x1:3/1 n2x1:0/0-1"},
      {"waits for GPUs",
       {exact_n1},
       {},
       {.sharing = kExact, .layout = {.ntasks = 1, .nodelist = {"n1"}}, .gpus_per_task = 2},
       "wait: step 42.1 holds 3 of 4 cores of n1 and 1 of 2 GPUs"},
      {"never enough cores",
       {},
       {},
       {.sharing = kExact, .layout = {.ntasks = 9}},
       "error: --ntasks=9: the job's cores on 2 nodes have room for 8 tasks: ask for fewer tasks, or submit the job "
       "with more"},
      {"never enough GPUs",
       {},
       {},
       {.sharing = kExact, .layout = {.ntasks = 1}, .gpus_per_task = 3},
       "error: --gpus-per-task=3: the job has 4 GPUs on 2 nodes, too few for this step: ask for fewer"},
      {"never the job's layout",
       {},
       {},
       {.sharing = kExact, .layout = {.cpus_per_task = 5}},
       "error: --exact: the job's own layout needs 5 cores on n1, where it has 4: ask for fewer tasks with --ntasks"},
      {"relative", {}, {}, {.sharing = kExact, .layout = {.ntasks = 1, .relative = 1}}, "n2x1:0/-"},
      {"relative of a whole step", {}, {}, {.sharing = kWhole, .layout = {.relative = 1}}, "n2x1:-/-"},
  };
  const auto job = two_by_four();
  for (const Case& c : cases) {
    EXPECT_EQ(show(job, share_step(42, job, c.running, c.ahead, c.wish)), c.expected) << c.what;
  }
}

std::uint64_t seed_of_run() {
  const char* given = std::getenv("MUSTER_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

// Steps come and go: no core and no GPU twice, exclusive ones beside no whole ones, and whatever fits alone starts when the
// others have ended.
TEST(StepShares, NothingIsHeldTwiceAndNobodyWaitsForEver) {
  const std::uint64_t seed = seed_of_run();
  SCOPED_TRACE("MUSTER_SEED=" + std::to_string(seed));
  std::cout << "MUSTER_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) { return static_cast<std::uint32_t>(random() % n); };
  for (int round = 0; round < 200; ++round) {
    std::vector<JobNode> job;
    for (std::uint32_t i = 0, n = 1 + below(4); i < n; ++i) {
      job.push_back({.name = "n" + std::to_string(i), .tasks = 1 + below(3), .cpus = 1 + below(8), .gpus = below(4)});
    }
    std::vector<StepUse> running;
    std::list<StepShareWish> waiting;
    std::uint32_t next = 0;
    const auto serve = [&] {
      StepsAhead ahead;
      for (auto it = waiting.begin(); it != waiting.end();) {
        const auto decision = share_step(1, job, running, ahead, *it);
        ASSERT_TRUE(decision.ok()) << "it fitted before: " << decision.error().message;
        if (const auto* delay = std::get_if<StepDelay>(&*decision)) {
          ASSERT_FALSE(delay->reason.empty());
          if (it->sharing == StepSharing::kExact || it->sharing == StepSharing::kExclusive)
            ahead.wanted |= delay->nodes;
          if (it->sharing == StepSharing::kExclusive) ahead.exclusive |= delay->nodes;
          ++it;
          continue;
        }
        const auto& grant = std::get<StepGrant>(*decision);
        running.push_back({.step = next++, .sharing = it->sharing, .nodes = grant.nodes});
        for (std::size_t i = 0; i < grant.nodes.size(); ++i) {
          if (it->sharing == StepSharing::kExact || it->sharing == StepSharing::kExclusive) {
            ASSERT_EQ(grant.nodes[i].cores.count(), grant.plan.nodes[i].tasks * std::max(it->layout.cpus_per_task, 1U));
          }
        }
        it = waiting.erase(it);
      }
    };
    const auto check = [&] {
      for (std::size_t a = 0; a < running.size(); ++a) {
        for (std::size_t b = a + 1; b < running.size(); ++b) {
          for (const StepNodeUse& x : running[a].nodes) {
            for (const StepNodeUse& y : running[b].nodes) {
              if (x.job_node != y.job_node) continue;
              ASSERT_TRUE((x.cores & y.cores).empty());
              ASSERT_TRUE((x.gpus & y.gpus).empty());
              ASSERT_FALSE(
                  (running[a].sharing == StepSharing::kExclusive && running[b].sharing == StepSharing::kWhole) ||
                  (running[b].sharing == StepSharing::kExclusive && running[a].sharing == StepSharing::kWhole));
            }
          }
        }
        for (const StepNodeUse& x : running[a].nodes) {
          ASSERT_TRUE((x.cores - IndexSet::range(0, job[x.job_node].cpus)).empty());
          ASSERT_TRUE((x.gpus - IndexSet::range(0, job[x.job_node].gpus)).empty());
        }
      }
    };
    for (int step = 0; step < 60; ++step) {
      if (below(3) != 0) {
        StepShareWish wish;
        wish.sharing = static_cast<StepSharing>(below(4));
        wish.layout.ntasks = below(6);
        wish.layout.nodes = below(3) == 0 ? 1 + below(job.size()) : 0;
        wish.layout.cpus_per_task = 1 + below(3);
        if (below(4) == 0) wish.layout.ntasks_per_node = 1 + below(3);
        if (below(4) == 0) wish.layout.relative = below(job.size());
        if (below(3) == 0) wish.gpus_per_task = below(3);
        if (below(4) == 0) wish.gpus = below(4);
        if (share_step(1, job, {}, {}, wish).ok()) waiting.push_back(wish);
      } else if (!running.empty()) {
        running.erase(running.begin() + below(running.size()));
      }
      serve();
      check();
      if (HasFatalFailure()) return;
    }
    // When all that runs ends, the first that waits starts.
    while (!running.empty() || !waiting.empty()) {
      running.clear();
      const std::size_t before = waiting.size();
      serve();
      check();
      if (HasFatalFailure()) return;
      ASSERT_TRUE(before == 0 || waiting.size() < before);
    }
  }
}

}  // namespace
}  // namespace muster::noded
