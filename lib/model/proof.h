// PlacementProof: what the kernel said of an attempt's tasks on one node when they began, beside what was decided for them.
// A value, made by the node and kept with the job. It is bounded however many tasks and steps there are.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/index_set.h"

namespace muster {

// The number that stands for the batch script where steps are numbered.
inline constexpr std::uint32_t kScriptStep = UINT32_MAX;

// One task, as it was before its program began.
struct TaskProof {
  std::uint32_t step = kScriptStep;
  std::uint32_t rank = 0;
  IndexSet cpus;              // its affinity: OS numbers of hardware threads
  IndexSet memory;            // OS numbers of the NUMA nodes that it may have memory of
  bool memory_local = false;  // its policy takes memory where it runs
  bool own_group = false;     // it is in the cgroup of its job
  IndexSet gpus;              // the vendor's indices of those that it is to use
  // How near its affinity is to one of these GPUs, as core/topo grades it; true without GPUs.
  bool local_device = true;
  bool local_numa = true;
  bool local_package = true;
  bool as_decided = true;
  friend bool operator==(const TaskProof&, const TaskProof&) = default;
};

struct PlacementProof {
  bool pretended = false;    // the node pretends, so that nothing was bound and nothing could be compared
  std::uint32_t tasks = 0;   // read back so far, the script included
  std::uint32_t faults = 0;  // of them, those that are not as was decided
  std::string fault;         // the first of these, in words
  // The script, the tasks of the first step, and the first faults, as far as there is room (proof_tasks_max).
  std::vector<TaskProof> list;
  friend bool operator==(const PlacementProof&, const PlacementProof&) = default;
};

// What is to be said of a task.
struct Verdict {
  TaskProof proof;
  std::string fault;       // "CPUs 2 in place of 2-3"; empty: it is as decided
  bool pretended = false;  // of the node
};

// Faults that have an entry although there is no room for others.
inline constexpr std::size_t kProofFaultsMax = 16;
// The most entries that any proof has.
inline constexpr std::size_t kProofTasksMax = 512;
// Longer words about a fault are cut.
inline constexpr std::size_t kProofFaultBytesMax = 300;

// How many entries the proof of one of so many nodes of a job has room for, beside faults: some thousand for all of them.
[[nodiscard]] constexpr std::size_t proof_tasks_max(std::size_t nodes) {
  constexpr std::size_t kOfAllNodes = 4'096;
  constexpr std::size_t kNodesListed = 64;
  constexpr std::size_t kFaultsKept = kProofTasksMax - kProofFaultsMax;
  if (nodes > kNodesListed) {
    return 0;
  }
  const std::size_t each = kOfAllNodes / (nodes == 0 ? 1 : nodes);
  return each < kFaultsKept ? each : kFaultsKept;
}

}  // namespace muster
