#include "core/sched/accounts.h"

#include <algorithm>

#include "core/sched/horizon.h"
#include "lib/base/check.h"

namespace muster::sched {
namespace {

constexpr std::uint32_t kFullUsageFactor = 100;  // percent, of a job without a QOS

template <typename Map, typename Key>
void bump(Map& map, const Key& key, std::uint64_t amount, bool add) {
  auto it = map.find(key);
  if (it == map.end()) {
    if (amount == 0) {
      return;
    }
    it = map.emplace(std::string(key), 0).first;
  }
  it->second = add ? it->second + amount : it->second - amount;
  if (it->second == 0) {
    map.erase(it);
  }
}

template <typename Map>
const typename Map::mapped_type* find_in(const Map& map, std::string_view name) {
  const auto it = map.find(name);
  return it == map.end() ? nullptr : &it->second;
}

}  // namespace

InUse& InUse::operator+=(const InUse& o) {
  jobs += o.jobs;
  pending += o.pending;
  cpus += o.cpus;
  gpus += o.gpus;
  nodes += o.nodes;
  cpu_ends_us += o.cpu_ends_us;
  endless_cpus += o.endless_cpus;
  return *this;
}
InUse& InUse::operator-=(const InUse& o) {
  jobs -= o.jobs;
  pending -= o.pending;
  cpus -= o.cpus;
  gpus -= o.gpus;
  nodes -= o.nodes;
  cpu_ends_us -= o.cpu_ends_us;
  endless_cpus -= o.endless_cpus;
  return *this;
}

// ---------------------------------------------------------------- records

const Account* Accounts::account(std::string_view name) const {
  return find_in(accounts_, name);
}
const User* Accounts::user(std::string_view name) const {
  return find_in(users_, name);
}
const Qos* Accounts::qos(std::string_view name) const {
  return find_in(qos_, name);
}

std::vector<const Account*> Accounts::lineage(std::string_view name) const {
  std::vector<const Account*> line;
  for (const Account* a = account(name); a != nullptr && line.size() < accounts_.size(); a = account(a->parent)) {
    line.push_back(a);
  }
  return line;
}

bool Accounts::is_above(std::string_view name, std::string_view below) const {
  const auto line = lineage(below);
  return std::any_of(line.begin(), line.end(), [name](const Account* a) { return a->name == name; });
}

std::uint64_t Accounts::shares_below(std::string_view name) const {
  const auto it = shares_below_.find(name);
  return it == shares_below_.end() ? 0 : it->second;
}
bool Accounts::has_accounts_below(std::string_view name) const {
  return accounts_below_.contains(name);
}

// The accounts above one that is defined, and "" for everything.
std::vector<std::string> Accounts::names_above(const std::string& name) const {
  std::vector<std::string> names;
  const auto line = lineage(name);
  for (std::size_t i = 1; i < line.size(); ++i) {
    names.push_back(line[i]->name);
  }
  if (!line.empty()) {
    names.emplace_back();
  }
  return names;
}

void Accounts::set(const Account& account, Instant at) {
  const bool top = account.parent.empty();
  if (account.name.empty() || (!top && this->account(account.parent) == nullptr) ||
      (!top && is_above(account.name, account.parent))) {
    return;
  }
  const auto old = accounts_.find(account.name);
  const bool is_new = old == accounts_.end();
  const bool moves = is_new || old->second.parent != account.parent;
  settle({account.name, ""}, at);
  const std::vector<std::string> before = moves ? names_above(account.name) : std::vector<std::string>{};
  if (!is_new) {
    count_record(old->second, false);
  }
  accounts_.insert_or_assign(account.name, account);
  count_record(account, true);
  if (is_new) {
    used_.try_emplace({"", ""}, Used{0, at});
    used_.insert_or_assign({account.name, ""}, Used{0, at});
  }
  if (moves) {
    const std::vector<std::string> after = names_above(account.name);
    const auto not_in = [](const std::vector<std::string>& names, const std::vector<std::string>& others) {
      std::vector<std::string> rest;
      std::copy_if(names.begin(), names.end(), std::back_inserter(rest),
                   [&](const std::string& n) { return std::find(others.begin(), others.end(), n) == others.end(); });
      return rest;
    };
    move_up(account.name, not_in(before, after), false, at);
    move_up(account.name, not_in(after, before), true, at);
  }
}

void Accounts::remove_account(const std::string& name, Instant at) {
  const auto it = accounts_.find(name);
  if (it == accounts_.end() || has_accounts_below(name)) {
    return;
  }
  // What it used stays counted above it.
  settle({name, ""}, at);
  used_.erase({name, ""});
  move_up(name, names_above(name), false, at);
  count_record(it->second, false);
  accounts_.erase(it);
}

// Adds what the account holds and has used to those above it, or takes it away.
void Accounts::move_up(const std::string& account, const std::vector<std::string>& above, bool add, Instant at) {
  std::vector<std::pair<Holder, InUse>> uses;
  for (const HolderKind kind : {HolderKind::kAccount, HolderKind::kAccountUser}) {
    for (auto it = uses_.lower_bound(Holder{kind, account, ""});
         it != uses_.end() && it->first.kind == kind && it->first.name == account; ++it) {
      uses.emplace_back(*it);
    }
  }
  std::vector<std::pair<HeldKey, Held>> held;
  for (auto it = held_.lower_bound(HeldKey{account, "", ""});
       it != held_.end() && std::get<0>(it->first) == account && std::get<1>(it->first).empty(); ++it) {
    held.emplace_back(*it);
  }
  const auto own = used_.find({account, ""});
  for (const std::string& name : above) {
    settle({name, ""}, at);
    for (const auto& [key, amount] : held) {
      add_held({name, "", std::get<2>(key)}, amount, add);
    }
    if (const auto used = used_.find({name, ""}); used != used_.end() && own != used_.end()) {
      Uint128& value = used->second.value;
      value = add ? saturating_add(value, own->second.value) : value - std::min(value, own->second.value);
    }
    if (name.empty()) {
      continue;
    }
    for (const auto& [holder, amount] : uses) {
      add_use(Holder{holder.kind, name, holder.of}, amount, add);
    }
  }
}

void Accounts::set(const User& user, Instant at) {
  if (user.name.empty()) {
    return;
  }
  const auto old = users_.find(user.name);
  if (old != users_.end()) {
    for (const Association& a : old->second.associations) {
      if (user.association(a.account) == nullptr) {
        used_.erase({a.account, user.name});
      }
    }
    count_record(old->second, false);
  }
  for (const Association& a : user.associations) {
    used_.try_emplace({a.account, user.name}, Used{0, at});
  }
  users_.insert_or_assign(user.name, user);
  count_record(user, true);
}

void Accounts::remove_user(const std::string& name) {
  const auto it = users_.find(name);
  if (it == users_.end()) {
    return;
  }
  for (const Association& a : it->second.associations) {
    used_.erase({a.account, name});
  }
  count_record(it->second, false);
  users_.erase(it);
}

void Accounts::set(const Qos& qos, Instant at) {
  if (qos.name.empty()) {
    return;
  }
  const auto old = qos_.find(qos.name);
  const std::uint32_t factor = old == qos_.end() ? kFullUsageFactor : old->second.usage_factor;
  if (factor != qos.usage_factor) {
    settle_all(at);
  }
  if (old != qos_.end()) {
    count_record(old->second, false);
  }
  qos_.insert_or_assign(qos.name, qos);
  count_record(qos, true);
}

void Accounts::remove_qos(const std::string& name, Instant at) {
  const auto it = qos_.find(name);
  if (it == qos_.end()) {
    return;
  }
  if (it->second.usage_factor != kFullUsageFactor) {
    settle_all(at);
  }
  count_record(it->second, false);
  qos_.erase(it);
}

void Accounts::configure(const BillingRules& rules, Instant at) {
  settle_all(at);
  billing_ = rules;
}

void Accounts::count_record(const Account& account, bool add) {
  bump(shares_below_, account.parent, account.shares, add);
  bump(accounts_below_, account.parent, 1, add);
  const std::uint64_t limited = account.all.any() || account.per_user.any() || account.job != JobLimits{} ? 1 : 0;
  limited_ = add ? limited_ + limited : limited_ - limited;
}
void Accounts::count_record(const User& user, bool add) {
  std::uint64_t limited = 0;
  for (const Association& a : user.associations) {
    bump(shares_below_, a.account, a.shares, add);
    limited += a.all.any() || a.job != JobLimits{} ? 1 : 0;
  }
  limited_ = add ? limited_ + limited : limited_ - limited;
}
void Accounts::count_record(const Qos& qos, bool add) {
  const bool any = qos.all.any() || qos.per_user.any() || qos.per_account.any() || qos.job != JobLimits{};
  const std::uint64_t limited = any ? 1 : 0;
  limited_ = add ? limited_ + limited : limited_ - limited;
}

// ---------------------------------------------------------------- what was used

Uint128 Accounts::rate(std::string_view account, std::string_view user) const {
  Uint128 sum = 0;
  for (auto it = held_.lower_bound(HeldKey{account, user, ""});
       it != held_.end() && std::get<0>(it->first) == account && std::get<1>(it->first) == user; ++it) {
    const Qos* q = qos(std::get<2>(it->first));
    const Held& held = it->second;
    const Uint128 billing = Uint128{held.cores} * billing_.cpu + Uint128{held.gpus} * billing_.gpu +
                            Uint128{held.mem_mib} * billing_.memory_gib / 1024;
    sum += billing * (q == nullptr ? kFullUsageFactor : q->usage_factor);
  }
  return sum;
}

Accounts::Used Accounts::at_time(const Leaf& leaf, const Used& used, Instant at) const {
  if (at <= used.at) {
    return used;
  }
  const Duration span = at - used.at;
  return Used{saturating_add(decayed(used.value, span, billing_.half_life),
                             charged(rate(leaf.first, leaf.second), span, billing_.half_life)),
              at};
}

void Accounts::settle(const Leaf& leaf, Instant at) {
  if (const auto it = used_.find(leaf); it != used_.end()) {
    it->second = at_time(leaf, it->second, at);
  }
}

void Accounts::settle_all(Instant at) {
  for (auto& [leaf, used] : used_) {
    used = at_time(leaf, used, at);
  }
}

Uint128 Accounts::used(std::string_view account, std::string_view user, Instant at) const {
  const Leaf leaf(account, user);
  const auto it = used_.find(leaf);
  return it == used_.end() ? 0 : at_time(leaf, it->second, at).value;
}

std::vector<UsageRecord> Accounts::usage_records() const {
  std::vector<UsageRecord> records;
  records.reserve(used_.size());
  for (const auto& [leaf, used] : used_) {
    records.push_back({leaf.first, leaf.second, static_cast<std::uint64_t>(used.value >> 64U),
                       static_cast<std::uint64_t>(used.value), used.at});
  }
  return records;
}

// ---------------------------------------------------------------- counts of jobs

std::vector<Holder> Accounts::holders(const JobSpec& spec) const {
  std::vector<Holder> all;
  if (!spec.account.empty()) {
    all.push_back({HolderKind::kAssociation, spec.account, spec.user});
    all.push_back({HolderKind::kAccount, spec.account, ""});
    all.push_back({HolderKind::kAccountUser, spec.account, spec.user});
    for (const std::string& name : names_above(spec.account)) {
      if (!name.empty()) {
        all.push_back({HolderKind::kAccount, name, ""});
        all.push_back({HolderKind::kAccountUser, name, spec.user});
      }
    }
  }
  if (!spec.qos.empty()) {
    all.push_back({HolderKind::kQos, spec.qos, ""});
    all.push_back({HolderKind::kQosUser, spec.qos, spec.user});
    if (!spec.account.empty()) {
      all.push_back({HolderKind::kQosAccount, spec.qos, spec.account});
    }
  }
  return all;
}

InUse Accounts::in_use(const Holder& holder) const {
  const auto it = uses_.find(holder);
  return it == uses_.end() ? InUse{} : it->second;
}

void Accounts::add_use(const Holder& holder, const InUse& amount, bool add) {
  InUse& use = uses_[holder];
  if (add) {
    use += amount;
  } else {
    use -= amount;
  }
  if (use == InUse{}) {
    uses_.erase(holder);
  }
}

void Accounts::change_use(const JobSpec& spec, const InUse& amount, bool add) {
  if (amount == InUse{}) {
    return;
  }
  for (const Holder& holder : holders(spec)) {
    add_use(holder, amount, add);
  }
}

void Accounts::add_held(const HeldKey& key, const Held& amount, bool add) {
  Held& held = held_[key];
  held.cores = add ? held.cores + amount.cores : held.cores - amount.cores;
  held.gpus = add ? held.gpus + amount.gpus : held.gpus - amount.gpus;
  held.mem_mib = add ? held.mem_mib + amount.mem_mib : held.mem_mib - amount.mem_mib;
  if (held == Held{}) {
    held_.erase(key);
  }
}

void Accounts::change_held(const JobSpec& spec, const Held& amount, bool add, Instant now) {
  if (spec.account.empty() || amount == Held{}) {
    return;
  }
  std::vector<Leaf> leaves{{spec.account, ""}};
  if (!spec.user.empty()) {
    leaves.emplace_back(spec.account, spec.user);
  }
  for (std::string& name : names_above(spec.account)) {
    leaves.emplace_back(std::move(name), "");
  }
  for (const Leaf& leaf : leaves) {
    if (!rebuilding_) {
      settle(leaf, now);
    }
    add_held({leaf.first, leaf.second, spec.qos}, amount, add);
  }
}

namespace {
bool counts(const JobSpec& spec) {
  return !spec.account.empty() || !spec.qos.empty();
}

// Of an attempt without a limit the end is that of all time.
InUse use_of(const NodeShare& share, Instant end) {
  InUse use;
  use.cpus = share.cores.count();
  use.gpus = share.gpus.count();
  use.nodes = 1;
  if (end == end_of(Instant{}, Duration::infinite())) {
    use.endless_cpus = use.cpus;
  } else {
    use.cpu_ends_us = Uint128{use.cpus} * static_cast<std::uint64_t>(end.us);
  }
  return use;
}
}  // namespace

void Accounts::add_pending(const JobSpec& spec, std::uint64_t jobs) {
  if (counts(spec)) {
    InUse use;
    use.pending = jobs;
    change_use(spec, use, true);
  }
}
void Accounts::remove_pending(const JobSpec& spec, std::uint64_t jobs) {
  if (counts(spec)) {
    InUse use;
    use.pending = jobs;
    change_use(spec, use, false);
  }
}

void Accounts::add_running(JobId job, const JobSpec& spec, const std::vector<const NodeShare*>& held, Instant end,
                           Instant now) {
  if (!counts(spec)) {
    return;
  }
  InUse use;
  Held amount;
  for (const NodeShare* share : held) {
    use += use_of(*share, end);
    amount.cores += share->cores.count();
    amount.gpus += share->gpus.count();
    amount.mem_mib += share->mem_mib;
  }
  running_.insert_or_assign({end, job}, RunningCpus{spec.account, spec.user, spec.qos, use.cpus});
  use.jobs = 1;
  change_use(spec, use, true);
  change_held(spec, amount, true, now);
}

void Accounts::give_back(JobId job, const JobSpec& spec, const NodeShare& share, Instant end, Instant now) {
  if (!counts(spec)) {
    return;
  }
  const InUse use = use_of(share, end);
  change_use(spec, use, false);
  change_held(spec, Held{share.cores.count(), share.gpus.count(), share.mem_mib}, false, now);
  if (const auto it = running_.find({end, job}); it != running_.end()) {
    it->second.cpus -= use.cpus;
  }
}

void Accounts::remove_running(JobId job, const JobSpec& spec, Instant end) {
  if (!counts(spec)) {
    return;
  }
  InUse use;
  use.jobs = 1;
  change_use(spec, use, false);
  running_.erase({end, job});
}

// ---------------------------------------------------------------- snapshots

void Accounts::load(Account account) {
  std::string name = account.name;
  accounts_.insert_or_assign(std::move(name), std::move(account));
}
void Accounts::load(User user) {
  std::string name = user.name;
  users_.insert_or_assign(std::move(name), std::move(user));
}
void Accounts::load(Qos qos) {
  std::string name = qos.name;
  qos_.insert_or_assign(std::move(name), std::move(qos));
}
void Accounts::load(const UsageRecord& record) {
  used_.insert_or_assign({record.account, record.user},
                         Used{std::min(Uint128{record.high} << 64U | record.low, kUseMax), record.at});
}

void Accounts::begin_rebuild() {
  uses_.clear();
  held_.clear();
  running_.clear();
  shares_below_.clear();
  accounts_below_.clear();
  limited_ = 0;
  for (const auto& [name, account] : accounts_) {
    count_record(account, true);
  }
  for (const auto& [name, user] : users_) {
    count_record(user, true);
  }
  for (const auto& [name, qos] : qos_) {
    count_record(qos, true);
  }
  rebuilding_ = true;
}
void Accounts::end_rebuild() {
  rebuilding_ = false;
}

}  // namespace muster::sched
