// --help, `muster help` and the man pages: all from the tables.
#include <algorithm>

#include "cli/commands.h"
#include "cli/report.h"
#include "cli/table.h"

namespace muster::cli {
namespace {

std::string option_words(const OptionInfo& option) {
  std::string words = option.letter != 0 ? std::string("-") + option.letter + ", " : "    ";
  words += std::string("--") + option.name;
  if (option.arg == ArgKind::kRequired) words += std::string(" ") + option.value_name;
  if (option.arg == ArgKind::kOptional) words += std::string("[=") + option.value_name + "]";
  return words;
}

// `text` in lines of at most `width`, each after the first indented.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out;
  std::size_t column = indent;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (column != indent && column + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    }
    if (column != indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

constexpr std::size_t kMeaningColumn = 34;
constexpr std::size_t kHelpWidth = 110;

std::string program_words(Command command) {
  return command == kSrun ? "srun" : "muster " + std::string(command_info(command).name);
}

std::vector<const OptionInfo*> shown_options(Command command, bool later) {
  std::vector<const OptionInfo*> rows;
  for (const OptionInfo& row : option_table()) {
    if ((row.commands & command) == 0 || (row.flags & (kAlias | kElsewhere)) != 0) continue;
    if (((row.flags & kLater) != 0) == later) rows.push_back(&row);
  }
  return rows;
}

std::string roff(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) {
      out += std::string("\\&") + c;
    } else {
      out += c;
    }
  }
  return out;
}

std::string man_options(Command command) {
  std::string out;
  for (const OptionInfo* row : shown_options(command, false)) {
    out += ".TP\n";
    if (row->letter != 0) out += std::string("\\fB\\-") + row->letter + "\\fR, ";
    out += "\\fB\\-\\-" + roff(row->name) + "\\fR";
    if (row->arg == ArgKind::kRequired) out += " \\fI" + roff(row->value_name) + "\\fR";
    if (row->arg == ArgKind::kOptional) out += "[=\\fI" + roff(row->value_name) + "\\fR]";
    out += "\n" + roff(row->meaning) + ".";
    if ((row->flags & (kScript | kVariable)) != 0) {
      out += (row->flags & kScript) != 0 && command == kSubmit ? " Also in scripts and as " : " Also as ";
      out += roff(variable_name(*row)) + ".";
    }
    out += "\n";
  }
  return out;
}

}  // namespace

int usage_error(std::string_view message) {
  error_line(message);
  return kExitUsage;
}
int usage_error(const Error& error) {
  return usage_error(error.message);
}

std::string help_text(Command command) {
  const CommandInfo& info = command_info(command);
  std::string out = "Usage: " + program_words(command) + " [OPTION...] " + info.operands + "\n";
  std::string summary = info.summary;
  summary.front() = static_cast<char>(summary.front() - 'a' + 'A');
  out += summary + ".\n";
  if (*info.more != '\0') out += std::string(info.more) + "\n";
  out += "\nOptions:\n";
  for (const OptionInfo* row : shown_options(command, false)) {
    std::string line = "  " + option_words(*row);
    line += line.size() + 2 > kMeaningColumn ? "\n" + std::string(kMeaningColumn, ' ')
                                             : std::string(kMeaningColumn - line.size(), ' ');
    out += line + wrapped(row->meaning, kMeaningColumn, kHelpWidth) + "\n";
  }
  const auto later = shown_options(command, true);
  if (!later.empty()) {
    std::string names;
    for (const OptionInfo* row : later) names += (names.empty() ? "--" : " --") + std::string(row->name);
    out += "\nNot supported yet, and refused: " + wrapped(names, 4, kHelpWidth) + "\n";
  }
  return out;
}

std::string overview_text() {
  std::string out =
      "Usage: muster COMMAND [OPTION...] [OPERAND...]\nMuster queues and runs batch jobs on the nodes of a "
      "cluster.\n\nCommands:\n";
  for (const CommandInfo& info : command_table()) {
    if (info.command == kSrun) continue;
    const std::string line = std::string("  ") + info.name;
    out += line + std::string(16 - line.size(), ' ') + info.summary + "\n";
  }
  out +=
      "\n`muster COMMAND --help` explains a command. Exit status: 0 success, 1 refused or failed, 2 wrong usage,\n"
      "3 controller not reached, 4 not permitted.\n";
  return out;
}

std::string man_page(const std::string& name) {
  std::string out;
  if (name == "muster") {
    out = ".TH MUSTER 1 \"\" \"Muster " + std::string(kVersionText) +
          "\" \"Muster\"\n.SH NAME\nmuster \\- queue and run batch jobs on the nodes of a cluster\n"
          ".SH SYNOPSIS\n.B muster\n\\fICOMMAND\\fR [\\fIOPTION\\fR...] [\\fIOPERAND\\fR...]\n.SH COMMANDS\n";
    for (const CommandInfo& info : command_table()) {
      if (info.command == kSrun) continue;
      out += ".TP\n\\fBmuster " + std::string(info.name) + "\\fR " + roff(info.operands) + "\n" + roff(info.summary) +
             ". See \\fBmuster\\-" + info.name + "\\fR(1).\n";
    }
    out +=
        ".SH EXIT STATUS\n0 success; 1 the operation was refused or failed; 2 wrong usage; 3 the controller cannot be "
        "reached; 4 not permitted.\n"
        ".SH ENVIRONMENT\n.TP\n.B MUSTER_CONFIG\nThe configuration file.\n.TP\n.B MUSTER_KEY\nThe caller's key file.\n";
    return out;
  }
  const CommandInfo* info = find_command(name);
  if (info == nullptr) return "";
  std::string title = "MUSTER-" + name;
  std::transform(title.begin(), title.end(), title.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); });
  out = ".TH " + title + " 1 \"\" \"Muster " + std::string(kVersionText) + "\" \"Muster\"\n.SH NAME\nmuster\\-" + name +
        " \\- " + roff(info->summary) + "\n.SH SYNOPSIS\n.B " + roff(program_words(info->command)) +
        "\n[\\fIOPTION\\fR...] " + roff(info->operands) + "\n";
  if (*info->more != '\0') out += ".SH DESCRIPTION\n.nf\n" + roff(info->more) + "\n.fi\n";
  out += ".SH OPTIONS\n" + man_options(info->command);
  const auto later = shown_options(info->command, true);
  if (!later.empty()) {
    out += ".SH NOT SUPPORTED YET\nThese are known and refused:\n";
    for (const OptionInfo* row : later) out += "\\fB\\-\\-" + roff(row->name) + "\\fR\n";
  }
  return out + ".SH SEE ALSO\n\\fBmuster\\fR(1)\n";
}

int command_help(const Parsed& parsed) {
  // The man pages are written when Muster is installed: `muster help man` lists them, `muster help man NAME` is one.
  if (parsed.operands.size() == 1 && parsed.operands.front() == "man") {
    std::string names = "muster\n";
    for (const CommandInfo& info : command_table()) names += std::string(info.name) + "\n";
    print(names);
    return kExitOk;
  }
  if (parsed.operands.size() == 2 && parsed.operands.front() == "man") {
    const std::string page = man_page(parsed.operands[1]);
    if (page.empty()) return usage_error("help man " + parsed.operands[1] + ": no such command: see `muster help`");
    print(page);
    return kExitOk;
  }
  if (parsed.operands.empty()) {
    print(overview_text());
    return kExitOk;
  }
  const CommandInfo* info = find_command(parsed.operands.front());
  if (info == nullptr) return usage_error("help " + parsed.operands.front() + ": no such command: see `muster help`");
  print(help_text(info->command));
  return kExitOk;
}

}  // namespace muster::cli
