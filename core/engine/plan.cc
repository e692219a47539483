// The planner's and the users' view of the pending jobs.
#include <algorithm>
#include <utility>

#include "core/engine/dependency.h"
#include "core/engine/engine.h"
#include "core/engine/reservation.h"

namespace muster::engine {
namespace {

const Job& record_of(const State& state, JobId id) {
  const auto array = state.arrays.find(id);
  return array != state.arrays.end() ? array->second : state.jobs.at(id);
}

}  // namespace

sched::Cluster cluster_of(const State& state) {
  return sched::Cluster{
      .ledger = state.ledger,
      .horizon = state.horizon,
      .pending = state.pending,
      .job = [&state](JobId id) -> const Job& { return record_of(state, id); },
      .promised = state.promised,
      .accounts = &state.accounts,
      .windows = &state.windows,
      .licenses = &state.licenses,
      .running = &state.jobs_on_node,
      .running_job = [&state](JobId id) -> const Job& { return state.jobs.at(id); },
      .making_room = &state.making_room,
      .standing_still = &state.standing_still,
      .describe = [&state](const Job& job, const OpenDependency& open) { return engine::describe(state, job, open); }};
}

sched::Plan plan(const State& state, const sched::Policy& policy, sched::WorkBudget budget, Instant now) {
  if (state.pending.empty() && state.standing_still.empty()) {
    return {};
  }
  return sched::schedule(cluster_of(state), policy, sched::DefaultOrder(policy, &state.accounts, now), budget, now);
}

sched::Plan plan(const State& state, const sched::Policy& policy, sched::WorkBudget budget, Instant now,
                 sched::PlanMemory& memory) {
  if (state.pending.empty() && state.standing_still.empty()) {
    memory = {};
    return {};
  }
  sched::Cluster cluster = cluster_of(state);
  // A pass that goes on is of the time when it began.
  const bool fresh = memory.made <= now && now - memory.made < sched::PlanMemory::kFreshFor;
  if (fresh) {
    cluster.remembered = &memory;
  }
  const bool goes_on =
      memory.resting != nullptr && memory.resting_over == &state && memory.resting_at == state.changes.count;
  if (memory.resting != nullptr && !goes_on) {
    memory.patience = std::min(memory.patience * 2, kPatienceMax);
  }
  auto pass = goes_on ? std::exchange(memory.resting, nullptr)
                      : std::make_shared<sched::SlicedPass>(std::move(cluster), policy, budget, now);
  memory.resting = nullptr;
  // A pass that went on after a rest may have begun with what was remembered then.
  const bool began_fresh = goes_on ? memory.resting_fresh : fresh;
  if (!pass->run(budget.work * memory.patience)) {
    memory.resting = std::move(pass);
    memory.resting_over = &state;
    memory.resting_fresh = began_fresh;
    memory.resting_at = state.changes.count;
    sched::Plan none;
    none.complete = false;
    none.resting = true;
    return none;
  }
  memory.patience = 1;
  sched::Plan plan = pass->take();
  memory.released = state.ledger.released_count();
  memory.kept = !plan.kept.empty();
  memory.refused = std::move(plan.refused);
  memory.licenses_released = state.licenses.released();
  memory.windows_revision = state.windows.revision();
  memory.windows_change = state.windows.next_change(pass->now());
  memory.promises.clear();
  for (const sched::Promise& p : plan.promises) {
    memory.promises.emplace(p.job, p);
  }
  memory.no_victims = plan.no_victims;
  memory.stale = began_fresh && (!memory.promises.empty() || !memory.no_victims.empty());
  if (!began_fresh) {
    memory.made = pass->now();
  }
  return plan;
}

// A promise that moves by less is not written again: an attempt that is over its time moves it with every pass.
constexpr Duration kPromiseStep = Duration::from_s(60);

ApplyPlan apply_plan(const State& state, sched::Plan plan) {
  ApplyPlan command;
  command.placements = std::move(plan.placements);
  command.preemptions = std::move(plan.preemptions);
  command.resumes = std::move(plan.resumes);
  for (const sched::Promise& p : plan.promises) {
    const Job& job = record_of(state, p.job);
    const Instant before = job.promised_start;
    std::vector<PlannedShare> place = sched::place_of(p.slots);
    // The next ones are promised their starts beside where this one is planned now: it must not fall back to a place that
    // it had before.
    const bool sooner = plan.promises.size() + plan.kept.size() > 1 && p.start < before;
    const bool moved = sooner || (plan.moved.contains(p.job) && place != job.promised_place);
    // The promise of an array was of the task that starts; the next one has its own.
    const bool starts = std::any_of(command.placements.begin(), command.placements.end(),
                                    [&p](const Placement& each) { return each.job == p.job; });
    if (starts || !before.is_set() || before + kPromiseStep < p.start || moved) {
      command.promises.push_back(PromisedStart{p.job, p.start, std::move(place)});
    }
  }
  return command;
}

Explainer::Explainer(const State& state, const sched::Policy& policy, Instant now)
    : why_(cluster_of(state), policy, now) {}

std::string node_state(const State& state, NodeIndex node) {
  const Node& n = state.nodes[node.value];
  if (n.contact != Contact::kConnected) {
    return n.contact == Contact::kNever ? "down" : "unreachable";
  }
  const sched::NodeCapacity& c = state.ledger.nodes()[node.value];
  if (n.is_drained()) {
    return state.jobs_on_node[node.value].empty() ? "drained" : "draining";
  }
  if (state.jobs_on_node[node.value].empty()) {
    return "idle";
  }
  return c.free_cores.empty() ? "allocated" : "mixed";
}

}  // namespace muster::engine
