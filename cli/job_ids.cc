#include "cli/job_ids.h"

#include "lib/base/text.h"

namespace muster::cli {
namespace {

Error bad_id(std::string_view text) {
  return invalid_argument("job \"" + printable(text.substr(0, 40)) +
                          "\": no job id: write 42, 42_7 for a task of an array, or 42_[1-3,9]");
}

constexpr JobState kAllStates[] = {
    JobState::kPending,    JobState::kStarting,  JobState::kRunning,   JobState::kSuspended, JobState::kStopping,
    JobState::kCompleted,  JobState::kFailed,    JobState::kCancelled, JobState::kTimeout,   JobState::kOutOfMemory,
    JobState::kNodeFailed, JobState::kPreempted, JobState::kDeadline};

}  // namespace

Result<JobRef> parse_job_ref(std::string_view text) {
  JobRef ref;
  std::string_view rest = text;
  if (const std::size_t dot = rest.rfind('.'); dot != std::string_view::npos) {
    const auto step = parse_count(rest.substr(dot + 1), "step", {0, UINT32_MAX});
    if (!step.ok()) return bad_id(text);
    ref.step = static_cast<std::uint32_t>(*step);
    rest = rest.substr(0, dot);
  }
  const std::size_t underscore = rest.find('_');
  const auto id = parse_count(rest.substr(0, underscore), "job", {1, UINT64_MAX});
  if (!id.ok()) return bad_id(text);
  ref.item.id = JobId{*id};
  if (underscore == std::string_view::npos) return ref;
  std::string_view indices = rest.substr(underscore + 1);
  if (indices.starts_with("[") != indices.ends_with("]") || indices.size() < 1) return bad_id(text);
  if (indices.starts_with("[")) {
    indices.remove_prefix(1);
    indices.remove_suffix(1);
  } else if (indices.find_first_not_of("0123456789") != std::string_view::npos) {
    return bad_id(text);
  }
  auto spec = parse_array_spec(indices);
  if (!spec.ok()) return invalid_argument("job \"" + printable(text.substr(0, 40)) + "\": " + spec.error().message);
  if (spec->max_running != 0) return bad_id(text);
  ref.item.has_indices = true;
  ref.item.indices = std::move(spec->ranges);
  return ref;
}

Result<std::vector<JobSelector::Item>> parse_job_list(std::string_view text) {
  std::vector<JobSelector::Item> items;
  while (true) {
    std::size_t end = 0;
    bool inside = false;
    while (end < text.size() && (inside || text[end] != ',')) {
      if (text[end] == '[') inside = true;
      if (text[end] == ']') inside = false;
      ++end;
    }
    MUSTER_ASSIGN(JobRef ref, parse_job_ref(trim(text.substr(0, end))));
    if (ref.step) return bad_id(text.substr(0, end));
    if (items.size() == kJobIdsMax) {
      return invalid_argument("more than " + std::to_string(kJobIdsMax) +
                              " job ids: select by --user, --queue or --state");
    }
    items.push_back(std::move(ref.item));
    if (end == text.size()) return items;
    text.remove_prefix(end + 1);
  }
}

Result<std::vector<JobState>> parse_states(std::string_view text, std::string_view what) {
  std::vector<JobState> states;
  std::vector<std::string> names;
  for (const JobState state : kAllStates) names.emplace_back(to_string(state));
  names.insert(names.end(), {"active", "ended", "all"});
  for (const std::string_view part : split(text, ',')) {
    const std::string word = to_lower(trim(part));
    bool found = false;
    for (const JobState state : kAllStates) {
      const bool active = !is_terminal(state) && state != JobState::kPending;
      const bool wanted = word == to_string(state) || word == "all" || (word == "active" && active) ||
                          (word == "ended" && is_terminal(state));
      if (!wanted) continue;
      states.push_back(state);
      found = true;
    }
    if (found) continue;
    const std::string nearest = nearest_word(word, names);
    return invalid_argument(std::string(what) + ": \"" + printable(part.substr(0, 40)) + "\" is no state: " +
                            (nearest.empty() ? "use pending, running, completed, failed, active, ended, ..."
                                             : "did you mean " + nearest + "?"));
  }
  return states;
}

}  // namespace muster::cli
