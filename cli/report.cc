#include "cli/report.h"

#include <unistd.h>

#include <string>

#include "lib/base/text.h"

namespace muster::cli {
namespace {

// A plain array, so that no constructor runs before main.
char g_program_name[32] = "muster";

}  // namespace

void set_program_name(std::string_view name) {
  const std::size_t length = name.copy(g_program_name, sizeof g_program_name - 1);
  g_program_name[length] = '\0';
}

std::string_view program_name() {
  return g_program_name;
}

void error_line(std::string_view message) {
  std::string line = std::string(program_name()) + ": " + printable(message) + "\n";
  // One write, so that lines of processes that share a terminal do not mix.
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = write(STDERR_FILENO, rest.data(), rest.size());
    if (written <= 0) return;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

int exit_status_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kUnavailable:
      return kExitUnreachable;
    case ErrorCode::kPermissionDenied:
      return kExitNotPermitted;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kAlreadyExists:
    case ErrorCode::kRefused:
    case ErrorCode::kLimitReached:
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return kExitRefused;
  }
  return kExitRefused;
}

int report_error(const Error& error) {
  error_line(error.message);
  return exit_status_of(error);
}

}  // namespace muster::cli
