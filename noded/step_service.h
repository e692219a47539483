// StepService: everything that a node's ROUTER serves: steps of jobs, through AllocationHolder the clients of `muster alloc`
// and, through LogsService, files of output.
//
// A step has a coordinator, on the first node of its job, and a part on every node that runs tasks of it. The client
// (`muster run`) speaks with the coordinator alone; the coordinator speaks with the parts: with its own by calls, with
// others through a DEALER to their node's ROUTER. Requests of clients carry a ticket; requests of coordinators are
// accepted from the keys that the job's launch order names as peers.
//
// Output is under credit from end to end: a part sends at most its window, and what the client has taken comes back as
// credit. So a reader that stops makes no daemon grow; it stops the tasks instead. The shepherd keeps what was not
// credited, so that neither a lost connection nor a restart of a noded loses output: the client says what it has
// (ResumeStep), and everything behind that comes again. docs/spec/wire.md describes the messages.
//
// Loop thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/io/keys.h"
#include "lib/io/loop.h"
#include "lib/io/zmq_socket.h"
#include "noded/attempts.h"

namespace muster::noded {

struct StepServiceOptions {
  io::Loop* loop = nullptr;
  io::ZmqContext* context = nullptr;
  // Outlives the service. The service registers on_running and on_ended there.
  Attempts* attempts = nullptr;
  io::Key node_key;           // this node's own pair, for DEALERs to peers
  io::PublicKey cluster_key;  // signs tickets
  // Sends on the node's ROUTER (ZmqSocket::send_to).
  std::function<Status(const std::string& peer, const std::vector<std::string>& frames)> send;
  // Times that tests shorten.
  Duration client_lost_after = Duration::from_s(30);  // no keepalive from a step's client
  Duration client_awaited = Duration::from_s(60);     // a kRun or kAlloc job's first client; any client after a restart
  Duration peer_start_patience = Duration::from_s(30);  // for nodes that have not heard of the job yet
  Duration part_keepalive = Duration::from_s(5);        // how soon a restarted peer is noticed
};

class StepService {
 public:
  explicit StepService(StepServiceOptions options);
  ~StepService();
  StepService(const StepService&) = delete;
  StepService& operator=(const StepService&) = delete;

  // Every message of the node's ROUTER comes here. Those that are not well-formed are dropped and logged.
  void on_message(const io::ZmqMessage& message);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace muster::noded
