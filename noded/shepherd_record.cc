// The shepherd's record on disk: the mark that makes an attempt its own, and the outcome.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "noded/shepherd.h"
#include "noded/shepherd_util.h"

namespace muster::noded {
namespace {

// Field 22 of /proc/self/stat: with the pid it names a process for ever.
std::string start_time_of_self() {
  char buffer[1024];
  const int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return "0";
  }
  const ssize_t n = read(fd, buffer, sizeof(buffer));
  close(fd);
  std::string_view text(buffer, n > 0 ? static_cast<std::size_t>(n) : 0);
  const auto name_end = text.rfind(')');
  if (name_end == std::string_view::npos) {
    return "0";
  }
  text.remove_prefix(name_end + 1);
  for (int field = 2; field < 22; ++field) {
    const auto blank = text.find(' ');
    if (blank == std::string_view::npos) {
      return "0";
    }
    text.remove_prefix(blank + 1);
  }
  return std::string(text.substr(0, text.find(' ')));
}

// 0, or the errno. EEXIST when there is a file of the new name.
int rename_new(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return errno;
  }
  // A file system without it.
  if (link(from.c_str(), to.c_str()) != 0) {
    return errno;
  }
  unlink(from.c_str());
  return 0;
}

}  // namespace

bool Shepherd::take_mark() {
  // Exclusive: of two shepherds that were started for one attempt (noded was killed in between) only one goes on. And
  // whole: a noded that finds half of a record would take this shepherd for dead.
  const std::string path = launch_->directory + "/" + kShepherdRecordName;
  const std::string aside = launch_->directory + "/." + kShepherdRecordName + "." + std::to_string(getpid());
  // The file of an ended attempt, if there is one: a rename is cheaper than an inode. One of two shepherds gets it.
  const int ignored = rename((launch_->directory + "/" + kSpareName).c_str(), aside.c_str());
  static_cast<void>(ignored);
  record_ = open(aside.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  int error_number = errno;
  if (record_ >= 0) {
    ShepherdRecord record;
    record.pid = getpid();
    record.start_time = start_time_of_self();
    record.socket = listen();
    record.cgroup = tree_->cgroup();
    const std::string text = encode_shepherd_record(record);
    const ssize_t n = write(record_, text.data(), text.size());
    error_number = n < 0 ? errno : ENOSPC;
    // Cut at the end: ext4 writes a file that was emptied to disk at once.
    if (n == static_cast<ssize_t>(text.size()) && ftruncate(record_, n) != 0) {
      error_number = errno;
    } else if (n == static_cast<ssize_t>(text.size())) {
      error_number = rename_new(aside, path);
      if (error_number == 0) {
        record_bytes_ = n;
        marked_ = true;
        return true;
      }
    }
    unlink(aside.c_str());
  }
  if (error_number == EEXIST || error_number == ENOENT) {
    // ENOENT: a restarted noded found that nothing had begun and took the directory away.
    done_ = true;
    return false;
  }
  decide(Outcome{.cause = EndCause::kLaunchFailed,
                 .exit_code = 0,
                 .signal = 0,
                 .detail = "the node's spool: cannot write " + path + ": " + text_of_errno(error_number),
                 .ran = {},
                 .fault = NodeFault::kSpool,
                 .fault_text = "its spool: " + text_of_errno(error_number)});
  return false;
}

std::string Shepherd::listen() {
  std::uint64_t random[2] = {};
  if (getrandom(random, sizeof(random), 0) != static_cast<ssize_t>(sizeof(random))) {
    return std::string(kNoSocket);
  }
  char name[48];
  std::snprintf(name, sizeof(name), "muster-%016llx%016llx", static_cast<unsigned long long>(random[0]),
                static_cast<unsigned long long>(random[1]));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(name);
  std::memcpy(address.sun_path + 1, name, length);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  // Without it a restarted noded only learns of the end from the record; the job itself is not harmed.
  if (listener_ < 0 || bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listener_, 4) != 0) {
    close_fd(listener_);
    return std::string(kNoSocket);
  }
  add_to_epoll(listener_, Token::kListener, 0, EPOLLIN);
  return name;
}

bool Shepherd::write_outcome() {
  if (!marked_) {
    return false;
  }
  const std::string bytes = encode_outcome(outcome_);
  const ssize_t n = pwrite(record_, bytes.data(), bytes.size(), record_bytes_);
  if (n == static_cast<ssize_t>(bytes.size())) {
    return true;
  }
  if (n > 0) {
    const int ignored = ftruncate(record_, record_bytes_);  // half of an outcome is none (decode_shepherd_record)
    static_cast<void>(ignored);
  }
  return false;
}

// Whether somebody may come for an outcome that is not in the record.
bool Shepherd::outcome_is_wanted() {
  if (!marked_) {
    // Nothing was begun: a noded that does not hear of it begins the attempt anew.
    flush();
    return connection_ >= 0 && !out_.empty();
  }
  // noded has written it, or has forgotten the attempt: the controller knows.
  return !is_forgotten() && access((launch_->directory + "/" + kOutcomeName).c_str(), F_OK) != 0;
}

// Whether the record has been removed, by which a noded could find this process.
bool Shepherd::is_forgotten() const {
  struct stat info {};
  return marked_ && fstat(record_, &info) == 0 && info.st_nlink == 0;
}

}  // namespace muster::noded
