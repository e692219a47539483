// The real muster-shepherd, driven through its protocol: what it starts, how it ends everything, what it records.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>

#include "lib/base/index_set.h"
#include "noded/shepherd_protocol.h"
#include "tests/support/shepherd_program.h"
#include "tests/support/slowness.h"

namespace muster::noded {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPatience{20'000 * test::kSlowness};

bool wait_for(const std::function<bool()>& condition) {
  const auto until = steady_clock::now() + kPatience;
  while (!condition()) {
    if (steady_clock::now() > until) {
      return false;
    }
    poll(nullptr, 0, 2);
  }
  return true;
}

bool alive(pid_t pid) {
  const std::string stat = test::read_all("/proc/" + std::to_string(pid) + "/stat");
  const auto end = stat.rfind(')');
  return end != std::string::npos && stat.size() > end + 2 && stat[end + 2] != 'Z';
}

// A cgroup2 tree in which this test may make groups; empty: none.
std::string writable_cgroup() {
  std::ifstream in("/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.find(" - cgroup2 ") == std::string::npos) {
      continue;
    }
    std::stringstream fields(line);
    std::string skip;
    std::string mount;
    fields >> skip >> skip >> skip >> skip >> mount;
    const std::string probe = mount + "/muster-test-" + std::to_string(getpid());
    if (mkdir(probe.c_str(), 0755) == 0) {
      rmdir(probe.c_str());
      return mount;
    }
  }
  return {};
}

class ShepherdTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/muster-shepherd-test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    ASSERT_EQ(chmod(pattern, 0755), 0);
    launch_.name = "42.1";
    launch_.directory = directory_ + "/attempt";
    ASSERT_EQ(mkdir(launch_.directory.c_str(), 0711), 0);
    launch_.uid = geteuid();
    launch_.gid = getegid();
    launch_.kill_grace_us = 1'000'000 * test::kSlowness;  // what obeys TERM does so within it
    launch_.work_dir = directory_;
    launch_.stdout_path = directory_ + "/out";
    launch_.environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "MUSTER_JOB_ID=42"};
    if (GetParam()) {
      const std::string mount = writable_cgroup();
      if (mount.empty()) {
        GTEST_SKIP() << "no writable cgroup2 tree";
      }
      launch_.cgroup_parent = mount + "/muster-test-" + std::to_string(getpid());
      ASSERT_EQ(mkdir(launch_.cgroup_parent.c_str(), 0755), 0);
    }
    start();
  }

  void TearDown() override {
    if (connection_ >= 0) {
      close(connection_);
    }
    if (pid_ > 0) {
      if (wait_exit(milliseconds(0)) == -1) {
        kill(pid_, SIGTERM);
        EXPECT_NE(wait_exit(kPatience), -1) << "the shepherd did not end";
      }
    }
    if (!launch_.cgroup_parent.empty()) {
      rmdir(launch_.cgroup_parent.c_str());
      EXPECT_NE(access(launch_.cgroup_parent.c_str(), F_OK), 0) << "a cgroup is left";
    }
    std::filesystem::remove_all(directory_);
  }

  void start() {
    pid_ = test::start_shepherd(connection_);
    ASSERT_GT(pid_, 0) << test::shepherd_program();
  }

  void script(const std::string& text) {
    launch_.has_script = true;
    launch_.script = launch_.directory + "/script";
    std::ofstream(launch_.script) << text;
    ASSERT_EQ(chmod(launch_.script.c_str(), 0700), 0);
  }

  void send(const Frame& frame) {
    const std::string bytes = encode_frame(frame);
    ASSERT_EQ(::send(connection_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  // The next frame; nothing when the shepherd closed the connection or patience is over.
  std::optional<Frame> receive() {
    const auto until = steady_clock::now() + kPatience;
    while (true) {
      Frame frame;
      auto got = reader_.next(frame);
      EXPECT_TRUE(got.ok());
      if (got.ok() && *got) {
        return frame;
      }
      pollfd p{connection_, POLLIN, 0};
      const auto left = std::chrono::duration_cast<milliseconds>(until - steady_clock::now());
      if (left.count() <= 0 || poll(&p, 1, static_cast<int>(left.count())) <= 0) {
        ADD_FAILURE() << "no frame in time";
        return std::nullopt;
      }
      char buffer[65536];
      const ssize_t n = read(connection_, buffer, sizeof(buffer));
      if (n <= 0) {
        return std::nullopt;
      }
      reader_.append(std::string_view(buffer, static_cast<std::size_t>(n)));
    }
  }

  template <typename T>
  std::optional<T> receive_one() {
    while (auto frame = receive()) {
      if (auto* wanted = std::get_if<T>(&*frame)) {
        return *wanted;
      }
      others_.push_back(*frame);
    }
    return std::nullopt;
  }

  // Runs to the end; checks that the outcome on disk is the one reported and that the shepherd exits.
  Outcome end() {
    auto ended = receive_one<EndedFrame>();
    if (!ended) {
      ADD_FAILURE() << "no EndedFrame";
      return {};
    }
    EXPECT_EQ(recorded(), ended->outcome);
    EXPECT_EQ(wait_exit(kPatience), 0);
    return ended->outcome;
  }

  std::optional<Outcome> recorded() {
    auto record = decode_shepherd_record(test::read_all(launch_.directory + "/" + kShepherdRecordName));
    EXPECT_TRUE(record.ok());
    return record.ok() ? record->outcome : std::nullopt;
  }

  // The exit status; -1 when it did not exit in time.
  int wait_exit(milliseconds patience) {
    int status = 0;
    const auto until = steady_clock::now() + patience;
    while (waitpid(pid_, &status, WNOHANG) == 0) {
      if (steady_clock::now() >= until) {
        return -1;
      }
      poll(nullptr, 0, 1);
    }
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  pid_t pid_in(const std::string& name) {
    const std::string path = directory_ + "/" + name;
    EXPECT_TRUE(wait_for([&] { return !test::read_all(path).empty() && test::read_all(path).back() == '\n'; })) << name;
    return static_cast<pid_t>(std::strtol(test::read_all(path).c_str(), nullptr, 10));
  }

  // Connects as a restarted noded does.
  void attach() {
    close(connection_);
    connection_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const auto record = decode_shepherd_record(test::read_all(launch_.directory + "/" + kShepherdRecordName));
    ASSERT_TRUE(record.ok());
    ASSERT_LT(record->socket.size(), sizeof(address.sun_path));
    record->socket.copy(address.sun_path + 1, record->socket.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + record->socket.size());
    ASSERT_EQ(connect(connection_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    reader_ = FrameReader();
    send(AttachFrame{});
  }

  StepStartFrame step(std::uint32_t number, std::vector<std::string> argv, std::uint32_t tasks) {
    StepStartFrame frame;
    frame.step = number;
    frame.argv = std::move(argv);
    frame.environment = launch_.environment;
    frame.environment.push_back("MUSTER_STEP_ID=" + std::to_string(number));
    frame.work_dir = directory_;
    for (std::uint32_t rank = 0; rank < tasks; ++rank) {
      frame.tasks.push_back(StepTask{rank, {"MUSTER_PROCID=" + std::to_string(rank)}, {}});
    }
    return frame;
  }

  // All output of the step by (rank, stream), and the outcomes by rank, until StepEndedFrame.
  void collect(std::uint32_t number) {
    while (auto frame = receive()) {
      if (auto* output = std::get_if<StepOutputFrame>(&*frame); output != nullptr && output->step == number) {
        output_[{output->rank, output->stream}] += output->data;
      } else if (auto* ended = std::get_if<StepTaskEndedFrame>(&*frame); ended != nullptr && ended->step == number) {
        outcomes_[ended->rank] = ended->outcome;
      } else if (auto* done = std::get_if<StepEndedFrame>(&*frame); done != nullptr && done->step == number) {
        return;
      } else {
        others_.push_back(*frame);
      }
    }
    ADD_FAILURE() << "the step did not end";
  }

  std::string directory_;
  LaunchFrame launch_;
  pid_t pid_ = 0;
  int connection_ = -1;
  FrameReader reader_;
  std::vector<Frame> others_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::string> output_;
  std::map<std::uint32_t, Outcome> outcomes_;
};

TEST_P(ShepherdTest, RunsAScriptAndRecordsItsExitCode) {
  script("#!/bin/sh\necho \"$1 $MUSTER_JOB_ID $PWD\"\necho problem >&2\nexit 7\n");
  launch_.args = {"a b"};
  send(launch_);
  EXPECT_TRUE(receive_one<StartedFrame>());
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 7);
  EXPECT_GT(outcome.ran.us, 0);
  EXPECT_EQ(test::read_all(directory_ + "/out"), "a b 42 " + directory_ + "\nproblem\n");
}

TEST_P(ShepherdTest, ReportsTheSignalThatEndedTheScript) {
  script("#!/bin/sh\nkill -SEGV $$\n");
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kSignalled);
  EXPECT_EQ(outcome.signal, SIGSEGV);
}

TEST_P(ShepherdTest, KeepsStandardErrorApartAndAppends) {
  launch_.stderr_path = directory_ + "/err";
  launch_.append = true;
  std::ofstream(directory_ + "/out") << "before\n";
  script("#!/bin/sh\necho out\necho err >&2\n");
  send(launch_);
  EXPECT_EQ(end().exit_code, 0);
  EXPECT_EQ(test::read_all(directory_ + "/out"), "before\nout\n");
  EXPECT_EQ(test::read_all(directory_ + "/err"), "err\n");
}

TEST_P(ShepherdTest, NamesAMissingInterpreter) {
  script("#!/no/such/shell -x\n");
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kLaunchFailed);
  EXPECT_EQ(outcome.detail, "interpreter /no/such/shell: No such file or directory");
}

TEST_P(ShepherdTest, NamesAMissingWorkingDirectory) {
  script("#!/bin/sh\n");
  launch_.work_dir = "/no/such/dir";
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kLaunchFailed);
  EXPECT_EQ(outcome.detail, "working directory /no/such/dir: No such file or directory");
}

TEST_P(ShepherdTest, NamesAnOutputThatCannotBeWritten) {
  script("#!/bin/sh\n");
  launch_.stdout_path = "/no/such/dir/out";
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kOutputFailed);
  EXPECT_EQ(outcome.detail, "standard output /no/such/dir/out: No such file or directory");
}

TEST_P(ShepherdTest, AFullDiskIsTheJobsAffair) {
  script("#!/bin/sh\necho lost || exit 3\n");
  launch_.stdout_path = "/dev/full";
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 3);
}

TEST_P(ShepherdTest, StopEndsGrandchildrenThatLeftTheSession) {
  script(
      "#!/bin/sh\n"
      "setsid sh -c 'trap \"\" TERM; (setsid sh -c \"trap \\\"\\\" TERM; echo \\$\\$ > deep; sleep 1000\" &) ; "
      "echo $$ > mid; sleep 1000' &\n"
      "wait\n");
  send(launch_);
  const pid_t mid = pid_in("mid");
  const pid_t deep = pid_in("deep");
  EXPECT_TRUE(alive(mid));
  EXPECT_TRUE(alive(deep));
  send(StopFrame{0, launch_.kill_grace_us});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kCancelled);
  EXPECT_EQ(outcome.signal, SIGTERM);
  EXPECT_FALSE(alive(mid));
  EXPECT_FALSE(alive(deep));
}

TEST_P(ShepherdTest, LeftBehindProcessesEndWithTheScript) {
  script(
      "#!/bin/sh\nsetsid sh -c 'trap \"\" TERM; echo $$ > left; sleep 1000' &\nwhile [ ! -s left ]; do :; done\nexit "
      "4\n");
  send(launch_);
  const pid_t left = pid_in("left");
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_FALSE(alive(left));
}

TEST_P(ShepherdTest, GivesTheScriptItsGrace) {
  script("#!/bin/sh\ntrap 'echo saved; exit 9' TERM\necho ready > ready\nwhile :; do sleep 0.01; done\n");
  launch_.kill_grace_us = 10'000'000 * test::kSlowness;
  send(launch_);
  ASSERT_TRUE(wait_for([&] { return !test::read_all(directory_ + "/ready").empty(); }));
  send(StopFrame{0, launch_.kill_grace_us});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kCancelled);
  EXPECT_EQ(outcome.exit_code, 9);
  // The shell may also say that its `sleep` was terminated.
  EXPECT_NE(test::read_all(directory_ + "/out").find("saved\n"), std::string::npos);
}

TEST_P(ShepherdTest, EndsAtTheTimeLimit) {
  script("#!/bin/sh\nexec sleep 1000\n");
  launch_.time_limit_us = 100'000;
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kTimeLimit);
  EXPECT_GE(outcome.ran.us, 100'000);
}

TEST_P(ShepherdTest, SendsOtherSignalsToTheScriptAlone) {
  script("#!/bin/sh\ntrap 'exit 5' USR1\necho ready > ready\nwhile :; do sleep 0.01; done\n");
  send(launch_);
  ASSERT_TRUE(wait_for([&] { return !test::read_all(directory_ + "/ready").empty(); }));
  send(StopFrame{SIGUSR1, 0});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 5);
}

TEST_P(ShepherdTest, ASuspendedScriptAndItsChildrenStandStillAndGoOn) {
  // Two processes, one of another session, that count.
  script(
      "#!/bin/sh\ncount() { i=0; while :; do i=$((i+1)); echo $i > $1.new; mv $1.new $1; done; }\n"
      "setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i > b.new; mv b.new b; done' &\n"
      "count a\n");
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  const auto counter = [&](const char* name) { return std::atol(test::read_all(directory_ + "/" + name).c_str()); };
  ASSERT_TRUE(wait_for([&] { return counter("a") > 0 && counter("b") > 0; }));
  send(SuspendFrame{true});
  // They stand still when two looks some time apart see the same; until the frame has arrived they do not.
  const auto stands_still = [&] {
    const auto a = counter("a");
    const auto b = counter("b");
    poll(nullptr, 0, 100);
    return a == counter("a") && b == counter("b");
  };
  EXPECT_TRUE(wait_for(stands_still));
  const auto before_a = counter("a");
  const auto before_b = counter("b");
  send(SuspendFrame{true});
  send(SuspendFrame{false});
  EXPECT_TRUE(wait_for([&] { return counter("a") > before_a && counter("b") > before_b; }));
  send(SuspendFrame{true});
  EXPECT_TRUE(wait_for(stands_still));
  send(StopFrame{0, launch_.kill_grace_us});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kCancelled);
}

// Who gives its CPUs away says when, and is killed without running again: its trap for TERM never runs.
TEST_P(ShepherdTest, WhoStandsStillForOthersSaysSoAndNeverRunsToEnd) {
  script(
      "#!/bin/sh\ntrap 'echo trapped > trapped' TERM\necho ready > ready\n"
      "i=0; while :; do i=$((i+1)); echo $i > a.new; mv a.new a; done\n");
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  const auto counter = [&] { return std::atol(test::read_all(directory_ + "/a").c_str()); };
  ASSERT_TRUE(wait_for([&] { return counter() > 0; }));
  send(StandStillFrame{1});
  auto said = receive_one<StoodStillFrame>();
  ASSERT_TRUE(said);
  EXPECT_EQ(said->number, 1U);
  // The noded that comes next asks again, and a signal to go on changes nothing.
  attach();
  ASSERT_TRUE(receive_one<StateFrame>());
  send(StopFrame{SIGCONT, 0});
  send(StandStillFrame{1});
  said = receive_one<StoodStillFrame>();
  ASSERT_TRUE(said);
  const auto still = counter();
  send(StandStillFrame{3});
  said = receive_one<StoodStillFrame>();
  ASSERT_TRUE(said);
  EXPECT_EQ(said->number, 3U);
  EXPECT_EQ(counter(), still);
  send(SuspendFrame{false});
  EXPECT_TRUE(wait_for([&] { return counter() > still; }));
  send(StandStillFrame{5});
  ASSERT_TRUE(receive_one<StoodStillFrame>());
  send(NoticeFrame{SIGUSR1, 60'000'000, launch_.kill_grace_us});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
  EXPECT_EQ(test::read_all(directory_ + "/trapped"), "");
}

TEST_P(ShepherdTest, WhoEndsDoesNotSayThatItStandsStill) {
  script("#!/bin/sh\ntrap '' TERM USR1\necho ready > ready\nwhile :; do sleep 0.01; done\n");
  send(launch_);
  ASSERT_TRUE(wait_for([&] { return !test::read_all(directory_ + "/ready").empty(); }));
  send(NoticeFrame{SIGUSR1, 100'000, launch_.kill_grace_us});
  send(StandStillFrame{1});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
  for (const Frame& frame : others_) {
    EXPECT_FALSE(std::holds_alternative<StoodStillFrame>(frame));
  }
}

TEST_P(ShepherdTest, TheTimeLimitStandsStillWithTheScript) {
  script("#!/bin/sh\nexec sleep 1000\n");
  launch_.time_limit_us = 400'000;
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  send(SuspendFrame{true});
  pollfd p{connection_, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 900), 0) << "it ended although its time stood still";
  attach();  // also for the noded that comes next
  ASSERT_TRUE(receive_one<StateFrame>());
  send(SuspendFrame{false});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kTimeLimit);
  EXPECT_GE(outcome.ran.us, 1'200'000);
}

TEST_P(ShepherdTest, WarnsTheScriptBeforeTheTimeLimit) {
  script("#!/bin/sh\ntrap 'echo warned; exit 5' USR1\nwhile :; do sleep 0.01; done\n");
  launch_.time_limit_us = 60'000'000;
  launch_.warn_before_us = 60'000'000 - 100'000;
  launch_.warn_signal = SIGUSR1;
  launch_.warn_batch_only = true;
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 5);
  EXPECT_GE(outcome.ran.us, 100'000);
}

TEST_P(ShepherdTest, WarnsTheTasksOfStepsAndNotTheScript) {
  script("#!/bin/sh\ntrap 'echo warned' USR1\nwhile [ ! -e go ]; do sleep 0.01; done\n");
  launch_.time_limit_us = 60'000'000;
  launch_.warn_before_us = 60'000'000 - 1'000'000;
  launch_.warn_signal = SIGUSR1;
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  send(step(0, {"sh", "-c", "trap 'exit 7' USR1; while :; do sleep 0.01; done"}, 2));
  collect(0);
  EXPECT_EQ(outcomes_[0].exit_code, 7);
  EXPECT_EQ(outcomes_[1].exit_code, 7);
  std::ofstream(directory_ + "/go") << "go";
  EXPECT_EQ(end().exit_code, 0);
  EXPECT_EQ(test::read_all(directory_ + "/out"), "");
}

TEST_P(ShepherdTest, ANoticeGivesTimeBeforeTheStop) {
  script("#!/bin/sh\ntrap 'echo saved; exit 85' USR1\necho ready > ready\nwhile :; do sleep 0.01; done\n");
  send(launch_);
  ASSERT_TRUE(wait_for([&] { return !test::read_all(directory_ + "/ready").empty(); }));
  send(NoticeFrame{SIGUSR1, 60'000'000, launch_.kill_grace_us});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 85);
}

TEST_P(ShepherdTest, WhoIgnoresTheNoticeIsStopped) {
  script("#!/bin/sh\ntrap '' USR1\necho ready > ready\nwhile :; do sleep 0.01; done\n");
  send(launch_);
  ASSERT_TRUE(wait_for([&] { return !test::read_all(directory_ + "/ready").empty(); }));
  send(SuspendFrame{true});
  send(NoticeFrame{SIGUSR1, 100'000, launch_.kill_grace_us});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
}

TEST_P(ShepherdTest, OutlivesNodedAndServesTheNextOne) {
  script("#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.01; done\nexit 6\n");
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  attach();
  auto state = receive_one<StateFrame>();
  ASSERT_TRUE(state);
  EXPECT_TRUE(state->started);
  EXPECT_FALSE(state->stopping);
  std::ofstream(directory_ + "/go") << "go";
  EXPECT_EQ(end().exit_code, 6);
}

TEST_P(ShepherdTest, EndsAloneWhenNoNodedIsThere) {
  script("#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.01; done\nexit 6\n");
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  close(connection_);
  connection_ = -1;
  std::ofstream(directory_ + "/go") << "go";
  EXPECT_EQ(wait_exit(kPatience), 0);
  const auto outcome = recorded();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->exit_code, 6);
}

TEST_P(ShepherdTest, StartsNothingWhenNodedDiesBeforeTheLaunch) {
  close(connection_);
  connection_ = -1;
  EXPECT_EQ(wait_exit(kPatience), 0);
  EXPECT_TRUE(std::filesystem::is_empty(launch_.directory));
}

TEST_P(ShepherdTest, ASecondShepherdOfOneAttemptStartsNothing) {
  std::ofstream(launch_.directory + "/" + kShepherdRecordName) << "1 1 x \n";
  script("#!/bin/sh\necho started > started\n");
  const pid_t pid = pid_;
  send(launch_);
  EXPECT_EQ(wait_exit(kPatience), 0);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/started"));
  EXPECT_FALSE(std::filesystem::exists(launch_.directory + "/." + kShepherdRecordName + "." + std::to_string(pid)));
  EXPECT_EQ(test::read_all(launch_.directory + "/" + kShepherdRecordName), "1 1 x \n");
  if (!launch_.cgroup_parent.empty()) {
    rmdir((launch_.cgroup_parent + "/42.1").c_str());
  }
}

TEST_P(ShepherdTest, EndsWhenNoNodedCanFindItAnyMore) {
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  send(step(0, {"sh", "-c", "echo $$ > main; exec sleep 1000"}, 1));
  const pid_t main = pid_in("main");
  close(connection_);
  connection_ = -1;
  std::filesystem::remove_all(launch_.directory);
  EXPECT_EQ(wait_exit(kPatience), 0);
  EXPECT_FALSE(alive(main));
}

TEST_P(ShepherdTest, AMarkThatCannotBeWrittenLeavesNoShepherd) {
  launch_.directory = directory_ + "/file";
  std::ofstream(launch_.directory) << "x";
  send(launch_);
  close(connection_);
  connection_ = -1;
  EXPECT_EQ(wait_exit(kPatience), 0);
}

TEST_P(ShepherdTest, ItsRecordAppearsWholeOrNotAtAll) {
  const int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  ASSERT_GE(watch, 0);
  ASSERT_GE(inotify_add_watch(watch, launch_.directory.c_str(), IN_CREATE | IN_MOVED_TO), 0);
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  alignas(inotify_event) char buffer[4096];
  const ssize_t size = read(watch, buffer, sizeof(buffer));
  close(watch);
  std::vector<std::uint32_t> events;
  for (ssize_t at = 0; at < size;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
    if (std::string(event->name) == kShepherdRecordName) {
      events.push_back(event->mask);
    }
    at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
  }
  EXPECT_EQ(events, std::vector<std::uint32_t>{IN_MOVED_TO});
  send(StopFrame{0, 0});
  end();
}

TEST_P(ShepherdTest, AWithdrawnAttemptIsNotBegun) {
  std::filesystem::remove(launch_.directory);
  send(launch_);
  EXPECT_EQ(wait_exit(kPatience), 0);
  EXPECT_FALSE(std::filesystem::exists(launch_.directory));
  if (!launch_.cgroup_parent.empty()) {
    rmdir((launch_.cgroup_parent + "/42.1").c_str());
  }
}

TEST_P(ShepherdTest, DamagedFramesHarmNothing) {
  script("#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.01; done\nexit 6\n");
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  ASSERT_GT(write(connection_, "\xff\xff\xff\xff garbage", 12), 0);
  attach();
  ASSERT_TRUE(receive_one<StateFrame>());
  std::ofstream(directory_ + "/go") << "go";
  EXPECT_EQ(end().exit_code, 6);
}

TEST_P(ShepherdTest, RunsAsTheJobsUser) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  const passwd* nobody = getpwnam("nobody");
  ASSERT_NE(nobody, nullptr);
  launch_.uid = nobody->pw_uid;
  launch_.gid = nobody->pw_gid;
  ASSERT_EQ(chown(directory_.c_str(), nobody->pw_uid, nobody->pw_gid), 0);
  script("#!/bin/sh\nid -u; id -G\ngrep -E '^CapEff|^NoNewPrivs' /proc/self/status\n");
  ASSERT_EQ(chown(launch_.script.c_str(), nobody->pw_uid, nobody->pw_gid), 0);
  send(launch_);
  EXPECT_EQ(end().exit_code, 0);
  const std::string id = std::to_string(nobody->pw_uid);
  const std::string gid = std::to_string(nobody->pw_gid);
  EXPECT_EQ(test::read_all(directory_ + "/out"), id + "\n" + gid + "\nCapEff:\t0000000000000000\nNoNewPrivs:\t0\n");
  struct stat info {};
  ASSERT_EQ(stat((directory_ + "/out").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, nobody->pw_uid);
}

TEST_P(ShepherdTest, AnUnwritableOutputOfTheUserIsNamed) {
  if (geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  const passwd* nobody = getpwnam("nobody");
  launch_.uid = nobody->pw_uid;
  launch_.gid = nobody->pw_gid;
  script("#!/bin/sh\n");
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kOutputFailed);
  EXPECT_EQ(outcome.detail, "standard output " + directory_ + "/out: Permission denied");
}

TEST_P(ShepherdTest, RunsAStepAndReturnsItsOutputInOrder) {
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  send(step(0, {"sh", "-c", "echo rank $MUSTER_PROCID; echo err >&2; exit $MUSTER_PROCID"}, 3));
  collect(0);
  for (std::uint32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ((output_[{rank, 1}]), "rank " + std::to_string(rank) + "\n");
    EXPECT_EQ((output_[{rank, 2}]), "err\n");
    EXPECT_EQ(outcomes_[rank].exit_code, static_cast<int>(rank));
  }
  send(FinishFrame{Outcome{.cause = EndCause::kExited, .exit_code = 2, .signal = 0, .detail = {}, .ran = {}}});
  EXPECT_EQ(end().exit_code, 2);
}

// A hardware thread that this process may run on.
std::uint32_t allowed_cpu() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  for (std::uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) {
      return cpu;
    }
  }
  ADD_FAILURE() << "no CPU";
  return 0;
}

TEST_P(ShepherdTest, TellsWhatTheKernelBoundATaskTo) {
  const auto cpu = IndexSet::range(allowed_cpu(), 1);
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  StepStartFrame start = step(0, {"true"}, 2);
  start.tasks[0].cpus = cpu.words();
  start.tasks[1].cpus = (cpu | IndexSet::range(8'000, 1)).words();  // which no machine has
  send(start);
  std::map<std::uint32_t, std::string> bound;
  for (int i = 0; i < 2; ++i) {
    const auto frame = receive_one<StepTaskBoundFrame>();
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->step, 0U);
    bound[frame->rank] = IndexSet::from_words(frame->cpus).to_string();
  }
  EXPECT_EQ(bound, (std::map<std::uint32_t, std::string>{{0, cpu.to_string()}, {1, cpu.to_string()}}));
  send(StopFrame{0, 0});
  end();
}

// Where the kernel has NUMA policies, which is nearly everywhere.
TEST_P(ShepherdTest, TellsWhereTheKernelHasTheBatchScript) {
  const auto cpu = IndexSet::range(allowed_cpu(), 1);
  int policy = 0;
  const bool has_policies = syscall(SYS_get_mempolicy, &policy, nullptr, 0, nullptr, 0) == 0;
  launch_.cpus = cpu.words();
  script("#!/bin/sh\n");
  send(launch_);
  const auto frame = receive_one<StepTaskBoundFrame>();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->step, kScriptStep);
  EXPECT_EQ(IndexSet::from_words(frame->cpus), cpu);
  EXPECT_EQ(frame->memory_policy, has_policies ? 0 : -1) << "memory where it runs";
  EXPECT_EQ(frame->group, launch_.cgroup_parent.empty() ? 0 : 1);
  end();
}

TEST_P(ShepherdTest, ADaemonOfTheReleaseBeforeIsNotToldOfBindings) {
  launch_.version = kBoundProtocolVersion - 1;
  send(launch_);
  ASSERT_TRUE(receive_one<StartedFrame>());
  send(step(0, {"true"}, 1));
  collect(0);
  for (const Frame& frame : others_) {
    EXPECT_FALSE(std::holds_alternative<StepTaskBoundFrame>(frame));
  }
  send(StopFrame{0, 0});
  end();
}

TEST_P(ShepherdTest, AStepsMissingProgramIsReported) {
  send(launch_);
  send(step(0, {"no-such-program-here"}, 1));
  collect(0);
  EXPECT_EQ(outcomes_[0].cause, EndCause::kLaunchFailed);
  EXPECT_EQ(outcomes_[0].exit_code, 2);
  EXPECT_EQ(outcomes_[0].detail, "no-such-program-here: No such file or directory");
  send(StopFrame{0, 0});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
}

TEST_P(ShepherdTest, PassesInputAndConfirmsIt) {
  send(launch_);
  StepStartFrame start = step(0, {"cat"}, 2);
  start.stdin_mode = StdinMode::kRank;
  start.stdin_rank = 1;
  send(start);
  const std::string text(100'000, 'x');
  send(StepInputFrame{0, 1, text, false});
  send(StepInputFrame{0, 1, "end", true});
  collect(0);
  EXPECT_EQ((output_[{0, 1}]), "");
  EXPECT_EQ((output_[{1, 1}]), text + "end");
  std::uint64_t taken = 0;
  for (const Frame& frame : others_) {
    if (const auto* f = std::get_if<StepInputTakenFrame>(&frame)) {
      taken += f->bytes;
    }
  }
  EXPECT_EQ(taken, text.size() + 3);
  send(StopFrame{0, 0});
  end();
}

TEST_P(ShepherdTest, TasksRunTheirOwnPrograms) {
  send(launch_);
  send(StepProgramsFrame{0, {{1, {"echo", "one"}}}});
  send(step(0, {"echo", "all"}, 3));
  collect(0);
  EXPECT_EQ((output_[{0, 1}]), "all\n");
  EXPECT_EQ((output_[{1, 1}]), "one\n");
  EXPECT_EQ((output_[{2, 1}]), "all\n");
  send(StopFrame{0, 0});
  end();
}

TEST_P(ShepherdTest, SendsNoMoreOutputThanGranted) {
  send(launch_);
  send(step(0, {"sh", "-c", "head -c 1000000 /dev/zero; echo done > done"}, 1));
  std::uint64_t got = 0;
  std::uint64_t cost = 0;
  while (cost < kInitialCreditBytes) {
    auto frame = receive_one<StepOutputFrame>();
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->offset, got);
    got += frame->data.size();
    cost += frame->data.size() + kOutputFrameCost;
  }
  EXPECT_LE(cost, kInitialCreditBytes + kOutputFrameCost);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/done"));
  send(StepCreditFrame{0, 10'000'000});
  collect(0);
  const std::string& rest = output_[{0, 1}];
  EXPECT_EQ(got + rest.size(), 1'000'000U);
  send(StepForgetFrame{0});
  send(StopFrame{0, 0});
  end();
}

TEST_P(ShepherdTest, ARestartedNodedGetsAgainWhatItsReaderLacks) {
  send(launch_);
  send(step(
      0, {"sh", "-c", "printf abc; while [ ! -e go ]; do sleep 0.01; done; printf defg; echo done > done; exit 3"}, 1));
  auto first = receive_one<StepOutputFrame>();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->data, "abc");
  attach();
  std::ofstream(directory_ + "/go") << "go";
  auto state = receive_one<StateFrame>();
  ASSERT_TRUE(state);
  EXPECT_EQ(state->steps, std::vector<std::uint32_t>{0});
  ASSERT_TRUE(wait_for([&] { return std::filesystem::exists(directory_ + "/done"); }));
  send(StepResumeFrame{0, {{0, 1, 3}}});
  collect(0);
  EXPECT_EQ((output_[{0, 1}]), "defg");
  EXPECT_EQ(outcomes_[0].exit_code, 3);
  // All of it again for a reader that has nothing, also after the end.
  attach();
  output_.clear();
  outcomes_.clear();
  send(StepResumeFrame{0, {}});
  collect(0);
  EXPECT_EQ((output_[{0, 1}]), "defg");
  EXPECT_EQ(outcomes_[0].exit_code, 3);
  send(StepForgetFrame{0});
  send(StopFrame{0, 0});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
}

TEST_P(ShepherdTest, AStepThatIsAskedForTwiceRunsOnce) {
  send(launch_);
  const StepStartFrame start = step(0, {"sh", "-c", "echo run >> runs; while [ ! -e go ]; do sleep 0.01; done"}, 1);
  send(start);
  ASSERT_TRUE(wait_for([&] { return !test::read_all(directory_ + "/runs").empty(); }));
  attach();
  ASSERT_TRUE(receive_one<StateFrame>());
  send(start);
  send(StepResumeFrame{0, {}});
  std::ofstream(directory_ + "/go") << "go";
  collect(0);
  EXPECT_EQ(outcomes_[0].cause, EndCause::kExited);
  EXPECT_EQ(outcomes_[0].exit_code, 0);
  EXPECT_EQ(test::read_all(directory_ + "/runs"), "run\n");
  send(StepForgetFrame{0});
  send(StopFrame{0, 0});
  end();
}

TEST_P(ShepherdTest, AForgottenStepEnds) {
  send(launch_);
  send(step(0, {"sh", "-c", "echo $$ > main; yes"}, 1));
  const pid_t main = pid_in("main");
  send(StepForgetFrame{0});
  EXPECT_TRUE(wait_for([&] { return !alive(main); }));
  send(StopFrame{0, 0});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
}

TEST_P(ShepherdTest, EndsOneStepWholeAndLeavesTheOther) {
  send(launch_);
  send(step(0, {"sh", "-c", "setsid sh -c 'trap \"\" TERM; echo $$ > escaped; sleep 1000' & echo $$ > main; wait"}, 1));
  send(step(1, {"sh", "-c", "echo $$ > other; exec sleep 1000"}, 1));
  const pid_t escaped = pid_in("escaped");
  const pid_t other = pid_in("other");
  pid_in("main");
  send(StepSignalFrame{0, kAllRanks, 0});
  collect(0);
  EXPECT_EQ(outcomes_[0].signal, SIGTERM);
  EXPECT_FALSE(alive(escaped));
  EXPECT_TRUE(alive(other));
  send(StepSignalFrame{1, kAllRanks, SIGKILL});
  outcomes_.clear();
  collect(1);
  EXPECT_EQ(outcomes_[0].signal, SIGKILL);
  send(StopFrame{0, 0});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
}

// Without a cgroup a task was found by its environment only, and had none of its own before its exec: it was not told to
// end, and killed after the grace.
TEST_P(ShepherdTest, ATaskThatHasNotBecomeItsProgramYetGetsTheSignalToo) {
  launch_.kill_grace_us = 1'000'000'000;
  const std::string fifo = directory_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  send(launch_);
  StepStartFrame start = step(0, {"sleep", "1000"}, 1);
  start.stdin_mode = StdinMode::kAll;
  start.stdin_path = fifo;  // to open it the task waits for a writer
  send(start);
  send(StepSignalFrame{0, kAllRanks, 0});
  send(step(1, {"true"}, 1));
  collect(1);  // and so the signal before it was handled
  const int writer = open(fifo.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(writer, 0);
  outcomes_.clear();
  collect(0);
  close(writer);
  EXPECT_EQ(outcomes_[0].signal, SIGTERM);
  send(StopFrame{0, 0});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
}

INSTANTIATE_TEST_SUITE_P(All, ShepherdTest, testing::Bool(),
                         [](const auto& param) { return param.param ? "Cgroup" : "ProcessTree"; });

TEST(ShepherdProtocol, EveryFrameComesBackAsItWas) {
  LaunchFrame launch;
  launch.name = "1.2";
  launch.groups = {1, 2, 3};
  launch.cpus = {0xffffULL, 1};
  launch.args = {"a", "", std::string("\0b", 2)};
  launch.append = true;
  launch.warn_signal = 10;
  launch.warn_before_us = 1LL << 40U;
  launch.warn_batch_only = true;
  launch.controls = {{ControlKind::kIo, true, "/sys/fs/cgroup/x"}, {ControlKind::kCpus, false, ""}};
  launch.limits = {1ULL << 40U, 7, true, {{195, 3}, {226, 128}}, {5}};
  launch.isolate = true;
  StepStartFrame start;
  start.step = 3;
  start.argv = {"x"};
  start.stdin_mode = StdinMode::kAll;
  start.tasks = {StepTask{1, {"A=b"}, {7}}, StepTask{}};
  const Outcome outcome{
      .cause = EndCause::kSignalled, .exit_code = -1, .signal = 9, .detail = "why", .ran = Duration::from_s(3)};
  Outcome used = outcome;
  used.usage = {Duration::from_s(9), 1ULL << 40U, 1ULL << 41U, 3, 4, 5};
  const std::vector<Frame> frames{launch,
                                  StopFrame{-3, 1},
                                  FinishFrame{outcome},
                                  start,
                                  StepInputFrame{1, kAllRanks, "data", true},
                                  StepSignalFrame{1, 2, 9},
                                  StepCreditFrame{1, 1ULL << 40U},
                                  AttachFrame{},
                                  StartedFrame{77},
                                  EndedFrame{used},
                                  StateFrame{1, true, false, {4, 5}},
                                  StepOutputFrame{1, 2, 2, "text", true, 99},
                                  StepTaskEndedFrame{1, 2, outcome},
                                  StepEndedFrame{9},
                                  StepInputTakenFrame{1, 2, 3, true},
                                  StepResumeFrame{1, {{1, 2, 3}, {4, 5, 6}}},
                                  StepForgetFrame{7},
                                  LimitFrame{600'000'000},
                                  SuspendFrame{true},
                                  NoticeFrame{10, 1LL << 40U, 7},
                                  StandStillFrame{3},
                                  StoodStillFrame{1ULL << 40U},
                                  StepTaskBoundFrame{1, 2, {0xf0, 1}, {3}, 4, 2},
                                  StepProgramsFrame{1, {{0, {"a", "b"}}, {7, {"c"}}}}};
  ASSERT_EQ(frames.size(), std::variant_size_v<Frame>);
  std::string stream;
  for (const Frame& frame : frames) {
    stream += encode_frame(frame);
  }
  // Byte by byte, as a slow stream delivers it.
  FrameReader reader;
  std::vector<Frame> got;
  for (const char c : stream) {
    reader.append(std::string_view(&c, 1));
    Frame frame;
    auto next = reader.next(frame);
    ASSERT_TRUE(next.ok());
    if (*next) {
      got.push_back(frame);
    }
  }
  EXPECT_EQ(got, frames);
}

TEST(ShepherdProtocol, ARecordIsReadWithAndWithoutItsOutcome) {
  ShepherdRecord record{77, "12345", "muster-ab", "/sys/fs/cgroup/a b", std::nullopt};
  const std::string text = encode_shepherd_record(record);
  EXPECT_EQ(decode_shepherd_record(text).value(), record);
  record.outcome = Outcome{.cause = EndCause::kExited, .exit_code = 7, .signal = 0, .detail = "x", .ran = {}};
  const std::string whole = text + encode_outcome(*record.outcome);
  EXPECT_EQ(decode_shepherd_record(whole).value(), record);
  EXPECT_FALSE(decode_shepherd_record(whole.substr(0, whole.size() - 1)).value().outcome);
  for (const std::string bad : {"", "77", "77 1 x y", "x 1 x y\n", "0 1 x y\n"}) {
    EXPECT_FALSE(decode_shepherd_record(bad).ok()) << bad;
  }
}

// Of a release that knew no usage; and one that ends in the middle of it is damaged.
TEST(ShepherdProtocol, AnOutcomeMayHaveNoUsage) {
  Outcome outcome{.cause = EndCause::kExited, .exit_code = 7, .signal = 0, .detail = "x", .ran = {}};
  const std::string without = encode_outcome(outcome);
  EXPECT_EQ(decode_outcome(without).value(), outcome);
  outcome.usage.cpu = Duration::from_s(1);
  const std::string with = encode_outcome(outcome);
  EXPECT_EQ(with.size(), without.size() + 48);
  EXPECT_EQ(decode_outcome(with).value(), outcome);
  for (std::size_t size = without.size() + 1; size < with.size(); ++size) {
    EXPECT_FALSE(decode_outcome(with.substr(0, size)).ok()) << size;
  }
}

TEST(ShepherdProtocol, DamageIsAnErrorAndNeverALargeAllocation) {
  const std::string good = encode_frame(LaunchFrame{});
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const int value : {0x00, 0x7f, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(value);
      FrameReader reader;
      reader.append(bad);
      Frame frame;
      auto next = reader.next(frame);
      static_cast<void>(next);
    }
  }
  FrameReader reader;
  reader.append(std::string("\x01\x00\x00\x00\x63", 5));
  Frame frame;
  EXPECT_FALSE(reader.next(frame).ok());
  EXPECT_FALSE(decode_outcome("").ok());
  EXPECT_FALSE(decode_outcome("MUSO1\n\xff").ok());
}

}  // namespace
}  // namespace muster::noded
