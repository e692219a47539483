#include "lib/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace muster {
void check_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "muster: internal error: check failed: %s (%s:%d)\n", condition, file, line);
  std::fflush(stderr);
  std::abort();
}
}  // namespace muster
