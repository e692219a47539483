// Sanitizers make everything several times slower. Every time in a test that something must be done within is multiplied by
// this factor (cluster.py has the same), so that no bound is wider than it needs to be in the build that users run.
#pragma once

namespace muster::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kSlowness = 5;
#else
inline constexpr int kSlowness = 1;
#endif

}  // namespace muster::test
