// StepParts: the halves of steps that run tasks on this node, for coordinators here and on other nodes.
//
// A part translates between the coordinator's messages and the frames of the attempt's shepherd. It keeps no output:
// what the coordinator cannot be told is dropped here and comes again from the shepherd when the coordinator resumes.
// Loop thread only.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/topo/bind_step.h"
#include "lib/model/ids.h"
#include "noded/attempts.h"

namespace muster::pb {
class NodeRequest;
class NodeReply;
class PeerStart;
class StepKey;
}  // namespace muster::pb

namespace muster::noded {

struct StepId {
  AttemptKey key;
  std::uint32_t step = 0;
  friend auto operator<=>(const StepId&, const StepId&) = default;
};
StepId step_id_of(const pb::StepKey& key);
void fill_step_key(const StepId& id, pb::StepKey& out);
// "42.0"
std::string to_string(const StepId& id);

// The coordinator of a part: a connection of this node's ROUTER, or this very node (both empty).
struct CoordinatorAddress {
  std::string peer;  // routing id
  std::string key;   // Z85 key that ZAP authenticated
  [[nodiscard]] bool is_here() const { return key.empty(); }
};

class StepParts {
 public:
  using Reply = std::function<void(const CoordinatorAddress& to, const pb::NodeReply& reply)>;

  // `attempts` outlives this object.
  StepParts(Attempts& attempts, Reply reply);
  ~StepParts();

  // PeerStart, PeerInput, PeerSignal, PeerCredit, PeerResume, PeerKeepalive, PeerForget; others are ignored. Only the
  // first node of the step's job is obeyed.
  void handle(const CoordinatorAddress& from, const pb::NodeRequest& request);
  // The attempt is ready: parts that waited for it start.
  void attempt_running(AttemptKey key);
  void attempt_ended(AttemptKey key);

 private:
  struct Part {
    CoordinatorAddress coordinator;
    std::unique_ptr<pb::PeerStart> waiting;  // until the attempt runs
    std::size_t proven = 0;                  // of its tasks, those that were read back
    // What was decided for its tasks; empty after a restart of the daemon.
    std::vector<topo::BoundTask> bound;
    std::vector<std::uint32_t> ranks;  // of its tasks, ascending
    bool tells_bound = false;          // the client wants to know also where all is as decided
  };

  void start(const StepId& id, const CoordinatorAddress& from, const pb::PeerStart& request);
  void launch(const StepId& id, const pb::PeerStart& request);
  void resume(const StepId& id, const CoordinatorAddress& from, std::vector<StepReceived> received);
  void follow(const StepId& id);
  void on_frame(const StepId& id, const Frame& frame);
  void on_bound(const StepId& id, const Part& part, const StepTaskBoundFrame& frame);
  void refuse(const CoordinatorAddress& to, const StepId& id, const Error& error);
  Result<AttemptInfo> authorise(const StepId& id, const CoordinatorAddress& from);
  Part* find(const StepId& id);
  // The tasks of the step on this node; none where it is not known how the node hangs together.
  Result<std::vector<topo::BoundTask>> bind(const LaunchOrder& order, const pb::PeerStart& request,
                                            std::uint32_t tasks);

  Attempts& attempts_;
  Reply reply_;
  std::map<StepId, Part> parts_;
};

// Ends the loops of both halves: 128 + signal for what a signal ended, else the exit code.
std::int32_t exit_status(const Outcome& outcome);

}  // namespace muster::noded
