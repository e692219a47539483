// Attempts: what the code for steps, peers and logs sees of the attempts on this node. The daemon implements it
// (noded/attempt_table.h); tests of step code may implement it with a fake. Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/model/node_topology.h"
#include "lib/model/orders.h"
#include "lib/model/proof.h"
#include "noded/shepherd_protocol.h"

namespace muster::topo {
class NodeClass;
}

namespace muster::noded {

// What this node is called and how programs inside its jobs reach it; constant while the daemon runs.
struct NodeIdentity {
  std::string name;
  std::string cluster;
  std::string endpoint;    // "tcp://host:port" of this node's ROUTER, as peers and jobs reach it
  std::string public_key;  // Z85
  std::string slurm_dir;   // folder of the Slurm-named links, first in a job's PATH; empty: not wanted
  std::string bin_dir;     // folder of `muster`
  NodeHardware hardware;
  std::shared_ptr<const NodeTopology> topology;                 // of the same machine; null: not known
  std::shared_ptr<const topo::NodeClass> node_class = nullptr;  // made from it
  std::vector<std::string> features;                            // as its configuration names them
  std::vector<EnforcedBy> enforcement = {};
  bool has_prolog = false;
};

// What the machine's user database says of a job's user.
struct UserInfo {
  std::string name;
  std::string home;
  std::string shell;
};

struct AttemptInfo {
  std::shared_ptr<const LaunchOrder> order;
  std::string directory;    // spool_dir/attempts/<job>.<attempt>, no '/' at the end
  std::string ticket;       // the job's own ticket: bytes of pb::Ticket; empty when the launch had none
  std::string ticket_path;  // the file that MUSTER_TICKET_FILE names
  UserInfo user;
  std::uint32_t protocol = kProtocolVersion;  // of its shepherd, which may be of an earlier version
  bool running = false;   // its shepherd has begun and is connected; false: starting, or about to be
  bool stopping = false;  // its end was ordered: no new steps
  // Environment of the job as submitted, NAME=value (the blob of the submission); used for steps without their own.
  std::shared_ptr<const std::vector<std::string>> environment;
};

class Attempts {
 public:
  virtual ~Attempts() = default;

  // kNotFound when the attempt is not on this node or has ended.
  [[nodiscard]] virtual Result<AttemptInfo> find(AttemptKey key) const = 0;
  // The newest attempt of the job that has not ended.
  [[nodiscard]] virtual Result<AttemptInfo> find_job(JobId job) const = 0;

  // Sends a step's frame to the attempt's shepherd: StepStartFrame, StepInputFrame, StepSignalFrame, StepCreditFrame.
  // kNotFound: no such attempt; kUnavailable: its shepherd is not connected (yet, or any more).
  virtual Status send(AttemptKey key, const Frame& frame) = 0;

  // From now on StepOutputFrame, StepInputTakenFrame, StepTaskBoundFrame, StepTaskEndedFrame and StepEndedFrame of that step come to the
  // callback; without a subscription they are dropped. Ended by unsubscribe, by StepEndedFrame (after the callback) and
  // by the end of the attempt. The callback may call anything here.
  using OnStepFrame = std::function<void(const Frame& frame)>;
  virtual void subscribe(AttemptKey key, std::uint32_t step, OnStepFrame callback) = 0;
  virtual void unsubscribe(AttemptKey key, std::uint32_t step) = 0;

  // The work of a kRun job is over: the rest is ended and this outcome reported. kExited with the worst exit code of
  // the step, or kCancelled when its client went away.
  virtual Status finish(AttemptKey key, const Outcome& outcome) = 0;

  // Called when an attempt runs (ready for steps); also for those that a restarted noded took up again.
  // `steps` are those with processes left (only after such a restart).
  using OnRunning = std::function<void(AttemptKey key, const std::vector<std::uint32_t>& steps)>;
  virtual void on_running(OnRunning callback) = 0;
  // Called when nothing of an attempt is left on this node.
  using OnEnded = std::function<void(AttemptKey key, const Outcome& outcome)>;
  virtual void on_ended(OnEnded callback) = 0;

  // A task of a step was read back (task_proof.h): it is kept with the job. `more`: others of its step on this node have yet
  // to be.
  virtual void prove(AttemptKey key, const Verdict& verdict, bool more) = 0;

  [[nodiscard]] virtual const NodeIdentity& identity() const = 0;
};

}  // namespace muster::noded
