// Files and descriptors. Errors carry the operation, the path and the system's text. Callable from every thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "lib/base/result.h"

namespace muster::io {

// A file descriptor that closes itself; -1 is none.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~Fd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// "cannot OP PATH: TEXT OF errno", with a code that fits errno (ENOENT kNotFound, EACCES kPermissionDenied, ..).
Error errno_error(std::string_view op, std::string_view path, int error_number);
std::string errno_text(std::string_view op, std::string_view path, int error_number);

// The whole file. More than bytes_max is kLimitReached.
Result<std::string> read_file(const std::string& path, std::size_t bytes_max);

// The file has either its old or its new content after any crash: temporary file, fsync, rename, fsync of the folder.
Status write_file_atomic(const std::string& path, std::string_view bytes, mode_t mode);

// Makes the folder and its parents; an existing one is left as it is.
Status make_dirs(const std::string& path, mode_t mode);

// Removes a file or a whole tree; what does not exist is no error. Symbolic links are removed, not followed.
Status remove_tree(const std::string& path);

bool path_exists(const std::string& path);
// `path` itself when it is absolute, else below `base`.
std::string absolute_path(const std::string& base, const std::string& path);

// Holds "this folder is served by one process": PATH contains the pid and is locked as long as the object lives.
class PidLock {
 public:
  // kAlreadyExists names the process that holds it. The file may be removed by who holds the lock, and by nobody else.
  static Result<PidLock> take(const std::string& path);

 private:
  explicit PidLock(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

// The pid in a lock file that a living process holds; 0 when nobody holds it.
pid_t pid_lock_holder(const std::string& path);

}  // namespace muster::io
