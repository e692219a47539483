// Which jobs a selector means, and whether the caller may touch them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/engine/engine.h"

namespace muster::engine {

// One thing selected: a single job or a started task (`job`), or waiting tasks of an array (`array`, `positions`).
struct Selected {
  const Job* job = nullptr;
  const Job* array = nullptr;
  std::vector<PositionRange> positions;  // of `array`, all of them waiting
  bool whole_array = false;              // the record itself was meant, not single tasks of it
};

// Problems with single ids go to `notes`, ids that no job has to `unknown`; `denied` is set when permission was the
// problem.
std::vector<Selected> select_jobs(const State& state, const JobSelector& selector, const Caller& caller,
                                  std::vector<std::string>& notes, std::vector<JobId>& unknown, bool& denied);

}  // namespace muster::engine
