#include "core/engine/dependency.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "core/engine/engine.h"
#include "core/engine/index.h"

namespace muster::engine {
namespace {

// What a target means in the state.
struct Located {
  JobId job;
  bool whole_array = false;
  const Job* record = nullptr;  // the job or started task; of an array or a task that waits: the array's record
};

Error contradicted(const DependencyTarget& target, const std::string& what) {
  return make_error(ErrorCode::kNotFound, "--dependency names " + format_dependency_target(target) + ", but " + what);
}

Result<std::optional<Located>> locate(const State& state, const DependencyTarget& target) {
  const Job* array = find_array(state, target.job);
  if (array != nullptr) {
    if (!target.has_task) {
      return std::optional(Located{target.job, true, array});
    }
    const auto position = array->spec->array->position_of(target.task);
    if (!position) {
      return contradicted(target, "array " + std::to_string(target.job.value) + " has the indices " +
                                      format_array_spec(*array->spec->array).substr(0, 200) + ": name one of them");
    }
    const JobId task{array->id.value + *position};
    if (is_waiting(*array, *position)) {
      return std::optional(Located{task, false, array});
    }
    const Job* started = find_job(state, task);
    return started == nullptr ? std::optional<Located>() : std::optional(Located{task, false, started});
  }
  if (const Job* job = find_job(state, target.job)) {
    if (target.has_task) {
      return contradicted(target, "job " + std::to_string(target.job.value) + " is no array: leave out the task");
    }
    return std::optional(Located{target.job, false, job});
  }
  const Job* of = target.has_task ? nullptr : find_array_of(state, target.job);
  return of == nullptr ? std::optional<Located>() : std::optional(Located{target.job, false, of});
}

Job* pending_record(State& state, JobId id) {
  if (const auto array = state.arrays.find(id); array != state.arrays.end()) {
    return &array->second;
  }
  const auto job = state.jobs.find(id);
  return job == state.jobs.end() ? nullptr : &job->second;
}

// "42", "42_7".
std::string task_name(const State& state, JobId id, bool whole_array) {
  const Job* job = whole_array ? nullptr : find_job(state, id);
  const Job* array = job != nullptr || whole_array ? nullptr : find_array_of(state, id);
  const Job* task = job != nullptr ? job : array;
  if (task == nullptr || task->array == JobId{}) {
    return std::to_string(id.value);
  }
  return std::to_string(task->array.value) + "_" +
         std::to_string(task->spec->array->index_at(id.value - task->array.value));
}

// Of a started job, or an array of which nothing waits any more: when the last of it started.
Instant start_of(const Located& located) {
  const auto* active = std::get_if<Active>(&located.record->phase);
  return located.whole_array ? located.record->array_started : active != nullptr ? active->start_time : Instant{};
}

}  // namespace

namespace {

// An array whose indices another one pairs with, but for those with the same indices in the same order, is looked
// through task by task.
constexpr std::uint64_t kPairedTasksMax = 100'000;

// The positions of `to` with the indices that these positions of `from` have. Those that it lacks are left out.
Positions paired(const ArraySpec& from, const Positions& positions, const ArraySpec& to) {
  if (from.ranges == to.ranges) {
    return positions;
  }
  Positions out;
  for (const PositionRange& r : positions) {
    for (std::uint64_t p = r.begin; p < r.end; ++p) {
      if (const auto q = to.position_of(from.index_at(p))) {
        add(out, {*q, *q + 1});
      }
    }
  }
  return out;
}

Error bad_pair(JobId target, const std::string& what) {
  return make_error(ErrorCode::kRefused, "--dependency aftercorr:" + std::to_string(target.value) + ": " + what);
}

Status check_pairs(JobId target, const ArraySpec& mine, const ArraySpec& theirs) {
  if (mine.ranges == theirs.ranges) {
    return ok_status();
  }
  if (mine.size() > kPairedTasksMax || theirs.size() > kPairedTasksMax) {
    return bad_pair(target, "arrays of more than " + std::to_string(kPairedTasksMax) +
                                " tasks can be paired only with the same --array " +
                                format_array_spec(ArraySpec{theirs.ranges, 0}).substr(0, 200));
  }
  for (std::uint64_t p = 0; p < mine.size(); ++p) {
    if (const std::uint64_t index = mine.index_at(p); !theirs.position_of(index)) {
      return bad_pair(target, "array " + std::to_string(target.value) + " has no task " + std::to_string(index) +
                                  ": give --array indices that it has (" +
                                  format_array_spec(ArraySpec{theirs.ranges, 0}).substr(0, 200) + ")");
    }
  }
  return ok_status();
}

// Of an array that lives: the positions that have not ended.
Positions not_ended(const State& state, const Job& array) {
  Positions out = array.waiting;
  for (auto it = state.jobs.lower_bound(array.id); it != state.jobs.end() && it->second.array == array.id; ++it) {
    add(out, {it->second.array_position, it->second.array_position + 1});
  }
  return out;
}

// What is open of an aftercorr term; nothing when all tasks have what they wait for.
Result<std::optional<OpenDependency>> resolve_pairs(const State& state, const DependencyTerm& term,
                                                    const std::optional<Located>& located,
                                                    const std::vector<EndedJob>& ended, const Job* waiting,
                                                    const JobSpec& spec) {
  const JobId target = term.target.job;
  const auto no_array = [&] {
    return bad_pair(target, "job " + std::to_string(target.value) + " is no array: use afterok");
  };
  if (!spec.array) {
    return bad_pair(target, "aftercorr pairs the tasks of two arrays: give --array, or use afterok");
  }
  OpenDependency open{.kind = term.kind, .job = target, .whole_array = true, .delay = {}, .never = false};
  const Positions mine = waiting != nullptr ? waiting->waiting : Positions{{0, spec.array->size()}};
  if (located) {
    if (!located->whole_array) {
      return no_array();
    }
    const Job& other = *located->record;
    MUSTER_TRY(check_pairs(target, *spec.array, *other.spec->array));
    open.corr_waits = both(mine, paired(*other.spec->array, not_ended(state, other), *spec.array));
    open.corr_never = both(mine, paired(*other.spec->array, other.failed_positions, *spec.array));
  } else {
    const auto known =
        std::find_if(ended.begin(), ended.end(), [&](const EndedJob& e) { return e.target == term.target; });
    if (known == ended.end()) {
      return make_error(ErrorCode::kNotFound, "--dependency names job " + format_dependency_target(term.target) +
                                                  ", which is neither in the queue nor in the history: see `muster "
                                                  "queue` and `muster history`");
    }
    if (!known->array) {
      return no_array();
    }
    MUSTER_TRY(check_pairs(target, *spec.array, *known->array));
    open.corr_never = both(mine, paired(*known->array, known->failed, *spec.array));
  }
  if (open.corr_waits.empty() && open.corr_never.empty()) {
    return std::optional<OpenDependency>();
  }
  return std::optional(std::move(open));
}

}  // namespace

Result<bool> is_known(const State& state, const DependencyTarget& target) {
  MUSTER_ASSIGN(const std::optional<Located> located, locate(state, target));
  return located.has_value();
}

Result<ResolvedDependency> resolve_dependency(const State& state, const JobSpec& spec, const Job* waiting,
                                              const std::vector<EndedJob>& ended) {
  const Dependency& dependency = spec.dependency;
  MUSTER_TRY(check_dependency(dependency));
  ResolvedDependency out;
  bool met_one = false;
  const auto met = [&](const DependencyTerm& term, Instant start) {
    met_one = true;
    if (term.delay != Duration{} && start.is_set()) {
      out.begin = std::max(out.begin, start + term.delay);
    }
  };
  for (const DependencyTerm& term : dependency.terms) {
    OpenDependency open{.kind = term.kind, .job = {}, .whole_array = false, .delay = term.delay, .never = false};
    if (term.kind == DependencyKind::kSingleton) {
      out.open.push_back(open);  // its place among jobs of the same name is known once it has an id
      continue;
    }
    MUSTER_ASSIGN(const std::optional<Located> located, locate(state, term.target));
    if (waiting != nullptr && located && (located->job == waiting->id || located->record == waiting)) {
      return make_error(ErrorCode::kRefused, "--dependency names " + format_dependency_target(term.target) +
                                                 ", which is the job itself: name another one");
    }
    if (term.kind == DependencyKind::kAfterCorr) {
      MUSTER_ASSIGN(std::optional<OpenDependency> pairs, resolve_pairs(state, term, located, ended, waiting, spec));
      if (pairs) {
        out.open.push_back(std::move(*pairs));
      }
      continue;
    }
    if (!located) {
      const auto known =
          std::find_if(ended.begin(), ended.end(), [&](const EndedJob& e) { return e.target == term.target; });
      if (known == ended.end()) {
        return make_error(ErrorCode::kNotFound, "--dependency names job " + format_dependency_target(term.target) +
                                                    ", which is neither in the queue nor in the history: see `muster "
                                                    "queue` and `muster history`");
      }
      const bool ok = term.kind == DependencyKind::kAfterOk;
      if ((ok && !known->completed) || (term.kind == DependencyKind::kAfterNotOk && known->completed)) {
        // Its id does not matter any more but for telling of it.
        open.job = term.target.job;
        open.never = true;
        out.open.push_back(open);
      } else {
        met(term, known->start);
      }
      continue;
    }
    open.job = located->job;
    open.whole_array = located->whole_array;
    if (term.kind == DependencyKind::kAfter) {
      const bool started = located->whole_array ? located->record->waiting.empty() : located->record->is_active();
      if (started) {
        met(term, start_of(*located));
        continue;
      }
    }
    open.never = term.kind == DependencyKind::kAfterOk && located->whole_array && located->record->array_failed;
    out.open.push_back(open);
  }
  if (dependency.any && met_one) {
    out.open.clear();
  }
  return out;
}

bool is_never_satisfied(const Job& job) {
  const auto never = [&job](const OpenDependency& open) {
    return open.never || (open.kind == DependencyKind::kAfterCorr && both(job.waiting, open.corr_waits).empty() &&
                          !both(job.waiting, open.corr_never).empty());
  };
  return !job.open.empty() && (is_dependent(job) || startable(job).empty()) &&
         (job.spec->dependency.any ? std::all_of(job.open.begin(), job.open.end(), never)
                                   : std::any_of(job.open.begin(), job.open.end(), never));
}

namespace {

// "aftercorr:41 (task 3 of it has not ended)".
std::string describe_pairs(const std::string& of, const Positions& waits, const Positions& never,
                           const ArraySpec& array) {
  const auto tasks = [&array](const Positions& positions) {
    const std::uint64_t n = count(positions);
    return n == 1 ? "task " + std::to_string(array.index_at(positions.front().begin)) + " of it has"
                  : std::to_string(n) + " of its tasks have";
  };
  std::string text = of + " (";
  if (!waits.empty()) {
    text += tasks(waits) + " not ended";
  }
  if (!never.empty()) {
    text += (waits.empty() ? "never: " : ", ") + tasks(never) + " not completed";
  }
  return text + ")";
}

}  // namespace

std::string describe(const State& state, const Job& waiting, const OpenDependency& open) {
  const std::string kind(to_string(open.kind));
  const auto job_is = [&state](JobId id) {
    const std::string text = "job " + task_name(state, id, false) + " is ";
    if (const Job* job = find_job(state, id)) {
      return text + std::string(to_string(job->state()));
    }
    const bool waits = find_array(state, id) != nullptr || find_array_of(state, id) != nullptr;
    return text + (waits ? "pending" : "over");
  };
  if (open.kind == DependencyKind::kSingleton) {
    const auto named = state.by_name.find({waiting.spec->user, waiting.spec->name});
    const bool other = named != state.by_name.end() && *named->second.begin() < waiting.id;
    return kind + " (" + (other ? job_is(*named->second.begin()) : "no other job of this name is left") + ")";
  }
  const std::string of = kind + ":" + task_name(state, open.job, open.whole_array);
  if (open.kind == DependencyKind::kAfterCorr) {
    return describe_pairs(of, both(waiting.waiting, open.corr_waits), both(waiting.waiting, open.corr_never),
                          *waiting.spec->array);
  }
  if (open.never) {
    return of + " (never: " + (open.kind == DependencyKind::kAfterOk ? "it did not complete" : "it completed") + ")";
  }
  if (const Job* array = open.whole_array ? find_array(state, open.job) : nullptr) {
    return of + " (of its tasks " + std::to_string(array->array_running) + " run and " +
           std::to_string(waiting_count(*array)) + " wait)";
  }
  return of + " (" + job_is(open.job) + ")";
}

std::vector<JobId> dependents_of(const State& state, const Fact& fact) {
  std::vector<JobId> out;
  const auto add = [&](JobId first, JobId end) {
    for (auto it = state.dependents.lower_bound(first); it != state.dependents.end() && it->first < end; ++it) {
      out.insert(out.end(), it->second.begin(), it->second.end());
    }
  };
  const auto add_job = [&](JobId id) {
    add(id, JobId{id.value + 1});
    const Job* job = find_job(state, id);
    const Job* array = find_array_of(state, id);
    const JobId of = job != nullptr ? job->array : array != nullptr ? array->id : JobId{};
    if (of != JobId{} && of != id) {
      add(of, JobId{of.value + 1});
    }
    const Job* named = job != nullptr ? job : array;
    if (named != nullptr && !std::holds_alternative<AttemptStarted>(fact.body)) {
      const auto same = state.by_name.find({named->spec->user, named->spec->name});
      if (same != state.by_name.end()) {
        const auto next = same->second.upper_bound(of != JobId{} ? of : id);
        if (next != same->second.end()) {
          out.push_back(*next);
        }
      }
    }
  };
  if (const auto* updated = std::get_if<JobUpdated>(&fact.body)) {
    // Those that wait for a job of its old name.
    const Job* job = updated->attempt == Attempt{} ? find_array(state, updated->job) : nullptr;
    job = job != nullptr ? job : find_job(state, updated->job);
    const auto same = job == nullptr ? state.by_name.end() : state.by_name.find({job->spec->user, job->spec->name});
    if (same != state.by_name.end() && updated->spec->name != job->spec->name) {
      out.insert(out.end(), same->second.upper_bound(updated->job), same->second.end());
    }
  } else if (const auto* started = std::get_if<AttemptStarted>(&fact.body)) {
    add_job(started->job);
  } else if (const auto* ended = std::get_if<JobEnded>(&fact.body)) {
    add_job(ended->job);
  } else if (const auto* tasks = std::get_if<ArrayTasksEnded>(&fact.body)) {
    add_job(tasks->array);
    add(JobId{tasks->array.value + tasks->positions.begin}, JobId{tasks->array.value + tasks->positions.end});
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// ---------------------------------------------------------------- what happens to others

Dependents::Verdict Dependents::verdict_of_end(DependencyKind kind, bool completed) {
  switch (kind) {
    case DependencyKind::kAfterOk:
      return completed ? Verdict::kMet : Verdict::kNever;
    case DependencyKind::kAfterNotOk:
      return completed ? Verdict::kNever : Verdict::kMet;
    default:
      return Verdict::kMet;
  }
}

template <typename Judge>
void Dependents::judge_waiting(JobId waiting, Judge judge) {
  Job* job = pending_record(s_, waiting);
  if (job == nullptr || !std::any_of(job->open.begin(), job->open.end(),
                                     [&](const OpenDependency& open) { return judge(open) != Verdict::kOpen; })) {
    return;
  }
  unindex_job(s_, *job);
  Instant begin;
  bool met_one = false;
  std::vector<OpenDependency> left;
  for (OpenDependency& open : job->open) {
    const Verdict verdict = judge(open);
    if (verdict != Verdict::kMet) {
      open.never = open.never || verdict == Verdict::kNever;
      left.push_back(open);
      continue;
    }
    met_one = true;
    if (open.delay != Duration{}) {
      begin = std::max(begin, at_ + open.delay);
    }
  }
  job->open = std::move(left);
  if (met_one && job->spec->dependency.any) {
    job->open.clear();
  }
  if (job->spec->begin < begin) {
    auto later = std::make_shared<JobSpec>(*job->spec);
    later->begin = begin;
    job->spec = std::move(later);
  }
  if (!is_dependent(*job)) {
    job->eligible_time = std::max(at_, job->spec->begin);
  }
  index_job(s_, *job);
}

template <typename Judge>
void Dependents::judge(JobId target, bool whole_array, Judge judge) {
  const auto found = s_.dependents.find(target);
  if (found == s_.dependents.end()) {
    return;
  }
  const std::vector<JobId> waiting(found->second.begin(), found->second.end());  // what follows changes the set
  for (const JobId id : waiting) {
    judge_waiting(id, [&](const OpenDependency& open) {
      const bool meant = !open.never && open.kind != DependencyKind::kSingleton &&
                         open.kind != DependencyKind::kAfterCorr && open.job == target &&
                         open.whole_array == whole_array;
      return meant ? judge(open.kind) : Verdict::kOpen;
    });
  }
}

void Dependents::started(JobId job, JobId array) {
  judge(job, false,
        [](DependencyKind kind) { return kind == DependencyKind::kAfter ? Verdict::kMet : Verdict::kOpen; });
  if (const Job* record = array == JobId{} ? nullptr : find_array(s_, array)) {
    array_changed(array, record->array_failed, record->waiting.empty(), false);
  }
}

void Dependents::ended(JobId job, JobState state) {
  judge(job, false, [state](DependencyKind kind) { return verdict_of_end(kind, state == JobState::kCompleted); });
}

void Dependents::positions_ended(JobId array, const std::vector<PositionRange>& positions, JobState state) {
  for (const PositionRange& r : positions) {
    std::vector<JobId> targets;
    const JobId end{array.value + r.end};
    for (auto it = s_.dependents.lower_bound(JobId{array.value + r.begin});
         it != s_.dependents.end() && it->first < end; ++it) {
      targets.push_back(it->first);
    }
    for (const JobId target : targets) {
      ended(target, state);
    }
  }
}

void Dependents::pairs_ended(const Job& array, const Positions& ended, bool completed) {
  const auto found = s_.dependents.find(array.id);
  if (found == s_.dependents.end() || ended.empty()) {
    return;
  }
  const std::vector<JobId> waiting(found->second.begin(), found->second.end());  // what follows changes the set
  for (const JobId id : waiting) {
    const auto it = s_.arrays.find(id);
    if (it == s_.arrays.end() ||
        std::none_of(it->second.open.begin(), it->second.open.end(), [&array](const OpenDependency& open) {
          return open.kind == DependencyKind::kAfterCorr && open.job == array.id;
        })) {
      continue;
    }
    Job& job = it->second;
    unindex_job(s_, job);
    const bool could_start = !startable(job).empty();
    const Positions pairs = paired(*array.spec->array, ended, *job.spec->array);
    for (OpenDependency& open : job.open) {
      if (open.kind == DependencyKind::kAfterCorr && open.job == array.id) {
        for (const PositionRange& r : both(open.corr_waits, pairs)) {
          remove(open.corr_waits, r);
          if (!completed) {
            add(open.corr_never, r);
          }
        }
      }
    }
    drop_met_pairs(job);
    if (!could_start && !startable(job).empty()) {
      job.eligible_time = std::max(at_, job.spec->begin);
    }
    index_job(s_, job);
  }
}

void Dependents::array_changed(JobId array, bool failed, bool all_started, bool gone) {
  judge(array, true, [=](DependencyKind kind) {
    if (gone) {
      return verdict_of_end(kind, !failed);
    }
    if (kind == DependencyKind::kAfter && all_started) {
      return Verdict::kMet;
    }
    return kind == DependencyKind::kAfterOk && failed ? Verdict::kNever : Verdict::kOpen;
  });
}

void Dependents::name_freed(const JobSpec& spec) {
  const auto named = s_.by_name.find({spec.user, spec.name});
  if (named != s_.by_name.end()) {
    judge_waiting(*named->second.begin(), [](const OpenDependency& open) {
      return open.kind == DependencyKind::kSingleton ? Verdict::kMet : Verdict::kOpen;
    });
  }
}

}  // namespace muster::engine
