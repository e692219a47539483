// The controller's decisions (docs/architecture.md, "The one idea"):
//
//   decide       a command -> the facts that become true, or why not. Checks everything, changes nothing.
//   evolve       the only writer of State; total: any fact that was ever journaled is applied without failing.
//   react        what the shell owes the world because of a fact. Called with the state BEFORE the fact is evolved
//                for what the fact ends, and after for what it begins: use apply(), which does both in the right order.
//   outstanding  what is owed now: after a start and when a node registers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/engine/state.h"
#include "core/sched/schedule.h"
#include "core/sched/why.h"
#include "lib/base/result.h"
#include "lib/model/command.h"
#include "lib/model/effect.h"

namespace muster::engine {

struct Decision {
  Facts facts;
  // Effects that need no fact because nothing changed: a repeated report is acknowledged again, a repeated launch is sent.
  Effects effects;
  JobId job;                         // SubmitJob: the job, new or of the same request id
  std::uint64_t matched = 0;         // CancelJobs, HoldJobs, ...: how many jobs or nodes it applied to
  std::vector<std::string> notes;    // problems with single ids or placements, for the user
  std::vector<std::string> remarks;  // what the user should know of what was done
  std::vector<JobId> unknown;        // ids that were named and that no job has: they have ended, or never were
  NodeIndex node;                    // RegisterNode: the node's index
  // RegisterNode: the node has registered since with this sequence. What was read late says nothing that counts.
  std::uint64_t outdated_by = 0;
};

Result<Decision> decide(const State& state, const sched::Policy& policy, const Command& command, Instant now);

void evolve(State& state, const Fact& fact);

// Evolves the fact and appends the effects that it causes.
void apply(State& state, const Fact& fact, Effects& effects);

// What is owed to one node: launches it has not confirmed and stops of what it still has.
Effects outstanding(const State& state, NodeIndex node);

// Whether a launch that was decided earlier is still owed. A shell asks right before it sends one: between the decision
// and the commit the node may have registered anew, after a reboot that ended the attempt, and its share may belong to
// another job already. What is not sent and yet owed goes out when the node registers.
bool is_owed(const State& state, NodeIndex node, const LaunchOrder& launch);

// The most of PlanMemory::patience, far more than any pass needs.
inline constexpr std::uint64_t kPatienceMax = std::uint64_t{1} << 20U;

// One slice of planning over the state's pending jobs.
sched::Plan plan(const State& state, const sched::Policy& policy, sched::WorkBudget budget, Instant now);
// The same with what earlier passes found out, which it brings up to date.
sched::Plan plan(const State& state, const sched::Policy& policy, sched::WorkBudget budget, Instant now,
                 sched::PlanMemory& memory);

// What a command that applies the plan says: its placements, and the promises that are new or have another start or place.
ApplyPlan apply_plan(const State& state, sched::Plan plan);

// Why jobs wait, from what a pass would do now: a cache for one moment.
class Explainer {
 public:
  Explainer(const State& state, const sched::Policy& policy, Instant now);
  [[nodiscard]] sched::Reason reason(const Job& job) const { return why_.reason(job); }
  [[nodiscard]] std::optional<Instant> estimated_start(const Job& job) const { return why_.estimated_start(job); }
  // The same in a listing of many parts; `book` is what its parts before found out.
  [[nodiscard]] sched::Reason reason(const Job& job, sched::ReasonBook& book) const { return why_.reason(job, book); }
  [[nodiscard]] std::optional<Instant> estimated_start(const Job& job, sched::ReasonBook& book) const {
    return why_.estimated_start(job, book);
  }
  [[nodiscard]] std::uint64_t looked_at() const { return why_.looked_at(); }
  [[nodiscard]] sched::Explanation explain(const Job& job) const { return why_.explain(job); }
  // When and where a job would start that were submitted now, behind all that are planned; nothing if it fits no usable
  // node. The spec must be normalised.
  [[nodiscard]] std::optional<sched::Spot> place_of_new(const JobSpec& spec) const { return why_.place_of_new(spec); }
  [[nodiscard]] std::vector<sched::Blocker> blockers_of_new(const JobSpec& spec) const {
    return why_.blockers_of_new(spec);
  }

 private:
  sched::Why why_;
};

// The state of a node as users see it: idle mixed allocated drained draining down unreachable.
std::string node_state(const State& state, NodeIndex node);

}  // namespace muster::engine
