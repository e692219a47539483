// The order of pending jobs: which one is served first.
#pragma once

#include <cstdint>

#include "lib/base/time.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// More points are served first; equal ones by age, then by id. Of two jobs of one group (pending.h) the older one must
// never have fewer points.
class Order {
 public:
  virtual ~Order() = default;
  [[nodiscard]] virtual std::int64_t points(const JobSpec& spec, Instant since, Instant now) const = 0;
  // The part of the points that has nothing to do with age and size.
  [[nodiscard]] virtual std::int64_t standing(const JobSpec& spec) const {
    static_cast<void>(spec);
    return 0;
  }
};

// log2(x) in units of 2^-16, rounded down; x must not be 0.
[[nodiscard]] std::int64_t log2_q16(std::uint64_t x);

// A longer limit counts as this one, so that jobs without a limit rise as they wait, too.
inline constexpr Duration kAgeLimitMax = Duration::from_s(30 * 86'400);

// The points of age: log2((waited / limit)^exponent * cpus), in units of 2^-16. This is the order WFP3 of Tang et al.,
// "Fault-aware, utility-based job scheduling on Blue Gene/P systems" (CLUSTER 2009), as a logarithm: a job rises by the
// same number of points each time that its waiting time doubles, the sooner the shorter its limit is.
[[nodiscard]] std::int64_t age_points(Duration waited, Duration limit, std::uint64_t cpus, std::uint32_t exponent);

}  // namespace muster::sched
