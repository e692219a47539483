// Reading and writing the small notations that users type: durations, memory sizes, counts, node lists.
// Pure functions; every failure names the text and says what is accepted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster {

// "minutes", "M:SS", "HH:MM:SS", "D-HH", "D-HH:MM", "D-HH:MM:SS", "90s 15m 2h 1d" suffixes (also combined, "1h30m"),
// "UNLIMITED"/"INFINITE" (any case). Negative, empty, overflowing or trailing text is kInvalidArgument.
Result<Duration> parse_duration(std::string_view text);
// "HH:MM:SS" or "D-HH:MM:SS"; infinite is "UNLIMITED".
std::string format_duration(Duration d);

// Memory in MiB: a bare number is MiB; suffixes K M G T (with optional B or iB, any case), rounded up to a MiB.
// At most 2^53 MiB. "0" is accepted.
Result<std::uint64_t> parse_memory_mib(std::string_view text);
// "512M", "64G", "1T": the largest unit that divides without remainder.
std::string format_memory_mib(std::uint64_t mib);

struct CountRange {
  std::uint64_t min = 0;
  std::uint64_t max = UINT64_MAX;
};
// A decimal number within the range. `what` names the option or key in the error. No sign, no blanks, no overflow.
Result<std::uint64_t> parse_count(std::string_view text, std::string_view what, CountRange range = {});
// As parse_count, with a sign allowed.
Result<std::int64_t> parse_integer(std::string_view text, std::string_view what, std::int64_t min, std::int64_t max);

// A folded node list "n[1-4,07],gpu01" into its names in order, duplicates removed. Zero padding is kept. At most
// kNodeListMax names, one bracket group for a name, nothing but ',' after ']'.
inline constexpr std::size_t kNodeListMax = 100'000;
Result<std::vector<std::string>> expand_node_list(std::string_view text);
// Folds names, keeping their order: consecutive numbers with equal prefix and padding become one group:
// {"n1","n2","n4","gpu01"} -> "n[1-2,4],gpu01". expand(fold(x)) == x for valid distinct names.
std::string fold_node_list(const std::vector<std::string>& names);
// Order of names as people count: runs of digits compare by value, so "n2" stands before "n10". Total: names that differ
// only in zero padding are ordered as bytes.
bool natural_less(std::string_view a, std::string_view b);
// A node name: 1..63 of [A-Za-z0-9_.-], beginning with a letter or digit.
bool is_valid_node_name(std::string_view name);

// The candidate closest to `word` by edit distance, if at most a third of its length (at least 1, at most 3) away; else "".
std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates);

std::vector<std::string_view> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);
std::string to_lower(std::string_view text);
bool is_valid_utf8(std::string_view text);
// `text` made safe for one terminal line: control characters and invalid UTF-8 as \xNN.
std::string printable(std::string_view text);

}  // namespace muster
