// The stream between noded and shepherd, in pieces as a socket gives them; and the file of an outcome.
#include "noded/shepherd_protocol.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const std::string_view bytes = fuzz::text_of(data, size);
  noded::FrameReader reader;
  for (std::size_t begin = 0, piece = 1; begin < bytes.size(); begin += piece, piece = piece * 2 + 1) {
    reader.append(bytes.substr(begin, piece));
    noded::Frame frame;
    for (;;) {
      const auto more = reader.next(frame);
      if (!more.ok()) {
        fuzz::check_error(more.error());
        return 0;
      }
      if (!*more) break;
      noded::FrameReader copy;
      noded::Frame again;
      copy.append(noded::encode_frame(frame));
      const auto read = copy.next(again);
      MUSTER_CHECK(read.ok() && *read && again == frame);
    }
  }
  const auto outcome = noded::decode_outcome(bytes);
  if (outcome.ok()) {
    const auto again = noded::decode_outcome(noded::encode_outcome(*outcome));
    MUSTER_CHECK(again.ok() && *again == *outcome);
  } else {
    fuzz::check_error(outcome.error());
  }
  return 0;
}
