// The account and QOS of a submission.
#include <string>

#include "core/engine/accounting.h"
#include "core/engine/accounting_text.h"
#include "core/sched/limits.h"

namespace muster::engine {
namespace {

using sched::Accounts;

Status check_account(const Accounts& accounts, const sched::Policy& policy, const JobSpec& spec) {
  if (!spec.account.empty() && !accounts.accounts().empty() && accounts.account(spec.account) == nullptr) {
    return invalid_argument("--account: there is no account " + printable(spec.account) + ": " +
                            hint(accounts.accounts(), spec.account, "account"));
  }
  if (!policy.enforce_accounts) {
    return ok_status();
  }
  const User* user = accounts.user(spec.user);
  if (spec.account.empty()) {
    return refused("user " + printable(spec.user) +
                   " has no default account (accounting.enforce): name one with --account, or ask an administrator");
  }
  if (user == nullptr || user->association(spec.account) == nullptr) {
    return refused("user " + printable(spec.user) + " has no place in account " + printable(spec.account) +
                   " (accounting.enforce): choose another one with --account, or ask an administrator");
  }
  return ok_status();
}

Status check_qos(const Accounts& accounts, const JobSpec& spec, const JobSpec* before) {
  if (accounts.all_qos().empty()) {
    return ok_status();
  }
  if (before != nullptr && spec.qos.empty() && before->qos.empty() && spec.account == before->account) {
    return ok_status();  // it waits like that, and is changed in other ways
  }
  const std::string given =
      spec.qos.empty() ? "a job without --qos (there is no default)" : "--qos " + printable(spec.qos);
  if (!spec.qos.empty() && accounts.qos(spec.qos) == nullptr) {
    return invalid_argument("--qos: there is no QOS " + printable(spec.qos) + ": " +
                            hint(accounts.all_qos(), spec.qos, "qos"));
  }
  for (const Account* a : accounts.lineage(spec.account)) {
    if (a->allowed_qos.empty()) {
      continue;
    }
    if (!contains(a->allowed_qos, spec.qos)) {
      return refused(given + ": account " + spec.account + " may use " + list_text(a->allowed_qos) +
                     ": choose one of them");
    }
    break;
  }
  const User* user = accounts.user(spec.user);
  if (user != nullptr && !user->allowed_qos.empty() && !contains(user->allowed_qos, spec.qos)) {
    return refused(given + ": user " + printable(spec.user) + " may use " + list_text(user->allowed_qos) +
                   ": choose one of them");
  }
  return ok_status();
}

}  // namespace

Status fill_account(const State& state, const sched::Policy& policy, JobSpec& spec, const JobSpec* before) {
  const Accounts& accounts = state.accounts;
  if (const User* user = spec.account.empty() ? accounts.user(spec.user) : nullptr) {
    spec.account = user->default_account;
  }
  MUSTER_TRY(check_account(accounts, policy, spec));
  if (spec.qos.empty()) {
    for (const Account* a : accounts.lineage(spec.account)) {
      if (!a->default_qos.empty()) {
        spec.qos = a->default_qos;
        break;
      }
    }
  }
  MUSTER_TRY(check_qos(accounts, spec, before));
  if (accounts.has_limits()) {
    if (const auto hit = never_allowed(accounts, spec)) {
      return refused("the job can never start: " + hit->text + " (" + hit->word +
                     "): ask for less, or ask an administrator for " + hit->command);
    }
  }
  return ok_status();
}

Status check_pending_limits(const State& state, const JobSpec& spec, std::uint64_t tasks,
                            const sched::PendingMoves& moved, const JobSpec* before) {
  if (!state.accounts.has_limits()) {
    return ok_status();
  }
  if (const auto hit = sched::too_many_pending(state.accounts, spec, tasks, moved, before)) {
    return refused(hit->text + " (" + hit->word +
                   "): try again when some have started or ended, or ask an "
                   "administrator for " +
                   hit->command);
  }
  return ok_status();
}

}  // namespace muster::engine
