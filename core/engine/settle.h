// What follows when attempts begin and end on nodes: the stop of the other nodes, and the end of the job.
#pragma once

#include <map>
#include <set>
#include <string>

#include "core/engine/engine.h"
#include "core/engine/failures.h"

namespace muster::engine {

// Takes reports of one node one after another and collects what follows. Later reports see what earlier ones changed.
class Settlement {
 public:
  Settlement(const State& state, const sched::Policy& policy, Instant now, Decision& decision)
      : s_(state), policy_(policy), now_(now), d_(decision), failures_(state, policy, now, decision) {}

  void report(NodeIndex node, const AttemptReport& report);
  // The node no longer has the attempt and will not say how it ended.
  void lost(NodeIndex node, AttemptKey key, const std::string& detail);

 private:
  Active* active_of(AttemptKey key);
  void ended(NodeIndex node, AttemptKey key, Active& active, const Outcome& outcome);
  void proven(AttemptKey key, AttemptOnNode& on, const std::optional<PlacementProof>& proof);
  void fact(FactBody body) { d_.facts.push_back(Fact{now_, std::move(body)}); }

  void requeue(const Job& job, JobRequeued requeued);

  const State& s_;
  const sched::Policy& policy_;
  Instant now_;
  Decision& d_;
  std::map<JobId, Active> touched_;
  std::set<JobId> ended_;
  Failures failures_;
};

// The end of a job whose nodes have all ended.
JobEnded job_end(const State& state, JobId job, const Active& active);

}  // namespace muster::engine
