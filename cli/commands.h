// The commands of `muster`: each gets its options and operands and returns the program's exit status; it prints its own
// errors. main.cc chooses.
#pragma once

#include <string>
#include <string_view>

#include "cli/client.h"
#include "cli/options.h"

namespace muster::pb {
class JobView;
}  // namespace muster::pb

namespace muster::cli {

int command_submit(const Parsed& parsed);
int command_run(Command command, const Parsed& parsed);  // kRun or kSrun
int command_alloc(const Parsed& parsed);
int command_queue(const Parsed& parsed);
int command_show(const Parsed& parsed);
int command_why(const Parsed& parsed);
int command_nodes(const Parsed& parsed);
int command_history(const Parsed& parsed);
int command_cancel(const Parsed& parsed);
int command_hold(const Parsed& parsed);
int command_release(const Parsed& parsed);
int command_update(const Parsed& parsed);
int command_running(Command command, const Parsed& parsed);  // kRequeue, kSuspend, kContinue
int command_drain(const Parsed& parsed);
int command_resume(const Parsed& parsed);
int command_ping(const Parsed& parsed);
int command_accounting(Command command, const Parsed& parsed);  // kAccount, kUser or kQos
int command_reservation(const Parsed& parsed);
int command_logs(const Parsed& parsed);
int command_keygen(const Parsed& parsed);
int command_local(const Parsed& parsed);
int command_simulate(const Parsed& parsed);
int command_version(const Parsed& parsed);
int command_help(const Parsed& parsed);
int command_completion(const Parsed& parsed);

// Prints "what is wrong: what to do" and returns exit status 2.
int usage_error(const Error& error);
int usage_error(std::string_view message);

// The text of `muster COMMAND --help`, of `muster help`, and a man page (roff).
std::string help_text(Command command);
std::string overview_text();
std::string man_page(const std::string& name);

inline constexpr const char* kVersionText = "0.1.0";
// What `srun --version` claims, because launchers decide by it what they may ask for.
inline constexpr const char* kSlurmVersionText = "slurm 23.11.10";

// The name of the calling user.
std::string caller_name();
// "42", "42_7", "42_[1-3%2]"
std::string display_id(const pb::JobView& job);

}  // namespace muster::cli
