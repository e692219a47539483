#include "cli/multi_prog.h"

#include <algorithm>

#include "lib/base/text.h"

namespace muster::cli {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

Result<std::vector<std::string>> words_of(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote != 0) {
      if (c == quote) {
        quote = 0;
      } else if (c == '\\' && quote == '"' && i + 1 < line.size() && (line[i + 1] == '"' || line[i + 1] == '\\')) {
        word += line[++i];
      } else {
        word += c;
      }
    } else if (c == '\'' || c == '"') {
      quote = c;
      in_word = true;
    } else if (c == '\\' && i + 1 < line.size()) {
      word += line[++i];
      in_word = true;
    } else if (is_space(c)) {
      if (in_word) words.push_back(std::move(word));
      word.clear();
      in_word = false;
    } else if (c == '#' && !in_word && words.empty()) {
      break;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quote != 0) {
    return invalid_argument(std::string("a ") + quote + " is not closed: write the second one");
  }
  if (in_word) words.push_back(std::move(word));
  return words;
}

Result<std::vector<std::pair<std::uint32_t, std::uint32_t>>> ranks_of(const std::string& text) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> out;
  const auto wrong = [&] {
    return invalid_argument("\"" + printable(text) + "\" names no tasks: write 0, 1-3, 1,5-7 or *");
  };
  for (const std::string_view part : split(text, ',')) {
    const std::size_t dash = part.find('-');
    const auto first = parse_count(part.substr(0, dash), "rank", {0, UINT32_MAX - 1});
    const auto last =
        dash == std::string_view::npos ? first : parse_count(part.substr(dash + 1), "rank", {0, UINT32_MAX - 1});
    if (!first.ok() || !last.ok() || *last < *first) {
      return wrong();
    }
    out.emplace_back(static_cast<std::uint32_t>(*first), static_cast<std::uint32_t>(*last));
  }
  return out;
}

// Lines with their numbers; one that ends with a backslash is joined with the next.
std::vector<std::pair<std::uint32_t, std::string>> lines_of(std::string_view text) {
  std::vector<std::pair<std::uint32_t, std::string>> out;
  std::uint32_t number = 0;
  bool joins = false;
  for (std::string_view line : split(text, '\n')) {
    ++number;
    const bool goes_on = line.ends_with('\\');
    if (goes_on) line.remove_suffix(1);
    if (joins) {
      out.back().second += line;
    } else {
      out.emplace_back(number, line);
    }
    joins = goes_on;
  }
  return out;
}

struct NamedRange {
  std::uint32_t first;
  std::uint32_t last;
  std::uint32_t line;
};

}  // namespace

Result<std::vector<RankProgram>> parse_multi_prog(std::string_view text, const std::string& file) {
  std::vector<RankProgram> programs;
  std::vector<NamedRange> named;
  std::uint32_t rest_line = 0;
  const auto at = [&](std::uint32_t line, const std::string& what) {
    return invalid_argument("--multi-prog: " + printable(file) + ":" + std::to_string(line) + ": " + what);
  };
  if (text.find('\0') != std::string_view::npos) {
    return at(1, "it is no text: write lines of ranks, program and arguments");
  }
  for (const auto& [number, line] : lines_of(text)) {
    auto words = words_of(line);
    if (!words.ok()) return at(number, words.error().message);
    if (words->empty()) continue;
    if (words->size() < 2 || (*words)[1].empty()) {
      return at(number, "no program stands behind the ranks: write RANKS PROGRAM [ARGUMENT...]");
    }
    RankProgram program;
    program.line = number;
    if (words->front() == "*") {
      if (rest_line != 0) return at(number, "line " + std::to_string(rest_line) + " is for * already: leave one out");
      rest_line = number;
    } else {
      auto ranks = ranks_of(words->front());
      if (!ranks.ok()) return at(number, ranks.error().message);
      program.ranks = std::move(*ranks);
      for (const auto& [first, last] : program.ranks) named.push_back({first, last, number});
    }
    program.argv.assign(std::make_move_iterator(words->begin() + 1), std::make_move_iterator(words->end()));
    programs.push_back(std::move(program));
  }
  if (programs.empty()) {
    return at(1, "it names no program: write RANKS PROGRAM [ARGUMENT...]");
  }
  std::sort(named.begin(), named.end(), [](const NamedRange& a, const NamedRange& b) { return a.first < b.first; });
  for (std::size_t i = 1; i < named.size(); ++i) {
    if (named[i].first <= named[i - 1].last) {
      const auto [low, high] = std::minmax(named[i].line, named[i - 1].line);
      return at(high, "task " + std::to_string(named[i].first) + " has a program already, in line " +
                          std::to_string(low) + ": name it once");
    }
  }
  // Whatever no other line names comes last.
  std::stable_partition(programs.begin(), programs.end(), [](const RankProgram& p) { return !p.ranks.empty(); });
  return programs;
}

}  // namespace muster::cli
