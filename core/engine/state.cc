#include "core/engine/state.h"

#include <algorithm>
#include <variant>

#include "core/engine/index.h"
#include "core/sched/schedule.h"

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
  return std::any_of(array.waiting.begin(), array.waiting.end(),
                     [position](const PositionRange& r) { return r.begin <= position && position < r.end; });
}

std::uint64_t waiting_count(const Job& array) {
  std::uint64_t n = 0;
  for (const PositionRange& r : array.waiting) {
    n += r.end - r.begin;
  }
  return n;
}

void remove_positions(Job& array, PositionRange gone) {
  std::vector<PositionRange> left;
  left.reserve(array.waiting.size() + 1);
  for (const PositionRange& r : array.waiting) {
    if (r.end <= gone.begin || gone.end <= r.begin) {
      left.push_back(r);
      continue;
    }
    if (r.begin < gone.begin) {
      left.push_back({r.begin, gone.begin});
    }
    if (gone.end < r.end) {
      left.push_back({gone.end, r.end});
    }
  }
  array.waiting = std::move(left);
}

std::vector<PositionRange> waiting_of(const Job& array, PositionRange range) {
  std::vector<PositionRange> out;
  for (const PositionRange& r : array.waiting) {
    const PositionRange common{std::max(r.begin, range.begin), std::min(r.end, range.end)};
    if (common.begin < common.end) {
      out.push_back(common);
    }
  }
  return out;
}

namespace {
bool belongs_to_pending(const Job& job) {
  if (job.is_array_record) {
    return !job.held && job.open.empty() && !job.waiting.empty() && !sched::at_array_limit(job, 0);
  }
  return !job.held && job.open.empty() && !job.is_active();
}
Instant believed_end(const Job& job, const Active& active) {
  return sched::end_of(active.start_time, job.spec->time_limit);
}
}  // namespace

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

void index_job(State& state, const Job& job) {
  for (const OpenDependency& open : job.open) {
    if (!open.never && open.kind != DependencyKind::kSingleton) {
      state.dependents[open.job].insert(job.id);
    }
  }
  if (belongs_to_pending(job)) {
    state.pending.insert(job);
    if (job.promised_start.is_set()) {
      state.promised.emplace(job.id, sched::Promise{.job = job.id, .start = job.promised_start, .slots = {}});
    }
  }
  if (job.is_array_record) {
    state.waiting_tasks += waiting_count(job);
  } else if (const auto* active = std::get_if<Active>(&job.phase)) {
    ++state.active_jobs;
    for (const AttemptOnNode& on : active->nodes) {
      if (on.phase != NodePhase::kEnded) {
        state.ledger.take(on.share);
        state.horizon.hold(on.share, believed_end(job, *active));
        state.jobs_on_node[on.share.node.value].insert(job.id);
      }
    }
  } else {
    ++state.waiting_tasks;
  }
}

void unindex_share(State& state, const Job& job, const Active& active, const NodeShare& share) {
  state.ledger.give_back(share);
  state.horizon.release(share, believed_end(job, active));
  state.jobs_on_node[share.node.value].erase(job.id);
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
  if (belongs_to_pending(job)) {
    state.pending.erase(job);
    state.promised.erase(job.id);
  }
  if (job.is_array_record) {
    state.waiting_tasks -= waiting_count(job);
  } else if (const auto* active = std::get_if<Active>(&job.phase)) {
    --state.active_jobs;
    for (const AttemptOnNode& on : active->nodes) {
      if (on.phase != NodePhase::kEnded) {
        unindex_share(state, job, *active, on.share);
      }
    }
  } else {
    --state.waiting_tasks;
  }
}

void index_node(State& state, const Node& node) {
  if (state.jobs_on_node.size() <= node.index.value) {
    state.jobs_on_node.resize(node.index.value + 1);
  }
  state.node_by_name.insert_or_assign(node.name, node.index);
  state.ledger.set_hardware(node.index, node.name, node.hardware);
  state.ledger.set_features(node.index, node.features);
  state.ledger.set_usable(node.index, node.contact == Contact::kConnected && !node.drained);
}

void rebuild_indexes(State& state) {
  state.requests_by_age.clear();
  state.pending.clear();
  state.promised.clear();
  state.dependents.clear();
  state.by_name.clear();
  state.jobs_on_node.clear();
  state.node_by_name.clear();
  state.ledger = {};
  state.horizon = {};
  state.waiting_tasks = 0;
  state.active_jobs = 0;
  for (const Node& node : state.nodes) {
    index_node(state, node);
  }
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
