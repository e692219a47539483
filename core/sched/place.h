// Placement of one job: which nodes, cores, GPUs and how much memory, first fit in node order.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/sched/ledger.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// What a job's request means on one node with `tasks` tasks there.
struct NodeNeed {
  std::uint32_t cores = 0;
  std::uint32_t gpus = 0;
  std::uint64_t mem_mib = 0;
};

// Why a request cannot be placed.
enum class Obstacle {
  kNone,
  kNoNodes,      // the queue has no node that has ever registered
  kNodeList,     // a node asked for by name is unknown or excluded
  kTooManyNodes, // fewer nodes than asked for
  kCores,
  kMemory,
  kGpus,
};

struct PlaceResult {
  std::vector<NodeShare> shares;  // empty: no placement
  Obstacle obstacle = Obstacle::kNone;
  std::string detail;  // a sentence for people: what is missing, with numbers
};

// Which resources count as there.
enum class Assume {
  kFreeNow,       // usable nodes, what is free on them
  kUsableEmpty,   // usable nodes, as if nothing ran
  kAllEmpty,      // every node that ever registered, as if nothing ran and none were drained or away
};

// `allowed` lists the names of nodes that may be used; empty means all. The spec must be normalised (engine/normalise.h).
PlaceResult place(const Draft& draft, const JobSpec& spec, const std::vector<std::string>& allowed, Assume assume);

}  // namespace muster::sched
