#include "lib/io/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "lib/io/clock.h"
#include "lib/io/hash.h"
#include "lib/io/process.h"
#include "tests/support/slowness.h"
#include "tests/support/temp_dir.h"

namespace muster::io {
namespace {

using testing::HasSubstr;

TEST(Clock, Advances) {
  EXPECT_GT(wall_now(), Instant::from_s(1'600'000'000));
  const Duration before = boottime_now();
  EXPECT_LE(before, boottime_now());
  const auto id = boot_id();
  ASSERT_TRUE(id.ok());
  EXPECT_EQ(id->size(), 36U);
  EXPECT_EQ(*id, *boot_id());
}

TEST(Files, WritesReadsAndReplaces) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/a";
  ASSERT_TRUE(write_file_atomic(path, "one", 0640).ok());
  EXPECT_EQ(*read_file(path, 100), "one");
  ASSERT_TRUE(write_file_atomic(path, std::string(200'000, 'x'), 0600).ok());
  EXPECT_EQ(read_file(path, 200'000)->size(), 200'000U);
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  const auto too_large = read_file(path, 199'999);
  ASSERT_FALSE(too_large.ok());
  EXPECT_EQ(too_large.error().code, ErrorCode::kLimitReached);
  EXPECT_EQ(dir.entries().size(), 1U);  // no temporary file is left
}

TEST(Files, ReadsFilesOfProcThatSayTheyAreEmpty) {
  EXPECT_FALSE(read_file("/proc/self/stat", 10'000)->empty());
}

TEST(Files, ErrorsNameOperationPathAndReason) {
  const auto missing = read_file("/nonexistent/x", 10);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(missing.error().message, "cannot read /nonexistent/x: No such file or directory");
  const test::TempDir dir;
  EXPECT_FALSE(read_file(dir.path(), 10).ok());
  EXPECT_FALSE(write_file_atomic(dir.path() + "/no/such", "x", 0600).ok());
  EXPECT_FALSE(write_file_atomic(dir.path(), "x", 0600).ok());
}

TEST(Files, MakesAndRemovesTrees) {
  const test::TempDir dir;
  const std::string deep = dir.path() + "/a/b/c";
  ASSERT_TRUE(make_dirs(deep, 0700).ok());
  ASSERT_TRUE(make_dirs(deep, 0700).ok());
  ASSERT_TRUE(write_file_atomic(deep + "/f", "x", 0600).ok());
  const std::string outside = dir.path() + "/outside";
  ASSERT_TRUE(write_file_atomic(outside, "x", 0600).ok());
  ASSERT_EQ(::symlink(outside.c_str(), (deep + "/link").c_str()), 0);
  const auto through_file = make_dirs(outside + "/x", 0700);
  EXPECT_FALSE(through_file.ok());
  ASSERT_TRUE(remove_tree(dir.path() + "/a").ok());
  EXPECT_FALSE(path_exists(dir.path() + "/a"));
  EXPECT_TRUE(path_exists(outside));
  EXPECT_TRUE(remove_tree(dir.path() + "/a").ok());
}

TEST(Files, PathsAreMadeAbsolute) {
  EXPECT_EQ(absolute_path("/base", "x"), "/base/x");
  EXPECT_EQ(absolute_path("/base/", "x"), "/base/x");
  EXPECT_EQ(absolute_path("/base", "/x"), "/x");
  EXPECT_EQ(absolute_path("/base", ""), "");
}

TEST(PidLock, IsHeldByOneProcessAtATime) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/pid";
  EXPECT_EQ(pid_lock_holder(path), 0);
  {
    const auto lock = PidLock::take(path);
    ASSERT_TRUE(lock.ok());
    EXPECT_EQ(pid_lock_holder(path), ::getpid());
    const auto second = PidLock::take(path);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, ErrorCode::kAlreadyExists);
    EXPECT_THAT(second.error().message, HasSubstr("held by process " + std::to_string(::getpid())));
  }
  EXPECT_EQ(pid_lock_holder(path), 0);
  EXPECT_TRUE(PidLock::take(path).ok());
}

// Whoever opened the file before its holder removed it locked a file that had no name any more, beside the next holder.
TEST(PidLock, IsHeldByOneAlsoWhenItsHolderRemovesTheFile) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/lock";
  std::atomic<int> held_twice = 0;
  std::atomic<int> removed = 0;
  const auto take_and_remove = [&] {
    while (removed < 3'000 && held_twice == 0) {
      const auto lock = PidLock::take(path);
      if (!lock.ok()) continue;
      if (PidLock::take(path).ok()) ++held_twice;
      ::unlink(path.c_str());
      ++removed;
    }
  };
  std::thread first(take_and_remove);
  std::thread second(take_and_remove);
  first.join();
  second.join();
  EXPECT_EQ(held_twice, 0) << "after " << removed << " locks";
}

TEST(Hash, KnowsBlake2b) {
  // The test vector of BLAKE2b-256 for "abc" is that of other implementations of RFC 7693 with a digest of 32 bytes.
  EXPECT_EQ(to_hex(blake2b_256("abc")), "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
  Hasher pieces;
  pieces.update("a");
  pieces.update("");
  pieces.update("bc");
  EXPECT_EQ(pieces.finish(), blake2b_256("abc"));
}

TEST(Hash, TextFormsReadBack) {
  const std::string bytes = random_bytes(33);
  EXPECT_EQ(*from_hex(to_hex(bytes)), bytes);
  EXPECT_EQ(*from_base64(to_base64(bytes)), bytes);
  EXPECT_EQ(*from_base64(""), "");
  EXPECT_FALSE(from_hex("abc").ok());
  EXPECT_FALSE(from_hex("zz").ok());
  EXPECT_FALSE(from_base64("abc!").ok());
  EXPECT_FALSE(from_base64("YQ==x").ok());
  EXPECT_NE(random_u64(), random_u64());
}

TEST(Process, GivesTheChildExactlyWhatItIsTold) {
  const test::TempDir dir;
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
  Fd reading(pipe_fds[0]);
  Fd writing(pipe_fds[1]);
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", "pwd; echo \"$A\"; echo \"${HOME-none}\"; ls /proc/self/fd | wc -l; cat <&7"};
  options.env = {{"A=a b"}};
  options.work_dir = dir.path();
  const std::string input = dir.path() + "/input";
  ASSERT_TRUE(write_file_atomic(input, "hello\n", 0600).ok());
  const Fd source(::open(input.c_str(), O_RDONLY | O_CLOEXEC));
  // 7 may be the number of a descriptor that is a source itself.
  options.fds = {{writing.get(), 1}, {source.get(), 7}, {writing.get(), 2}};
  const auto pid = spawn(options);
  ASSERT_TRUE(pid.ok()) << pid.error().message;
  writing.reset();
  std::string output;
  char piece[512];
  for (ssize_t got; (got = ::read(reading.get(), piece, sizeof piece)) > 0;)
    output.append(piece, static_cast<std::size_t>(got));
  const auto status = wait_child(*pid, Duration::from_s(30 * test::kSlowness));
  ASSERT_TRUE(status.ok() && status->has_value());
  EXPECT_EQ(describe_wait_status(**status), "exit code 0");
  // ls sees 0, 1, 2, 7 and the folder that it lists.
  EXPECT_EQ(output, dir.path() + "\na b\nnone\n5\nhello\n");
}

TEST(Process, SaysWhyAProgramDoesNotStart) {
  const auto missing = spawn({.argv = {"/no/such/program"}, .env = {}, .work_dir = {}, .fds = {}});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().message, "cannot start /no/such/program: No such file or directory");
  const auto folder = spawn({.argv = {"/bin/true"}, .env = {}, .work_dir = "/no/such/dir", .fds = {}});
  ASSERT_FALSE(folder.ok());
  EXPECT_EQ(folder.error().message, "cannot enter folder /no/such/dir: No such file or directory");
}

TEST(Process, WaitsAndDescribes) {
  const auto pid = spawn({.argv = {"/bin/sleep", "1000"}, .env = {}, .work_dir = {}, .fds = {}, .new_session = true});
  ASSERT_TRUE(pid.ok());
  EXPECT_TRUE(process_alive(*pid));
  const auto early = wait_child(*pid, Duration::from_ms(1));
  ASSERT_TRUE(early.ok());
  EXPECT_FALSE(early->has_value());
  ASSERT_EQ(::kill(*pid, SIGKILL), 0);
  const auto status = wait_child(*pid, Duration::from_s(30 * test::kSlowness));
  ASSERT_TRUE(status.ok() && status->has_value());
  EXPECT_EQ(describe_wait_status(**status), "signal 9 (Killed)");
  EXPECT_FALSE(process_alive(*pid));
  EXPECT_FALSE(wait_child(*pid, Duration::from_s(1)).ok());
}

TEST(Process, FindsProgramsBesideItself) {
  EXPECT_FALSE(program_dir().empty());
  const auto missing = find_program("no-such-program");
  ASSERT_FALSE(missing.ok());
  EXPECT_THAT(missing.error().message, HasSubstr(program_dir()));
}

}  // namespace
}  // namespace muster::io
