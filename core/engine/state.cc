#include "core/engine/state.h"

#include <algorithm>
#include <variant>
#include <vector>

#include "core/engine/index.h"
#include "core/sched/schedule.h"
#include "core/sched/span.h"

namespace muster::engine {

const Job* find_job(const State& state, JobId id) {
  const auto it = state.jobs.find(id);
  return it == state.jobs.end() ? nullptr : &it->second;
}

const Job* find_array(const State& state, JobId id) {
  const auto it = state.arrays.find(id);
  return it == state.arrays.end() ? nullptr : &it->second;
}

const Node* find_node(const State& state, std::string_view name) {
  const auto it = state.node_by_name.find(name);
  return it == state.node_by_name.end() ? nullptr : &state.nodes[it->second.value];
}

const Job* find_array_of(const State& state, JobId id) {
  auto it = state.arrays.upper_bound(id);
  if (it == state.arrays.begin()) {
    return nullptr;
  }
  --it;
  const Job& array = it->second;
  return is_waiting(array, id.value - array.id.value) ? &array : nullptr;
}

JobId job_of_request(const State& state, RequestId request) {
  const auto it = state.requests.find(request);
  return it == state.requests.end() ? JobId{} : it->second.job;
}

bool is_waiting(const Job& array, std::uint64_t position) {
  return contains(array.waiting, position);
}

std::uint64_t waiting_count(const Job& array) {
  return count(array.waiting);
}

void remove_positions(Job& array, PositionRange gone) {
  remove(array.waiting, gone);
  if (!has_barred(array)) {
    return;
  }
  remove(array.held_positions, gone);
  for (OpenDependency& open : array.open) {
    remove(open.corr_waits, gone);
    remove(open.corr_never, gone);
  }
  drop_met_pairs(array);
}

void drop_met_pairs(Job& array) {
  std::erase_if(array.open, [](const OpenDependency& open) {
    return open.kind == DependencyKind::kAfterCorr && open.corr_waits.empty() && open.corr_never.empty();
  });
}

std::vector<PositionRange> waiting_of(const Job& array, PositionRange range) {
  return within(array.waiting, range);
}

namespace {
bool belongs_to_pending(const Job& job) {
  if (job.held || waits_as_a_whole(job)) {
    return false;
  }
  if (job.is_array_record) {
    return (has_barred(job) ? !startable(job).empty() : !job.waiting.empty()) && !sched::at_array_limit(job, 0);
  }
  return !job.is_active();
}

// Whether what happens to the job of this term may change it.
bool is_watched(const OpenDependency& open) {
  return open.kind == DependencyKind::kAfterCorr ? !open.corr_waits.empty()
                                                 : !open.never && open.kind != DependencyKind::kSingleton;
}
}  // namespace

void index_deadline(State& state, const Job& job) {
  if (!job.spec->deadline.is_set()) {
    return;
  }
  if (const auto* active = std::get_if<Active>(&job.phase)) {
    if (active->stop == StopCause::kNone) {
      state.deadlines.insert({job.spec->deadline, job.id, false});
    }
  } else if (!job.is_array_record || !job.waiting.empty()) {
    state.deadlines.insert({*sched::latest_start(*job.spec), job.id, job.is_array_record});
  }
}

void unindex_deadline(State& state, const Job& job) {
  if (job.spec->deadline.is_set()) {
    state.deadlines.erase(
        {job.is_active() ? job.spec->deadline : *sched::latest_start(*job.spec), job.id, job.is_array_record});
  }
}

void index_name(State& state, const Job& job) {
  std::set<JobId>& named = state.by_name[{job.spec->user, job.spec->name}];
  named.insert(named.end(), job.id);  // ids rise
}

void unindex_name(State& state, const Job& job) {
  const auto named = state.by_name.find({job.spec->user, job.spec->name});
  if (named != state.by_name.end()) {
    named->second.erase(job.id);
    if (named->second.empty()) {
      state.by_name.erase(named);
    }
  }
}

void index_room(State& state, const Job& job, const Active& active) {
  for (const JobId waiting : {active.terms.room_for, active.suspension.room_for}) {
    if (waiting != JobId{}) {
      state.making_room[waiting].insert(job.id);
    }
  }
  if (active.suspension.room_for != JobId{}) {
    state.standing_still.insert(job.id);
  }
}

void unindex_room(State& state, const Job& job, const Active& active) {
  for (const JobId waiting : {active.terms.room_for, active.suspension.room_for}) {
    const auto room = state.making_room.find(waiting);
    if (room != state.making_room.end()) {
      room->second.erase(job.id);
      if (room->second.empty()) {
        state.making_room.erase(room);
      }
    }
  }
  state.standing_still.erase(job.id);
}

void hold_parts(State& state, const Active& active, const AttemptOnNode& on) {
  for (const sched::HeldPart& part : sched::held_parts(active, on)) {
    state.horizon.hold(part.share, part.until);
  }
}

void release_parts(State& state, const Active& active, const AttemptOnNode& on) {
  for (const sched::HeldPart& part : sched::held_parts(active, on)) {
    state.horizon.release(part.share, part.until);
  }
}

void index_job(State& state, const Job& job) {
  for (const OpenDependency& open : job.open) {
    if (is_watched(open)) {
      state.dependents[open.job].insert(job.id);
    }
  }
  index_deadline(state, job);
  if (belongs_to_pending(job)) {
    state.pending.insert(job);
    if (job.promised_start.is_set()) {
      state.promised.emplace(
          job.id,
          sched::Promise{.job = job.id, .start = job.promised_start, .slots = sched::slots_of(job.promised_place)});
    }
  }
  if (job.is_array_record) {
    const std::uint64_t waiting = waiting_count(job);
    state.waiting_tasks += waiting;
    state.accounts.add_pending(*job.spec, waiting);
  } else if (const auto* active = std::get_if<Active>(&job.phase)) {
    ++state.active_jobs;
    index_room(state, job, *active);
    std::vector<const NodeShare*> held;
    state.licenses.hold(job.spec->licenses, sched::believed_end(*active));
    for (const AttemptOnNode& on : active->nodes) {
      if (on.phase != NodePhase::kEnded) {
        state.ledger.take(sched::held_share(on));
        hold_parts(state, *active, on);
        state.jobs_on_node[on.share.node.value].insert(job.id);
        held.push_back(&on.share);
      }
    }
    state.accounts.add_running(job.id, *job.spec, held, sched::believed_end(*active), state.now);
  } else {
    ++state.waiting_tasks;
    state.accounts.add_pending(*job.spec, 1);
  }
}

void unindex_share(State& state, const Job& job, const Active& active, const AttemptOnNode& on) {
  state.ledger.give_back(sched::held_share(on));
  release_parts(state, active, on);
  state.jobs_on_node[on.share.node.value].erase(job.id);
  state.accounts.give_back(job.id, *job.spec, on.share, sched::believed_end(active), state.now);
}

void unindex_job(State& state, const Job& job) {
  for (const OpenDependency& open : job.open) {
    if (const auto waiting = state.dependents.find(open.job); waiting != state.dependents.end()) {
      waiting->second.erase(job.id);
      if (waiting->second.empty()) {
        state.dependents.erase(waiting);
      }
    }
  }
  unindex_deadline(state, job);
  if (belongs_to_pending(job)) {
    state.pending.erase(job);
    state.promised.erase(job.id);
  }
  if (job.is_array_record) {
    const std::uint64_t waiting = waiting_count(job);
    state.waiting_tasks -= waiting;
    state.accounts.remove_pending(*job.spec, waiting);
  } else if (const auto* active = std::get_if<Active>(&job.phase)) {
    --state.active_jobs;
    state.licenses.release(job.spec->licenses, sched::believed_end(*active));
    unindex_room(state, job, *active);
    for (const AttemptOnNode& on : active->nodes) {
      if (on.phase != NodePhase::kEnded) {
        unindex_share(state, job, *active, on);
      }
    }
    state.accounts.remove_running(job.id, *job.spec, sched::believed_end(*active));
  } else {
    --state.waiting_tasks;
    state.accounts.remove_pending(*job.spec, 1);
  }
}

void index_reservations(State& state) {
  state.windows.rebuild(state.reservations, state.node_by_name);
}

namespace {

// What keeps the node out of service, as nodes are counted by it.
std::string absence_of(const Node& node) {
  if (node.contact == Contact::kNever) {
    return "down";
  }
  if (node.contact != Contact::kConnected) {
    return "unreachable";
  }
  if (node.drained) {
    return "drained";
  }
  return node.health.is_good() ? "" : "drained (" + kind_of(node.health) + ")";
}

}  // namespace

void index_node(State& state, const Node& node) {
  if (state.jobs_on_node.size() <= node.index.value) {
    state.jobs_on_node.resize(node.index.value + 1);
  }
  if (state.node_by_name.insert_or_assign(node.name, node.index).second && !state.reservations.empty()) {
    index_reservations(state);  // it may be on a list
  }
  state.ledger.set_hardware(node.index, node.name, node.hardware);
  state.ledger.set_features(node.index, node.features);
  const auto node_class = state.node_classes.find(node.topology);
  state.ledger.set_class(node.index, node_class == state.node_classes.end() ? topo::SharedClass() : node_class->second);
  state.ledger.set_connected(node.index, node.contact == Contact::kConnected);
  state.ledger.set_usable(node.index, node.contact == Contact::kConnected && !node.is_drained());
  state.ledger.set_absence(node.index, absence_of(node));
  state.ledger.set_suspect(node.index, node.health.is_suspect());
  if (node.health.blames.empty() && node.health.doubts.empty()) {
    state.nodes_with_failures.erase(node.index);
  } else {
    state.nodes_with_failures.insert(node.index);
  }
}

void rebuild_indexes(State& state) {
  state.requests_by_age.clear();
  state.pending.clear();
  state.promised.clear();
  state.deadlines.clear();
  state.dependents.clear();
  state.by_name.clear();
  state.jobs_on_node.clear();
  state.making_room.clear();
  state.standing_still.clear();
  state.node_by_name.clear();
  state.nodes_with_failures.clear();
  state.ledger = {};
  state.horizon = {};
  state.licenses = {};
  state.waiting_tasks = 0;
  state.active_jobs = 0;
  state.accounts.begin_rebuild();
  for (const Node& node : state.nodes) {
    index_node(state, node);
  }
  index_reservations(state);
  for (const auto& [id, job] : state.arrays) {
    index_job(state, job);
    index_name(state, job);
  }
  for (const auto& [id, job] : state.jobs) {
    index_job(state, job);
    if (job.array == JobId{}) {
      index_name(state, job);
    }
  }
  state.accounts.end_rebuild();
  // In the order of submission, which is that of the jobs' ids: many have the same time.
  using Entry = std::map<RequestId, KnownRequest>::const_pointer;
  std::vector<std::pair<JobId, Entry>> by_job;
  by_job.reserve(state.requests.size());
  for (const auto& entry : state.requests) {
    by_job.emplace_back(entry.second.job, &entry);
  }
  std::sort(by_job.begin(), by_job.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [job, entry] : by_job) {
    state.requests_by_age.emplace_back(entry->second.at, entry->first);
  }
}

}  // namespace muster::engine
