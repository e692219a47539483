// The orders of the scheduling literature as order policies of the replay. Their costs are IEEE doubles, computed as
// the studies write them, so they belong to the simulation and not to the core.
//
// With w = now - submission, e = time limit, n = cores, the smaller cost is served first:
//   fcfs    s
//   sjf     e
//   saf     e * n
//   wfp3    -(w / e)^3 * n                    (Tang et al., CLUSTER 2009)
//   unicef  -w / (log2(max(n, 2)) * e)        (the same)
#pragma once

#include <cstdint>

#include "core/sched/order.h"

namespace muster::sim {

enum class LiteratureCost { kFcfs, kSjf, kSaf, kWfp3, kUnicef };

class LiteratureOrder final : public sched::Order {
 public:
  explicit LiteratureOrder(LiteratureCost cost) : cost_(cost) {}
  // The cost's place among all doubles, negated: of two costs the smaller one has more points, equal ones have equal.
  [[nodiscard]] std::int64_t points(const JobSpec& spec, Instant since, Instant now) const override;

 private:
  LiteratureCost cost_;
};

// Keeps the order of all doubles; the two zeros are equal. `value` must be a number.
[[nodiscard]] std::int64_t place_of_double(double value);

}  // namespace muster::sim
