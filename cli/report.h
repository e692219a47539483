// How commands speak: one line on standard error, `muster: what is wrong: what to do`, and the exit status of cli.md.
#pragma once

#include <string_view>

#include "lib/base/result.h"

namespace muster::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitRefused = 1;      // the operation was refused or failed
inline constexpr int kExitUsage = 2;        // wrong usage
inline constexpr int kExitUnreachable = 3;  // the controller cannot be reached
inline constexpr int kExitNotPermitted = 4;

// The name that begins every message: "muster", or "srun" under that name. Set once by main.
void set_program_name(std::string_view name);
std::string_view program_name();

// Prints "muster: MESSAGE" as one line; control characters in it are made printable.
void error_line(std::string_view message);
// Prints the error and returns the exit status that belongs to its code.
int report_error(const Error& error);
int exit_status_of(const Error& error);

}  // namespace muster::cli
