// Accounts, users, QOS, billing rules and usage as messages.
#include <algorithm>
#include <string>
#include <utility>

#include "lib/base/text.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::wire {
namespace {

constexpr int kNamesMax = 1'000;  // in one list of QOS

Error corrupt(std::string_view field, std::string_view problem) {
  return make_error(ErrorCode::kCorrupt, "damaged message: " + std::string(field) + " " + std::string(problem) +
                                             ": send it again, or use the release that wrote it");
}

Result<Duration> read_duration(std::int64_t us, std::string_view field) {
  if (us < 0 || us > Duration::infinite().us) return corrupt(field, "is no duration");
  return Duration::from_us(us);
}

Result<std::vector<std::string>> read_names(const google::protobuf::RepeatedPtrField<std::string>& in,
                                            std::string_view field) {
  if (in.size() > kNamesMax) return corrupt(field, "has more than " + std::to_string(kNamesMax) + " entries");
  return std::vector<std::string>(in.begin(), in.end());
}

// What an absent message means is what it was when it was written: no limit.
void write(const UseLimits& in, pb::UseLimits& out) {
  if (in.jobs) out.set_jobs(*in.jobs);
  if (in.pending) out.set_pending(*in.pending);
  if (in.cpus) out.set_cpus(*in.cpus);
  if (in.gpus) out.set_gpus(*in.gpus);
  if (in.nodes) out.set_nodes(*in.nodes);
  if (in.cpu_minutes) out.set_cpu_minutes(*in.cpu_minutes);
}
void write(const JobLimits& in, pb::JobLimits& out) {
  if (in.time) out.set_time_us(in.time->us);
  if (in.cpus) out.set_cpus(*in.cpus);
  if (in.gpus) out.set_gpus(*in.gpus);
  if (in.nodes) out.set_nodes(*in.nodes);
}

UseLimits read(const pb::UseLimits& in) {
  UseLimits out;
  if (in.has_jobs()) out.jobs = in.jobs();
  if (in.has_pending()) out.pending = in.pending();
  if (in.has_cpus()) out.cpus = in.cpus();
  if (in.has_gpus()) out.gpus = in.gpus();
  if (in.has_nodes()) out.nodes = in.nodes();
  if (in.has_cpu_minutes()) out.cpu_minutes = in.cpu_minutes();
  return out;
}
Result<JobLimits> read(const pb::JobLimits& in) {
  JobLimits out;
  if (in.has_time_us()) {
    MUSTER_ASSIGN(out.time, read_duration(in.time_us(), "JobLimits.time_us"));
  }
  if (in.has_cpus()) out.cpus = in.cpus();
  if (in.has_gpus()) out.gpus = in.gpus();
  if (in.has_nodes()) out.nodes = in.nodes();
  return out;
}

}  // namespace

void to_pb(const Association& in, pb::Association& out) {
  out.set_account(in.account);
  out.set_shares(in.shares);
  if (in.all.any()) write(in.all, *out.mutable_all());
  if (in.job != JobLimits{}) write(in.job, *out.mutable_job());
}
Result<Association> from_pb(const pb::Association& in) {
  Association out;
  out.account = in.account();
  out.shares = std::min(in.shares(), kSharesMax);
  out.all = read(in.all());
  MUSTER_ASSIGN(out.job, read(in.job()));
  return out;
}

void to_pb(const Qos& in, pb::Qos& out) {
  out.set_name(in.name);
  out.set_priority(in.priority);
  out.set_usage_factor(in.usage_factor);
  if (in.all.any()) write(in.all, *out.mutable_all());
  if (in.per_user.any()) write(in.per_user, *out.mutable_per_user());
  if (in.per_account.any()) write(in.per_account, *out.mutable_per_account());
  if (in.job != JobLimits{}) write(in.job, *out.mutable_job());
  out.mutable_preempts()->Assign(in.preempts.begin(), in.preempts.end());
  out.set_preempt_mode(static_cast<std::uint32_t>(in.preempt_mode));
  out.set_preempt_grace_us(in.preempt_grace.us);
}
Result<Qos> from_pb(const pb::Qos& in) {
  Qos out;
  out.name = in.name();
  if (in.priority() < -kQosPriorityMax || in.priority() > kQosPriorityMax || in.usage_factor() > kUsageFactorMax) {
    return corrupt("Qos", "has a priority or usage factor out of bounds");
  }
  out.priority = in.priority();
  out.usage_factor = in.usage_factor();
  out.all = read(in.all());
  out.per_user = read(in.per_user());
  out.per_account = read(in.per_account());
  MUSTER_ASSIGN(out.job, read(in.job()));
  MUSTER_ASSIGN(out.preempts, read_names(in.preempts(), "Qos.preempts"));
  if (in.preempt_mode() > static_cast<std::uint32_t>(QosPreempt::kSuspend)) {
    return corrupt("Qos.preempt_mode", "is one that this release does not know");
  }
  out.preempt_mode = static_cast<QosPreempt>(in.preempt_mode());
  MUSTER_ASSIGN(out.preempt_grace, read_duration(in.preempt_grace_us(), "Qos.preempt_grace_us"));
  return out;
}

void to_pb(const Account& in, pb::Account& out) {
  out.set_name(in.name);
  out.set_parent(in.parent);
  out.set_shares(in.shares);
  if (in.all.any()) write(in.all, *out.mutable_all());
  if (in.per_user.any()) write(in.per_user, *out.mutable_per_user());
  if (in.job != JobLimits{}) write(in.job, *out.mutable_job());
  out.mutable_allowed_qos()->Assign(in.allowed_qos.begin(), in.allowed_qos.end());
  out.set_default_qos(in.default_qos);
}
Result<Account> from_pb(const pb::Account& in) {
  Account out;
  out.name = in.name();
  out.parent = in.parent();
  out.shares = std::min(in.shares(), kSharesMax);
  out.all = read(in.all());
  out.per_user = read(in.per_user());
  MUSTER_ASSIGN(out.job, read(in.job()));
  MUSTER_ASSIGN(out.allowed_qos, read_names(in.allowed_qos(), "Account.allowed_qos"));
  out.default_qos = in.default_qos();
  return out;
}

void to_pb(const User& in, pb::User& out) {
  out.set_name(in.name);
  out.set_default_account(in.default_account);
  for (const Association& association : in.associations) to_pb(association, *out.add_associations());
  out.mutable_allowed_qos()->Assign(in.allowed_qos.begin(), in.allowed_qos.end());
}
Result<User> from_pb(const pb::User& in) {
  User out;
  out.name = in.name();
  out.default_account = in.default_account();
  if (in.associations_size() > static_cast<int>(kAssociationsMax)) {
    return corrupt("User.associations", "has more than " + std::to_string(kAssociationsMax) + " entries");
  }
  for (const pb::Association& each : in.associations()) {
    MUSTER_ASSIGN(Association association, from_pb(each));
    out.associations.push_back(std::move(association));
  }
  MUSTER_ASSIGN(out.allowed_qos, read_names(in.allowed_qos(), "User.allowed_qos"));
  return out;
}

void to_pb(const BillingRules& in, pb::BillingRules& out) {
  out.set_cpu(in.cpu);
  out.set_gpu(in.gpu);
  out.set_memory_gib(in.memory_gib);
  out.set_half_life_us(in.half_life.us);
}
Result<BillingRules> from_pb(const pb::BillingRules& in) {
  if (std::max({in.cpu(), in.gpu(), in.memory_gib()}) > kBillingWeightMax || in.half_life_us() < 0 ||
      in.half_life_us() > Duration::from_s(kHalfLifeDaysMax * 86'400).us) {
    return corrupt("BillingRules", "has a weight or half-life out of bounds");
  }
  return BillingRules{in.cpu(), in.gpu(), in.memory_gib(), Duration::from_us(in.half_life_us())};
}

void to_pb(const UsageRecord& in, pb::Usage& out) {
  out.set_account(in.account);
  out.set_user(in.user);
  out.set_high(in.high);
  out.set_low(in.low);
  out.set_at_us(in.at.us);
}
Result<UsageRecord> from_pb(const pb::Usage& in) {
  if (in.at_us() < 0 || in.at_us() > INT64_MAX / 2) return corrupt("Usage.at_us", "is no time");
  return UsageRecord{in.account(), in.user(), in.high(), in.low(), Instant::from_us(in.at_us())};
}

}  // namespace muster::wire
