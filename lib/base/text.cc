#include "lib/base/text.h"

#include <algorithm>
#include <optional>
#include <unordered_set>

namespace muster {
namespace {

constexpr std::size_t kQuotedMax = 80;         // bytes of bad input repeated in a message
constexpr std::size_t kNodeNumberDigits = 18;  // digits of a number in a node name; all of them fit 64 bits
constexpr std::size_t kNodeNameMax = 63;       // the limit of one DNS label, so that names serve as host names
constexpr std::uint64_t kMemoryMibMax = std::uint64_t{1} << 53;
constexpr std::int64_t kSecondsMax = Duration::infinite().us / 1'000'000 - 1;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alpha(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::string quoted(std::string_view text) {
  const bool cut = text.size() > kQuotedMax;
  return "\"" + printable(text.substr(0, kQuotedMax)) + (cut ? "...\"" : "\"");
}

// The digits at the head of `text`, removed from it; nothing when there are none or they exceed 64 bits.
std::optional<std::uint64_t> take_number(std::string_view& text) {
  std::uint64_t value = 0;
  std::size_t used = 0;
  for (; used < text.size() && is_digit(text[used]); ++used) {
    const std::uint64_t digit = static_cast<std::uint64_t>(text[used] - '0');
    if (__builtin_mul_overflow(value, std::uint64_t{10}, &value) || __builtin_add_overflow(value, digit, &value)) {
      return std::nullopt;
    }
  }
  if (used == 0) return std::nullopt;
  text.remove_prefix(used);
  return value;
}

std::optional<std::uint64_t> whole_number(std::string_view text) {
  const auto value = take_number(text);
  return text.empty() ? value : std::nullopt;
}

// Adds count * unit seconds to total; false when that is more than a Duration can hold.
bool add_seconds(std::int64_t& total, std::uint64_t count, std::int64_t unit) {
  if (count > static_cast<std::uint64_t>(kSecondsMax)) return false;
  std::int64_t amount = 0;
  if (__builtin_mul_overflow(static_cast<std::int64_t>(count), unit, &amount)) return false;
  return !__builtin_add_overflow(total, amount, &total) && total <= kSecondsMax;
}

// "1d2h30m10s": each unit once, larger units first.
std::optional<std::int64_t> seconds_with_suffixes(std::string_view text) {
  std::int64_t total = 0;
  std::int64_t previous_unit = INT64_MAX;
  while (!text.empty()) {
    const auto count = take_number(text);
    if (!count || text.empty()) return std::nullopt;
    std::int64_t unit = 0;
    switch (text.front()) {
      case 's':
      case 'S':
        unit = 1;
        break;
      case 'm':
      case 'M':
        unit = 60;
        break;
      case 'h':
      case 'H':
        unit = 3600;
        break;
      case 'd':
      case 'D':
        unit = 86400;
        break;
      default:
        return std::nullopt;
    }
    text.remove_prefix(1);
    if (unit >= previous_unit || !add_seconds(total, *count, unit)) return std::nullopt;
    previous_unit = unit;
  }
  return total;
}

// "M", "M:SS", "H:MM:SS" and, after "D-", "HH", "HH:MM", "HH:MM:SS".
std::optional<std::int64_t> seconds_with_colons(std::string_view text) {
  std::int64_t total = 0;
  const std::size_t dash = text.find('-');
  const bool has_days = dash != std::string_view::npos;
  if (has_days) {
    const auto days = whole_number(text.substr(0, dash));
    if (!days || !add_seconds(total, *days, 86400)) return std::nullopt;
    text.remove_prefix(dash + 1);
  }
  const std::vector<std::string_view> fields = split(text, ':');
  if (fields.size() > 3) return std::nullopt;
  // The unit of the first field; each following one is a sixtieth of it.
  std::int64_t unit = has_days || fields.size() == 3 ? 3600 : 60;
  for (const std::string_view field : fields) {
    const auto count = whole_number(field);
    if (!count || !add_seconds(total, *count, unit)) return std::nullopt;
    unit /= 60;
  }
  return total;
}

std::string two_digits(std::int64_t value) {
  return {static_cast<char>('0' + value / 10), static_cast<char>('0' + value % 10)};
}

std::string padded(std::uint64_t number, std::size_t width) {
  std::string digits = std::to_string(number);
  if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
  return digits;
}

// The width that numbers counted up from these digits are padded to; 0 when they have no leading zero.
std::size_t padding_of(std::string_view digits) {
  return digits.size() > 1 && digits.front() == '0' ? digits.size() : 0;
}

class NodeListReader {
 public:
  explicit NodeListReader(std::string_view text) : text_(text) {}

  Result<std::vector<std::string>> read() {
    if (text_.empty()) return std::move(names_);
    std::size_t start = 0;
    while (true) {
      const std::size_t end = item_end(start);
      MUSTER_TRY(read_item(text_.substr(start, end - start)));
      if (end == text_.size()) return std::move(names_);
      start = end + 1;
    }
  }

 private:
  // The position of the comma that ends the item at `start`, which is not one inside brackets.
  [[nodiscard]] std::size_t item_end(std::size_t start) const {
    bool inside = false;
    for (std::size_t i = start; i < text_.size(); ++i) {
      if (text_[i] == '[') inside = true;
      if (text_[i] == ']') inside = false;
      if (text_[i] == ',' && !inside) return i;
    }
    return text_.size();
  }

  Status read_item(std::string_view item) {
    const std::size_t open = item.find('[');
    if (open == std::string_view::npos) return add(std::string(item));
    if (item.back() != ']' || item.find('[', open + 1) != std::string_view::npos || item.find(']') != item.size() - 1) {
      return bad(item, "one [..] at the end of each name, closed by ]");
    }
    const std::string_view prefix = item.substr(0, open);
    for (const std::string_view part : split(item.substr(open + 1, item.size() - open - 2), ',')) {
      MUSTER_TRY(read_part(item, prefix, part));
    }
    return ok_status();
  }

  Status read_part(std::string_view item, std::string_view prefix, std::string_view part) {
    const std::size_t dash = part.find('-');
    const std::string_view low_text = part.substr(0, dash);
    const std::string_view high_text = dash == std::string_view::npos ? low_text : part.substr(dash + 1);
    if (low_text.size() > kNodeNumberDigits || high_text.size() > kNodeNumberDigits) {
      return bad(item, "numbers of at most 18 digits");
    }
    const auto low = whole_number(low_text);
    const auto high = whole_number(high_text);
    if (!low || !high) return bad(item, "numbers and ranges inside [..], as in n[1-4,7]");
    if (*low > *high) return bad(item, "ranges that begin with the smaller number");
    const std::size_t width = padding_of(low_text);
    if (padding_of(high_text) != 0 && high_text.size() != low_text.size()) {
      return bad(item, "the same number of digits on both sides of a padded range");
    }
    if (*high - *low >= kNodeListMax) return too_many();
    for (std::uint64_t number = *low; number <= *high; ++number) {
      MUSTER_TRY(add(std::string(prefix) + padded(number, width)));
    }
    return ok_status();
  }

  Status add(std::string name) {
    // Repeated names count too, so that a short text cannot ask for unbounded work.
    if (++added_ > kNodeListMax) return too_many();
    if (!is_valid_node_name(name)) {
      return bad(name, "names of 1 to 63 letters, digits, '_', '.', '-' that begin with a letter or digit");
    }
    if (seen_.insert(name).second) names_.push_back(std::move(name));
    return ok_status();
  }

  [[nodiscard]] Error bad(std::string_view item, const std::string& wanted) const {
    return invalid_argument("bad node list " + quoted(text_) + " at " + quoted(item) + ": give " + wanted);
  }
  [[nodiscard]] Error too_many() const {
    return invalid_argument("node list " + quoted(text_) + " has too many names: give at most " +
                            std::to_string(kNodeListMax));
  }

  std::string_view text_;
  std::vector<std::string> names_;
  std::unordered_set<std::string> seen_;
  std::size_t added_ = 0;
};

// One name seen as prefix and number; the number is empty where folding does not apply.
struct SplitName {
  std::string_view prefix;
  std::string_view digits;
};

SplitName split_name(std::string_view name) {
  std::size_t digits = 0;
  while (digits < name.size() && is_digit(name[name.size() - 1 - digits])) ++digits;
  if (digits > kNodeNumberDigits) digits = 0;
  return {name.substr(0, name.size() - digits), name.substr(name.size() - digits)};
}

// The length in bytes of the valid UTF-8 character at the head of `text`, with its code point; 0 when it is not valid.
std::size_t decode_utf8(std::string_view text, std::uint32_t& code) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::uint32_t head = byte(0);
  std::size_t length = 0;
  std::uint32_t smallest = 0;
  if (head < 0x80) {
    code = head;
    return 1;
  }
  if (head >= 0xC2 && head <= 0xDF) {
    length = 2, code = head & 0x1F, smallest = 0x80;
  } else if (head >= 0xE0 && head <= 0xEF) {
    length = 3, code = head & 0x0F, smallest = 0x800;
  } else if (head >= 0xF0 && head <= 0xF4) {
    length = 4, code = head & 0x07, smallest = 0x10000;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = (code << 6) | (byte(i) & 0x3F);
  }
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code < smallest || code > 0x10FFFF || surrogate ? 0 : length;
}

// Characters that would move the cursor, end the line or turn the direction of what follows.
bool is_control(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code <= 0x9F) || (code >= 0x200E && code <= 0x200F) ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF;
}

// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours each cost one.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> previous(b.size() + 1);
  std::vector<std::size_t> current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before[j - 2] + 1);
      }
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
  const auto bad = [&] {
    return invalid_argument("bad time " + quoted(text) +
                            ": write minutes, HH:MM:SS, D-HH:MM:SS, 90s 15m 2h 1d, or UNLIMITED");
  };
  constexpr std::size_t kTextMax = 64;  // no accepted time is longer
  if (text.empty() || text.size() > kTextMax) return bad();
  const std::string lower = to_lower(text);
  if (lower == "unlimited" || lower == "infinite") return Duration::infinite();
  const bool has_suffix = is_alpha(text.back());
  const auto seconds = has_suffix ? seconds_with_suffixes(text) : seconds_with_colons(text);
  if (!seconds) return bad();
  return Duration::from_s(*seconds);
}

std::string format_duration(Duration d) {
  if (d.is_infinite()) return "UNLIMITED";
  const bool negative = d.us < 0;
  std::int64_t seconds = d.seconds();
  if (negative) seconds = -seconds;
  const std::int64_t days = seconds / 86400;
  std::string text = negative && seconds != 0 ? "-" : "";
  if (days > 0) text += std::to_string(days) + "-";
  return text + two_digits(seconds / 3600 % 24) + ":" + two_digits(seconds / 60 % 60) + ":" + two_digits(seconds % 60);
}

Result<std::uint64_t> parse_memory_mib(std::string_view text) {
  const auto bad = [&] {
    return invalid_argument("bad memory size " + quoted(text) +
                            ": write a whole number with K, M, G or T (MiB when bare), at most 8589934592T");
  };
  std::string_view rest = text;
  const auto number = take_number(rest);
  if (!number) return bad();
  std::string suffix = to_lower(rest.substr(0, 4));
  if (rest.size() > 3) return bad();
  if (suffix.size() == 3 && suffix.substr(1) == "ib") suffix.resize(1);
  if (suffix.size() == 2 && suffix[1] == 'b') suffix.resize(1);
  std::uint64_t mib = *number;
  if (suffix == "k") {
    mib = *number / 1024 + (*number % 1024 != 0 ? 1 : 0);
  } else if (suffix == "g" || suffix == "t") {
    const std::uint64_t factor = suffix == "g" ? 1024 : 1024 * 1024;
    if (__builtin_mul_overflow(*number, factor, &mib)) return bad();
  } else if (!suffix.empty() && suffix != "m") {
    return bad();
  }
  if (mib > kMemoryMibMax) return bad();
  return mib;
}

std::string format_memory_mib(std::uint64_t mib) {
  constexpr std::uint64_t kGib = 1024;
  constexpr std::uint64_t kTib = 1024 * 1024;
  if (mib != 0 && mib % kTib == 0) return std::to_string(mib / kTib) + "T";
  if (mib != 0 && mib % kGib == 0) return std::to_string(mib / kGib) + "G";
  return std::to_string(mib) + "M";
}

Result<std::uint64_t> parse_count(std::string_view text, std::string_view what, CountRange range) {
  const auto value = whole_number(text);
  if (value && *value >= range.min && *value <= range.max) return *value;
  const std::string wanted = range.max == UINT64_MAX
                                 ? "of at least " + std::to_string(range.min)
                                 : "from " + std::to_string(range.min) + " to " + std::to_string(range.max);
  return invalid_argument("bad value " + quoted(text) + " for " + std::string(what) + ": give a whole number " +
                          wanted);
}

Result<std::int64_t> parse_integer(std::string_view text, std::string_view what, std::int64_t min, std::int64_t max) {
  std::string_view digits = text;
  const bool negative = !digits.empty() && digits.front() == '-';
  if (!digits.empty() && (digits.front() == '-' || digits.front() == '+')) digits.remove_prefix(1);
  const auto magnitude = whole_number(digits);
  constexpr std::uint64_t kLimit = std::uint64_t{1} << 63;
  if (magnitude && *magnitude <= (negative ? kLimit : kLimit - 1)) {
    // Negated as unsigned, because -2^63 has no positive counterpart.
    const std::int64_t value = static_cast<std::int64_t>(negative ? ~*magnitude + 1 : *magnitude);
    if (value >= min && value <= max) return value;
  }
  return invalid_argument("bad value " + quoted(text) + " for " + std::string(what) + ": give a whole number from " +
                          std::to_string(min) + " to " + std::to_string(max));
}

Result<std::vector<std::string>> expand_node_list(std::string_view text) {
  return NodeListReader(text).read();
}

std::string fold_node_list(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size();) {
    if (!text.empty()) text += ',';
    const SplitName first = split_name(names[i]);
    std::size_t end = i + 1;
    while (!first.digits.empty() && end < names.size()) {
      const SplitName next = split_name(names[end]);
      if (next.digits.empty() || next.prefix != first.prefix) break;
      ++end;
    }
    if (end == i + 1) {
      text += names[i++];
      continue;
    }
    text.append(first.prefix).append("[");
    for (std::size_t low = i; low < end;) {
      std::string_view digits = split_name(names[low]).digits;
      const std::size_t width = padding_of(digits);
      std::uint64_t number = *whole_number(digits);
      std::size_t high = low;
      while (high + 1 < end && split_name(names[high + 1]).digits == padded(number + 1, width)) ++high, ++number;
      if (low != i) text += ',';
      text.append(digits);
      if (high > low) text.append("-").append(split_name(names[high]).digits);
      low = high + 1;
    }
    text += ']';
    i = end;
  }
  return text;
}

bool natural_less(std::string_view a, std::string_view b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const std::string_view whole_a = a;
  const std::string_view whole_b = b;
  while (!a.empty() && !b.empty()) {
    if (!digit(a.front()) || !digit(b.front())) {
      if (a.front() != b.front()) return a.front() < b.front();
      a.remove_prefix(1);
      b.remove_prefix(1);
      continue;
    }
    const auto number = [&digit](std::string_view& text) {
      while (text.size() > 1 && text.front() == '0' && digit(text[1])) text.remove_prefix(1);
      std::size_t n = 0;
      while (n < text.size() && digit(text[n])) ++n;
      const std::string_view found = text.substr(0, n);
      text.remove_prefix(n);
      return found;
    };
    const std::string_view left = number(a);
    const std::string_view right = number(b);
    if (left.size() != right.size()) return left.size() < right.size();
    if (left != right) return left < right;
  }
  if (a.empty() != b.empty()) return a.empty();
  return whole_a < whole_b;
}

bool is_valid_node_name(std::string_view name) {
  if (name.empty() || name.size() > kNodeNameMax) return false;
  if (!is_alpha(name.front()) && !is_digit(name.front())) return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return is_alpha(c) || is_digit(c) || c == '_' || c == '.' || c == '-'; });
}

std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  constexpr std::size_t kWordMax = 100;  // longer words are no misspelling of a name
  if (word.empty() || word.size() > kWordMax) return "";
  const std::size_t allowed = std::clamp<std::size_t>(word.size() / 3, 1, 3);
  std::size_t best_distance = allowed + 1;
  std::string_view best;
  for (const std::string& candidate : candidates) {
    const std::size_t lengths_apart =
        candidate.size() > word.size() ? candidate.size() - word.size() : word.size() - candidate.size();
    if (lengths_apart >= best_distance) continue;
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return std::string(best);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\v\f";
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::string to_lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

bool is_valid_utf8(std::string_view text) {
  std::uint32_t code = 0;
  while (!text.empty()) {
    const std::size_t length = decode_utf8(text, code);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string printable(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string safe;
  safe.reserve(text.size());
  while (!text.empty()) {
    std::uint32_t code = 0;
    std::size_t length = decode_utf8(text, code);
    const bool keep = length != 0 && !is_control(code);
    length = std::max<std::size_t>(length, 1);
    for (const char c : text.substr(0, length)) {
      if (keep) {
        safe += c;
        continue;
      }
      const auto byte = static_cast<unsigned char>(c);
      safe.append("\\x").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
    }
    text.remove_prefix(length);
  }
  return safe;
}

}  // namespace muster
