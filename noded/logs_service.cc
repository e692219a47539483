#include "noded/logs_service.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <utility>
#include <vector>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::noded {
namespace {

// A client that says nothing for this long is gone.
constexpr Duration kClientLostAfter = Duration::from_s(30);

std::vector<gid_t> groups_of(const std::string& user, gid_t gid) {
  std::vector<gid_t> groups(64);
  int count = static_cast<int>(groups.size());
  if (::getgrouplist(user.c_str(), gid, groups.data(), &count) < 0) {
    groups.resize(static_cast<std::size_t>(std::max(count, 1)));
    count = static_cast<int>(groups.size());
    if (::getgrouplist(user.c_str(), gid, groups.data(), &count) < 0) {
      return {gid};
    }
  }
  groups.resize(static_cast<std::size_t>(std::max(count, 0)));
  return groups;
}

// Gives the calling thread, and it alone, the user's rights to files. The raw system call for the groups, because
// the library's setgroups changes all threads.
class FileRights {
 public:
  FileRights(const std::string& user, uid_t uid, gid_t gid) {
    if (::geteuid() != 0 || uid == 0) {
      allowed_ = ::geteuid() == uid;
      return;
    }
    const int count = ::getgroups(0, nullptr);
    saved_groups_.resize(static_cast<std::size_t>(std::max(count, 0)));
    if (count > 0 && ::getgroups(count, saved_groups_.data()) != count) {
      return;
    }
    const std::vector<gid_t> groups = groups_of(user, gid);
    if (::syscall(SYS_setgroups, groups.size(), groups.data()) != 0) {
      return;
    }
    changed_ = true;
    ::setfsgid(gid);
    ::setfsuid(uid);
    // The calls do not say whether they did it; asking with an impossible id does.
    allowed_ = static_cast<uid_t>(::setfsuid(static_cast<uid_t>(-1))) == uid &&
               static_cast<gid_t>(::setfsgid(static_cast<gid_t>(-1))) == gid;
  }
  ~FileRights() {
    if (changed_) {
      ::setfsuid(::geteuid());
      ::setfsgid(::getegid());
      MUSTER_CHECK(::syscall(SYS_setgroups, saved_groups_.size(), saved_groups_.data()) == 0);
    }
  }
  FileRights(const FileRights&) = delete;
  FileRights& operator=(const FileRights&) = delete;
  [[nodiscard]] bool allowed() const { return allowed_; }

 private:
  bool allowed_ = false;
  bool changed_ = false;
  std::vector<gid_t> saved_groups_;
};

Result<int> open_as(const std::string& path, const std::string& user, uid_t uid, gid_t gid) {
  const FileRights rights(user, uid, gid);
  if (!rights.allowed()) {
    return make_error(ErrorCode::kPermissionDenied, "cannot read " + path + " with the rights of user " + user +
                                                        ": this node's daemon runs as another user");
  }
  io::Fd fd(::open(path.c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) {
    return io::errno_error("open", path, errno);
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) {
    return io::errno_error("look at", path, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    return make_error(ErrorCode::kRefused, path + " is not a regular file: it keeps no output");
  }
  return fd.release();
}

}  // namespace

struct LogsService::Impl {
  struct Stream {
    ClientAddress client;
    Ticket ticket;
    std::string path;
    bool follow = false;
    bool live = false;  // the attempt was here when we last looked
    io::Fd fd;
    std::uint64_t offset = 0;
    std::uint64_t credit = kInitialCreditBytes;
    bool busy = false;  // a pool thread works for it
    Duration heard;
  };
  using Key = std::pair<std::string, std::string>;

  io::Loop& loop;
  Attempts& attempts;
  ToClient to_client;
  std::map<Key, std::shared_ptr<Stream>> streams;
  io::Timer timer;

  Impl(io::Loop& l, Attempts& a, ToClient t)
      : loop(l), attempts(a), to_client(std::move(t)), timer(l, [this] { look(); }) {}

  void refuse(const ClientAddress& client, const Error& error) {
    pb::NodeReply reply;
    reply.mutable_refused()->set_code(static_cast<std::uint32_t>(error.code));
    reply.mutable_refused()->set_message(error.message);
    (void)to_client(client, reply);
  }

  void drop(const Stream& stream) { streams.erase({stream.client.key, stream.client.stream}); }

  void send(Stream& stream, std::string data, bool end, std::string note = {}) {
    pb::NodeReply reply;
    auto& logs = *reply.mutable_logs();
    logs.set_offset(stream.offset);
    logs.set_end(end);
    logs.set_note(std::move(note));
    stream.offset += data.size();
    stream.credit -= std::min<std::uint64_t>(stream.credit, data.size());
    logs.set_data(std::move(data));
    const bool sent = to_client(stream.client, reply).ok();
    if (end || !sent) {
      drop(stream);
    }
  }

  // Opens or reads in a pool thread, then goes on here.
  void work(const std::shared_ptr<Stream>& stream) {
    if (stream->busy || stream->credit == 0) {
      return;
    }
    stream->busy = true;
    // Asked before reading: what an ended attempt wrote is then certainly seen.
    const bool live = stream->ticket.key.attempt.value != 0 && attempts.find(stream->ticket.key).ok();
    struct Outcome {
      Result<int> opened = Error{};
      std::string data;
      bool truncated = false;
      int error = 0;
    };
    const auto outcome = std::make_shared<Outcome>();
    const int fd = stream->fd.get();
    const std::size_t size = static_cast<std::size_t>(std::min<std::uint64_t>(stream->credit, kChunkBytes));
    loop.run_in_worker(
        [outcome, fd, size, path = stream->path, ticket = stream->ticket, offset = stream->offset] {
          int use = fd;
          if (use < 0) {
            outcome->opened = open_as(path, ticket.user, ticket.uid, ticket.gid);
            if (!outcome->opened) {
              return;
            }
            use = *outcome->opened;
          }
          struct stat status {};
          if (::fstat(use, &status) == 0 && static_cast<std::uint64_t>(status.st_size) < offset) {
            outcome->truncated = true;
            return;
          }
          outcome->data.resize(size);
          const ssize_t n = ::pread(use, outcome->data.data(), size, static_cast<off_t>(offset));
          outcome->error = n < 0 ? errno : 0;
          outcome->data.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
        },
        [this, stream, outcome, live, opened_now = fd < 0] {
          stream->busy = false;
          if (opened_now && outcome->opened) {
            stream->fd.reset(*outcome->opened);
          }
          const auto it = streams.find({stream->client.key, stream->client.stream});
          if (it == streams.end() || it->second != stream) {
            return;  // its client left meanwhile
          }
          stream->live = live;
          if (opened_now && !outcome->opened) {
            // The supervisor makes the file when the job starts; until then a follower waits.
            if (!(outcome->opened.error().code == ErrorCode::kNotFound && stream->follow && live)) {
              refuse(stream->client, outcome->opened.error());
              drop(*stream);
            }
            return;
          }
          if (outcome->error != 0) {
            refuse(stream->client, io::errno_error("read", stream->path, outcome->error));
            drop(*stream);
          } else if (outcome->truncated) {
            stream->offset = 0;
            send(*stream, {}, false, "the file was truncated and is read from its beginning");
            work(stream);
          } else if (!outcome->data.empty()) {
            send(*stream, std::move(outcome->data), false);
            work(stream);
          } else if (!stream->follow || !live) {
            send(*stream, {}, true);
          }
        });
  }

  void look() {
    const Duration now = io::boottime_now();
    std::vector<std::shared_ptr<Stream>> all;
    all.reserve(streams.size());
    for (const auto& [key, stream] : streams) {
      all.push_back(stream);
    }
    for (const auto& stream : all) {
      if (now - stream->heard > kClientLostAfter) {
        drop(*stream);
      } else {
        work(stream);
      }
    }
    if (!streams.empty()) {
      timer.start_once(kLook);
    }
  }
};

LogsService::LogsService(io::Loop& loop, Attempts& attempts, ToClient to_client)
    : impl_(std::make_unique<Impl>(loop, attempts, std::move(to_client))) {}
LogsService::~LogsService() = default;

void LogsService::open(const ClientAddress& client, const Ticket& ticket, const pb::LogsRequest& request) {
  const Impl::Key key{client.key, client.stream};
  if (impl_->streams.contains(key)) {
    return;  // asked again
  }
  if (impl_->streams.size() >= kStreamsMax) {
    return impl_->refuse(client, make_error(ErrorCode::kLimitReached, "this node sends " + std::to_string(kStreamsMax) +
                                                                          " output files already: try again later"));
  }
  const std::string& path =
      request.stderr_file() && !ticket.stderr_path.empty() ? ticket.stderr_path : ticket.stdout_path;
  if (path.empty() || path.front() != '/') {
    return impl_->refuse(client,
                         make_error(ErrorCode::kRefused, "job " + std::to_string(ticket.key.job.value) +
                                                             " has no output file: its output went to who started it"));
  }
  auto stream = std::make_shared<Impl::Stream>();
  stream->client = client;
  stream->ticket = ticket;
  stream->path = path;
  stream->follow = request.follow();
  stream->offset = request.offset();
  stream->heard = io::boottime_now();
  impl_->streams[key] = stream;
  impl_->work(stream);
  if (!impl_->timer.active()) {
    impl_->timer.start_once(kLook);
  }
}

bool LogsService::on_client(const ClientAddress& client, const pb::NodeRequest& request) {
  const auto it = impl_->streams.find({client.key, client.stream});
  if (it == impl_->streams.end()) {
    return false;
  }
  const std::shared_ptr<Impl::Stream> stream = it->second;
  stream->heard = io::boottime_now();
  if (request.has_logs_credit()) {
    // More than the initial credit is never useful.
    stream->credit = std::min(kInitialCreditBytes, stream->credit + request.logs_credit().bytes());
    impl_->work(stream);
  } else if (request.has_keepalive()) {
    pb::NodeReply reply;
    reply.mutable_keepalive();
    (void)impl_->to_client(client, reply);
  }
  return true;
}

}  // namespace muster::noded
