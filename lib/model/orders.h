// What the controller tells nodes and what nodes tell the controller, as values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/model/hardware.h"
#include "lib/model/health.h"
#include "lib/model/ids.h"
#include "lib/model/job_spec.h"
#include "lib/model/node_topology.h"
#include "lib/model/outcome.h"
#include "lib/model/proof.h"

namespace muster {

// One node of an allocation, as its peers need to know it.
struct Peer {
  std::string name;
  std::string endpoint;
  std::string public_key;
  std::uint32_t tasks = 1;
  std::uint32_t cpus = 0;
  std::uint32_t gpus = 0;
  friend bool operator==(const Peer&, const Peer&) = default;
};

// Start an attempt on one node; idempotent on (job, attempt). Sent to every node of the allocation: the first one
// runs the script (kBatch) or waits for its client's step (kRun) or client (kAlloc); the others hold the share ready for steps.
struct LaunchOrder {
  AttemptKey key;
  Term term;
  std::string node;             // whom it is for
  std::uint32_t node_rank = 0;  // its place in `peers`
  JobSpecPtr spec;
  NodeShare share;
  std::vector<Peer> peers;  // all nodes of the allocation, the first node first
  JobId array;              // 0: no array
  std::uint64_t array_index = 0;
  Instant submit_time;
  Duration time_limit = {};  // 0: as the spec says; else this counts
  Duration lease;            // 0: none; the node stops the attempt itself when it hears nothing for that long
};
bool operator==(const LaunchOrder& a, const LaunchOrder& b);
[[nodiscard]] Duration time_limit_of(const LaunchOrder& order);

// Stop an attempt on one node, or send it a signal; idempotent. For an attempt that the node never saw, it records
// "ended" so that a late launch of it does nothing.
struct StopOrder {
  AttemptKey key;
  Term term;
  StopCause cause = StopCause::kCancelled;
  std::int32_t signal = 0;  // 0: TERM, then KILL after kill_grace; else only that signal, and the attempt goes on
  // With signal 0: this signal first (0: none), and TERM so much later.
  std::int32_t notice_signal = 0;
  Duration notice = {};
  friend bool operator==(const StopOrder&, const StopOrder&) = default;
};

// The attempt may run so long from its start on that node on, whatever its launch said; idempotent. Nothing for an
// attempt that the node does not know: a launch carries the limit that counts.
struct LimitOrder {
  AttemptKey key;
  Term term;
  Duration time_limit;
  friend bool operator==(const LimitOrder&, const LimitOrder&) = default;
};

// The processes of an attempt stand still, or go on. Of several orders the one with the highest number counts, whatever
// comes twice, late or out of order.
struct SuspendOrder {
  AttemptKey key;
  Term term;
  bool suspend = false;
  std::uint64_t number = 0;
  // With suspend: other jobs get its cores as soon as the node says that it stands still. Until it goes on, none of its
  // processes may run, not even to end.
  bool gives_cores = false;
  friend bool operator==(const SuspendOrder&, const SuspendOrder&) = default;
};

// What a node says of an attempt. Repeated until the controller has committed and acknowledged it.
struct AttemptReport {
  AttemptKey key;
  bool ended = false;
  Outcome outcome;  // when ended
  // The number of the order with gives_cores that it obeys: nothing of it runs. 0: it does not stand still for others.
  std::uint64_t stands_still = 0;
  // What was read back of its tasks so far; nothing when the node has nothing to say of it (any more).
  std::optional<PlacementProof> proof = {};
  friend bool operator==(const AttemptReport&, const AttemptReport&) = default;
};

// A node announces itself: after its start, and whenever the connection or the controller is new.
struct NodeRegistration {
  std::string name;
  NodeHardware hardware;
  std::string boot_id;
  std::string endpoint;
  std::string public_key;
  std::vector<AttemptReport> attempts;  // everything the node knows and that is not yet acknowledged as ended
  // Rises with every registration of one boot, over all lives of the daemon. 0: from a release that does not say.
  std::uint64_t sequence = 0;
  std::vector<std::string> features = {};  // that the node's own configuration names
  // Of the same machine as `hardware`; only what class_of() keeps counts. Nothing from a release that does not say.
  std::optional<NodeTopology> topology = {};
  std::vector<EnforcedBy> enforcement = {};
  std::vector<HealthProblem> problems = {};  // that its checks found; a release that has none says none
  bool has_prolog = false;                   // as in Node
  friend bool operator==(const NodeRegistration&, const NodeRegistration&) = default;
};

}  // namespace muster
