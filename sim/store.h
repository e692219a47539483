// Store: the controller's disk in the simulation. Rows of the journal, a snapshot that stands for the first of them,
// and history, which is written in the same transaction as the facts it comes from. Survives every crash; what a crash
// catches being written is either wholly there or not at all.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "lib/model/job.h"

namespace muster::sim {

struct Store {
  std::vector<std::string> rows;
  std::string snapshot;             // empty: none
  std::size_t snapshot_rows = 0;    // how many rows it stands for
  std::vector<JobSummary> history;  // in the order of commit
};

}  // namespace muster::sim
