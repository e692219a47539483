// What `muster local` keeps about a cluster, and the tables that commands print.
#include "cli/local_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "cli/table.h"
#include "lib/io/clock.h"
#include "tests/support/slowness.h"

namespace muster::cli {
namespace {

using testing::HasSubstr;

TEST(LocalRecord, SurvivesWritingAndReading) {
  LocalRecord record;
  record.name = "local";
  record.run_base = "/tmp/x y/run";
  record.made_dir = true;
  record.nodes = 3;
  record.topologies = {"package:2 core:16 pu:1+gpu:4", "/a b/c.xml"};
  record.sets = {"node.kill_grace=5s", "cluster.name=a b=c"};
  record.controller = {17, 123456789};
  record.inits = {{18, 1}, {0, 0}, {20, 3}};
  const auto back = parse_record(format_record(record), "cluster");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(*back, record);
}

TEST(LocalRecord, DamageIsRefused) {
  for (const char* text :
       {"", "x", "muster-local 2\n", "muster-local 1\nnodes -1\n", "muster-local 1\ncontroller 5\n",
        "muster-local 1\ninit 99999999999 1\n", "muster-local 1\nwhat 1\n", "muster-local 1\nnodes 99999999\n"}) {
    const auto record = parse_record(text, "cluster");
    ASSERT_FALSE(record.ok()) << text;
    EXPECT_THAT(record.error().message, HasSubstr("cluster"));
  }
}

TEST(LocalProcess, AReusedNumberIsAnotherProcess) {
  const ProcessId self = identify(getpid());
  EXPECT_EQ(self.pid, getpid());
  EXPECT_TRUE(is_running(self));
  ProcessId earlier = self;
  --earlier.start;
  EXPECT_FALSE(is_running(earlier));
  send_signal(earlier, SIGKILL);  // must not reach this process
  EXPECT_FALSE(is_running(ProcessId{}));
}

TEST(LocalProcess, AZombieDoesNotRun) {
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  const ProcessId process = identify(child);
  EXPECT_TRUE(is_running(process));
  send_signal(process, SIGKILL);
  EXPECT_TRUE(wait_until_gone(process, Duration::from_s(10)));
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

// `muster local restart` took a daemon whose other threads had yet to end for gone, so that the node's init, which could
// not reap it, answered that it ran already.
TEST(LocalProcess, RunsUntilItsLastThreadHasEnded) {
  int hold[2];
  ASSERT_EQ(pipe2(hold, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(hold[1]);
    std::thread([fd = hold[0]] {
      char byte = 0;
      _exit(read(fd, &byte, 1) == 0 ? 0 : 1);
    }).detach();
    syscall(SYS_exit, 0);  // the first thread alone
  }
  close(hold[0]);
  const ProcessId process = identify(child);
  siginfo_t ended{};
  const auto state = [&] {
    std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
    std::string pid, name, letter;
    stat >> pid >> name >> letter;
    return letter;
  };
  const Duration deadline = io::boottime_now() + Duration::from_s(10 * test::kSlowness);
  while (state() != "Z" && io::boottime_now() < deadline) usleep(1'000);
  ASSERT_EQ(state(), "Z");
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT), 0);
  EXPECT_EQ(ended.si_pid, 0) << "it cannot be reaped yet";
  EXPECT_TRUE(is_running(process));
  EXPECT_FALSE(wait_until_gone(process, Duration::from_ms(20)));
  close(hold[1]);
  EXPECT_TRUE(wait_until_gone(process, Duration::from_s(10 * test::kSlowness)));
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), child);
}

TEST(LocalPaths, SocketsGetAShortFolder) {
  EXPECT_EQ(choose_run_base("/tmp/muster-local-0/local"), "/tmp/muster-local-0/local/run");
  const std::string long_dir = "/tmp/" + std::string(150, 'x');
  EXPECT_LT(choose_run_base(long_dir).size(), 48U);
  EXPECT_EQ(choose_run_base(long_dir), choose_run_base(long_dir));
  EXPECT_NE(choose_run_base(long_dir), choose_run_base(long_dir + "y"));
}

TEST(Topologies, AreFilesOrSyntheticText) {
  EXPECT_EQ(*resolve_topology("package:2 core:4 pu:1", "/w"), "package:2 core:4 pu:1");
  EXPECT_EQ(*resolve_topology("package:2 core:4 pu:1+gpu:4", "/w"), "package:2 core:4 pu:1+gpu:4");
  EXPECT_EQ(*resolve_topology("+gpu:2", "/w"), std::string(kDefaultTopology) + "+gpu:2");
  EXPECT_FALSE(resolve_topology("missing.xml", "/w").ok());
  EXPECT_FALSE(resolve_topology("missing.xml+gpu:2", "/w").ok());
  EXPECT_FALSE(resolve_topology("package:2+gpu:x", "/w").ok());
  EXPECT_FALSE(resolve_topology("nonsense", "/w").ok());
  EXPECT_EQ(*resolve_topology("etc/passwd+gpu:1", "/"), "/etc/passwd+gpu:1");
  EXPECT_TRUE(names_memory("numa:2(memory=4G) core:2"));
  EXPECT_FALSE(names_memory("package:2 core:4 pu:1"));
}

TEST(ShellWord, IsQuotedWhereItMustBe) {
  EXPECT_EQ(shell_word("/tmp/muster-local-0/a_b.c/muster.toml"), "/tmp/muster-local-0/a_b.c/muster.toml");
  EXPECT_EQ(shell_word("/a dir/it's $HOME"), "'/a dir/it'\\''s $HOME'");
  EXPECT_EQ(shell_word(""), "''");
}

TEST(Tables, FitTheTerminal) {
  Table table({{"ID", true}, {"NAME", false, 4}});
  table.add({"1", "a name that is long"});
  table.add({"22", "x"});
  EXPECT_EQ(table.text(0), "ID  NAME\n 1  a name that is long\n22  x\n");
  EXPECT_EQ(table.text(12), "ID  NAME\n 1  a name +\n22  x\n");
  EXPECT_EQ(table.text(2), "ID  NAME\n 1  a n+\n22  x\n");
  EXPECT_EQ(table.text(0, false), " 1  a name that is long\n22  x\n");
}

TEST(Tables, ANarrowTerminalLeavesOutWhatCanBeSpared) {
  Table table({{"JOB", true}, {"QUEUE", false, 0, 1}, {"SINCE", false, 0, 2}, {"WHY", false, 3}});
  table.add({"1", "main", "2030-01-01", "a reason"});
  EXPECT_EQ(table.text(40), "JOB  QUEUE  SINCE       WHY\n  1  main   2030-01-01  a reason\n");
  EXPECT_EQ(table.text(27), "JOB  QUEUE  SINCE       WHY\n  1  main   2030-01-01  a +\n");
  EXPECT_EQ(table.text(26), "JOB  QUEUE  WHY\n  1  main   a reason\n");
  EXPECT_EQ(table.text(14), "JOB  WHY\n  1  a reason\n");
  EXPECT_EQ(table.text(2), "JOB  WHY\n  1  a +\n");  // nothing is left to be spared
}

TEST(Tables, ControlCharactersAreMadePrintable) {
  Table table({{"NAME"}});
  table.add({"a\x1b[31mb\n"});
  const std::string text = table.text(0, false);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(Folded, BreaksAtBlanksAndIndents) {
  EXPECT_EQ(folded("one two three", 0, 4), "one two three");
  EXPECT_EQ(folded("aaaaaaaaaa bbbbbbbbbb cccccccccc", 24, 4), "aaaaaaaaaa\n    bbbbbbbbbb\n    cccccccccc");
  EXPECT_EQ(folded(std::string(45, 'x'), 24, 4),
            std::string(20, 'x') + "\n    " + std::string(20, 'x') + "\n    xxxxx");
  // Characters, not bytes, and never inside of one.
  std::string accents;
  for (int i = 0; i < 21; ++i) accents += "\xc3\xa9";
  EXPECT_EQ(folded(accents, 24, 4), accents.substr(0, 40) + "\n    \xc3\xa9");
}

TEST(LocalDir, IsThatOfTheConfigurationUnlessItIsNoLocalCluster) {
  char name[] = "/tmp/muster-test.XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::string dir = name;
  const std::string config = dir + "/muster.toml";
  EXPECT_EQ(local_dir_of_config(config), dir) << "a cluster that was stopped";
  EXPECT_EQ(local_dir_of_config(dir + "/other.toml"), "");
  std::ofstream(config) << "[cluster]\n";
  EXPECT_EQ(local_dir_of_config(config), "") << "the configuration of a real cluster";
  std::ofstream(dir + "/cluster") << format_record(LocalRecord{});
  EXPECT_EQ(local_dir_of_config(config), dir);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace muster::cli
