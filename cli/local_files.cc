#include "cli/local_files.h"

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"

namespace muster::cli {
namespace {

constexpr std::string_view kRecordHead = "muster-local 1";
// What remains of 107 characters for "/n1000/" and the daemons' own names below it.
constexpr std::size_t kRunBaseMax = 48;

bool is_own_dir(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid();
}

// The group and those below it, innermost first; false while one of them is busy (its dead are not all reaped yet).
bool remove_groups(const std::string& group) {
  bool removed = true;
  DIR* folder = opendir(group.c_str());
  if (folder == nullptr) return errno == ENOENT;
  while (const dirent* entry = readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (entry->d_type != DT_DIR || name == "." || name == "..") continue;
    removed = remove_groups(group + "/" + entry->d_name) && removed;
  }
  closedir(folder);
  return rmdir(group.c_str()) == 0 && removed;
}

Result<ProcessId> parse_process(std::string_view text, const std::string& file) {
  const auto fields = split(text, ' ');
  if (fields.size() != 2)
    return make_error(ErrorCode::kCorrupt,
                      file + ": damaged line \"" + printable(text) + "\": remove the cluster's folder by hand");
  MUSTER_ASSIGN(const std::uint64_t pid, parse_count(fields[0], file + ": pid", {0, INT32_MAX}));
  MUSTER_ASSIGN(const std::uint64_t start, parse_count(fields[1], file + ": start time"));
  return ProcessId{static_cast<pid_t>(pid), start};
}

}  // namespace

ProcessId identify(pid_t pid) {
  if (pid <= 0) return {};
  const auto stat = io::read_file("/proc/" + std::to_string(pid) + "/stat", 8'192);
  if (!stat.ok()) return {};
  // The command's name stands in parentheses and may hold anything.
  const std::size_t end = stat->rfind(')');
  if (end == std::string::npos) return {};
  const auto fields = split(std::string_view(*stat).substr(std::min(end + 2, stat->size())), ' ');
  constexpr std::size_t kThreads = 20 - 3;  // the first field after the name is the third
  constexpr std::size_t kStart = 22 - 3;
  if (fields.size() <= kStart || fields[0] == "X") return {};
  // The first thread of a process may be a zombie while others have yet to end: they hold its descriptors, with their
  // locks and ports, and its parent cannot reap it.
  if (fields[0] == "Z" && fields[kThreads] == "1") return {};
  const auto start = parse_count(fields[kStart], "start time");
  if (!start.ok()) return {};
  return ProcessId{pid, *start};
}

bool is_running(const ProcessId& process) {
  return process.pid != 0 && identify(process.pid) == process;
}

void send_signal(const ProcessId& process, int signal) {
  if (is_running(process)) kill(process.pid, signal);
}

bool wait_until_gone(const ProcessId& process, Duration timeout) {
  const Duration deadline = io::boottime_now() + timeout;
  while (is_running(process)) {
    if (io::boottime_now() >= deadline) return false;
    usleep(5'000);
  }
  return true;
}

std::string format_record(const LocalRecord& record) {
  std::string out(kRecordHead);
  const auto line = [&](std::string_view key, const std::string& value) {
    out += "\n" + std::string(key) + " " + value;
  };
  const auto process = [](const ProcessId& p) { return std::to_string(p.pid) + " " + std::to_string(p.start); };
  line("name", record.name);
  line("run_base", record.run_base);
  line("made_dir", record.made_dir ? "1" : "0");
  line("nodes", std::to_string(record.nodes));
  for (const std::string& topology : record.topologies) line("topology", topology);
  for (const std::string& set : record.sets) line("set", set);
  line("controller", process(record.controller));
  for (const ProcessId& init : record.inits) line("init", process(init));
  return out + "\n";
}

Result<LocalRecord> parse_record(std::string_view text, const std::string& file) {
  const auto lines = split(text, '\n');
  if (lines.empty() || lines[0] != kRecordHead)
    return make_error(ErrorCode::kCorrupt,
                      file + ": no record of a local cluster: remove the cluster's folder by hand");
  LocalRecord record;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    const std::size_t space = lines[i].find(' ');
    const std::string_view key = lines[i].substr(0, space);
    const std::string_view value = space == std::string_view::npos ? std::string_view() : lines[i].substr(space + 1);
    if (key == "name") {
      record.name = value;
    } else if (key == "run_base") {
      record.run_base = value;
    } else if (key == "made_dir") {
      record.made_dir = value == "1";
    } else if (key == "nodes") {
      MUSTER_ASSIGN(const std::uint64_t nodes, parse_count(value, file + ": nodes", {0, kLocalNodesMax}));
      record.nodes = static_cast<std::uint32_t>(nodes);
    } else if (key == "topology") {
      record.topologies.emplace_back(value);
    } else if (key == "set") {
      record.sets.emplace_back(value);
    } else if (key == "controller") {
      MUSTER_ASSIGN(record.controller, parse_process(value, file));
    } else if (key == "init") {
      MUSTER_ASSIGN(ProcessId init, parse_process(value, file));
      record.inits.push_back(init);
    } else {
      return make_error(ErrorCode::kCorrupt,
                        file + ": unknown line \"" + printable(lines[i]) + "\": remove the cluster's folder by hand");
    }
  }
  record.inits.resize(record.nodes);
  return record;
}

std::string default_local_dir(const std::string& name) {
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime == '/' && is_own_dir(runtime))
    return std::string(runtime) + "/muster-local/" + name;
  return "/tmp/muster-local-" + std::to_string(geteuid()) + "/" + name;
}

std::string local_dir_of_config(const std::string& config_path) {
  const std::size_t slash = config_path.rfind('/');
  if (slash == std::string::npos || slash == 0 || config_path.substr(slash + 1) != kLocalConfigName) return "";
  std::string dir = config_path.substr(0, slash);
  const auto record = io::read_file(dir + "/" + std::string(kLocalRecordName), 4U << 20U);
  if (record.ok() ? record->starts_with(kRecordHead) : !io::path_exists(config_path)) return dir;
  return "";
}

std::string choose_run_base(const std::string& dir) {
  if (dir.size() + 4 <= kRunBaseMax) return dir + "/run";
  const io::Hash hash = io::blake2b_256(dir);
  return "/tmp/muster-run-" + std::to_string(geteuid()) + "-" + io::to_hex(hash).substr(0, 12);
}

bool holds_only(const std::string& dir, std::string_view name) {
  DIR* folder = opendir(dir.c_str());
  if (folder == nullptr) return false;
  std::size_t wanted = 0;
  std::size_t others = 0;
  while (const dirent* entry = readdir(folder)) {
    const std::string_view found = entry->d_name;
    if (found == "." || found == "..") continue;
    ++(found == name ? wanted : others);
  }
  closedir(folder);
  return wanted == 1 && others == 0;
}

std::string log_tail(const std::string& path) {
  const auto text = io::read_file(path, 64U << 20U);
  if (!text.ok()) return "";
  std::vector<std::string> last;
  for (const std::string_view line : split(*text, '\n')) {
    if (trim(line).empty()) continue;
    last.push_back(printable(line.substr(0, 400)));
    if (last.size() > 3) last.erase(last.begin());
  }
  std::string tail;
  for (const std::string& line : last) tail += (tail.empty() ? "" : " | ") + line;
  return tail;
}

Result<std::string> resolve_topology(const std::string& spec, const std::string& work_dir) {
  const std::size_t plus = spec.rfind("+gpu:");
  const std::string base = spec.substr(0, plus);
  const std::string gpus = plus == std::string::npos ? "" : spec.substr(plus);
  if (plus != std::string::npos)
    MUSTER_TRY([&]() -> Status {
      const auto count = parse_count(std::string_view(gpus).substr(5), "--topology: gpu", {0, 1'024});
      return count.ok() ? ok_status() : Status(count.error());
    }());
  if (trim(base).empty()) return std::string(kDefaultTopology) + gpus;
  // hwloc's synthetic text has a colon in each part and a file's name rarely has; an existing file decides.
  const std::string path = io::absolute_path(work_dir, base);
  if (io::path_exists(path)) return path + gpus;
  if (base.ends_with(".xml") || base.find('/') != std::string::npos || base.find(':') == std::string::npos) {
    return make_error(ErrorCode::kNotFound,
                      "--topology: " + base +
                          ": no such file: name an hwloc XML file, or write a synthetic topology such as \"" +
                          std::string(kDefaultTopology) + "\"");
  }
  return spec;
}

std::string shell_word(std::string_view text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,=";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos) return std::string(text);
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

bool names_memory(const std::string& topology) {
  if (topology.starts_with("/")) return true;  // an XML file says what its machine has
  return topology.find("memory=") != std::string::npos;
}

void remove_cgroup_of(const std::string& spool_dir) {
  const Duration deadline = io::boottime_now() + Duration::from_s(5);
  for (const char* file : {"/cgroup", "/cgroups"}) {
    const auto text = io::read_file(spool_dir + file, 65'536);
    if (!text.ok()) continue;
    for (const std::string_view line : split(*text, '\n')) {
      const std::string group(trim(line));
      // The daemon's own groups are named so; nothing else may be touched, whatever the file says.
      if (!group.starts_with("/sys/fs/cgroup/") || group.find("/muster-") == std::string::npos ||
          group.find("..") != std::string::npos)
        continue;
      while (!remove_groups(group) && io::boottime_now() < deadline) usleep(5'000);
    }
  }
}

Result<std::string> ask_init(const std::string& socket_path, const std::string& request, Duration timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path)
    return invalid_argument(socket_path + ": the path of the socket is too long: use a shorter --dir");
  memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  const io::Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return io::errno_error("make a socket for", socket_path, errno);
  const timeval limit{static_cast<time_t>(timeout.seconds()), static_cast<suseconds_t>(timeout.us % 1'000'000)};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return make_error(ErrorCode::kUnavailable, "no answer at " + socket_path + ": " + strerror(errno));
  }
  const std::string line = request + "\n";
  if (send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    return make_error(ErrorCode::kUnavailable, "no answer at " + socket_path + ": " + strerror(errno));
  }
  std::string reply;
  char buffer[1'024];
  while (reply.find('\n') == std::string::npos && reply.size() < 4'096) {
    const ssize_t got = recv(fd.get(), buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return make_error(ErrorCode::kUnavailable, "no answer at " + socket_path + ": the connection was closed");
    reply.append(buffer, static_cast<std::size_t>(got));
  }
  reply.resize(reply.find('\n') == std::string::npos ? reply.size() : reply.find('\n'));
  if (reply.starts_with("ok ")) return reply.substr(3);
  return make_error(ErrorCode::kIo, reply.starts_with("error ") ? reply.substr(6) : reply);
}

}  // namespace muster::cli
