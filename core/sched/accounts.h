// Accounts: the accounts, users and QOS of the cluster, what they have used, and what their jobs hold now. Kept by
// evolve(). A value.
//
// Jobs are counted by the texts of their account and QOS, whether these are defined or not, so that defining an account
// changes no count but those of the accounts above it.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/sched/decay.h"
#include "lib/base/time.h"
#include "lib/model/accounting.h"
#include "lib/model/hardware.h"
#include "lib/model/ids.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// Whose jobs are counted together.
enum class HolderKind : std::uint8_t {
  kAssociation,  // of user `of` in the account itself
  kAccount,      // in the account and those below it
  kAccountUser,  // of user `of` in the account and those below it
  kQos,
  kQosUser,     // of user `of`
  kQosAccount,  // of the account `of` itself
};
struct Holder {
  HolderKind kind = HolderKind::kAccount;
  std::string name;
  std::string of;
  friend auto operator<=>(const Holder&, const Holder&) = default;
};

// What the jobs of one holder use.
struct InUse {
  std::uint64_t jobs = 0;     // that hold something
  std::uint64_t pending = 0;  // that wait, tasks of arrays counted singly
  std::uint64_t cpus = 0;
  std::uint64_t gpus = 0;
  std::uint64_t nodes = 0;
  // For run-minutes: the sum of CPUs times the instant by which the limit ends them, and the CPUs without a limit.
  Uint128 cpu_ends_us = 0;
  std::uint64_t endless_cpus = 0;

  InUse& operator+=(const InUse& o);
  InUse& operator-=(const InUse& o);
  friend bool operator==(const InUse&, const InUse&) = default;
};

// A running job that counts for somebody, by the instant at which its limit ends it.
struct RunningCpus {
  std::string account;
  std::string user;
  std::string qos;
  std::uint64_t cpus = 0;  // held now
  friend bool operator==(const RunningCpus&, const RunningCpus&) = default;
};

class Accounts {
 public:
  // Records. A change that contradicts what is there (a missing parent, a cycle, an account with others below it that
  // goes) changes nothing. What was used before is settled at `at`.
  void set(const Account& account, Instant at);
  void remove_account(const std::string& name, Instant at);
  void set(const User& user, Instant at);
  void remove_user(const std::string& name);
  void set(const Qos& qos, Instant at);
  void remove_qos(const std::string& name, Instant at);
  void configure(const BillingRules& rules, Instant at);

  [[nodiscard]] const Account* account(std::string_view name) const;
  [[nodiscard]] const User* user(std::string_view name) const;
  [[nodiscard]] const Qos* qos(std::string_view name) const;
  using AccountMap = std::map<std::string, Account, std::less<>>;
  using UserMap = std::map<std::string, User, std::less<>>;
  using QosMap = std::map<std::string, Qos, std::less<>>;
  [[nodiscard]] const AccountMap& accounts() const { return accounts_; }
  [[nodiscard]] const UserMap& users() const { return users_; }
  [[nodiscard]] const QosMap& all_qos() const { return qos_; }
  [[nodiscard]] const BillingRules& billing() const { return billing_; }
  // Neither accounts nor QOS are defined: nothing of this counts.
  [[nodiscard]] bool empty() const { return accounts_.empty() && qos_.empty(); }
  // Whether any holder has a limit.
  [[nodiscard]] bool has_limits() const { return limited_ != 0; }

  // The account and those above it, the nearest first; nothing for one that is not defined.
  [[nodiscard]] std::vector<const Account*> lineage(std::string_view account) const;
  // Whether the account `name` is `below` or stands above it.
  [[nodiscard]] bool is_above(std::string_view name, std::string_view below) const;
  // The shares of all accounts and users directly below the account; "" is the top.
  [[nodiscard]] std::uint64_t shares_below(std::string_view account) const;
  // Whether accounts stand below this one.
  [[nodiscard]] bool has_accounts_below(std::string_view account) const;

  // What a job counts for: its association, accounts and QOS.
  [[nodiscard]] std::vector<Holder> holders(const JobSpec& spec) const;
  [[nodiscard]] InUse in_use(const Holder& holder) const;
  // What was used by then; user "" is the account with all below it, account "" everything.
  [[nodiscard]] Uint128 used(std::string_view account, std::string_view user, Instant at) const;

  // Counts of jobs. `now` is when it happens: what was used until then is charged first.
  void add_pending(const JobSpec& spec, std::uint64_t jobs);
  void remove_pending(const JobSpec& spec, std::uint64_t jobs);
  void add_running(JobId job, const JobSpec& spec, const std::vector<const NodeShare*>& held, Instant end, Instant now);
  void remove_running(JobId job, const JobSpec& spec, Instant end);
  // One node's part of a running job, which is not counted with it any more.
  void give_back(JobId job, const JobSpec& spec, const NodeShare& share, Instant end, Instant now);

  using RunningMap = std::map<std::pair<Instant, JobId>, RunningCpus>;
  [[nodiscard]] const RunningMap& running() const { return running_; }

  // For snapshots, in the order of accounts and users.
  [[nodiscard]] std::vector<UsageRecord> usage_records() const;
  // A record without its checks and counts: rebuild() follows.
  void load(Account account);
  void load(User user);
  void load(Qos qos);
  void load(const UsageRecord& record);
  void load(const BillingRules& rules) { billing_ = rules; }
  // Forgets the counts, so that jobs are counted again; what was used stays as it is until end_rebuild().
  void begin_rebuild();
  void end_rebuild();

  friend bool operator==(const Accounts&, const Accounts&) = default;

 private:
  using Leaf = std::pair<std::string, std::string>;  // account, user
  struct Used {
    Uint128 value = 0;
    Instant at;
    friend bool operator==(const Used&, const Used&) = default;
  };
  // What is charged: amounts that running jobs hold, by account, user and QOS.
  struct Held {
    std::uint64_t cores = 0;
    std::uint64_t gpus = 0;
    std::uint64_t mem_mib = 0;
    friend bool operator==(const Held&, const Held&) = default;
  };
  using HeldKey = std::tuple<std::string, std::string, std::string>;

  [[nodiscard]] Uint128 rate(std::string_view account, std::string_view user) const;
  [[nodiscard]] Used at_time(const Leaf& leaf, const Used& used, Instant at) const;
  void settle(const Leaf& leaf, Instant at);
  void settle_all(Instant at);
  void change_held(const JobSpec& spec, const Held& amount, bool add, Instant now);
  void change_use(const JobSpec& spec, const InUse& amount, bool add);
  void add_held(const HeldKey& key, const Held& amount, bool add);
  void add_use(const Holder& holder, const InUse& amount, bool add);
  void move_up(const std::string& account, const std::vector<std::string>& above, bool add, Instant at);
  [[nodiscard]] std::vector<std::string> names_above(const std::string& account) const;
  void count_record(const Account& account, bool add);
  void count_record(const User& user, bool add);
  void count_record(const Qos& qos, bool add);

  AccountMap accounts_;
  UserMap users_;
  QosMap qos_;
  BillingRules billing_;
  std::map<Leaf, Used> used_;  // of each account, each association, and of everything

  // Derived from records and jobs.
  std::map<Holder, InUse> uses_;
  std::map<HeldKey, Held> held_;
  RunningMap running_;
  std::map<std::string, std::uint64_t, std::less<>> shares_below_;
  std::map<std::string, std::uint64_t, std::less<>> accounts_below_;
  std::uint64_t limited_ = 0;  // records with limits
  // While jobs are counted again nothing is charged.
  bool rebuilding_ = false;
};

}  // namespace muster::sched
