// The values of single options: what they may look like and what they mean.
#include <signal.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cli/job_ids.h"
#include "cli/options.h"
#include "lib/base/text.h"
#include "lib/model/license.h"

namespace muster::cli {
namespace {

// Longest value of an option that is kept with a job: a path, a name, a comment.
constexpr std::size_t kTextMax = 4'096;
constexpr std::size_t kNameMax = 256;
// Wrapped commands may be as long as an argument of the system may be.
constexpr std::size_t kCommandMax = 128U << 10U;
// How long before the time limit --signal comes when it names no time, as Slurm has it.
constexpr Duration kSignalBeforeDefault = Duration::from_s(60);
constexpr std::int64_t kNiceMax = 2'147'483'645;

Error bad(std::string_view what, std::string_view text, std::string_view why) {
  std::string shown = printable(text.substr(0, 60));
  if (text.size() > 60) shown += "...";
  return invalid_argument(std::string(what) + ": \"" + shown + "\" " + std::string(why));
}

// Puts the option's name before an error of lib/base, which names the text only.
Error prefixed(std::string_view what, const Error& error) {
  return invalid_argument(std::string(what) + ": " + error.message);
}

Status check_text(std::string_view what, std::string_view text, std::size_t bytes_max) {
  if (text.size() > bytes_max)
    return bad(what, text, "is longer than " + std::to_string(bytes_max) + " bytes: shorten it");
  return ok_status();
}

Status check_name(std::string_view what, std::string_view text) {
  if (text.empty()) return invalid_argument(std::string(what) + ": the name is empty: write one");
  return check_text(what, text, kNameMax);
}

Status check_path(std::string_view what, std::string_view text) {
  if (text.empty()) return invalid_argument(std::string(what) + ": the path is empty: write one");
  return check_text(what, text, kTextMax);
}

Status check_choice(std::string_view what, std::string_view text, std::string_view choices) {
  for (const std::string_view choice : split(choices, '|')) {
    if (text == choice) return ok_status();
  }
  std::string list(choices);
  std::replace(list.begin(), list.end(), '|', ' ');
  return bad(what, text, "is none of: " + list);
}

// The words of sbatch, in either case.
Status check_mail_types(std::string_view what, std::string_view text) {
  constexpr std::string_view kTypes[] = {"NONE",          "BEGIN",          "END",        "FAIL",       "REQUEUE",
                                         "ALL",           "INVALID_DEPEND", "STAGE_OUT",  "TIME_LIMIT", "TIME_LIMIT_90",
                                         "TIME_LIMIT_80", "TIME_LIMIT_50",  "ARRAY_TASKS"};
  for (const std::string_view word : split(text, ',')) {
    std::string upper(word);
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
    if (std::find(std::begin(kTypes), std::end(kTypes), upper) == std::end(kTypes))
      return bad(what, word, "is no type of mail: use NONE, BEGIN, END, FAIL, REQUEUE, ALL, TIME_LIMIT or ARRAY_TASKS");
  }
  return ok_status();
}

Status check_node_list(std::string_view what, std::string_view text) {
  const auto names = expand_node_list(text);
  if (!names.ok()) return prefixed(what, names.error());
  if (names->empty())
    return invalid_argument(std::string(what) + ": the node list is empty: name nodes, such as n[1-4,7]");
  return ok_status();
}

Status check_key_value(std::string_view what, std::string_view text) {
  const std::size_t equals = text.find('=');
  const std::size_t dot = text.find('.');
  if (equals == std::string_view::npos || dot == std::string_view::npos || dot > equals || dot == 0) {
    return bad(what, text, "is not of the form section.key=value: for example node.kill_grace=5s");
  }
  return ok_status();
}

template <typename T>
Status status_of(const Result<T>& result) {
  if (!result.ok()) return result.error();
  return ok_status();
}

struct SignalName {
  const char* name;
  int number;
};
constexpr SignalName kSignals[] = {
    {"HUP", SIGHUP},   {"INT", SIGINT},     {"QUIT", SIGQUIT}, {"ABRT", SIGABRT}, {"KILL", SIGKILL},
    {"USR1", SIGUSR1}, {"SEGV", SIGSEGV},   {"USR2", SIGUSR2}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},
    {"TERM", SIGTERM}, {"CONT", SIGCONT},   {"STOP", SIGSTOP}, {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN},
    {"TTOU", SIGTTOU}, {"URG", SIGURG},     {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ}, {"VTALRM", SIGVTALRM},
    {"PROF", SIGPROF}, {"WINCH", SIGWINCH}, {"ILL", SIGILL},   {"TRAP", SIGTRAP}, {"BUS", SIGBUS},
    {"FPE", SIGFPE},   {"CHLD", SIGCHLD},   {"IO", SIGIO},     {"PWR", SIGPWR},   {"SYS", SIGSYS}};

}  // namespace

Result<NodeRange> parse_node_range(std::string_view text, std::string_view what) {
  const std::size_t dash = text.find('-', 1);  // a leading '-' is a negative number, which parse_count refuses
  MUSTER_ASSIGN(const std::uint64_t min, parse_count(text.substr(0, dash), what, {1, kCountMax}));
  if (dash == std::string_view::npos)
    return NodeRange{static_cast<std::uint32_t>(min), static_cast<std::uint32_t>(min)};
  MUSTER_ASSIGN(const std::uint64_t max, parse_count(text.substr(dash + 1), what, {1, kCountMax}));
  if (max < min) return bad(what, text, "ends below its beginning: write MIN-MAX");
  return NodeRange{static_cast<std::uint32_t>(min), static_cast<std::uint32_t>(max)};
}

Result<int> parse_signal(std::string_view text, std::string_view what) {
  if (!text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos) {
    MUSTER_ASSIGN(const std::uint64_t number, parse_count(text, what, {1, 64}));
    return static_cast<int>(number);
  }
  std::string name = to_lower(text);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return static_cast<char>(toupper(c)); });
  if (name.starts_with("SIG")) name.erase(0, 3);
  std::vector<std::string> names;
  for (const SignalName& signal : kSignals) {
    if (name == signal.name) return signal.number;
    names.emplace_back(signal.name);
  }
  const std::string nearest = nearest_word(name, names);
  return bad(what, text,
             "is no signal: " + (nearest.empty() ? std::string("use a name such as TERM or a number")
                                                 : "did you mean " + nearest + "?"));
}

Result<SignalBefore> parse_signal_before(std::string_view text, std::string_view what) {
  SignalBefore out;
  std::string_view rest = text;
  if (const auto colon = rest.find(':'); colon != std::string_view::npos) {
    if (to_lower(rest.substr(0, colon)) != "b") {
      return bad(what, text, "has an unknown letter before the colon: write B: for the batch shell alone, or nothing");
    }
    out.batch_only = true;
    rest.remove_prefix(colon + 1);
  }
  const auto at = rest.find('@');
  MUSTER_ASSIGN(out.signal, parse_signal(rest.substr(0, at), what));
  out.before = kSignalBeforeDefault;
  if (at != std::string_view::npos) {
    const std::string_view time = rest.substr(at + 1);
    const bool bare = !time.empty() && time.find_first_not_of("0123456789") == std::string_view::npos;
    // Slurm counts seconds here, and minutes everywhere else.
    const auto before = parse_duration(bare ? std::string(time) + "s" : std::string(time));
    if (!before.ok() || before->is_infinite()) {
      return bad(what, text, "ends in no time: write SIGNAL@SECONDS, as in USR1@90");
    }
    out.before = *before;
  }
  return out;
}

Result<Instant> parse_time(std::string_view text, std::string_view what, Instant now) {
  const auto refuse = [&] {
    return bad(what, text, "is no time: write 16:00, 2030-01-31, 2030-01-31T08:00, now+1h, now-1h or @UNIXSECONDS");
  };
  if (text == "now") return now;
  if (text.starts_with("now+") || text.starts_with("now-")) {
    // Slurm writes the unit as a word.
    std::string amount(text.substr(4));
    for (const auto& [word, letter] :
         {std::pair<std::string_view, char>{"seconds", 's'}, {"minutes", 'm'}, {"hours", 'h'}, {"days", 'd'}}) {
      if (amount.ends_with(word)) {
        amount.resize(amount.size() - word.size());
        amount += letter;
        break;
      }
    }
    if (!amount.empty() && amount.find_first_not_of("0123456789") == std::string::npos) amount += 's';
    const auto delay = parse_duration(amount);
    if (!delay.ok() || delay->is_infinite()) return refuse();
    return text[3] == '+' ? now + *delay : now - *delay;
  }
  if (text.starts_with("@")) {
    const auto seconds = parse_count(text.substr(1), what, {0, 253'402'300'799});  // the end of year 9999
    if (!seconds.ok()) return seconds.error();
    return Instant::from_s(static_cast<std::int64_t>(*seconds));
  }
  const time_t now_s = static_cast<time_t>(now.seconds());
  struct tm local {};
  localtime_r(&now_s, &local);
  local.tm_isdst = -1;
  local.tm_sec = local.tm_min = local.tm_hour = 0;
  const auto finish = [&]() -> Result<Instant> {
    const time_t seconds = mktime(&local);
    if (seconds == static_cast<time_t>(-1)) return refuse();
    return Instant::from_s(seconds);
  };
  if (text == "today") return finish();
  if (text == "tomorrow" || text == "midnight") {
    ++local.tm_mday;
    return finish();
  }
  std::string_view rest = text;
  if (rest == "noon") rest = "12:00";
  bool has_date = false;
  const auto number = [&](std::string_view part, std::uint64_t low, std::uint64_t high) -> int {
    if (part.empty() || part.size() > 4) return -1;
    const auto value = parse_count(part, what, {low, high});
    return value.ok() ? static_cast<int>(*value) : -1;
  };
  if (rest.find('-') != std::string_view::npos) {
    has_date = true;
    const std::size_t end = rest.find('T');
    const auto fields = split(rest.substr(0, end), '-');
    if (fields.size() != 3) return refuse();
    const int year = number(fields[0], 1970, 9999);
    const int month = number(fields[1], 1, 12);
    const int day = number(fields[2], 1, 31);
    if (year < 0 || month < 0 || day < 0) return refuse();
    local.tm_year = year - 1900;
    local.tm_mon = month - 1;
    local.tm_mday = day;
    if (end == std::string_view::npos) {
      auto instant = finish();
      return local.tm_mday == day ? instant : Result<Instant>(refuse());
    }
    rest = rest.substr(end + 1);
  }
  const auto fields = split(rest, ':');
  if (fields.size() != 2 && fields.size() != 3) return refuse();
  const int hour = number(fields[0], 0, 23);
  const int minute = number(fields[1], 0, 59);
  const int second = fields.size() == 3 ? number(fields[2], 0, 59) : 0;
  if (hour < 0 || minute < 0 || second < 0) return refuse();
  local.tm_hour = hour;
  local.tm_min = minute;
  local.tm_sec = second;
  const int day = local.tm_mday;
  MUSTER_ASSIGN(Instant instant, finish());
  if (local.tm_mday != day) return refuse();  // 31 February
  if (!has_date && instant <= now) {
    ++local.tm_mday;
    local.tm_isdst = -1;
    return finish();
  }
  return instant;
}

Result<ExportList> parse_export(std::string_view text, std::string_view what) {
  ExportList list;
  if (text.empty()) return bad(what, text, "is empty: use ALL, NONE or NAME,NAME=VALUE");
  if (text.find('\0') != std::string_view::npos) return bad(what, text, "holds a NUL byte: remove it");
  bool none = false;
  std::size_t i = 0;
  while (i <= text.size()) {
    std::string item;
    char quote = 0;
    for (; i < text.size() && (quote != 0 || text[i] != ','); ++i) {
      const char c = text[i];
      if (quote != 0 ? c == quote : (c == '\'' || c == '"')) {
        quote = quote != 0 ? '\0' : c;
      } else {
        item += c;
      }
    }
    if (quote != 0) return bad(what, text, "has a quote that is not closed: close it");
    ++i;
    const std::size_t equals = item.find('=');
    const std::string name = item.substr(0, equals);
    if (name.empty()) return bad(what, text, "has an empty name in it: use ALL, NONE or NAME,NAME=VALUE");
    if (equals != std::string::npos) {
      list.values.emplace_back(name, item.substr(equals + 1));
    } else if (name == "ALL") {
      list.all = true;
    } else if (name == "NONE" || name == "NIL") {
      none = true;
    } else {
      list.names.push_back(name);
    }
  }
  if (none && (list.all || !list.names.empty())) return bad(what, text, "names NONE beside others: use one of them");
  return list;
}

Result<std::uint32_t> parse_gpus(std::string_view text, std::string_view what) {
  if (const std::size_t colon = text.rfind(':'); colon != std::string_view::npos) {
    return bad(what, text, "asks for a type of GPU, which is not supported yet: write the number only");
  }
  MUSTER_ASSIGN(const std::uint64_t count, parse_count(text, what, {0, kCountMax}));
  return static_cast<std::uint32_t>(count);
}

Result<std::uint32_t> parse_gres(std::string_view text, std::string_view what) {
  if (text == "none") return 0U;
  if (text == "gpu") return 1U;
  if (!text.starts_with("gpu:"))
    return bad(what, text, "is not of the form gpu:N: other resources are not supported yet");
  return parse_gpus(text.substr(4), what);
}

bool takes_back(const Given& given) {
  return (given.option->flags & kTakesNone) != 0 && given.value == "none";
}

Status check_value(const Given& given) {
  const OptionInfo& option = *given.option;
  const std::string_view what = given.source;
  if (!given.value) return ok_status();
  const std::string& text = *given.value;
  if (text.find('\0') != std::string::npos) return bad(what, text, "holds a NUL byte: remove it");
  if (takes_back(given)) return ok_status();
  switch (option.kind) {
    case ValueKind::kFlag:
      return ok_status();
    case ValueKind::kText:
      if (option.id == OptionId::kMailType) return check_mail_types(what, text);
      return check_text(what, text, option.id == OptionId::kWrap ? kCommandMax : kTextMax);
    case ValueKind::kName:
      return check_name(what, text);
    case ValueKind::kPath:
      return check_path(what, text);
    case ValueKind::kCount:
      return status_of(parse_count(text, what, {1, option.id == OptionId::kJobId ? UINT64_MAX : kCountMax}));
    case ValueKind::kCountOrZero:
      return status_of(parse_count(text, what, {0, kCountMax}));
    case ValueKind::kNodeRange:
      return status_of(parse_node_range(text, what));
    case ValueKind::kNodeList:
      return check_node_list(what, text);
    case ValueKind::kDuration: {
      const auto duration = parse_duration(text);
      if (!duration.ok()) return prefixed(what, duration.error());
      if (duration->us <= 0) return bad(what, text, "is no time at all: give at least a second");
      return ok_status();
    }
    case ValueKind::kSeconds: {
      if (parse_count(text, what, {0, 1'000'000'000}).ok()) return ok_status();
      const auto duration = parse_duration(text);
      if (!duration.ok() || duration->is_infinite())
        return bad(what, text, "is no time: write seconds, or 90s, 2m, 1h");
      return ok_status();
    }
    case ValueKind::kMemory: {
      const auto memory = parse_memory_mib(text);
      if (!memory.ok()) return prefixed(what, memory.error());
      if (*memory == 0)
        return bad(what, text,
                   "would mean all of a node's memory, which is not supported yet: give a size, or use --exclusive");
      return ok_status();
    }
    case ValueKind::kArray: {
      const auto spec = parse_array_spec(text);
      return spec.ok() ? ok_status() : Status(prefixed(what, spec.error()));
    }
    case ValueKind::kSignal:
      return status_of(parse_signal(text, what));
    case ValueKind::kSignalBefore:
      return status_of(parse_signal_before(text, what));
    case ValueKind::kTime:
      return status_of(parse_time(text, what, Instant::from_s(1)));
    case ValueKind::kChoice:
      if (option.id == OptionId::kMpi && text != "none" && text != "list") {
        return bad(what, text, "is not supported yet: use none (mpirun starts the tasks itself)");
      }
      return check_choice(what, text, option.value_name);
    case ValueKind::kExport:
      return status_of(parse_export(text, what));
    case ValueKind::kGpus:
      return status_of(parse_gpus(text, what));
    case ValueKind::kGres:
      return status_of(parse_gres(text, what));
    case ValueKind::kNice:
      return status_of(parse_integer(text, what, -kNiceMax, kNiceMax));
    case ValueKind::kStates:
      return status_of(parse_states(text, what));
    case ValueKind::kJobIds: {
      const auto items = parse_job_list(text);
      return items.ok() ? ok_status() : Status(prefixed(what, items.error()));
    }
    case ValueKind::kKeyValue:
      return check_key_value(what, text);
    case ValueKind::kLicenses:
      return status_of(parse_licenses(text, what));
  }
  return ok_status();
}

}  // namespace muster::cli
