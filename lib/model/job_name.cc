#include "lib/model/job_name.h"

namespace muster {

std::string job_name(const Job& job) {
  if (job.is_array_record || job.array == JobId{}) {
    return std::to_string(job.id.value);
  }
  return std::to_string(job.array.value) + "_" + std::to_string(job.spec->array->index_at(job.array_position));
}

}  // namespace muster
