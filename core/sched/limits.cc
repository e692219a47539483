#include "core/sched/limits.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "core/sched/horizon.h"
#include "core/sched/request.h"
#include "lib/base/text.h"

namespace muster::sched {
namespace {

constexpr std::uint64_t kUsPerMinute = 60'000'000;

enum Resource : std::size_t { kJobs, kCpus, kGpus, kNodes, kCpuMinutes };

struct ResourceRow {
  const char* key;  // of the setting
  std::optional<std::uint64_t> UseLimits::*limit;
  const char* may;  // "account a may ..."
  const char* one;
  const char* many;
};
constexpr ResourceRow kResources[] = {
    {"jobs", &UseLimits::jobs, "run", "job at a time", "jobs at a time"},
    {"cpus", &UseLimits::cpus, "use", "CPU", "CPUs"},
    {"gpus", &UseLimits::gpus, "use", "GPU", "GPUs"},
    {"nodes", &UseLimits::nodes, "use", "node", "nodes"},
    {"cpu_minutes", &UseLimits::cpu_minutes, "have", "CPU minute left to run", "CPU minutes left to run"}};

// Slurm's reasons, by kind of holder and resource.
constexpr const char* kWords[][5] = {
    {"AssocGrpJobsLimit", "AssocGrpCpuLimit", "AssocGrpGRES", "AssocGrpNodeLimit", "AssocGrpCPURunMinutesLimit"},
    {"AssocGrpJobsLimit", "AssocGrpCpuLimit", "AssocGrpGRES", "AssocGrpNodeLimit", "AssocGrpCPURunMinutesLimit"},
    {"AssocMaxJobsLimit", "AssocGrpCpuLimit", "AssocGrpGRES", "AssocGrpNodeLimit", "AssocGrpCPURunMinutesLimit"},
    {"QOSGrpJobsLimit", "QOSGrpCpuLimit", "QOSGrpGRES", "QOSGrpNodeLimit", "QOSGrpCPURunMinutesLimit"},
    {"QOSMaxJobsPerUserLimit", "QOSMaxCpuPerUserLimit", "QOSMaxGRESPerUser", "QOSMaxNodePerUserLimit",
     "MaxCpuRunMinsPerUser"},
    {"MaxJobsPerAccount", "MaxCpuPerAccount", "MaxGRESPerAccount", "MaxNodePerAccount", "MaxCpuRunMinsPerAccount"}};

struct JobRow {
  const char* key;
  std::optional<std::uint64_t> JobLimits::*limit;
  const char* assoc_word;
  const char* qos_word;
  const char* one;
  const char* many;
};
constexpr JobRow kJobResources[] = {
    {"cpus", &JobLimits::cpus, "AssocMaxCpuPerJobLimit", "QOSMaxCpuPerJobLimit", "CPU", "CPUs"},
    {"gpus", &JobLimits::gpus, "AssocMaxGRESPerJob", "QOSMaxGRESPerJob", "GPU", "GPUs"},
    {"nodes", &JobLimits::nodes, "AssocMaxNodePerJobLimit", "QOSMaxNodePerJobLimit", "node", "nodes"}};

bool is_qos(HolderKind kind) {
  return kind >= HolderKind::kQos;
}

// "user alice in account physics"
std::string describe(const Holder& h) {
  switch (h.kind) {
    case HolderKind::kAssociation:
      return "user " + printable(h.of) + " in account " + printable(h.name);
    case HolderKind::kAccount:
      return "account " + printable(h.name);
    case HolderKind::kAccountUser:
      return "each user in account " + printable(h.name);
    case HolderKind::kQos:
      return "QOS " + printable(h.name);
    case HolderKind::kQosUser:
      return "each user in QOS " + printable(h.name);
    case HolderKind::kQosAccount:
      return "each account in QOS " + printable(h.name);
  }
  return "";
}

// What changes a limit of the holder: "muster qos modify long user.cpus=".
std::string command_for(const Holder& h, const std::string& key, const std::string& value) {
  const std::string setting = key + "=" + value;
  switch (h.kind) {
    case HolderKind::kAssociation:
      return "muster user modify " + printable(h.of) + " account=" + printable(h.name) + " " + setting;
    case HolderKind::kAccount:
      return "muster account modify " + printable(h.name) + " " + setting;
    case HolderKind::kAccountUser:
      return "muster account modify " + printable(h.name) + " user." + setting;
    case HolderKind::kQos:
      return "muster qos modify " + printable(h.name) + " " + setting;
    case HolderKind::kQosUser:
      return "muster qos modify " + printable(h.name) + " user." + setting;
    case HolderKind::kQosAccount:
      return "muster qos modify " + printable(h.name) + " account." + setting;
  }
  return "";
}

// Whose use is meant where the limit is one of each user or account.
std::string whose(const Holder& h) {
  switch (h.kind) {
    case HolderKind::kAccountUser:
    case HolderKind::kQosUser:
      return "user " + printable(h.of) + " ";
    case HolderKind::kQosAccount:
      return "account " + printable(h.of) + " ";
    case HolderKind::kAssociation:
    case HolderKind::kAccount:
    case HolderKind::kQos:
      return "";
  }
  return "";
}

struct Limits {
  const UseLimits* use = nullptr;
  const JobLimits* job = nullptr;
};
Limits limits_of(const Accounts& accounts, const Holder& h) {
  if (is_qos(h.kind)) {
    const Qos* q = accounts.qos(h.name);
    if (q == nullptr) {
      return {};
    }
    return h.kind == HolderKind::kQos       ? Limits{&q->all, &q->job}
           : h.kind == HolderKind::kQosUser ? Limits{&q->per_user, nullptr}
                                            : Limits{&q->per_account, nullptr};
  }
  if (h.kind == HolderKind::kAssociation) {
    const User* user = accounts.user(h.of);
    const Association* a = user == nullptr ? nullptr : user->association(h.name);
    return a == nullptr ? Limits{} : Limits{&a->all, &a->job};
  }
  const Account* a = accounts.account(h.name);
  if (a == nullptr) {
    return {};
  }
  return h.kind == HolderKind::kAccount ? Limits{&a->all, &a->job} : Limits{&a->per_user, nullptr};
}

Uint128 minutes_us(std::uint64_t cpus, Duration limit) {
  return Uint128{cpus} * static_cast<std::uint64_t>(std::max<std::int64_t>(limit.us, 0));
}
// Minutes that have begun count whole.
std::uint64_t to_minutes(Uint128 us) {
  return static_cast<std::uint64_t>(std::min((us + kUsPerMinute - 1) / kUsPerMinute, Uint128{UINT64_MAX}));
}

// Amounts of one resource, of run-minutes in CPU microseconds.
struct Sums {
  Uint128 used = 0;
  Uint128 kept = 0;  // for promised starts
  Uint128 needed = 0;
};

std::uint64_t amount(const Demand& d, Resource r) {
  switch (r) {
    case kJobs:
      return 1;
    case kCpus:
      return d.cpus;
    case kGpus:
      return d.gpus;
    case kNodes:
      return d.nodes;
    case kCpuMinutes:
      break;
  }
  return 0;
}
std::uint64_t amount(const InUse& use, Resource r) {
  switch (r) {
    case kJobs:
      return use.jobs;
    case kCpus:
      return use.cpus;
    case kGpus:
      return use.gpus;
    case kNodes:
      return use.nodes;
    case kCpuMinutes:
      break;
  }
  return 0;
}

std::string use_text(const Holder& holder, Resource r, std::uint64_t limit, const Sums& sums, bool endless) {
  const ResourceRow& row = kResources[r];
  const auto shown = [r](Uint128 v) {
    return std::to_string(r == kCpuMinutes ? to_minutes(v) : static_cast<std::uint64_t>(v));
  };
  std::string text = describe(holder) + " may " + row.may + " " + plural(limit, row.one, row.many) + ": ";
  if (endless) {
    return text + whose(holder) + "runs a job without a time limit, or this one has none";
  }
  text += whose(holder) + "has " + shown(sums.used);
  if (sums.kept != 0) {
    text += " and " + shown(sums.kept) + (sums.kept == 1 ? " is" : " are") + " kept for jobs that are promised a start";
  }
  return text + ", this job needs " + shown(sums.needed);
}

LimitHit use_hit(const Holder& holder, Resource r, std::uint64_t limit, const Sums& sums, bool endless) {
  const Uint128 total = sums.used + sums.kept + sums.needed;
  const std::string enough =
      endless ? "" : std::to_string(r == kCpuMinutes ? to_minutes(total) : static_cast<std::uint64_t>(total));
  return {kWords[static_cast<std::size_t>(holder.kind)][r], use_text(holder, r, limit, sums, endless),
          command_for(holder, kResources[r].key, enough)};
}

// Calls `report` with a function that makes the hit, for each broken limit, until it returns false.
using Report = std::function<bool(const std::function<LimitHit()>&)>;

bool check_job_limits(const Holder& holder, const JobLimits& limits, const Demand& d, const Report& report) {
  const bool qos = is_qos(holder.kind);
  if (limits.time && d.limit > *limits.time) {
    const auto hit = [&] {
      return LimitHit{qos ? "QOSMaxWallDurationPerJobLimit" : "AssocMaxWallDurationPerJobLimit",
                      "a job of " + describe(holder) + " may have a time limit of " + format_duration(*limits.time) +
                          ", this job has " + format_duration(d.limit),
                      command_for(holder, "job.time", format_duration(d.limit))};
    };
    if (!report(hit)) {
      return false;
    }
  }
  const std::uint64_t asked[] = {d.cpus, d.gpus, d.nodes};
  for (std::size_t i = 0; i < std::size(kJobResources); ++i) {
    const JobRow& row = kJobResources[i];
    const auto& limit = limits.*row.limit;
    if (!limit || asked[i] <= *limit) {
      continue;
    }
    const auto hit = [&] {
      return LimitHit{qos ? row.qos_word : row.assoc_word,
                      "a job of " + describe(holder) + " may use " + plural(*limit, row.one, row.many) +
                          ", this job needs " + std::to_string(asked[i]),
                      command_for(holder, std::string("job.") + row.key, std::to_string(asked[i]))};
    };
    if (!report(hit)) {
      return false;
    }
  }
  return true;
}

}  // namespace

Demand least_demand(const JobSpec& spec) {
  Demand d;
  d.cpus = cpus_of(spec);
  d.nodes = std::max<std::uint64_t>(1, spec.nodes_min);
  d.gpus = std::uint64_t{spec.gpus_per_node} * d.nodes + std::uint64_t{spec.gpus_per_task} * spec.ntasks + spec.gpus;
  d.limit = spec.time_limit;
  return d;
}

Demand demand_of(const std::vector<Slot>& slots, Duration limit) {
  Demand d;
  d.limit = limit;
  d.nodes = slots.size();
  for (const Slot& slot : slots) {
    d.cpus += static_cast<std::uint64_t>(slot.amount.cores);
    d.gpus += static_cast<std::uint64_t>(slot.amount.gpus);
  }
  return d;
}

Demand demand_of(const std::vector<NodeShare>& shares, Duration limit) {
  Demand d;
  d.limit = limit;
  d.nodes = shares.size();
  for (const NodeShare& share : shares) {
    d.cpus += share.cores.count();
    d.gpus += share.gpus.count();
  }
  return d;
}

// ---------------------------------------------------------------- one pass

namespace {

bool counts_for(const Accounts& accounts, const Holder& holder, const RunningCpus& job) {
  const bool in_account = job.account == holder.name || accounts.is_above(holder.name, job.account);
  switch (holder.kind) {
    case HolderKind::kAssociation:
      return job.account == holder.name && job.user == holder.of;
    case HolderKind::kAccount:
      return in_account;
    case HolderKind::kAccountUser:
      return in_account && job.user == holder.of;
    case HolderKind::kQos:
      return job.qos == holder.name;
    case HolderKind::kQosUser:
      return job.qos == holder.name && job.user == holder.of;
    case HolderKind::kQosAccount:
      return job.qos == holder.name && job.account == holder.of;
  }
  return false;
}

}  // namespace

Uint128 cpu_us_left(const Accounts& accounts, const Holder& holder, Instant now) {
  const InUse use = accounts.in_use(holder);
  Uint128 ends = use.cpu_ends_us;
  // What runs beyond its limit has nothing left to run, not less than that.
  const auto& running = accounts.running();
  for (auto it = running.begin(); it != running.end() && it->first.first < now; ++it) {
    if (counts_for(accounts, holder, it->second)) {
      ends += Uint128{it->second.cpus} * static_cast<std::uint64_t>((now - it->first.first).us);
    }
  }
  return ends - Uint128{use.cpus - use.endless_cpus} * static_cast<std::uint64_t>(now.us);
}

LimitScope LimitBook::make_scope(const Holder& holder, const UseLimits* use, const JobLimits* job) const {
  LimitScope scope{.holder = holder, .limits = use, .job = job, .use = accounts_->in_use(holder), .reserves = {}};
  if (use->cpu_minutes) {
    scope.cpu_us_left = cpu_us_left(*accounts_, holder, now_);
  }
  return scope;
}

const std::vector<LimitScope*>& LimitBook::scopes(const JobSpec& spec) const {
  const auto [it, is_new] = by_job_.try_emplace(Key{spec.account, spec.user, spec.qos});
  if (!is_new) {
    return it->second;
  }
  for (const Holder& holder : accounts_->holders(spec)) {
    const Limits limits = limits_of(*accounts_, holder);
    if (limits.use == nullptr || (!limits.use->any() && (limits.job == nullptr || *limits.job == JobLimits{}))) {
      continue;
    }
    auto scope = scopes_.find(holder);
    if (scope == scopes_.end()) {
      scope = scopes_.emplace(holder, make_scope(holder, limits.use, limits.job)).first;
    }
    it->second.push_back(&scope->second);
  }
  return it->second;
}

namespace {

// Whether `report` wants to hear no more.
bool check_use(const LimitScope& scope, const Demand& d, Instant now, const Report& report,
               std::optional<Instant>* retry_at) {
  const Instant end = end_of(now, d.limit);
  for (const Resource r : {kJobs, kCpus, kGpus, kNodes, kCpuMinutes}) {
    const auto& limit = scope.limits->*kResources[r].limit;
    if (!limit) {
      continue;
    }
    const bool minutes = r == kCpuMinutes;
    Sums sums;
    sums.used = minutes ? scope.cpu_us_left : Uint128{amount(scope.use, r)};
    sums.needed = minutes ? minutes_us(d.cpus, d.limit) : Uint128{amount(d, r)};
    bool endless = minutes && (scope.use.endless_cpus != 0 || d.limit.is_infinite());
    for (const auto& reserve : scope.reserves) {
      if (reserve.at < end) {
        sums.kept +=
            minutes ? minutes_us(reserve.demand.cpus, reserve.demand.limit) : Uint128{amount(reserve.demand, r)};
      }
    }
    // A job that needs none of it breaks no limit of it, also where that was lowered below what is in use.
    const Uint128 bound = minutes ? Uint128{*limit} * kUsPerMinute : Uint128{*limit};
    if (!endless && (sums.needed == 0 || sums.used + sums.kept + sums.needed <= bound)) {
      continue;
    }
    const std::uint64_t timed = scope.use.cpus - scope.use.endless_cpus;
    if (minutes && retry_at != nullptr && !endless && timed != 0) {
      // What runs uses up its minutes at this rate.
      const Uint128 wait_us = (sums.used + sums.kept + sums.needed - bound + timed - 1) / timed;
      const Instant at =
          now + Duration::from_us(static_cast<std::int64_t>(std::min(wait_us, Uint128{INT32_MAX} * 1000)));
      *retry_at = *retry_at ? std::min(**retry_at, at) : at;
    }
    if (!report([&] { return use_hit(scope.holder, r, *limit, sums, endless); })) {
      return false;
    }
  }
  return true;
}

bool check(const LimitScope& scope, const Demand& d, Instant now, const Report& report,
           std::optional<Instant>* retry_at = nullptr) {
  return (scope.job == nullptr || check_job_limits(scope.holder, *scope.job, d, report)) &&
         check_use(scope, d, now, report, retry_at);
}

}  // namespace

bool LimitBook::allows(const JobSpec& spec, const Demand& demand) const {
  const Report stop = [](const std::function<LimitHit()>&) { return false; };
  for (const LimitScope* scope : scopes(spec)) {
    if (!check(*scope, demand, now_, stop, &retry_at_)) {
      return false;
    }
  }
  return true;
}

std::vector<LimitHit> LimitBook::hits(const JobSpec& spec, const Demand& demand) const {
  std::vector<LimitHit> all;
  const Report keep = [&all](const std::function<LimitHit()>& hit) {
    all.push_back(hit());
    return true;
  };
  for (const LimitScope* scope : scopes(spec)) {
    check(*scope, demand, now_, keep);
  }
  return all;
}

void LimitBook::start(const JobSpec& spec, const Demand& demand) {
  for (LimitScope* scope : scopes(spec)) {
    scope->use.jobs += 1;
    scope->use.cpus += demand.cpus;
    scope->use.gpus += demand.gpus;
    scope->use.nodes += demand.nodes;
    if (demand.limit.is_infinite()) {
      scope->use.endless_cpus += demand.cpus;
    } else {
      scope->cpu_us_left += minutes_us(demand.cpus, demand.limit);
    }
  }
}

void LimitBook::reserve(const JobSpec& spec, const Demand& demand, Instant at) {
  for (LimitScope* scope : scopes(spec)) {
    scope->reserves.push_back({at, demand});
  }
}

// ---------------------------------------------------------------- at submission

std::optional<LimitHit> never_allowed(const Accounts& accounts, const JobSpec& spec) {
  std::optional<LimitHit> first;
  const Report take = [&first](const std::function<LimitHit()>& hit) {
    first = hit();
    return false;
  };
  const Demand demand = least_demand(spec);
  for (const Holder& holder : accounts.holders(spec)) {
    const Limits limits = limits_of(accounts, holder);
    if (limits.use == nullptr) {
      continue;
    }
    const LimitScope alone{.holder = holder, .limits = limits.use, .job = limits.job, .use = {}, .reserves = {}};
    if (!check(alone, demand, Instant{}, take)) {
      return first;
    }
  }
  return std::nullopt;
}

namespace {

std::vector<Holder> new_holders(const Accounts& accounts, const JobSpec& spec, const JobSpec* before) {
  std::vector<Holder> holders = accounts.holders(spec);
  if (before != nullptr) {
    const std::vector<Holder> had = accounts.holders(*before);
    std::erase_if(holders, [&had](const Holder& h) { return std::find(had.begin(), had.end(), h) != had.end(); });
  }
  return holders;
}

}  // namespace

void PendingMoves::add(const Accounts& accounts, const JobSpec& spec, std::uint64_t tasks, const JobSpec* before) {
  for (const Holder& holder : new_holders(accounts, spec, before)) {
    moved_[holder] += tasks;
  }
}

std::uint64_t PendingMoves::to(const Holder& holder) const {
  const auto it = moved_.find(holder);
  return it == moved_.end() ? 0 : it->second;
}

std::optional<LimitHit> too_many_pending(const Accounts& accounts, const JobSpec& spec, std::uint64_t more,
                                         const PendingMoves& moved, const JobSpec* before) {
  for (const Holder& holder : new_holders(accounts, spec, before)) {
    const Limits limits = limits_of(accounts, holder);
    if (limits.use == nullptr || !limits.use->pending) {
      continue;
    }
    const std::uint64_t pending = accounts.in_use(holder).pending + moved.to(holder);
    if (pending + more > *limits.use->pending) {
      return LimitHit{is_qos(holder.kind) ? "QOSMaxSubmitJobsLimit" : "AssocMaxSubmitJobLimit",
                      describe(holder) + " may have " + plural(*limits.use->pending, "waiting job", "waiting jobs") +
                          ": " + whose(holder) + "has " + std::to_string(pending) + ", this would add " +
                          std::to_string(more),
                      command_for(holder, "pending", std::to_string(pending + more))};
    }
  }
  return std::nullopt;
}

}  // namespace muster::sched
