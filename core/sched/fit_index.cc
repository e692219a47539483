#include "core/sched/fit_index.h"

#include "lib/base/check.h"

namespace muster::sched {

void FitIndex::erase(std::uint32_t rank, Free free) {
  const auto bucket = buckets_.find(free);
  MUSTER_CHECK(bucket != buckets_.end() && bucket->second.ranks.contains(rank));
  bucket->second.ranks.erase(rank);
  if (--bucket->second.nodes == 0) {
    buckets_.erase(bucket);
  }
}

}  // namespace muster::sched
