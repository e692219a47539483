#include "lib/io/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>

#include "lib/base/text.h"

namespace muster::io {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};

// Never destroyed, so that threads may log while the process exits.
struct Output {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> logger;
};

std::shared_ptr<spdlog::logger> make_logger(spdlog::sink_ptr sink) {
  auto logger = std::make_shared<spdlog::logger>("muster", std::move(sink));
  logger->set_pattern("time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v", spdlog::pattern_time_type::utc);
  logger->set_level(spdlog::level::trace);
  logger->flush_on(spdlog::level::trace);
  return logger;
}

Output& output() {
  static Output* const instance = [] {
    auto* made = new Output;
    made->logger = make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>());
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

void append_value(std::string& line, std::string_view value) {
  constexpr std::size_t kValueBytesMax = 4096;  // of one value, so that hostile input cannot fill the disk by the log
  std::string safe = printable(value.substr(0, kValueBytesMax));
  if (value.size() > kValueBytesMax) safe += "...";
  const bool plain = !safe.empty() && safe.find_first_of(" \"=\\") == std::string::npos;
  if (plain) {
    line += safe;
    return;
  }
  line += '"';
  for (const char c : safe) {
    if (c == '"') line += '\\';
    line += c;
  }
  line += '"';
}

}  // namespace

Result<LogLevel> parse_log_level(std::string_view text) {
  if (text == "debug") return LogLevel::kDebug;
  if (text == "info") return LogLevel::kInfo;
  if (text == "warning") return LogLevel::kWarning;
  if (text == "error") return LogLevel::kError;
  if (text == "off") return LogLevel::kOff;
  return invalid_argument("unknown log level \"" + printable(text.substr(0, 40)) +
                          "\": give debug, info, warning, error or off");
}

Status log_init(LogLevel level, const std::string& file) {
  std::shared_ptr<spdlog::logger> logger;
  try {
    if (file.empty()) {
      logger = make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>());
    } else {
      logger = make_logger(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file));
    }
    // A full disk must not end a daemon: what cannot be written is dropped without a word.
    logger->set_error_handler([](const std::string&) {});
  } catch (const spdlog::spdlog_ex& error) {
    return make_error(ErrorCode::kIo, "cannot write the log file: " + printable(error.what()));
  }
  Output& out = output();
  const std::lock_guard lock(out.mutex);
  out.logger = std::move(logger);
  g_level = level;
  return ok_status();
}

bool log_enabled(LogLevel level) {
  return level != LogLevel::kOff && level >= g_level.load(std::memory_order_relaxed);
}

std::string format_log_fields(std::string_view message, LogFields fields) {
  std::string line = "msg=";
  append_value(line, message);
  for (const LogField& field : fields) {
    line.append(1, ' ').append(field.key).append(1, '=');
    append_value(line, field.value);
  }
  return line;
}

void log(LogLevel level, std::string_view message, LogFields fields) {
  if (!log_enabled(level)) return;
  const std::string line = format_log_fields(message, fields);
  std::shared_ptr<spdlog::logger> logger;
  {
    Output& out = output();
    const std::lock_guard lock(out.mutex);
    logger = out.logger;
  }
  logger->log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace muster::io
