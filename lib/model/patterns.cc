#include "lib/model/patterns.h"

#include <algorithm>
#include <optional>

namespace muster {
namespace {

constexpr std::size_t kWidthMax = 20;  // digits; every 64-bit number fits
constexpr std::uint64_t kNoArrayIndex = 4'294'967'294;

std::string zero_filled(std::uint64_t number, std::size_t width) {
  std::string digits = std::to_string(number);
  if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
  return digits;
}

std::string without_slashes(std::string name) {
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

std::optional<std::string> value_of(char letter, std::size_t width, const PatternValues& values) {
  switch (letter) {
    case 'j':
      return zero_filled(values.job.value, width);
    case 'A':
      return zero_filled((values.is_array ? values.array : values.job).value, width);
    case 'a':
      return zero_filled(values.is_array ? values.array_index : kNoArrayIndex, width);
    case 'x':
      return without_slashes(values.job_name);
    case 'u':
      return values.user;
    case 'N':
      return values.node;
    case 'n':
      return zero_filled(values.node_rank, width);
    case 't':
      return zero_filled(values.task, width);
    case '%':
      return "%";
    default:
      return std::nullopt;
  }
}

}  // namespace

std::string expand_pattern(std::string_view pattern, const PatternValues& values) {
  std::string text;
  std::size_t at = 0;
  while (at < pattern.size()) {
    if (pattern[at] != '%') {
      text += pattern[at++];
      continue;
    }
    std::size_t end = at + 1;
    std::size_t width = 0;
    for (; end < pattern.size() && pattern[end] >= '0' && pattern[end] <= '9'; ++end) {
      width = std::min(width * 10 + static_cast<std::size_t>(pattern[end] - '0'), kWidthMax);
    }
    const auto value = end < pattern.size() ? value_of(pattern[end], width, values) : std::nullopt;
    if (value) {
      text += *value;
      at = end + 1;
    } else {
      text += pattern.substr(at, end - at);
      at = end;
    }
  }
  return text;
}

std::string_view unknown_pattern(std::string_view pattern, std::string_view more_letters) {
  constexpr std::string_view kLetters = "jAaxuNnt%";
  for (std::size_t at = pattern.find('%'); at != std::string_view::npos; at = pattern.find('%', at)) {
    const std::size_t begin = at++;
    while (at < pattern.size() && pattern[at] >= '0' && pattern[at] <= '9') ++at;
    const bool known = at < pattern.size() && (kLetters.find(pattern[at]) != std::string_view::npos ||
                                               more_letters.find(pattern[at]) != std::string_view::npos);
    if (!known) {
      return pattern.substr(begin, at + 1 - begin);
    }
    ++at;
  }
  return {};
}

std::string resolve_path(std::string_view dir, std::string_view path) {
  if (path.starts_with('/')) return std::string(path);
  std::string whole(dir);
  if (!whole.ends_with('/')) whole += '/';
  return whole += path;
}

}  // namespace muster
