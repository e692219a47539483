// Allocation: a job that has begun, held for a command on the user's machine: keeps the job's first node told that we are
// there, runs the command, and gives the job back at its end. One thread around poll(2).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/allocation_command.h"
#include "cli/run_access.h"
#include "cli/run_options.h"
#include "cli/run_stream.h"
#include "lib/base/time.h"
#include "lib/io/files.h"
#include "lib/model/outcome.h"

namespace muster::pb {
class ErrorInfo;
class NodeReply;
}  // namespace muster::pb

namespace muster::cli {

class Allocation {
 public:
  Allocation(const AllocOptions& options, Access access)
      : options_(options), access_(std::move(access)), stream_(access_.node, access_.key) {}

  // The exit status. The caller has blocked handled_signals(); `mask` is what was blocked before.
  int run(const sigset_t& mask);

 private:
  // Makes the connection again if it must, and asks for what is due.
  void reach_node(Duration now);
  void send_hold();
  void receive_all();
  void on_reply(const pb::NodeReply& reply);
  void on_refused(const pb::ErrorInfo& error);
  void on_signals();
  void on_child();
  void start_command(const pb::NodeReply& reply);
  Result<std::vector<std::string>> environment_of(const pb::NodeReply& reply);
  // The job is over: why, in words; empty: because we gave it back.
  void job_ended(const std::string& why);
  // Has the command end.
  void tell_command(const std::string& why);
  void ask_controller(Duration wait);
  void give_up_if_late(Duration now);
  void release(const Outcome& outcome);
  [[nodiscard]] bool done() const { return over_ && !command_.running(); }
  [[nodiscard]] std::string job_text() const { return "job " + std::to_string(access_.job); }

  const AllocOptions& options_;
  Access access_;
  NodeStream stream_;
  AllocationCommand command_;
  sigset_t mask_{};
  io::Fd signals_;
  io::Fd ticket_;  // a file without a name, which is gone with us
  bool started_ = false;
  bool ticket_is_old_ = false;  // and the controller gave no new one
  bool over_ = false;           // nothing of the job is left to be held
  std::optional<Outcome> release_;
  Duration release_since_;
  std::optional<Duration> lost_since_;  // the connection
  Duration asked_;                      // the controller
  std::optional<Duration> hold_at_;     // when to ask the node again
  std::optional<Duration> signal_at_;   // when a command that was told to end gets the next signal
  int next_signal_ = 0;
  bool told_ = false;         // the command was told to end
  bool ended_early_ = false;  // the job ended before the command
  int status_ = 0;
};

}  // namespace muster::cli
