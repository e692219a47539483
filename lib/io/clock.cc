#include "lib/io/clock.h"

#include <ctime>

#include "lib/base/text.h"
#include "lib/io/files.h"

namespace muster::io {
namespace {
std::int64_t read_us(clockid_t clock) {
  timespec now{};
  MUSTER_CHECK(clock_gettime(clock, &now) == 0);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}
}  // namespace

Instant wall_now() {
  return Instant::from_us(read_us(CLOCK_REALTIME));
}

Duration boottime_now() {
  return Duration::from_us(read_us(CLOCK_BOOTTIME));
}

Result<std::string> boot_id() {
  constexpr std::size_t kBytesMax = 4096;
  MUSTER_ASSIGN(const std::string text, read_file("/proc/sys/kernel/random/boot_id", kBytesMax));
  return std::string(trim(text));
}

}  // namespace muster::io
