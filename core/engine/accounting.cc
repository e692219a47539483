#include "core/engine/accounting.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/engine/accounting_text.h"
#include "core/sched/limits.h"
#include "lib/base/text.h"
#include "lib/model/job_name.h"

namespace muster::engine {
namespace {

using sched::Accounts;
using sched::Holder;
using sched::HolderKind;
using sched::InUse;

void each_job(const State& state, const std::function<void(const Job&)>& visit) {
  for (const auto* records : {&state.arrays, &state.jobs}) {
    for (const auto& [id, job] : *records) {
      visit(job);
    }
  }
}

// "3 running and 2 waiting jobs (12, 15)": those that count for the holder; empty when there are none.
std::string jobs_of(const State& state, const Holder& holder) {
  const InUse use = state.accounts.in_use(holder);
  if (use.jobs + use.pending == 0) {
    return "";
  }
  std::set<std::string> ids;
  each_job(state, [&](const Job& job) {
    const auto holders = state.accounts.holders(*job.spec);
    if (ids.size() <= kNamedMax && std::find(holders.begin(), holders.end(), holder) != holders.end()) {
      ids.insert(job_name(job));
    }
  });
  std::vector<std::string> named(ids.begin(), ids.end());
  const std::string more = named.size() > kNamedMax ? ", ..." : "";
  named.resize(std::min(named.size(), kNamedMax));
  return std::to_string(use.jobs) + " running and " + std::to_string(use.pending) + " waiting jobs (" +
         list_text(named) + more + ")";
}

class Change {
 public:
  Change(const State& state, const ChangeAccounting& c, Instant now)
      : state_(state), known_(state.accounts), c_(c), now_(now) {}

  Result<Decision> run() {
    if (!c_.caller.admin) {
      return make_error(ErrorCode::kPermissionDenied,
                        "changing accounts, users and QOS needs an administrator's key: ask one of them");
    }
    if (c_.settings.size() > kAccountingSettingsMax) {
      return invalid_argument("there are " + std::to_string(c_.settings.size()) + " settings: at most " +
                              std::to_string(kAccountingSettingsMax) + " can be given at once");
    }
    const bool name_ok = c_.kind == AccountingKind::kUser ? is_valid_user_name(c_.name) : is_valid_node_name(c_.name);
    if (!name_ok) {
      return invalid_argument("\"" + printable(c_.name.substr(0, 80)) + "\" is no name of " + kind_text() +
                              (c_.kind == AccountingKind::kUser
                                   ? ": use the user's login name"
                                   : ": use 1 to 63 letters, digits, '_', '.', '-', a letter or digit first"));
    }
    switch (c_.kind) {
      case AccountingKind::kAccount:
        MUSTER_TRY(account());
        break;
      case AccountingKind::kUser:
        MUSTER_TRY(user());
        break;
      case AccountingKind::kQos:
        MUSTER_TRY(qos());
        break;
    }
    d_.matched = 1;
    return std::move(d_);
  }

 private:
  [[nodiscard]] const char* kind_word() const {
    return c_.kind == AccountingKind::kAccount ? "account" : c_.kind == AccountingKind::kUser ? "user" : "qos";
  }
  [[nodiscard]] const char* kind_text() const {
    return c_.kind == AccountingKind::kAccount ? "an account" : c_.kind == AccountingKind::kUser ? "a user" : "a QOS";
  }
  [[nodiscard]] std::string thing() const {
    return std::string(c_.kind == AccountingKind::kQos ? "QOS" : kind_word()) + " " + printable(c_.name);
  }

  void fact(FactBody body) { d_.facts.push_back(Fact{now_, std::move(body)}); }

  Status no_settings() const {
    return c_.settings.empty() ? ok_status()
                               : Status(invalid_argument("delete takes no settings: leave out " +
                                                         printable(c_.settings.front().key.substr(0, 80))));
  }

  // Whether the record is there as the verb needs it.
  template <typename Map>
  Status check_there(const Map& map, std::size_t max) const {
    const bool there = map.find(c_.name) != map.end();
    if (c_.verb == AccountingVerb::kAdd && !there && map.size() >= max) {
      return make_error(ErrorCode::kRefused,
                        "there are " + std::to_string(map.size()) + " of them, which is the limit: delete some first");
    }
    if (c_.verb != AccountingVerb::kAdd && !there) {
      return make_error(ErrorCode::kNotFound, "there is no " + thing() + ": " + hint(map, c_.name, kind_word()));
    }
    return ok_status();
  }

  // A client that lost the answer asks again: adding what is there just so is done, anything else is a mistake.
  template <typename Record>
  Status check_added(const Record* old, const Record& record) const {
    if (c_.verb == AccountingVerb::kAdd && old != nullptr && *old != record) {
      return make_error(ErrorCode::kAlreadyExists, thing() + " exists already: change it with muster " + kind_word() +
                                                       " modify " + printable(c_.name));
    }
    return ok_status();
  }

  Status check_qos_names(const std::vector<std::string>& names, const char* key) const {
    for (const std::string& name : names) {
      if (known_.qos(name) == nullptr) {
        return make_error(ErrorCode::kNotFound, std::string(key) + ": there is no QOS " + printable(name) + ": " +
                                                    hint(known_.all_qos(), name, "qos"));
      }
    }
    return ok_status();
  }

  // ------------------------------------------------------------ accounts

  Status account() {
    MUSTER_TRY(check_there(known_.accounts(), kAccountsMax));
    if (c_.verb == AccountingVerb::kDelete) {
      MUSTER_TRY(no_settings());
      MUSTER_TRY(check_account_unused());
      fact(AccountRemoved{c_.name});
      return ok_status();
    }
    const Account* old = known_.account(c_.name);
    Account record = c_.verb == AccountingVerb::kAdd ? Account{} : *old;
    record.name = c_.name;
    for (const AccountingSetting& s : c_.settings) {
      MUSTER_TRY(change(record, s));
    }
    MUSTER_TRY(check_added(old, record));
    MUSTER_TRY(check_parent(record));
    MUSTER_TRY(check_qos_names(record.allowed_qos, "allowed_qos"));
    if (!record.default_qos.empty()) {
      MUSTER_TRY(check_qos_names({record.default_qos}, "default_qos"));
      if (!record.allowed_qos.empty() && !contains(record.allowed_qos, record.default_qos)) {
        return refused("default_qos: QOS " + record.default_qos + " is not in allowed_qos: add it there");
      }
    }
    if (old == nullptr || *old != record) {
      Accounts after = known_;
      after.set(record, now_);
      tell_orphans(after);
      fact(AccountSet{std::move(record)});
    }
    return ok_status();
  }

  Status check_account_unused() const {
    std::vector<std::string> below;
    for (const auto& [name, each] : known_.accounts()) {
      if (each.parent == c_.name) {
        below.push_back(name);
      }
    }
    if (!below.empty()) {
      return refused("account " + c_.name + " has accounts below it (" + list_text(below) +
                     "): delete them first, or give them another parent");
    }
    if (const std::string jobs = jobs_of(state_, {HolderKind::kAccount, c_.name, ""}); !jobs.empty()) {
      return refused("account " + c_.name + " has " + jobs + ": wait until they have ended, or cancel them");
    }
    std::vector<std::string> users;
    for (const auto& [name, each] : known_.users()) {
      if (each.association(c_.name) != nullptr) {
        users.push_back(name);
      }
    }
    if (!users.empty()) {
      return refused("account " + c_.name + " has users (" + list_text(users) +
                     "): take them out first with muster user delete USER account=" + c_.name);
    }
    return ok_status();
  }

  Status check_parent(const Account& record) const {
    if (record.parent.empty()) {
      return check_depth(record, 0);
    }
    if (known_.account(record.parent) == nullptr) {
      return make_error(ErrorCode::kNotFound, "parent: there is no account " + record.parent + ": " +
                                                  hint(known_.accounts(), record.parent, "account"));
    }
    if (record.parent == record.name || known_.is_above(record.name, record.parent)) {
      return refused("parent: account " + record.parent + " stands below " + record.name +
                     ", so it cannot stand above it: choose another one");
    }
    return check_depth(record, known_.lineage(record.parent).size());
  }

  Status check_depth(const Account& record, std::size_t above) const {
    std::size_t below = 0;
    if (known_.has_accounts_below(record.name)) {
      for (const auto& [name, each] : known_.accounts()) {
        const auto line = known_.lineage(name);
        for (std::size_t i = 0; i < line.size(); ++i) {
          if (line[i]->name == record.name) {
            below = std::max(below, i);
          }
        }
      }
    }
    if (above + 1 + below > kAccountDepthMax) {
      return make_error(ErrorCode::kRefused, "parent: there would be " + std::to_string(above + 1 + below) +
                                                 " accounts above one another: at most " +
                                                 std::to_string(kAccountDepthMax) + " are possible");
    }
    return ok_status();
  }

  // ------------------------------------------------------------ users

  Status user() {
    std::string account;
    for (const AccountingSetting& s : c_.settings) {
      if (s.key == "account") {
        account = s.value;
      }
    }
    if (!account.empty() && known_.account(account) == nullptr) {
      return make_error(ErrorCode::kNotFound, "account: there is no account " + printable(account) + ": " +
                                                  hint(known_.accounts(), account, "account"));
    }
    const User* old = known_.user(c_.name);
    MUSTER_TRY(check_there(known_.users(), kUsersMax));
    if (c_.verb == AccountingVerb::kDelete) {
      return delete_user(*old, account);
    }
    const bool adds = c_.verb == AccountingVerb::kAdd;
    User record = old == nullptr || (adds && account.empty()) ? User{} : *old;
    record.name = c_.name;
    const bool had_place = old != nullptr && old->association(account) != nullptr;
    if (adds && !account.empty()) {
      MUSTER_TRY(add_place(record, account));
    }
    MUSTER_TRY(change_user(record, account));
    if (adds && had_place && *old != record) {
      return make_error(ErrorCode::kAlreadyExists, "user " + printable(c_.name) + " is in account " + account +
                                                       " already: change it with muster user modify " +
                                                       printable(c_.name) + " account=" + account);
    }
    if (adds && account.empty()) {
      MUSTER_TRY(check_added(old, record));
    }
    MUSTER_TRY(check_qos_names(record.allowed_qos, "allowed_qos"));
    if (!record.default_account.empty() && record.association(record.default_account) == nullptr) {
      return refused("default_account: user " + printable(c_.name) + " has no place in account " +
                     record.default_account + ": add it with muster user add " + printable(c_.name) +
                     " account=" + record.default_account);
    }
    if (old == nullptr || *old != record) {
      Accounts after = known_;
      after.set(record, now_);
      tell_orphans(after);
      fact(UserSet{std::move(record)});
    }
    return ok_status();
  }

  Status add_place(User& record, const std::string& account) const {
    std::erase_if(record.associations, [&](const Association& a) { return a.account == account; });
    if (record.associations.size() >= kAssociationsMax) {
      return make_error(ErrorCode::kRefused, "user " + printable(c_.name) + " is in " +
                                                 std::to_string(kAssociationsMax) +
                                                 " accounts, which is the limit: take some away first");
    }
    const auto at = std::lower_bound(record.associations.begin(), record.associations.end(), account,
                                     [](const Association& a, const std::string& name) { return a.account < name; });
    record.associations.insert(at, Association{.account = account, .all = {}, .job = {}});
    if (record.default_account.empty()) {
      record.default_account = account;
    }
    return ok_status();
  }

  Status change_user(User& record, const std::string& account) const {
    for (const AccountingSetting& s : c_.settings) {
      if (s.key == "account") {
        continue;
      }
      if (!is_association_key(s.key)) {
        MUSTER_TRY(change(record, s));
        continue;
      }
      if (account.empty() && record.associations.size() != 1) {
        return invalid_argument(s.key + ": user " + printable(c_.name) + " has " +
                                std::to_string(record.associations.size()) +
                                " accounts, and this is about one: name it with account=NAME");
      }
      const std::string& name = account.empty() ? record.associations.front().account : account;
      const auto place = std::find_if(record.associations.begin(), record.associations.end(),
                                      [&](const Association& a) { return a.account == name; });
      if (place == record.associations.end()) {
        return make_error(ErrorCode::kNotFound, "user " + printable(c_.name) + " is not in account " + name +
                                                    ": add it with muster user add " + printable(c_.name) +
                                                    " account=" + name);
      }
      MUSTER_TRY(change(*place, s));
    }
    return ok_status();
  }

  Status delete_user(const User& old, const std::string& account) {
    const std::size_t allowed = account.empty() ? 0 : 1;
    if (c_.settings.size() > allowed) {
      return invalid_argument("delete takes no settings but account=NAME: leave the others out");
    }
    if (!account.empty() && old.association(account) == nullptr) {
      return make_error(ErrorCode::kNotFound, "user " + printable(c_.name) + " is not in account " + account +
                                                  ": see `muster user list " + printable(c_.name) + "`");
    }
    for (const Association& a : old.associations) {
      const std::string jobs = account.empty() || a.account == account
                                   ? jobs_of(state_, {HolderKind::kAssociation, a.account, old.name})
                                   : "";
      if (!jobs.empty()) {
        return refused("user " + printable(c_.name) + " has " + jobs + " in account " + a.account +
                       ": wait until they have ended, or cancel them");
      }
    }
    if (account.empty()) {
      fact(UserRemoved{c_.name});
      return ok_status();
    }
    User record = old;
    std::erase_if(record.associations, [&](const Association& a) { return a.account == account; });
    if (record.default_account == account) {
      record.default_account = record.associations.empty() ? "" : record.associations.front().account;
    }
    fact(UserSet{std::move(record)});
    return ok_status();
  }

  // ------------------------------------------------------------ QOS

  Status qos() {
    MUSTER_TRY(check_there(known_.all_qos(), kQosMax));
    if (c_.verb == AccountingVerb::kDelete) {
      MUSTER_TRY(no_settings());
      MUSTER_TRY(check_qos_unused());
      fact(QosRemoved{c_.name});
      return ok_status();
    }
    const Qos* old = known_.qos(c_.name);
    Qos record = c_.verb == AccountingVerb::kAdd ? Qos{} : *old;
    record.name = c_.name;
    for (const AccountingSetting& s : c_.settings) {
      MUSTER_TRY(change(record, s));
    }
    MUSTER_TRY(check_added(old, record));
    if (contains(record.preempts, c_.name)) {
      return refused("preempts: QOS " + c_.name + " cannot preempt itself: leave it out");
    }
    MUSTER_TRY(check_qos_names(record.preempts, "preempts"));
    for (const std::string& name : record.preempts) {
      if (reaches(name, c_.name)) {
        return refused("preempts: QOS " + name + " preempts " + c_.name +
                       ", so two jobs could preempt each other for ever: take one of the two away");
      }
    }
    if (old == nullptr || *old != record) {
      Accounts after = known_;
      after.set(record, now_);
      tell_orphans(after);
      fact(QosSet{std::move(record)});
    }
    return ok_status();
  }

  // Whether `from` preempts `to`, itself or through others.
  [[nodiscard]] bool reaches(const std::string& from, const std::string& to) const {
    std::vector<std::string> todo{from};
    std::set<std::string> seen;
    while (!todo.empty()) {
      const std::string name = std::move(todo.back());
      todo.pop_back();
      if (name == to) {
        return true;
      }
      const Qos* q = seen.insert(name).second ? known_.qos(name) : nullptr;
      if (q != nullptr) {
        todo.insert(todo.end(), q->preempts.begin(), q->preempts.end());
      }
    }
    return false;
  }

  Status check_qos_unused() const {
    if (const std::string jobs = jobs_of(state_, {HolderKind::kQos, c_.name, ""}); !jobs.empty()) {
      return refused("QOS " + c_.name + " has " + jobs + ": wait until they have ended, or cancel them");
    }
    std::vector<std::string> users;
    for (const auto& [name, each] : known_.accounts()) {
      if (each.default_qos == c_.name || contains(each.allowed_qos, c_.name)) {
        users.push_back("account " + name);
      }
    }
    for (const auto& [name, each] : known_.users()) {
      if (contains(each.allowed_qos, c_.name)) {
        users.push_back("user " + name);
      }
    }
    for (const auto& [name, each] : known_.all_qos()) {
      if (contains(each.preempts, c_.name)) {
        users.push_back("QOS " + name);
      }
    }
    if (!users.empty()) {
      return refused("QOS " + c_.name + " is named by " + list_text(users) + ": take it away there first");
    }
    return ok_status();
  }

  // ------------------------------------------------------------ what a change does to jobs that wait

  [[nodiscard]] bool may_concern() const {
    const auto waits = [this](HolderKind kind) { return known_.in_use({kind, c_.name, ""}).pending != 0; };
    switch (c_.kind) {
      case AccountingKind::kAccount:
        return waits(HolderKind::kAccount);
      case AccountingKind::kQos:
        return waits(HolderKind::kQos);
      case AccountingKind::kUser:
        return true;
    }
    return true;
  }

  void tell_orphans(const Accounts& after) {
    if (!after.has_limits() || !may_concern()) {
      return;
    }
    std::vector<std::string> ids;
    std::string why;
    each_job(state_, [&](const Job& job) {
      const JobSpec& spec = *job.spec;
      if (job.is_active() || (job.is_array_record && job.waiting.empty()) ||
          (c_.kind == AccountingKind::kUser && spec.user != c_.name)) {
        return;
      }
      const auto hit = never_allowed(after, spec);
      if (hit && !never_allowed(known_, spec)) {
        why = why.empty() ? hit->text : why;
        ids.push_back(job_name(job));
      }
    });
    if (!ids.empty()) {
      d_.notes.push_back("can never start under this: job " + list_text(ids) + ": " + why);
    }
  }

  const State& state_;
  const Accounts& known_;
  const ChangeAccounting& c_;
  Instant now_;
  Decision d_;
};

}  // namespace

Result<Decision> change_accounting(const State& state, const ChangeAccounting& change, Instant now) {
  return Change(state, change, now).run();
}

}  // namespace muster::engine
