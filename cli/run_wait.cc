#include "cli/run_wait.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "cli/run_step.h"
#include "lib/model/outcome.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr Duration kWaitSlice = Duration::from_s(30);

// Cancels a job that waits when the user interrupts us, in a thread because the wait blocks.
class CancelOnSignal {
 public:
  CancelOnSignal(const ConnectOptions& connect, std::uint64_t job)
      : thread_([this, connect, job] { watch(connect, job); }) {}
  ~CancelOnSignal() {
    stop_ = true;
    thread_.join();
  }
  CancelOnSignal(const CancelOnSignal&) = delete;
  CancelOnSignal& operator=(const CancelOnSignal&) = delete;

 private:
  void watch(const ConnectOptions& connect, std::uint64_t job) {
    const sigset_t signals = handled_signals();
    const timespec slice{0, 50'000'000};
    while (!stop_) {
      const int number = ::sigtimedwait(&signals, nullptr, &slice);
      if (number > 0) {
        cancel_job(connect, job);
        note("job " + std::to_string(job) + " was cancelled by " + std::string(::strsignal(number)));
        ::_exit(128 + number);
      }
    }
  }

  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace

void cancel_job(const ConnectOptions& connect, std::uint64_t job) {
  auto client = Client::open(connect);
  pb::Request request;
  JobSelector selector;
  selector.items.emplace_back().id = JobId(job);
  wire::to_pb(selector, *request.mutable_cancel()->mutable_jobs());
  if (client) {
    (void)(*client)->call(request);
  }
}

Status wait_until_started(Client& client, const StartWait& start) {
  const std::uint64_t job = start.job;
  std::unique_ptr<CancelOnSignal> cancel;
  while (true) {
    pb::Request request;
    auto& wait = *request.mutable_wait();
    wait.set_job(job);
    const Duration slice = cancel ? kWaitSlice : start.notice;
    wait.set_timeout_us(slice.us);
    MUSTER_ASSIGN(const pb::Reply reply, client.call(request, slice + client.timeout()));
    if (reply.jobs().jobs_size() == 0) {
      return make_error(ErrorCode::kNotFound, "job " + std::to_string(job) + " is gone: see `muster history`");
    }
    const pb::JobView& view = reply.jobs().jobs(0);
    const auto state = static_cast<JobState>(view.state());
    if (is_terminal(state)) {
      const std::string why = view.reason_detail().empty() ? view.reason() : view.reason_detail();
      return make_error(ErrorCode::kRefused, "job " + std::to_string(job) + " ended before it began: " +
                                                 std::string(to_string(state)) + (why.empty() ? "" : ", " + why));
    }
    if (state == JobState::kRunning || state == JobState::kSuspended) {
      if (cancel && start.granted) {
        start.granted();
      }
      return ok_status();
    }
    if (!cancel) {
      cancel = std::make_unique<CancelOnSignal>(start.connect, job);
    }
    start.waiting(view);
  }
}

}  // namespace muster::cli
