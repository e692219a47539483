// Waiting for the job that `muster run` and `muster alloc` submitted, until it runs.
#pragma once

#include <cstdint>
#include <functional>

#include "cli/client.h"
#include "lib/base/result.h"
#include "lib/base/time.h"

namespace muster::pb {
class JobView;
}  // namespace muster::pb

namespace muster::cli {

struct StartWait {
  ConnectOptions connect;  // of the thread that cancels
  std::uint64_t job = 0;
  Duration notice;  // after so long the user is told, and the wait can be interrupted
  // The job still waits: called after `notice`, and then now and again.
  std::function<void(const pb::JobView&)> waiting;
  std::function<void()> granted = {};  // only after `waiting` was called
};

// Returns when the job runs; kRefused with its reason when it ended instead. One of handled_signals(), which the caller
// has blocked, cancels the job after `notice` and ends the program with 128 + its number.
Status wait_until_started(Client& client, const StartWait& wait);
// Asks the controller to end the job, by a connection of its own, as far as that is possible.
void cancel_job(const ConnectOptions& connect, std::uint64_t job);

}  // namespace muster::cli
