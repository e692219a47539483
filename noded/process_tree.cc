#include "noded/process_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "noded/small_files.h"

namespace muster::noded {
namespace {

// The environment of a process is searched for the step's number; larger ones are cut. 2 MiB is the most that a job
// may submit.
constexpr std::size_t kEnvironBytesMax = 4U << 20U;

pid_t parent_of(const std::string& stat) {
  // "pid (name) S ppid ...": the name may contain anything, so count from the last ')'.
  const auto end = stat.rfind(')');
  if (end == std::string::npos || end + 4 >= stat.size()) {
    return 0;
  }
  return static_cast<pid_t>(std::strtol(stat.c_str() + end + 4, nullptr, 10));
}

bool has_step(pid_t pid, std::uint32_t step) {
  const std::string wanted = "MUSTER_STEP_ID=" + std::to_string(step);
  const std::string environ_text = read_small("/proc/" + std::to_string(pid) + "/environ", kEnvironBytesMax);
  std::string_view rest = environ_text;
  while (!rest.empty()) {
    const auto end = rest.find('\0');
    if (rest.substr(0, end) == wanted) {
      return true;
    }
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return false;
}

void pids_of_group(const std::string& directory, std::vector<pid_t>& out) {
  const std::string text = read_small(directory + "/cgroup.procs", 16U << 20U);
  const char* p = text.c_str();
  while (*p != '\0') {
    char* end = nullptr;
    const long pid = std::strtol(p, &end, 10);
    if (end == p) {
      break;
    }
    if (pid > 0) {
      out.push_back(static_cast<pid_t>(pid));
    }
    p = *end == '\n' ? end + 1 : end;
  }
}

}  // namespace

std::vector<pid_t> descendants_of(pid_t root) {
  std::vector<std::pair<pid_t, pid_t>> parents;  // (parent, child)
  DIR* dir = opendir("/proc");
  if (dir == nullptr) {
    return {};
  }
  while (const dirent* entry = readdir(dir)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') {
      continue;
    }
    const std::string stat = read_small(std::string("/proc/") + entry->d_name + "/stat", 4096);
    if (const pid_t parent = parent_of(stat); parent > 0) {
      parents.emplace_back(parent, static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10)));
    }
  }
  closedir(dir);
  std::sort(parents.begin(), parents.end());
  std::vector<pid_t> found{root};
  for (std::size_t i = 0; i < found.size(); ++i) {
    auto it = std::lower_bound(parents.begin(), parents.end(), std::pair<pid_t, pid_t>{found[i], 0});
    for (; it != parents.end() && it->first == found[i]; ++it) {
      found.push_back(it->second);
    }
  }
  found.erase(found.begin());
  return found;
}

ProcessTree::ProcessTree(const std::string& cgroup, std::string freezer) : freezer_(std::move(freezer)) {
  if (cgroup.empty()) {
    return;
  }
  if (mkdir(cgroup.c_str(), 0755) != 0 && errno == ENOENT) {
    // The node's own group is removed with its last attempt; make it again.
    mkdir(cgroup.substr(0, cgroup.rfind('/')).c_str(), 0755);
    mkdir(cgroup.c_str(), 0755);
  }
  if (access((cgroup + "/cgroup.procs").c_str(), W_OK) == 0) {
    cgroup_ = cgroup;
  }
}

ProcessTree::~ProcessTree() = default;

std::string ProcessTree::group_of(std::uint32_t step) const {
  return step == kNoStep ? cgroup_ : cgroup_ + "/s" + std::to_string(step);
}

int ProcessTree::open_group(std::uint32_t step) {
  if (cgroup_.empty()) {
    return -1;
  }
  const std::string path = group_of(step);
  if (step != kNoStep) {
    mkdir(path.c_str(), 0755);
  }
  return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

std::vector<pid_t> ProcessTree::processes(bool one_step, std::uint32_t step) const {
  std::vector<pid_t> pids;
  if (!cgroup_.empty()) {
    std::vector<std::string> groups{one_step ? group_of(step) : cgroup_};
    for (std::size_t i = 0; i < groups.size(); ++i) {
      pids_of_group(groups[i], pids);
      for (std::string& below : subgroups(groups[i])) {
        groups.push_back(std::move(below));
      }
    }
    return pids;
  }
  pids = descendants_of(getpid());
  if (one_step) {
    std::erase_if(pids, [&](pid_t pid) { return !has_step(pid, step); });
  }
  return pids;
}

void ProcessTree::signal_all(int signal) const {
  for (const pid_t pid : processes(false, kNoStep)) {
    kill(pid, signal);
  }
}

void ProcessTree::signal_step(std::uint32_t step, const std::vector<pid_t>& tasks, int signal) const {
  std::vector<pid_t> pids = processes(true, step);
  pids.insert(pids.end(), tasks.begin(), tasks.end());
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  for (const pid_t pid : pids) {
    kill(pid, signal);
  }
}

void ProcessTree::freeze() const {
  if (!cgroup_.empty() && write_small(cgroup_ + "/cgroup.freeze", "1")) {
    return;
  }
  if (!freezer_.empty() && write_small(freezer_ + "/freezer.state", "FROZEN")) {
    return;
  }
  // A process that was forked while the list was made is in the next one; a stopped one forks no more.
  constexpr int kRoundsMax = 5;
  std::vector<pid_t> before;
  for (int i = 0; i < kRoundsMax; ++i) {
    std::vector<pid_t> pids = processes(false, kNoStep);
    for (const pid_t pid : pids) {
      kill(pid, SIGSTOP);
    }
    std::sort(pids.begin(), pids.end());
    if (pids == before) {
      return;
    }
    before = std::move(pids);
  }
}

void ProcessTree::thaw() const {
  if (!cgroup_.empty() && write_small(cgroup_ + "/cgroup.freeze", "0")) {
    return;
  }
  if (!freezer_.empty() && write_small(freezer_ + "/freezer.state", "THAWED")) {
    return;
  }
  signal_all(SIGCONT);
}

void ProcessTree::kill_all() const {
  if (!cgroup_.empty()) {
    write_small(cgroup_ + "/cgroup.kill", "1");
  }
  if (!freezer_.empty() && write_small(freezer_ + "/freezer.state", "FROZEN")) {
    std::vector<pid_t> frozen;
    pids_of_group(freezer_, frozen);
    for (const pid_t pid : frozen) {
      kill(pid, SIGKILL);
    }
    write_small(freezer_ + "/freezer.state", "THAWED");
  }
  // Also what left the group, and kernels before 5.14 that have no cgroup.kill. Stopping first keeps a process from
  // forking while the list is made.
  const std::vector<pid_t> pids = descendants_of(getpid());
  for (const pid_t pid : pids) {
    kill(pid, SIGSTOP);
  }
  for (const pid_t pid : descendants_of(getpid())) {
    kill(pid, SIGKILL);
  }
}

void ProcessTree::kill_step(std::uint32_t step, const std::vector<pid_t>& tasks) const {
  if (cgroup_.empty() || !write_small(group_of(step) + "/cgroup.kill", "1")) {
    signal_step(step, tasks, SIGKILL);
    return;
  }
  for (const pid_t pid : tasks) {
    kill(pid, SIGKILL);  // one that the group did not take
  }
}

bool ProcessTree::step_is_empty(std::uint32_t step) const {
  if (!cgroup_.empty()) {
    for (const std::string& below : subgroups(group_of(step))) {
      rmdir(below.c_str());
    }
    return rmdir(group_of(step).c_str()) == 0 || errno == ENOENT;
  }
  return processes(true, step).empty();
}

bool ProcessTree::remove() {
  return cgroup_.empty() || remove_group(cgroup_);
}

}  // namespace muster::noded
