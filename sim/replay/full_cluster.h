// FullCluster: a cluster on which nothing more fits, and jobs of some shapes that wait: what the cost of planning is
// measured on. The controller's own core runs it, in virtual time; the same options give the same cluster.
#pragma once

#include <cstdint>
#include <vector>

#include "core/engine/engine.h"
#include "sim/random.h"

namespace muster::sim {

struct FullClusterOptions {
  std::uint32_t nodes = 10'000;
  std::uint32_t cores = 64;  // of each node
  std::uint32_t gpus = 8;
  std::uint64_t pending = 100'000;
  std::uint32_t shapes = 200;
  std::uint32_t users = 1;       // jobs of different users are different groups to the planner
  std::uint32_t leaf_nodes = 0;  // nodes below each leaf switch of a tree; 0: no network
};

class FullCluster {
 public:
  explicit FullCluster(const FullClusterOptions& options);

  // Adds jobs until so many wait.
  void fill(std::uint64_t pending);
  void submit_one();
  void end_one();
  // Plans and applies, slice by slice, until nothing more starts; how many attempts started.
  std::uint64_t plan_all();
  // One pass with nothing remembered, changing nothing; how many placements it makes.
  [[nodiscard]] std::size_t full_pass() const;
  // One slice with nothing remembered.
  [[nodiscard]] sched::Plan slice(sched::PlanMemory& memory) const;

  [[nodiscard]] const engine::State& state() const { return state_; }
  [[nodiscard]] const sched::Policy& policy() const { return policy_; }
  [[nodiscard]] Instant now() const { return now_; }

 private:
  JobSpecPtr shape();
  void submit();
  engine::Decision run(const Command& command);

  FullClusterOptions options_;
  Random random_;
  engine::State state_;
  sched::Policy policy_;
  sched::PlanMemory memory_;
  Instant now_;
  std::vector<JobSpecPtr> shapes_;
};

}  // namespace muster::sim
