#include "noded/task.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "lib/base/text.h"
#include "noded/small_files.h"
#include "noded/user_rights.h"

namespace muster::noded {
namespace {

// Where a start failed; what the child writes to its status pipe.
enum class Stage : std::int32_t {
  kUser,
  kWorkDir,
  kInput,
  kOutput,
  kError,
  kNamespace,
  kExec,
  kForeignUser,
  kBound,
  kControl,
  kIsolate
};
struct Failure {
  Stage stage = Stage::kExec;
  std::int32_t error_number = 0;
};
// The same beginning, with Stage::kBound and the number of words that count: no failure, and more may follow. One write
// of it is whole, as it is smaller than PIPE_BUF.
struct Bound {
  Failure head;
  std::array<std::uint64_t, 128> words{};  // 8192 hardware threads, Linux's own limit
  std::array<std::uint64_t, 16> memory{};  // 1024 NUMA nodes, Linux's own limit
  std::int32_t memory_policy = -1;
  TaskPlace::Group group = TaskPlace::Group::kNone;
};
static_assert(sizeof(Bound) <= PIPE_BUF);

std::string text_of_errno(int error_number) {
  // strerror_r of glibc returns the text; the buffer is only for unknown numbers.
  char buffer[64];
  return strerror_r(error_number, buffer, sizeof(buffer));
}

[[noreturn]] void fail(int status_fd, Stage stage, int error_number) {
  const Failure failure{stage, error_number};
  const ssize_t ignored = write(status_fd, &failure, sizeof(failure));
  static_cast<void>(ignored);
  _exit(126);
}

std::string read_line_of(const char* path) {
  char buffer[256];
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return {};
  }
  const ssize_t n = read(fd, buffer, sizeof(buffer));
  close(fd);
  return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
}

bool write_text(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  const ssize_t n = write(fd, text.data(), text.size());
  close(fd);
  return n == static_cast<ssize_t>(text.size());
}

// Under an unprivileged local cluster the daemons are root of a user namespace that holds one user only. The job gets
// an inner namespace in which that one has its own number again.
void enter_inner_namespace(const TaskSpec& spec, int status_fd) {
  if (unshare(CLONE_NEWUSER) != 0) {
    fail(status_fd, Stage::kNamespace, errno);
  }
  write_text("/proc/self/setgroups", "deny");
  if (!write_text("/proc/self/uid_map", std::to_string(spec.uid) + " 0 1\n") ||
      !write_text("/proc/self/gid_map", std::to_string(spec.gid) + " 0 1\n")) {
    fail(status_fd, Stage::kNamespace, errno);
  }
}

void become_user(const TaskSpec& spec, int status_fd) {
  const uid_t self = geteuid();
  if (self == spec.uid) {
    return;
  }
  if (self != 0) {
    fail(status_fd, Stage::kForeignUser, EPERM);
  }
  if (!is_known_user(spec.uid)) {
    enter_inner_namespace(spec, status_fd);
    return;
  }
  if (!set_groups(spec.groups, spec.gid)) {
    fail(status_fd, Stage::kUser, errno);
  }
  if (setresgid(spec.gid, spec.gid, spec.gid) != 0 || setresuid(spec.uid, spec.uid, spec.uid) != 0) {
    fail(status_fd, Stage::kUser, errno);
  }
}

void open_streams(const TaskSpec& spec, int status_fd);

// Files named by the user are opened with the user's rights, and outside, where the user meant them to be; only root may
// then enter.
void open_streams_outside(const TaskSpec& spec, int status_fd) {
  const UserRights rights(spec.uid, spec.gid, spec.groups);
  if (!rights.ok()) {
    fail(status_fd, Stage::kUser, errno);
  }
  open_streams(spec, status_fd);
}

void enter_namespaces(const TaskSpec& spec, int status_fd) {
  if (setns(spec.mount_namespace, CLONE_NEWNS) != 0 || setns(spec.ipc_namespace, CLONE_NEWIPC) != 0) {
    fail(status_fd, Stage::kIsolate, errno);
  }
}

void bind_to_cpus(const std::vector<std::uint64_t>& words) {
  if (words.empty()) {
    return;
  }
  // A failure (a thread went offline) leaves the task unbound, which costs speed, not correctness.
  syscall(SYS_sched_setaffinity, 0, words.size() * sizeof(words[0]), words.data());
  // Memory where the task runs, whatever policy the daemon was started with.
  syscall(SYS_set_mempolicy, MPOL_DEFAULT, nullptr, 0);
}

// The cgroup of a process is told by /proc as a path below the root that the process sees, so of the directory only its
// name is compared, which nobody else has.
TaskPlace::Group group_now(const TaskSpec& spec) {
  if (spec.cgroup_fd < 0 || spec.cgroup.empty()) {
    return TaskPlace::Group::kNone;
  }
  const std::string all = read_small("/proc/self/cgroup");
  const std::string name = spec.cgroup.substr(spec.cgroup.rfind('/') + 1);
  for (const std::string_view line : split(all, '\n')) {
    if (!line.starts_with("0::")) {
      continue;  // of cgroup v1, into which it has written itself
    }
    for (const std::string_view part : split(line.substr(3), '/')) {
      if (part == name) {
        return TaskPlace::Group::kInside;
      }
    }
    return TaskPlace::Group::kOutside;
  }
  return TaskPlace::Group::kNone;  // nothing is known
}

// A thread that moves itself, by "0" in `tasks`, takes none of the kernel's global locks.
void join_groups(const std::vector<int>& joins, int status_fd) {
  for (const int fd : joins) {
    if (write(fd, "0", 1) != 1) {
      fail(status_fd, Stage::kControl, errno);
    }
  }
}

// The kernel gives memory of the CPU's own NUMA node first, then of these, then of any other.
void prefer_memory(const std::vector<std::uint64_t>& words) {
  constexpr long kPreferredMany =
      5;  // MPOL_PREFERRED_MANY, Linux 5.15; without it memory comes from near the CPU all the same
  if (!words.empty()) {
    syscall(SYS_set_mempolicy, kPreferredMany, words.data(), words.size() * 64 + 1);
  }
}

void limit_data(std::uint64_t bytes) {
  if (bytes != 0) {
    const rlimit limit{bytes, bytes};
    setrlimit(RLIMIT_DATA, &limit);
  }
}

void tell_place(const TaskSpec& spec, int status_fd) {
  Bound bound;
  int policy = 0;
  if (syscall(SYS_get_mempolicy, &policy, nullptr, 0, nullptr, 0) == 0) {
    bound.memory_policy = policy & ~MPOL_MODE_FLAGS;
  }
  if (syscall(SYS_get_mempolicy, nullptr, bound.memory.data(), bound.memory.size() * 64, nullptr,
              MPOL_F_MEMS_ALLOWED) != 0) {
    bound.memory.fill(0);
  }
  bound.group = group_now(spec);
  const long bytes = syscall(SYS_sched_getaffinity, 0, sizeof(bound.words), bound.words.data());
  if (bytes > 0) {
    bound.head = {Stage::kBound, static_cast<std::int32_t>(static_cast<std::size_t>(bytes) / sizeof(bound.words[0]))};
    const ssize_t ignored = write(status_fd, &bound, sizeof(bound));
    static_cast<void>(ignored);
  }
}

void place(int fd, int target) {
  if (fd == target) {
    fcntl(fd, F_SETFD, 0);
  } else {
    dup2(fd, target);
  }
}

int open_output(const TaskStream& stream, bool append) {
  if (stream.path.empty()) {
    return stream.fd >= 0 ? stream.fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
  }
  // Both modes append, so that several writers of one file (standard output and error, several nodes) lose nothing.
  // No waiting for a reader of a named pipe; opened for both, it has one.
  const int flags = O_CREAT | O_CLOEXEC | O_APPEND | (append ? 0 : O_TRUNC);
  struct stat info {};
  const bool fifo = stat(stream.path.c_str(), &info) == 0 && S_ISFIFO(info.st_mode);
  return open(stream.path.c_str(), flags | (fifo ? O_RDWR : O_WRONLY), 0666);
}

void open_streams(const TaskSpec& spec, int status_fd) {
  // Descriptors that arrive as 0..2 would be overwritten by dup2 of another; the shepherd keeps 0..2 on /dev/null, so
  // everything here is 3 or more.
  int in = spec.in.fd;
  if (!spec.in.path.empty() || in < 0) {
    in = open(spec.in.path.empty() ? "/dev/null" : spec.in.path.c_str(), O_RDONLY | O_CLOEXEC);
  }
  if (in < 0) {
    fail(status_fd, Stage::kInput, errno);
  }
  const int out = open_output(spec.out, spec.append);
  if (out < 0) {
    fail(status_fd, Stage::kOutput, errno);
  }
  int err = out;
  if (!spec.err_with_out) {
    err = open_output(spec.err, spec.append);
    if (err < 0) {
      fail(status_fd, Stage::kError, errno);
    }
  }
  place(in, 0);
  place(out, 1);
  place(err, 2);
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (const std::string& s : strings) {
    out.push_back(const_cast<char*>(s.c_str()));  // execve does not write
  }
  out.push_back(nullptr);
  return out;
}

std::string_view path_of(const std::vector<std::string>& environment) {
  for (const std::string& variable : environment) {
    if (variable.starts_with("PATH=")) {
      return std::string_view(variable).substr(5);
    }
  }
  return "/usr/local/bin:/usr/bin:/bin";
}

void execute(const char* path, char* const* argv, char* const* environment) {
  execve(path, argv, environment);
  if (errno == ENOEXEC) {
    // As a shell does with a file that has no #! line.
    std::vector<char*> with_shell{const_cast<char*>("/bin/sh"), const_cast<char*>(path)};
    for (char* const* arg = argv + 1; *arg != nullptr; ++arg) {
      with_shell.push_back(*arg);
    }
    with_shell.push_back(nullptr);
    execve("/bin/sh", with_shell.data(), environment);
  }
}

[[noreturn]] void execute_task(const TaskSpec& spec, int status_fd) {
  const std::vector<char*> argv = pointers(spec.argv);
  const std::vector<char*> environment = pointers(spec.environment);
  const std::string& program = spec.argv.front();
  if (!spec.search_path) {
    execve(program.c_str(), argv.data(), environment.data());
    fail(status_fd, Stage::kExec, errno);
  }
  if (program.find('/') != std::string::npos) {
    execute(program.c_str(), argv.data(), environment.data());
    fail(status_fd, Stage::kExec, errno);
  }
  int error_number = ENOENT;
  std::string_view rest = path_of(spec.environment);
  while (true) {
    const auto end = rest.find(':');
    std::string candidate(rest.substr(0, end));
    candidate += candidate.empty() ? program : "/" + program;
    execute(candidate.c_str(), argv.data(), environment.data());
    if (errno == EACCES) {
      error_number = EACCES;
    } else if (errno != ENOENT && errno != ENOTDIR) {
      error_number = errno;
      break;
    }
    if (end == std::string_view::npos) {
      break;
    }
    rest.remove_prefix(end + 1);
  }
  fail(status_fd, Stage::kExec, error_number);
}

[[noreturn]] void run_child(const TaskSpec& spec, int status_fd) {
  setsid();
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGPIPE, &standard, nullptr);
  bind_to_cpus(spec.cpus);
  if (!spec.joins.empty()) {
    join_groups(spec.joins, status_fd);
    bind_to_cpus(spec.cpus);  // a cpuset may have widened it; set before, too, so that it moves to its CPU only once
  }
  prefer_memory(spec.memory_nodes);
  limit_data(spec.data_bytes_max);
  if (spec.tells_place) {
    tell_place(spec, status_fd);
  }
  umask(spec.umask);
  if (spec.mount_namespace >= 0) {
    open_streams_outside(spec, status_fd);
    enter_namespaces(spec, status_fd);
  }
  become_user(spec, status_fd);
  if (chdir(spec.work_dir.empty() ? "/" : spec.work_dir.c_str()) != 0) {
    fail(status_fd, Stage::kWorkDir, errno);
  }
  if (spec.mount_namespace < 0) {
    open_streams(spec, status_fd);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execute_task(spec, status_fd);
}

bool move_into_group(int group) {
  const int fd = group < 0 ? -1 : openat(group, "cgroup.procs", O_WRONLY | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  const bool moved = write(fd, "0", 1) == 1;
  const int error_number = errno;
  close(fd);
  errno = error_number;
  return moved;
}

// The interpreter that a script's first line names; empty when there is none.
std::string interpreter_of(const std::string& script) {
  std::string line = read_line_of(script.c_str());
  if (!line.starts_with("#!")) {
    return {};
  }
  line = line.substr(2, line.find('\n') == std::string::npos ? std::string::npos : line.find('\n') - 2);
  const auto begin = line.find_first_not_of(" \t");
  if (begin == std::string::npos) {
    return {};
  }
  return line.substr(begin, line.find_first_of(" \t", begin) - begin);
}

std::string explain_exec(const TaskSpec& spec, int error_number) {
  const std::string& program = spec.argv.front();
  const std::string reason = text_of_errno(error_number);
  if (error_number == E2BIG) {
    return "arguments and environment are together too long for " + program + ": make them smaller";
  }
  if (spec.search_path) {
    return program + ": " + reason;
  }
  if (error_number == ENOEXEC) {
    return "the script does not begin with #! and the path of an interpreter";
  }
  const std::string interpreter = interpreter_of(program);
  if (interpreter.empty() || (error_number == EACCES && access(interpreter.c_str(), X_OK) == 0)) {
    return "cannot execute the script " + program + ": " + reason +
           (error_number == EACCES ? " (is the spool directory mounted noexec?)" : "");
  }
  if (interpreter.ends_with('\r')) {
    return "interpreter " + interpreter.substr(0, interpreter.size() - 1) + "\\r: " + reason +
           ": the script has Windows line ends";
  }
  return "interpreter " + interpreter + ": " + reason;
}

}  // namespace

Result<StartedTask> start_task(const TaskSpec& spec) {
  MUSTER_CHECK(!spec.argv.empty());
  int status[2];
  if (pipe2(status, O_CLOEXEC) != 0) {
    return make_error(ErrorCode::kIo, "cannot make a pipe: " + text_of_errno(errno));
  }
  clone_args args{};
  args.exit_signal = SIGCHLD;
  if (spec.cgroup_fd >= 0) {
    // Born inside: moving a process later would wait for a grace period of the kernel, milliseconds each.
    args.flags = CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(spec.cgroup_fd);
  }
  auto pid = static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof(args)));
  bool inside = spec.cgroup_fd >= 0;
  if (pid < 0 && (errno == ENOSYS || (spec.cgroup_fd >= 0 && errno != EAGAIN && errno != ENOMEM))) {
    // An old kernel, a container that has no clone3, or a group that does not take it.
    inside = false;
    pid = fork();
  }
  if (pid < 0) {
    const int error_number = errno;
    close(status[0]);
    close(status[1]);
    return make_error(ErrorCode::kIo, "cannot start a process: " + text_of_errno(error_number));
  }
  if (pid == 0) {
    if (!inside && !move_into_group(spec.cgroup_fd) && spec.needs_cgroup) {
      fail(status[1], Stage::kControl, errno);
    }
    run_child(spec, status[1]);
  }
  close(status[1]);
  return StartedTask{pid, status[0]};
}

namespace {

// False: the writer closed the pipe, or wrote something else.
bool read_whole(int fd, void* out, std::size_t size) {
  ssize_t n = 0;
  do {
    n = read(fd, out, size);
  } while (n < 0 && errno == EINTR);
  return n == static_cast<ssize_t>(size);
}

Outcome explain(const Failure& failure, const TaskSpec& spec) {
  Outcome outcome;
  const std::string reason = text_of_errno(failure.error_number);
  outcome = Outcome{.cause = EndCause::kLaunchFailed, .exit_code = 126, .signal = 0, .detail = {}, .ran = {}};
  switch (failure.stage) {
    case Stage::kUser:
      outcome.detail = "cannot become user " + std::to_string(spec.uid) + ": " + reason;
      break;
    case Stage::kForeignUser:
      outcome.detail = "this node's daemon runs as user " + std::to_string(geteuid()) +
                       " and cannot run jobs of user " + std::to_string(spec.uid) + ": start muster-noded as root";
      break;
    case Stage::kNamespace:
      outcome.detail = "cannot make a user namespace for user " + std::to_string(spec.uid) + ": " + reason;
      break;
    case Stage::kWorkDir:
      outcome.detail = "working directory " + spec.work_dir + ": " + reason;
      break;
    case Stage::kInput:
      outcome.detail = "standard input " + spec.in.path + ": " + reason;
      break;
    case Stage::kOutput:
      outcome.cause = EndCause::kOutputFailed;
      outcome.detail = "standard output " + spec.out.path + ": " + reason;
      break;
    case Stage::kError:
      outcome.cause = EndCause::kOutputFailed;
      outcome.detail = "standard error " + spec.err.path + ": " + reason;
      break;
    case Stage::kExec:
      outcome.exit_code = failure.error_number == ENOENT ? 2 : 126;
      outcome.detail = explain_exec(spec, failure.error_number);
      break;
    case Stage::kControl:
      outcome.detail = "cannot put the task into the job's control groups: " + reason;
      break;
    case Stage::kIsolate:
      outcome.detail = "cannot enter the job's namespaces: " + reason;
      break;
    case Stage::kBound:
      break;
  }
  return outcome;
}

}  // namespace

StartNews read_start_news(int status_fd, const TaskSpec& spec) {
  StartNews news;
  Bound record;
  if (!read_whole(status_fd, &record.head, sizeof(record.head))) {
    return news;
  }
  if (record.head.stage != Stage::kBound) {
    news.what = StartNews::What::kFailed;
    news.outcome = explain(record.head, spec);
    return news;
  }
  news.what = StartNews::What::kBound;
  if (read_whole(status_fd, reinterpret_cast<char*>(&record) + sizeof(record.head),
                 sizeof(record) - sizeof(record.head))) {
    const auto count = std::min<std::size_t>(static_cast<std::size_t>(record.head.error_number), record.words.size());
    news.place.cpus.assign(record.words.begin(), record.words.begin() + static_cast<std::ptrdiff_t>(count));
    news.place.memory.assign(record.memory.begin(), record.memory.end());
    news.place.memory_policy = record.memory_policy;
    news.place.group = record.group;
  }
  return news;
}

}  // namespace muster::noded
