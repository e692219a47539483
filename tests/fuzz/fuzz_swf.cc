// Workload logs: the reader, the choice of jobs, and, where few are left, their replay.
#include "sim/replay/policies.h"
#include "sim/replay/replay.h"
#include "sim/replay/swf.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace muster;

constexpr std::size_t kReplayedMax = 24;
constexpr std::int64_t kMachineMax = 512;

sim::SwfLog read_in_pieces(std::string_view text, std::size_t piece) {
  sim::SwfParser parser;
  for (; !text.empty(); text.remove_prefix(std::min(piece, text.size()))) {
    MUSTER_CHECK(parser.feed(text.substr(0, piece)).ok());
  }
  auto log = parser.finish();
  MUSTER_CHECK(log.ok());
  return *std::move(log);
}

void check_trace(const sim::Trace& trace, const sim::SwfLog& log, const sim::TraceOptions& options) {
  MUSTER_CHECK(trace.jobs.size() + trace.dropped == log.records.size());
  MUSTER_CHECK(trace.machine >= 1 && trace.machine <= sim::kReplayMachineMax);
  for (const sim::TraceJob& job : trace.jobs) {
    MUSTER_CHECK(job.submit_s >= 0 && job.run_s >= 1 && job.run_s <= job.estimate_s);
    MUSTER_CHECK(job.width >= 1 && job.width <= trace.machine);
    MUSTER_CHECK(!options.perfect_estimates || job.run_s == job.estimate_s);
  }
}

void check_replay(const sim::Trace& trace, const char* name, sim::ReplayEvents events) {
  const auto policy = sim::find_policy(name, "");
  MUSTER_CHECK(policy.ok());
  sim::ReplayOptions options;
  options.events = events;
  const auto result = sim::replay(trace, *policy, options);
  if (!result.ok()) {
    muster::fuzz::check_error(result.error());
    return;
  }
  for (std::size_t i = 0; i < trace.jobs.size(); ++i) MUSTER_CHECK(result->start_s[i] >= trace.jobs[i].submit_s);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  const sim::SwfLog log = read_in_pieces(text, text.size() + 1);
  const sim::SwfLog again = read_in_pieces(text, 1 + size % 7);
  MUSTER_CHECK(log.records == again.records && log.first_bad == again.first_bad && log.lines == again.lines);
  MUSTER_CHECK(log.first_bad.size() <= sim::kSwfBadLinesKept && log.first_bad.size() <= log.bad_lines);
  MUSTER_CHECK(log.records.size() + log.bad_lines <= log.lines);
  for (const std::string& bad : log.first_bad) MUSTER_CHECK(printable(bad) == bad);

  for (const sim::TraceFilter filter : {sim::TraceFilter::kStrict, sim::TraceFilter::kNone}) {
    sim::TraceOptions options;
    options.filter = filter;
    options.perfect_estimates = size % 2 == 0;
    options.width = size % 3 == 0 ? sim::TraceWidth::kLargest : sim::TraceWidth::kRequested;
    const auto trace = sim::select_jobs(log, options);
    if (!trace.ok()) {
      fuzz::check_error(trace.error());
      continue;
    }
    check_trace(*trace, log, options);
    if (trace->jobs.size() > kReplayedMax || trace->machine > kMachineMax) continue;
    check_replay(*trace, "default", sim::ReplayEvents::kBatch);
    check_replay(*trace, "conservative", sim::ReplayEvents::kSeq);
    check_replay(*trace, "unicef", sim::ReplayEvents::kSeq);
  }
  return 0;
}
