// Licences of the whole cluster: who holds them until when, and how many are free at each instant of a pass.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/time.h"
#include "lib/model/license.h"

namespace muster::sched {

// What active jobs hold, and the instants by which their time limits end them. Kept by evolve(). A value.
class LicenseHolds {
 public:
  void hold(const LicenseCounts& licenses, Instant until);
  // The same licences and instant that were given to hold().
  void release(const LicenseCounts& licenses, Instant until);

  [[nodiscard]] std::uint64_t used(const std::string& name) const;
  // Counts by the instant at which they are believed to be back; empty: none is held.
  [[nodiscard]] const std::map<Instant, std::uint64_t>& on(const std::string& name) const;
  // Rises whenever something was given back.
  [[nodiscard]] std::uint64_t released() const { return released_; }
  friend bool operator==(const LicenseHolds& a, const LicenseHolds& b) { return a.holds_ == b.holds_; }

 private:
  std::map<std::string, std::map<Instant, std::uint64_t>> holds_;
  std::uint64_t released_ = 0;
};

// What is free from now on, when attempts end as their limits say and what a pass has started and promised is taken away.
// Can be negative where fewer are configured than are held. Made for one pass over holds that do not change meanwhile.
class LicenseLine {
 public:
  LicenseLine() = default;
  LicenseLine(const LicenseTotals& totals, const LicenseHolds& holds, Instant now)
      : totals_(&totals), holds_(&holds), now_(now) {}

  void take(const LicenseCounts& licenses, Instant from, Instant until);
  void give_back(const LicenseCounts& licenses, Instant from, Instant until);
  // Whether all of them are free at every instant of [from, until).
  [[nodiscard]] bool covers(const LicenseCounts& licenses, Instant from, Instant until) const;
  // The earliest start, not before `from`, at which they are free for so long; nothing when there is none.
  [[nodiscard]] std::optional<Instant> earliest(const LicenseCounts& licenses, Duration limit, Instant from) const;
  // The least that is free of one in [from, until).
  [[nodiscard]] std::int64_t free(const std::string& name, Instant from, Instant until) const;

 private:
  using Steps = std::map<Instant, std::int64_t>;  // free from that instant on
  Steps& steps(const std::string& name) const;
  void add(const LicenseCounts& licenses, Instant from, Instant until, std::int64_t sign);

  const LicenseTotals* totals_ = nullptr;  // null: there are none
  const LicenseHolds* holds_ = nullptr;
  Instant now_;
  mutable std::map<std::string, Steps> steps_;  // made when they are asked for
};

}  // namespace muster::sched
