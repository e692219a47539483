#include "sim/replay/replay.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <queue>
#include <tuple>
#include <utility>

#include "lib/base/check.h"
#include "sim/replay/promise_watch.h"

namespace muster::sim {
namespace {

// The log's second 0; so no time of the replay is the unset Instant.
constexpr Instant kOrigin = Instant::from_s(1'000'000'000);
constexpr Instant kEndOfTime = Instant::from_s(1'000'000'000'000);
constexpr NodeIndex kNode{0};

Instant instant_of(std::int64_t log_s) {
  return kOrigin + Duration::from_s(log_s);
}

class Stopwatch {
 public:
  [[nodiscard]] std::int64_t ns() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

class Replay {
 public:
  Replay(const Trace& trace, const ReplayPolicy& policy, const ReplayOptions& options)
      : trace_(trace),
        policy_(policy),
        options_(options),
        by_submission_(trace.jobs.size()),
        record_of_(trace.jobs.size()) {
    std::iota(by_submission_.begin(), by_submission_.end(), std::size_t{0});
    std::stable_sort(by_submission_.begin(), by_submission_.end(),
                     [&](std::size_t a, std::size_t b) { return trace.jobs[a].submit_s < trace.jobs[b].submit_s; });
    result_.start_s.assign(trace.jobs.size(), 0);
    NodeHardware hardware;
    hardware.cores.resize(static_cast<std::size_t>(trace.machine));
    ledger_.set_hardware(kNode, "machine", hardware);
    ledger_.set_usable(kNode, true);
  }

  Result<ReplayResult> run() {
    while (next_ < by_submission_.size() || !ends_.empty()) {
      now_ = next_instant();
      if (now_ > kEndOfTime) {
        return make_error(ErrorCode::kLimitReached,
                          "its jobs take more than 30,000 years: replay fewer of them with --jobs N");
      }
      if (options_.events == ReplayEvents::kBatch) {
        batch();
      } else {
        single_event();
      }
      if (options_.progress) options_.progress(ended_);
    }
    MUSTER_CHECK(pending_.empty() && ended_ == trace_.jobs.size());
    result_.broken_promises = watch_.broken();
    return std::move(result_);
  }

 private:
  // A job that waits or runs.
  struct Record {
    Job job;
    std::size_t index = 0;  // in the trace
    NodeShare share;        // once it runs
    Instant until;          // its believed end
    bool held = false;      // the share is taken
  };
  // The end of a running job. Of one instant those that started first come first.
  struct End {
    Instant at;
    std::uint64_t started = 0;  // counts starts
    std::uint32_t record = 0;
    friend bool operator>(const End& a, const End& b) { return std::tie(a.at, a.started) > std::tie(b.at, b.started); }
  };
  using Ends = std::priority_queue<End, std::vector<End>, std::greater<>>;
  // A request is its size and its limit, so equal ones share a spec.
  using SpecKey = std::pair<std::int64_t, std::int64_t>;

  [[nodiscard]] Instant next_instant() const {
    Instant at = Instant{INT64_MAX};
    if (next_ < by_submission_.size()) at = instant_of(trace_.jobs[by_submission_[next_]].submit_s);
    if (!ends_.empty()) at = std::min(at, ends_.top().at);
    return at;
  }
  [[nodiscard]] bool submission_is_due() const {
    return next_ < by_submission_.size() && instant_of(trace_.jobs[by_submission_[next_]].submit_s) <= now_;
  }
  [[nodiscard]] bool end_is_due() const { return !ends_.empty() && ends_.top().at <= now_; }

  void batch() {
    const bool released = end_is_due();
    while (end_is_due()) end_first();
    while (submission_is_due()) submit_next();
    pass(released);
  }

  void single_event() {
    const bool submission = submission_is_due();
    if (submission) {
      submit_next();
    } else {
      end_first();
    }
    // What should be over by its estimate ends at this very instant: nothing runs longer than its estimate.
    while (!believed_ends_.empty() && believed_ends_.top().at <= now_) {
      Record& record = records_[believed_ends_.top().record];
      // The record may stand for another job since.
      if (record.held && record.until <= now_) give_back(record);
      believed_ends_.pop();
    }
    pass(!submission);
  }

  void submit_next() {
    const std::size_t index = by_submission_[next_];
    const TraceJob& job = trace_.jobs[index];
    std::uint32_t number = 0;
    if (unused_.empty()) {
      number = static_cast<std::uint32_t>(records_.size());
      records_.emplace_back();
    } else {
      number = unused_.back();
      unused_.pop_back();
    }
    Record& record = records_[number];
    record.index = index;
    // Ids follow (submission, place in the file), which decides ties.
    record.job.id = JobId{next_ + 1};
    record.job.spec = spec_of(job);
    record.job.submit_time = instant_of(job.submit_s);
    record.job.eligible_time = record.job.submit_time;
    record_of_[next_] = number;
    pending_.insert(record.job);
    ++next_;
  }

  JobSpecPtr spec_of(const TraceJob& job) {
    JobSpecPtr& spec = specs_[SpecKey(job.estimate_s, job.width)];
    if (!spec) {
      JobSpec made;
      made.queue = kReplayQueue;
      made.nodes_min = 1;
      made.nodes_max = 1;
      made.ntasks = static_cast<std::uint32_t>(job.width);
      made.cpus_per_task = 1;
      made.time_limit = Duration::from_s(job.estimate_s);
      spec = std::make_shared<const JobSpec>(std::move(made));
    }
    return spec;
  }
  // The table keeps what a waiting or running job uses.
  void let_go(JobSpecPtr& spec) {
    const SpecKey key(spec->time_limit.seconds(), spec->ntasks);
    spec.reset();
    const auto it = specs_.find(key);
    if (it->second.use_count() == 1) specs_.erase(it);
  }

  void end_first() {
    const std::uint32_t number = ends_.top().record;
    ends_.pop();
    Record& record = records_[number];
    if (record.held) give_back(record);
    let_go(record.job.spec);
    unused_.push_back(number);
    ++ended_;
  }
  void give_back(Record& record) {
    ledger_.give_back(record.share);
    horizon_.release(record.share, record.until);
    record.held = false;
  }

  void pass(bool released) {
    if (pending_.empty()) return;
    ++result_.passes;
    std::int64_t ns = 0;
    bool complete = false;
    while (!complete) {
      const Stopwatch planning;
      const sched::Cluster cluster{.ledger = ledger_,
                                   .horizon = horizon_,
                                   .pending = pending_,
                                   .job = [this](JobId id) -> const Job& { return record(id).job; },
                                   .promised = promised_,
                                   .released = released};
      const sched::Plan plan = sched::schedule(cluster, policy_.policy, *policy_.order, sched::WorkBudget{}, now_);
      ns += planning.ns();
      observe(plan);
      const Stopwatch applying;
      apply(plan);
      ns += applying.ns();
      complete = plan.complete;
      released = false;
    }
    result_.scheduling_ns += ns;
    if (options_.keep_pass_times) result_.pass_ns.push_back(ns);
  }

  void observe(const sched::Plan& plan) {
    std::vector<JobId> started;
    for (const Placement& placement : plan.placements) started.push_back(placement.job);
    watch_.observe(PromiseWatch::Pass{.now = now_,
                                      .machine = trace_.machine,
                                      .runs = horizon_.on(kNode),
                                      .started = started,
                                      .promises = plan.promises,
                                      .job = [this](JobId id) { return candidate(id); }});
  }
  [[nodiscard]] PromiseWatch::Candidate candidate(JobId id) const {
    const Job& job = record(id).job;
    const std::int64_t points = policy_.order->points(*job.spec, job.eligible_time, now_);
    return {.standing = {.points = points, .since = job.eligible_time, .id = id},
            .cores = job.spec->ntasks,
            .limit = job.spec->time_limit};
  }

  void apply(const sched::Plan& plan) {
    for (const Placement& placement : plan.placements) {
      MUSTER_CHECK(placement.shares.size() == 1);
      Record& record = this->record(placement.job);
      const TraceJob& job = trace_.jobs[record.index];
      record.share = placement.shares.front();
      MUSTER_CHECK(record.share.cores.count() == static_cast<std::uint64_t>(job.width));
      record.until = now_ + Duration::from_s(job.estimate_s);
      record.held = true;
      pending_.erase(record.job);
      promised_.erase(placement.job);
      ledger_.take(record.share);
      horizon_.hold(record.share, record.until);
      result_.start_s[record.index] = (now_ - kOrigin).seconds();
      const std::uint32_t number = record_of_[placement.job.value - 1];
      ends_.push(End{now_ + Duration::from_s(job.run_s), starts_, number});
      if (options_.events == ReplayEvents::kSeq) believed_ends_.push(End{record.until, starts_, number});
      ++starts_;
    }
    for (const sched::Promise& promise : plan.promises) promised_[promise.job] = promise;
    // A complete plan repeats the promises that still hold.
    if (plan.complete && promised_.size() != plan.promises.size()) {
      promised_.clear();
      for (const sched::Promise& promise : plan.promises) promised_[promise.job] = promise;
    }
  }

  [[nodiscard]] const Record& record(JobId id) const { return records_[record_of_[id.value - 1]]; }
  [[nodiscard]] Record& record(JobId id) { return records_[record_of_[id.value - 1]]; }

  const Trace& trace_;
  const ReplayPolicy& policy_;
  const ReplayOptions& options_;
  std::vector<std::size_t> by_submission_;
  std::vector<std::uint32_t> record_of_;  // by id - 1
  std::size_t next_ = 0;                  // in by_submission_
  Instant now_;
  std::deque<Record> records_;
  std::vector<std::uint32_t> unused_;
  std::map<SpecKey, JobSpecPtr> specs_;
  Ends ends_;
  Ends believed_ends_;
  std::uint64_t starts_ = 0;
  std::uint64_t ended_ = 0;
  sched::Ledger ledger_;
  sched::Horizon horizon_;
  sched::PendingIndex pending_;
  std::map<JobId, sched::Promise> promised_;
  PromiseWatch watch_;
  ReplayResult result_;
};

}  // namespace

Result<ReplayResult> replay(const Trace& trace, const ReplayPolicy& policy, const ReplayOptions& options) {
  return Replay(trace, policy, options).run();
}

}  // namespace muster::sim
