// Small helpers that the shepherd's files share. Part of the shepherd: single-threaded, lib/base only.
#pragma once

#include <signal.h>
#include <string.h>
#include <time.h>

#include <cstdint>
#include <string>

namespace muster::noded {

// KILL is repeated this often until nothing is left (a process may have forked meanwhile).
inline constexpr std::int64_t kKillAgainUs = 20'000;

// Time since boot, which goes on while the machine sleeps.
inline std::int64_t now_us() {
  timespec ts{};
  clock_gettime(CLOCK_BOOTTIME, &ts);
  return static_cast<std::int64_t>(ts.tv_sec) * 1'000'000 + ts.tv_nsec / 1000;
}

inline std::string text_of_errno(int error_number) {
  char buffer[64];
  return strerror_r(error_number, buffer, sizeof(buffer));
}

// Whether a signal is meant for every process of a job: those that no program can catch, and the end of a stop.
inline bool goes_to_everything(int signal) {
  return signal == SIGKILL || signal == SIGSTOP || signal == SIGCONT;
}

}  // namespace muster::noded
