#include "core/engine/deadline.h"

#include <algorithm>

#include "core/sched/span.h"
#include "lib/base/text.h"

namespace muster::engine {

Status check_deadline(const JobSpec& spec, Instant now) {
  if (!spec.deadline.is_set()) {
    return ok_status();
  }
  if (spec.deadline <= now) {
    return invalid_argument("--deadline is in the past: give a time to come");
  }
  const Instant start = std::max(now, spec.begin);
  if (start <= *sched::latest_start(spec)) {
    return ok_status();
  }
  const bool has_min = spec.time_min != Duration{};
  const Duration left = std::max(Duration{}, spec.deadline - start);
  return make_error(ErrorCode::kRefused, std::string("the job cannot end by its --deadline: ") +
                                             (spec.begin > now ? "from --begin on " : "") + format_duration(left) +
                                             " are left, and " + (has_min ? "--time-min is " : "--time is ") +
                                             format_duration(sched::least_limit(spec)) +
                                             (has_min ? ": give a later deadline or a shorter --time-min"
                                                      : ": give a later deadline, a shorter --time, or --time-min"));
}

void settle_deadlines(const State& state, Instant now, Decision& decision) {
  const char* reason = "DeadLine: it could not end by its deadline any more";
  const auto fact = [&](FactBody body) { decision.facts.push_back(Fact{now, std::move(body)}); };
  for (const DeadlineEntry& entry : state.deadlines) {
    if (entry.at > now) {
      return;
    }
    // The last moment at which it may start is still one.
    const bool waits_too_long = entry.at < now;
    if (entry.is_array) {
      for (const PositionRange& r : waits_too_long ? state.arrays.at(entry.job).waiting : Positions{}) {
        fact(ArrayTasksEnded{.array = entry.job, .positions = r, .state = JobState::kDeadline, .reason = reason});
      }
      continue;
    }
    const Job& job = state.jobs.at(entry.job);
    if (job.is_active()) {
      fact(StopRequested{.key = {job.id, job.attempt}, .cause = StopCause::kDeadline, .signal = 0, .by = {}});
    } else if (waits_too_long) {
      fact(JobEnded{.job = job.id, .state = JobState::kDeadline, .reason = reason});
    }
  }
}

std::optional<Instant> next_deadline(const State& state) {
  return state.deadlines.empty() ? std::nullopt : std::optional(state.deadlines.begin()->at);
}

}  // namespace muster::engine
