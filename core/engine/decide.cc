// decide(): each command's checks and the facts that it makes true.
#include <algorithm>
#include <set>
#include <variant>

#include "core/engine/accounting.h"
#include "core/engine/deadline.h"
#include "core/engine/dependency.h"
#include "core/engine/engine.h"
#include "core/engine/failures.h"
#include "core/engine/index.h"
#include "core/engine/normalise.h"
#include "core/engine/registration.h"
#include "core/engine/reservation.h"
#include "core/engine/running.h"
#include "core/engine/select.h"
#include "core/engine/settle.h"
#include "core/engine/update.h"
#include "core/sched/place.h"
#include "core/sched/queue_rules.h"
#include "core/sched/share.h"
#include "core/sched/span.h"
#include "lib/base/text.h"
#include "lib/model/constraint.h"
#include "lib/model/job_name.h"

namespace muster::engine {
namespace {

class Decide {
 public:
  Decide(const State& state, const sched::Policy& policy, Instant now) : s_(state), policy_(policy), now_(now) {}

  Result<Decision> operator()(const SubmitJob& c) {
    if (c.request.is_set()) {
      d_.job = job_of_request(s_, c.request);
      if (d_.job != JobId{}) {
        return done();
      }
    }
    if (c.spec->user != c.caller.user && !c.caller.admin) {
      return make_error(ErrorCode::kPermissionDenied, "a job of user " + printable(c.spec->user) +
                                                          " cannot be submitted with the key of " + c.caller.user);
    }
    MUSTER_ASSIGN(JobSpecPtr spec, normalise(s_, policy_, *c.spec, now_));
    if (const std::uint64_t held = s_.jobs.size() + s_.arrays.size(); held >= policy_.jobs_max) {
      return make_error(ErrorCode::kLimitReached,
                        "the controller holds " + std::to_string(held) + " jobs that have not ended, its limit is " +
                            std::to_string(policy_.jobs_max) +
                            " (controller.queue_max_jobs): try again when some have ended, or raise the limit");
    }
    MUSTER_TRY(check_nice(*spec, c.caller));
    MUSTER_TRY(check_deadline(*spec, now_));
    MUSTER_TRY(check_pending_limits(s_, *spec, spec->array ? spec->array->size() : 1));
    MUSTER_ASSIGN(ResolvedDependency dependency, resolve_dependency(s_, *spec, nullptr, c.ended));
    if (spec->begin < dependency.begin) {
      auto later = std::make_shared<JobSpec>(*spec);
      later->begin = dependency.begin;
      spec = std::move(later);
    }
    d_.job = s_.next_job;
    fact(JobSubmitted{.id = s_.next_job, .request = c.request, .spec = spec, .priority = priority_of(policy_, *spec)});
    if (!dependency.open.empty()) {
      fact(DependencySet{.job = s_.next_job, .open = std::move(dependency.open)});
    }
    return done();
  }

  Result<Decision> operator()(const CancelJobs& c) {
    for (const Selected& sel : selected(c.jobs, c.caller)) {
      if (sel.array != nullptr) {
        if (c.signal != 0) {
          note(*sel.array, "is pending: a signal can be sent to running jobs only");
          continue;
        }
        for (const PositionRange& r : sel.positions) {
          fact(ArrayTasksEnded{.array = sel.array->id,
                               .positions = r,
                               .state = JobState::kCancelled,
                               .reason = "Cancelled: by " + c.caller.user});
        }
      } else if (!sel.job->is_active()) {
        if (c.signal != 0) {
          note(*sel.job, "is pending: a signal can be sent to running jobs only");
          continue;
        }
        fact(JobEnded{.job = sel.job->id, .state = JobState::kCancelled, .reason = "Cancelled: by " + c.caller.user});
      } else {
        const bool repeated = c.signal == 0 && std::get<Active>(sel.job->phase).stop == StopCause::kCancelled;
        if (!repeated) {
          fact(StopRequested{.key = {sel.job->id, sel.job->attempt},
                             .cause = c.signal == 0 ? StopCause::kCancelled : StopCause::kNone,
                             .signal = c.signal,
                             .by = c.caller.user});
        }
      }
      ++d_.matched;
    }
    return finish_selection();
  }

  Result<Decision> operator()(const HoldJobs& c) { return set_held(c.jobs, c.caller, true); }
  Result<Decision> operator()(const ReleaseJobs& c) { return set_held(c.jobs, c.caller, false); }

  Result<Decision> operator()(const RequeueJobs& c) {
    return order_running(c.jobs, c.caller, requeue_order, "is pending: there is nothing to requeue");
  }
  Result<Decision> operator()(const SuspendJobs& c) {
    return order_running(c.jobs, c.caller, suspend_order,
                         "is pending: only running jobs can be suspended, hold it with muster hold");
  }
  Result<Decision> operator()(const ContinueJobs& c) {
    sched::Draft draft(s_.ledger);
    const auto order = [&](const Job& job, const Caller& caller) { return continue_order(job, caller, draft); };
    return order_running(c.jobs, c.caller, order, "is not suspended: there is nothing to continue");
  }

  Result<Decision> operator()(const DrainNodes& c) {
    return with_nodes(c.caller, c.nodes, [&](const Node& n) {
      if (!n.drained || n.drain_reason != c.reason) {
        fact(NodeDrained{n.index, c.reason});
      }
    });
  }
  Result<Decision> operator()(const ResumeNodes& c) {
    return with_nodes(c.caller, c.nodes, [&](const Node& n) {
      if (n.drained || n.health.fault != NodeFault::kNone || !n.health.blames.empty() || !n.health.doubts.empty()) {
        fact(NodeResumed{n.index});
      }
      if (!n.health.problems.empty()) {
        d_.remarks.push_back("node " + n.name + " takes no work until its checks pass, which it runs again now: " +
                             reason_of(NodeHealth{.problems = n.health.problems}));
        d_.effects.emplace_back(AskHealth{n.index});
      }
    });
  }
  Result<Decision> operator()(const ReportHealth& c) {
    const Node* node = find_node(s_, c.node);
    if (node == nullptr) {
      return make_error(ErrorCode::kNotFound, "node " + printable(c.node) + " has not registered");
    }
    d_.node = node->index;
    if (node->health.problems != c.problems) {
      fact(NodeHealthChanged{node->index, c.problems});
    }
    return done();
  }

  Result<Decision> operator()(const RegisterNode& c) {
    const NodeRegistration& r = c.registration;
    MUSTER_TRY(check_registration(s_, r));
    const Node* known = find_node(s_, r.name);
    d_.node = known != nullptr ? known->index : NodeIndex{static_cast<std::uint32_t>(s_.nodes.size())};
    if (known != nullptr && r.sequence != 0 && known->boot_id == r.boot_id &&
        r.sequence <= known->registration_sequence) {
      // From a connection that the node has given up: it may lack attempts that run since, which would be taken for lost.
      d_.outdated_by = known->registration_sequence;
      return done();
    }
    if (known != nullptr) {
      settle_registration(*known, r);
    } else {
      for (const AttemptReport& a : r.attempts) {  // nothing of an unknown node is ours
        Settlement(s_, policy_, now_, d_).report(d_.node, a);
      }
    }
    const TopologyHash topology = r.topology ? topology_hash(*r.topology) : TopologyHash{};
    const bool changed = known == nullptr || known->topology != topology || known->contact != Contact::kConnected ||
                         known->hardware != r.hardware || known->boot_id != r.boot_id ||
                         known->endpoint != r.endpoint || known->public_key != r.public_key ||
                         known->registration_sequence != r.sequence || known->features != r.features ||
                         known->enforcement != r.enforcement || known->has_prolog != r.has_prolog;
    if (changed) {
      if (topology.is_set() && !s_.node_classes.contains(topology)) {
        fact(NodeClassAdded{.hash = topology, .topology = class_of(*r.topology)});
      }
      // After the attempts' ends, so that nothing which just ended is owed to the node again.
      fact(NodeRegistered{.index = d_.node,
                          .name = r.name,
                          .hardware = r.hardware,
                          .boot_id = r.boot_id,
                          .endpoint = r.endpoint,
                          .public_key = r.public_key,
                          .sequence = r.sequence,
                          .features = r.features,
                          .topology = topology,
                          .enforcement = r.enforcement,
                          .has_prolog = r.has_prolog});
    } else if (d_.facts.empty()) {
      Effects owed = outstanding(s_, d_.node);
      d_.effects.insert(d_.effects.end(), owed.begin(), owed.end());
    } else {
      repeat_registration(*known);
    }
    if (known != nullptr) {
      if (std::string gone = missing_gpus(*known, r); !gone.empty()) {
        fact(NodeFaulted{d_.node, NodeFault::kHardware, std::move(gone)});
      }
    }
    if (known == nullptr ? !r.problems.empty() : known->health.problems != r.problems) {
      fact(NodeHealthChanged{d_.node, r.problems});
    }
    return done();
  }

  Result<Decision> operator()(const ReportAttempts& c) {
    const Node* node = find_node(s_, c.node);
    if (node == nullptr) {
      return make_error(ErrorCode::kNotFound, "node " + printable(c.node) + " has not registered");
    }
    d_.node = node->index;
    Settlement settlement(s_, policy_, now_, d_);
    for (const AttemptReport& r : c.reports) {
      settlement.report(node->index, r);
    }
    return done();
  }

  Result<Decision> operator()(const LoseNode& c) {
    if (c.node.value < s_.nodes.size() && s_.nodes[c.node.value].contact == Contact::kConnected) {
      fact(NodeBecameUnreachable{c.node});
    }
    return done();
  }

  Result<Decision> operator()(const StartTerm& /*c*/) {
    fact(TermStarted{Term{s_.term.value + 1}});
    return done();
  }

  Result<Decision> operator()(const Tick& /*c*/) {
    const Instant before = now_ - policy_.request_memory;
    if (!s_.requests_by_age.empty() && s_.requests_by_age.front().first < before) {
      fact(RequestsForgotten{before});
    }
    if (std::string name = forgotten_reservation(s_, now_); !name.empty()) {
      fact(ReservationRemoved{std::move(name)});
    }
    settle_deadlines(s_, now_, d_);
    settle_failures(s_, policy_, now_, d_);
    return done();
  }

  Result<Decision> operator()(const UpdateJobs& c) { return decide_update(s_, policy_, c, now_); }
  Result<Decision> operator()(const MakeReservation& c) { return make_reservation(s_, policy_, c, now_); }
  Result<Decision> operator()(const RemoveReservation& c) { return remove_reservation(s_, c, now_); }

  Result<Decision> operator()(const ApplyPlan& c) {
    preempt(c);  // first: what starts may count on it
    sched::Draft draft(s_.ledger);
    go_on(c, draft);
    const std::map<NodeIndex, IndexSet> still = cores_that_stand_still();
    sched::LimitBook limits(s_.accounts, now_);
    PlacementRules rules(s_, policy_, now_);
    std::set<JobId> started;
    std::map<JobId, std::uint64_t> of_array;
    for (const Placement& p : c.placements) {
      if (const char* why_not = check_placement(p, draft, limits, rules, started, of_array)) {
        note_id(p.job, why_not);
        continue;
      }
      const Job* array = find_array(s_, p.job);
      const Job* job = array != nullptr ? array : find_job(s_, p.job);
      std::vector<NodeShare> shares;
      for (const NodeShare& share : p.shares) {
        const auto others = still.find(share.node);
        if (auto chosen = sched::choose_share(draft.node(share.node.value), share, *job->spec,
                                              others == still.end() ? IndexSet{} : others->second)) {
          shares.push_back(std::move(*chosen));
        }
      }
      if (shares.size() < p.shares.size()) {
        note_id(p.job, "its tasks would not be near their GPUs there");
        continue;
      }
      for (const NodeShare& share : shares) {
        draft.take(share);
      }
      const JobId id = array != nullptr ? JobId{p.job.value + p.position} : p.job;
      if (s_.accounts.has_limits()) {
        limits.start(*job->spec, sched::demand_of(p.shares, sched::given_limit(p, *job->spec)));
      }
      rules.started(*job, p);
      started.insert(id);
      ++of_array[p.job];
      fact(AttemptStarted{.job = id,
                          .attempt = next_attempt(*job, p.position),
                          .shares = std::move(shares),
                          .time_limit = p.time_limit == job->spec->time_limit ? Duration{} : p.time_limit});
      ++d_.matched;
    }
    for (const PromisedStart& p : c.promises) {
      const Job* array = find_array(s_, p.job);
      const Job* job = array != nullptr ? array : find_job(s_, p.job);
      if (job == nullptr || job->is_active() || job->held || is_dependent(*job)) {
        continue;
      }
      const auto placed = of_array.find(p.job);
      if (placed == of_array.end() ? job->promised_start != p.start || job->promised_place != p.place
                                   : array != nullptr && waiting_count(*array) > placed->second) {
        fact(StartPromised{.job = p.job, .start = p.start, .place = p.place});
      }
    }
    return done();
  }

  Result<Decision> operator()(const ChangeAccounting& c) { return change_accounting(s_, c, now_); }

  Result<Decision> operator()(const ConfigureBilling& c) {
    if (c.rules != s_.accounts.billing()) {
      fact(BillingConfigured{c.rules});
    }
    return done();
  }

 private:
  void fact(FactBody body) { d_.facts.push_back(Fact{now_, std::move(body)}); }
  Decision done() { return std::move(d_); }
  void note(const Job& job, const char* text) { d_.notes.push_back("job " + job_name(job) + ": " + text); }
  void note_id(JobId id, const char* text) { d_.notes.push_back("job " + std::to_string(id.value) + ": " + text); }

  std::vector<Selected> selected(const JobSelector& selector, const Caller& caller) {
    return select_jobs(s_, selector, caller, d_.notes, d_.unknown, denied_);
  }
  // Nothing matched and somebody was not permitted: that is the answer. Otherwise notes tell of single ids.
  Result<Decision> finish_selection() {
    if (d_.matched == 0 && denied_) {
      return make_error(ErrorCode::kPermissionDenied, d_.notes.front());
    }
    return done();
  }

  // One order for all running jobs that are selected; those that wait are told of.
  template <typename Order>
  Result<Decision> order_running(const JobSelector& selector, const Caller& caller, Order order,
                                 const char* why_not_waiting) {
    std::set<JobId> told;
    for (const Selected& sel : selected(selector, caller)) {
      if (sel.array != nullptr) {
        // Of an array that was named whole, the part that runs is meant.
        if ((!sel.whole_array || sel.array->array_running == 0) && told.insert(sel.array->id).second) {
          note(*sel.array, why_not_waiting);
        }
        continue;
      }
      RunningOrder made = order(*sel.job, caller);
      if (made.refusal != nullptr) {
        note(*sel.job, made.refusal);
        continue;
      }
      if (made.fact) {
        fact(std::move(*made.fact));
      }
      ++d_.matched;
    }
    return finish_selection();
  }

  void preempt(const ApplyPlan& c) {
    std::set<JobId> stopped;
    for (const Preemption& p : c.preemptions) {
      if (!stopped.insert(p.victim.job).second) {
        continue;
      }
      RunningOrder made = preempt_order(s_, policy_, p, now_);
      if (made.fact) {
        fact(std::move(*made.fact));
        ++d_.matched;
      } else {
        note_id(p.victim.job, made.refusal);
      }
    }
  }

  // Of jobs that make room by standing still. The planner counts what is kept for them; which cores a job gets is chosen
  // here.
  [[nodiscard]] std::map<NodeIndex, IndexSet> cores_that_stand_still() const {
    std::map<NodeIndex, IndexSet> cores;
    for (const JobId id : s_.standing_still) {
      for (const AttemptOnNode& on : std::get<Active>(s_.jobs.at(id).phase).nodes) {
        if (on.stands_still && on.phase != NodePhase::kEnded) {
          cores[on.share.node] |= on.share.cores;
        }
      }
    }
    return cores;
  }

  void go_on(const ApplyPlan& c, sched::Draft& draft) {
    for (const AttemptKey& key : c.resumes) {
      RunningOrder made = go_on_order(s_, key, draft);
      if (made.fact) {
        fact(std::move(*made.fact));
        ++d_.matched;
      } else {
        note_id(key.job, made.refusal);
      }
    }
  }

  Result<Decision> set_held(const JobSelector& selector, const Caller& caller, bool held) {
    std::set<JobId> seen;
    std::map<JobId, Positions> tasks;  // of arrays, that are named singly
    for (const Selected& sel : selected(selector, caller)) {
      const Job& job = sel.array != nullptr ? *sel.array : *sel.job;
      if (sel.array != nullptr && !sel.whole_array) {
        for (const PositionRange& r : sel.positions) {
          add(tasks[job.id], r);
        }
        ++d_.matched;
        continue;
      }
      if (job.is_active()) {
        if (job.array == JobId{}) {
          note(job, held ? "has started: only pending jobs can be held" : "has started: there is nothing to release");
        }
        continue;
      }
      if (job.held != held && seen.insert(job.id).second) {
        if (held) {
          fact(JobHeld{job.id});
        } else {
          fact(JobReleased{job.id});
        }
      }
      if (!held && sel.array != nullptr && !job.held_positions.empty()) {
        fact(ArrayTasksReleased{job.id, job.held_positions});
      }
      ++d_.matched;
    }
    for (const auto& [array, positions] : tasks) {
      set_tasks_held(s_.arrays.at(array), positions, held);
    }
    return finish_selection();
  }

  // Single tasks of an array that waits. Of one that is held as a whole, the others stay held when some are released.
  void set_tasks_held(const Job& array, const Positions& tasks, bool held) {
    Positions held_now = array.held ? array.waiting : array.held_positions;
    const Positions changed = held ? without(tasks, held_now) : both(tasks, held_now);
    if (changed.empty()) {
      return;
    }
    if (held) {
      fact(ArrayTasksHeld{array.id, changed});
      return;
    }
    if (!array.held) {
      fact(ArrayTasksReleased{array.id, changed});
      return;
    }
    if (const Positions others = without(array.waiting, tasks); !others.empty()) {
      fact(ArrayTasksHeld{array.id, others});
    }
    if (const Positions single = both(tasks, array.held_positions); !single.empty()) {
      fact(ArrayTasksReleased{array.id, single});
    }
    fact(JobReleased{array.id});
  }

  template <typename Change>
  Result<Decision> with_nodes(const Caller& caller, const std::vector<std::string>& names, Change change) {
    if (!caller.admin) {
      return make_error(ErrorCode::kPermissionDenied,
                        "draining and resuming nodes needs an administrator's key: ask one of them");
    }
    for (const std::string& name : names) {
      if (find_node(s_, name) == nullptr) {
        return make_error(ErrorCode::kNotFound, "unknown node " + printable(name) + ": see muster nodes");
      }
    }
    for (const std::string& name : names) {
      change(*find_node(s_, name));
      ++d_.matched;
    }
    return done();
  }

  // What the node lists is reported; what it should have and does not list is gone.
  void settle_registration(const Node& node, const NodeRegistration& r) {
    Settlement settlement(s_, policy_, now_, d_);
    std::set<AttemptKey> listed;
    for (const AttemptReport& a : r.attempts) {
      listed.insert(a.key);
      settlement.report(node.index, a);
    }
    const bool rebooted = node.boot_id != r.boot_id;
    for (const JobId id : s_.jobs_on_node[node.index.value]) {
      const Job& job = s_.jobs.at(id);
      const AttemptKey key{id, job.attempt};
      if (listed.contains(key)) {
        continue;
      }
      for (const AttemptOnNode& on : std::get<Active>(job.phase).nodes) {
        if (on.share.node != node.index || on.phase == NodePhase::kEnded) {
          continue;
        }
        // An unconfirmed launch may have run before the reboot and its record be lost: it is not sent again.
        if (rebooted) {
          settlement.lost(node.index, key, "the node restarted");
        } else if (on.phase == NodePhase::kStarted) {
          settlement.lost(node.index, key, "the node no longer knows the job");
        }
      }
    }
  }

  // An unchanged node registered again and some of its attempts ended: what else is owed goes out as well.
  void repeat_registration(const Node& node) {
    std::set<AttemptKey> ended;
    for (const Fact& f : d_.facts) {
      if (const auto* e = std::get_if<AttemptEndedOnNode>(&f.body)) {
        ended.insert(e->key);
      }
    }
    for (Effect& e : outstanding(s_, node.index)) {
      const auto* launch = std::get_if<SendLaunch>(&e);
      const auto* stop = std::get_if<SendStop>(&e);
      const AttemptKey key = launch != nullptr ? launch->order.key : stop != nullptr ? stop->order.key : AttemptKey{};
      if (!ended.contains(key)) {
        d_.effects.push_back(std::move(e));
      }
    }
  }

  const char* check_placement(const Placement& p, const sched::Draft& draft, const sched::LimitBook& limits,
                              const PlacementRules& rules, const std::set<JobId>& started,
                              const std::map<JobId, std::uint64_t>& of_array) const {
    const Job* array = find_array(s_, p.job);
    const Job* job = array != nullptr ? array : find_job(s_, p.job);
    if (job == nullptr || job->is_active()) {
      return "is not pending any more";
    }
    const JobId id = array != nullptr ? JobId{p.job.value + p.position} : p.job;
    if (started.contains(id) || (array != nullptr && !is_waiting(*array, p.position))) {
      return "is not pending any more";
    }
    if (job->held || job->spec->begin > now_) {
      return "may not start now";
    }
    if (is_dependent(*job) || (array != nullptr && has_barred(*array) && !contains(startable(*array), p.position))) {
      return "waits for other jobs";
    }
    if (const char* why_not = check_span(*job->spec, p)) {
      return why_not;
    }
    const sched::QueuePolicy* queue = policy_.find_queue(job->spec->queue);
    if (queue == nullptr || !queue->starts || sched::refusal_of(*queue, *job->spec)) {
      return "is not admitted by its queue";
    }
    const auto already = of_array.find(p.job);
    const std::uint64_t limit = array != nullptr ? array->spec->array->max_running : 0;
    if (limit != 0 && array->array_running + (already == of_array.end() ? 0 : already->second) >= limit) {
      return "its array is at its limit of running tasks";
    }
    if (p.shares.empty()) {
      return "the plan gives it no node";
    }
    const sched::NodeFilter filter = sched::make_filter(s_.ledger, *job->spec, queue->nodes, policy_.sites);
    if (const char* wrong = sched::unsuitable(s_.ledger, *job->spec, filter, p.shares,
                                              sched::any_switches(*job->spec, job->eligible_time, now_))) {
      return wrong;
    }
    std::set<NodeIndex> nodes;
    for (const NodeShare& share : p.shares) {
      if (!nodes.insert(share.node).second) {
        return "the plan names a node twice";
      }
      if (!draft.has_room(share)) {
        return "what the plan gives it is not free any more";
      }
    }
    if (s_.accounts.has_limits() &&
        !limits.allows(*job->spec, sched::demand_of(p.shares, sched::given_limit(p, *job->spec)))) {
      return "a limit of its account, user or QOS is reached";
    }
    return rules.refusal(*job, p);
  }

  // The limit that a placement gives is one that the user accepts, and ends in time.
  [[nodiscard]] const char* check_span(const JobSpec& spec, const Placement& p) const {
    const Duration limit = sched::given_limit(p, spec);
    if (limit > spec.time_limit || limit < sched::least_limit(spec)) {
      return "the plan gives it a time limit that it did not ask for";
    }
    return spec.deadline.is_set() && sched::end_of(now_, limit) > spec.deadline ? "could not end by its deadline"
                                                                                : nullptr;
  }

  const State& s_;
  const sched::Policy& policy_;
  Instant now_;
  Decision d_;
  bool denied_ = false;
};

}  // namespace

Result<Decision> decide(const State& state, const sched::Policy& policy, const Command& command, Instant now) {
  return std::visit(Decide(state, policy, std::max(now, state.now)), command);
}

}  // namespace muster::engine
