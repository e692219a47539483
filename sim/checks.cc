#include "sim/checks.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "core/engine/dependency.h"
#include "core/engine/running.h"
#include "core/sched/preempt.h"
#include "core/sched/span.h"
#include "sim/random.h"

namespace muster::sim {
namespace {

std::string name_of(JobId job) {
  return "job " + std::to_string(job.value);
}
std::string name_of(AttemptKey key) {
  return "attempt " + std::to_string(key.attempt.value) + " of job " + std::to_string(key.job.value);
}

// The simulation's place of a node, from its name "n1", "n2", ...
std::size_t place_of(const std::string& node) {
  return static_cast<std::size_t>(std::stoul(node.substr(1))) - 1;
}

const std::vector<std::string>& nodes_of(const sched::Policy& policy, const JobSpec& spec) {
  static const std::vector<std::string> kAll;
  const sched::QueuePolicy* queue = policy.find_queue(spec.queue);
  return queue == nullptr ? kAll : queue->nodes;
}

bool at_limit(const Job& job) {
  return job.is_array_record && job.spec->array->max_running != 0 && job.array_running >= job.spec->array->max_running;
}

// Whether as many jobs of one of the job's holders run, or run and are promised a start, as may: from the records alone.
enum class Counted { kRunning, kRunningAndPromised };
bool at_use_limit(const engine::State& state, const Job& job, Counted counted) {
  for (const sched::Holder& holder : state.accounts.holders(*job.spec)) {
    std::optional<std::uint64_t> limit;
    if (const Account* a = state.accounts.account(holder.name)) {
      if (holder.kind == sched::HolderKind::kAccount) limit = a->all.jobs;
      if (holder.kind == sched::HolderKind::kAccountUser) limit = a->per_user.jobs;
    }
    if (const Qos* q = state.accounts.qos(holder.name)) {
      if (holder.kind == sched::HolderKind::kQos) limit = q->all.jobs;
      if (holder.kind == sched::HolderKind::kQosUser) limit = q->per_user.jobs;
    }
    if (!limit) continue;
    const auto counts = [&](const Job& other) {
      const auto holders = state.accounts.holders(*other.spec);
      return std::find(holders.begin(), holders.end(), holder) != holders.end();
    };
    std::uint64_t jobs = 0;
    for (const auto& [id, other] : state.jobs) jobs += other.is_active() && counts(other) ? 1 : 0;
    for (const auto& [id, promise] : state.promised) {
      if (id == job.id || counted == Counted::kRunning) continue;
      const Job* array = engine::find_array(state, id);
      jobs += counts(array != nullptr ? *array : state.jobs.at(id)) ? 1 : 0;
    }
    if (jobs >= *limit) return true;
  }
  return false;
}

bool waits(const Job& job) {
  return job.is_array_record ? !job.waiting.empty() : !job.is_active();
}

// Whether neither its user nor other jobs keep it back.
bool may_start(const Job& job) {
  return !job.held && !engine::is_dependent(job) && (!job.is_array_record || !startable(job).empty());
}

// Single jobs and arrays.
template <typename Visit>
void each_record(const engine::State& state, Visit visit) {
  for (const auto& [id, job] : state.arrays) visit(job);
  for (const auto& [id, job] : state.jobs) {
    if (job.array == JobId{}) visit(job);
  }
}

template <typename Visit>
void each_waiting(const engine::State& state, Visit visit) {
  for (const auto& [id, job] : state.arrays) {
    if (waits(job)) visit(job);
  }
  for (const auto& [id, job] : state.jobs) {
    if (waits(job)) visit(job);
  }
}

}  // namespace

void Checks::remember(std::uint64_t what) {
  fingerprint_ = mix(fingerprint_ ^ what);
}

// ---- on the nodes: rule 3, and rule 2 where it counts

void Checks::process_began(std::size_t node, const NodeHardware& hardware, const LaunchOrder& order) {
  const AttemptKey key = order.key;
  ++starts_;
  remember(mix(key.job.value) + key.attempt.value * 64 + node);
  if (place_of(order.node) != node) fail(name_of(key) + " begins on a node that it was not sent to");
  if (!processes_[key].emplace(node, Process{.share = order.share, .alive = true, .outcome = {}}).second) {
    fail(name_of(key) + " begins a second time on node n" + std::to_string(node + 1));
  }
  // Where a prolog may fail, the first node begins when nothing can take that back any more.
  const bool guarded = order.node_rank == 0 &&
                       std::any_of(order.peers.begin(), order.peers.end(),
                                   [this](const Peer& peer) { return with_prolog_.contains(place_of(peer.name)); });
  for (const Peer& peer : order.peers) {
    if (guarded && !processes_[key].contains(place_of(peer.name))) {
      fail(name_of(key) + " begins on its first node before " + peer.name + " has begun it");
    }
  }
  for (const AttemptKey& other : alive_[key.job]) {
    if (other != key) fail(name_of(key) + " begins while " + name_of(other) + " still runs somewhere");
  }
  if (ended_.contains(key.job)) fail(name_of(key) + " begins after the job has ended");
  std::uint64_t memory = order.share.mem_mib;
  check_cores(node, key, order.share.cores);
  for (const auto& [other, share] : on_node_[node]) {
    if (share.gpus.intersects(order.share.gpus)) fail(name_of(key) + " gets a GPU that " + name_of(other) + " uses");
    memory += share.mem_mib;
  }
  if (memory > hardware.mem_mib) fail(name_of(key) + " gets memory that the node does not have");
  if (order.share.tasks == 0 || order.share.cores.empty()) fail(name_of(key) + " is launched with nothing");
  alive_[key.job].insert(key);
  on_node_[node].emplace(key, order.share);
}

// Two that run never share a core.
void Checks::check_cores(std::size_t node, AttemptKey key, const IndexSet& cores) {
  for (const auto& [other, share] : on_node_[node]) {
    if (other != key && !processes_.at(other).at(node).stands_still && share.cores.intersects(cores)) {
      fail(name_of(key) + " gets a core that " + name_of(other) + " uses");
    }
  }
}

void Checks::process_still(std::size_t node, AttemptKey key, bool stands_still) {
  remember(mix(key.job.value) + (stands_still ? 3 : 5) + node);
  Process& process = processes_.at(key).at(node);
  process.stands_still = stands_still;
  if (!stands_still) check_cores(node, key, process.share.cores);
}

void Checks::process_gone(std::size_t node, AttemptKey key, const Outcome& outcome) {
  remember(mix(key.job.value) + static_cast<std::uint64_t>(outcome.cause) * 977 + node);
  Process& process = processes_.at(key).at(node);
  if (process.stands_still && outcome.cause != EndCause::kCancelled && outcome.cause != EndCause::kNodeLost &&
      outcome.cause != EndCause::kShepherdDied) {
    fail(name_of(key) + " stands still and ends by itself: " + std::string(to_string(outcome.cause)));
  }
  process.alive = false;
  process.outcome = outcome;
  on_node_[node].erase(key);
  const auto& all = processes_.at(key);
  const bool alive = std::any_of(all.begin(), all.end(), [](const auto& p) { return p.second.alive; });
  if (!alive) alive_[key.job].erase(key);
  if (alive_[key.job].empty()) alive_.erase(key.job);
}

// ---- in the controller

bool Checks::fits(const engine::State& state, const Job& job, sched::Assume assume) const {
  const auto nodes = state.windows.nodes_for(job.spec->reservation, nodes_of(policy_, *job.spec));
  return !sched::place(sched::Draft(state.ledger), *job.spec, nodes, assume, policy_.sites).shares.empty();
}

// Windows and licences, from the records.
void Checks::check_reserved(const engine::State& before, const Job& job, const AttemptStarted& fact, Instant now) {
  const Instant end = now + (fact.time_limit == Duration{} ? job.spec->time_limit : fact.time_limit);
  for (const auto& [name, r] : before.reservations) {
    const bool own = name == job.spec->reservation;
    for (const NodeShare& share : fact.shares) {
      const std::string& node = before.nodes.at(share.node.value).name;
      const bool has = std::find(r.nodes.begin(), r.nodes.end(), node) != r.nodes.end();
      if (own && (!has || now < r.start || end > r.start + r.duration + sched::kWindowSlack)) {
        fail(name_of(fact.job) + " starts outside of its reservation");
      } else if (!own && has && now < r.start + r.duration && r.start < end) {
        fail(name_of(fact.job) + " reaches into a window of reservation " + name);
      }
    }
  }
  for (const LicenseCount& one : job.spec->licenses) {
    std::uint64_t held = one.count;
    for (const auto& [id, other] : before.jobs) {
      for (const LicenseCount& theirs : other.spec->licenses) {
        held += other.is_active() && theirs.name == one.name ? theirs.count : 0;
      }
    }
    if (held > policy_.licenses.at(one.name)) fail(name_of(fact.job) + " starts without its licence " + one.name);
  }
}

// Rule 5: what starts does not make a promised start impossible that stands before it in the order.
void Checks::check_promises(const engine::State& before, const Job& job, const AttemptStarted& fact, Instant now) {
  const sched::DefaultOrder order(policy_, &before.accounts, now);
  const sched::PreemptRules rules = sched::preempt_rules(&before.accounts);
  const auto place = [&](const Job& j) {
    const sched::Standing standing = sched::standing_of(policy_, rules, *j.spec);
    return std::tuple(-standing.tier, -standing.rank, -order.points(*j.spec, j.eligible_time, now), j.eligible_time,
                      j.id);
  };
  const auto end_of_hold = [](const Job& j, Instant start) {
    return sched::end_of(start, sched::held_limit(*j.spec, start));
  };
  // Waiting jobs in order, up to the first one without a promise: what comes behind that one may be delayed by it.
  std::map<decltype(place(job)), const Job*> line;
  each_waiting(before, [&](const Job& other) {
    const sched::QueuePolicy* queue = policy_.find_queue(other.spec->queue);
    if (!may_start(other) || other.spec->begin > now || at_limit(other) ||
        (other.id != job.id && at_use_limit(before, other, Counted::kRunning)) || queue == nullptr || !queue->starts ||
        before.windows.access(*other.spec, now) != sched::Windows::Access::kOk)
      return;
    line.emplace(place(other), &other);
  });
  sched::Timeline without(before.ledger, before.horizon, now, &before.windows,
                          sched::LicenseLine(policy_.licenses, before.licenses, now));
  sched::Timeline with = without;
  with.start(fact.shares, sched::end_of(now, fact.time_limit == Duration{} ? job.spec->time_limit : fact.time_limit),
             job.spec->licenses);
  for (const auto& [where, other] : line) {
    if (other->id == job.id) return;
    const sched::NodeFilter filter =
        sched::make_filter(before.ledger, *other->spec, nodes_of(policy_, *other->spec), policy_.sites);
    const auto spot_without = sched::earliest_in_time(without, *other->spec, filter, now);
    const auto spot_with = sched::earliest_in_time(with, *other->spec, filter, now);
    const auto promise = before.promised.find(other->id);
    if (!spot_without) continue;
    if (promise == before.promised.end()) return;
    if (spot_without->start <= promise->second.start && (!spot_with || spot_with->start > promise->second.start)) {
      fail(name_of(job.id) + " starts and delays " + name_of(other->id) +
           ", which stands before it and was promised a start " + std::to_string((promise->second.start - now).us) +
           " us from now, could have it in " + std::to_string((spot_without->start - now).us) + " us, and now in " +
           (spot_with ? std::to_string((spot_with->start - now).us) + " us" : "no time"));
    }
    if (!spot_with) return;
    without.hold(spot_without->slots, spot_without->start, end_of_hold(*other, spot_without->start),
                 other->spec->licenses);
    with.hold(spot_with->slots, spot_with->start, end_of_hold(*other, spot_with->start), other->spec->licenses);
  }
}

// From what the simulation saw start and end, not from what the state says is open.
void Checks::check_dependency(const engine::State& before, const Job& job, std::uint64_t position, Instant now) {
  const Dependency& dependency = job.spec->dependency;
  if (engine::is_dependent(job)) fail(name_of(job.id) + " starts before its dependency is met");
  const auto pair_completed = [&](const DependencyTerm& term) {
    const auto theirs = sizes_.find(term.target.job);
    const auto pair =
        theirs == sizes_.end() ? std::nullopt : theirs->second->position_of(job.spec->array->index_at(position));
    const auto end = pair ? ends_.find(JobId{term.target.job.value + *pair}) : ends_.end();
    return end != ends_.end() && end->second == JobState::kCompleted;
  };
  bool all = true;
  bool one = dependency.terms.empty();
  for (const DependencyTerm& term : dependency.terms) {
    bool met = true;
    if (term.kind == DependencyKind::kSingleton) {
      each_record(before, [&](const Job& other) {
        met = met && !(other.id < job.id && other.spec->user == job.spec->user && other.spec->name == job.spec->name);
      });
    } else if (term.kind == DependencyKind::kAfterCorr) {
      met = pair_completed(term);
    } else {
      met = is_met(term, now);
    }
    all = all && met;
    one = one || met;
  }
  if (dependency.any ? !one : !all) {
    fail(name_of(job.id) + " starts although its dependency " + format_dependency(dependency) + " does not hold");
  }
}

void Checks::forget(JobId first, std::uint64_t tasks) {
  const JobId end{first.value + tasks};
  started_.erase(started_.lower_bound(first), started_.lower_bound(end));
  ends_.erase(ends_.lower_bound(first), ends_.lower_bound(end));
  sizes_.erase(sizes_.lower_bound(first), sizes_.lower_bound(end));
}

void Checks::forget_undone(const engine::State& state) {
  const auto waits_again = [&](JobId id) {
    const Job* job = engine::find_job(state, id);
    return (job != nullptr && !job->is_active()) || engine::find_array_of(state, id) != nullptr;
  };
  std::erase_if(started_, [&](const auto& start) {
    const Job* array = engine::find_array_of(state, start.first);
    const Job* job = array != nullptr ? array : engine::find_job(state, start.first);
    return waits_again(start.first) && engine::next_attempt(*job, start.first.value - job->id.value) ==
                                           Attempt{1};  // else an earlier one had started
  });
  std::erase_if(
      ends_, [&](const auto& end) { return engine::find_job(state, end.first) != nullptr || waits_again(end.first); });
}

bool Checks::is_met(const DependencyTerm& term, Instant now) const {
  const auto array = sizes_.find(term.target.job);
  JobId first = term.target.job;
  std::uint64_t tasks = 1;
  if (array != sizes_.end() && !term.target.has_task) {
    tasks = array->second->size();
  } else if (array != sizes_.end()) {
    first = JobId{first.value + array->second->position_of(term.target.task).value_or(0)};
  }
  bool started = true;
  bool ended = true;
  bool completed = true;
  Instant last;
  for (std::uint64_t i = 0; i < tasks; ++i) {
    const JobId id{first.value + i};
    const auto start = started_.find(id);
    const auto end = ends_.find(id);
    started = started && (start != started_.end() || end != ends_.end());
    ended = ended && end != ends_.end();
    completed = completed && end != ends_.end() && end->second == JobState::kCompleted;
    if (start != started_.end()) last = std::max(last, start->second);
  }
  switch (term.kind) {
    case DependencyKind::kAfter:
      return started && (!last.is_set() || last + term.delay <= now);
    case DependencyKind::kAfterOk:
      return completed;
    case DependencyKind::kAfterNotOk:
      return ended && !completed;
    case DependencyKind::kAfterAny:
    case DependencyKind::kSingleton:
    case DependencyKind::kAfterCorr:
      break;
  }
  return ended;
}

void Checks::check_start(const engine::State& before, const AttemptStarted& fact, Instant now) {
  const Job* single = engine::find_job(before, fact.job);
  const Job* array = engine::find_array_of(before, fact.job);
  const Job* job = array != nullptr ? array : single;
  if (job == nullptr || job->is_active()) {
    fail(name_of(fact.job) + " starts but does not wait");
    return;
  }
  const std::uint64_t position = array != nullptr ? fact.job.value - array->id.value : 0;
  if (job->held || contains(job->held_positions, position)) fail(name_of(fact.job) + " starts while it is held");
  check_dependency(before, *job, position, now);
  const Duration limit = fact.time_limit == Duration{} ? job->spec->time_limit : fact.time_limit;
  if (limit > job->spec->time_limit || limit < sched::least_limit(*job->spec)) {
    fail(name_of(fact.job) + " starts with a time limit that it did not ask for");
  }
  if (job->spec->deadline.is_set() && now + limit > job->spec->deadline) {
    fail(name_of(fact.job) + " starts and cannot end by its deadline");
  }
  if (job->spec->begin > now) fail(name_of(fact.job) + " starts before its time");
  if (at_limit(*job)) fail(name_of(fact.job) + " starts beyond its array's limit");
  if (fact.attempt != engine::next_attempt(*job, fact.job.value - job->id.value)) {
    fail(name_of(fact.job) + " starts with an attempt out of order");
  }
  if (cancelled_.contains(fact.job) || (array != nullptr && cancelled_.contains(array->id))) {
    fail(name_of(fact.job) + " starts although its user was told that it is cancelled");
  }
  if (alive_.contains(fact.job)) fail(name_of(fact.job) + " starts while it still runs");
  sched::Draft draft(before.ledger);
  std::uint64_t tasks = 0;
  for (const NodeShare& share : fact.shares) {
    tasks += share.tasks;
    if (!draft.can_take(share)) {
      fail(name_of(fact.job) + " is given what is not free");
      return;
    }
    draft.take(share);
    const Node& node = before.nodes.at(share.node.value);
    const auto told = drained_.find(node.name);
    if (told != drained_.end() && told->second)
      fail(name_of(fact.job) + " starts on " + node.name + ", which is drained");
    if (!node.health.is_good())
      fail(name_of(fact.job) + " starts on " + node.name + ", which is out of service: " + reason_of(node.health));
  }
  if (tasks != job->spec->ntasks) fail(name_of(fact.job) + " is given places for another number of tasks");
  check_reserved(before, *job, fact, now);
  check_promises(before, *job, fact, now);
}

void Checks::fact_comes(const engine::State& before, const Fact& fact) {
  remember(fact.body.index() * 31 + static_cast<std::uint64_t>(fact.at.us));
  if (const auto* started = std::get_if<AttemptStarted>(&fact.body)) {
    check_start(before, *started, fact.at);
    started_.emplace(started->job, fact.at);  // the first start is what others wait for
  } else if (const auto* ended = std::get_if<AttemptEndedOnNode>(&fact.body)) {
    // The share on that node becomes free: nothing of the attempt may be left there.
    const std::size_t node = place_of(before.nodes.at(ended->node.value).name);
    if (on_node_[node].contains(ended->key)) {
      fail("the share of " + name_of(ended->key) + " on " + before.nodes[ended->node.value].name +
           " is given back while it runs there (" + std::string(to_string(ended->outcome.cause)) + ": " +
           ended->outcome.detail + ")");
    }
  } else if (const auto* stop = std::get_if<StopRequested>(&fact.body)) {
    if (stop->cause == StopCause::kPreempted) check_preemption(before, stop->key, stop->terms.room_for, fact.at);
  } else if (const auto* suspended = std::get_if<AttemptSuspended>(&fact.body)) {
    if (suspended->room_for != JobId{}) check_preemption(before, suspended->key, suspended->room_for, fact.at);
  } else if (const auto* still = std::get_if<AttemptStoodStill>(&fact.body)) {
    const std::size_t node = place_of(before.nodes.at(still->node.value).name);
    if (on_node_[node].contains(still->key) && !processes_.at(still->key).at(node).stands_still) {
      fail("the cores of " + name_of(still->key) + " are given away while it runs");
    }
  } else if (const auto* again = std::get_if<JobRequeued>(&fact.body)) {
    if (alive_.contains(again->job)) fail(name_of(again->job) + " waits again while it still runs");
    if (cancelled_.contains(again->job)) fail(name_of(again->job) + " waits again although it was cancelled");
  } else if (const auto* over = std::get_if<JobEnded>(&fact.body)) {
    if (alive_.contains(over->job)) fail(name_of(over->job) + " is over for the controller while it still runs");
    if (!is_terminal(over->state)) fail(name_of(over->job) + " ends in a state that is no end");
    ends_[over->job] = over->state;
  } else if (const auto* tasks = std::get_if<ArrayTasksEnded>(&fact.body)) {
    for (std::uint64_t i = tasks->positions.begin; i < tasks->positions.end; ++i) {
      const JobId id{tasks->array.value + i};
      if (engine::find_array_of(before, id) != nullptr) ends_[id] = tasks->state;
    }
  } else if (const auto* submitted = std::get_if<JobSubmitted>(&fact.body)) {
    forget(submitted->id, submitted->spec->array ? submitted->spec->array->size() : 1);
    if (submitted->spec->array) sizes_[submitted->id] = submitted->spec->array;
  } else if (const auto* term = std::get_if<TermStarted>(&fact.body)) {
    if (term->term <= before.term) fail("the term does not rise");
    forget_undone(before);
  }
}

// Whoever makes room stands behind the job that it makes room for, and that job waits.
void Checks::check_preemption(const engine::State& before, AttemptKey key, JobId room_for, Instant now) {
  const Job* victim = engine::find_job(before, key.job);
  const Job* array = engine::find_array(before, room_for);
  const Job* waiting = array != nullptr ? array : engine::find_job(before, room_for);
  if (victim == nullptr || waiting == nullptr || !waits(*waiting)) {
    fail(name_of(key) + " is preempted for a job that does not wait");
    return;
  }
  if (!sched::may_preempt(policy_, sched::preempt_rules(&before.accounts), *waiting->spec, *victim->spec)) {
    fail(name_of(key) + " is preempted for a job that may not do so");
  }
  const sched::QueuePolicy& queue = *policy_.find_queue(victim->spec->queue);
  if (now < std::get<Active>(victim->phase).start_time + queue.preempt_exempt) {
    fail(name_of(key) + " is preempted before its time");
  }
}

// What a job's end must say, given how its process on the one node ended.
void Checks::check_summary(const JobSummary& s) {
  if (s.count == 0) fail(name_of(s.id) + " is in history with no task");
  const bool too_late = s.state == JobState::kDeadline && s.spec->deadline.is_set() &&
                        s.end_time + sched::least_limit(*s.spec) > s.spec->deadline;
  if (s.attempt.value == 0) {
    if (s.state != JobState::kCancelled && !too_late) {
      fail(name_of(s.id) + " never started and is not cancelled in history");
    }
    return;
  }
  if (!s.start_time.is_set()) {
    if (s.state != JobState::kCancelled && !too_late)
      fail(name_of(s.id) + " waited again and is not cancelled in history");
    return;
  }
  const auto known = processes_.find(AttemptKey{s.id, s.attempt});
  const std::size_t first = s.nodes.empty() ? 0 : place_of(s.nodes.front());
  const bool ran = known != processes_.end() && known->second.contains(first);
  if (!ran) {
    if (s.state == JobState::kCompleted) fail(name_of(s.id) + " is completed in history and never ran");
    return;
  }
  const Outcome& outcome = known->second.at(first).outcome;
  if (s.state == JobState::kCompleted && (outcome.cause != EndCause::kExited || outcome.exit_code != 0)) {
    fail(name_of(s.id) + " is completed in history and did not exit with 0");
  }
  if (s.nodes.size() != 1) return;
  // What was being ended is cancelled, also when the node could not say how.
  const bool cancelled = stopped_.contains(AttemptKey{s.id, s.attempt});
  if (s.state == JobState::kNodeFailed && cancelled)
    fail(name_of(s.id) + " was cancelled and is node_failed in history");
  // A record that was lost with the node's power leaves no more than that, whatever the end was.
  if (power_cuts_[first] > 0 && s.state == (cancelled ? JobState::kCancelled : JobState::kNodeFailed)) return;
  if (cancelled && outcome.cause == EndCause::kShepherdDied && s.state == JobState::kCancelled) return;
  // What a stop has ended was cancelled, preempted or put back, as the stop said; so was what gave up when it was warned.
  const bool stopped = s.state == JobState::kPreempted || s.requeued;
  if (stopped && power_cuts_[first] > 0) return;
  if (stopped) {
    const bool lost = outcome.cause == EndCause::kNodeLost || outcome.cause == EndCause::kShepherdDied;
    const bool by_itself = outcome.cause == EndCause::kExited && outcome.exit_code == 0;
    if (by_itself || outcome.cause == EndCause::kTimeLimit || outcome.cause == EndCause::kOutOfMemory ||
        (lost && !s.requeued)) {
      fail(name_of(s.id) + " ended as " + std::string(to_string(outcome.cause)) + " and is " +
           std::string(to_string(s.state)) + " in history (" + s.reason + ")");
    }
    return;
  }
  JobState expected = JobState::kFailed;
  switch (outcome.cause) {
    case EndCause::kExited:
      expected = outcome.exit_code == 0 ? JobState::kCompleted : JobState::kFailed;
      break;
    case EndCause::kCancelled:
      expected = JobState::kCancelled;
      break;
    case EndCause::kTimeLimit:
      expected = JobState::kTimeout;
      break;
    case EndCause::kOutOfMemory:
      expected = JobState::kOutOfMemory;
      break;
    case EndCause::kNodeLost:
      expected = JobState::kNodeFailed;
      break;
    case EndCause::kSignalled:
    case EndCause::kLaunchFailed:
    case EndCause::kOutputFailed:
    case EndCause::kShepherdDied:
      break;
  }
  if (s.state == JobState::kDeadline && s.spec->deadline.is_set() &&
      s.end_time + Duration::from_s(2) > s.spec->deadline &&
      (outcome.cause == EndCause::kCancelled || outcome.cause == EndCause::kTimeLimit)) {
    return;
  }
  if (s.state != expected || s.exit_code != outcome.exit_code || s.exit_signal != outcome.signal) {
    fail(name_of(s.id) + " ended as " + std::string(to_string(outcome.cause)) + " and is " +
         std::string(to_string(s.state)) + " in history (" + s.reason + ")");
  }
}

void Checks::committed(const Facts& facts, const std::vector<JobSummary>& history) {
  for (const Fact& fact : facts) {
    if (const auto* submitted = std::get_if<JobSubmitted>(&fact.body)) {
      const std::uint64_t tasks = submitted->spec->array ? submitted->spec->array->size() : 1;
      if (!submitted_.emplace(submitted->id, Submission{tasks}).second)
        fail(name_of(submitted->id) + " is submitted twice");
      if (!requests_.emplace(submitted->request, submitted->id).second) fail("one request made two jobs");
    } else if (const auto* stop = std::get_if<StopRequested>(&fact.body)) {
      if (stop->cause == StopCause::kCancelled && stop->signal == 0) stopped_.insert(stop->key);
    } else if (const auto* term = std::get_if<TermStarted>(&fact.body)) {
      if (term->term <= term_) fail("two starts of the controller have one term");
      term_ = term->term;
    }
  }
  for (const JobSummary& summary : history) {
    check_summary(summary);
    if (summary.requeued) {
      if (!attempts_ended_.insert({summary.id, summary.attempt}).second) {
        fail(name_of(AttemptKey{summary.id, summary.attempt}) + " is in history twice");
      }
      if (ended_.contains(summary.id)) fail(name_of(summary.id) + " goes back to the queue after its end");
      continue;
    }
    for (std::uint64_t i = 0; i < summary.count; ++i) {
      if (!ended_.insert(JobId{summary.id.value + i}).second) {
        fail(name_of(JobId{summary.id.value + i}) + " is in history twice");
      }
    }
  }
}

// Whether windows and licences let the job start now.
bool Checks::fits_beside_others(const engine::State& state, const Job& job, Instant now) const {
  if (state.windows.access(*job.spec, now) != sched::Windows::Access::kOk) return false;
  const sched::Timeline timeline(state.ledger, state.horizon, now, &state.windows,
                                 sched::LicenseLine(policy_.licenses, state.licenses, now));
  const sched::NodeFilter filter =
      sched::make_filter(state.ledger, *job.spec,
                         state.windows.nodes_for(job.spec->reservation, nodes_of(policy_, *job.spec)), policy_.sites);
  const bool any = sched::any_switches(*job.spec, job.eligible_time, now);
  return !sched::fit_now(timeline, *job.spec, filter, any).empty();
}

void Checks::check_reason(const engine::State& state, const Job& job, const engine::Explainer& explainer, Instant now) {
  const sched::Reason reason = explainer.reason(job);
  const auto is_true = [&] {
    const bool barred = job.is_array_record && startable(job).empty();
    if (reason.word == "JobHeldUser") return job.held || (barred && !job.held_positions.empty());
    if (reason.word == "DeadLine") return job.spec->deadline.is_set() && *sched::latest_start(*job.spec) < now;
    if (reason.word == "Dependency") {
      return (engine::is_dependent(job) || (barred && !job.open.empty())) && !engine::is_never_satisfied(job);
    }
    if (reason.word == "DependencyNeverSatisfied") return engine::is_never_satisfied(job);
    if (reason.word == "BeginTime") return job.spec->begin > now;
    if (reason.word == "JobArrayTaskLimit") return at_limit(job);
    if (reason.word.find("Jobs") != std::string::npos) return at_use_limit(state, job, Counted::kRunningAndPromised);
    if (reason.word == "ReqNodeNotAvail") return !fits(state, job, sched::Assume::kUsableEmpty);
    if (reason.word == "Resources") {
      return !fits(state, job, sched::Assume::kFreeNow) ||
             (state.making_room.contains(job.id) && !fits_beside_others(state, job, now));
    }
    const auto access = state.windows.access(*job.spec, now);
    if (reason.word == "ReservationDeleted")
      return access == sched::Windows::Access::kGone || access == sched::Windows::Access::kEnded;
    if (reason.word == "Reservation" || reason.word == "Licenses") return !fits_beside_others(state, job, now);
    if (reason.word != "Priority") return false;
    // The choice of nodes is no search: with some of them reserved it may succeed where it fails with all.
    const bool has_room =
        fits(state, job, sched::Assume::kFreeNow) || (!state.windows.empty() && fits_beside_others(state, job, now));
    return has_room && (!state.promised.empty() || !state.standing_still.empty());
  };
  if (!is_true()) fail(name_of(job.id) + " waits for a reason that is not true: " + reason.word + ": " + reason.detail);
  // A job that is not held and whose time has come waits only for something that takes what it needs.
  const bool too_late = job.spec->deadline.is_set() && *sched::latest_start(*job.spec) < now;
  if (!may_start(job) || job.spec->begin > now || at_limit(job) || too_late ||
      !fits(state, job, sched::Assume::kFreeNow) || !fits_beside_others(state, job, now))
    return;
  if (reason.word.find("Jobs") != std::string::npos) return;  // a limit, which is_true() has looked at
  if (reason.word != "Priority") fail(name_of(job.id) + " waits although it could start: " + reason.word);
}

// Where nothing waits and nothing is reserved, whoever has all its cores free goes on.
void Checks::check_standing_still(const engine::State& state) {
  if (!state.pending.empty() || !state.reservations.empty()) return;
  for (const JobId id : state.standing_still) {
    const auto& active = std::get<Active>(state.jobs.at(id).phase);
    const bool could = active.stop == StopCause::kNone &&
                       std::all_of(active.nodes.begin(), active.nodes.end(), [&](const AttemptOnNode& on) {
                         const sched::NodeCapacity& n = state.ledger.nodes()[on.share.node.value];
                         return on.phase == NodePhase::kEnded ||
                                (on.stands_still && n.connected && on.share.cores.is_subset_of(n.free_cores));
                       });
    if (could) fail(name_of(id) + " stands still for nobody");
  }
}

void Checks::planned(const engine::State& state, Instant now) {
  check_standing_still(state);
  const engine::Explainer explainer(state, policy_, now);
  each_waiting(state, [&](const Job& job) { check_reason(state, job, explainer, now); });
}

void Checks::state_changed(const engine::State& state) {
  const std::vector<std::string> broken = engine::check_invariants(state);
  if (!broken.empty()) fail(broken.front());
  for (const auto& [name, drained] : drained_) {
    const Node* node = engine::find_node(state, name);
    if (node == nullptr || node->drained != drained) {
      fail("node " + name + (drained ? " is not drained any more" : " is drained again") + ", and nobody asked for it");
    }
  }
}

void Checks::nothing_lost(const engine::State& state) {
  for (const auto& [request, job] : told_) {
    if (!submitted_.contains(job)) fail(name_of(job) + " was acknowledged and is not on disk");
  }
  for (const auto& [job, submission] : submitted_) {
    for (std::uint64_t i = 0; i < submission.tasks; ++i) {
      const JobId id{job.value + i};
      const bool lives = engine::find_job(state, id) != nullptr || engine::find_array_of(state, id) != nullptr;
      const bool ended = ended_.contains(id);
      if (!lives && !ended) fail(name_of(id) + " is lost");
      if (lives && ended) fail(name_of(id) + " is both in the queue and in history");
    }
  }
}

void Checks::nothing_left(const engine::State& state) {
  if (!state.jobs.empty()) fail(name_of(state.jobs.begin()->first) + " never ended");
  if (!state.arrays.empty()) fail("array " + std::to_string(state.arrays.begin()->first.value) + " never ended");
  if (!alive_.empty()) fail(name_of(alive_.begin()->first) + " still runs");
  for (const sched::NodeCapacity& node : state.ledger.nodes()) {
    if (node.free_cores != node.all_cores || node.free_gpus != node.all_gpus || node.free_mem_mib != node.mem_mib) {
      fail("something is still held on " + node.name);
    }
  }
  nothing_lost(state);
}

// ---- to the users

void Checks::acknowledged(RequestId request, JobId job) {
  const auto on_disk = requests_.find(request);
  if (on_disk == requests_.end() || on_disk->second != job) {
    fail(name_of(job) + " is acknowledged before its submission is on disk");
  }
  const auto [it, fresh] = told_.emplace(request, job);
  if (!fresh && it->second != job) fail("a repeated request was told another job");
}

void Checks::drained(const std::vector<std::string>& nodes, std::optional<bool> drained) {
  for (const std::string& node : nodes) {
    if (drained) {
      drained_[node] = *drained;
    } else {
      drained_.erase(node);
    }
  }
}

}  // namespace muster::sim
