// LogsService: sends the output files of jobs to clients that show a ticket.
//
// The file is opened with the rights of the ticket's user (file-system uid, gid and groups of the thread that opens
// it), must be a regular file, and is read in chunks under credit. With `follow` it is watched until the job's attempt
// has left this node and the file's end is reached. Loop thread only; files are opened and read by pool threads.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/io/loop.h"
#include "noded/attempts.h"
#include "noded/step_coordinator.h"
#include "noded/ticket.h"

namespace muster::pb {
class NodeRequest;
class NodeReply;
class LogsRequest;
}  // namespace muster::pb

namespace muster::noded {

class LogsService {
 public:
  // Each holds an open file and a chunk.
  static constexpr std::size_t kStreamsMax = 1'000;
  static constexpr std::size_t kChunkBytes = 64U << 10U;
  // Bytes that a client may be sent before its first LogsCredit.
  static constexpr std::uint64_t kInitialCreditBytes = 256U << 10U;
  // How often a followed file is looked at.
  static constexpr Duration kLook = Duration::from_ms(100);

  using ToClient = std::function<Status(const ClientAddress& to, const pb::NodeReply& reply)>;

  LogsService(io::Loop& loop, Attempts& attempts, ToClient to_client);
  ~LogsService();
  LogsService(const LogsService&) = delete;
  LogsService& operator=(const LogsService&) = delete;

  // The ticket was checked.
  void open(const ClientAddress& client, const Ticket& ticket, const pb::LogsRequest& request);
  // LogsCredit and StepKeepalive of a client; false when it reads no file here.
  bool on_client(const ClientAddress& client, const pb::NodeRequest& request);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace muster::noded
