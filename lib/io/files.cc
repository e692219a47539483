#include "lib/io/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <vector>

#include "lib/base/text.h"
#include "lib/io/hash.h"

namespace muster::io {
namespace {

ErrorCode code_of(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
      return ErrorCode::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::kPermissionDenied;
    case EEXIST:
      return ErrorCode::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
      return ErrorCode::kLimitReached;
    default:
      return ErrorCode::kIo;
  }
}

// open(2) repeated while signals interrupt it; the descriptor is never inherited by programs.
Fd open_file(const std::string& path, int flags, mode_t mode = 0) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return Fd(fd);
}

Status write_all(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno_error("write", path, errno);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return ok_status();
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status write_new_file(const std::string& path, std::string_view bytes, mode_t mode) {
  const Fd file = open_file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  if (!file.valid()) return errno_error("create", path, errno);
  if (::fchmod(file.get(), mode) != 0) return errno_error("set the mode of", path, errno);
  MUSTER_TRY(write_all(file.get(), bytes, path));
  if (::fsync(file.get()) != 0) return errno_error("sync", path, errno);
  return ok_status();
}

// An open-file-description lock over the whole file: unlike a POSIX lock it survives other descriptors being closed,
// and unlike flock it can be queried without being taken.
struct flock whole_file_lock(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

pid_t pid_in_file(int fd) {
  char text[32];
  const ssize_t length = ::pread(fd, text, sizeof text, 0);
  if (length <= 0) return 0;
  pid_t pid = 0;
  std::from_chars(text, text + length, pid);
  return pid > 0 ? pid : 0;
}

// Who held a lock may remove its file before giving it up, as `muster local stop` does with its whole folder. Whoever opened
// the file before that would hold a lock that nobody else can see.
bool is_file_of_path(int fd, const std::string& path) {
  struct stat of_fd {};
  struct stat of_path {};
  return ::fstat(fd, &of_fd) == 0 && ::lstat(path.c_str(), &of_path) == 0 && of_fd.st_dev == of_path.st_dev &&
         of_fd.st_ino == of_path.st_ino;
}

Status remove_at(int folder, const char* name, const std::string& path, int depth) {
  if (::unlinkat(folder, name, 0) == 0 || errno == ENOENT) return ok_status();
  if (errno != EISDIR && errno != EPERM) return errno_error("remove", path, errno);
  if (depth == 0) return make_error(ErrorCode::kLimitReached, "cannot remove " + path + ": too many folders deep");
  const int fd = ::openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? ok_status() : Status(errno_error("open", path, errno));
  DIR* entries = ::fdopendir(fd);
  if (entries == nullptr) {
    ::close(fd);
    return errno_error("read", path, errno);
  }
  Status status = ok_status();
  while (const dirent* entry = ::readdir(entries)) {
    const std::string_view entry_name = entry->d_name;
    if (entry_name == "." || entry_name == "..") continue;
    status = remove_at(fd, entry->d_name, path + "/" + entry->d_name, depth - 1);
    if (!status.ok()) break;
  }
  ::closedir(entries);
  if (!status.ok()) return status;
  if (::unlinkat(folder, name, AT_REMOVEDIR) != 0 && errno != ENOENT) return errno_error("remove", path, errno);
  return ok_status();
}

}  // namespace

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

std::string errno_text(std::string_view op, std::string_view path, int error_number) {
  char buffer[256];
  const char* text = ::strerror_r(error_number, buffer, sizeof buffer);
  return "cannot " + std::string(op) + " " + printable(path) + ": " + text;
}

Error errno_error(std::string_view op, std::string_view path, int error_number) {
  return make_error(code_of(error_number), errno_text(op, path, error_number));
}

Result<std::string> read_file(const std::string& path, std::size_t bytes_max) {
  bytes_max = std::min<std::size_t>(bytes_max, SIZE_MAX / 4);
  const Fd file = open_file(path, O_RDONLY);
  if (!file.valid()) return errno_error("read", path, errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return errno_error("read", path, errno);
  if (S_ISDIR(info.st_mode)) return errno_error("read", path, EISDIR);
  std::string bytes;
  // The size is only a hint: files of /proc say 0, and others may grow meanwhile.
  constexpr std::size_t kPiece = 64 * 1024;
  const std::size_t expected = info.st_size > 0 ? static_cast<std::size_t>(info.st_size) : 0;
  std::size_t used = 0;
  while (true) {
    if (used > bytes_max) {
      return make_error(ErrorCode::kLimitReached,
                        printable(path) + " is too large: at most " + std::to_string(bytes_max) + " bytes are read");
    }
    const std::size_t piece = expected > used ? std::min(expected - used, bytes_max) + 1 : kPiece;
    bytes.resize(used + std::min(piece, bytes_max - used + 1));
    const ssize_t got = ::read(file.get(), bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno_error("read", path, errno);
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
  }
  bytes.resize(used);
  return bytes;
}

Status write_file_atomic(const std::string& path, std::string_view bytes, mode_t mode) {
  const std::string temporary = path + ".tmp." + to_hex(random_bytes(6));
  Status status = write_new_file(temporary, bytes, mode);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) status = errno_error("replace", path, errno);
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  const std::string folder = folder_of(path);
  const Fd folder_fd = open_file(folder, O_RDONLY | O_DIRECTORY);
  if (!folder_fd.valid()) return errno_error("open", folder, errno);
  if (::fsync(folder_fd.get()) != 0) return errno_error("sync", folder, errno);
  return ok_status();
}

Status make_dirs(const std::string& path, mode_t mode) {
  if (path.empty()) return errno_error("create folder", path, ENOENT);
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
      const int error_number = errno;
      struct stat info {};
      // Parents may be forbidden to write (EACCES, EROFS) and yet exist.
      if (::stat(part.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
        return errno_error("create folder", part, error_number);
      }
    }
    if (end == std::string::npos) break;
  }
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return errno_error("create folder", path, errno);
  if (!S_ISDIR(info.st_mode)) return errno_error("create folder", path, ENOTDIR);
  return ok_status();
}

Status remove_tree(const std::string& path) {
  constexpr int kDepthMax = 200;  // folders within folders; bounds the descriptors held open
  return remove_at(AT_FDCWD, path.c_str(), path, kDepthMax);
}

bool path_exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

std::string absolute_path(const std::string& base, const std::string& path) {
  if (path.empty() || path.front() == '/' || base.empty()) return path;
  return base.back() == '/' ? base + path : base + "/" + path;
}

Result<PidLock> PidLock::take(const std::string& path) {
  Fd file;
  do {
    file = open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0644);
    if (!file.valid()) return errno_error("open", path, errno);
    struct flock lock = whole_file_lock(F_WRLCK);
    if (::fcntl(file.get(), F_OFD_SETLK, &lock) != 0) {
      if (errno != EAGAIN && errno != EACCES) return errno_error("lock", path, errno);
      return make_error(ErrorCode::kAlreadyExists, printable(path) + " is held by process " +
                                                       std::to_string(pid_in_file(file.get())) +
                                                       ": stop that process first, or give another folder");
    }
  } while (!is_file_of_path(file.get(), path));  // each round means that another holder came and went
  // Over the old text and then cut, so that a full disk, which has room for what is there, stops no daemon's restart.
  const std::string text = std::to_string(::getpid()) + "\n";
  MUSTER_TRY(write_all(file.get(), text, path));
  if (::ftruncate(file.get(), static_cast<off_t>(text.size())) != 0) return errno_error("write", path, errno);
  return PidLock(std::move(file));
}

pid_t pid_lock_holder(const std::string& path) {
  const Fd file = open_file(path, O_RDONLY);
  if (!file.valid()) return 0;
  struct flock lock = whole_file_lock(F_RDLCK);
  if (::fcntl(file.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  return pid_in_file(file.get());
}

}  // namespace muster::io
