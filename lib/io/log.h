// Logging for shells: one line for each fact, `time=.. level=.. msg=".." key=value ..`. Every thread may log.
//
//   log_info("node registered", {{"node", name}, {"cpus", cpus}});
//
// Values are quoted when they need it and made printable. No secrets.
#pragma once

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>

#include "lib/base/result.h"

namespace muster::io {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };
// "debug", "info", "warning", "error", "off".
Result<LogLevel> parse_log_level(std::string_view text);

struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(v) {}
  LogField(std::string_view k, const char* v) : key(k), value(v) {}
  LogField(std::string_view k, bool v) : key(k), value(v ? "true" : "false") {}
  template <std::integral T>
  LogField(std::string_view k, T v) : key(k), value(std::to_string(v)) {}

  std::string_view key;
  std::string value;
};
using LogFields = std::initializer_list<LogField>;

// Where lines go from now on: appended to `file`, or to standard error when it is empty. Until the first call:
// standard error, kInfo.
Status log_init(LogLevel level, const std::string& file);
[[nodiscard]] bool log_enabled(LogLevel level);

void log(LogLevel level, std::string_view message, LogFields fields = {});
inline void log_debug(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kDebug, message, fields);
}
inline void log_info(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kInfo, message, fields);
}
inline void log_warning(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kWarning, message, fields);
}
inline void log_error(std::string_view message, LogFields fields = {}) {
  log(LogLevel::kError, message, fields);
}

// `msg="..." key=value ...`, as the line has it after its time and level.
std::string format_log_fields(std::string_view message, LogFields fields);

}  // namespace muster::io
