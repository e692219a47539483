#include "lib/model/constraint.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const auto constraint = parse_constraint(fuzz::text_of(data, size), "--constraint");
  if (!constraint.ok()) {
    fuzz::check_error(constraint.error());
    return 0;
  }
  for (const std::string& feature : features_of(*constraint)) MUSTER_CHECK(is_valid_feature(feature));
  MUSTER_CHECK(constraint->empty() == features_of(*constraint).empty());
  const std::string text = format_constraint(*constraint);
  const auto again = parse_constraint(text, "--constraint");
  // Parentheses are added, so a text at the limits may get longer than they allow.
  if (!again.ok()) {
    MUSTER_CHECK(text.size() > kConstraintBytesMax);
    return 0;
  }
  MUSTER_CHECK(*again == *constraint);
  MUSTER_CHECK(format_constraint(*again) == text);
  return 0;
}
