// Muster's own order of pending jobs.
#include "core/sched/request.h"
#include "core/sched/schedule.h"

namespace muster::sched {
namespace {
constexpr std::int64_t kPoint = std::int64_t{1} << 16U;
}  // namespace

DefaultOrder::DefaultOrder(const Policy& policy, const Accounts* accounts, Instant now)
    : exponent_(policy.age_exponent),
      weights_(policy.weights),
      accounts_(accounts == nullptr || accounts->empty() ? nullptr : accounts) {
  for (const QueuePolicy& queue : policy.queues) {
    if (queue.factor != 0) {
      queue_factors_.emplace(queue.name, queue.factor);
    }
  }
  if (accounts_ != nullptr && !accounts_->accounts().empty()) {
    fair_share_.emplace(*accounts_, now);
  }
}

void DefaultOrder::add_standing(const JobSpec& spec, PriorityTerms& t) const {
  t.nice = -std::int64_t{spec.nice} * (std::int64_t{exponent_} << 16U) / 100;
  if (!queue_factors_.empty()) {
    const auto factor = queue_factors_.find(spec.queue);
    t.queue = factor == queue_factors_.end() ? 0 : std::int64_t{weights_.queue} * factor->second * kPoint;
  }
  if (accounts_ == nullptr) {
    return;
  }
  if (const Qos* qos = spec.qos.empty() ? nullptr : accounts_->qos(spec.qos)) {
    t.qos = std::int64_t{weights_.qos} * qos->priority * kPoint;
  }
  if (fair_share_ && weights_.fair_share != 0 && !spec.account.empty()) {
    t.fair_share = std::int64_t{weights_.fair_share} * fair_share_->of(spec.account, spec.user).factor_q16;
  }
}

PriorityTerms DefaultOrder::terms(const JobSpec& spec, Instant since, Instant now) const {
  PriorityTerms t;
  const std::uint64_t cpus = cpus_of(spec);
  t.age = weights_.age * age_points(now - since, spec.time_limit, cpus, exponent_);
  t.size = weights_.size == 0 ? 0 : weights_.size * log2_q16(cpus);
  add_standing(spec, t);
  return t;
}

std::int64_t DefaultOrder::points(const JobSpec& spec, Instant since, Instant now) const {
  return terms(spec, since, now).sum();
}

std::int64_t DefaultOrder::standing(const JobSpec& spec) const {
  PriorityTerms t;
  add_standing(spec, t);
  return t.queue + t.qos + t.fair_share + t.nice;
}

}  // namespace muster::sched
