#include <algorithm>
#include <numeric>
#include <string>

#include "lib/base/text.h"
#include "lib/model/job_spec.h"

namespace muster {
namespace {

// Pairs of ranges that lie across each other and are compared for a common index, which costs about 0.2 us each: more
// than any list a person writes, and at most some 20 ms of the controller's time.
constexpr std::size_t kCrossingsMax = 100'000;
constexpr std::size_t kShownMax = 60;  // bytes of bad input that a message repeats

std::string shown(std::string_view text) {
  return "\"" + printable(text.substr(0, kShownMax)) + (text.size() > kShownMax ? "...\"" : "\"");
}

std::uint64_t last_member(const ArrayRange& range) {
  return range.first + (range.last - range.first) / range.step * range.step;
}

// x with a * x == 1 modulo m, for coprime a and m, by Euclid's extended algorithm.
std::uint64_t inverse_modulo(std::uint64_t a, std::uint64_t m) {
  __int128 r0 = m;
  __int128 r1 = a % m;
  __int128 t0 = 0;
  __int128 t1 = 1;
  while (r1 != 0) {
    const __int128 q = r0 / r1;
    r0 = std::exchange(r1, r0 - q * r1);
    t0 = std::exchange(t1, t0 - q * t1);
  }
  return static_cast<std::uint64_t>(t0 < 0 ? t0 + m : t0);
}

// Whether two ranges have a common index: the smallest number that both progressions meet, by the Chinese remainder
// theorem, at or after the later beginning, must not lie beyond the earlier end. Expects a.first <= b.first.
bool have_common_index(const ArrayRange& a, const ArrayRange& b) {
  const std::uint64_t end = std::min(last_member(a), last_member(b));
  if (end < b.first) return false;
  const std::uint64_t gap = b.first - a.first;  // find k: gap + k * b.step == 0 modulo a.step
  const std::uint64_t common = std::gcd(a.step, b.step);
  if (gap % common != 0) return false;
  const std::uint64_t modulus = a.step / common;
  const std::uint64_t wanted = (modulus - gap / common % modulus) % modulus;
  using Wide = unsigned __int128;
  const Wide k = modulus == 1 ? 0 : Wide{wanted} * inverse_modulo(b.step / common % modulus, modulus) % modulus;
  return Wide{b.first} + k * b.step <= end;
}

std::string format_range(const ArrayRange& range) {
  std::string text = std::to_string(range.first);
  if (range.last != range.first) text += '-' + std::to_string(range.last);
  if (range.last != range.first && range.step != 1) text += ':' + std::to_string(range.step);
  return text;
}

Status check_overlap(std::vector<ArrayRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const ArrayRange& a, const ArrayRange& b) { return a.first < b.first; });
  std::vector<ArrayRange> open;  // begun and not yet ended
  std::size_t crossings = 0;
  for (const ArrayRange& range : ranges) {
    std::erase_if(open, [&](const ArrayRange& other) { return last_member(other) < range.first; });
    for (const ArrayRange& other : open) {
      if (++crossings > kCrossingsMax) {
        return invalid_argument("too many ranges of the array lie across each other: write it with fewer ranges");
      }
      if (have_common_index(other, range)) {
        return invalid_argument("the array's ranges " + format_range(other) + " and " + format_range(range) +
                                " overlap: name each index once");
      }
    }
    open.push_back(range);
  }
  return ok_status();
}

Result<ArrayRange> parse_range(std::string_view text) {
  const Error error = invalid_argument(shown(text) +
                                       " is not a range of array indices: write N, FIRST-LAST or "
                                       "FIRST-LAST:STEP with numbers from 0 to " +
                                       std::to_string(kArrayIndexMax));
  const std::size_t colon = text.find(':');
  const std::string_view bounds = text.substr(0, colon);
  const std::size_t dash = bounds.find('-');
  // A step says nothing without a range.
  if (colon != std::string_view::npos && dash == std::string_view::npos) return error;
  const auto first = parse_count(bounds.substr(0, dash), "array", {0, kArrayIndexMax});
  const auto last =
      dash == std::string_view::npos ? first : parse_count(bounds.substr(dash + 1), "array", {0, kArrayIndexMax});
  if (!first.ok() || !last.ok()) return error;
  if (*last < *first) {
    return invalid_argument("the array's range " + shown(text) + " is descending: write the smaller index first");
  }
  ArrayRange range{*first, *last, 1};
  if (colon != std::string_view::npos) {
    const auto step = parse_count(text.substr(colon + 1), "array", {1, kArrayIndexMax});
    if (!step.ok()) {
      return invalid_argument("the step of the array's range " + shown(text) + " must be a number from 1 to " +
                              std::to_string(kArrayIndexMax) + ": write FIRST-LAST:STEP");
    }
    range.step = *step;
    range.last = last_member(range);
    if (range.last == range.first) range.step = 1;
  }
  return range;
}

}  // namespace

std::uint64_t ArraySpec::size() const {
  std::uint64_t total = 0;
  for (const ArrayRange& range : ranges) total += range.count();
  return total;
}

std::uint64_t ArraySpec::index_at(std::uint64_t position) const {
  for (const ArrayRange& range : ranges) {
    if (position < range.count()) return range.first + position * range.step;
    position -= range.count();
  }
  MUSTER_CHECK(false && "a position beyond the array");
  return 0;
}

std::optional<std::uint64_t> ArraySpec::position_of(std::uint64_t index) const {
  std::uint64_t before = 0;
  for (const ArrayRange& range : ranges) {
    if (index >= range.first && index <= range.last && (index - range.first) % range.step == 0) {
      return before + (index - range.first) / range.step;
    }
    before += range.count();
  }
  return std::nullopt;
}

std::uint64_t ArraySpec::min_index() const {
  std::uint64_t least = ranges.empty() ? 0 : UINT64_MAX;
  for (const ArrayRange& range : ranges) least = std::min(least, range.first);
  return least;
}

std::uint64_t ArraySpec::max_index() const {
  std::uint64_t most = 0;
  for (const ArrayRange& range : ranges) most = std::max(most, last_member(range));
  return most;
}

Status check_array_spec(const ArraySpec& spec) {
  if (spec.ranges.empty()) return invalid_argument("the array has no index: write for example 0-9");
  if (spec.ranges.size() > kArrayRangesMax) {
    return invalid_argument("the array has " + std::to_string(spec.ranges.size()) + " ranges: at most " +
                            std::to_string(kArrayRangesMax) + " are accepted, write it with fewer ranges");
  }
  std::uint64_t tasks = 0;
  for (const ArrayRange& range : spec.ranges) {
    if (range.step == 0 || range.first > range.last || range.last > kArrayIndexMax) {
      return invalid_argument("a range of the array is descending, without a step, or beyond " +
                              std::to_string(kArrayIndexMax) + ": write FIRST-LAST:STEP");
    }
    const std::uint64_t count = range.count();  // at most 2^63, as the indices are
    if (count > kArrayTasksMax || tasks + count > kArrayTasksMax) {
      return invalid_argument("the array has more than " + std::to_string(kArrayTasksMax) +
                              " tasks, the most that one array may have: submit several arrays");
    }
    tasks += count;
  }
  return check_overlap(spec.ranges);
}

Result<ArraySpec> parse_array_spec(std::string_view text) {
  ArraySpec spec;
  const std::size_t percent = text.find('%');
  if (percent != std::string_view::npos) {
    const auto max_running = parse_count(text.substr(percent + 1), "array", {1, kArrayTasksMax});
    if (!max_running.ok()) {
      return invalid_argument(shown(text) + " has no valid limit of running tasks after %: write a number from 1 to " +
                              std::to_string(kArrayTasksMax));
    }
    spec.max_running = *max_running;
  }
  const std::string_view list = text.substr(0, percent);
  if (list.empty()) return invalid_argument("the array has no index: write for example 0-9 or 1,3,5-9:2%4");
  for (const std::string_view item : split(list, ',')) {
    if (spec.ranges.size() == kArrayRangesMax) {
      return invalid_argument("the array has more than " + std::to_string(kArrayRangesMax) +
                              " ranges: write it with fewer ranges");
    }
    MUSTER_ASSIGN(const ArrayRange range, parse_range(item));
    spec.ranges.push_back(range);
  }
  MUSTER_TRY(check_array_spec(spec));
  return spec;
}

std::string format_array_spec(const ArraySpec& spec) {
  std::string text;
  for (const ArrayRange& range : spec.ranges) {
    if (!text.empty()) text += ',';
    text += format_range(range);
  }
  if (spec.max_running != 0) text += '%' + std::to_string(spec.max_running);
  return text;
}

}  // namespace muster
