// Limits of jobs, by the real muster-shepherd with the control groups that a node of this machine would choose.
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "lib/base/index_set.h"
#include "noded/enforcement.h"
#include "noded/gpu_devices.h"
#include "noded/job_namespace.h"
#include "noded/shepherd_protocol.h"
#include "tests/support/shepherd_program.h"
#include "tests/support/slowness.h"

namespace muster::noded {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPatience{30'000 * test::kSlowness};
constexpr std::uint64_t kMebibyte = 1ULL << 20U;

// The parameter is [node] cgroup.
class EnforcementTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/muster-enforcement-test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    EnforcementOptions options;
    options.cgroup = GetParam();
    options.spool_dir = directory_;
    options.cpus = true;
    options.devices = true;
    auto chosen = choose_enforcement(options, [&](const std::string& tree, const std::vector<std::string>& others) {
      announced_ = others;
      announced_.push_back(tree);
    });
    ASSERT_TRUE(chosen.ok()) << chosen.error().message;
    enforcement_ = *chosen;
    launch_.name = "42.1";
    launch_.directory = directory_ + "/attempt";
    ASSERT_EQ(mkdir(launch_.directory.c_str(), 0711), 0);
    launch_.uid = geteuid();
    launch_.gid = getegid();
    launch_.kill_grace_us = 1'000'000 * test::kSlowness;
    launch_.work_dir = directory_;
    launch_.stdout_path = directory_ + "/out";
    launch_.environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "MUSTER_JOB_ID=42"};
    launch_.cgroup_parent = enforcement_.tree;
    launch_.controls = enforcement_.controls;
  }

  void TearDown() override {
    if (connection_ >= 0) {
      close(connection_);
    }
    if (pid_ > 0) {
      kill(pid_, SIGTERM);
      EXPECT_TRUE(exits()) << "the shepherd did not end";
    }
    for (const std::string& group : announced_) {
      if (!group.empty()) {
        rmdir(group.c_str());
        EXPECT_NE(access(group.c_str(), F_OK), 0) << "left: " << group;
      }
    }
    std::filesystem::remove_all(directory_);
  }

  const Control* control(ControlKind kind) const {
    for (const Control& one : launch_.controls) {
      if (one.kind == kind) {
        return &one;
      }
    }
    return nullptr;
  }

  // The value of a file of the attempt's group, whichever of the two names it has.
  std::uint64_t value(ControlKind kind, const std::string& file) const {
    return std::strtoull(test::read_all(control(kind)->group + "/42.1/" + file).c_str(), nullptr, 10);
  }

  void start(const std::string& text) {
    launch_.has_script = true;
    launch_.script = launch_.directory + "/script";
    std::ofstream(launch_.script) << "#!/bin/sh\n" << text;
    ASSERT_EQ(chmod(launch_.script.c_str(), 0755), 0);
    pid_ = test::start_shepherd(connection_);
    ASSERT_GT(pid_, 0) << test::shepherd_program();
    send(launch_);
  }

  void send(const Frame& frame) {
    const std::string bytes = encode_frame(frame);
    ASSERT_EQ(::send(connection_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  template <typename T>
  std::optional<T> receive_one() {
    const auto until = steady_clock::now() + kPatience;
    while (true) {
      Frame frame;
      auto got = reader_.next(frame);
      if (!got.ok()) {
        ADD_FAILURE() << got.error().message;
        return std::nullopt;
      }
      if (*got) {
        if (auto* wanted = std::get_if<T>(&frame)) {
          return *wanted;
        }
        if (const auto* ended = std::get_if<EndedFrame>(&frame)) {
          ADD_FAILURE() << "it has ended: " << ended->outcome.detail;
          return std::nullopt;
        }
        continue;
      }
      pollfd p{connection_, POLLIN, 0};
      const auto left = std::chrono::duration_cast<milliseconds>(until - steady_clock::now());
      char buffer[65536];
      ssize_t n = 0;
      if (left.count() <= 0 || poll(&p, 1, static_cast<int>(left.count())) <= 0 ||
          (n = read(connection_, buffer, sizeof(buffer))) <= 0) {
        ADD_FAILURE() << "no frame in time";
        return std::nullopt;
      }
      reader_.append(std::string_view(buffer, static_cast<std::size_t>(n)));
    }
  }

  Outcome end() {
    auto ended = receive_one<EndedFrame>();
    EXPECT_TRUE(ended);
    EXPECT_TRUE(exits());
    for (const Control& one : launch_.controls) {
      EXPECT_NE(access((one.group + "/42.1").c_str(), F_OK), 0) << "left: " << one.group;
    }
    return ended ? ended->outcome : Outcome{};
  }

  bool exits() {
    const auto until = steady_clock::now() + kPatience;
    while (waitpid(pid_, nullptr, WNOHANG) == 0) {
      if (steady_clock::now() >= until) {
        return false;
      }
      poll(nullptr, 0, 1);
    }
    pid_ = 0;
    return true;
  }

  std::string output() const { return test::read_all(directory_ + "/out"); }

  std::string directory_;
  Enforcement enforcement_;
  std::vector<std::string> announced_;
  LaunchFrame launch_;
  pid_t pid_ = 0;
  int connection_ = -1;
  FrameReader reader_;
};

#define NEEDS(kind)                                                               \
  if (control(kind) == nullptr) {                                                 \
    GTEST_SKIP() << "this machine gives no control group for it: " << GetParam(); \
  }

TEST_P(EnforcementTest, MemoryBeyondTheLimitIsKilledAndExplainedAlsoWithExitCodeZero) {
  NEEDS(ControlKind::kMemory);
  launch_.limits.memory_bytes = 48 * kMebibyte;
  start("tail /dev/zero\nexit 0\n");  // tail keeps its last line, which never ends
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kOutOfMemory);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.usage.oom_kills, 1);
  EXPECT_EQ(outcome.usage.memory_limit_bytes, 48 * kMebibyte);
  EXPECT_GT(outcome.usage.memory_peak_bytes, 40 * kMebibyte);
  EXPECT_LE(outcome.usage.memory_peak_bytes, 48 * kMebibyte);
  EXPECT_NE(outcome.detail.find("reached its limit of 48 MiB"), std::string::npos) << outcome.detail;
  if (access("/dev/kmsg", R_OK) == 0) {
    EXPECT_NE(outcome.detail.find("killed tail:"), std::string::npos) << outcome.detail;
  }
}

TEST_P(EnforcementTest, ATaskThatIsKilledForMemoryIsTold) {
  NEEDS(ControlKind::kMemory);
  launch_.limits.memory_bytes = 48 * kMebibyte;
  start("sleep 1000\n");
  ASSERT_TRUE(receive_one<StartedFrame>());
  StepStartFrame step;
  step.step = 3;
  step.argv = {"tail", "/dev/zero"};
  step.environment = launch_.environment;
  step.work_dir = directory_;
  step.tasks.push_back({0, {}, {}});
  send(step);
  const auto ended = receive_one<StepTaskEndedFrame>();
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->outcome.cause, EndCause::kOutOfMemory);
  EXPECT_EQ(ended->outcome.signal, SIGKILL);
  send(StopFrame{0, launch_.kill_grace_us});
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kCancelled);  // as ordered; the controller sees the rest in the usage
  EXPECT_EQ(outcome.usage.oom_kills, 1);
  EXPECT_NE(outcome.detail.find("48 MiB"), std::string::npos) << outcome.detail;
}

TEST_P(EnforcementTest, AKillThatIsNotForMemoryStaysASignal) {
  NEEDS(ControlKind::kMemory);
  launch_.limits.memory_bytes = 64 * kMebibyte;
  start("kill -KILL $$\n");
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kSignalled);
  EXPECT_EQ(outcome.signal, SIGKILL);
  EXPECT_EQ(outcome.usage.oom_kills, 0);
}

TEST_P(EnforcementTest, AForkBombIsContainedAndGoneWithinASecondOfItsCancel) {
  NEEDS(ControlKind::kProcesses);
  launch_.limits.processes = 300;
  launch_.kill_grace_us = 60'000'000;  // it must not wait that long
  start("trap '' TERM\nb() { b | b & }\nb\nwhile :; do sleep 1000; done\n");
  ASSERT_TRUE(receive_one<StartedFrame>());
  const auto until = steady_clock::now() + kPatience;
  while (value(ControlKind::kProcesses, "pids.current") < 290 && steady_clock::now() < until) {
    poll(nullptr, 0, 5);
  }
  EXPECT_LE(value(ControlKind::kProcesses, "pids.current"), 300U);
  const auto asked = steady_clock::now();
  send(StopFrame{0, launch_.kill_grace_us});
  const Outcome outcome = end();
  EXPECT_LT(steady_clock::now() - asked, milliseconds(1'000 * test::kSlowness));
  EXPECT_EQ(outcome.cause, EndCause::kCancelled);
}

TEST_P(EnforcementTest, AFailureAtTheLimitOfProcessesIsExplained) {
  NEEDS(ControlKind::kProcesses);
  launch_.limits.processes = 5;
  start("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done\nexit 3\n");
  const Outcome outcome = end();
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_NE(outcome.detail.find("limit of 5 processes"), std::string::npos) << outcome.detail;
}

TEST_P(EnforcementTest, ADeniedDeviceCannotBeOpenedAndOthersCan) {
  NEEDS(ControlKind::kDevices);
  if (geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  launch_.limits.denied_devices = {{1, 7}, {1, 5}};  // full, zero
  start("cat /dev/zero; head -c 1 /dev/urandom | wc -c; head -c 1 /dev/full; (setsid cat /dev/zero)\n");
  end();
  const std::string text = output();
  EXPECT_NE(text.find("cat: /dev/zero: Operation not permitted"), std::string::npos) << text;
  EXPECT_NE(text.find("'/dev/full' for reading: Operation not permitted"), std::string::npos) << text;
  EXPECT_NE(text.find("\n1\n"), std::string::npos) << text;
}

TEST_P(EnforcementTest, CpusOutsideTheSetCannotBeUsed) {
  NEEDS(ControlKind::kCpus);
  cpu_set_t mine;
  ASSERT_EQ(sched_getaffinity(0, sizeof(mine), &mine), 0);
  std::vector<std::uint32_t> cpus;
  for (std::uint32_t i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &mine)) {
      cpus.push_back(i);
    }
  }
  if (cpus.size() < 2) {
    GTEST_SKIP() << "needs two CPUs";
  }
  IndexSet inside;
  inside.insert(cpus[0]);
  launch_.cpus = inside.words();
  launch_.limits.cpus = true;
  const std::string both = std::to_string(cpus[0]) + "," + std::to_string(cpus[1]);
  start("taskset -c " + std::to_string(cpus[1]) + " echo outside\ntaskset -c " + both +
        " grep Cpus_allowed_list /proc/self/status\n");
  end();
  const std::string text = output();
  EXPECT_EQ(text.find("outside"), std::string::npos) << text;
  EXPECT_NE(text.find("Cpus_allowed_list:\t" + std::to_string(cpus[0]) + "\n"), std::string::npos) << text;
}

TEST_P(EnforcementTest, WhatWasUsedIsTold) {
  start("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done\nhead -c 3000000 /dev/zero > used; sync used\n");
  const Outcome outcome = end();
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_GT(outcome.usage.cpu, Duration::from_ms(5));
  EXPECT_LT(outcome.usage.cpu, Duration::from_s(60));
  EXPECT_GT(outcome.usage.memory_peak_bytes, 100'000U);
}

TEST_P(EnforcementTest, FrozenByWhateverThereIsItStandsStill) {
  start("while :; do echo x >> ticks; done\n");
  ASSERT_TRUE(receive_one<StartedFrame>());
  const std::string ticks = directory_ + "/ticks";
  const auto until = steady_clock::now() + kPatience;
  while (test::read_all(ticks).size() < 10 && steady_clock::now() < until) {
    poll(nullptr, 0, 5);
  }
  send(StandStillFrame{7});
  ASSERT_TRUE(receive_one<StoodStillFrame>());
  // The kernel may need a moment to stop what runs right now.
  std::size_t size = 0;
  for (int same = 0; same < 10 && steady_clock::now() < until;) {
    const std::size_t now = test::read_all(ticks).size();
    same = now == size ? same + 1 : 0;
    size = now;
    poll(nullptr, 0, 10);
  }
  EXPECT_EQ(test::read_all(ticks).size(), size);
  send(SuspendFrame{false});
  while (test::read_all(ticks).size() == size && steady_clock::now() < until) {
    poll(nullptr, 0, 5);
  }
  EXPECT_GT(test::read_all(ticks).size(), size);
  send(StopFrame{0, launch_.kill_grace_us});
  EXPECT_EQ(end().cause, EndCause::kCancelled);
}

TEST_P(EnforcementTest, NothingStartsWithoutAnOrderedLimit) {
  launch_.controls = {{ControlKind::kMemory, false, directory_ + "/none/group"}};
  launch_.limits.memory_bytes = kMebibyte;
  start("echo ran\n");
  const auto ended = receive_one<EndedFrame>();
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->outcome.cause, EndCause::kLaunchFailed);
  EXPECT_NE(ended->outcome.detail.find("cannot be enforced"), std::string::npos) << ended->outcome.detail;
  EXPECT_TRUE(exits());
  EXPECT_EQ(output(), "");
}

TEST_P(EnforcementTest, EveryFunctionIsStated) {
  std::vector<std::string> functions;
  for (const EnforcedBy& one : enforcement_.statement) {
    functions.push_back(one.function);
    EXPECT_FALSE(one.by.empty()) << one.function;
  }
  const std::vector<std::string> all{"kill",    "freezer",   "cpuset",   "memory", "pids",
                                     "devices", "cpu_share", "cpu_time", "io",     "namespaces"};
  EXPECT_EQ(functions, all);
}

// What the user names below /tmp is where the user means it; all else there is the job's own.
TEST_P(EnforcementTest, AnIsolatedJobHasItsOwnTmpAndSharedMemory) {
  if (geteuid() != 0 || !why_no_namespace().empty()) {
    GTEST_SKIP() << "this user gets no namespaces";
  }
  const std::string name = std::filesystem::path(directory_).filename();
  const std::string outside = "/tmp/" + name + ".outside";
  std::ofstream(outside) << "x";
  launch_.isolate = true;
  launch_.uid = launch_.gid = 65'534;
  ASSERT_EQ(chmod(directory_.c_str(), 0777), 0);
  start("ls " + outside + " && echo seen\n" + "echo mine > /tmp/" + name + ".inside; echo mine > /dev/shm/" + name +
        "\n" + "ls -d /proc/1 && echo sees others\n" + "echo kept > here; pwd\n" +
        "while ! [ -e /tmp/go ]; do sleep 0.02; done\n");
  ASSERT_TRUE(receive_one<StartedFrame>());
  StepStartFrame step;
  step.step = 3;
  step.argv = {"sh", "-c", "cat /tmp/" + name + ".inside /dev/shm/" + name + "; touch /tmp/go"};
  step.environment = launch_.environment;
  step.work_dir = directory_;
  step.tasks.push_back({0, {}, {}});
  const auto until = steady_clock::now() + kPatience;
  while (test::read_all(directory_ + "/here").empty() && steady_clock::now() < until) {
    poll(nullptr, 0, 5);
  }
  // Another user who knows where the spool is.
  const std::string folder = launch_.directory + "/private/tmp";
  EXPECT_EQ(access(folder.c_str(), F_OK), 0);
  const pid_t stranger = fork();
  if (stranger == 0) {
    _exit(setresuid(65'533, 65'533, 65'533) == 0 && access(folder.c_str(), F_OK) != 0 && errno == EACCES ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(stranger, &status, 0), stranger);
  EXPECT_EQ(status, 0) << "others come to the job's /tmp through the spool";
  send(step);
  const std::string both = "mine\nmine\n";
  std::string shared;
  while (shared.size() < both.size()) {
    const auto part = receive_one<StepOutputFrame>();
    ASSERT_TRUE(part);
    shared += part->data;
  }
  EXPECT_EQ(shared, both);
  EXPECT_EQ(end().cause, EndCause::kExited);
  const std::string text = output();
  EXPECT_EQ(text.find("seen\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("sees others"), std::string::npos) << text;
  EXPECT_NE(text.find(directory_ + "\n"), std::string::npos) << text;
  EXPECT_EQ(test::read_all(directory_ + "/here"), "kept\n");
  for (const std::string& path : {"/tmp/" + name + ".inside", "/dev/shm/" + name, launch_.directory + "/private"}) {
    EXPECT_NE(access(path.c_str(), F_OK), 0) << "left, or seen outside: " << path;
  }
  unlink(outside.c_str());
}

// A working directory below /tmp is made again below the job's own. Root followed links and .. on that way, out of /tmp, and
// could be led to bind the user's folder over /etc, or somebody else's into the job.
class LeadingElsewhere : public EnforcementTest {
 protected:
  // How a job with this working directory ends.
  std::string end_in(const std::string& work_dir) {
    launch_.isolate = true;
    launch_.uid = launch_.gid = 65'534;
    launch_.work_dir = work_dir;
    launch_.stdout_path = "/dev/null";
    EXPECT_EQ(chmod(directory_.c_str(), 0777), 0);
    std::filesystem::create_directories(directory_ + "/real/sub");
    std::filesystem::create_directories(directory_ + "/closed/open");
    EXPECT_EQ(symlink((directory_ + "/real").c_str(), (directory_ + "/link").c_str()), 0);
    EXPECT_EQ(chmod((directory_ + "/closed").c_str(), 0700), 0);
    EXPECT_EQ(chmod((directory_ + "/closed/open").c_str(), 0777), 0);
    start("true\n");
    const Outcome outcome = end();
    EXPECT_NE(outcome.cause, EndCause::kExited) << "it ran in " << work_dir;
    return outcome.detail;
  }
};

#define NEEDS_NAMESPACES()                             \
  if (geteuid() != 0 || !why_no_namespace().empty()) { \
    GTEST_SKIP() << "this user gets no namespaces";    \
  }

TEST_P(LeadingElsewhere, UpwardsIsRefused) {
  NEEDS_NAMESPACES();
  EXPECT_NE(end_in(directory_ + "/real/../real/sub").find("no plain path"), std::string::npos);
}

TEST_P(LeadingElsewhere, ThroughALinkIsRefused) {
  NEEDS_NAMESPACES();
  EXPECT_NE(end_in(directory_ + "/link/sub").find("symbolic link"), std::string::npos);
}

TEST_P(LeadingElsewhere, WhereTheUserMayNotGoIsRefused) {
  NEEDS_NAMESPACES();
  EXPECT_NE(end_in(directory_ + "/closed/open").find("working directory"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(All, LeadingElsewhere, testing::Values("auto"),
                         [](const auto& which) { return std::string(which.param); });

INSTANTIATE_TEST_SUITE_P(All, EnforcementTest, testing::Values("auto", "v1", "v2", "off"),
                         [](const auto& which) { return std::string(which.param); });

TEST(Enforcement, WithoutGroupsEachProcessIsLimitedAlone) {
  EnforcementOptions options;
  options.cgroup = "off";
  options.spool_dir = "/nowhere";
  options.devices = true;
  const auto chosen = choose_enforcement(options, [](const std::string&, const std::vector<std::string>&) {});
  ASSERT_TRUE(chosen.ok());
  EXPECT_TRUE(chosen->controls.empty());
  for (const EnforcedBy& one : chosen->statement) {
    if (one.function == "memory") {
      EXPECT_EQ(one.by, "each process alone, by rlimit: [node] cgroup is off");
    }
    EXPECT_FALSE(one.by.starts_with("cgroup")) << one.function;
  }
}

TEST(GpuDevices, OthersAreDeniedAndWhatGpusShareIsNot) {
  const std::vector<std::vector<DeviceNumber>> devices{{{195, 0}, {226, 128}}, {{195, 1}}, {{195, 1}}, {}};
  EXPECT_EQ(denied_devices(devices, IndexSet::range(0, 1)), (std::vector<DeviceNumber>{{195, 1}}));
  EXPECT_EQ(denied_devices(devices, IndexSet::range(1, 1)), (std::vector<DeviceNumber>{{195, 0}, {226, 128}}));
  EXPECT_EQ(denied_devices(devices, {}), (std::vector<DeviceNumber>{{195, 0}, {226, 128}, {195, 1}}));
}

TEST(GpuDevices, TheConfigurationNamesThem) {
  NodeHardware hardware;
  hardware.pretended = true;
  hardware.gpus.resize(2);
  const auto none = gpu_devices(hardware, "");
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, (std::vector<std::vector<DeviceNumber>>{{}, {}}));
  const auto named = gpu_devices(hardware, "/dev/zero+/dev/null,/dev/full");
  ASSERT_TRUE(named.ok()) << named.error().message;
  EXPECT_EQ(*named, (std::vector<std::vector<DeviceNumber>>{{{1, 5}, {1, 3}}, {{1, 7}}}));
  EXPECT_EQ(gpu_device_paths("/dev/zero + /dev/null, /dev/full"),
            (std::vector<std::string>{"/dev/zero", "/dev/null", "/dev/full"}));
  EXPECT_TRUE(gpu_device_paths("").empty());
  for (const char* bad : {"/dev/zero", "/dev/zero,", "/dev/zero,/tmp", "a,b,c"}) {
    const auto refused = gpu_devices(hardware, bad);
    ASSERT_FALSE(refused.ok()) << bad;
    EXPECT_NE(refused.error().message.find("[node] gpu_devices"), std::string::npos);
  }
}

TEST(GpuDevices, AFileThatComesLaterIsDeniedFromThenOn) {
  NodeHardware hardware;
  hardware.pretended = true;
  hardware.gpus.resize(2);
  const std::string path = testing::TempDir() + "gpu_device_" + std::to_string(::getpid());
  const std::string setting = "/dev/zero," + path;
  const auto at_start = gpu_devices(hardware, setting);
  ASSERT_TRUE(at_start.ok()) << at_start.error().message;
  EXPECT_EQ(*at_start, (std::vector<std::vector<DeviceNumber>>{{{1, 5}}, {}}));
  ASSERT_EQ(::symlink("/dev/full", path.c_str()), 0);
  const auto there = gpu_devices_now(hardware, setting, *at_start);
  EXPECT_EQ(there, (std::vector<std::vector<DeviceNumber>>{{{1, 5}}, {{1, 7}}}));
  ASSERT_EQ(::unlink(path.c_str()), 0);
  EXPECT_EQ(gpu_devices_now(hardware, setting, there), there);
}

}  // namespace
}  // namespace muster::noded
