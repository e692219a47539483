// AttemptTable with real shepherds: launches, stops, restarts of the daemon, shepherds that die.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>

#include "lib/io/clock.h"
#include "lib/io/log.h"
#include "lib/io/process.h"
#include "lib/wire/muster.pb.h"
#include "noded/attempt_table.h"
#include "noded/cgroup.h"
#include "tests/support/shepherd_program.h"
#include "tests/support/slowness.h"

namespace muster::noded {
namespace {

constexpr Duration kPatience = Duration::from_s(30 * test::kSlowness);

class AttemptTableTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/muster-attempts-test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    auto group = make_node_cgroup("auto", directory_ + "/spool", [](const std::string&) {});
    ASSERT_TRUE(group.ok());
    cgroup_ = *group;
    tick_.start_repeating(Duration::from_ms(5));  // conditions outside the loop are looked at so often
    open("boot-1");
  }

  void TearDown() override {
    if (table_) {
      for (const AttemptReport& report : table_->registered_attempts()) {
        if (!report.ended) {
          table_->on_stop(StopOrder{report.key, Term{1}, StopCause::kCancelled, 0});
        }
      }
      EXPECT_TRUE(loop_.run_until(
          [&] {
            for (const AttemptReport& report : table_->registered_attempts()) {
              if (!report.ended) {
                return false;
              }
            }
            return true;
          },
          kPatience));
    }
    table_.reset();
    if (!cgroup_.empty()) {
      // A shepherd removes its group before it reports.
      EXPECT_TRUE(loop_.run_until([&] { return rmdir(cgroup_.c_str()) == 0 || errno == ENOENT; }, kPatience));
    }
    if (mounted_) {
      EXPECT_EQ(umount2((directory_ + "/spool").c_str(), MNT_DETACH), 0);
    }
    std::filesystem::remove_all(directory_);
  }

  // Begins anew with a spool that has little room. False: this needs root.
  bool open_small_spool() {
    crash();
    // In a namespace of this test program, so that nothing is left when it is killed.
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("muster-test", (directory_ + "/spool").c_str(), "tmpfs", 0, "size=256k") != 0) {
      return false;
    }
    mounted_ = true;
    open("boot-1");
    return true;
  }

  void fill_spool() {
    const io::Fd ballast(
        ::open((directory_ + "/spool/ballast").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    ASSERT_TRUE(ballast.valid());
    const std::string page(4096, 'x');
    while (::write(ballast.get(), page.data(), page.size()) > 0) {
    }
    ASSERT_EQ(errno, ENOSPC);
  }

  // Whether a shepherd has sent so much that this daemon has not read yet.
  static bool is_sent(int bytes_min) {
    for (int fd = 3; fd < 256; ++fd) {
      int domain = 0;
      socklen_t size = sizeof(domain);
      int waiting = 0;
      if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
          ioctl(fd, FIONREAD, &waiting) == 0 && waiting >= bytes_min) {
        return true;
      }
    }
    return false;
  }

  void open(const std::string& boot_id) {
    AttemptTableOptions options;
    options.loop = &loop_;
    options.boot_id = boot_id;
    options.shepherd = test::shepherd_program();
    options.cgroup_parent = cgroup_;
    options.kill_grace = Duration::from_ms(300);
    options.identity.name = "n1";
    options.identity.cluster = "test";
    options.identity.hardware.pretended = true;
    options.report = [this](const AttemptReport& report) { reports_.push_back(report); };
    options.reach_interval = Duration::from_ms(1);
    auto spool = Spool::open(directory_ + "/spool");
    ASSERT_TRUE(spool.ok()) << spool.error().message;
    table_ = std::make_unique<AttemptTable>(std::move(options), std::move(*spool));
    ASSERT_TRUE(table_->recover().ok());
  }

  // As kill -9 of the daemon: its sockets close, nothing is written.
  void crash() { table_.reset(); }

  LaunchData launch(std::uint64_t job, const std::string& script, std::uint32_t attempt = 1) {
    auto spec = std::make_shared<JobSpec>();
    spec->name = "job";
    spec->user = "tester";
    spec->uid = geteuid();
    spec->gid = getegid();
    spec->work_dir = directory_;
    spec->script_name = "job.sh";
    auto order = std::make_shared<LaunchOrder>();
    order->key = {JobId{job}, Attempt{attempt}};
    order->term = Term{1};
    order->node = "n1";
    order->spec = spec;
    order->share.cores.insert(0);
    order->peers = {Peer{"n1", "tcp://127.0.0.1:1", "key", 1, 1}};
    LaunchData data;
    data.order = order;
    data.script = std::make_shared<const std::string>(script);
    data.environment = std::make_shared<const std::string>(std::string("PATH=/usr/bin:/bin\0COLOUR=blue\0", 31));
    return data;
  }

  std::optional<Outcome> outcome_of(std::uint64_t job) {
    for (const AttemptReport& report : reports_) {
      if (report.key.job.value == job && report.ended) {
        return report.outcome;
      }
    }
    return std::nullopt;
  }

  Outcome wait_end(std::uint64_t job) {
    EXPECT_TRUE(loop_.run_until([&] { return outcome_of(job).has_value(); }, kPatience)) << "job " << job;
    return outcome_of(job).value_or(Outcome{});
  }

  bool wait_running(std::uint64_t job) {
    return loop_.run_until([&] { return table_->find_job(JobId{job}).ok() && table_->find_job(JobId{job})->running; },
                           kPatience);
  }

  bool wait_file(const std::string& name) {
    return loop_.run_until([&] { return !test::read_all(directory_ + "/" + name).empty(); }, kPatience);
  }

  // Has the record of job 1's shepherd name this socket. In place, because the shepherd will append its outcome.
  void change_socket(std::string_view name) {
    const std::string path = attempt_dir("1.1") + "/shepherd";
    auto record = decode_shepherd_record(test::read_all(path));
    ASSERT_TRUE(record.ok());
    const std::size_t size = encode_shepherd_record(*record).size();
    record->socket = name;
    std::string text = encode_shepherd_record(*record);
    ASSERT_LE(text.size(), size);
    text.insert(text.size() - 1, size - text.size(), ' ');
    std::fstream(path, std::ios::binary | std::ios::in | std::ios::out) << text;
  }

  // Many more tries to reach a shepherd than make it unreachable.
  void let_it_try() {
    int turns = 0;
    io::Timer counter(loop_, [&] { ++turns; });
    counter.start_repeating(Duration::from_ms(2));
    ASSERT_TRUE(loop_.run_until([&] { return turns >= 250; }, kPatience));
  }

  void touch(const std::string& name) { std::ofstream(directory_ + "/" + name) << "x\n"; }

  std::string attempt_dir(const std::string& key) { return directory_ + "/spool/attempts/" + key; }

  io::Loop loop_;
  io::Timer tick_{loop_, [] {}};
  std::string directory_;
  std::string cgroup_;
  bool mounted_ = false;
  std::unique_ptr<AttemptTable> table_;
  std::vector<AttemptReport> reports_;
};

constexpr const char* kWaitForGo = "#!/bin/sh\necho run >> runs\nwhile [ ! -e go ]; do sleep 0.01; done\nexit 7\n";

TEST_F(AttemptTableTest, RunsReportsAndForgets) {
  table_->on_launch(launch(42, "#!/bin/sh\necho $0 $COLOUR $MUSTER_JOB_ID $SLURM_JOB_NODELIST\nexit 7\n"));
  const Outcome outcome = wait_end(42);
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 7);
  ASSERT_EQ(reports_.size(), 2U);
  EXPECT_FALSE(reports_[0].ended);
  EXPECT_EQ(test::read_all(directory_ + "/muster-42.out"), attempt_dir("42.1") + "/job.sh blue 42 n1\n");
  EXPECT_TRUE(std::filesystem::exists(attempt_dir("42.1")));
  table_->on_acknowledged({JobId{42}, Attempt{1}});
  EXPECT_FALSE(std::filesystem::exists(attempt_dir("42.1")));
  EXPECT_TRUE(table_->registered_attempts().empty());
}

TEST_F(AttemptTableTest, ANewTimeLimitCountsFromTheStartAndOutlivesTheDaemon) {
  const AttemptKey key{JobId{1}, Attempt{1}};
  table_->on_launch(launch(1, kWaitForGo));
  // Before the shepherd has said that it runs: it gets it then.
  table_->on_limit({key, Term{1}, Duration::from_s(3600)});
  ASSERT_TRUE(wait_running(1));
  crash();
  open("boot-1");
  // The shepherd of an earlier life, which is not connected yet.
  table_->on_limit({key, Term{1}, Duration::from_ms(300)});
  const Outcome outcome = wait_end(1);
  EXPECT_EQ(outcome.cause, EndCause::kTimeLimit);
  EXPECT_GE(outcome.ran, Duration::from_ms(300));
  // Too late, or for somebody else: nothing.
  table_->on_limit({key, Term{1}, Duration::from_s(1)});
  table_->on_limit({{JobId{77}, Attempt{1}}, Term{1}, Duration::from_s(1)});
  EXPECT_EQ(table_->registered_attempts().size(), 1U);
}

TEST_F(AttemptTableTest, ALimitThatIsTakenAwayEndsNothing) {
  LaunchData data = launch(2, kWaitForGo);
  auto order = std::make_shared<LaunchOrder>(*data.order);
  order->time_limit = Duration::from_s(5);
  data.order = order;
  table_->on_launch(data);
  ASSERT_TRUE(wait_running(2));
  table_->on_limit({{JobId{2}, Attempt{1}}, Term{1}, Duration::infinite()});
  touch("go");
  EXPECT_EQ(wait_end(2).exit_code, 7);
}

TEST_F(AttemptTableTest, TasksWithOneScriptShareItsFile) {
  LaunchData first = launch(1, "#!/bin/sh\necho $0\nexit 3\n");
  auto spec = std::make_shared<JobSpec>(*first.order->spec);
  spec->script.bytes[0] = 9;
  LaunchData second = launch(2, *first.script);
  for (LaunchData* data : {&first, &second}) {
    auto order = std::make_shared<LaunchOrder>(*data->order);
    order->spec = spec;
    data->order = order;
    table_->on_launch(*data);
  }
  EXPECT_EQ(wait_end(1).exit_code, 3);
  EXPECT_EQ(wait_end(2).exit_code, 3);
  EXPECT_EQ(std::filesystem::hard_link_count(attempt_dir("2.1") + "/job.sh"), 3U);
  EXPECT_EQ(test::read_all(directory_ + "/muster-2.out"), attempt_dir("2.1") + "/job.sh\n");
  // A script that its user has changed is not given to further tasks.
  std::ofstream(attempt_dir("2.1") + "/job.sh") << "#!/bin/sh\nexit 4\n";
  LaunchData third = launch(3, *first.script);
  auto order = std::make_shared<LaunchOrder>(*third.order);
  order->spec = spec;
  third.order = order;
  table_->on_launch(third);
  EXPECT_EQ(wait_end(3).exit_code, 3);
}

std::string ticket_bytes(const std::string& body) {
  pb::Ticket ticket;
  ticket.set_body(body);
  return ticket.SerializeAsString();
}

TEST_F(AttemptTableTest, AFolderIsUsedAgainWithoutWhatWasInIt) {
  crash();
  auto spool = Spool::open(directory_ + "/spool");
  ASSERT_TRUE(spool.ok());
  const auto prepare = [&](std::uint64_t job, const std::string& ticket, std::uint32_t uid) {
    LaunchData data = launch(job, "#!/bin/sh\nexit " + std::to_string(job) + "\n");
    auto spec = std::make_shared<JobSpec>(*data.order->spec);
    spec->uid = uid;
    auto order = std::make_shared<LaunchOrder>(*data.order);
    order->spec = spec;
    data.order = order;
    data.ticket = ticket_bytes(ticket);
    return spool->prepare(data, "boot-1").ok();
  };
  const auto names = [&](const std::string& key) {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(attempt_dir(key))) {
      found.insert(entry.path().filename());
    }
    return found;
  };
  const auto inode = [](const std::string& path) {
    struct stat info {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return info.st_ino;
  };
  const std::uint32_t me = geteuid();
  ASSERT_TRUE(prepare(1, "ticket of the first", me));
  const auto first = inode(attempt_dir("1.1"));
  std::ofstream(attempt_dir("1.1") + "/shepherd") << "77 1 x y\n";
  std::ofstream(attempt_dir("1.1") + "/step.0") << "x";
  std::ofstream(attempt_dir("1.1") + "/outcome") << "x";
  spool->remove({JobId{1}, Attempt{1}});
  EXPECT_FALSE(std::filesystem::exists(attempt_dir("1.1")));

  ASSERT_TRUE(prepare(2, "second", me));
  EXPECT_EQ(inode(attempt_dir("2.1")), first);
  EXPECT_EQ(names("2.1"), (std::set<std::string>{"job.sh", "launch", "ticket"}));
  EXPECT_EQ(test::read_all(attempt_dir("2.1") + "/ticket"), ticket_bytes("second"));
  EXPECT_EQ(test::read_all(attempt_dir("2.1") + "/job.sh"), "#!/bin/sh\nexit 2\n");
  std::ofstream(attempt_dir("2.1") + "/outcome") << "x";  // so that scan() finds it
  const auto found = spool->scan();
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 1U);
  ASSERT_NE((*found)[0].order, nullptr);
  EXPECT_EQ((*found)[0].order->key.job, JobId{2});
  // The same attempt again is refused, and what is there stays.
  ASSERT_TRUE(prepare(9, "", me));
  spool->remove({JobId{9}, Attempt{1}});
  EXPECT_FALSE(prepare(2, "", me));
  EXPECT_EQ(test::read_all(attempt_dir("2.1") + "/ticket"), ticket_bytes("second"));
  // No ticket is left where none is wanted, and a user's file never becomes another user's.
  spool->remove({JobId{2}, Attempt{1}});
  ASSERT_TRUE(prepare(3, "", me));
  EXPECT_EQ(names("3.1"), (std::set<std::string>{"job.sh", "launch"}));
  ASSERT_TRUE(prepare(4, "fourth", me));
  const auto fourth_ticket = inode(attempt_dir("4.1") + "/ticket");
  const int held = ::open((attempt_dir("4.1") + "/ticket").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(held, 0);
  spool->remove({JobId{4}, Attempt{1}});
  ASSERT_TRUE(prepare(5, "fifth", me + 1));
  EXPECT_NE(inode(attempt_dir("5.1") + "/ticket"), fourth_ticket);
  char text[16] = {};
  EXPECT_EQ(pread(held, text, sizeof(text), 0), static_cast<ssize_t>(ticket_bytes("fourth").size()));
  EXPECT_STREQ(text, ticket_bytes("fourth").c_str());
  close(held);
}

TEST_F(AttemptTableTest, ARecordThatIsWrittenOverKeepsNothingOfTheLast) {
  LaunchData first = launch(1, "");
  first.script = nullptr;
  first.environment = nullptr;
  table_->on_launch(first);
  ASSERT_TRUE(wait_running(1));
  Outcome outcome{.cause = EndCause::kExited, .exit_code = 3, .signal = 0, .detail = std::string(500, 'x'), .ran = {}};
  ASSERT_TRUE(table_->finish({JobId{1}, Attempt{1}}, outcome).ok());
  wait_end(1);
  const std::string record = test::read_all(attempt_dir("1.1") + "/shepherd");
  const auto shepherd = static_cast<pid_t>(std::strtol(record.c_str(), nullptr, 10));
  table_->on_acknowledged({JobId{1}, Attempt{1}});
  EXPECT_TRUE(std::filesystem::exists(directory_ + "/spool/free/0/" + kSpareName));
  table_->on_launch(launch(2, kWaitForGo));
  ASSERT_TRUE(wait_running(2));
  EXPECT_FALSE(std::filesystem::exists(attempt_dir("2.1") + "/" + kSpareName));
  auto running = decode_shepherd_record(test::read_all(attempt_dir("2.1") + "/shepherd"));
  ASSERT_TRUE(running.ok());
  EXPECT_NE(running->pid, shepherd);
  EXPECT_EQ(test::read_all(attempt_dir("2.1") + "/shepherd"), encode_shepherd_record(*running));
  crash();
  touch("go");
  open("boot-1");
  EXPECT_TRUE(loop_.run_until(
      [&] {
        for (const AttemptReport& report : table_->registered_attempts()) {
          if (report.ended) {
            return report.outcome.exit_code == 7;
          }
        }
        return false;
      },
      kPatience));
}

TEST_F(AttemptTableTest, ADoubledLaunchRunsOnce) {
  const LaunchData data = launch(1, kWaitForGo);
  table_->on_launch(data);
  table_->on_launch(data);
  ASSERT_TRUE(wait_running(1));
  table_->on_launch(data);
  touch("go");
  wait_end(1);
  table_->on_launch(data);
  table_->on_acknowledged({JobId{1}, Attempt{1}});
  table_->on_launch(data);
  EXPECT_EQ(test::read_all(directory_ + "/runs"), "run\n");
}

TEST_F(AttemptTableTest, AStopThatComesFirstPreventsTheLaunch) {
  table_->on_stop(StopOrder{{JobId{1}, Attempt{1}}, Term{1}, StopCause::kCancelled, 0});
  table_->on_launch(launch(1, kWaitForGo));
  EXPECT_EQ(wait_end(1).cause, EndCause::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/runs"));
}

TEST_F(AttemptTableTest, AStopRightBehindTheLaunchEndsIt) {
  table_->on_launch(launch(1, "#!/bin/sh\nexec sleep 1000\n"));
  table_->on_stop(StopOrder{{JobId{1}, Attempt{1}}, Term{1}, StopCause::kCancelled, 0});
  EXPECT_EQ(wait_end(1).cause, EndCause::kCancelled);
}

TEST_F(AttemptTableTest, ARestartedDaemonTakesItsJobsUpAgain) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  reports_.clear();
  open("boot-1");
  const auto attempts = table_->registered_attempts();
  ASSERT_EQ(attempts.size(), 1U);
  EXPECT_FALSE(attempts[0].ended);
  ASSERT_TRUE(wait_running(1));
  auto info = table_->find_job(JobId{1});
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->order->spec->script_name, "job.sh");
  touch("go");
  EXPECT_EQ(wait_end(1).exit_code, 7);
  EXPECT_EQ(test::read_all(directory_ + "/runs"), "run\n");
}

TEST_F(AttemptTableTest, AnEndWhileTheDaemonWasAwayIsReported) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  touch("go");
  ASSERT_TRUE(loop_.run_until(
      [&] {
        auto record = decode_shepherd_record(test::read_all(attempt_dir("1.1") + "/shepherd"));
        return record.ok() && record->outcome.has_value();
      },
      kPatience));
  open("boot-1");
  const auto attempts = table_->registered_attempts();
  ASSERT_EQ(attempts.size(), 1U);
  EXPECT_TRUE(attempts[0].ended);
  EXPECT_EQ(attempts[0].outcome.exit_code, 7);
}

TEST_F(AttemptTableTest, AnEndThatIsReportedLateSaysWhenItWas) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  touch("go");
  const std::string record_path = attempt_dir("1.1") + "/shepherd";
  ASSERT_TRUE(loop_.run_until(
      [&] {
        auto record = decode_shepherd_record(test::read_all(record_path));
        return record.ok() && record->outcome.has_value();
      },
      kPatience));
  const timespec long_ago[2] = {{.tv_sec = 1'700'000'000, .tv_nsec = 0}, {.tv_sec = 1'700'000'000, .tv_nsec = 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, record_path.c_str(), long_ago, 0), 0);
  open("boot-1");
  const auto attempts = table_->registered_attempts();
  ASSERT_EQ(attempts.size(), 1U);
  EXPECT_EQ(attempts[0].outcome.ended_at, Instant::from_s(1'700'000'000));
}

TEST_F(AttemptTableTest, ANodesGroupIsAnnouncedBeforeItIsMade) {
  bool announced_first = true;
  std::string announced;
  const auto group = make_node_cgroup("auto", directory_ + "/other", [&](const std::string& path) {
    announced = path;
    announced_first = announced_first && access(path.c_str(), F_OK) != 0;
  });
  ASSERT_TRUE(group.ok());
  EXPECT_TRUE(announced_first);
  if (!group->empty()) {
    EXPECT_EQ(announced, *group);
    // Nothing was made in it for a trial: it goes at once. And it can be taken again, as after a crash.
    const auto again = make_node_cgroup("auto", directory_ + "/other", [](const std::string&) {});
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(*again, *group);
    EXPECT_EQ(rmdir(group->c_str()), 0);
  }
}

TEST_F(AttemptTableTest, AStopAfterARestartIsCarriedOut) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  open("boot-1");
  // At once, before the shepherd has been reached.
  table_->on_stop(StopOrder{{JobId{1}, Attempt{1}}, Term{1}, StopCause::kCancelled, 0});
  EXPECT_EQ(wait_end(1).cause, EndCause::kCancelled);
}

TEST_F(AttemptTableTest, AJobWhoseShepherdCannotBeReachedGoesOn) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  change_socket("muster-test-nobody");
  open("boot-1");
  let_it_try();
  EXPECT_FALSE(outcome_of(1));
  touch("go");
  const Outcome outcome = wait_end(1);
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 7);
}

TEST_F(AttemptTableTest, AJobWhoseShepherdHasNoSocketEndsAsItsRecordSays) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  change_socket(kNoSocket);
  open("boot-1");
  let_it_try();
  EXPECT_FALSE(outcome_of(1));
  touch("go");
  const Outcome outcome = wait_end(1);
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 7);
}

TEST_F(AttemptTableTest, AJobWhoseShepherdHasNoSocketCanBeStopped) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  change_socket(kNoSocket);
  open("boot-1");
  table_->on_stop(StopOrder{{JobId{1}, Attempt{1}}, Term{1}, StopCause::kCancelled, 0});
  EXPECT_EQ(wait_end(1).cause, EndCause::kCancelled);
}

TEST_F(AttemptTableTest, AnotherProcessAtAShepherdsSocketIsNotTakenForIt) {
  const std::string name = "muster-test-" + std::to_string(getpid());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const io::Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 1000), 0);
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  change_socket(name);
  open("boot-1");
  let_it_try();
  EXPECT_FALSE(table_->find_job(JobId{1})->running);
  touch("go");
  EXPECT_EQ(wait_end(1).exit_code, 7);
}

TEST_F(AttemptTableTest, AShepherdThatAcceptsNobodyHoldsUpNothing) {
  const std::string name = "muster-test-" + std::to_string(getpid());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const io::Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  const io::Fd first(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(first.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);  // its queue is full
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  change_socket(name);
  open("boot-1");
  touch("go");
  EXPECT_EQ(wait_end(1).exit_code, 7);
}

TEST_F(AttemptTableTest, AnUnreadableLaunchRecordHarmsNoJob) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  std::ofstream(attempt_dir("1.1") + "/launch", std::ios::trunc) << "damaged";
  open("boot-1");
  const auto attempts = table_->registered_attempts();
  ASSERT_EQ(attempts.size(), 1U);
  EXPECT_FALSE(attempts[0].ended);
  touch("go");
  const Outcome outcome = wait_end(1);
  EXPECT_EQ(outcome.cause, EndCause::kExited);
  EXPECT_EQ(outcome.exit_code, 7);
}

TEST_F(AttemptTableTest, WhatWasBeingWithdrawnIsGone) {
  std::filesystem::create_directory(attempt_dir("9.1"));
  std::ofstream(attempt_dir("9.1") + "/launch") << "half";
  std::ofstream(attempt_dir("9.1") + "/shepherd");  // taken by a daemon that was killed then
  std::filesystem::create_directory(attempt_dir(".withdrawn.8.1"));
  crash();
  open("boot-1");
  EXPECT_TRUE(table_->registered_attempts().empty());
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/spool/attempts"));
}

TEST_F(AttemptTableTest, AnotherBootEndsWhatRan) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  crash();
  open("boot-2");
  const auto attempts = table_->registered_attempts();
  ASSERT_EQ(attempts.size(), 1U);
  EXPECT_TRUE(attempts[0].ended);
  EXPECT_EQ(attempts[0].outcome.cause, EndCause::kNodeLost);
  touch("go");  // should the sweep have missed it
}

TEST_F(AttemptTableTest, ADeadShepherdsJobIsKilledAndReported) {
  table_->on_launch(launch(1, "#!/bin/sh\nsetsid sh -c 'echo $$ > left; exec sleep 1000' &\necho $$ > main\nwait\n"));
  ASSERT_TRUE(wait_running(1));
  ASSERT_TRUE(wait_file("left"));
  ASSERT_TRUE(wait_file("main"));
  const std::string record = test::read_all(attempt_dir("1.1") + "/shepherd");
  const auto shepherd = static_cast<pid_t>(std::strtol(record.c_str(), nullptr, 10));
  ASSERT_GT(shepherd, 1);
  ASSERT_EQ(kill(shepherd, SIGKILL), 0);
  EXPECT_EQ(wait_end(1).cause, EndCause::kShepherdDied);
  for (const char* name : {"left", "main"}) {
    const auto pid = static_cast<pid_t>(std::strtol(test::read_all(directory_ + "/" + name).c_str(), nullptr, 10));
    EXPECT_TRUE(loop_.run_until(
        [&] {
          const std::string stat = test::read_all("/proc/" + std::to_string(pid) + "/stat");
          return stat.empty() || stat.find(") Z ") != std::string::npos;
        },
        kPatience))
        << name;
  }
}

TEST_F(AttemptTableTest, ASpoolThatCannotBeWrittenFailsTheLaunchAlone) {
  std::filesystem::remove_all(directory_ + "/spool/attempts");
  table_->on_launch(launch(1, kWaitForGo));
  const Outcome outcome = wait_end(1);
  EXPECT_EQ(outcome.cause, EndCause::kLaunchFailed);
  EXPECT_NE(outcome.detail.find("No such file or directory"), std::string::npos) << outcome.detail;
  std::filesystem::create_directory(directory_ + "/spool/attempts");
  table_->on_launch(launch(2, "#!/bin/sh\n"));
  EXPECT_EQ(wait_end(2).cause, EndCause::kExited);
}

TEST_F(AttemptTableTest, AKilledNurseryIsReplacedAndItsShepherdsGoOn) {
  const auto shepherd_of = [&](const std::string& attempt) {
    return static_cast<pid_t>(std::strtol(test::read_all(attempt_dir(attempt) + "/shepherd").c_str(), nullptr, 10));
  };
  const auto parent_of = [](pid_t pid) {
    const std::string stat = test::read_all("/proc/" + std::to_string(pid) + "/stat");
    return static_cast<pid_t>(std::strtol(stat.substr(stat.rfind(')') + 4).c_str(), nullptr, 10));
  };
  table_->on_launch(launch(1, kWaitForGo));
  table_->on_launch(launch(2, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  ASSERT_TRUE(wait_running(2));
  const pid_t nursery = parent_of(shepherd_of("1.1"));
  EXPECT_EQ(parent_of(shepherd_of("2.1")), nursery);
  EXPECT_EQ(parent_of(nursery), getpid());
  ASSERT_EQ(kill(nursery, SIGKILL), 0);
  ASSERT_TRUE(loop_.run_until([&] { return !io::process_alive(nursery); }, kPatience));
  table_->on_launch(launch(3, kWaitForGo));
  ASSERT_TRUE(wait_running(3));
  EXPECT_NE(parent_of(shepherd_of("3.1")), nursery);
  touch("go");
  for (const std::uint64_t job : {1, 2, 3}) {
    EXPECT_EQ(wait_end(job).exit_code, 7);
  }
}

TEST_F(AttemptTableTest, TheNurseryEndsWithItsDaemonAndLeavesItsShepherds) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  const std::string record = test::read_all(attempt_dir("1.1") + "/shepherd");
  const auto shepherd = static_cast<pid_t>(std::strtol(record.c_str(), nullptr, 10));
  const std::string stat = test::read_all("/proc/" + std::to_string(shepherd) + "/stat");
  const auto nursery = static_cast<pid_t>(std::strtol(stat.substr(stat.rfind(')') + 4).c_str(), nullptr, 10));
  crash();
  EXPECT_TRUE(loop_.run_until([&] { return !io::process_alive(nursery); }, kPatience));
  EXPECT_TRUE(io::process_alive(shepherd));
  open("boot-1");
  touch("go");
  EXPECT_EQ(wait_end(1).exit_code, 7);
}

TEST_F(AttemptTableTest, AMissingShepherdProgramFailsTheLaunch) {
  crash();
  AttemptTableOptions options;
  options.loop = &loop_;
  options.boot_id = "boot-1";
  options.shepherd = "/no/such/muster-shepherd";
  options.identity.name = "n1";
  options.report = [this](const AttemptReport& report) { reports_.push_back(report); };
  auto spool = Spool::open(directory_ + "/spool");
  ASSERT_TRUE(spool.ok());
  table_ = std::make_unique<AttemptTable>(std::move(options), std::move(*spool));
  ASSERT_TRUE(table_->recover().ok());
  table_->on_launch(launch(1, kWaitForGo));
  const Outcome outcome = wait_end(1);
  EXPECT_EQ(outcome.cause, EndCause::kLaunchFailed);
  EXPECT_NE(outcome.detail.find("/no/such/muster-shepherd"), std::string::npos) << outcome.detail;
}

TEST_F(AttemptTableTest, WhatWasPreparedButNeverBegunIsForgotten) {
  std::filesystem::create_directory(attempt_dir("9.1"));
  std::ofstream(attempt_dir("9.1") + "/launch") << "half";
  std::ofstream(directory_ + "/spool/attempts/stray") << "x";
  crash();
  open("boot-1");
  EXPECT_TRUE(table_->registered_attempts().empty());
  EXPECT_FALSE(std::filesystem::exists(attempt_dir("9.1")));
}

TEST_F(AttemptTableTest, ADamagedOutcomeIsAnEnd) {
  std::filesystem::create_directory(attempt_dir("9.1"));
  std::ofstream(attempt_dir("9.1") + "/outcome") << "half";
  crash();
  open("boot-1");
  const auto attempts = table_->registered_attempts();
  ASSERT_EQ(attempts.size(), 1U);
  EXPECT_TRUE(attempts[0].ended);
  EXPECT_EQ(attempts[0].outcome.cause, EndCause::kNodeLost);
}

TEST_F(AttemptTableTest, TermsOutliveTheDaemon) {
  EXPECT_TRUE(table_->hear_term(Term{5}));
  crash();
  open("boot-1");
  EXPECT_FALSE(table_->hear_term(Term{4}));
  EXPECT_EQ(table_->term(), Term{5});
}

TEST_F(AttemptTableTest, LaunchesOfATermThatCannotBeRecordedAreRefused) {
  table_->on_launch(launch(1, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  const auto launch_of_term_2 = [&](std::uint64_t job) {
    LaunchData data = launch(job, "#!/bin/sh\nexit 5\n");
    auto order = std::make_shared<LaunchOrder>(*data.order);
    order->term = Term{2};
    data.order = order;
    return data;
  };
  const std::string term = directory_ + "/spool/term";
  std::filesystem::remove(term);
  std::filesystem::create_directory(term);  // no file can take its place
  EXPECT_TRUE(table_->hear_term(Term{2}));
  EXPECT_FALSE(table_->hear_term(Term{1}));
  table_->on_launch(launch_of_term_2(2));
  const Outcome refused = wait_end(2);
  EXPECT_EQ(refused.cause, EndCause::kLaunchFailed);
  EXPECT_NE(refused.detail.find("term"), std::string::npos) << refused.detail;
  // Whom the full disk belongs to may still be stopped.
  table_->on_stop(StopOrder{{JobId{1}, Attempt{1}}, Term{2}, StopCause::kCancelled, 0});
  EXPECT_EQ(wait_end(1).cause, EndCause::kCancelled);
  // Recorded as soon as it can be, whatever is heard next.
  std::filesystem::remove(term);
  EXPECT_TRUE(table_->hear_term(Term{2}));
  table_->on_launch(launch_of_term_2(3));
  EXPECT_EQ(wait_end(3).exit_code, 5);
  crash();
  open("boot-1");
  EXPECT_EQ(table_->term(), Term{2});
}

TEST_F(AttemptTableTest, StepsReachTheShepherdAndComeBack) {
  LaunchData data = launch(1, "");
  data.script = nullptr;
  data.environment = nullptr;
  std::vector<AttemptKey> running;
  table_->on_running([&](AttemptKey key, const std::vector<std::uint32_t>&) { running.push_back(key); });
  table_->on_launch(data);
  ASSERT_TRUE(wait_running(1));
  ASSERT_EQ(running.size(), 1U);
  const AttemptKey key{JobId{1}, Attempt{1}};
  std::string output;
  bool ended = false;
  table_->subscribe(key, 0, [&](const Frame& frame) {
    if (const auto* out = std::get_if<StepOutputFrame>(&frame)) {
      output += out->data;
    }
    ended = ended || std::holds_alternative<StepEndedFrame>(frame);
  });
  StepStartFrame step;
  step.argv = {"sh", "-c", "echo hello from $RANK"};
  step.environment = {"PATH=/usr/bin:/bin"};
  step.work_dir = directory_;
  step.tasks = {StepTask{0, {"RANK=0"}, {}}, StepTask{1, {"RANK=1"}, {}}};
  ASSERT_TRUE(table_->send(key, step).ok());
  ASSERT_TRUE(loop_.run_until([&] { return ended; }, kPatience));
  EXPECT_EQ(output.size(), 2 * std::string("hello from 0\n").size());
  ASSERT_TRUE(
      table_->finish(key, Outcome{.cause = EndCause::kExited, .exit_code = 3, .signal = 0, .detail = {}, .ran = {}})
          .ok());
  EXPECT_EQ(wait_end(1).exit_code, 3);
  EXPECT_FALSE(table_->find(key).ok());
  EXPECT_FALSE(table_->send(key, step).ok());
}

TEST_F(AttemptTableTest, AFullSpoolLosesNoOutcome) {
  if (!open_small_spool()) {
    GTEST_SKIP() << "needs root";
  }
  LaunchData data = launch(1, "");
  data.script = nullptr;
  data.environment = nullptr;
  table_->on_launch(data);
  table_->on_launch(launch(2, kWaitForGo));
  ASSERT_TRUE(wait_running(1));
  ASSERT_TRUE(wait_running(2));
  fill_spool();
  // A launch fails and says why.
  table_->on_launch(launch(3, kWaitForGo));
  const Outcome refused = wait_end(3);
  EXPECT_EQ(refused.cause, EndCause::kLaunchFailed);
  EXPECT_NE(refused.detail.find("No space left on device"), std::string::npos) << refused.detail;
  // An outcome longer than what is left of the record's page, which this daemon is sent and never reads.
  const Outcome outcome{
      .cause = EndCause::kExited, .exit_code = 3, .signal = 0, .detail = std::string(8000, 'x'), .ran = {}};
  const std::string record = test::read_all(attempt_dir("1.1") + "/shepherd");
  const auto shepherd = static_cast<pid_t>(std::strtol(record.c_str(), nullptr, 10));
  ASSERT_TRUE(table_->finish({JobId{1}, Attempt{1}}, outcome).ok());
  const auto until = io::boottime_now() + kPatience;
  while (!is_sent(8000) && io::boottime_now() < until) {
    poll(nullptr, 0, 2);
  }
  ASSERT_TRUE(is_sent(8000));
  crash();
  reports_.clear();
  open("boot-1");
  const Outcome told = wait_end(1);
  EXPECT_EQ(told.cause, EndCause::kExited);
  EXPECT_EQ(told.exit_code, 3);
  EXPECT_EQ(told.detail, outcome.detail);
  // Away again when there is room.
  crash();
  std::filesystem::remove(directory_ + "/spool/ballast");
  EXPECT_TRUE(loop_.run_until([&] { return !io::process_alive(shepherd); }, kPatience));
  reports_.clear();
  open("boot-1");
  const auto attempts = table_->registered_attempts();
  ASSERT_EQ(attempts.size(), 2U);
  EXPECT_TRUE(attempts[0].ended);
  EXPECT_EQ(attempts[0].outcome.detail, outcome.detail);
  EXPECT_FALSE(attempts[1].ended);
  touch("go");
  EXPECT_EQ(wait_end(2).exit_code, 7);
}

TEST_F(AttemptTableTest, AFullSpoolKeepsNoShepherdWhoseEndIsKnown) {
  if (!open_small_spool()) {
    GTEST_SKIP() << "needs root";
  }
  LaunchData data = launch(1, "");
  data.script = nullptr;
  data.environment = nullptr;
  table_->on_launch(data);
  ASSERT_TRUE(wait_running(1));
  fill_spool();
  const std::string record = test::read_all(attempt_dir("1.1") + "/shepherd");
  const auto shepherd = static_cast<pid_t>(std::strtol(record.c_str(), nullptr, 10));
  ASSERT_TRUE(
      table_
          ->finish(
              {JobId{1}, Attempt{1}},
              Outcome{
                  .cause = EndCause::kExited, .exit_code = 3, .signal = 0, .detail = std::string(8000, 'x'), .ran = {}})
          .ok());
  EXPECT_EQ(wait_end(1).exit_code, 3);
  table_->on_acknowledged({JobId{1}, Attempt{1}});
  EXPECT_TRUE(loop_.run_until([&] { return !io::process_alive(shepherd); }, kPatience));
}

TEST_F(AttemptTableTest, ManyLaunchesAtOnceAllEnd) {
  constexpr std::uint64_t kJobs = 100;
  for (std::uint64_t job = 1; job <= kJobs; ++job) {
    LaunchData data = launch(job, "#!/bin/true\n");
    table_->on_launch(data);
  }
  for (std::uint64_t job = 1; job <= kJobs; ++job) {
    EXPECT_EQ(wait_end(job).cause, EndCause::kExited);
    table_->on_acknowledged({JobId{job}, Attempt{1}});
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/spool/attempts"));
}

}  // namespace
}  // namespace muster::noded
