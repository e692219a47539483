#include "noded/health_monitor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "lib/base/check.h"
#include "lib/io/log.h"
#include "lib/io/process.h"

namespace muster::noded {
namespace {

// Beyond the time that the checks may take themselves.
constexpr Duration kRunnerPatience = Duration::from_s(10);

std::string without_digits(const std::string& text) {
  std::string out;
  std::copy_if(text.begin(), text.end(), std::back_inserter(out), [](char c) { return c < '0' || c > '9'; });
  return out;
}

std::string seconds_text(Duration d) {
  return std::to_string(d.us / 1'000'000) + "." + std::to_string(d.us / 100'000 % 10) + " s";
}

}  // namespace

bool same_problems(const std::vector<HealthProblem>& a, const std::vector<HealthProblem>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const HealthProblem& x, const HealthProblem& y) {
    return x.check == y.check && without_digits(x.text) == without_digits(y.text);
  });
}

HealthMonitor::HealthMonitor(HealthMonitorOptions options)
    : options_(std::move(options)),
      interval_(*options_.loop, [this] { begin(); }),
      deadline_(*options_.loop, [this] { give_up(); }),
      patience_(*options_.loop, [this] { first_done(); }) {}

HealthMonitor::~HealthMonitor() {
  watcher_.reset();
  if (pid_ != 0) {
    ::kill(pid_, SIGTERM);  // it takes what it started with it
  }
}

void HealthMonitor::start(std::function<void()> on_first) {
  on_first_ = std::move(on_first);
  patience_.start_once(kFirstPatience);
  begin();
}

void HealthMonitor::check_now() {
  asked_ = true;
  if (pid_ != 0) {
    again_ = true;
    return;
  }
  begin();
}

void HealthMonitor::look_again() {
  if (pid_ != 0) {
    again_ = true;
  } else {
    begin();
  }
}

std::vector<HealthProblem> HealthMonitor::problems() const {
  std::vector<HealthProblem> all = found_;
  if (first_) {
    all.push_back({"starting", "its first check has not ended yet"});
  }
  if (clock_ && all.size() < kHealthProblemsMax) {
    all.push_back(*clock_);
  }
  return all;
}

void HealthMonitor::begin() {
  if (pid_ != 0) {
    return;
  }
  interval_.start_once(options_.interval);  // should it not begin; else its end sets it anew
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    io::log_error("the checks of the node's health cannot be run",
                  {{"error", io::errno_text("make", "a pipe", errno)}});
    return found(found_);
  }
  output_.reset(ends[0]);
  const io::Fd theirs(ends[1]);
  io::SpawnOptions spawn;
  spawn.argv = {options_.program, std::string("--") + kRunChecksOption};
  for (std::string& argument : to_arguments(options_.checks)) {
    spawn.argv.push_back(std::move(argument));
  }
  spawn.fds = {{theirs.get(), 1}};
  spawn.new_process_group = true;
  spawn.work_dir = "/";
  const auto pid = io::spawn(spawn);
  if (!pid.ok()) {
    io::log_error("the checks of the node's health cannot be run", {{"error", pid.error().message}});
    output_.reset();
    return found(found_);
  }
  pid_ = *pid;
  judged_ = false;
  reader_ = HealthReader();
  auto watcher = io::FdWatcher::start(*options_.loop, output_.get(), io::FdWatcher::kReadable,
                                      [this](unsigned events) { on_output(events); });
  MUSTER_CHECK(watcher.ok());  // a pipe can be watched
  watcher_.emplace(std::move(*watcher));
  deadline_.start_once(Duration::from_s(options_.checks.timeout_s) + kRunnerPatience);
}

void HealthMonitor::on_output(unsigned /*events*/) {
  char buffer[4096];
  while (true) {
    const ssize_t n = ::read(output_.get(), buffer, sizeof(buffer));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      break;
    }
    if (n <= 0) {
      return ended();
    }
    reader_.append({buffer, static_cast<std::size_t>(n)});
  }
  if (reader_.done() && !judged_) {
    judged_ = true;
    deadline_.stop();
    found(reader_.problems());
  }
}

// The process is gone: its end of the pipe is closed.
void HealthMonitor::ended() {
  watcher_.reset();
  output_.reset();
  deadline_.stop();
  interval_.start_once(options_.interval);
  ::waitpid(std::exchange(pid_, 0), nullptr, WNOHANG);  // unless somebody else has reaped it
  if (!judged_) {
    if (reader_.done()) {
      found(reader_.problems());
    } else {
      io::log_error("the checks of the node's health ended before they were done", {});
      found(found_);
    }
  }
  if (std::exchange(again_, false)) {
    begin();
  }
}

// The process itself hangs, which it should never do.
void HealthMonitor::give_up() {
  if (pid_ == 0 || judged_) {
    return;
  }
  judged_ = true;
  ::kill(pid_, SIGKILL);
  found({{"checks", "the checks do not end: see the log of muster-noded"}});
}

void HealthMonitor::found(std::vector<HealthProblem> problems) {
  const std::vector<HealthProblem> before = this->problems();
  found_ = std::move(problems);
  first_ = false;
  if (!same_problems(before, this->problems())) {
    for (const HealthProblem& problem : found_) {
      io::log_warning("a check of the node's health fails", {{"check", problem.check}, {"text", problem.text}});
    }
    if (found_.empty()) {
      io::log_info("the checks of the node's health pass", {});
    }
  }
  if (on_first_) {
    return first_done();
  }
  // Who asked while another check was under way waits for the next one.
  if (!again_ && std::exchange(asked_, false)) {
    return options_.on_change();
  }
  say_if_changed(before);
}

void HealthMonitor::first_done() {
  patience_.stop();
  if (auto first = std::exchange(on_first_, nullptr)) {
    first();
  }
}

void HealthMonitor::say_if_changed(const std::vector<HealthProblem>& before) {
  if (!same_problems(before, problems())) {
    options_.on_change();
  }
}

void HealthMonitor::on_clock(Duration ahead, Duration round_trip) {
  if (options_.clock_max == Duration{}) {
    return;
  }
  const std::vector<HealthProblem> before = problems();
  const Duration off{ahead.us < 0 ? -ahead.us : ahead.us};
  if (off > options_.clock_max + Duration{round_trip.us / 2}) {
    clock_ = HealthProblem{"clock", "its clock is " + seconds_text(off) + (ahead.us < 0 ? " behind" : " ahead of") +
                                        " the controller's, at most " + seconds_text(options_.clock_max) +
                                        " are allowed ([node] health_clock_max)"};
  } else if (off <= options_.clock_max) {
    clock_.reset();
  }
  say_if_changed(before);
}

}  // namespace muster::noded
