// Sentences about accounts, users and QOS. For the files of accounting alone.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/text.h"

namespace muster::engine {

inline constexpr std::size_t kNamedMax = 10;  // jobs, accounts or users that one sentence names

inline Error refused(std::string message) {
  return make_error(ErrorCode::kRefused, std::move(message));
}

// "a, b and 3 more"
inline std::string list_text(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kNamedMax); ++i) {
    text += (i == 0 ? "" : ", ") + printable(names[i]);
  }
  return names.size() > kNamedMax ? text + " and " + std::to_string(names.size() - kNamedMax) + " more" : text;
}

template <typename Map>
std::string hint(const Map& map, std::string_view name, const char* kind) {
  std::vector<std::string> known;
  for (const auto& [each, record] : map) {
    known.push_back(each);
  }
  const std::string nearest = nearest_word(name, known);
  return nearest.empty() ? std::string("see `muster ") + kind + " list`" : "did you mean " + nearest + "?";
}

inline bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::binary_search(names.begin(), names.end(), name);
}

}  // namespace muster::engine
