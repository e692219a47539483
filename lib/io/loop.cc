#include "lib/io/loop.h"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/io/clock.h"
#include "lib/io/files.h"

namespace muster::io {
namespace {
// Rounded up, so that a timer never fires early. Infinite is a delay that does not come to pass.
std::uint64_t to_ms(Duration d) {
  return d.us <= 0 ? 0 : (static_cast<std::uint64_t>(d.us) + 999) / 1000;
}

template <typename Handle>
uv_handle_t* as_handle(Handle* handle) {
  return reinterpret_cast<uv_handle_t*>(handle);
}
}  // namespace

struct Loop::Impl {
  uv_loop_t loop{};
  uv_check_t check{};
  uv_idle_t idle{};
  uv_async_t wake{};
  std::vector<std::function<void()>> deferred;
  std::atomic<bool> stopping{false};
  bool destroying = false;

  std::mutex mutex;
  std::vector<std::function<void()>> posted;
  bool wake_open = true;

  Impl() {
    MUSTER_CHECK(uv_loop_init(&loop) == 0);
    MUSTER_CHECK(uv_check_init(&loop, &check) == 0);
    MUSTER_CHECK(uv_idle_init(&loop, &idle) == 0);
    MUSTER_CHECK(uv_async_init(&loop, &wake, [](uv_async_t* handle) { self(handle)->take_posted(); }) == 0);
    check.data = idle.data = wake.data = this;
    MUSTER_CHECK(uv_check_start(&check, [](uv_check_t* handle) { self(handle)->run_deferred(); }) == 0);
  }

  ~Impl() {
    deferred.clear();
    {
      const std::lock_guard lock(mutex);
      posted.clear();
      wake_open = false;
    }
    destroying = true;
    uv_close(as_handle(&check), nullptr);
    uv_close(as_handle(&idle), nullptr);
    uv_close(as_handle(&wake), nullptr);
    // A handle that is not closing belongs to somebody who would use it after the loop is gone.
    uv_walk(
        &loop, [](uv_handle_t* handle, void*) { MUSTER_CHECK(uv_is_closing(handle) != 0); }, nullptr);
    uv_run(&loop, UV_RUN_DEFAULT);
    MUSTER_CHECK(uv_loop_close(&loop) == 0);
  }

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  template <typename Handle>
  static Impl* self(Handle* handle) {
    return static_cast<Impl*>(handle->data);
  }

  void defer(std::function<void()> fn) {
    deferred.push_back(std::move(fn));
    // An active idle handle keeps the loop from waiting; the check handle runs after the poll.
    uv_idle_start(&idle, [](uv_idle_t*) {});
  }

  void run_deferred() {
    if (deferred.empty()) return;
    std::vector<std::function<void()>> now = std::exchange(deferred, {});
    for (auto& fn : now) {
      fn();
      fn = nullptr;  // what it captured goes before the next one runs
    }
    if (deferred.empty()) uv_idle_stop(&idle);
  }

  void post(std::function<void()> fn) {
    const std::lock_guard lock(mutex);
    if (!wake_open) return;
    posted.push_back(std::move(fn));
    uv_async_send(&wake);
  }

  void take_posted() {
    std::vector<std::function<void()>> now;
    {
      const std::lock_guard lock(mutex);
      now.swap(posted);
    }
    for (auto& fn : now) defer(std::move(fn));
  }
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}
Loop::~Loop() = default;

void Loop::run() {
  while (!impl_->stopping.exchange(false)) uv_run(&impl_->loop, UV_RUN_ONCE);
}

void Loop::stop() {
  impl_->stopping = true;
  const std::lock_guard lock(impl_->mutex);
  if (impl_->wake_open) uv_async_send(&impl_->wake);
}

bool Loop::run_until(const std::function<bool()>& done, Duration timeout) {
  const Duration deadline = boottime_now() + timeout;
  Timer limit(*this, [] {});
  limit.start_once(timeout);
  while (!done()) {
    if (boottime_now() >= deadline || impl_->stopping.exchange(false)) return done();
    // The timer may have fired a moment before the deadline by this clock.
    if (!limit.active()) limit.start_once(Duration::from_ms(1));
    uv_run(&impl_->loop, UV_RUN_ONCE);
  }
  return true;
}

void Loop::defer(std::function<void()> fn) {
  impl_->defer(std::move(fn));
}
void Loop::post(std::function<void()> fn) {
  impl_->post(std::move(fn));
}

void Loop::run_in_worker(std::function<void()> work, std::function<void()> done) {
  struct Request {
    uv_work_t request{};
    Impl* loop = nullptr;
    std::function<void()> work;
    std::function<void()> done;
  };
  auto* request = new Request{.loop = impl_.get(), .work = std::move(work), .done = std::move(done)};
  request->request.data = request;
  const int rc = uv_queue_work(
      &impl_->loop, &request->request, [](uv_work_t* r) { static_cast<Request*>(r->data)->work(); },
      [](uv_work_t* r, int) {
        const std::unique_ptr<Request> finished(static_cast<Request*>(r->data));
        if (!finished->loop->destroying) finished->done();
      });
  MUSTER_CHECK(rc == 0);
}

namespace detail {

// Each handle outlives its owner until libuv has closed it, so that it may be destroyed within its own callback.
template <typename Impl>
void close_and_delete(Impl* impl) {
  uv_close(as_handle(&impl->handle), [](uv_handle_t* handle) { delete static_cast<Impl*>(handle->data); });
}

struct TimerImpl {
  uv_timer_t handle{};
  std::function<void()> callback;
};
struct FdImpl {
  uv_poll_t handle{};
  std::function<void(unsigned)> callback;
};
struct SignalImpl {
  uv_signal_t handle{};
  std::function<void(int)> callback;
};
struct AsyncImpl {
  uv_async_t handle{};
  std::function<void()> callback;
};

void close_handle(TimerImpl* handle) {
  close_and_delete(handle);
}
void close_handle(FdImpl* handle) {
  close_and_delete(handle);
}
void close_handle(SignalImpl* handle) {
  close_and_delete(handle);
}
void close_handle(AsyncImpl* handle) {
  close_and_delete(handle);
}

}  // namespace detail

Timer::Timer(Loop& loop, std::function<void()> callback) : impl_(new detail::TimerImpl) {
  MUSTER_CHECK(uv_timer_init(&loop.impl().loop, &impl_->handle) == 0);
  impl_->handle.data = impl_.get();
  impl_->callback = std::move(callback);
}

namespace {
void on_timer(uv_timer_t* handle) {
  static_cast<detail::TimerImpl*>(handle->data)->callback();
}

void start_timer(detail::TimerImpl& timer, Duration delay, std::uint64_t repeat_ms) {
  // libuv counts from the start of the loop's round, which may be long ago, and in whole milliseconds that have begun.
  uv_update_time(timer.handle.loop);
  const std::uint64_t begun_us = uv_hrtime() / 1000 - uv_now(timer.handle.loop) * 1000;
  const bool waits = delay.us > 0 && !delay.is_infinite();
  uv_timer_start(&timer.handle, on_timer,
                 to_ms(waits ? delay + Duration::from_us(static_cast<std::int64_t>(begun_us)) : delay), repeat_ms);
}
}  // namespace

void Timer::start_once(Duration delay) {
  start_timer(*impl_, delay, 0);
}
void Timer::start_repeating(Duration interval) {
  start_timer(*impl_, interval, std::max<std::uint64_t>(to_ms(interval), 1));
}
void Timer::stop() {
  uv_timer_stop(&impl_->handle);
}
bool Timer::active() const {
  return uv_is_active(as_handle(&impl_->handle)) != 0;
}

namespace {
void on_fd(uv_poll_t* handle, int status, int events) {
  auto* impl = static_cast<detail::FdImpl*>(handle->data);
  unsigned happened = 0;
  if (status < 0) happened |= FdWatcher::kError;
  if ((events & UV_READABLE) != 0) happened |= FdWatcher::kReadable;
  if ((events & UV_WRITABLE) != 0) happened |= FdWatcher::kWritable;
  if ((events & UV_DISCONNECT) != 0) happened |= FdWatcher::kHangup;
  impl->callback(happened);
}
}  // namespace

Result<FdWatcher> FdWatcher::start(Loop& loop, int fd, unsigned events, std::function<void(unsigned)> callback) {
  auto impl = std::make_unique<detail::FdImpl>();
  if (const int rc = uv_poll_init(&loop.impl().loop, &impl->handle, fd); rc != 0) {
    return errno_error("watch", "descriptor " + std::to_string(fd), -rc);
  }
  impl->handle.data = impl.get();
  impl->callback = std::move(callback);
  FdWatcher watcher(impl.release());
  watcher.set_events(events);
  return watcher;
}

void FdWatcher::set_events(unsigned events) {
  int wanted = 0;
  if ((events & kReadable) != 0) wanted |= UV_READABLE;
  if ((events & kWritable) != 0) wanted |= UV_WRITABLE;
  if ((events & kHangup) != 0) wanted |= UV_DISCONNECT;
  const int rc = wanted == 0 ? uv_poll_stop(&impl_->handle) : uv_poll_start(&impl_->handle, wanted, on_fd);
  MUSTER_CHECK(rc == 0);
}

SignalWatcher::SignalWatcher(Loop& loop, int signal_number, std::function<void(int)> callback)
    : impl_(new detail::SignalImpl) {
  MUSTER_CHECK(uv_signal_init(&loop.impl().loop, &impl_->handle) == 0);
  impl_->handle.data = impl_.get();
  impl_->callback = std::move(callback);
  const int rc = uv_signal_start(
      &impl_->handle,
      [](uv_signal_t* handle, int number) { static_cast<detail::SignalImpl*>(handle->data)->callback(number); },
      signal_number);
  MUSTER_CHECK(rc == 0);
}

Async::Async(Loop& loop, std::function<void()> callback) : impl_(new detail::AsyncImpl) {
  impl_->callback = std::move(callback);
  impl_->handle.data = impl_.get();
  const int rc = uv_async_init(&loop.impl().loop, &impl_->handle,
                               [](uv_async_t* handle) { static_cast<detail::AsyncImpl*>(handle->data)->callback(); });
  MUSTER_CHECK(rc == 0);
}
void Async::notify() {
  uv_async_send(&impl_->handle);
}

struct ChildWatcher::Impl {
  pid_t pid = -1;
  std::function<void(ChildExit)> callback;
  Fd process;
  std::optional<FdWatcher> watcher;  // declared after the descriptor, so that it goes before it

  void ended() {
    ChildExit exit;
    pid_t got = 0;
    do {
      got = ::waitpid(pid, &exit.wait_status, WNOHANG);
    } while (got < 0 && errno == EINTR);
    exit.status_known = got == pid;
    watcher.reset();
    process.reset();
    // The callback may destroy this object.
    const auto call = std::exchange(callback, nullptr);
    call(exit);
  }
};

Result<ChildWatcher> ChildWatcher::start(Loop& loop, pid_t pid, std::function<void(ChildExit)> callback) {
  auto impl = std::make_unique<Impl>();
  impl->pid = pid;
  impl->callback = std::move(callback);
  impl->process = Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!impl->process.valid()) return errno_error("watch", "process " + std::to_string(pid), errno);
  auto watcher =
      FdWatcher::start(loop, impl->process.get(), FdWatcher::kReadable, [raw = impl.get()](unsigned) { raw->ended(); });
  if (!watcher.ok()) return watcher.error();
  impl->watcher.emplace(std::move(watcher).value());
  return ChildWatcher(std::move(impl));
}

ChildWatcher::ChildWatcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChildWatcher::ChildWatcher(ChildWatcher&&) noexcept = default;
ChildWatcher& ChildWatcher::operator=(ChildWatcher&&) noexcept = default;
ChildWatcher::~ChildWatcher() = default;

}  // namespace muster::io
