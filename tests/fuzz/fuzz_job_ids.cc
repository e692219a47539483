#include "cli/job_ids.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const std::string_view text = fuzz::text_of(data, size);
  const auto items = cli::parse_job_list(text);
  if (items.ok()) {
    MUSTER_CHECK(!items->empty() && items->size() <= cli::kJobIdsMax);
    for (const JobSelector::Item& item : *items) {
      MUSTER_CHECK(item.id.value != 0 && item.has_indices == !item.indices.empty());
      for (const ArrayRange& range : item.indices) MUSTER_CHECK(range.step >= 1 && range.first <= range.last);
    }
  } else {
    fuzz::check_error(items.error());
  }
  if (const auto states = cli::parse_states(text, "--states"); !states.ok()) fuzz::check_error(states.error());
  return 0;
}
