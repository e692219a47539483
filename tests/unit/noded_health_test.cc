// The checks of a node's health, the process in which they run, and the daemon's side of it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "lib/io/process.h"
#include "noded/health_checks.h"
#include "noded/health_monitor.h"
#include "noded/health_runner.h"
#include "tests/support/slowness.h"
#include "tests/support/temp_dir.h"

namespace muster::noded {
namespace {

constexpr std::uint64_t kEverything = std::uint64_t{1} << 50;
const Duration kPatience = Duration::from_s(20 * test::kSlowness);

TEST(HealthChecks, AFolderWithRoomIsFineAndOneWithTooLittleIsNot) {
  const test::TempDir dir;
  EXPECT_TRUE(check_folder(dir.path(), 1, 1).empty());
  EXPECT_TRUE(dir.entries().empty()) << "the probe is left";
  const auto full = check_folder(dir.path(), kEverything, 0);
  ASSERT_EQ(full.size(), 1U);
  EXPECT_EQ(full[0].check, "disk");
  EXPECT_NE(full[0].text.find("health_disk_min"), std::string::npos) << full[0].text;
  const auto missing = check_folder(dir / "nowhere", 0, 0);
  ASSERT_EQ(missing.size(), 1U);
  EXPECT_NE(missing[0].text.find("nowhere"), std::string::npos) << missing[0].text;
}

// /tmp is looked at by default: a user who knew the name could have the check wait at a pipe, and the node drained.
TEST(HealthChecks, WhatOthersPutIntoAFolderDoesNotMatter) {
  const test::TempDir dir;
  const std::string guessed = dir / (".muster-health." + std::to_string(getpid()));
  ASSERT_EQ(mkfifo(guessed.c_str(), 0600), 0);
  EXPECT_TRUE(check_folder(dir.path(), 1, 1).empty());
  EXPECT_EQ(dir.entries().size(), 1U) << "the check left something";
}

TEST(HealthChecks, AFileSystemThatCannotBeWrittenIsTold) {
  // /proc takes no files, whoever asks.
  const auto problems = check_folder("/proc/self", 0, 0);
  ASSERT_EQ(problems.size(), 1U);
  EXPECT_NE(problems[0].text.find("/proc/self"), std::string::npos);
}

TEST(HealthChecks, MemoryBelowWhatWasDeclaredIsTold) {
  EXPECT_TRUE(check_memory(0).empty());
  EXPECT_TRUE(check_memory(1).empty());
  const auto problems = check_memory(kEverything);
  ASSERT_EQ(problems.size(), 1U);
  EXPECT_EQ(problems[0].check, "memory");
}

TEST(HealthChecks, AGpuWhoseDeviceIsMissingIsTold) {
  const test::TempDir dir;
  std::ofstream(dir / "gpu0") << "x";
  EXPECT_TRUE(check_gpus({}, {dir / "gpu0"}).empty());
  const auto problems = check_gpus({"ffff:ff:1f.7"}, {dir / "gpu0", dir / "gpu1"});
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_NE(problems[0].text.find("ffff:ff:1f.7 is gone"), std::string::npos);
  EXPECT_NE(problems[1].text.find("gpu1"), std::string::npos);
}

TEST(HealthChecks, ArgumentsComeBackAsTheyWere) {
  HealthChecks checks;
  checks.dirs = {"/tmp", "/with = sign"};
  checks.disk_min_mib = 7;
  checks.inodes_min = 8;
  checks.memory_mib = 9;
  checks.gpus = {"0000:17:00.0"};
  checks.gpu_devices = {"/dev/nvidia0", "/dev/nvidia1"};
  checks.topology = "machine.xml+gpu:2";
  checks.topology_memory_mib = 10;
  checks.topology_gpus = {"a", "b"};
  checks.program = "/usr/local/bin/health";
  checks.program_environment = {"A=b=c"};
  checks.timeout_s = 11;
  const auto read = from_arguments(to_arguments(checks));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, checks);
  EXPECT_FALSE(from_arguments({"fan=1"}).ok());
}

TEST(HealthReaderTest, TakesWhatComesInPieces) {
  HealthReader reader;
  const std::string text = encode_problem({"disk", "no\nroom"}) + "problem gpu\nnonsense\ndone\nproblem late x\n";
  for (const char c : text) {
    reader.append({&c, 1});
  }
  EXPECT_TRUE(reader.done());
  EXPECT_EQ(reader.problems(), (std::vector<HealthProblem>{{"disk", "no\\x0aroom"}, {"gpu", ""}}));
}

TEST(HealthReaderTest, TheLastLineThatSaysSomethingIsTheReason) {
  EXPECT_EQ(last_line("first\nsecond  \n\n \n"), "second");
  EXPECT_EQ(last_line("alone"), "alone");
  EXPECT_EQ(last_line(""), "");
}

// ---- the daemon's side, with the real program

class HealthMonitorTest : public testing::Test {
 protected:
  void program(const std::string& text) {
    const std::string path = directory_ / "health.sh";
    std::ofstream(path) << "#!/bin/sh\n" << text << "\n";
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
    options_.checks.program = path;
    options_.checks.program_environment = {"PATH=/usr/bin:/bin", "DIR=" + directory_.path()};
  }
  void start() {
    options_.loop = &loop_;
    const auto daemon = io::find_program("muster-noded");
    ASSERT_TRUE(daemon.ok()) << daemon.error().message;
    options_.program = *daemon;
    options_.on_change = [this] { ++changes_; };
    monitor_.emplace(options_);
    monitor_->start([this] { first_ = true; });
    ASSERT_TRUE(loop_.run_until([this] { return first_; }, kPatience));
  }
  std::string problem() {
    const auto problems = monitor_->problems();
    return problems.size() == 1 ? problems[0].check + ": " + problems[0].text : std::to_string(problems.size());
  }
  bool alive(const std::string& pid_file) {
    pid_t pid = 0;
    std::ifstream(directory_ / pid_file) >> pid;
    return pid != 0 && io::process_alive(pid);
  }

  test::TempDir directory_;
  io::Loop loop_;
  HealthMonitorOptions options_{.loop = nullptr,
                                .program = {},
                                .checks = {.timeout_s = 20 * test::kSlowness},
                                .interval = Duration::from_s(3600),
                                .clock_max = Duration::from_s(30),
                                .on_change = {}};
  std::optional<HealthMonitor> monitor_;
  bool first_ = false;
  int changes_ = 0;
};

TEST_F(HealthMonitorTest, AProgramThatSucceedsFindsNothing) {
  program("echo all is well");
  start();
  EXPECT_TRUE(monitor_->problems().empty()) << problem();
}

TEST_F(HealthMonitorTest, TheLastLineOfAProgramThatFailsIsTheReason) {
  program("echo first; echo 'the fan stands still' >&2; exit 3");
  start();
  EXPECT_EQ(problem(), "program: the fan stands still");
}

TEST_F(HealthMonitorTest, AProgramThatSaysNothingIsToldByItsCode) {
  program("exit 7");
  start();
  EXPECT_NE(problem().find("ended with exit code 7"), std::string::npos) << problem();
}

TEST_F(HealthMonitorTest, AProgramThatIsNotThereIsTold) {
  options_.checks.program = directory_ / "nowhere";
  start();
  EXPECT_NE(problem().find("nowhere: No such file or directory"), std::string::npos) << problem();
}

TEST_F(HealthMonitorTest, AProgramThatNeverEndsIsKilledWithAllThatItStarted) {
  program("sleep 1000 & echo $! > $DIR/child; setsid sleep 1000 & echo $! > $DIR/far\necho waiting; sleep 1000");
  options_.checks.timeout_s = 1;
  start();
  EXPECT_NE(problem().find("did not end within 1 s and was killed: waiting"), std::string::npos) << problem();
  EXPECT_TRUE(loop_.run_until([this] { return !alive("child") && !alive("far"); }, kPatience));
}

TEST_F(HealthMonitorTest, WhatAProgramLeavesBehindIsKilled) {
  program("setsid sleep 1000 >/dev/null 2>&1 & echo $! > $DIR/far\nexit 0");
  start();
  EXPECT_TRUE(monitor_->problems().empty()) << problem();
  EXPECT_TRUE(loop_.run_until([this] { return !alive("far"); }, kPatience));
}

TEST_F(HealthMonitorTest, MuchOutputIsNoHindrance) {
  program("yes 0123456789 | head -c 20000000; echo; echo the end; exit 1");
  start();
  EXPECT_EQ(problem(), "program: the end");
}

TEST_F(HealthMonitorTest, ItIsSeenWhenTheChecksPassAgainAndSaidOnce) {
  program("test ! -e $DIR/ill || { cat $DIR/ill; exit 1; }");
  start();
  EXPECT_TRUE(monitor_->problems().empty());
  std::ofstream(directory_ / "ill") << "ill\n";
  monitor_->check_now();
  ASSERT_TRUE(loop_.run_until([this] { return changes_ == 1; }, kPatience));
  EXPECT_EQ(problem(), "program: ill");
  ::unlink((directory_ / "ill").c_str());
  monitor_->check_now();
  ASSERT_TRUE(loop_.run_until([this] { return changes_ == 2; }, kPatience));
  EXPECT_TRUE(monitor_->problems().empty());
}

TEST_F(HealthMonitorTest, ACheckThatTookLongerThanTheIntervalIsNotTheLast) {
  program("[ ! -e $DIR/hang ] || sleep 1000");
  std::ofstream(directory_ / "hang") << "x";
  options_.checks.timeout_s = 1;
  options_.interval = Duration::from_ms(50);
  start();
  EXPECT_EQ(monitor_->problems().size(), 1U);
  ::unlink((directory_ / "hang").c_str());
  EXPECT_TRUE(loop_.run_until([this] { return monitor_->problems().empty(); }, kPatience)) << problem();
}

TEST_F(HealthMonitorTest, WhoAsksWhileACheckRunsGetsTheAnswerOfTheNextOne) {
  program("test ! -e $DIR/ill || { cat $DIR/ill; exit 1; }");
  start();
  monitor_->check_now();
  std::ofstream(directory_ / "ill") << "ill\n";
  monitor_->check_now();
  ASSERT_TRUE(loop_.run_until([this] { return problem() == "program: ill"; }, kPatience));
}

TEST_F(HealthMonitorTest, AClockThatIsOffIsAProblemUntilItIsRight) {
  start();
  monitor_->on_clock(Duration::from_s(20), Duration::from_ms(1));
  EXPECT_EQ(changes_, 0);
  monitor_->on_clock(Duration::from_s(-95), Duration::from_ms(1));
  EXPECT_EQ(changes_, 1);
  EXPECT_NE(problem().find("clock: its clock is 95.0 s behind the controller's"), std::string::npos) << problem();
  monitor_->on_clock(Duration::from_s(-96), Duration::from_ms(1));
  EXPECT_EQ(changes_, 1) << "another number is nothing new";
  monitor_->on_clock(Duration::from_s(1), Duration::from_ms(1));
  EXPECT_EQ(changes_, 2);
  EXPECT_TRUE(monitor_->problems().empty());
}

TEST_F(HealthMonitorTest, AnAnswerThatCameLateSaysNothingOfTheClock) {
  start();
  monitor_->on_clock(Duration::from_s(40), Duration::from_s(30));
  EXPECT_EQ(changes_, 0);
}

}  // namespace
}  // namespace muster::noded
