#include "sim/replay/swf.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "lib/base/text.h"

namespace muster::sim {
namespace {

constexpr std::size_t kFields = 18;
constexpr std::size_t kReadBytes = 262'144;

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

std::string_view trim_blanks(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// The next word of a line without blanks at its beginning; takes the blanks behind it away too.
std::string_view next_word(std::string_view& rest) {
  std::size_t end = 0;
  while (end < rest.size() && !is_blank(rest[end])) ++end;
  const std::string_view word = rest.substr(0, end);
  while (end < rest.size() && is_blank(rest[end])) ++end;
  rest.remove_prefix(end);
  return word;
}

// A decimal number, its fraction cut off. Archives hold whole numbers but for a few averages.
std::optional<std::int64_t> read_number(std::string_view word) {
  if (word.starts_with('+') && !word.starts_with("+-")) word.remove_prefix(1);
  const char* const end = word.data() + word.size();
  std::int64_t whole = 0;
  const auto as_integer = std::from_chars(word.data(), end, whole);
  if (as_integer.ec == std::errc{} && as_integer.ptr == end) {
    return std::clamp(whole, -kSwfValueMax - 1, kSwfValueMax + 1);
  }
  double value = 0;
  const auto as_double = std::from_chars(word.data(), end, value);
  if (as_double.ec != std::errc{} || as_double.ptr != end || !std::isfinite(value)) return std::nullopt;
  const auto limit = static_cast<double>(kSwfValueMax + 1);
  return static_cast<std::int64_t>(std::clamp(std::trunc(value), -limit, limit));
}

struct NamedField {
  std::size_t index;  // from 0
  const char* name;
  std::int64_t SwfRecord::*value;
};
constexpr NamedField kUsed[] = {{0, "job number", &SwfRecord::number},
                                {1, "submit time", &SwfRecord::submit_s},
                                {3, "run time", &SwfRecord::run_s},
                                {4, "allocated processors", &SwfRecord::allocated},
                                {7, "requested processors", &SwfRecord::requested},
                                {8, "requested time", &SwfRecord::estimate_s}};

std::string shown(std::string_view word) {
  return "\"" + printable(word.substr(0, 40)) + "\"";
}

struct GzClose {
  void operator()(gzFile file) const { gzclose_r(file); }
};

}  // namespace

void SwfParser::bad(const std::string& why) {
  ++log_.bad_lines;
  if (log_.first_bad.size() < kSwfBadLinesKept) {
    log_.first_bad.push_back("line " + std::to_string(log_.lines) + ": " + why);
  }
}

// "; MaxProcs: 338", also with words behind the number.
void SwfParser::take_comment(std::string_view line) {
  const auto number_behind = [&](std::string_view name) -> std::int64_t {
    std::string_view rest = trim_blanks(line.substr(1));
    if (!rest.starts_with(name)) return 0;
    rest = trim_blanks(rest.substr(name.size()));
    if (!rest.starts_with(':')) return 0;
    rest = trim_blanks(rest.substr(1));
    std::int64_t value = 0;
    const auto read = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    return read.ec == std::errc{} && value > 0 ? value : 0;
  };
  if (max_procs_ == 0) max_procs_ = number_behind("MaxProcs");
  if (max_nodes_ == 0) max_nodes_ = number_behind("MaxNodes");
}

Status SwfParser::take_line(std::string_view line) {
  line = trim_blanks(line);
  if (line.empty()) return ok_status();
  if (line.front() == ';') {
    take_comment(line);
    return ok_status();
  }
  std::array<std::int64_t, kFields> values{};
  std::size_t count = 0;
  for (std::string_view rest = line; !rest.empty(); ++count) {
    const std::string_view word = next_word(rest);
    if (count >= kFields) continue;
    const auto value = read_number(word);
    if (!value) {
      bad("field " + std::to_string(count + 1) + " is " + shown(word) + ", which is no number");
      return ok_status();
    }
    values[count] = *value;
  }
  if (count != kFields) {
    bad(std::to_string(count) + (count == 1 ? " field" : " fields") + " in place of " + std::to_string(kFields));
    return ok_status();
  }
  SwfRecord record;
  for (const NamedField& field : kUsed) {
    const std::int64_t value = values[field.index];
    if (value > kSwfValueMax || value < -kSwfValueMax) {
      bad("the " + std::string(field.name) + " is beyond " + std::to_string(kSwfValueMax));
      return ok_status();
    }
    record.*field.value = value;
  }
  if (record.submit_s < 0) {
    bad("the submit time is missing");
    return ok_status();
  }
  if (log_.records.size() >= kSwfJobsMax) {
    return make_error(ErrorCode::kLimitReached,
                      "more than " + std::to_string(kSwfJobsMax) + " jobs: replay the log in parts");
  }
  log_.records.push_back(record);
  return ok_status();
}

Status SwfParser::line_ended() {
  ++log_.lines;
  const std::string_view line = trim_blanks(line_);
  Status status = ok_status();
  if (too_long_ && !line.starts_with(';')) {
    bad("longer than " + std::to_string(kSwfLineMax) + " bytes");
  } else {
    status = take_line(line);
  }
  line_.clear();
  too_long_ = false;
  return status;
}

Status SwfParser::feed(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    const std::size_t room = kSwfLineMax - line_.size();
    line_.append(part.substr(0, room));
    too_long_ = too_long_ || part.size() > room;
    if (end == std::string_view::npos) return ok_status();
    bytes.remove_prefix(end + 1);
    MUSTER_TRY(line_ended());
  }
  return ok_status();
}

Result<SwfLog> SwfParser::finish() {
  if (!line_.empty()) MUSTER_TRY(line_ended());
  log_.processors = max_procs_ != 0 ? max_procs_ : max_nodes_;
  return std::move(log_);
}

Result<SwfLog> read_swf(const std::string& path) {
  errno = 0;
  const std::unique_ptr<gzFile_s, GzClose> file(gzopen(path.c_str(), "rbe"));
  if (!file) {
    return make_error(ErrorCode::kIo,
                      "cannot read " + printable(path) + ": " + std::strerror(errno == 0 ? ENOMEM : errno));
  }
  gzbuffer(file.get(), kReadBytes);
  SwfParser parser;
  std::string piece(kReadBytes, '\0');
  while (true) {
    const int got = gzread(file.get(), piece.data(), static_cast<unsigned>(piece.size()));
    // The end of a compressed file that was cut off is no error to gzread until the next call.
    int code = Z_OK;
    const char* const message = gzerror(file.get(), &code);
    if (got < 0 || code == Z_BUF_ERROR) {
      if (code == Z_ERRNO) {
        return make_error(ErrorCode::kIo, "cannot read " + printable(path) + ": " + std::strerror(errno));
      }
      return make_error(ErrorCode::kCorrupt, printable(path) + " is damaged: " + printable(message) +
                                                 ": fetch it again, or check it with gzip -t");
    }
    if (got == 0) break;
    if (auto fed = parser.feed(std::string_view(piece).substr(0, static_cast<std::size_t>(got))); !fed.ok()) {
      return make_error(fed.error().code, printable(path) + " holds " + fed.error().message);
    }
  }
  return parser.finish();
}

namespace {

std::int64_t width_of(const SwfRecord& record, TraceWidth width) {
  switch (width) {
    case TraceWidth::kRequested:
      return record.requested > 0 ? record.requested : record.allocated;
    case TraceWidth::kAllocated:
      return record.allocated > 0 ? record.allocated : record.requested;
    case TraceWidth::kLargest:
      return std::max(record.allocated, record.requested);
  }
  return 0;
}

// Width 0: the filter drops the job.
TraceJob trace_job(const SwfRecord& record, const TraceOptions& options, std::int64_t machine) {
  TraceJob job;
  job.number = record.number;
  const bool strict = options.filter == TraceFilter::kStrict;
  const std::int64_t width = width_of(record, options.width);
  if (record.run_s <= 0 || width <= 0 || width > machine) return job;
  if (strict && (record.estimate_s <= 0 || record.allocated > machine || record.requested > machine)) return job;
  job.submit_s = record.submit_s;
  job.estimate_s = record.estimate_s > 0 ? record.estimate_s : record.run_s;
  job.run_s = std::min(record.run_s, job.estimate_s);
  if (options.perfect_estimates) job.estimate_s = job.run_s;
  job.width = width;
  return job;
}

}  // namespace

Result<Trace> select_jobs(const SwfLog& log, const TraceOptions& options) {
  Trace trace;
  trace.machine = options.machine != 0 ? options.machine : log.processors;
  if (trace.machine <= 0) {
    return make_error(ErrorCode::kRefused, "it names no machine size (\"; MaxProcs: N\"): give --machine CORES");
  }
  if (trace.machine > kReplayMachineMax) {
    return make_error(ErrorCode::kLimitReached, "a machine of " + std::to_string(trace.machine) +
                                                    " cores is too large: at most " +
                                                    std::to_string(kReplayMachineMax) + " can be replayed");
  }
  for (const SwfRecord& record : log.records) {
    if (options.jobs_max != 0 && trace.jobs.size() == options.jobs_max) break;
    const TraceJob job = trace_job(record, options, trace.machine);
    if (job.width == 0) {
      ++trace.dropped;
    } else {
      trace.jobs.push_back(job);
    }
  }
  if (trace.jobs.empty()) {
    std::string why = "it holds no job that can be replayed: ";
    if (log.records.empty()) {
      why += log.bad_lines == 0 ? "it is empty" : "every line is bad, beginning with " + log.first_bad.front();
    } else {
      why += "all " + std::to_string(log.records.size()) + " lack a run time, an estimate or a width up to " +
             std::to_string(trace.machine) + " cores";
      if (options.filter == TraceFilter::kStrict) why += " (--filter none needs no estimates)";
    }
    return make_error(ErrorCode::kRefused, why);
  }
  return trace;
}

}  // namespace muster::sim
