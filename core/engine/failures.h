// The ledger of each node's failures, by which one bad node does not fail job after job.
//
// A node is blamed for an attempt that it failed for sure (its spool, a shepherd that died), and for one that failed so
// soon that it is in doubt, as soon as a job like it (the same job again, another task of its array, the same script and
// arguments of the same user) runs well on another node. With a blame it is suspect: taken last, and never by a job that
// it failed while another node can take that. With the second one it rests for a while, longer with each; with
// Policy::node_failures_max it is drained. A job that runs well there takes the oldest blame and all doubts away, and so
// does time. No more than a tenth of the nodes (at least one) are drained so: where everything fails, nodes are not why.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "core/engine/engine.h"

namespace muster::engine {

// What is ended by itself within this time may have failed because of its node.
inline constexpr Duration kSoon = Duration::from_s(10);
// A node rests no longer than this.
inline constexpr Duration kRestMax = Duration::from_s(3600);

// The facts about nodes that follow from ends of attempts, one after the other: later ones see what earlier ones changed.
class Failures {
 public:
  Failures(const State& state, const sched::Policy& policy, Instant now, Decision& decision)
      : s_(state), policy_(policy), now_(now), d_(decision) {}

  // The attempt has ended on the node.
  void ended_on_node(NodeIndex node, AttemptKey key, const Outcome& outcome);
  // The attempt has ended everywhere, and its job in this state. Not for one that goes back to its queue.
  void ended(const Job& job, const Active& active, JobState state);

 private:
  NodeHealth& health(NodeIndex node);
  void doubt(const Job& job, NodeIndex node, const Outcome& outcome);
  void blame(NodeIndex node, Blame blame);
  void ran_well(const Job& job, const Active& active);
  [[nodiscard]] bool may_drain_one_more() const;
  void fact(FactBody body) { d_.facts.push_back(Fact{now_, std::move(body)}); }

  const State& s_;
  const sched::Policy& policy_;
  Instant now_;
  Decision& d_;
  std::map<NodeIndex, NodeHealth> changed_;
};

// What time alone makes true: rests are over, what is old is forgotten.
void settle_failures(const State& state, const sched::Policy& policy, Instant now, Decision& decision);
// When that has something to do next; nothing when no node has any entry.
[[nodiscard]] std::optional<Instant> next_of_failures(const State& state, const sched::Policy& policy);

// What evolve() does.
void evolve_doubted(NodeHealth& health, const NodeDoubted& fact);
void evolve_blamed(NodeHealth& health, const NodeBlamed& fact);
void evolve_trusted(NodeHealth& health, const NodeTrusted& fact);
// The suspect nodes among those of the attempt, by which its job is kept from going to them first.
[[nodiscard]] std::vector<std::string> suspects_of(const State& state, const Active& active);

}  // namespace muster::engine
