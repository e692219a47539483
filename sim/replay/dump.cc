#include "sim/replay/dump.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "lib/base/text.h"

namespace muster::sim {
namespace {

constexpr std::size_t kFlushBytes = 65'536;

Error cannot_write(const std::string& path, int error) {
  return make_error(ErrorCode::kIo, "--dump: cannot write " + printable(path) + ": " + std::strerror(error));
}

// Where the bytes go in the end, links followed; a pipe or a device cannot be replaced by a file.
struct Target {
  std::string path;
  bool direct = false;
};
Result<Target> find_target(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) return cannot_write(path, errno);
    return Target{path, false};
  }
  if (S_ISDIR(status.st_mode)) return cannot_write(path, EISDIR);
  if (!S_ISREG(status.st_mode)) return Target{path, true};
  if (::access(path.c_str(), W_OK) != 0) return cannot_write(path, errno);
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), std::free);
  return real ? Result<Target>(Target{real.get(), false}) : Result<Target>(cannot_write(path, errno));
}

// An open file that is removed unless it was kept.
class Aside {
 public:
  static Result<Aside> make(const std::string& target, const std::string& shown) {
    std::string name = target + ".XXXXXX";
    const int fd = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd < 0) return cannot_write(shown, errno);
    return Aside(fd, std::move(name));
  }
  Aside(Aside&& other) noexcept : fd_(std::exchange(other.fd_, -1)), name_(std::move(other.name_)) {}
  Aside& operator=(Aside&&) = delete;
  ~Aside() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(name_.c_str());
  }

  [[nodiscard]] int fd() const { return fd_; }
  // Takes the target's place; false with errno.
  bool keep_as(const std::string& target) {
    struct stat old {};
    mode_t mode = 0;
    if (::stat(target.c_str(), &old) == 0) {
      mode = old.st_mode & 07777U;
    } else {
      const mode_t mask = ::umask(0);
      ::umask(mask);
      mode = 0666U & ~mask;
    }
    if (::fchmod(fd_, mode) != 0 || ::rename(name_.c_str(), target.c_str()) != 0) return false;
    return ::close(std::exchange(fd_, -1)) == 0;
  }

 private:
  Aside(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  int fd_;
  std::string name_;
};

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

bool write_starts(int fd, const Trace& trace, const ReplayResult& result) {
  std::string text;
  for (std::size_t i = 0; i < trace.jobs.size(); ++i) {
    text += std::to_string(trace.jobs[i].number) + " " + std::to_string(result.start_s[i]) + "\n";
    if (text.size() < kFlushBytes) continue;
    if (!write_all(fd, text)) return false;
    text.clear();
  }
  return write_all(fd, text);
}

}  // namespace

Status check_dump_path(const std::string& path) {
  MUSTER_ASSIGN(const Target target, find_target(path));
  if (target.direct) return ::access(path.c_str(), W_OK) == 0 ? ok_status() : Status(cannot_write(path, errno));
  const auto aside = Aside::make(target.path, path);
  return aside.ok() ? ok_status() : Status(aside.error());
}

Status write_dump(const std::string& path, const Trace& trace, const ReplayResult& result) {
  MUSTER_ASSIGN(const Target target, find_target(path));
  if (target.direct) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return cannot_write(path, errno);
    const bool written = write_starts(fd, trace, result);
    const int error = errno;
    ::close(fd);
    return written ? ok_status() : Status(cannot_write(path, error));
  }
  MUSTER_ASSIGN(Aside aside, Aside::make(target.path, path));
  if (!write_starts(aside.fd(), trace, result) || !aside.keep_as(target.path)) return cannot_write(path, errno);
  return ok_status();
}

}  // namespace muster::sim
