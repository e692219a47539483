#include "core/engine/update.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "core/engine/accounting.h"
#include "core/engine/deadline.h"
#include "core/engine/dependency.h"
#include "core/engine/index.h"
#include "core/engine/normalise.h"
#include "core/engine/select.h"
#include "core/sched/horizon.h"
#include "core/sched/span.h"
#include "lib/base/text.h"
#include "lib/model/job_name.h"

namespace muster::engine {
namespace {

// --nice is bounded below it.
constexpr std::int64_t kQueuePriorityWeight = 1'000'000;
// Jobs of a cycle, or promises, that one message names.
constexpr std::size_t kNamedMax = 10;

std::string id_text(JobId id) {
  return std::to_string(id.value);
}

// A job as the command leaves it.
struct Changed {
  JobSpecPtr spec;
  std::vector<OpenDependency> open;
};
using ChangedJobs = std::map<JobId, Changed>;

// Whether a job, with other names and open dependencies of some jobs, would come to wait for itself.
class CycleSearch {
 public:
  // `changed` has the job, and those that the same command changed before.
  CycleSearch(const State& state, const Job& job, const ChangedJobs& changed)
      : s_(state), job_(job), changed_(changed) {}

  // The jobs of the cycle, the changed one first and last; empty: none.
  std::vector<JobId> find() {
    visit(job_.id);
    return cycle_;
  }

 private:
  // Without recursion: a chain of jobs may be as long as the queue.
  void visit(JobId start) {
    struct Frame {
      JobId id;
      std::vector<JobId> next;
      std::size_t at = 0;
    };
    std::vector<Frame> path;
    path.push_back({start, awaited_by(start)});
    seen_.insert(start);
    while (!path.empty()) {
      Frame& top = path.back();
      if (top.at == top.next.size()) {
        path.pop_back();
        continue;
      }
      const JobId next = top.next[top.at++];
      if (next == job_.id) {
        for (const Frame& frame : path) {
          cycle_.push_back(frame.id);
        }
        cycle_.push_back(job_.id);
        return;
      }
      if (seen_.insert(next).second) {
        path.push_back({next, awaited_by(next)});
      }
    }
  }

  // The records that the record waits for.
  std::vector<JobId> awaited_by(JobId id) const {
    const Job* record = record_of(id);
    if (record == nullptr) {
      return {};
    }
    const auto changed = changed_.find(id);
    std::vector<JobId> out;
    for (const OpenDependency& open : changed != changed_.end() ? changed->second.open : record->open) {
      if (open.kind == DependencyKind::kSingleton) {
        earlier_of_name(id, changed != changed_.end() ? *changed->second.spec : *record->spec, out);
      } else if (open.whole_array) {
        out.push_back(open.job);
      } else if (const Job* of = find_array_of(s_, open.job)) {
        out.push_back(of->id);
      } else if (const Job* single = find_job(s_, open.job); single != nullptr && !single->is_active()) {
        out.push_back(open.job);
      }
    }
    return out;
  }

  void earlier_of_name(JobId id, const JobSpec& spec, std::vector<JobId>& out) const {
    const auto named = s_.by_name.find({spec.user, spec.name});
    if (named != s_.by_name.end()) {
      for (const JobId other : named->second) {
        if (other < id && !changed_.contains(other)) {
          out.push_back(other);
        }
      }
    }
    // The changed jobs stand in the index under the names that they had.
    for (const auto& [other, changed] : changed_) {
      if (other < id && changed.spec->name == spec.name && changed.spec->user == spec.user) {
        out.push_back(other);
      }
    }
  }

  const Job* record_of(JobId id) const {
    const Job* array = find_array(s_, id);
    const Job* record = array != nullptr ? array : find_job(s_, id);
    return record == nullptr || record->is_active() ? nullptr : record;
  }

  const State& s_;
  const Job& job_;
  const ChangedJobs& changed_;
  std::set<JobId> seen_;
  std::vector<JobId> cycle_;
};

class Update {
 public:
  Update(const State& state, const sched::Policy& policy, const UpdateJobs& command, Instant now)
      : s_(state), policy_(policy), c_(command), now_(now) {}

  Result<Decision> run() {
    if (c_.change.fields.empty()) {
      return invalid_argument("nothing is to be changed: give an option with its new value, as in --time 2h");
    }
    bool denied = false;
    const std::vector<Selected> selected = select_jobs(s_, c_.jobs, c_.caller, d_.notes, d_.unknown, denied);
    std::set<JobId> arrays;  // named as a whole
    for (const Selected& sel : selected) {
      if (sel.whole_array) {
        arrays.insert(sel.array->id);
      }
    }
    for (const Selected& sel : selected) {
      const Job& job = sel.array != nullptr ? *sel.array : *sel.job;
      if (sel.array != nullptr && !sel.whole_array) {
        if (told_.insert(job.id).second) {
          note(job, make_error(ErrorCode::kRefused,
                               "its tasks that wait are changed together: change the array by "
                               "its id, " +
                                   id_text(job.id)));
        }
        continue;
      }
      const bool of_array = job.is_active() && arrays.contains(job.array);
      if (of_array && !for_running()) {
        ++unchanged_[job.array];  // what its array's waiting tasks get is not for it
        continue;
      }
      const Status status = job.is_active() ? change_running(job) : change_waiting(job);
      if (status.ok()) {
        ++d_.matched;
      } else {
        note(job, status.error());
      }
    }
    for (const auto& [array, tasks] : unchanged_) {
      d_.remarks.push_back("job " + id_text(array) + ": " + std::to_string(tasks) +
                           (tasks == 1 ? " task runs and stays as it is" : " tasks run and stay as they are"));
    }
    if (d_.matched == 0 && denied && !first_error_) {
      return make_error(ErrorCode::kPermissionDenied, d_.notes.front());
    }
    if (d_.matched == 0 && first_error_) {
      return make_error(first_error_->code, d_.notes.front());
    }
    return std::move(d_);
  }

 private:
  void fact(FactBody body) { d_.facts.push_back(Fact{now_, std::move(body)}); }
  void note(const Job& job, const Error& error) {
    if (!first_error_) {
      first_error_ = error;
    }
    d_.notes.push_back("job " + job_name(job) + ": " + error.message);
  }
  [[nodiscard]] bool for_running() const {
    return std::all_of(c_.change.fields.begin(), c_.change.fields.end(), may_change_while_running);
  }

  // ---- jobs that wait

  Status change_waiting(const Job& job) {
    if (c_.change.has(SpecField::kArrayLimit) && !job.is_array_record) {
      return invalid_argument("--array: the job is no array: leave the option out");
    }
    JobSpec changed = with_change(*job.spec, c_.change);
    keep_delay(*job.spec, changed);
    if (c_.change.has(SpecField::kNice)) {
      MUSTER_TRY(check_nice(changed, c_.caller));
    }
    MUSTER_ASSIGN(JobSpecPtr spec, normalise(s_, policy_, changed, now_, job.spec.get()));
    std::optional<std::vector<OpenDependency>> open;
    const std::uint64_t tasks = job.is_array_record ? waiting_count(job) : 1;
    MUSTER_TRY(check_pending_limits(s_, *spec, tasks, moved_, job.spec.get()));
    MUSTER_TRY(resolve(job, spec, open));
    if (changes_span(*job.spec, *spec)) {
      if (const Status status = check_deadline(*spec, now_); !status.ok()) {
        changed_.erase(job.id);
        return status;
      }
    }
    if (*spec == *job.spec && !open) {
      return ok_status();
    }
    moved_.add(s_.accounts, *spec, tasks, job.spec.get());
    fact(JobUpdated{.job = job.id, .attempt = {}, .spec = spec, .priority = priority_of(policy_, *spec)});
    if (open) {
      fact(DependencySet{.job = job.id, .open = std::move(*open)});
    }
    return ok_status();
  }

  // The minutes after another job's start stand in --begin since it started: they still count.
  void keep_delay(const JobSpec& before, JobSpec& changed) const {
    const std::vector<DependencyTerm>& terms = before.dependency.terms;
    if (!c_.change.has(SpecField::kDependency) &&
        std::any_of(terms.begin(), terms.end(), [](const DependencyTerm& t) { return t.delay != Duration{}; })) {
      changed.begin = std::max(changed.begin, before.begin);
    }
  }

  static bool changes_span(const JobSpec& a, const JobSpec& b) {
    return a.deadline != b.deadline || a.time_limit != b.time_limit || a.time_min != b.time_min || a.begin != b.begin;
  }

  // What is open of the dependency, where the change says something about it.
  Status resolve(const Job& job, JobSpecPtr& spec, std::optional<std::vector<OpenDependency>>& open) {
    const bool renamed = spec->name != job.spec->name;
    if (c_.change.has(SpecField::kDependency)) {
      MUSTER_ASSIGN(ResolvedDependency resolved, resolve_dependency(s_, *spec, &job, c_.ended));
      if (spec->begin < resolved.begin) {
        auto later = std::make_shared<JobSpec>(*spec);
        later->begin = resolved.begin;
        spec = std::move(later);
      }
      open = std::move(resolved.open);
    } else if (renamed && !job.open.empty()) {
      open = job.open;  // it may be the only one of its new name
    }
    if (open || renamed) {
      changed_.insert_or_assign(job.id, Changed{spec, open ? *open : job.open});
      if (const std::vector<JobId> cycle = CycleSearch(s_, job, changed_).find(); !cycle.empty()) {
        changed_.erase(job.id);
        return make_error(ErrorCode::kRefused,
                          std::string(c_.change.has(SpecField::kDependency) ? "--dependency" : "--job-name") +
                              " makes jobs wait for each other for ever: " + chain_text(cycle) +
                              ": leave one of them out");
      }
    }
    return ok_status();
  }

  static std::string chain_text(const std::vector<JobId>& chain) {
    std::string text;
    for (std::size_t i = 0; i < chain.size(); ++i) {
      if (chain.size() > kNamedMax && i == kNamedMax - 1) {
        text += " -> ... -> " + id_text(chain.back());
        break;
      }
      text += (i == 0 ? "" : " -> ") + id_text(chain[i]);
    }
    return text;
  }

  // ---- jobs that run

  Status change_running(const Job& job) {
    for (const SpecField field : c_.change.fields) {
      if (!may_change_while_running(field)) {
        return make_error(ErrorCode::kRefused, "has started: " + std::string(option_of(field)) +
                                                   " can be changed only while a job waits, of a running one --time, "
                                                   "--job-name and --comment");
      }
    }
    if (c_.change.has(SpecField::kTimeLimit)) {
      MUSTER_TRY(change_limit(job, std::get<Active>(job.phase)));
    }
    JobSpec told = *job.spec;  // its time limit stays what was asked for
    told.name = c_.change.has(SpecField::kName) ? c_.change.values.name : told.name;
    told.comment = c_.change.has(SpecField::kComment) ? c_.change.values.comment : told.comment;
    MUSTER_TRY(check_texts(told));
    if (told != *job.spec) {
      fact(JobUpdated{.job = job.id,
                      .attempt = job.attempt,
                      .spec = std::make_shared<const JobSpec>(std::move(told)),
                      .priority = job.priority});
    }
    return ok_status();
  }

  Status change_limit(const Job& job, const Active& active) {
    const Duration limit = c_.change.values.time_limit;
    if (active.stop != StopCause::kNone) {
      return make_error(ErrorCode::kRefused, "is being stopped: its time limit does not matter any more");
    }
    const Duration ran = sched::ran_for(active, now_);
    if (limit <= ran) {
      return make_error(ErrorCode::kRefused, "has run for " + format_duration(Duration::from_s(ran.seconds())) +
                                                 ": give a --time above that, or cancel it");
    }
    if (limit > active.time_limit && !c_.caller.admin) {
      return make_error(ErrorCode::kPermissionDenied, "its time limit of " + format_duration(active.time_limit) +
                                                          " can be raised by an administrator only: ask one of them");
    }
    if (limit == active.time_limit) {
      return ok_status();
    }
    if (limit > active.time_limit) {
      remark_on_raise(job, active, limit);
    }
    fact(AttemptTimeLimitChanged{{job.id, job.attempt}, limit});
    return ok_status();
  }

  // What others were told about the end of this job.
  void remark_on_raise(const Job& job, const Active& active, Duration limit) {
    const std::string name = "job " + job_name(job) + ": ";
    Active raised = active;
    raised.time_limit = limit;
    const Instant before = sched::believed_end(active);
    const Instant after = sched::believed_end(raised);
    std::string delayed;
    std::size_t n = 0;
    for (const auto& [id, promise] : s_.promised) {
      if (promise.start >= before && promise.start < after && ++n <= kNamedMax) {
        delayed += (delayed.empty() ? "" : ", ") + id_text(id);
      }
    }
    if (n != 0) {
      d_.remarks.push_back(name + "its new end is behind the promised start of job " + delayed +
                           (n > kNamedMax ? ", ..." : "") + ", which may slip");
    }
    remark_on_windows(name, job, active, after);
    if (job.spec->deadline.is_set() && after > job.spec->deadline) {
      d_.remarks.push_back(name + "its --deadline stops it before its new limit does");
    }
    const sched::QueuePolicy* queue = policy_.find_queue(job.spec->queue);
    if (queue != nullptr && limit > queue->time_max) {
      d_.remarks.push_back(name + "its new limit is above that of queue " + queue->name);
    }
  }

  void remark_on_windows(const std::string& name, const Job& job, const Active& active, Instant end) {
    for (const AttemptOnNode& on : active.nodes) {
      const NodeIndex node = on.share.node;
      if (on.phase == NodePhase::kEnded || s_.windows.allows(node, now_, end, job.spec->reservation)) {
        continue;
      }
      for (const Reservation* r : s_.windows.on(node)) {
        if (r->name != job.spec->reservation && meets_window(*r, now_, end)) {
          d_.remarks.push_back(name + "its new end is in a window of reservation " + r->name +
                               ", whose jobs will wait for its nodes");
          return;
        }
      }
      d_.remarks.push_back(name + "its new end is behind the window of its reservation " + job.spec->reservation);
      return;
    }
  }

  const State& s_;
  const sched::Policy& policy_;
  const UpdateJobs& c_;
  Instant now_;
  Decision d_;
  std::set<JobId> told_;
  std::map<JobId, std::uint64_t> unchanged_;  // running tasks, by array
  ChangedJobs changed_;                       // with other names or dependencies
  sched::PendingMoves moved_;
  std::optional<Error> first_error_;
};

}  // namespace

std::int64_t priority_of(const sched::Policy& policy, const JobSpec& spec) {
  const sched::QueuePolicy* queue = policy.find_queue(spec.queue);
  return (queue == nullptr ? 0 : queue->priority) * kQueuePriorityWeight - spec.nice;
}

Status check_nice(const JobSpec& spec, const Caller& caller) {
  if (spec.nice < 0 && !caller.admin) {
    return make_error(ErrorCode::kPermissionDenied, "--nice " + std::to_string(spec.nice) +
                                                        " raises the priority, which an administrator may only: give "
                                                        "0 or more");
  }
  return ok_status();
}

Result<Decision> decide_update(const State& state, const sched::Policy& policy, const UpdateJobs& command,
                               Instant now) {
  return Update(state, policy, command, now).run();
}

}  // namespace muster::engine
