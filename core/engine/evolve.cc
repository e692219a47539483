// evolve(): what each fact means. Total: a fact about something that is not there changes nothing.
#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

#include "core/engine/dependency.h"
#include "core/engine/engine.h"
#include "core/engine/failures.h"
#include "core/engine/index.h"
#include "core/engine/running.h"

namespace muster::engine {
namespace {

class Evolve {
 public:
  Evolve(State& state, Instant at) : s_(state), at_(at) {}

  void operator()(const TermStarted& f) {
    s_.term = f.term;
    for (Node& n : s_.nodes) {
      if (n.contact == Contact::kConnected) {
        n.contact = Contact::kUnreachable;
        n.since = at_;
        index_node(s_, n);
      }
    }
  }

  void operator()(const NodeClassAdded& f) {
    if (check_node_topology(f.topology).empty()) {
      s_.node_classes.emplace(f.hash, topo::SharedClass(f.topology));
    }
  }
  void operator()(const NodeRegistered& f) {
    if (f.index.value >= s_.nodes.size()) {
      s_.nodes.resize(f.index.value + 1);
    }
    Node& n = s_.nodes[f.index.value];
    n.index = f.index;
    n.name = f.name;
    n.hardware = f.hardware;
    n.boot_id = f.boot_id;
    n.endpoint = f.endpoint;
    n.public_key = f.public_key;
    n.registration_sequence = f.sequence;
    n.features = f.features;
    n.enforcement = f.enforcement;
    n.has_prolog = f.has_prolog;
    const TopologyHash before = std::exchange(n.topology, f.topology);
    if (n.contact != Contact::kConnected) {
      n.contact = Contact::kConnected;
      n.since = at_;
    }
    index_node(s_, n);
    if (before != n.topology && std::none_of(s_.nodes.begin(), s_.nodes.end(),
                                             [&before](const Node& each) { return each.topology == before; })) {
      s_.node_classes.erase(before);
    }
  }

  void operator()(const NodeBecameUnreachable& f) {
    with_node(f.node, [this](Node& n) {
      n.contact = Contact::kUnreachable;
      n.since = at_;
    });
  }
  void operator()(const NodeDrained& f) {
    with_node(f.node, [this, &f](Node& n) {
      n.drained = true;
      n.drain_reason = f.reason;
      n.since = at_;
    });
  }
  void operator()(const NodeResumed& f) {
    with_node(f.node, [this](Node& n) {
      n.drained = false;
      n.drain_reason.clear();
      n.health.fault = NodeFault::kNone;
      n.health.fault_text.clear();
      n.health.blames.clear();
      n.health.doubts.clear();
      n.health.rests_until = {};
      n.since = at_;
    });
  }
  void operator()(const NodeHealthChanged& f) {
    change_health(f.node, [&f](NodeHealth& health) { health.problems = f.problems; });
  }
  void operator()(const NodeDoubted& f) {
    change_health(f.node, [&f](NodeHealth& health) { evolve_doubted(health, f); });
  }
  void operator()(const NodeBlamed& f) {
    change_health(f.node, [&f](NodeHealth& health) { evolve_blamed(health, f); });
  }
  void operator()(const NodeTrusted& f) {
    change_health(f.node, [&f](NodeHealth& health) { evolve_trusted(health, f); });
  }
  void operator()(const NodeFaulted& f) {
    change_health(f.node, [&f](NodeHealth& health) {
      health.fault = f.fault;
      health.fault_text = f.text;
    });
  }

  void operator()(const JobSubmitted& f) {
    Job job;
    job.id = f.id;
    job.spec = f.spec;
    job.submit_time = at_;
    job.eligible_time = std::max(at_, f.spec->begin);
    job.priority = f.priority;
    job.held = f.spec->hold;
    std::uint64_t ids = 1;
    if (f.spec->array) {
      ids = f.spec->array->size();
      job.is_array_record = true;
      job.array = f.id;
      job.waiting = {PositionRange{0, ids}};
    }
    s_.next_job = std::max(s_.next_job, JobId{f.id.value + ids});
    if (f.request.is_set()) {
      s_.requests.insert_or_assign(f.request, KnownRequest{at_, f.id});
      s_.requests_by_age.emplace_back(at_, f.request);
    }
    index_job(s_, job);
    index_name(s_, job);
    auto& records = job.is_array_record ? s_.arrays : s_.jobs;
    records.insert_or_assign(records.end(), f.id, std::move(job));  // ids rise
  }

  void operator()(const DependencySet& f) {
    auto it = s_.arrays.find(f.job);
    if (it == s_.arrays.end()) {
      it = s_.jobs.find(f.job);
      if (it == s_.jobs.end() || it->second.is_active()) {
        return;
      }
    }
    unindex_job(s_, it->second);
    it->second.open = f.open;
    index_job(s_, it->second);
    const auto named = s_.by_name.find({it->second.spec->user, it->second.spec->name});
    if (named != s_.by_name.end() && *named->second.begin() == f.job) {
      Dependents(s_, at_).name_freed(*it->second.spec);  // it is alone
    }
  }

  void operator()(const RequestsForgotten& f) {
    while (!s_.requests_by_age.empty() && s_.requests_by_age.front().first < f.before) {
      s_.requests.erase(s_.requests_by_age.front().second);
      s_.requests_by_age.pop_front();
    }
  }

  void operator()(const JobHeld& f) { set_held(f.job, true); }
  void operator()(const JobReleased& f) { set_held(f.job, false); }

  void operator()(const AttemptStarted& f) {
    if (const auto it = s_.jobs.find(f.job); it != s_.jobs.end() && !it->second.is_active()) {
      unindex_job(s_, it->second);
      activate(it->second, f);
      index_job(s_, it->second);
      Dependents(s_, at_).started(f.job, {});
      return;
    }
    const Job* found = find_array_of(s_, f.job);
    if (found == nullptr) {
      return;
    }
    Job& array = s_.arrays.at(found->id);
    const std::uint64_t position = f.job.value - array.id.value;
    Job task;
    task.id = f.job;
    task.spec = array.spec;
    task.submit_time = array.submit_time;
    task.eligible_time = array.eligible_time;
    task.priority = array.priority;
    task.array = array.id;
    task.array_position = position;
    if (const RequeuedTask* before = find_requeued(array, position)) {
      task.last_end = before->last_end;
      task.node_faults = before->node_faults;
    }
    activate(task, f);
    unindex_job(s_, array);
    std::erase_if(array.requeued, [position](const RequeuedTask& t) { return t.position == position; });
    remove_positions(array, {position, position + 1});
    array.forget_promise();  // it was of the task that starts
    ++array.array_running;
    array.array_started = at_;
    index_job(s_, array);
    index_job(s_, task);
    const JobId of = array.id;
    s_.jobs.insert_or_assign(task.id, std::move(task));
    Dependents(s_, at_).started(f.job, of);
  }

  void operator()(const AttemptConfirmed& f) {
    with_attempt(f.key, [&f](const Job& /*job*/, Active& active) {
      for (AttemptOnNode& on : active.nodes) {
        if (on.share.node == f.node && on.phase == NodePhase::kLaunching) {
          on.phase = NodePhase::kStarted;
        }
      }
      active.started = active.started || active.nodes.front().phase != NodePhase::kLaunching;
    });
  }

  void operator()(const AttemptEndedOnNode& f) {
    with_attempt(f.key, [this, &f](const Job& job, Active& active) {
      for (AttemptOnNode& on : active.nodes) {
        if (on.share.node == f.node && on.phase != NodePhase::kEnded) {
          unindex_share(s_, job, active, on);
          on.phase = NodePhase::kEnded;
          on.stands_still = false;
          on.outcome = f.outcome;
        }
      }
      active.started = active.started || active.nodes.front().phase != NodePhase::kLaunching;
    });
  }

  void operator()(const StopRequested& f) {
    if (f.signal != 0) {
      return;  // a signal to a running job changes nothing that the controller keeps
    }
    with_active(f.key, [&](Job& job) {
      unindex_deadline(s_, job);
      evolve_stop(s_, job, f, at_);
      index_deadline(s_, job);
    });
  }

  void operator()(const JobRequeued& f) { evolve_requeued(s_, f, at_); }
  void operator()(const AttemptSuspended& f) {
    with_active(f.key, [&](Job& job) { evolve_suspended(s_, job, f.room_for, at_); });
  }
  void operator()(const AttemptStoodStill& f) {
    with_active(f.key, [&](Job& job) { evolve_stood_still(s_, job, f.node); });
  }
  void operator()(const AttemptProven& f) {
    with_attempt(f.key, [&f](const Job& /*job*/, Active& active) {
      for (AttemptOnNode& on : active.nodes) {
        if (on.share.node == f.node) {
          on.proof = f.proof;
        }
      }
    });
  }
  void operator()(const AttemptResumed& f) {
    with_active(f.key, [&](Job& job) { evolve_resumed(s_, job, at_); });
  }

  void operator()(const JobEnded& f) {
    const auto it = s_.jobs.find(f.job);
    if (it == s_.jobs.end()) {
      return;
    }
    unindex_job(s_, it->second);
    const JobId array = it->second.array;
    const JobSpecPtr spec = it->second.spec;
    if (array == JobId{}) {
      unindex_name(s_, it->second);
    }
    s_.jobs.erase(it);
    Dependents(s_, at_).ended(f.job, f.state);
    if (array == JobId{}) {
      Dependents(s_, at_).name_freed(*spec);
    } else if (const auto record = s_.arrays.find(array); record != s_.arrays.end()) {
      unindex_job(s_, record->second);  // it may be below its limit of running tasks now
      --record->second.array_running;
      const std::uint64_t position = f.job.value - array.value;
      index_job(s_, record->second);
      note_ends(record->second, {{position, position + 1}}, f.state);
      tasks_ended(array);
    }
  }

  void operator()(const StartPromised& f) {
    auto it = s_.arrays.find(f.job);
    if (it == s_.arrays.end()) {
      it = s_.jobs.find(f.job);
      if (it == s_.jobs.end() || it->second.is_active()) {
        return;
      }
    }
    unindex_job(s_, it->second);
    it->second.promised_start = f.start;
    it->second.promised_place = f.place;
    index_job(s_, it->second);
  }

  void operator()(const ArrayTasksEnded& f) {
    const auto it = s_.arrays.find(f.array);
    if (it == s_.arrays.end()) {
      return;
    }
    const std::vector<PositionRange> gone = waiting_of(it->second, f.positions);
    unindex_job(s_, it->second);
    remove_positions(it->second, f.positions);
    std::erase_if(it->second.requeued, [&f](const RequeuedTask& task) {
      return f.positions.begin <= task.position && task.position < f.positions.end;
    });
    index_job(s_, it->second);
    note_ends(it->second, gone, f.state);
    Dependents(s_, at_).positions_ended(f.array, gone, f.state);
    tasks_ended(f.array);
  }

  void operator()(const SettingChanged& f) {
    if (f.value) {
      s_.settings.insert_or_assign(f.key, *f.value);
    } else {
      s_.settings.erase(f.key);
    }
  }

  void operator()(const JobUpdated& f) {
    const bool runs = f.attempt != Attempt{};
    auto it = runs ? s_.arrays.end() : s_.arrays.find(f.job);
    if (it == s_.arrays.end()) {
      it = s_.jobs.find(f.job);
      if (it == s_.jobs.end() || it->second.is_active() != runs || (runs && it->second.attempt != f.attempt)) {
        return;
      }
    }
    Job& job = it->second;
    const JobSpecPtr before = job.spec;
    const bool named = job.array == JobId{} || job.is_array_record;  // a task stands under its array's name
    const bool renamed = named && before->name != f.spec->name;
    unindex_job(s_, job);
    if (renamed) {
      unindex_name(s_, job);
    }
    job.spec = f.spec;
    job.priority = f.priority;
    if (!job.is_active()) {
      if (!sched::same_request(*before, *f.spec)) {
        job.forget_promise();
      }
      if (before->begin != f.spec->begin) {
        job.eligible_time = std::max(at_, f.spec->begin);
      }
    }
    index_job(s_, job);
    if (renamed) {
      index_name(s_, job);
      Dependents(s_, at_).name_freed(*before);
    }
  }

  void operator()(const AttemptTimeLimitChanged& f) {
    const auto it = s_.jobs.find(f.key.job);
    if (it == s_.jobs.end() || it->second.attempt != f.key.attempt || !it->second.is_active()) {
      return;
    }
    unindex_job(s_, it->second);
    Active& active = std::get<Active>(it->second.phase);
    active.time_limit = f.time_limit;
    active.limit_changed = true;
    index_job(s_, it->second);
  }

  void operator()(const ArrayTasksHeld& f) {
    change_held(f.array, [&f](Job& array) {
      for (const PositionRange& r : both(array.waiting, f.positions)) {
        add(array.held_positions, r);
      }
    });
  }
  void operator()(const ArrayTasksReleased& f) {
    change_held(f.array, [&f](Job& array) { array.held_positions = without(array.held_positions, f.positions); });
  }
  void operator()(const AccountSet& f) { s_.accounts.set(f.account, s_.now); }
  void operator()(const AccountRemoved& f) { s_.accounts.remove_account(f.name, s_.now); }
  void operator()(const UserSet& f) { s_.accounts.set(f.user, s_.now); }
  void operator()(const UserRemoved& f) { s_.accounts.remove_user(f.name); }
  void operator()(const QosSet& f) { s_.accounts.set(f.qos, s_.now); }
  void operator()(const QosRemoved& f) { s_.accounts.remove_qos(f.name, s_.now); }
  void operator()(const BillingConfigured& f) { s_.accounts.configure(f.rules, s_.now); }

  void operator()(const ReservationMade& f) {
    s_.reservations.insert_or_assign(f.reservation.name, f.reservation);
    index_reservations(s_);
  }
  void operator()(const ReservationRemoved& f) {
    s_.reservations.erase(f.name);
    index_reservations(s_);
  }

 private:
  template <typename Change>
  void change_held(JobId id, Change change) {
    const auto it = s_.arrays.find(id);
    if (it == s_.arrays.end()) {
      return;
    }
    Job& array = it->second;
    unindex_job(s_, array);
    const bool could_start = !startable(array).empty();
    change(array);
    if (startable(array).empty()) {
      array.forget_promise();
    } else if (!could_start) {
      array.eligible_time = std::max(at_, array.spec->begin);
    }
    index_job(s_, array);
  }

  // Tasks of the array have ended.
  void note_ends(Job& array, const Positions& ended, JobState state) {
    if (state != JobState::kCompleted) {
      for (const PositionRange& r : ended) {
        array.array_failed = true;
        add(array.failed_positions, r);
      }
    }
    Dependents(s_, at_).pairs_ended(array, ended, state == JobState::kCompleted);
  }

  void activate(Job& job, const AttemptStarted& f) {
    job.attempt = f.attempt;
    job.forget_promise();
    Active active;
    active.start_time = at_;
    active.time_limit = f.time_limit == Duration{} ? job.spec->time_limit : f.time_limit;
    for (const NodeShare& share : f.shares) {
      active.nodes.push_back(AttemptOnNode{.share = share, .phase = NodePhase::kLaunching, .outcome = {}});
    }
    job.phase = std::move(active);
  }

  // Drops the record if nothing is left of the array.
  void tasks_ended(JobId array) {
    const auto it = s_.arrays.find(array);
    if (it == s_.arrays.end()) {
      return;
    }
    const bool failed = it->second.array_failed;
    if (!it->second.waiting.empty() || it->second.array_running != 0) {
      Dependents(s_, at_).array_changed(array, failed, it->second.waiting.empty(), false);
      return;
    }
    const JobSpecPtr spec = it->second.spec;
    unindex_job(s_, it->second);
    unindex_name(s_, it->second);
    s_.arrays.erase(it);
    Dependents(s_, at_).array_changed(array, failed, true, true);
    Dependents(s_, at_).name_freed(*spec);
  }

  void set_held(JobId id, bool held) {
    auto it = s_.arrays.find(id);
    if (it == s_.arrays.end()) {
      it = s_.jobs.find(id);
      if (it == s_.jobs.end() || it->second.is_active()) {
        return;
      }
    }
    unindex_job(s_, it->second);
    it->second.held = held;
    it->second.forget_promise();
    if (!held) {
      it->second.eligible_time = std::max(at_, it->second.spec->begin);
    }
    index_job(s_, it->second);
  }

  template <typename Change>
  void change_health(NodeIndex index, Change change) {
    with_node(index, [this, &change](Node& n) {
      const bool was_drained = n.is_drained();
      change(n.health);
      if (n.is_drained() != was_drained) {
        n.since = at_;
      }
    });
  }

  template <typename Change>
  void with_node(NodeIndex index, Change change) {
    if (index.value < s_.nodes.size()) {
      change(s_.nodes[index.value]);
      NodeHealth& health = s_.nodes[index.value].health;
      if (health.is_good() || !health.since.is_set()) {
        health.since = health.is_good() ? Instant{} : at_;
      }
      index_node(s_, s_.nodes[index.value]);
    }
  }

  // The job of this attempt, if it runs.
  template <typename Change>
  void with_active(AttemptKey key, Change change) {
    const auto it = s_.jobs.find(key.job);
    if (it != s_.jobs.end() && it->second.attempt == key.attempt && it->second.is_active()) {
      change(it->second);
    }
  }

  template <typename Change>
  void with_attempt(AttemptKey key, Change change) {
    const auto it = s_.jobs.find(key.job);
    if (it == s_.jobs.end() || it->second.attempt != key.attempt) {
      return;
    }
    // Whoever changes what an index is made from brings that up to date.
    if (auto* active = std::get_if<Active>(&it->second.phase)) {
      change(it->second, *active);
    }
  }

  State& s_;
  Instant at_;
};

}  // namespace

void evolve(State& state, const Fact& fact) {
  state.now = std::max(state.now, fact.at);
  ++state.changes.count;
  std::visit(Evolve(state, fact.at), fact.body);
}

}  // namespace muster::engine
