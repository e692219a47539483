// Job ids as users write them: "42", a task "42_7", tasks "42_[1-3,9]", a step "42.0".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/model/command.h"

namespace muster::cli {

struct JobRef {
  JobSelector::Item item;
  std::optional<std::uint32_t> step;
};
// The error names the text.
Result<JobRef> parse_job_ref(std::string_view text);
// "42,43_[1-3]": commas inside brackets belong to the id.
Result<std::vector<JobSelector::Item>> parse_job_list(std::string_view text);

// Names of states, also "active" (starting, running, suspended, stopping) and "ended" (all terminal ones), in any case.
Result<std::vector<JobState>> parse_states(std::string_view text, std::string_view what);

// The most ids in one request; more are named by filters.
inline constexpr std::size_t kJobIdsMax = 100'000;

}  // namespace muster::cli
