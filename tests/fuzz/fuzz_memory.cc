#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const std::string_view text = fuzz::text_of(data, size);
  const auto mib = parse_memory_mib(text);
  if (mib.ok()) {
    MUSTER_CHECK(*mib <= std::uint64_t{1} << 53);
    const auto again = parse_memory_mib(format_memory_mib(*mib));
    MUSTER_CHECK(again.ok() && *again == *mib);
  } else {
    fuzz::check_error(mib.error());
  }
  const auto count = parse_count(text, "--count", {1, 1'000'000});
  if (count.ok()) {
    MUSTER_CHECK(*count >= 1 && *count <= 1'000'000);
    MUSTER_CHECK(*parse_integer(text, "--count", INT64_MIN, INT64_MAX) == static_cast<std::int64_t>(*count));
  } else {
    fuzz::check_error(count.error());
  }
  return 0;
}
