#include "core/sched/fit_index.h"

#include "lib/base/check.h"

namespace muster::sched {

void FitIndex::erase(std::uint32_t rank, Free free) {
  const auto bucket = buckets_.find(free);
  MUSTER_CHECK(bucket != buckets_.end() && bucket->second.contains(rank));
  bucket->second.erase(rank);
  if (bucket->second.empty()) {
    buckets_.erase(bucket);
  }
}

}  // namespace muster::sched
