#include "noded/spool.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/hash.h"
#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/shepherd_protocol.h"
#include "noded/small_files.h"

namespace muster::noded {
namespace {

constexpr std::string_view kRecordMagic = "MUSL1\n";
// A record holds an order with at most some thousand peers, and a ticket.
constexpr std::size_t kRecordBytesMax = 32U << 20U;
constexpr std::size_t kSmallFileBytesMax = 64U << 10U;
constexpr std::size_t kEnvironBytesMax = 4U << 20U;
// Scripts kept for further tasks with the same one.
constexpr std::size_t kScriptsMax = 256;
// A script's name becomes a file name; file systems take 255 bytes.
constexpr std::size_t kScriptNameMax = 200;
// Folders kept for further attempts: more than a node starts at a time.
constexpr std::size_t kFreeMax = 256;
// Of folders that are being removed, beside the attempts.
constexpr std::string_view kWithdrawnPrefix = ".withdrawn.";

std::optional<AttemptKey> parse_key(std::string_view name) {
  AttemptKey key;
  const char* end = name.data() + name.size();
  auto [dot, error] = std::from_chars(name.data(), end, key.job.value);
  if (error != std::errc() || dot == end || *dot != '.') {
    return std::nullopt;
  }
  auto [rest, second] = std::from_chars(dot + 1, end, key.attempt.value);
  if (second != std::errc() || rest != end) {
    return std::nullopt;
  }
  return key;
}

std::string key_text(AttemptKey key) {
  return std::to_string(key.job.value) + "." + std::to_string(key.attempt.value);
}

// The file's base name, which the script sees as $0's, unless that is one of ours.
std::string script_file_name(const JobSpec& spec) {
  const std::string name = spec.script_name.substr(spec.script_name.rfind('/') + 1);
  constexpr std::array kReserved{kLaunchRecordName, kShepherdRecordName, kOutcomeName, kTicketName};
  bool reserved = name.empty() || name.front() == '.' || name.size() > kScriptNameMax || name.ends_with(".new") ||
                  name.starts_with("step.") || name.find('\0') != std::string::npos;
  for (const char* other : kReserved) {
    reserved = reserved || name == other;
  }
  return reserved ? "script" : name;
}

// When the content was changed last; a chmod or another link does not count.
std::int64_t changed_ns(const struct stat& info) {
  return static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec;
}

Status write_new_file(const std::string& path, std::string_view bytes, mode_t mode) {
  const io::Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd.valid()) {
    return io::errno_error("create", path, errno);
  }
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return io::errno_error("write", path, n < 0 ? errno : ENOSPC);
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return ok_status();
}

// Over what the file holds. It is cut at the end and never at the beginning: ext4 takes a file that was emptied for one
// that is being replaced, and writes it to disk at once.
Status write_over(const std::string& path, std::string_view bytes) {
  const io::Fd fd(::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    return io::errno_error("open", path, errno);
  }
  const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
  if (n != static_cast<ssize_t>(bytes.size())) {
    return io::errno_error("write", path, n < 0 ? errno : ENOSPC);
  }
  if (::ftruncate(fd.get(), n) != 0) {
    return io::errno_error("cut", path, errno);
  }
  return ok_status();
}

// To the job's user, where that is another one. A user that this namespace does not know is the caller itself.
void give_to(const std::string& path, const JobSpec& spec) {
  if (geteuid() == 0 && spec.uid != 0 && ::chown(path.c_str(), spec.uid, spec.gid) != 0 && errno != EINVAL) {
    io::log_warning("cannot give a file to the job's user", {{"path", path}, {"error", std::strerror(errno)}});
  }
}

std::string launch_record(const LaunchData& launch, const std::string& boot_id) {
  pb::Launch message;
  wire::to_pb(*launch.order, *message.mutable_order());
  message.mutable_ticket()->ParseFromString(launch.ticket);
  std::string out(kRecordMagic);
  out += boot_id;
  out += '\n';
  message.AppendToString(&out);
  return out;
}

void read_launch_record(const std::string& path, FoundAttempt& found) {
  auto bytes = io::read_file(path, kRecordBytesMax);
  if (!bytes.ok() || !bytes->starts_with(kRecordMagic)) {
    return;
  }
  const auto end = bytes->find('\n', kRecordMagic.size());
  if (end == std::string::npos) {
    return;
  }
  found.boot_id = bytes->substr(kRecordMagic.size(), end - kRecordMagic.size());
  pb::Launch message;
  if (!message.ParseFromArray(bytes->data() + end + 1, static_cast<int>(bytes->size() - end - 1))) {
    return;
  }
  auto order = wire::from_pb(message.order());
  if (order.ok() && order->key == found.key && order->spec != nullptr) {
    found.order = std::make_shared<const LaunchOrder>(std::move(*order));
    message.ticket().SerializeToString(&found.ticket);
  }
}

// Field 22 of /proc/PID/stat; empty when there is no such process, or only its zombie.
std::string start_time_of(pid_t pid) {
  auto text = io::read_file("/proc/" + std::to_string(pid) + "/stat", kSmallFileBytesMax);
  if (!text.ok()) {
    return {};
  }
  const auto name_end = text->rfind(')');
  if (name_end == std::string::npos) {
    return {};
  }
  const auto fields = split(std::string_view(*text).substr(name_end + 2), ' ');
  if (fields.size() < 20 || fields[0] == "Z") {
    return {};
  }
  return std::string(fields[19]);
}

std::vector<pid_t> pids_in(const std::string& directory, std::vector<std::string>& below) {
  std::vector<pid_t> pids;
  auto text = io::read_file(directory + "/cgroup.procs", 16U << 20U);
  if (text.ok()) {
    for (const std::string_view line : split(*text, '\n')) {
      pid_t pid = 0;
      std::from_chars(line.data(), line.data() + line.size(), pid);
      if (pid > 0) {
        pids.push_back(pid);
      }
    }
  }
  if (DIR* dir = opendir(directory.c_str()); dir != nullptr) {
    while (const dirent* entry = readdir(dir)) {
      if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
        below.push_back(directory + "/" + entry->d_name);
      }
    }
    closedir(dir);
  }
  return pids;
}

bool empty_cgroup(const std::string& cgroup) {
  if (cgroup.empty()) {
    return true;
  }
  std::vector<std::string> groups{cgroup};
  bool empty = true;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::vector<std::string> below;
    for (const pid_t pid : pids_in(groups[i], below)) {
      ::kill(pid, SIGKILL);
      empty = false;
    }
    groups.insert(groups.end(), below.begin(), below.end());
  }
  if (!empty) {
    write_small(cgroup + "/freezer.state", "THAWED");  // of cgroup v1: what is frozen does not end
  }
  for (auto it = groups.rbegin(); it != groups.rend(); ++it) {
    ::rmdir(it->c_str());
  }
  return empty;
}

bool has_variables(pid_t pid, const std::array<std::string, 3>& wanted) {
  auto text = io::read_file("/proc/" + std::to_string(pid) + "/environ", kEnvironBytesMax);
  if (!text.ok() || text->empty()) {
    return false;
  }
  std::size_t found = 0;
  for (const std::string_view variable : split(*text, '\0')) {
    for (const std::string& w : wanted) {
      found += variable == w ? 1U : 0U;
    }
  }
  return found == wanted.size();
}

// When the file was written last, by this machine's clock; unset when that cannot be told.
Instant written_at(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return {};
  }
  return Instant::from_us(std::int64_t{status.st_mtim.tv_sec} * 1'000'000 + status.st_mtim.tv_nsec / 1'000);
}

}  // namespace

Spool::Spool(std::string directory, io::PidLock lock) : directory_(std::move(directory)), lock_(std::move(lock)) {}

Result<Spool> Spool::open(const std::string& directory) {
  MUSTER_TRY(io::make_dirs(directory, 0755));
  MUSTER_ASSIGN(io::PidLock lock, io::PidLock::take(directory + "/pid"));
  // Users enter their own attempt's directory, and list none.
  MUSTER_TRY(io::make_dirs(directory + "/attempts", 0711));
  Spool spool(directory, std::move(lock));
  spool.forget_scripts();
  spool.forget_free();
  return spool;
}

std::string Spool::attempt_dir(AttemptKey key) const {
  return directory_ + "/attempts/" + key_text(key);
}

Result<Term> Spool::read_term() const {
  const std::string path = directory_ + "/term";
  auto text = io::read_file(path, kSmallFileBytesMax);
  if (!text.ok()) {
    return text.error().code == ErrorCode::kNotFound ? Result<Term>(Term{}) : Result<Term>(text.error());
  }
  auto number = parse_count(trim(*text), path);
  if (!number.ok()) {
    return make_error(ErrorCode::kCorrupt, number.error().message);
  }
  return Term{*number};
}

Status Spool::write_term(Term term) {
  return io::write_file_atomic(directory_ + "/term", std::to_string(term.value) + "\n", 0644);
}

Result<std::vector<FoundAttempt>> Spool::scan() {
  const std::string path = directory_ + "/attempts";
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) {
    return io::errno_error("read folder", path, errno);
  }
  std::vector<AttemptKey> keys;
  std::vector<std::string> withdrawn;
  while (const dirent* entry = readdir(dir)) {
    if (auto key = parse_key(entry->d_name)) {
      keys.push_back(*key);
    } else if (std::string_view(entry->d_name).starts_with(kWithdrawnPrefix)) {
      withdrawn.push_back(path + "/" + entry->d_name);
    }
  }
  closedir(dir);
  for (const std::string& directory : withdrawn) {  // this daemon was killed at it
    static_cast<void>(io::remove_tree(directory));
  }
  std::vector<FoundAttempt> out;
  for (const AttemptKey key : keys) {
    FoundAttempt found;
    found.key = key;
    read_launch_record(attempt_dir(key) + "/" + kLaunchRecordName, found);
    found.outcome = read_outcome(key);
    found.shepherd = read_shepherd(key);
    if (!found.outcome && !found.shepherd) {
      if (withdraw(key)) {
        continue;
      }
      found.shepherd = read_shepherd(key);  // it began a moment ago
      found.outcome = read_outcome(key);
      if (!found.outcome && !found.shepherd) {
        continue;
      }
    }
    out.push_back(std::move(found));
  }
  return out;
}

// Removes an attempt that no shepherd has begun; false when one has. A shepherd that was started and has not begun yet
// cannot do so any more: first the name of its mark is taken, then the directory's name is gone.
bool Spool::withdraw(AttemptKey key) {
  const std::string directory = attempt_dir(key);
  const std::string mark = directory + "/" + kShepherdRecordName;
  const io::Fd fd(::open(mark.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid() && errno == EEXIST && read_shepherd(key)) {
    return false;
  }
  const std::string aside = directory_ + "/attempts/" + std::string(kWithdrawnPrefix) + key_text(key);
  static_cast<void>(io::remove_tree(aside));
  if (::rename(directory.c_str(), aside.c_str()) != 0) {
    remove(key);
    return true;
  }
  // Where the mark could not be taken (no room), a shepherd may have been quicker than the rename.
  struct stat info {};
  if (!fd.valid() && ::stat((aside + "/" + kShepherdRecordName).c_str(), &info) == 0 && info.st_size > 0) {
    static_cast<void>(::rename(aside.c_str(), directory.c_str()));
    return false;
  }
  if (const Status status = io::remove_tree(aside); !status.ok()) {
    io::log_warning("cannot remove an attempt's folder",
                    {{"attempt", key_text(key)}, {"error", status.error().message}});
  }
  return true;
}

Result<PreparedAttempt> Spool::prepare(const LaunchData& launch, const std::string& boot_id) {
  const JobSpec& spec = *launch.order->spec;
  PreparedAttempt out;
  out.directory = attempt_dir(launch.order->key);
  const auto write_all = [&]() -> Status {
    MUSTER_TRY(place_launch(launch, boot_id, out.directory));
    if (launch.script != nullptr) {
      out.script = out.directory + "/" + script_file_name(spec);
      MUSTER_TRY(place_script(spec, *launch.script, out.script));
    }
    if (!launch.ticket.empty()) {
      out.ticket_path = out.directory + "/" + kTicketName;
      MUSTER_TRY(place_ticket(spec, launch.ticket, out.ticket_path));
    }
    return ok_status();
  };
  if (const Status status = write_all(); !status.ok()) {
    // A record of another life is not ours to remove; everything else here is.
    if (status.error().code != ErrorCode::kAlreadyExists) {
      remove(launch.order->key);
    }
    return make_error(status.error().code, "the node's spool: " + status.error().message);
  }
  return out;
}

// Makes the attempt's folder with its launch record in it.
Status Spool::place_launch(const LaunchData& launch, const std::string& boot_id, const std::string& directory) {
  const std::string record = launch_record(launch, boot_id);
  const std::string path = directory + "/" + kLaunchRecordName;
  while (!free_.empty()) {
    const Free free = std::move(free_.back());
    free_.pop_back();
    Status status = write_over(free.path + "/" + kLaunchRecordName, record);
    const std::string ticket = free.path + "/" + kTicketName;
    if (status.ok() && free.ticket_of && (launch.ticket.empty() || *free.ticket_of != launch.order->spec->uid) &&
        ::unlink(ticket.c_str()) != 0) {
      status = io::errno_error("remove", ticket, errno);
    }
    if (status.ok() && ::rename(free.path.c_str(), directory.c_str()) == 0) {
      return status;
    }
    const bool taken = status.ok() && (errno == ENOTEMPTY || errno == EEXIST);
    static_cast<void>(io::remove_tree(free.path));
    if (taken) {
      return make_error(ErrorCode::kAlreadyExists, path + " is there already");
    }
  }
  if (::mkdir(directory.c_str(), 0711) != 0 && errno != EEXIST) {
    return io::errno_error("create folder", directory, errno);
  }
  ::chmod(directory.c_str(), 0711);  // whatever the umask is
  return write_new_file(path, record, 0600);
}

Status Spool::place_ticket(const JobSpec& spec, const std::string& ticket, const std::string& path) {
  if (write_over(path, ticket).ok()) {  // of one of this user's earlier attempts
    return ok_status();
  }
  static_cast<void>(::unlink(path.c_str()));
  MUSTER_TRY(write_new_file(path, ticket, 0400));
  give_to(path, spec);
  return ok_status();
}

// Keeps the folder of an ended attempt for a later one. False: it is still to be removed.
bool Spool::recycle(AttemptKey key) {
  if (free_.size() >= kFreeMax) {
    return false;
  }
  // A shepherd that has written its outcome writes no more, and does not look for its record any longer.
  const auto record = read_shepherd(key);
  const bool concluded = record && record->outcome;
  Free free{.path = directory_ + "/free/" + std::to_string(next_free_++), .ticket_of = {}};
  if (::rename(attempt_dir(key).c_str(), free.path.c_str()) != 0) {
    return false;
  }
  bool has_launch = false;
  bool clean = true;
  DIR* dir = opendir(free.path.c_str());
  while (const dirent* entry = dir != nullptr ? readdir(dir) : nullptr) {
    const std::string_view name = entry->d_name;
    struct stat info {};
    if (name == "." || name == "..") {
      continue;
    }
    if (name == kLaunchRecordName) {
      has_launch = true;
    } else if (name == kTicketName && ::fstatat(dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
      free.ticket_of = info.st_uid;
    } else if (name == kShepherdRecordName && concluded) {
      clean = ::renameat(dirfd(dir), entry->d_name, dirfd(dir), kSpareName) == 0 && clean;
    } else if (name != kSpareName) {
      clean = ::unlinkat(dirfd(dir), entry->d_name, 0) == 0 && clean;
    }
  }
  if (dir != nullptr) {
    closedir(dir);
  }
  if (has_launch && clean) {
    free_.push_back(std::move(free));
  } else {
    static_cast<void>(io::remove_tree(free.path));
  }
  return true;
}

void Spool::forget_free() {
  free_.clear();
  const std::string path = directory_ + "/free";
  static_cast<void>(io::remove_tree(path));
  static_cast<void>(io::make_dirs(path, 0700));
}

std::optional<Outcome> Spool::read_outcome(AttemptKey key) const {
  auto bytes = io::read_file(attempt_dir(key) + "/" + kOutcomeName, kSmallFileBytesMax);
  if (!bytes.ok()) {
    const auto record = read_shepherd(key);
    std::optional<Outcome> outcome = record ? record->outcome : std::nullopt;
    if (outcome) {
      outcome->ended_at = written_at(attempt_dir(key) + "/" + kShepherdRecordName);
    }
    return outcome;
  }
  auto outcome = decode_outcome(*bytes);
  if (!outcome.ok()) {
    io::log_error("a recorded outcome is damaged", {{"attempt", key_text(key)}, {"error", outcome.error().message}});
    return Outcome{
        .cause = EndCause::kNodeLost, .exit_code = 0, .signal = 0, .detail = outcome.error().message, .ran = {}};
  }
  if (outcome->cause != EndCause::kNodeLost) {  // of one that was lost, nobody knows when
    outcome->ended_at = written_at(attempt_dir(key) + "/" + kOutcomeName);
  }
  return *outcome;
}

std::optional<ShepherdRecord> Spool::read_shepherd(AttemptKey key) const {
  auto text = io::read_file(attempt_dir(key) + "/" + kShepherdRecordName, kSmallFileBytesMax);
  if (!text.ok() || text->empty()) {  // empty: withdrawn
    return std::nullopt;
  }
  auto record = decode_shepherd_record(*text);
  // A damaged record is a mark all the same.
  return record.ok() ? *record : ShepherdRecord{};
}

Status Spool::place_script(const JobSpec& spec, const std::string& script, const std::string& path) {
  const std::string name =
      io::to_hex(std::string_view(reinterpret_cast<const char*>(spec.script.bytes.data()), spec.script.bytes.size())) +
      "." + std::to_string(spec.uid);
  const std::string shared = directory_ + "/scripts/" + name;
  struct stat info {};
  const auto known = scripts_.find(name);
  if (spec.script.is_set() && known != scripts_.end() && ::lstat(shared.c_str(), &info) == 0 &&
      info.st_size == known->second.size && changed_ns(info) == known->second.changed_ns &&
      ::link(shared.c_str(), path.c_str()) == 0) {
    return ok_status();
  }
  // Read-only: the file may be shared with other tasks of the same user.
  MUSTER_TRY(write_new_file(path, script, 0500));
  give_to(path, spec);
  if (!spec.script.is_set()) {
    return ok_status();
  }
  // Kept for the next task. Oldest entries are not worth finding: all go when there are many.
  if (scripts_.size() >= kScriptsMax) {
    forget_scripts();
  }
  ::unlink(shared.c_str());
  if (::link(path.c_str(), shared.c_str()) == 0 && ::lstat(shared.c_str(), &info) == 0) {
    scripts_[name] = Script{info.st_size, changed_ns(info)};
  }
  return ok_status();
}

void Spool::forget_scripts() {
  scripts_.clear();
  const std::string path = directory_ + "/scripts";
  static_cast<void>(io::remove_tree(path));
  static_cast<void>(io::make_dirs(path, 0700));
}

Status Spool::write_outcome(AttemptKey key, const Outcome& outcome, bool durable) {
  const std::string directory = attempt_dir(key);
  if (::mkdir(directory.c_str(), 0711) != 0 && errno != EEXIST) {
    return io::errno_error("create folder", directory, errno);
  }
  const std::string path = directory + "/" + kOutcomeName;
  if (durable) {
    return io::write_file_atomic(path, encode_outcome(outcome), 0600);
  }
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str());
  MUSTER_TRY(write_new_file(temporary, encode_outcome(outcome), 0600));
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return io::errno_error("rename", temporary, errno);
  }
  return ok_status();
}

void Spool::remove(AttemptKey key) {
  if (recycle(key)) {
    return;
  }
  if (const Status status = io::remove_tree(attempt_dir(key)); !status.ok()) {
    io::log_warning("cannot remove an attempt's folder",
                    {{"attempt", key_text(key)}, {"error", status.error().message}});
  }
}

bool is_alive(const ShepherdRecord& record) {
  return record.pid > 0 && !record.start_time.empty() && start_time_of(record.pid) == record.start_time;
}

bool kill_leftovers(AttemptKey key, const std::string& node, const std::vector<std::string>& groups) {
  bool empty = true;
  for (const std::string& group : groups) {
    empty = empty_cgroup(group) && empty;
  }
  const std::array<std::string, 3> wanted{"MUSTER_JOB_ID=" + std::to_string(key.job.value),
                                          "MUSTER_ATTEMPT=" + std::to_string(key.attempt.value),
                                          "MUSTER_NODE_NAME=" + node};
  DIR* dir = opendir("/proc");
  if (dir == nullptr) {
    return empty;
  }
  while (const dirent* entry = readdir(dir)) {
    pid_t pid = 0;
    std::from_chars(entry->d_name, entry->d_name + std::strlen(entry->d_name), pid);
    if (pid > 1 && pid != getpid() && has_variables(pid, wanted)) {
      ::kill(pid, SIGKILL);
      empty = false;
    }
  }
  closedir(dir);
  return empty;
}

}  // namespace muster::noded
