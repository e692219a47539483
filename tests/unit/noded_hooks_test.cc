// Prolog and epilog, with the real muster-shepherd driven through its protocol.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>

#include "noded/shepherd_protocol.h"
#include "tests/support/shepherd_program.h"
#include "tests/support/slowness.h"
#include "tests/support/temp_dir.h"

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

class HooksTest : public testing::Test {
 protected:
  void SetUp() override {
    launch_.name = "42.1";
    launch_.directory = directory_ / "attempt";
    ASSERT_EQ(mkdir(launch_.directory.c_str(), 0711), 0);
    launch_.uid = geteuid();
    launch_.gid = getegid();
    launch_.kill_grace_us = 1'000'000 * test::kSlowness;
    launch_.work_dir = directory_.path();
    launch_.stdout_path = directory_ / "out";
    launch_.environment = {"PATH=/usr/bin:/bin"};
    launch_.hook_environment = {"PATH=/usr/bin:/bin", "MUSTER_JOB_ID=42", "DIR=" + directory_.path()};
    launch_.prolog_timeout_us = launch_.epilog_timeout_us = 20'000'000 * std::int64_t{test::kSlowness};
    launch_.has_script = true;
    launch_.script = executable("attempt/script", "#!/bin/sh\necho script >> order\n");
    pid_ = test::start_shepherd(connection_);
    ASSERT_GT(pid_, 0) << test::shepherd_program();
  }
  void TearDown() override {
    close(connection_);
    const auto gone = [this] { return waitpid(pid_, nullptr, WNOHANG) != 0; };
    if (pid_ > 0 && !gone()) {
      kill(pid_, SIGTERM);
      EXPECT_TRUE(wait_for(gone)) << "the shepherd did not end";
    }
  }

  std::string executable(const std::string& name, const std::string& text) {
    const std::string path = directory_ / name;
    std::ofstream(path) << text;
    EXPECT_EQ(chmod(path.c_str(), 0755), 0);
    return path;
  }
  void prolog(const std::string& text) { launch_.prolog = executable("prolog", "cd $DIR\n" + text); }
  void epilog(const std::string& text) { launch_.epilog = executable("epilog", "cd $DIR\n" + text); }
  std::string read(const std::string& name) { return test::read_all(directory_ / name); }
  bool alive(const std::string& pid_file) {
    const std::string pid = read(pid_file);
    std::ifstream in("/proc/" + pid.substr(0, pid.find('\n')) + "/stat");
    std::string stat;
    std::getline(in, stat);
    const auto end = stat.rfind(')');
    return !pid.empty() && end != std::string::npos && stat.size() > end + 2 && stat[end + 2] != 'Z';
  }

  void send(const Frame& frame) {
    const std::string bytes = encode_frame(frame);
    ASSERT_EQ(::send(connection_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  std::optional<Frame> receive() {
    const auto until = steady_clock::now() + kPatience;
    while (true) {
      Frame frame;
      auto got = reader_.next(frame);
      if (!got.ok() || *got) {
        EXPECT_TRUE(got.ok());
        return got.ok() ? std::optional(frame) : std::nullopt;
      }
      pollfd p{connection_, POLLIN, 0};
      const auto left = std::chrono::duration_cast<milliseconds>(until - steady_clock::now());
      char buffer[65536];
      if (left.count() <= 0 || poll(&p, 1, static_cast<int>(left.count())) <= 0) {
        ADD_FAILURE() << "no frame in time";
        return std::nullopt;
      }
      const ssize_t n = ::read(connection_, buffer, sizeof(buffer));
      if (n <= 0) {
        return std::nullopt;
      }
      reader_.append({buffer, static_cast<std::size_t>(n)});
    }
  }
  // Its end, and whether it was said to have started before.
  Outcome end() {
    while (auto frame = receive()) {
      started_ = started_ || std::holds_alternative<StartedFrame>(*frame);
      if (const auto* ended = std::get_if<EndedFrame>(&*frame)) {
        return ended->outcome;
      }
    }
    ADD_FAILURE() << "no end";
    return {};
  }

  test::TempDir directory_;
  LaunchFrame launch_;
  pid_t pid_ = 0;
  int connection_ = -1;
  FrameReader reader_;
  bool started_ = false;
};

TEST_F(HooksTest, TheyRunBeforeAndAfterTheJob) {
  prolog("echo $MUSTER_HOOK of $MUSTER_JOB_ID >> order");
  epilog("echo $MUSTER_HOOK after $MUSTER_JOB_EXIT_CODE >> order");
  executable("attempt/script", "#!/bin/sh\necho script >> order\nexit 5\n");
  send(launch_);
  const Outcome outcome = end();
  EXPECT_TRUE(started_);
  EXPECT_EQ(read("order"), "prolog of 42\nscript\nepilog after 5\n");
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 5);
  EXPECT_EQ(outcome.fault, NodeFault::kNone);
}

TEST_F(HooksTest, WhatTheyUseIsNotTheJobs) {
  const char* loop = "i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; times >> order";
  prolog(loop);
  epilog(loop);
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_GT(outcome.usage.cpu, Duration{});
  EXPECT_LT(outcome.usage.cpu, Duration::from_ms(150)) << read("order");
}

TEST_F(HooksTest, AFailingPrologEndsTheAttemptBeforeItBegan) {
  prolog("echo first; echo no licence server >&2; exit 3");
  epilog("echo epilog >> order");
  send(launch_);
  const Outcome outcome = end();
  EXPECT_FALSE(started_);
  EXPECT_EQ(outcome.cause, EndCause::kLaunchFailed);
  EXPECT_EQ(outcome.fault, NodeFault::kProlog);
  EXPECT_EQ(outcome.fault_text, launch_.prolog + " ended with exit code 3: no licence server");
  EXPECT_EQ(read("order"), "epilog\n") << "what the prolog did is undone";
}

TEST_F(HooksTest, APrologThatIsNotThereHasFailed) {
  launch_.prolog = directory_ / "nowhere";
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.fault, NodeFault::kProlog);
  EXPECT_NE(outcome.fault_text.find("nowhere: No such file or directory"), std::string::npos) << outcome.fault_text;
}

TEST_F(HooksTest, APrologThatNeverEndsIsKilledWithAllThatItStarted) {
  prolog("sleep 1000 & echo $! > child; setsid sleep 1000 & echo $! > far\necho waiting; sleep 1000");
  launch_.prolog_timeout_us = 1'000'000;
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.fault_text, launch_.prolog + " did not end within 1 s and was killed: waiting");
  EXPECT_FALSE(alive("child"));
  EXPECT_FALSE(alive("far"));
  EXPECT_EQ(read("order"), "");
}

TEST_F(HooksTest, WhatAPrologLeavesRunningIsKilled) {
  prolog("setsid sleep 1000 > /dev/null 2>&1 & echo $! > far");
  send(launch_);
  EXPECT_EQ(end().cause, EndCause::kExited);
  EXPECT_FALSE(alive("far"));
}

TEST_F(HooksTest, AFailingEpilogLeavesTheResultAsItIs) {
  epilog("echo the scratch disk cannot be cleaned; exit 1");
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.fault, NodeFault::kEpilog);
  EXPECT_NE(outcome.fault_text.find("the scratch disk cannot be cleaned"), std::string::npos) << outcome.fault_text;
}

TEST_F(HooksTest, TheAttemptIsOverOnlyWhenItsEpilogIs) {
  epilog("until [ -e go ]; do sleep 0.02; done; echo epilog >> order");
  send(launch_);
  ASSERT_TRUE(wait_for([this] { return read("order") == "script\n"; }));
  pollfd p{connection_, POLLIN, 0};
  while (poll(&p, 1, 200) > 0) {
    auto frame = receive();
    ASSERT_TRUE(frame && !std::holds_alternative<EndedFrame>(*frame)) << "it has ended before its epilog";
  }
  std::ofstream(directory_ / "go") << "x";
  EXPECT_EQ(end().fault, NodeFault::kNone);
  EXPECT_EQ(read("order"), "script\nepilog\n");
}

TEST_F(HooksTest, AnEpilogThatNeverEndsIsKilled) {
  epilog("setsid sleep 1000 & echo $! > far\nsleep 1000");
  launch_.epilog_timeout_us = 1'000'000;
  send(launch_);
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.fault, NodeFault::kEpilog);
  EXPECT_FALSE(alive("far"));
}

TEST_F(HooksTest, AStopDuringThePrologEndsItAndBlamesNobody) {
  prolog("echo $$ > pid; exec sleep 1000");
  epilog("echo epilog >> order");
  send(launch_);
  ASSERT_TRUE(wait_for([this] { return alive("pid"); }));
  send(StopFrame{0, 1'000'000});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kCancelled);
  EXPECT_EQ(outcome.fault, NodeFault::kNone);
  EXPECT_FALSE(started_);
  EXPECT_EQ(read("order"), "epilog\n");
}

// A restarted noded asks: it must not be told that the attempt runs.
TEST_F(HooksTest, AnAttemptInItsPrologHasNotStartedAndIsMarked) {
  prolog("echo $$ > pid; until [ -e go ]; do sleep 0.02; done");
  send(launch_);
  ASSERT_TRUE(wait_for([this] { return alive("pid"); }));
  const std::string mark = launch_.directory + "/" + kPrologPrefix + std::to_string(pid_);
  EXPECT_TRUE(std::filesystem::exists(mark));
  std::stringstream bytes;
  bytes << std::ifstream(launch_.directory + "/" + kShepherdRecordName).rdbuf();
  const auto record = decode_shepherd_record(bytes.str());
  ASSERT_TRUE(record.ok());
  close(connection_);
  reader_ = FrameReader();
  connection_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, record->socket.data(), record->socket.size());
  ASSERT_EQ(connect(connection_, reinterpret_cast<const sockaddr*>(&address),
                    static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + record->socket.size())),
            0);
  send(AttachFrame{});
  auto state = receive();
  ASSERT_TRUE(state && std::holds_alternative<StateFrame>(*state));
  EXPECT_FALSE(std::get<StateFrame>(*state).started);
  std::ofstream(directory_ / "go") << "x";
  EXPECT_EQ(end().cause, EndCause::kExited);
  EXPECT_TRUE(started_);
  EXPECT_FALSE(std::filesystem::exists(mark));
}

TEST(Outcomes, WhatAnEarlierReleaseWroteIsReadAndMostOfWhatThisOneWritesIsTheSame) {
  const Outcome plain{
      .cause = EndCause::kExited, .exit_code = 3, .signal = 0, .detail = "x", .ran = Duration::from_s(2)};
  Outcome faulty = plain;
  faulty.fault = NodeFault::kEpilog;
  faulty.fault_text = "full";
  const std::string bytes = encode_outcome(faulty);
  EXPECT_TRUE(bytes.starts_with(encode_outcome(plain)));
  Outcome used = faulty;
  used.usage = {Duration::from_s(9), 1, 2, 3, 4, 5};
  EXPECT_EQ(*decode_outcome(encode_outcome(used)), used);
  used.fault = NodeFault::kNone;
  used.fault_text.clear();
  EXPECT_EQ(*decode_outcome(encode_outcome(used)), used);
  EXPECT_EQ(*decode_outcome(bytes), faulty);
  EXPECT_EQ(*decode_outcome(encode_outcome(plain)), plain);
  EXPECT_FALSE(decode_outcome(bytes.substr(0, bytes.size() - 1)).ok());
}

}  // namespace
}  // namespace muster::noded
