// The program `muster`, which answers to the name srun too.
#include <signal.h>
#include <unistd.h>

#include <exception>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/report.h"
#include "cli/table.h"
#include "lib/base/text.h"

namespace muster::cli {
namespace {

int dispatch(Command command, const Parsed& parsed) {
  switch (command) {
    case kSubmit:
      return command_submit(parsed);
    case kRun:
    case kSrun:
      return command_run(command, parsed);
    case kAlloc:
      return command_alloc(parsed);
    case kQueue:
      return command_queue(parsed);
    case kShow:
      return command_show(parsed);
    case kWhy:
      return command_why(parsed);
    case kNodes:
      return command_nodes(parsed);
    case kCancel:
      return command_cancel(parsed);
    case kHold:
      return command_hold(parsed);
    case kRelease:
      return command_release(parsed);
    case kRequeue:
    case kSuspend:
    case kContinue:
      return command_running(command, parsed);
    case kHistory:
      return command_history(parsed);
    case kUpdate:
      return command_update(parsed);
    case kDrain:
      return command_drain(parsed);
    case kResume:
      return command_resume(parsed);
    case kLogs:
      return command_logs(parsed);
    case kPing:
      return command_ping(parsed);
    case kAccount:
    case kUser:
    case kQos:
      return command_accounting(command, parsed);
    case kReservation:
      return command_reservation(parsed);
    case kKeygen:
      return command_keygen(parsed);
    case kLocal:
      return command_local(parsed);
    case kSimulate:
      return command_simulate(parsed);
    case kVersion:
      return command_version(parsed);
    case kCompletion:
      return command_completion(parsed);
    case kHelp:
      return command_help(parsed);
    case kNoCommand:
      break;
  }
  return usage_error("no command");
}

// The options of every command may also stand before its name; only the few that make sense there are taken.
int run(const std::vector<std::string>& words, bool as_srun) {
  const CommandInfo* info = as_srun ? find_command("srun") : nullptr;
  std::vector<std::string> rest = words;
  if (!as_srun) {
    if (words.empty()) return usage_error("no command: see `muster help`");
    std::string name = words.front();
    rest.erase(rest.begin());
    if (name == "--help" || name == "-h") name = "help";
    if (name == "--version" || name == "-V") name = "version";
    info = find_command(name);
    if (info == nullptr || info->command == kSrun) {
      constexpr std::string_view kLaterCommands[] = {"checkpoint", "top", "attach"};
      for (const std::string_view later : kLaterCommands) {
        if (name == later) return usage_error(name + " is not supported yet: see `muster help` for what is");
      }
      if (name.starts_with("-"))
        return usage_error("\"" + name + "\" stands before the command: write muster COMMAND " + name);
      std::vector<std::string> names;
      for (const CommandInfo& one : command_table()) names.emplace_back(one.name);
      const std::string nearest = nearest_word(name, names);
      return usage_error("unknown command \"" + name +
                         "\": " + (nearest.empty() ? "see `muster help`" : "did you mean " + nearest + "?"));
    }
  }
  const auto parsed = parse_command_line(info->command, rest);
  if (!parsed.ok()) return usage_error(parsed.error());
  if (parsed->has(OptionId::kHelp) || parsed->has(OptionId::kUsage)) {
    print(help_text(info->command));
    return kExitOk;
  }
  return dispatch(info->command, *parsed);
}

}  // namespace
}  // namespace muster::cli

int main(int argc, char** argv) {
  // A reader that went away ends the command by a failed write, which each of them handles.
  signal(SIGPIPE, SIG_IGN);
  try {
    const std::string_view path = argc > 0 ? argv[0] : "muster";
    const std::string_view name = path.substr(path.find_last_of('/') + 1);
    const bool as_srun = name == "srun";
    if (as_srun) muster::cli::set_program_name("srun");
    // Not by return: what was to be said is said, and threads of ZeroMQ may still run.
    _exit(muster::cli::run(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc), as_srun));
  } catch (const std::exception& failure) {
    muster::cli::error_line(std::string("internal error: ") + failure.what());
    return muster::cli::kExitRefused;
  }
}
