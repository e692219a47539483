#include "cli/options.h"

#include <getopt.h>

#include <algorithm>
#include <cstring>

#include "cli/job_ids.h"
#include "lib/base/text.h"

namespace muster::cli {
namespace {

// getopt_long's value for a long option: above every letter.
constexpr int kLongBase = 1000;

std::vector<const OptionInfo*> options_of(std::uint32_t command, bool scripts_only) {
  std::vector<const OptionInfo*> rows;
  for (const OptionInfo& row : option_table()) {
    if ((row.commands & command) == 0) continue;
    if (scripts_only && (row.flags & kScript) == 0) continue;
    rows.push_back(&row);
  }
  return rows;
}

// getopt's own tables for some rows.
struct GetoptTables {
  std::string letters;
  std::vector<option> longs;
};

GetoptTables make_tables(const std::vector<const OptionInfo*>& rows, bool stops_at_operand) {
  GetoptTables tables;
  tables.letters = stops_at_operand ? "+:" : "-:";
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const OptionInfo& row = *rows[i];
    const int has_arg = row.arg == ArgKind::kNone       ? no_argument
                        : row.arg == ArgKind::kRequired ? required_argument
                                                        : optional_argument;
    // Rows of one id are names of one option; equal values make getopt take a common prefix of them as unambiguous.
    tables.longs.push_back({row.name, has_arg, nullptr, kLongBase + static_cast<int>(row.id)});
    if (row.letter == 0) continue;
    tables.letters += row.letter;
    if (row.arg != ArgKind::kNone) tables.letters += row.arg == ArgKind::kRequired ? ":" : "::";
  }
  tables.longs.push_back({nullptr, 0, nullptr, 0});
  return tables;
}

std::string command_text(Command command) {
  return command == kSrun ? "srun" : "muster " + std::string(command_info(command).name);
}

// Why getopt did not take this word, as a sentence.
std::string explain_refusal(std::string_view word, const std::vector<const OptionInfo*>& rows,
                            const std::string& help) {
  if (!word.starts_with("--")) return "unknown option -" + std::string(word) + ": " + help;
  const std::size_t equals = word.find('=');
  const std::string name(word.substr(2, equals == std::string_view::npos ? equals : equals - 2));
  std::vector<std::string> matches;
  std::vector<std::string> names;
  for (const OptionInfo* row : rows) {
    if (row->name == name && equals != std::string_view::npos)
      return "option --" + name + " takes no value: leave \"" + std::string(word.substr(equals)) + "\" out";
    names.emplace_back(row->name);
    if (!name.empty() && std::string_view(row->name).starts_with(name))
      matches.push_back("--" + std::string(row->name));
  }
  if (matches.size() == 1 && equals != std::string_view::npos)
    return "option " + matches[0] + " takes no value: leave \"" + std::string(word.substr(equals)) + "\" out";
  if (matches.size() > 1) {
    std::string list;
    for (const std::string& match : matches) list += (list.empty() ? "" : ", ") + match;
    return "option --" + name + " is ambiguous: it could be " + list;
  }
  const std::string nearest = nearest_word(name, names);
  if (nearest.empty()) return "unknown option --" + name + ": " + help;
  return "unknown option --" + name + ": did you mean --" + nearest + "?";
}

// The words from `words` as options and operands. `place` stands before the option's name in sources.
Result<Parsed> run_getopt(const std::vector<std::string>& words, const std::vector<const OptionInfo*>& rows,
                          bool stops_at_operand, const std::string& place, const std::string& help) {
  const GetoptTables tables = make_tables(rows, stops_at_operand);
  std::vector<std::string> storage = words;
  std::string program = "muster";
  std::vector<char*> argv{program.data()};
  for (std::string& word : storage) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int argc = static_cast<int>(argv.size()) - 1;

  Parsed parsed;
  opterr = 0;
  optind = 0;  // a new scan
  const std::string prefix = place.empty() ? "" : place + ": ";
  while (true) {
    int index = -1;
    const int before = std::max(optind, 1);
    const int got = getopt_long(argc, argv.data(), tables.letters.c_str(), tables.longs.data(), &index);
    if (got == -1) break;
    if (got == 1) {  // an operand, because the letters begin with '-'
      parsed.operands.emplace_back(optarg);
      continue;
    }
    // The word in question: for a cluster of letters getopt is still inside it.
    const std::string_view word = argv[std::min(std::max(optind - 1, before), argc - 1)];
    if (got == '?') {
      if (optopt != 0 && optopt < 256 && !(word.starts_with("--"))) {
        return invalid_argument(prefix + explain_refusal(std::string(1, static_cast<char>(optopt)), rows, help));
      }
      return invalid_argument(prefix + explain_refusal(argv[before], rows, help));
    }
    if (got == ':') {
      const std::string name = optopt >= kLongBase || optopt == 0 ? std::string(argv[argc - 1])
                                                                  : "-" + std::string(1, static_cast<char>(optopt));
      return invalid_argument(prefix + "option " + name + " needs a value: write it after the option");
    }
    const OptionInfo* row = nullptr;
    if (got >= kLongBase) {
      row = rows[static_cast<std::size_t>(index)];
    } else {
      row = *std::find_if(rows.begin(), rows.end(), [&](const OptionInfo* r) { return r->letter == got; });
    }
    Given given;
    given.option = row;
    if (optarg != nullptr) given.value = optarg;
    given.source = prefix + "--" + row->name;
    parsed.given.push_back(std::move(given));
  }
  for (int i = optind; i < argc; ++i) parsed.operands.emplace_back(argv[i]);
  return parsed;
}

Status check_all(const std::vector<Given>& given) {
  for (const Given& one : given) {
    if ((one.option->flags & kLater) != 0) {
      return invalid_argument(one.source + " is not supported yet: leave it out");
    }
    if ((one.option->flags & kElsewhere) != 0) {
      return invalid_argument(one.source + ": " + one.option->meaning);
    }
    MUSTER_TRY(check_value(one));
  }
  return ok_status();
}

}  // namespace

const CommandInfo* find_command(std::string_view name) {
  for (const CommandInfo& info : command_table()) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

const CommandInfo& command_info(Command command) {
  for (const CommandInfo& info : command_table()) {
    if (info.command == command) return info;
  }
  check_failed("the command is in the table", __FILE__, __LINE__);
}

const Given* Parsed::last(OptionId id) const {
  for (auto it = given.rbegin(); it != given.rend(); ++it) {
    if (it->option->id == id) return &*it;
  }
  return nullptr;
}

std::string Parsed::value(OptionId id, std::string_view otherwise) const {
  const Given* one = last(id);
  return one != nullptr && one->value ? *one->value : std::string(otherwise);
}

Result<Parsed> parse_command_line(Command command, const std::vector<std::string>& words) {
  const std::string help = "see `" + command_text(command) + " --help`";
  MUSTER_ASSIGN(Parsed parsed,
                run_getopt(words, options_of(command, false), command_info(command).stops_at_operand, "", help));
  // --help wins over whatever else is wrong.
  if (parsed.has(OptionId::kHelp) || parsed.has(OptionId::kUsage) || parsed.has(OptionId::kVersion)) return parsed;
  MUSTER_TRY(check_all(parsed.given));
  return parsed;
}

Result<std::vector<Given>> parse_directive(const std::vector<std::string>& words, const std::string& place) {
  const std::string help = "`muster submit --help` names those that a script may hold";
  MUSTER_ASSIGN(Parsed parsed, run_getopt(words, options_of(kSubmit, true), true, place, help));
  if (!parsed.operands.empty()) {
    return invalid_argument(place + ": \"" + parsed.operands.front() +
                            "\" is no option: a directive line holds options only");
  }
  MUSTER_TRY(check_all(parsed.given));
  return std::move(parsed.given);
}

std::string variable_name(const OptionInfo& option) {
  std::string name = "MUSTER_";
  for (const char* c = option.name; *c != '\0'; ++c) {
    name += *c == '-' ? '_' : static_cast<char>(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
  }
  return name;
}

Result<std::vector<Given>> parse_variables(Command command, const std::function<const char*(const char*)>& get) {
  std::vector<Given> all;
  const char* around = get("MUSTER_JOB_ID");
  const bool inside_job = around != nullptr && *around != '\0';
  for (const OptionInfo* row : options_of(command, false)) {
    if ((row->flags & (kScript | kVariable)) == 0) continue;
    if ((row->flags & kJobVariable) != 0 && inside_job) continue;
    const std::string name = variable_name(*row);
    const char* text = get(name.c_str());
    if (text == nullptr || *text == '\0') continue;
    Given given;
    given.option = row;
    given.source = name;
    if (row->arg == ArgKind::kNone) {
      const std::string word = to_lower(text);
      if (word == "0" || word == "no" || word == "false") continue;
      if (word != "1" && word != "yes" && word != "true") {
        return invalid_argument(name + ": \"" + text + "\" is neither yes nor no: set it to 1, or unset it");
      }
    } else {
      given.value = text;
    }
    all.push_back(std::move(given));
  }
  MUSTER_TRY(check_all(all));
  return all;
}

ConnectOptions connect_options(const Parsed& parsed) {
  ConnectOptions options;
  options.config_path = parsed.value(OptionId::kConfig);
  options.key_path = parsed.value(OptionId::kKey);
  if (const Given* timeout = parsed.last(OptionId::kTimeout)) {
    // Checked when it was read.
    const auto seconds = parse_count(*timeout->value, timeout->source, {0, 1'000'000'000});
    if (seconds.ok()) {
      options.timeout = Duration::from_s(static_cast<std::int64_t>(*seconds));
    } else if (const auto duration = parse_duration(*timeout->value); duration.ok()) {
      options.timeout = *duration;
    }
  }
  return options;
}

}  // namespace muster::cli
