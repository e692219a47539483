// `muster simulate`: the replay lives in muster-sim, because this program knows no scheduling. muster-sim checks the
// values of the options too.
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cli/commands.h"
#include "cli/report.h"
#include "lib/io/process.h"

namespace muster::cli {

int command_simulate(const Parsed& parsed) {
  const auto program = io::find_program("muster-sim");
  if (!program.ok()) {
    error_line("simulate: " + program.error().message);
    return kExitRefused;
  }
  // The first word is what messages begin with.
  std::vector<std::string> words = {"muster", "replay"};
  for (const Given& given : parsed.given) {
    words.push_back("--" + std::string(given.option->name) + (given.value ? "=" + *given.value : ""));
  }
  words.emplace_back("--");
  words.insert(words.end(), parsed.operands.begin(), parsed.operands.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program->c_str(), argv.data());
  error_line("simulate: cannot start " + *program + ": " + std::strerror(errno));
  return kExitRefused;
}

}  // namespace muster::cli
