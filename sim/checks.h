// Checks: what the simulation knows from outside, and the rules it compares the controller with. It sees processes
// begin and end on the nodes themselves, what is on the controller's disk, and what users were told; from these alone
// it judges. The first broken rule is kept.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "core/sched/place.h"
#include "lib/model/orders.h"

namespace muster::sim {

class Checks {
 public:
  explicit Checks(const sched::Policy& policy) : policy_(policy) {}

  void fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
  }
  [[nodiscard]] const std::string& problem() const { return problem_; }

  // On the nodes.
  void process_began(std::size_t node, const NodeHardware& hardware, const LaunchOrder& order);
  void process_gone(std::size_t node, AttemptKey key, const Outcome& outcome);
  // It stands still, and other jobs may have its cores; or it goes on.
  void process_still(std::size_t node, AttemptKey key, bool stands_still);
  void power_was_cut(std::size_t node) { ++power_cuts_[node]; }

  // In the controller.
  void fact_comes(const engine::State& before, const Fact& fact);
  void committed(const Facts& facts, const std::vector<JobSummary>& history);
  void planned(const engine::State& state, Instant now);
  // After every step in which the state changed.
  void state_changed(const engine::State& state);
  // After a restart and at the end: what is on disk is all there is, and it is complete.
  void nothing_lost(const engine::State& state);
  void nothing_left(const engine::State& state);

  // To the users.
  void acknowledged(RequestId request, JobId job);
  void cancelled(JobId job) { cancelled_.insert(job); }
  void drained(const std::vector<std::string>& nodes, std::optional<bool> drained);
  void has_prolog(std::size_t node) { with_prolog_.insert(node); }

  [[nodiscard]] std::uint64_t starts() const { return starts_; }
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }

 private:
  struct Process {
    NodeShare share;
    bool alive = true;
    Outcome outcome;
    bool stands_still = false;
  };
  struct Submission {
    std::uint64_t tasks = 1;
  };
  void check_start(const engine::State& before, const AttemptStarted& fact, Instant now);
  void check_preemption(const engine::State& before, AttemptKey victim, JobId room_for, Instant now);
  void check_cores(std::size_t node, AttemptKey key, const IndexSet& cores);
  void check_standing_still(const engine::State& state);
  void check_dependency(const engine::State& before, const Job& job, std::uint64_t position, Instant now);
  [[nodiscard]] bool is_met(const DependencyTerm& term, Instant now) const;
  // The ids of a submission that a crash has undone are given again.
  void forget(JobId first, std::uint64_t tasks);
  // What the facts of a batch said that a crash has undone.
  void forget_undone(const engine::State& state);
  void check_promises(const engine::State& before, const Job& job, const AttemptStarted& fact, Instant now);
  void check_reserved(const engine::State& before, const Job& job, const AttemptStarted& fact, Instant now);
  [[nodiscard]] bool fits_beside_others(const engine::State& state, const Job& job, Instant now) const;
  void check_summary(const JobSummary& summary);
  void check_reason(const engine::State& state, const Job& job, const engine::Explainer& explainer, Instant now);
  [[nodiscard]] bool fits(const engine::State& state, const Job& job, sched::Assume assume) const;
  void remember(std::uint64_t what);

  const sched::Policy& policy_;
  std::string problem_;
  std::map<AttemptKey, std::map<std::size_t, Process>> processes_;
  std::map<JobId, std::set<AttemptKey>> alive_;                     // attempts with a live process anywhere
  std::map<std::size_t, std::map<AttemptKey, NodeShare>> on_node_;  // live processes
  std::map<std::size_t, std::uint64_t> power_cuts_;
  std::map<JobId, Submission> submitted_;  // on disk
  std::map<RequestId, JobId> requests_;    // on disk
  std::map<RequestId, JobId> told_;        // to clients
  std::set<JobId> ended_;                  // in history: jobs and tasks
  std::set<AttemptKey> attempts_ended_;    // in history: those whose jobs went on
  std::set<AttemptKey> stopped_;           // by a cancel that is on disk
  std::set<JobId> cancelled_;
  // What the controller's facts said, for dependencies.
  std::map<JobId, Instant> started_;
  std::map<JobId, JobState> ends_;
  std::map<JobId, std::optional<ArraySpec>> sizes_;  // of arrays
  std::set<std::size_t> with_prolog_;
  std::map<std::string, bool> drained_;  // as the administrator was told; absent: under way
  Term term_;
  std::uint64_t starts_ = 0;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace muster::sim
