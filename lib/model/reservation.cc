#include "lib/model/reservation.h"

#include <algorithm>
#include <numeric>

namespace muster {
namespace {

constexpr Instant kEndOfTime{INT64_MAX / 2};

Instant later(Instant at, Duration by) {
  return at.us > kEndOfTime.us - std::min(by.us, kEndOfTime.us) ? kEndOfTime : at + by;
}

bool recurs(const Reservation& r) {
  return r.every > Duration{};
}

}  // namespace

std::optional<Window> window_after(const Reservation& r, Instant at) {
  if (recurs(r) && r.every <= r.duration) {
    return at < kEndOfTime ? std::optional(Window{r.start, kEndOfTime}) : std::nullopt;
  }
  const Window first{r.start, later(r.start, r.duration)};
  if (at < first.end) {
    return first;
  }
  if (!recurs(r)) {
    return std::nullopt;
  }
  // The last window that began at `at` or before, or the one behind it.
  const std::int64_t periods = (at - r.start).us / r.every.us;
  const Instant start{r.start.us + periods * r.every.us};
  if (at < later(start, r.duration)) {
    return Window{start, later(start, r.duration)};
  }
  const Instant next = later(start, r.every);
  return next < kEndOfTime ? std::optional(Window{next, later(next, r.duration)}) : std::nullopt;
}

bool meets_window(const Reservation& r, Instant from, Instant until) {
  const auto window = window_after(r, from);
  return window && window->start < until;
}

bool windows_overlap(const Reservation& a, const Reservation& b) {
  if (!recurs(a)) {
    return meets_window(b, a.start, later(a.start, a.duration));
  }
  if (!recurs(b)) {
    return windows_overlap(b, a);
  }
  // The distances from a window of `a` to one of `b` are all that differ from (b.start - a.start) by a multiple of the
  // greatest common divisor of the periods; each of them occurs between late windows.
  const std::int64_t step = std::gcd(a.every.us, b.every.us);
  const std::int64_t apart = (((b.start - a.start).us % step) + step) % step;
  return apart < a.duration.us || step - apart < b.duration.us;
}

bool admits(const Reservation& r, const std::string& user, const std::string& account) {
  return std::find(r.users.begin(), r.users.end(), user) != r.users.end() ||
         (!account.empty() && std::find(r.accounts.begin(), r.accounts.end(), account) != r.accounts.end());
}

}  // namespace muster
