#include "cli/script_header.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const auto header = cli::parse_script_header(fuzz::text_of(data, size), "job.sh");
  if (!header.ok()) {
    fuzz::check_error(header.error());
    return 0;
  }
  MUSTER_CHECK(header->directives.size() <= cli::kDirectivesMax);
  std::size_t line = 0;
  for (const cli::Directive& directive : header->directives) {
    MUSTER_CHECK(directive.line > line);  // in the order of the script, one for each line
    line = directive.line;
    MUSTER_CHECK(directive.words.size() <= cli::kDirectiveWordsMax);
    for (const std::string& word : directive.words) MUSTER_CHECK(word.find('\0') == std::string::npos);
  }
  return 0;
}
