#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const auto duration = parse_duration(fuzz::text_of(data, size));
  if (!duration.ok()) {
    fuzz::check_error(duration.error());
    return 0;
  }
  MUSTER_CHECK(*duration >= Duration{} && *duration <= Duration::infinite());
  const auto again = parse_duration(format_duration(*duration));
  MUSTER_CHECK(again.ok() && *again == *duration);
  return 0;
}
