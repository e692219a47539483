// Licences: counted things of the whole cluster that a job holds while it runs, as [scheduling] licenses sets them up and
// --licenses asks for them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"

namespace muster {

struct LicenseCount {
  std::string name;
  std::uint64_t count = 0;
  friend auto operator<=>(const LicenseCount&, const LicenseCount&) = default;
};

// By name, each once, none of them zero: how a job's licences stand in its spec after submission.
using LicenseCounts = std::vector<LicenseCount>;
// How many of each there are.
using LicenseTotals = std::map<std::string, std::uint64_t>;

// Bounds what one job or the configuration adds to a pass.
inline constexpr std::size_t kLicensesMax = 1'000;
// Of one licence; sums of millions of jobs still fit 64 bits.
inline constexpr std::uint64_t kLicenseCountMax = 1'000'000'000;

// "matlab:2,ansys" (a bare name is one); by name, each once. `what` names the option or key in the error.
Result<LicenseCounts> parse_licenses(std::string_view text, std::string_view what);
std::string format_licenses(const LicenseCounts& licenses);
// The same for a value that came another way: sorted, with what is named twice added up. Names and counts are checked.
Result<LicenseCounts> merged_licenses(LicenseCounts licenses, std::string_view what);

}  // namespace muster
