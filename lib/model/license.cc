#include "lib/model/license.h"

#include <algorithm>

#include "lib/base/text.h"

namespace muster {
namespace {

Status check(const LicenseCount& one, std::string_view what) {
  if (!is_valid_node_name(one.name)) {
    return invalid_argument(std::string(what) + ": \"" + printable(one.name.substr(0, 60)) +
                            "\" is no name of a licence: use 1 to 63 letters, digits, '_', '.', '-'");
  }
  if (one.count == 0 || one.count > kLicenseCountMax) {
    return invalid_argument(std::string(what) + ": " + std::to_string(one.count) + " of licence " + one.name +
                            " is out of bounds: give 1 to " + std::to_string(kLicenseCountMax));
  }
  return ok_status();
}

}  // namespace

Result<LicenseCounts> merged_licenses(LicenseCounts licenses, std::string_view what) {
  if (licenses.size() > kLicensesMax) {
    return invalid_argument(std::string(what) + " names more than " + std::to_string(kLicensesMax) +
                            " licences: name fewer");
  }
  std::sort(licenses.begin(), licenses.end());
  LicenseCounts merged;
  for (LicenseCount& one : licenses) {
    MUSTER_TRY(check(one, what));
    if (!merged.empty() && merged.back().name == one.name) {
      merged.back().count = std::min(merged.back().count + one.count, kLicenseCountMax);
    } else {
      merged.push_back(std::move(one));
    }
  }
  return merged;
}

Result<LicenseCounts> parse_licenses(std::string_view text, std::string_view what) {
  LicenseCounts licenses;
  for (const std::string_view item : split(text, ',')) {
    const std::string_view trimmed = trim(item);
    const std::size_t colon = trimmed.find(':');
    LicenseCount one{std::string(trimmed.substr(0, colon)), 1};
    if (colon != std::string_view::npos) {
      MUSTER_ASSIGN(one.count, parse_count(trimmed.substr(colon + 1), std::string(what) + " " + printable(one.name),
                                           {1, kLicenseCountMax}));
    }
    licenses.push_back(std::move(one));
    if (licenses.size() > kLicensesMax) {
      break;
    }
  }
  std::vector<std::string> names;
  for (const LicenseCount& one : licenses) {
    names.push_back(one.name);
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    return invalid_argument(std::string(what) + " names licence " + printable(*twice) + " twice: name it once");
  }
  return merged_licenses(std::move(licenses), what);
}

std::string format_licenses(const LicenseCounts& licenses) {
  std::string text;
  for (const LicenseCount& one : licenses) {
    text += (text.empty() ? "" : ",") + one.name + ":" + std::to_string(one.count);
  }
  return text;
}

}  // namespace muster
