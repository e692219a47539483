#include "lib/model/job_spec.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const auto spec = parse_array_spec(fuzz::text_of(data, size));
  if (!spec.ok()) {
    fuzz::check_error(spec.error());
    return 0;
  }
  MUSTER_CHECK(check_array_spec(*spec).ok());
  const auto again = parse_array_spec(format_array_spec(*spec));
  MUSTER_CHECK(again.ok() && *again == *spec);
  const std::uint64_t tasks = spec->size();
  MUSTER_CHECK(tasks >= 1 && tasks <= kArrayTasksMax);
  MUSTER_CHECK(spec->position_of(spec->min_index()) && spec->position_of(spec->max_index()));
  for (const std::uint64_t position : {std::uint64_t{0}, tasks / 3, tasks / 2, tasks - 1}) {
    const std::uint64_t index = spec->index_at(position);
    MUSTER_CHECK(index >= spec->min_index() && index <= spec->max_index());
    MUSTER_CHECK(spec->position_of(index) == position);
  }
  return 0;
}
