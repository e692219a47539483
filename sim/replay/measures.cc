#include "sim/replay/measures.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace muster::sim {
namespace {

constexpr std::int64_t kShortRunS = 10;  // a shorter run time counts as this much in the bounded slowdown
constexpr double kNsPerS = 1e9;
constexpr double kNsPerUs = 1e3;

// The value at place ceil(percent / 100 * n) of the sorted ones, from 1; 0 of none.
std::int64_t percentile(std::vector<std::int64_t> values, std::uint64_t percent) {
  if (values.empty()) return 0;
  const std::size_t place = (values.size() * percent + 99) / 100;
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(place - 1);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

Measures measure(const Trace& trace, const ReplayResult& result) {
  Measures m;
  m.jobs = trace.jobs.size();
  if (m.jobs == 0) return m;
  const auto [first, last] =
      std::minmax_element(trace.jobs.begin(), trace.jobs.end(),
                          [](const TraceJob& a, const TraceJob& b) { return a.submit_s < b.submit_s; });
  std::vector<std::int64_t> waits;
  waits.reserve(trace.jobs.size());
  double slowdowns = 0;
  double busy = 0;
  double wait_sum = 0;
  std::int64_t last_end = first->submit_s;
  for (std::size_t i = 0; i < trace.jobs.size(); ++i) {
    const TraceJob& job = trace.jobs[i];
    const std::int64_t start = result.start_s[i];
    const std::int64_t end = start + job.run_s;
    const std::int64_t wait = start - job.submit_s;
    waits.push_back(wait);
    wait_sum += static_cast<double>(wait);
    slowdowns +=
        std::max(1.0, static_cast<double>(wait + job.run_s) / static_cast<double>(std::max(job.run_s, kShortRunS)));
    const std::int64_t inside = std::max<std::int64_t>(0, std::min(end, last->submit_s) - start);
    busy += static_cast<double>(inside) * static_cast<double>(job.width);
    last_end = std::max(last_end, end);
  }
  const auto n = static_cast<double>(m.jobs);
  m.avebsld = slowdowns / n;
  m.mean_wait_s = wait_sum / n;
  m.max_wait_s = *std::max_element(waits.begin(), waits.end());
  m.p95_wait_s = percentile(std::move(waits), 95);
  const std::int64_t span = last->submit_s - first->submit_s;
  if (span > 0) m.util_in = busy / (static_cast<double>(trace.machine) * static_cast<double>(span));
  m.makespan_s = last_end - first->submit_s;
  return m;
}

namespace {

struct PassTimes {
  double p50_us = 0;
  double p95_us = 0;
  double max_us = 0;
};
PassTimes pass_times(const ReplayResult& result) {
  const auto us = [&](std::uint64_t percent) {
    return static_cast<double>(percentile(result.pass_ns, percent)) / kNsPerUs;
  };
  return {us(50), us(95), us(100)};
}

}  // namespace

// The names are words without quotes; doubles are printed so that reading them gives the same double again.
std::string report_json(const Trace& trace, const ReplayResult& result, const ReportFacts& facts) {
  const Measures m = measure(trace, result);
  std::string out = fmt::format(
      R"({{"policy":"{}","backfill":"{}","events":"{}","machine_cores":{},"jobs":{},"dropped_jobs":{},"bad_lines":{},)"
      R"("avebsld":{},"mean_wait_s":{},"p95_wait_s":{},"max_wait_s":{},"util_in":{},"makespan_s":{},)"
      R"("broken_promises":{},"scheduling_s":{},"passes":{})",
      facts.policy, facts.backfill, facts.events, trace.machine, m.jobs, facts.dropped, facts.bad_lines, m.avebsld,
      m.mean_wait_s, m.p95_wait_s, m.max_wait_s, m.util_in, m.makespan_s, result.broken_promises,
      static_cast<double>(result.scheduling_ns) / kNsPerS, result.passes);
  if (!result.pass_ns.empty()) {
    const PassTimes t = pass_times(result);
    out += fmt::format(R"(,"pass_p50_us":{},"pass_p95_us":{},"pass_max_us":{})", t.p50_us, t.p95_us, t.max_us);
  }
  return out + "}\n";
}

std::string report_text(const Trace& trace, const ReplayResult& result, const ReportFacts& facts) {
  const Measures m = measure(trace, result);
  std::vector<std::pair<const char*, std::string>> rows = {
      {"policy", facts.policy + ", backfill " + facts.backfill + ", events " + facts.events},
      {"machine", fmt::format("{} cores", trace.machine)},
      {"jobs", fmt::format("{} ({} left out by the filter, {} bad lines)", m.jobs, facts.dropped, facts.bad_lines)},
      {"bounded slowdown", fmt::format("{:.3f}", m.avebsld)},
      {"mean wait", fmt::format("{:.0f} s", m.mean_wait_s)},
      {"95 % wait at most", fmt::format("{} s", m.p95_wait_s)},
      {"longest wait", fmt::format("{} s", m.max_wait_s)},
      {"utilisation", fmt::format("{:.4f} between the first and the last submission", m.util_in)},
      {"makespan", fmt::format("{} s", m.makespan_s)},
      {"broken promises", fmt::format("{}", result.broken_promises)},
      {"scheduling",
       fmt::format("{:.3f} s in {} passes", static_cast<double>(result.scheduling_ns) / kNsPerS, result.passes)}};
  if (!result.pass_ns.empty()) {
    const PassTimes t = pass_times(result);
    rows.emplace_back("one pass", fmt::format("median {:.1f} us, 95 % at most {:.1f} us, longest {:.1f} us", t.p50_us,
                                              t.p95_us, t.max_us));
  }
  std::string out;
  for (const auto& [name, value] : rows) out += fmt::format("{:<19}{}\n", name, value);
  return out;
}

}  // namespace muster::sim
