// AllocationHolder: jobs of `muster alloc` on their first node. Nothing runs in such a job but steps; it lives as long as
// its client holds it by a stream of keepalives, and ends with the outcome that the client gives it.
//
// A client that is not heard of for client_lost_after is lost, and its job is ended. After a restart of this daemon, and
// when the job begins, the client has client_awaited to come (back). Jobs of kind kAllocDetached are held by nobody.
// Loop thread only.
#pragma once

#include <functional>
#include <map>
#include <optional>

#include "noded/attempts.h"
#include "noded/step_coordinator.h"
#include "noded/ticket.h"

namespace muster::noded {

struct AllocationHolderOptions {
  Attempts* attempts = nullptr;  // outlives the holder
  std::function<Status(const ClientAddress& to, const pb::NodeReply& reply)> to_client;
  std::function<Duration()> now;  // monotonic
  Duration client_lost_after;
  Duration client_awaited;
};

class AllocationHolder {
 public:
  explicit AllocationHolder(AllocationHolderOptions options) : options_(std::move(options)) {}

  // The ticket was checked and belongs to the attempt, whose first node this is.
  void hold(const ClientAddress& client, const Ticket& ticket, const AttemptInfo& info);
  // StepKeepalive and ReleaseAllocation of a client; false: it holds nothing here.
  bool on_client(const ClientAddress& client, const pb::NodeRequest& request);

  void attempt_running(const AttemptInfo& info);
  void attempt_ended(AttemptKey key, const Outcome& outcome);

  // Ends what nobody holds any more, and says when to call again (at the latest).
  std::optional<Duration> tick();

 private:
  struct Hold {
    ClientAddress client;
    Duration heard;
    bool over = false;  // its end was ordered
  };

  void refuse(const ClientAddress& client, ErrorCode code, const std::string& message);
  void end(AttemptKey key, const Outcome& outcome);

  AllocationHolderOptions options_;
  std::map<AttemptKey, Hold> holds_;
  std::map<AttemptKey, Duration> awaited_;  // until when
};

}  // namespace muster::noded
