// Loop: one thread's event loop (libuv behind it), and the handles that live on it.
//
// Everything here belongs to the thread that runs the loop, except Async::notify, Loop::post and Loop::stop, which any
// thread may call. Handles are RAII values: destroying one ends its callbacks, also from within its own callback. Every
// handle must be destroyed before its loop. Callbacks must not throw.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>

#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::io {

class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Runs callbacks until stop(). May be called again after it returned.
  void run();
  // Ends run() after the current callbacks; a stop() before run() makes that run() return at once.
  void stop();
  // Runs callbacks until done() is true (checked after each round) or the time is over; the last value of done().
  bool run_until(const std::function<bool()>& done, Duration timeout);

  // Runs fn on this loop once the events of the current round have been handled and before it waits again. What fn
  // itself defers runs in the next round, so that other handles get their turn between.
  void defer(std::function<void()> fn);
  // As defer, from any thread: wakes the loop. Calls run in the order of posting.
  void post(std::function<void()> fn);

  // Runs work on a pool thread, then done on this loop. Work must not touch what the loop owns. When the loop is
  // destroyed it waits for running work; done is then not called.
  void run_in_worker(std::function<void()> work, std::function<void()> done);

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

namespace detail {
struct HandleCloser {
  template <typename T>
  void operator()(T* handle) const {
    close_handle(handle);
  }
};
struct TimerImpl;
struct FdImpl;
struct SignalImpl;
struct AsyncImpl;
void close_handle(TimerImpl* handle);
void close_handle(FdImpl* handle);
void close_handle(SignalImpl* handle);
void close_handle(AsyncImpl* handle);
}  // namespace detail

// Calls back once or repeatedly. Resolution is a millisecond; times are rounded up.
class Timer {
 public:
  Timer(Loop& loop, std::function<void()> callback);
  // Starting a running timer starts it anew.
  void start_once(Duration delay);
  void start_repeating(Duration interval);
  void stop();
  [[nodiscard]] bool active() const;

 private:
  std::unique_ptr<detail::TimerImpl, detail::HandleCloser> impl_;
};

// Calls back while a file descriptor is readable or writable (level-triggered). Does not own the descriptor: destroy
// the watcher before the descriptor is closed. One watcher for each descriptor. Makes the descriptor non-blocking.
class FdWatcher {
 public:
  static constexpr unsigned kReadable = 1;
  static constexpr unsigned kWritable = 2;
  static constexpr unsigned kHangup = 4;  // the other end is gone; what it wrote may still be read
  static constexpr unsigned kError = 8;

  // `events` is a sum of kReadable, kWritable and, where wanted, kHangup. The callback gets what is true now; after
  // kError the watcher is stopped. Regular files are refused.
  static Result<FdWatcher> start(Loop& loop, int fd, unsigned events, std::function<void(unsigned)> callback);
  // 0 pauses.
  void set_events(unsigned events);

 private:
  explicit FdWatcher(detail::FdImpl* impl) : impl_(impl) {}
  std::unique_ptr<detail::FdImpl, detail::HandleCloser> impl_;
};

// Calls back when the process receives a signal; the signal's default action is off as long as a watcher exists.
class SignalWatcher {
 public:
  SignalWatcher(Loop& loop, int signal_number, std::function<void(int)> callback);

 private:
  std::unique_ptr<detail::SignalImpl, detail::HandleCloser> impl_;
};

// Wakes the loop from any thread. Several notify() before the loop wakes make one callback.
class Async {
 public:
  Async(Loop& loop, std::function<void()> callback);
  void notify();

 private:
  std::unique_ptr<detail::AsyncImpl, detail::HandleCloser> impl_;
};

struct ChildExit {
  // False when the process was no child of this one, so that its status is not to be had (a shepherd of an earlier
  // noded).
  bool status_known = false;
  // As waitpid gives it: use WIFEXITED and its like.
  int wait_status = 0;
};

// Calls back once when a process ends, child or not. A child is reaped. Without Linux 5.3's pidfd_open: kIo.
class ChildWatcher {
 public:
  // A process that does not exist (any more, and is no child of ours) is kNotFound.
  static Result<ChildWatcher> start(Loop& loop, pid_t pid, std::function<void(ChildExit)> callback);
  ChildWatcher(ChildWatcher&&) noexcept;
  ChildWatcher& operator=(ChildWatcher&&) noexcept;
  ~ChildWatcher();

 private:
  struct Impl;
  explicit ChildWatcher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace muster::io
