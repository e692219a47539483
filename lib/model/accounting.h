// Accounts, users and QOS: who may use how much of the cluster, and what it is charged. Values, with the settings that
// administrators change (docs/accounting.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster {

// What all jobs of one holder may use together; unset: no limit. A task of an array counts as a job.
struct UseLimits {
  std::optional<std::uint64_t> jobs;     // that run
  std::optional<std::uint64_t> pending;  // that wait
  std::optional<std::uint64_t> cpus;
  std::optional<std::uint64_t> gpus;
  std::optional<std::uint64_t> nodes;  // of each job; a node that two jobs share counts for both
  // The sum over running jobs of CPUs times the minutes that their time limits leave.
  std::optional<std::uint64_t> cpu_minutes;
  [[nodiscard]] bool any() const { return *this != UseLimits{}; }
  friend bool operator==(const UseLimits&, const UseLimits&) = default;
};

// What one job may ask for.
struct JobLimits {
  std::optional<Duration> time;
  std::optional<std::uint64_t> cpus;
  std::optional<std::uint64_t> gpus;
  std::optional<std::uint64_t> nodes;
  friend bool operator==(const JobLimits&, const JobLimits&) = default;
};

// How a job of a QOS gives way to one of a QOS that may preempt it.
enum class QosPreempt : std::uint8_t { kAsQueue, kRequeue, kCancel, kCheckpoint, kSuspend };
std::string_view to_string(QosPreempt mode);

struct Qos {
  std::string name;
  std::int32_t priority = 0;         // points that its jobs have more, times priority.qos_weight
  std::uint32_t usage_factor = 100;  // percent of the billing that is charged
  UseLimits all;                     // of all its jobs
  UseLimits per_user;
  UseLimits per_account;
  JobLimits job;
  std::vector<std::string> preempts;  // QOS whose jobs its jobs may preempt; sorted
  QosPreempt preempt_mode = QosPreempt::kAsQueue;
  Duration preempt_grace;
  friend bool operator==(const Qos&, const Qos&) = default;
};

struct Account {
  std::string name;
  std::string parent;  // empty: it stands at the top
  std::uint32_t shares = 1;
  UseLimits all;       // of it and the accounts below it
  UseLimits per_user;  // of each user in it and the accounts below it
  JobLimits job;
  std::vector<std::string> allowed_qos;  // empty: as its parent says, at the top all; sorted
  std::string default_qos;               // empty: as its parent says
  friend bool operator==(const Account&, const Account&) = default;
};

// A user's place in one account.
struct Association {
  std::string account;
  std::uint32_t shares = 1;
  UseLimits all;
  JobLimits job;
  friend bool operator==(const Association&, const Association&) = default;
};

struct User {
  std::string name;
  std::string default_account;            // one of the associations
  std::vector<Association> associations;  // sorted by account
  std::vector<std::string> allowed_qos;   // empty: those of the account; sorted
  [[nodiscard]] const Association* association(std::string_view account) const;
  friend bool operator==(const User&, const User&) = default;
};

// What is charged for a second of each, in hundredths of a CPU second, and how fast it is forgotten. The defaults are
// those of a State that no fact has configured: they must not change.
struct BillingRules {
  std::uint32_t cpu = 100;
  std::uint32_t gpu = 1000;
  std::uint32_t memory_gib = 0;
  Duration half_life = Duration::from_s(7 * 86'400);  // zero: nothing is forgotten
  friend bool operator==(const BillingRules&, const BillingRules&) = default;
};

// What an account (without a user) or a user's place in it had used at a time: 128 bits in two halves, in the units of
// core/sched/decay.h.
struct UsageRecord {
  std::string account;
  std::string user;
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  Instant at;
  friend bool operator==(const UsageRecord&, const UsageRecord&) = default;
};

// Bounds. Shares are compared with those of siblings, so a million tells any two of them apart; the others lie beyond
// what a site means and keep sums within 64 bits.
inline constexpr std::uint32_t kSharesMax = 1'000'000;
inline constexpr std::uint64_t kUseLimitMax = 1'000'000'000'000;
inline constexpr std::uint32_t kUsageFactorMax = 10'000;
inline constexpr std::int32_t kQosPriorityMax = 100'000;
inline constexpr std::uint32_t kBillingWeightMax = 1'000'000;
inline constexpr std::int64_t kHalfLifeDaysMax = 3'650;
// Records: each is some hundred bytes and is looked at in no pass as a whole.
inline constexpr std::size_t kAccountsMax = 100'000;
inline constexpr std::size_t kUsersMax = 1'000'000;
inline constexpr std::size_t kQosMax = 1'000;
inline constexpr std::size_t kAssociationsMax = 1'000;  // of one user
// Accounts above one another: a start and an end touch all of them.
inline constexpr std::size_t kAccountDepthMax = 16;

// A user's name as the operating system may have it: no blanks, control characters, commas or equal signs.
bool is_valid_user_name(std::string_view name);

// "key=value", as `muster account|user|qos` takes it. An empty value takes the setting away.
struct AccountingSetting {
  std::string key;
  std::string value;
  friend bool operator==(const AccountingSetting&, const AccountingSetting&) = default;
};
inline constexpr std::size_t kAccountingSettingsMax = 200;

// Changes one setting. The error names the key and what it takes; it does not check that names exist.
Status change(Account& account, const AccountingSetting& setting);
Status change(Qos& qos, const AccountingSetting& setting);
// Of the user itself: default_account, allowed_qos.
Status change(User& user, const AccountingSetting& setting);
// Of its place in an account: shares and limits.
Status change(Association& association, const AccountingSetting& setting);
// Whether the key is one of an association.
bool is_association_key(std::string_view key);

}  // namespace muster
