// Completion for bash, made from the tables.
#include "cli/commands.h"
#include "cli/report.h"
#include "cli/table.h"

namespace muster::cli {

int command_completion(const Parsed& parsed) {
  if (parsed.operands.size() != 1 || parsed.operands.front() != "bash")
    return usage_error("completion knows one shell: muster completion bash");
  std::string commands;
  std::string cases;
  for (const CommandInfo& info : command_table()) {
    if (info.command == kSrun) continue;
    commands += (commands.empty() ? "" : " ") + std::string(info.name);
    std::string words;
    for (const OptionInfo& row : option_table()) {
      if ((row.commands & info.command) == 0 || (row.flags & (kAlias | kLater | kElsewhere)) != 0) continue;
      words += (words.empty() ? "--" : " --") + std::string(row.name);
    }
    cases += "    " + std::string(info.name) + ") words='" + words + "' ;;\n";
  }
  print(
      "_muster() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} words=\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W '" +
      commands +
      "' -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case ${COMP_WORDS[1]} in\n" +
      cases +
      "  esac\n"
      "  case $current in\n"
      "    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;;\n"
      "    *) COMPREPLY=($(compgen -f -- \"$current\")) ;;\n"
      "  esac\n"
      "}\n"
      "complete -o filenames -F _muster muster\n");
  return kExitOk;
}

}  // namespace muster::cli
