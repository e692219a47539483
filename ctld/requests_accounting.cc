// Accounts, users, QOS, and the points of waiting jobs: what is asked about them and changed.
#include <algorithm>
#include <utility>

#include "core/sched/fair_share.h"
#include "core/sched/limits.h"
#include "ctld/requests.h"
#include "ctld/requests_common.h"
#include "lib/base/text.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

constexpr std::uint64_t kUsPerMinute = 60'000'000;

Result<AccountingKind> read_kind(std::uint32_t value) {
  if (value > static_cast<std::uint32_t>(AccountingKind::kQos)) {
    return invalid_argument("the request is about an unknown kind of thing: use a client of the same version");
  }
  return static_cast<AccountingKind>(value);
}

// Units of 2^-60 as units of 2^-16, for people.
std::uint32_t to_q16(std::uint64_t fraction_q60) {
  return static_cast<std::uint32_t>(fraction_q60 >> 44U);
}

std::uint64_t bounded(sched::Uint128 value) {
  return static_cast<std::uint64_t>(std::min(value, sched::Uint128{UINT64_MAX}));
}

// What is shown of accounts, users and QOS at one moment.
class AccountingViews {
 public:
  AccountingViews(const sched::Accounts& accounts, Instant now)
      : accounts_(accounts), fair_share_(accounts, now), now_(now) {}

  void add(const Account& account, pb::AccountingList& list) const {
    pb::AccountView& out = *list.add_accounts();
    wire::to_pb(account, *out.mutable_account());
    in_use({sched::HolderKind::kAccount, account.name, ""}, *out.mutable_use());
    standing(fair_share_.of_account(account.name), accounts_.used(account.name, "", now_), *out.mutable_fair_share());
  }
  void add(const User& user, pb::AccountingList& list) const {
    pb::UserView& out = *list.add_users();
    out.set_name(user.name);
    out.set_default_account(user.default_account);
    out.mutable_allowed_qos()->Assign(user.allowed_qos.begin(), user.allowed_qos.end());
    for (const Association& association : user.associations) {
      pb::AssociationView& place = *out.add_associations();
      wire::to_pb(association, *place.mutable_association());
      in_use({sched::HolderKind::kAssociation, association.account, user.name}, *place.mutable_use());
      standing(fair_share_.of(association.account, user.name), accounts_.used(association.account, user.name, now_),
               *place.mutable_fair_share());
    }
  }
  void add(const Qos& qos, pb::AccountingList& list) const {
    pb::QosView& out = *list.add_qos();
    wire::to_pb(qos, *out.mutable_qos());
    in_use({sched::HolderKind::kQos, qos.name, ""}, *out.mutable_use());
  }

 private:
  void in_use(const sched::Holder& holder, pb::InUse& out) const {
    const sched::InUse use = accounts_.in_use(holder);
    out.set_jobs(use.jobs);
    out.set_pending(use.pending);
    out.set_cpus(use.cpus);
    out.set_gpus(use.gpus);
    out.set_nodes(use.nodes);
    out.set_cpu_minutes(bounded((sched::cpu_us_left(accounts_, holder, now_) + kUsPerMinute - 1) / kUsPerMinute));
    out.set_endless(use.endless_cpus != 0);
  }
  static void standing(const sched::FairShare::Standing& in, sched::Uint128 used, pb::FairShareView& out) {
    out.set_used_cpu_seconds(bounded(used / sched::kUseUnitsPerCpuSecond));
    out.set_shares_fraction(to_q16(in.shares));
    out.set_usage_fraction(to_q16(in.use));
    out.set_effective_usage(to_q16(in.effective));
    out.set_factor(in.factor_q16);
  }

  const sched::Accounts& accounts_;
  sched::FairShare fair_share_;
  Instant now_;
};

// The next records behind `after` in the order of names; the name of the last one, or "" when all have been shown.
template <typename Map>
std::string add_some(const AccountingViews& views, const Map& map, const std::string& after, pb::AccountingList& list) {
  auto it = after.empty() ? map.begin() : map.upper_bound(after);
  std::string last;
  for (std::size_t i = 0; it != map.end() && i < kViewsPerReply; ++it, ++i) {
    views.add(it->second, list);
    last = it->first;
  }
  return it == map.end() ? "" : last;
}

}  // namespace

void Requests::change_accounting(const Call& call, const pb::Request& request) {
  const pb::AccountingChange& in = request.accounting_change();
  const auto kind = read_kind(in.kind());
  if (!kind.ok()) {
    return fail(call, kind.error());
  }
  if (in.verb() > static_cast<std::uint32_t>(AccountingVerb::kDelete)) {
    return fail(call, invalid_argument("the request asks for an unknown change: use a client of the same version"));
  }
  ChangeAccounting command{
      .caller = call.caller, .kind = *kind, .verb = static_cast<AccountingVerb>(in.verb()), .name = in.name()};
  for (const pb::AccountingSetting& setting : in.settings()) {
    command.settings.push_back({setting.key(), setting.value()});
    if (command.settings.size() > kAccountingSettingsMax) {
      break;  // the decision says so
    }
  }
  const auto decision = pipeline_.execute(command);
  if (!decision.ok()) {
    return fail(call, decision.error());
  }
  auto message = std::make_shared<pb::Reply>();
  message->mutable_operation()->set_matched(decision->matched);
  for (const std::string& note : decision->notes) {
    message->mutable_operation()->add_notes(note);  // done, with something to know
  }
  reply_after_commit(call, std::move(message));
}

void Requests::accounting(const Call& call, const pb::Request& request) {
  const auto kind = read_kind(request.accounting().kind());
  if (!kind.ok()) {
    return fail(call, kind.error());
  }
  if (request.accounting().names_size() == 0) {
    return accounting_part(call, *kind, "");
  }
  std::vector<std::string> names(request.accounting().names().begin(), request.accounting().names().end());
  names.resize(std::min(names.size(), kNamedTasksMax));
  accounting_named(call, *kind, names);
}

void Requests::accounting_part(const Call& call, AccountingKind kind, const std::string& after) {
  const sched::Accounts& accounts = pipeline_.state().accounts;
  const AccountingViews views(accounts, pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  pb::AccountingList& list = *message->mutable_accounting();
  std::string last;
  switch (kind) {
    case AccountingKind::kAccount:
      last = add_some(views, accounts.accounts(), after, list);
      break;
    case AccountingKind::kUser:
      last = add_some(views, accounts.users(), after, list);
      break;
    case AccountingKind::kQos:
      last = add_some(views, accounts.all_qos(), after, list);
      break;
  }
  std::function<void()> next;
  if (!last.empty()) {
    next = [this, call, kind, last] { accounting_part(call, kind, last); };
  }
  part_after_commit(call, std::move(message), std::move(next));
}

void Requests::accounting_named(const Call& call, AccountingKind kind, const std::vector<std::string>& names) {
  const sched::Accounts& accounts = pipeline_.state().accounts;
  const AccountingViews views(accounts, pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  pb::AccountingList& list = *message->mutable_accounting();
  const auto show = [&](const auto* record, const std::string& name, const char* what, const char* command) {
    if (record != nullptr) {
      views.add(*record, list);
    } else {
      list.add_notes("there is no " + std::string(what) + " " + printable(name.substr(0, 80)) + ": see `muster " +
                     command + " list`");
    }
  };
  for (const std::string& name : names) {
    switch (kind) {
      case AccountingKind::kAccount:
        show(accounts.account(name), name, "account", "account");
        break;
      case AccountingKind::kUser:
        show(accounts.user(name), name, "user", "user");
        break;
      case AccountingKind::kQos:
        show(accounts.qos(name), name, "QOS", "qos");
        break;
    }
  }
  reply_after_commit(call, std::move(message));
}

// ---------------------------------------------------------------- points

namespace {

bool is_in_order(const Job& job) {
  return !job.is_active() && !job.held && job.open.empty() && !(job.is_array_record && job.waiting.empty());
}

void fill_priority(const Job& job, const sched::Policy& policy, const sched::DefaultOrder& order, Instant now,
                   pb::PriorityView& out) {
  const JobSpec& spec = *job.spec;
  const sched::PriorityTerms terms = order.terms(spec, job.eligible_time, now);
  out.set_job(job.id.value);
  out.set_array(job.array.value);
  std::uint64_t tasks = job.is_array_record ? 0 : 1;
  for (const PositionRange& range : job.waiting) {
    tasks += range.end - range.begin;
  }
  out.set_tasks(tasks);
  out.set_user(spec.user);
  out.set_account(spec.account);
  out.set_qos(spec.qos);
  out.set_queue(spec.queue);
  const sched::QueuePolicy* queue = policy.find_queue(spec.queue);
  out.set_queue_priority(queue == nullptr ? 0 : queue->priority);
  out.set_points(terms.sum());
  out.set_age(terms.age);
  out.set_size(terms.size);
  out.set_queue_factor(terms.queue);
  out.set_qos_points(terms.qos);
  out.set_fair_share(terms.fair_share);
  out.set_nice(terms.nice);
  if (order.fair_share() != nullptr && !spec.account.empty()) {
    out.set_fair_share_factor(order.fair_share()->of(spec.account, spec.user).factor_q16);
  }
}

}  // namespace

// A question about points on its way through the State, part after part.
struct Requests::PriorityWalk {
  Call call;
  std::string user;
  std::string queue;
  JobId next_array;
  JobId next_job;
};

void Requests::priorities(const Call& call, const pb::Request& request) {
  auto selector = read_selector(request.priorities().jobs(), pipeline_.policy());
  if (!selector.ok()) {
    return fail(call, selector.error());
  }
  if (selector->items.empty()) {
    return priorities_part(
        std::make_shared<PriorityWalk>(PriorityWalk{call, selector->user, selector->queue, JobId{}, JobId{}}));
  }
  const auto& state = pipeline_.state();
  const sched::DefaultOrder order(pipeline_.policy(), &state.accounts, pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  pb::PriorityList& list = *message->mutable_priorities();
  for (const JobSelector::Item& item : selector->items) {
    const Job* job = engine::find_array(state, item.id);
    job = job != nullptr ? job : engine::find_job(state, item.id);
    job = job != nullptr ? job : engine::find_array_of(state, item.id);
    if (job == nullptr) {
      list.add_notes(no_such_job(item.id).message);
    } else if (!is_in_order(*job)) {
      list.add_notes(id_text(item.id) + ": " +
                     (job->is_active() ? "it runs" : "it may not start yet, so it has no place in the order") +
                     ": see `muster why " + std::to_string(item.id.value) + "`");
    } else {
      fill_priority(*job, pipeline_.policy(), order, pipeline_.now(), *list.add_jobs());
    }
  }
  reply_after_commit(call, std::move(message));
}

// Jobs in the order of their ids, as in the list of jobs.
void Requests::priorities_part(const std::shared_ptr<PriorityWalk>& walk) {
  const auto& state = pipeline_.state();
  const Instant now = pipeline_.now();
  const sched::DefaultOrder order(pipeline_.policy(), &state.accounts, now);
  auto message = std::make_shared<pb::Reply>();
  pb::PriorityList& list = *message->mutable_priorities();
  auto array = state.arrays.lower_bound(walk->next_array);
  auto job = state.jobs.lower_bound(walk->next_job);
  std::size_t seen = 0;
  while ((array != state.arrays.end() || job != state.jobs.end()) && seen < kViewsPerReply * 50) {
    const bool take_array = job == state.jobs.end() || (array != state.arrays.end() && array->first <= job->first);
    const Job& each = take_array ? (array++)->second : (job++)->second;
    const bool shown = is_in_order(each) && (walk->user.empty() || walk->user == each.spec->user) &&
                       (walk->queue.empty() || walk->queue == each.spec->queue);
    if (shown) {
      fill_priority(each, pipeline_.policy(), order, now, *list.add_jobs());
    }
    seen += shown ? 50 : 1;
  }
  const bool more = array != state.arrays.end() || job != state.jobs.end();
  walk->next_array = array != state.arrays.end() ? array->first : JobId(UINT64_MAX);
  walk->next_job = job != state.jobs.end() ? job->first : JobId(UINT64_MAX);
  part_after_commit(walk->call, message, more ? [this, walk] { priorities_part(walk); } : std::function<void()>());
}

}  // namespace muster::ctld
