// Reservation: nodes that belong to some users and accounts, or to nobody, during windows of time. Only jobs that name the
// reservation run there then (docs/reservations.md). A value; its windows follow from start, duration and period alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/time.h"

namespace muster {

struct Reservation {
  std::string name;
  Instant start;
  Duration duration;
  Duration every;                     // from one window's start to the next one's; 0: there is one window
  std::vector<std::string> nodes;     // names, in the order of people, each once
  std::vector<std::string> users;     // who may run in it: these users, and ...
  std::vector<std::string> accounts;  // ... whoever charges these accounts
  bool maintenance = false;           // nobody runs in it
  bool ignore_jobs = false;           // was made although jobs were running that reach into it
  std::string created_by;
  Instant created;
  friend bool operator==(const Reservation&, const Reservation&) = default;
};

// Every pass looks at the windows of the nodes it uses; far above what a site has at a time.
inline constexpr std::size_t kReservationsMax = 1'000;
// Users and accounts of one reservation.
inline constexpr std::size_t kReservationMembersMax = 10'000;
// The shortest window and period: what is shorter ends before a planner has used it.
inline constexpr Duration kWindowMin = Duration::from_s(1);
inline constexpr Duration kPeriodMin = Duration::from_s(60);

// One window, [start, end).
struct Window {
  Instant start;
  Instant end;
  friend bool operator==(const Window&, const Window&) = default;
};

// The first window that ends after `at`; windows that follow each other without a gap are one. Nothing when all are over.
[[nodiscard]] std::optional<Window> window_after(const Reservation& reservation, Instant at);
// Whether [from, until) meets a window.
[[nodiscard]] bool meets_window(const Reservation& reservation, Instant from, Instant until);
// Whether any window of one meets any window of the other, at whatever time.
[[nodiscard]] bool windows_overlap(const Reservation& a, const Reservation& b);
// Whether the user, charging the account, is on the list.
[[nodiscard]] bool admits(const Reservation& reservation, const std::string& user, const std::string& account);

}  // namespace muster
