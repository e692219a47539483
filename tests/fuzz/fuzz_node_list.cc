#include <algorithm>

#include "lib/base/index_set.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const std::string_view text = fuzz::text_of(data, size);
  const auto names = expand_node_list(text);
  if (names.ok()) {
    MUSTER_CHECK(names->size() <= kNodeListMax);
    MUSTER_CHECK(std::all_of(names->begin(), names->end(), is_valid_node_name));
    std::vector<std::string> sorted = *names;
    std::sort(sorted.begin(), sorted.end());
    MUSTER_CHECK(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end());
    const auto again = expand_node_list(fold_node_list(*names));
    MUSTER_CHECK(again.ok() && *again == *names);
  } else {
    fuzz::check_error(names.error());
  }
  const auto indices = IndexSet::parse(text);
  if (indices.ok()) {
    const auto again = IndexSet::parse(indices->to_string());
    MUSTER_CHECK(again.ok() && *again == *indices);
    MUSTER_CHECK(indices->to_vector().size() == indices->count());
  } else {
    fuzz::check_error(indices.error());
  }
  return 0;
}
