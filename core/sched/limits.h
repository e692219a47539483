// LimitBook: the limits of accounts, users and QOS during one pass or one check: what jobs use, with what has been started
// and promised since, against what their holders may.
//
// A promise keeps room under the limits as it keeps nodes: a job that stands behind it and would still run at the promised
// start may not take that room.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/sched/accounts.h"
#include "core/sched/promise.h"
#include "lib/base/time.h"
#include "lib/model/hardware.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// What starting one job adds to its holders' use.
struct Demand {
  std::uint64_t cpus = 0;
  std::uint64_t gpus = 0;
  std::uint64_t nodes = 0;
  Duration limit;
  friend bool operator==(const Demand&, const Demand&) = default;
};
// What the job takes at least, wherever it runs.
[[nodiscard]] Demand least_demand(const JobSpec& spec);
[[nodiscard]] Demand demand_of(const std::vector<Slot>& slots, Duration limit);
[[nodiscard]] Demand demand_of(const std::vector<NodeShare>& shares, Duration limit);

// A limit that keeps a job from starting.
struct LimitHit {
  std::string word;     // Slurm's
  std::string text;     // names the holder, the limit with its value, what is used and what the job needs
  std::string command;  // that would make just enough room: "muster qos modify long user.cpus=24"
};

// One holder that has limits, and its use during a pass.
struct LimitScope {
  struct Reserve {
    Instant at;
    Demand demand;
  };
  Holder holder;
  const UseLimits* limits = nullptr;
  const JobLimits* job = nullptr;  // null: none
  InUse use;                       // with what was started
  Uint128 cpu_us_left = 0;         // of what runs, until its limits; only where that is limited
  std::vector<Reserve> reserves;
};

class LimitBook {
 public:
  // `accounts` must outlive it and not change.
  LimitBook(const Accounts& accounts, Instant now) : accounts_(&accounts), now_(now) {}
  LimitBook(const LimitBook&) = delete;
  LimitBook& operator=(const LimitBook&) = delete;

  // Whether the job has a holder with limits.
  [[nodiscard]] bool concerns(const JobSpec& spec) const { return !scopes(spec).empty(); }
  // Whether the job may start now.
  [[nodiscard]] bool allows(const JobSpec& spec, const Demand& demand) const;
  // Every limit that forbids it.
  [[nodiscard]] std::vector<LimitHit> hits(const JobSpec& spec, const Demand& demand) const;
  // The earliest instant at which a job that was not allowed because of run-minutes alone may be, if nothing else changes.
  [[nodiscard]] std::optional<Instant> retry_at() const { return retry_at_; }
  // The job starts, or is promised to start then.
  void start(const JobSpec& spec, const Demand& demand);
  void reserve(const JobSpec& spec, const Demand& demand, Instant at);

 private:
  using Key = std::tuple<std::string, std::string, std::string>;  // account, user, QOS

  const std::vector<LimitScope*>& scopes(const JobSpec& spec) const;
  [[nodiscard]] LimitScope make_scope(const Holder& holder, const UseLimits* use, const JobLimits* job) const;

  const Accounts* accounts_;
  Instant now_;
  mutable std::optional<Instant> retry_at_;
  mutable std::map<Holder, LimitScope> scopes_;
  mutable std::map<Key, std::vector<LimitScope*>> by_job_;
};

// CPU microseconds that the holder's running jobs may still take until their limits; jobs without limit are left out.
[[nodiscard]] Uint128 cpu_us_left(const Accounts& accounts, const Holder& holder, Instant now);

// The limit that a job breaks that runs alone, or that asks for more than one job may: it can never start.
[[nodiscard]] std::optional<LimitHit> never_allowed(const Accounts& accounts, const JobSpec& spec);
// Jobs that one command gives to holders that did not have them.
class PendingMoves {
 public:
  // `before` is what the job asked for; null: it is new.
  void add(const Accounts& accounts, const JobSpec& spec, std::uint64_t tasks, const JobSpec* before);
  [[nodiscard]] std::uint64_t to(const Holder& holder) const;

 private:
  std::map<Holder, std::uint64_t> moved_;
};
// The limit that is broken when so many more of its jobs wait, of holders that have not had them before.
[[nodiscard]] std::optional<LimitHit> too_many_pending(const Accounts& accounts, const JobSpec& spec,
                                                       std::uint64_t more, const PendingMoves& moved,
                                                       const JobSpec* before);

}  // namespace muster::sched
