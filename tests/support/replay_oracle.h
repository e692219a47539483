// A second replay of workload logs, written from the published rules alone and in the plainest way: plain integers, a
// list of waiting jobs that each pass sorts again, no code of the scheduler. Tests compare the two job by job.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace muster::test {

struct OracleJob {
  std::int64_t submit = 0;
  std::int64_t run = 0;  // at most `estimate`
  std::int64_t estimate = 0;
  std::int64_t width = 0;
  std::int64_t start = -1;
};

// The cost of a job that waits at an instant: the smaller one is served first.
using OracleCost = std::function<double(const OracleJob&, std::int64_t now)>;

// fcfs sjf saf wfp3 unicef
inline OracleCost oracle_cost(const std::string& order) {
  return [order](const OracleJob& job, std::int64_t now) {
    const auto w = static_cast<double>(now - job.submit);
    const auto e = static_cast<double>(job.estimate);
    const auto n = static_cast<double>(job.width);
    if (order == "sjf") return e;
    if (order == "saf") return e * n;
    if (order == "wfp3") return -std::pow(w / e, 3) * n;
    if (order == "unicef") return -w / (std::log2(std::max(n, 2.0)) * e);
    return static_cast<double>(job.submit);
  };
}

class ReplayOracle {
 public:
  // `backfill` is one of none easy easy-sjbf conservative kept; with the last one a job that was promised a start keeps
  // its claim, the first blocked one gets such a promise, and gaps go to the job of the least `gap_cost`. `jobs` stand
  // as in the file.
  ReplayOracle(std::vector<OracleJob> jobs, std::int64_t machine, OracleCost cost, std::string backfill,
               OracleCost gap_cost = {})
      : jobs_(std::move(jobs)),
        machine_(machine),
        cost_(std::move(cost)),
        backfill_(std::move(backfill)),
        gap_cost_(std::move(gap_cost)) {
    for (std::size_t j = 0; j < jobs_.size(); ++j) arrivals_.push_back(j);
    std::stable_sort(arrivals_.begin(), arrivals_.end(),
                     [&](std::size_t a, std::size_t b) { return jobs_[a].submit < jobs_[b].submit; });
  }

  std::vector<OracleJob> run_batch() {
    while (next_arrival_ < arrivals_.size() || !ending_.empty()) {
      now_ = next_event();
      const auto ends = [&](std::size_t j) { return jobs_[j].start + jobs_[j].run <= now_; };
      std::erase_if(holding_, ends);
      const bool any_ended = std::erase_if(ending_, ends) != 0;
      if (backfill_ == "conservative" && any_ended) walk_reservations();
      while (next_arrival_ < arrivals_.size() && jobs_[arrivals_[next_arrival_]].submit <= now_) arrive();
      pass();
    }
    return jobs_;
  }

  std::vector<OracleJob> run_seq() {
    while (next_arrival_ < arrivals_.size() || !ending_.empty()) {
      now_ = next_event();
      if (next_arrival_ < arrivals_.size() && jobs_[arrivals_[next_arrival_]].submit <= now_) {
        forget_believed_ended();
        arrive();
        pass();
        continue;
      }
      const auto first = std::min_element(ending_.begin(), ending_.end(), [&](std::size_t a, std::size_t b) {
        return jobs_[a].start + jobs_[a].run < jobs_[b].start + jobs_[b].run;
      });
      std::erase(holding_, *first);
      ending_.erase(first);
      forget_believed_ended();
      if (backfill_ == "conservative") walk_reservations();
      pass();
    }
    return jobs_;
  }

 private:
  [[nodiscard]] std::int64_t believed_end(std::size_t j) const { return jobs_[j].start + jobs_[j].estimate; }

  [[nodiscard]] std::int64_t next_event() const {
    std::int64_t t = INT64_MAX;
    if (next_arrival_ < arrivals_.size()) t = jobs_[arrivals_[next_arrival_]].submit;
    for (const std::size_t j : ending_) t = std::min(t, jobs_[j].start + jobs_[j].run);
    return t;
  }

  void forget_believed_ended() {
    std::erase_if(holding_, [&](std::size_t j) { return believed_end(j) <= now_; });
  }

  void arrive() {
    const std::size_t j = arrivals_[next_arrival_++];
    waiting_.push_back(j);
    if (backfill_ == "conservative") reserved_[j] = earliest_fit(j);
  }

  void sort_waiting() {
    std::vector<std::tuple<double, std::int64_t, std::size_t>> keyed;
    for (const std::size_t j : waiting_) keyed.emplace_back(cost_(jobs_[j], now_), jobs_[j].submit, j);
    std::sort(keyed.begin(), keyed.end());
    waiting_.clear();
    for (const auto& [k, s, j] : keyed) waiting_.push_back(j);
  }

  [[nodiscard]] std::int64_t free_now() const {
    std::int64_t free = machine_;
    for (const std::size_t j : holding_) free -= jobs_[j].width;
    return free;
  }
  void start(std::size_t j) {
    jobs_[j].start = now_;
    holding_.push_back(j);
    ending_.push_back(j);
    std::erase(waiting_, j);
  }

  void pass() {
    sort_waiting();
    if (backfill_ == "kept") {
      pass_with_kept_promises();
      return;
    }
    if (backfill_ == "conservative") {
      const std::vector<std::size_t> queue = waiting_;
      for (const std::size_t j : queue) {
        if (reserved_[j] <= now_) {
          reserved_.erase(j);
          start(j);
        }
      }
      return;
    }
    std::int64_t free = free_now();
    while (!waiting_.empty() && jobs_[waiting_.front()].width <= free) {
      free -= jobs_[waiting_.front()].width;
      start(waiting_.front());
    }
    if (waiting_.empty() || backfill_ == "none") return;
    const auto [shadow, at_shadow] = shadow_of(waiting_.front(), free);
    std::int64_t extra = at_shadow - jobs_[waiting_.front()].width;
    std::vector<std::size_t> candidates(waiting_.begin() + 1, waiting_.end());
    if (backfill_ == "easy-sjbf") {
      std::sort(candidates.begin(), candidates.end(), [&](std::size_t a, std::size_t b) {
        return std::tuple(jobs_[a].estimate, jobs_[a].submit, a) < std::tuple(jobs_[b].estimate, jobs_[b].submit, b);
      });
    }
    for (const std::size_t j : candidates) {
      const bool ends_in_time = now_ + jobs_[j].estimate <= shadow;
      if (jobs_[j].width > free || (!ends_in_time && jobs_[j].width > extra)) continue;
      free -= jobs_[j].width;
      if (!ends_in_time) extra -= jobs_[j].width;
      start(j);
    }
  }

  void pass_with_kept_promises() {
    const std::map<std::size_t, std::int64_t> claims = std::exchange(reserved_, {});
    std::vector<std::size_t> rest;
    for (const std::size_t j : std::vector<std::size_t>(waiting_)) {
      if (!reserved_.empty() && !claims.contains(j)) {
        rest.push_back(j);
        continue;
      }
      const std::int64_t at = earliest_fit(j);
      if (at == now_) {
        start(j);
      } else {
        reserved_[j] = at;
      }
    }
    std::sort(rest.begin(), rest.end(), [&](std::size_t a, std::size_t b) {
      const auto size = [&](std::size_t j) { return gap_cost_(jobs_[j], now_); };
      return std::tuple(size(a), jobs_[a].submit, a) < std::tuple(size(b), jobs_[b].submit, b);
    });
    for (const std::size_t j : rest) {
      if (earliest_fit(j) == now_) start(j);
    }
  }

  // When the blocked head fits by what is believed, and how much is free then.
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> shadow_of(std::size_t head, std::int64_t free) const {
    std::vector<std::pair<std::int64_t, std::int64_t>> ends;
    for (const std::size_t j : holding_) ends.emplace_back(believed_end(j), jobs_[j].width);
    std::sort(ends.begin(), ends.end());
    for (std::size_t i = 0; i < ends.size(); ++i) {
      free += ends[i].second;
      const bool last_of_instant = i + 1 == ends.size() || ends[i + 1].first != ends[i].first;
      if (last_of_instant && free >= jobs_[head].width) return {ends[i].first, free};
    }
    return {INT64_MAX, free};
  }

  // The earliest start of a job among what runs and what is reserved for the others.
  [[nodiscard]] std::int64_t earliest_fit(std::size_t job) const {
    std::map<std::int64_t, std::int64_t> change;  // of the free cores, at an instant
    change[now_] += machine_;
    for (const std::size_t j : holding_) {
      change[now_] -= jobs_[j].width;
      change[believed_end(j)] += jobs_[j].width;
    }
    for (const auto& [j, at] : reserved_) {
      if (j == job) continue;
      change[std::max(at, now_)] -= jobs_[j].width;
      change[at + jobs_[j].estimate] += jobs_[j].width;
    }
    std::int64_t free = 0;
    std::int64_t since = -1;  // since when enough is free; -1: it is not
    for (auto it = change.begin(); it != change.end(); ++it) {
      if (since >= 0 && it->first - since >= jobs_[job].estimate) return since;
      free += it->second;
      if (free < jobs_[job].width) {
        since = -1;
      } else if (since < 0) {
        since = it->first;
      }
    }
    return since;
  }

  void walk_reservations() {
    sort_waiting();
    for (const std::size_t j : waiting_) reserved_[j] = std::min(reserved_[j], earliest_fit(j));
  }

  std::vector<OracleJob> jobs_;
  std::int64_t machine_;
  OracleCost cost_;
  std::string backfill_;
  OracleCost gap_cost_;
  std::int64_t now_ = 0;
  std::vector<std::size_t> arrivals_;
  std::size_t next_arrival_ = 0;
  std::vector<std::size_t> waiting_;
  std::vector<std::size_t> holding_;  // holds cores by what is believed
  std::vector<std::size_t> ending_;   // has started and not ended (kept apart in seq, where belief may be ahead)
  std::map<std::size_t, std::int64_t> reserved_;
};

}  // namespace muster::test
