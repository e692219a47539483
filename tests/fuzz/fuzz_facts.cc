// Rows of the journal.
#include "lib/wire/codec.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const auto facts = wire::decode_facts(fuzz::text_of(data, size));
  if (!facts.ok()) {
    fuzz::check_error(facts.error());
    MUSTER_CHECK(facts.error().code == ErrorCode::kCorrupt);
    return 0;
  }
  const auto again = wire::decode_facts(wire::encode_facts(*facts));
  MUSTER_CHECK(again.ok() && *again == *facts);
  return 0;
}
