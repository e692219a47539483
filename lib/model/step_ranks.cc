#include "lib/model/step_ranks.h"

#include <algorithm>
#include <cstddef>

namespace muster {

std::vector<std::vector<std::uint32_t>> deal_ranks(const std::vector<std::uint32_t>& tasks, std::uint32_t plane) {
  std::vector<std::vector<std::uint32_t>> out(tasks.size());
  std::uint32_t next = 0;
  bool more = true;
  while (more) {
    more = false;
    for (std::size_t node = 0; node < tasks.size(); ++node) {
      const auto left = tasks[node] - static_cast<std::uint32_t>(out[node].size());
      const std::uint32_t now = plane == 0 ? left : std::min(left, plane);
      for (std::uint32_t i = 0; i < now; ++i) {
        out[node].push_back(next++);
      }
      more = more || now < left;
    }
  }
  return out;
}

}  // namespace muster
