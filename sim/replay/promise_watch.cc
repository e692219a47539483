#include "sim/replay/promise_watch.h"

#include <algorithm>

namespace muster::sim {

void PromiseWatch::observe(const Pass& pass) {
  for (const JobId job : pass.started) {
    const auto it = told_.find(job);
    if (it == told_.end()) continue;
    if (it->second.harmed.is_set() && pass.now > it->second.harmed) ++broken_;
    told_.erase(it);
  }
  if (!pass.started.empty() && !told_.empty()) find_harm(pass);
  for (const sched::Promise& promise : pass.promises) told_[promise.job].start = promise.start;
}

void PromiseWatch::find_harm(const Pass& pass) {
  std::vector<Candidate> started;
  started.reserve(pass.started.size());
  for (const JobId id : pass.started) started.push_back(pass.job(id));
  if (all_promises_hold(pass, started)) return;
  std::map<JobId, Instant> answers;
  std::map<JobId, Candidate> promised_jobs;
  for (const sched::Promise& promise : pass.promises) {
    answers.emplace(promise.job, promise.start);
    promised_jobs.emplace(promise.job, pass.job(promise.job));
  }
  for (auto it = told_.begin(); it != told_.end();) {
    Told& told = it->second;
    const auto answer = answers.find(it->first);
    const Instant promised = answer == answers.end() ? told.start : std::min(told.start, answer->second);
    if (promised < pass.now && !told.harmed.is_set() && answer == answers.end()) {
      it = told_.erase(it);  // missed by no fault of those behind it
      continue;
    }
    if (promised >= pass.now && harmed(pass, pass.job(it->first), promised, started, promised_jobs)) {
      told.harmed = told.harmed.is_set() ? std::min(told.harmed, promised) : promised;
    }
    ++it;
  }
}

// The usual case at the cost of one look: every promise was repeated, none is later, and all of them fit beside each
// other and what runs.
bool PromiseWatch::all_promises_hold(const Pass& pass, const std::vector<Candidate>& started) const {
  if (pass.promises.size() < told_.size()) return false;
  std::size_t repeated = 0;
  std::vector<Span> spans;
  spans.reserve(pass.runs.size() + started.size() + pass.promises.size());
  for (const sched::Promise& promise : pass.promises) {
    if (const auto it = told_.find(promise.job); it != told_.end()) {
      if (promise.start > it->second.start) return false;
      ++repeated;
    }
    const Candidate job = pass.job(promise.job);
    spans.push_back(Span{promise.start, sched::end_of(promise.start, job.limit), job.cores});
  }
  if (repeated != told_.size()) return false;
  for (const sched::Horizon::Hold& run : pass.runs) spans.push_back(Span{pass.now, run.until, run.amount.cores});
  for (const Candidate& job : started) spans.push_back(Span{pass.now, sched::end_of(pass.now, job.limit), job.cores});
  return most_taken(spans, pass.now, Instant{INT64_MAX}) <= pass.machine;
}

bool PromiseWatch::harmed(const Pass& pass, const Candidate& job, Instant promised,
                          const std::vector<Candidate>& started,
                          const std::map<JobId, Candidate>& promised_jobs) const {
  const Instant end = sched::end_of(promised, job.limit);
  std::vector<Span> spans;
  std::vector<Span> behind;
  for (const Candidate& other : started) {
    const Span span{pass.now, sched::end_of(pass.now, other.limit), other.cores};
    if (span.until > promised) (other.standing < job.standing ? spans : behind).push_back(span);
  }
  if (behind.empty()) return false;
  for (auto run = pass.runs.rbegin(); run != pass.runs.rend() && run->until > promised; ++run) {
    spans.push_back(Span{pass.now, run->until, run->amount.cores});
  }
  for (const sched::Promise& promise : pass.promises) {
    const Candidate& other = promised_jobs.at(promise.job);
    if (other.standing < job.standing) {
      spans.push_back(Span{promise.start, sched::end_of(promise.start, other.limit), other.cores});
    }
  }
  if (most_taken(spans, promised, end) + job.cores > pass.machine) return false;  // those before it are in its way
  spans.insert(spans.end(), behind.begin(), behind.end());
  return most_taken(spans, promised, end) + job.cores > pass.machine;
}

std::int64_t PromiseWatch::most_taken(const std::vector<Span>& spans, Instant from, Instant until) {
  std::vector<std::pair<Instant, std::int64_t>> changes;
  changes.reserve(2 * spans.size());
  for (const Span& span : spans) {
    if (span.until <= from || span.from >= until) continue;
    changes.emplace_back(std::max(span.from, from), span.cores);
    changes.emplace_back(span.until, -span.cores);
  }
  std::sort(changes.begin(), changes.end());  // of one instant what ends comes first
  std::int64_t taken = 0;
  std::int64_t most = 0;
  for (const auto& [at, change] : changes) {
    if (at >= until) break;
    taken += change;
    most = std::max(most, taken);
  }
  return most;
}

}  // namespace muster::sim
