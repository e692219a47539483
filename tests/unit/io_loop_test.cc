#include "lib/io/loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/process.h"
#include "tests/support/slowness.h"

namespace muster::io {
namespace {

using testing::ElementsAre;

constexpr Duration kDeadline = Duration::from_s(30 * test::kSlowness);

TEST(Loop, TimersFireInOrderAndMayDestroyThemselves) {
  Loop loop;
  std::vector<int> order;
  std::optional<Timer> first;
  first.emplace(loop, [&] {
    order.push_back(1);
    first.reset();
  });
  Timer second(loop, [&] { order.push_back(2); });
  Timer stopped(loop, [&] { order.push_back(99); });
  second.start_once(Duration::from_ms(20));
  first->start_once(Duration::from_ms(1));
  stopped.start_once(Duration::from_ms(2));
  stopped.stop();
  EXPECT_TRUE(second.active());
  EXPECT_FALSE(stopped.active());
  ASSERT_TRUE(loop.run_until([&] { return order.size() == 2; }, kDeadline));
  EXPECT_THAT(order, ElementsAre(1, 2));
  EXPECT_FALSE(second.active());
}

TEST(Loop, TimersRepeatAndNeverFireEarly) {
  Loop loop;
  int count = 0;
  Timer timer(loop, [&] { ++count; });
  const Duration start = boottime_now();
  timer.start_repeating(Duration::from_ms(3));
  ASSERT_TRUE(loop.run_until([&] { return count >= 3; }, kDeadline));
  EXPECT_GE(boottime_now() - start, Duration::from_ms(8));
}

// A job was stopped nearly a millisecond before its deadline.
TEST(Loop, NoTimerFiresAPartOfAMillisecondEarly) {
  Loop loop;
  for (int i = 0; i < 200; ++i) {
    const Duration delay = Duration::from_us(500 + i * 7);  // begins at all parts of a millisecond
    bool fired = false;
    Timer timer(loop, [&fired] { fired = true; });
    const Duration start = boottime_now();
    timer.start_once(delay);
    ASSERT_TRUE(loop.run_until([&fired] { return fired; }, kDeadline));
    EXPECT_GE(boottime_now() - start, delay);
  }
}

TEST(Loop, RunUntilGivesUpAtItsTime) {
  Loop loop;
  EXPECT_FALSE(loop.run_until([] { return false; }, Duration::from_ms(5)));
}

TEST(Loop, DeferredWorkRunsInOrderAndLeavesOthersTheirTurn) {
  Loop loop;
  std::vector<int> order;
  bool timer_fired = false;
  int rounds = 0;
  Timer timer(loop, [&] { timer_fired = true; });
  timer.start_once(Duration::from_ms(5));
  loop.defer([&] { order.push_back(1); });
  loop.defer([&] {
    order.push_back(2);
    loop.defer([&] { order.push_back(4); });
  });
  loop.defer([&] { order.push_back(3); });
  // Work that defers itself for ever does not keep the timer from firing.
  std::function<void()> forever = [&] {
    ++rounds;
    if (!timer_fired) loop.defer(forever);
  };
  loop.defer(forever);
  ASSERT_TRUE(loop.run_until([&] { return timer_fired; }, kDeadline));
  EXPECT_THAT(order, ElementsAre(1, 2, 3, 4));
  EXPECT_GT(rounds, 1);
}

TEST(Loop, StopEndsRunAlsoFromOutside) {
  Loop loop;
  loop.stop();
  loop.run();  // returns at once
  std::thread other([&] { loop.stop(); });
  loop.run();
  other.join();
  loop.defer([&] { loop.stop(); });
  loop.run();
}

TEST(Loop, PostedWorkArrivesInOrderFromManyThreads) {
  Loop loop;
  constexpr int kThreads = 4;
  constexpr int kEach = 2000;
  std::vector<int> last(kThreads, -1);
  int total = 0;
  bool ordered = true;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        loop.post([&, t, i] {
          ordered = ordered && last[t] == i - 1;
          last[t] = i;
          ++total;
        });
      }
    });
  }
  EXPECT_TRUE(loop.run_until([&] { return total == kThreads * kEach; }, kDeadline));
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(ordered);
}

TEST(Loop, AsyncWakesTheLoop) {
  Loop loop;
  int woken = 0;
  Async async(loop, [&] { ++woken; });
  std::thread other([&] { async.notify(); });
  EXPECT_TRUE(loop.run_until([&] { return woken > 0; }, kDeadline));
  other.join();
}

TEST(Loop, WorkersReportBackOnTheLoopThread) {
  Loop loop;
  std::thread::id worker;
  std::thread::id done;
  loop.run_in_worker([&] { worker = std::this_thread::get_id(); }, [&] { done = std::this_thread::get_id(); });
  ASSERT_TRUE(loop.run_until([&] { return done != std::thread::id(); }, kDeadline));
  EXPECT_EQ(done, std::this_thread::get_id());
  EXPECT_NE(worker, done);
}

TEST(Loop, DestructionWaitsForWorkersAndDropsWhatWasToCome) {
  std::atomic<bool> worked{false};
  bool called = false;
  {
    Loop loop;
    loop.defer([&] { called = true; });
    loop.post([&] { called = true; });
    loop.run_in_worker([&] { worked = true; }, [&] { called = true; });
  }
  EXPECT_TRUE(worked);
  EXPECT_FALSE(called);
}

TEST(FdWatcher, SeesDataRoomAndHangup) {
  Loop loop;
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  Fd reading(fds[0]);
  Fd writing(fds[1]);
  std::string got;
  bool ended = false;
  bool writable = false;
  auto reader = FdWatcher::start(loop, reading.get(), FdWatcher::kReadable, [&](unsigned) {
    char piece[16];
    const ssize_t count = ::read(reading.get(), piece, sizeof piece);
    if (count > 0) got.append(piece, static_cast<std::size_t>(count));
    ended = ended || count == 0;
  });
  ASSERT_TRUE(reader.ok());
  auto writer = FdWatcher::start(loop, writing.get(), FdWatcher::kWritable, [&](unsigned) { writable = true; });
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(loop.run_until([&] { return writable; }, kDeadline));
  writer->set_events(0);
  writable = false;
  ASSERT_EQ(::write(writing.get(), "abc", 3), 3);
  ASSERT_TRUE(loop.run_until([&] { return got == "abc"; }, kDeadline));
  EXPECT_FALSE(writable);
  { const FdWatcher gone = std::move(writer).value(); }
  writing.reset();
  ASSERT_TRUE(loop.run_until([&] { return ended; }, kDeadline));
}

TEST(FdWatcher, RefusesRegularFiles) {
  Loop loop;
  const Fd file(::memfd_create("x", 0));
  EXPECT_FALSE(FdWatcher::start(loop, file.get(), FdWatcher::kReadable, [](unsigned) {}).ok());
  EXPECT_FALSE(FdWatcher::start(loop, 99'999, FdWatcher::kReadable, [](unsigned) {}).ok());
}

TEST(SignalWatcher, CallsBackInTheLoop) {
  Loop loop;
  int got = 0;
  SignalWatcher watcher(loop, SIGUSR1, [&](int number) { got = number; });
  ASSERT_EQ(::raise(SIGUSR1), 0);
  ASSERT_TRUE(loop.run_until([&] { return got != 0; }, kDeadline));
  EXPECT_EQ(got, SIGUSR1);
}

TEST(ChildWatcher, ReportsChildrenAndMayBeDestroyedInItsCallback) {
  Loop loop;
  const auto pid = spawn({.argv = {"/bin/sh", "-c", "exit 7"}, .env = {}, .work_dir = {}, .fds = {}});
  ASSERT_TRUE(pid.ok());
  std::optional<ChildWatcher> watcher;
  std::optional<ChildExit> exit;
  auto started = ChildWatcher::start(loop, *pid, [&](ChildExit e) {
    exit = e;
    watcher.reset();
  });
  ASSERT_TRUE(started.ok()) << started.error().message;
  watcher.emplace(std::move(started).value());
  ASSERT_TRUE(loop.run_until([&] { return exit.has_value(); }, kDeadline));
  EXPECT_TRUE(exit->status_known);
  EXPECT_EQ(WEXITSTATUS(exit->wait_status), 7);
}

TEST(ChildWatcher, WatchesAProcessThatIsNoChild) {
  Loop loop;
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  Fd reading(fds[0]);
  Fd writing(fds[1]);
  // The shell ends at once and leaves a grandchild, whose pid it prints.
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"};
  options.fds = {{writing.get(), 1}};
  const auto shell = spawn(options);
  ASSERT_TRUE(shell.ok());
  writing.reset();
  char text[32] = {};
  ASSERT_GT(::read(reading.get(), text, sizeof text - 1), 0);
  ASSERT_TRUE(wait_child(*shell, kDeadline)->has_value());
  const pid_t stranger = std::atoi(text);
  std::optional<ChildExit> exit;
  const auto watcher = ChildWatcher::start(loop, stranger, [&](ChildExit e) { exit = e; });
  ASSERT_TRUE(watcher.ok()) << watcher.error().message;
  ASSERT_EQ(::kill(stranger, SIGKILL), 0);
  ASSERT_TRUE(loop.run_until([&] { return exit.has_value(); }, kDeadline));
  EXPECT_FALSE(exit->status_known);
}

TEST(ChildWatcher, NoSuchProcess) {
  Loop loop;
  const auto pid = spawn({.argv = {"/bin/true"}, .env = {}, .work_dir = {}, .fds = {}});
  ASSERT_TRUE(pid.ok());
  ASSERT_TRUE(wait_child(*pid, kDeadline)->has_value());
  const auto watcher = ChildWatcher::start(loop, *pid, [](ChildExit) {});
  ASSERT_FALSE(watcher.ok());
  EXPECT_EQ(watcher.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace muster::io
