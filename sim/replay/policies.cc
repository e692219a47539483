#include "sim/replay/policies.h"

#include <iterator>
#include <optional>

#include "lib/base/text.h"
#include "sim/replay/orders.h"

namespace muster::sim {
namespace {

// EASY recomputes the reservation of the first blocked job in each pass, whoever that is; the studies keep none.
constexpr sched::PlanRules kEasyRules = {.backfill = sched::Backfill::kEasy,
                                         .backfill_order = sched::BackfillOrder::kPoints,
                                         .promises = 1,
                                         .keep_promises = false};

constexpr sched::PlanRules with_backfill(sched::Backfill backfill) {
  sched::PlanRules rules = kEasyRules;
  rules.backfill = backfill;
  return rules;
}
constexpr sched::PlanRules shortest_first() {
  sched::PlanRules rules = kEasyRules;
  rules.backfill_order = sched::BackfillOrder::kShortest;
  return rules;
}

struct BackfillRow {
  const char* name;
  sched::PlanRules rules;
};
constexpr BackfillRow kBackfills[] = {{"none", with_backfill(sched::Backfill::kNone)},
                                      {"easy", kEasyRules},
                                      {"easy-sjbf", shortest_first()},
                                      {"conservative", with_backfill(sched::Backfill::kConservative)}};

struct PolicyRow {
  const char* name;
  std::optional<LiteratureCost> cost;  // unset: core/sched's own order
  const char* backfill;                // unset: core/sched's own rules
};
constexpr PolicyRow kPolicies[] = {{"default", std::nullopt, nullptr},
                                   {"fcfs", LiteratureCost::kFcfs, "none"},
                                   {"easy", LiteratureCost::kFcfs, "easy"},
                                   {"easy-sjbf", LiteratureCost::kFcfs, "easy-sjbf"},
                                   {"conservative", LiteratureCost::kFcfs, "conservative"},
                                   {"sjf", LiteratureCost::kSjf, "easy"},
                                   {"saf", LiteratureCost::kSaf, "easy"},
                                   {"wfp3", LiteratureCost::kWfp3, "easy"},
                                   {"unicef", LiteratureCost::kUnicef, "easy"}};

template <typename Row, std::size_t N>
std::vector<std::string> names_of(const Row (&rows)[N]) {
  std::vector<std::string> names;
  for (const Row& row : rows) names.emplace_back(row.name);
  return names;
}

template <typename Row, std::size_t N>
Result<const Row*> find_row(const Row (&rows)[N], std::string_view name, const std::string& what) {
  for (const Row& row : rows) {
    if (row.name == name) return &row;
  }
  const std::vector<std::string> names = names_of(rows);
  const std::string nearest = nearest_word(to_lower(name), names);
  std::string all;
  for (const std::string& one : names) all += (all.empty() ? "" : ", ") + one;
  return invalid_argument(what + ": \"" + printable(name.substr(0, 40)) + "\" is unknown: " +
                          (nearest.empty() ? "use one of " + all : "did you mean " + nearest + "?"));
}

}  // namespace

std::vector<std::string> policy_names() {
  return names_of(kPolicies);
}
std::vector<std::string> backfill_names() {
  return names_of(kBackfills);
}

Result<ReplayPolicy> find_policy(std::string_view name, std::string_view backfill) {
  MUSTER_ASSIGN(const PolicyRow* row, find_row(kPolicies, name, "--policy"));
  ReplayPolicy result;
  result.name = row->name;
  sched::QueuePolicy queue;
  queue.name = kReplayQueue;
  result.policy.queues.push_back(queue);
  result.policy.default_queue = kReplayQueue;
  result.backfill = "default";
  if (!backfill.empty() || row->backfill != nullptr) {
    MUSTER_ASSIGN(const BackfillRow* rules,
                  find_row(kBackfills, backfill.empty() ? row->backfill : backfill, "--backfill"));
    result.backfill = rules->name;
    result.policy.rules = rules->rules;
  }
  if (row->cost) {
    result.order = std::make_shared<LiteratureOrder>(*row->cost);
  } else {
    result.order = std::make_shared<sched::DefaultOrder>(result.policy);
  }
  return result;
}

}  // namespace muster::sim
