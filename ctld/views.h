// What users see of jobs and nodes: the messages of queue, show, nodes and history, made from State and from summaries.
// Pure functions over values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "ctld/explainer_cache.h"
#include "lib/model/job.h"

namespace muster::pb {
class JobView;
class NodeView;
}  // namespace muster::pb

namespace muster::ctld {

// The output files of a job, absolute and expanded; empty where the job has none.
struct OutputPaths {
  std::string stdout_path;
  std::string stderr_path;  // the same as stdout_path when errors go there
};
// `node` is the job's first node; empty before it has one (%N is then left out).
OutputPaths output_paths(const JobSpec& spec, JobId job, JobId array, std::uint64_t position, const std::string& node);

class Views {
 public:
  // All views of one moment.
  Views(const Views&) = delete;
  Views& operator=(const Views&) = delete;
  // `cache` keeps the explanations for the next views; null: they are made anew.
  Views(const engine::State& state, const sched::Policy& policy, Instant now, ExplainerCache* cache = nullptr)
      : state_(state), policy_(policy), now_(now), cache_(cache != nullptr ? cache : &own_) {}
  // The views are part of a listing, in which reasons and starts are found once. It outlives the views.
  void set_book(sched::ReasonBook& book) { book_ = &book; }
  // Nothing is planned before that time at the latest, because nodes are still to come back (Pipeline).
  void set_planning_waits_until(Instant until) { planning_waits_until_ = until; }

  // A single job, a started task, or an array record (one row for all its waiting tasks).
  void job(const Job& job, bool with_placement, pb::JobView& out);
  // Everything that holds back a job that waits, and what would start it sooner.
  void explain(const Job& job, pb::JobView& out);
  [[nodiscard]] const engine::Explainer& explainer();
  // One task of an array that waits.
  void waiting_task(const Job& array, std::uint64_t position, pb::JobView& out);
  // A job that has ended; its summary must stand for one job.
  void ended(const JobSummary& summary, bool with_placement, pb::JobView& out) const;
  void node(const Node& node, bool with_topology, pb::NodeView& out) const;

 private:
  void pending_reason(const Job& job, pb::JobView& out);
  // Why even a job that could start does not, shortly after a start of the controller; empty: nothing of the kind.
  [[nodiscard]] std::string waits_for_nodes() const;
  void placement(const JobSpec& spec, const std::vector<NodeShare>& shares, const std::vector<AttemptOnNode>* phases,
                 const std::vector<PlacementProof>& proofs, pb::JobView& out) const;

  const engine::State& state_;
  const sched::Policy& policy_;
  Instant now_;
  ExplainerCache own_;
  ExplainerCache* cache_;  // asked when a reason is
  Instant planning_waits_until_;
  sched::ReasonBook* book_ = nullptr;
  mutable std::uint64_t tasks_shown_ = 0;  // with their places; of all of these views
};

}  // namespace muster::ctld
