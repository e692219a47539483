// Configuration files, the one-line assignments of --set, and the settings that are changed at run time.
#include "lib/config/config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  const std::string_view text = fuzz::text_of(data, size);
  auto config = config::parse(text, "muster.toml", "/etc/muster");
  if (config.ok()) {
    MUSTER_CHECK(!config->queues.empty());
    // What is shown of a configuration can be written down and read back.
    for (const config::ShownKey& key : config::show(*config)) MUSTER_CHECK(!key.name.empty());
  } else {
    fuzz::check_error(config.error());
  }
  config::Config changed = config::defaults();
  if (const Status status = config::set_override(changed, text); !status.ok()) fuzz::check_error(status.error());
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) return 0;
  const config::Settings settings{{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))}};
  const auto at_run_time = config::with_settings(changed, settings);
  if (!at_run_time.ok()) fuzz::check_error(at_run_time.error());
  return 0;
}
