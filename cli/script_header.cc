#include "cli/script_header.h"

#include <algorithm>

namespace muster::cli {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r';
}

std::string at(std::string_view name, std::size_t line) {
  return std::string(name) + ":" + std::to_string(line) + ": ";
}

std::size_t line_of(std::string_view text, std::size_t offset) {
  return 1 +
         static_cast<std::size_t>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n'));
}

// What follows the marker when the line is a directive; whether it is one.
bool take_marker(std::string_view& line) {
  for (const std::string_view marker : {std::string_view("#MUSTER"), std::string_view("#SBATCH")}) {
    if (!line.starts_with(marker)) continue;
    const std::string_view rest = line.substr(marker.size());
    if (!rest.empty() && !is_blank(rest.front())) return false;
    line = rest;
    return true;
  }
  return false;
}

// Takes one word from the front of `rest`, which begins with its first character.
Result<std::string> take_word(std::string_view& rest) {
  std::string word;
  std::size_t i = 0;
  while (i < rest.size() && !is_blank(rest[i])) {
    const char c = rest[i];
    if (c == '\'' || c == '"') {
      ++i;
      while (i < rest.size() && rest[i] != c) {
        const bool escaped = c == '"' && rest[i] == '\\' && i + 1 < rest.size() &&
                             (rest[i + 1] == '"' || rest[i + 1] == '\\' || rest[i + 1] == '$' || rest[i + 1] == '`');
        if (escaped) ++i;
        word += rest[i++];
      }
      if (i == rest.size())
        return invalid_argument(std::string("a quote ") + c + " is not closed: close it on the same line");
      ++i;
    } else if (c == '\\' && i + 1 < rest.size()) {
      word += rest[i + 1];
      i += 2;
    } else {
      word += c;
      ++i;
    }
  }
  rest.remove_prefix(i);
  return word;
}

Result<std::vector<std::string>> split_words(std::string_view rest) {
  std::vector<std::string> words;
  while (true) {
    while (!rest.empty() && is_blank(rest.front())) rest.remove_prefix(1);
    if (rest.empty() || rest.front() == '#') return words;
    if (words.size() == kDirectiveWordsMax) {
      return invalid_argument("more than " + std::to_string(kDirectiveWordsMax) +
                              " words in one line: use several lines");
    }
    MUSTER_ASSIGN(std::string word, take_word(rest));
    words.push_back(std::move(word));
  }
}

Status check_bytes(std::string_view text, std::string_view name) {
  const std::string who(name);
  if (text.empty())
    return invalid_argument(who + ": the script is empty: write a first line such as #!/bin/sh and commands below");
  if (text.size() > kScriptBytesMax) {
    return invalid_argument(who + ": the script is larger than the limit of " + std::to_string(kScriptBytesMax >> 20U) +
                            " MiB (" + std::to_string(kScriptBytesMax) +
                            " bytes): put data into a file that the script reads");
  }
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return invalid_argument(
        at(name, line_of(text, nul)) +
        "the script holds a NUL byte, so it is no text: submit a script that starts the program, or use --wrap");
  }
  if (!text.starts_with("#!")) {
    return invalid_argument(
        at(name, 1) + "the script does not begin with #!: put its interpreter on the first line, such as #!/bin/sh");
  }
  if (const std::size_t crlf = text.find("\r\n"); crlf != std::string_view::npos) {
    return invalid_argument(
        at(name, line_of(text, crlf)) +
        "the line ends as on Windows (CR LF): convert the script with dos2unix or sed -i 's/\\r$//'");
  }
  const std::string_view first = text.substr(0, text.find('\n'));
  if (first.find_first_not_of(" \t\r", 2) == std::string_view::npos) {
    return invalid_argument(at(name, 1) + "no interpreter follows #!: write one, such as #!/bin/sh");
  }
  return ok_status();
}

}  // namespace

Result<ScriptHeader> parse_script_header(std::string_view text, std::string_view name) {
  MUSTER_TRY(check_bytes(text, name));
  ScriptHeader header;
  bool in_head = true;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (number == 1) continue;
    const std::size_t first = line.find_first_not_of(" \t\v\f\r");
    if (first != std::string_view::npos && line[first] != '#') in_head = false;
    if (!take_marker(line)) continue;
    if (!in_head) {
      header.ignored_line = number;
      break;
    }
    auto words = split_words(line);
    if (!words.ok()) return invalid_argument(at(name, number) + words.error().message);
    if (words->empty()) continue;
    if (header.directives.size() == kDirectivesMax) {
      return invalid_argument(at(name, number) + "more than " + std::to_string(kDirectivesMax) +
                              " directive lines: join some");
    }
    header.directives.push_back({number, *std::move(words)});
  }
  return header;
}

}  // namespace muster::cli
