// StepRun: one step of a job as its user sees it. The step itself runs under the nodes' daemons; this is one thread
// around poll(2) that brings output, takes input and signals there, survives a lost connection, and tells how tasks
// ended. run_step.cc speaks with the node, run_step_user.cc with the user.
#pragma once

#include <signal.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/report.h"
#include "cli/run_access.h"
#include "cli/run_options.h"
#include "cli/run_output.h"
#include "cli/run_stream.h"
#include "lib/io/files.h"
#include "lib/model/outcome.h"

namespace muster::pb {
class ErrorInfo;
class NodeReply;
class StepOutput;
class StepStarted;
}  // namespace muster::pb

namespace muster::cli {

// Two interrupts within this time end the step.
inline constexpr Duration kTwiceWithin = Duration::from_s(1);

// The signals that `muster run` takes itself, to pass them on; its threads block them.
sigset_t handled_signals();
// A line for the user that is no error.
void note(const std::string& text);
// "0-2,5"
std::string fold_numbers(const std::vector<std::uint32_t>& sorted);

// A step that is over, as --json tells it.
struct StepResult {
  struct TaskEnd {
    std::string node;
    std::uint32_t rank = 0;
    Outcome outcome;
  };
  std::uint64_t job = 0;
  std::optional<std::uint32_t> step;  // none: it never started
  int status = 0;                     // the exit status of `muster run`
  std::vector<std::string> nodes;
  std::vector<TaskEnd> tasks;  // those whose end is known, in the order of their ends
};
// The one object of `muster run --json`.
std::string step_json(const StepResult& result);

class StepRun {
 public:
  StepRun(const RunOptions& options, Access access)
      : options_(options), access_(std::move(access)), stream_(access_.node, access_.key) {}

  // The exit status.
  int run();

  // What became of it, after run().
  [[nodiscard]] StepResult result() const;

 private:
  using TaskEnd = StepResult::TaskEnd;

  Status start();
  Status open_input();
  bool reconnect();
  void send_resume();
  // Each returns false when the step is over for us; status_ is set then.
  bool receive_all();
  bool on_reply(const pb::NodeReply& reply);
  bool on_refused(const pb::ErrorInfo& error);
  bool on_started(const pb::StepStarted& started);
  void on_output(const pb::StepOutput& output);
  bool on_signals();
  [[nodiscard]] bool wants_input() const;
  void read_input();
  void send_signal(int number);
  void credit();
  void on_waits(const std::string& reason);
  void tell_waits();
  void report_ends();
  void report_write_failures();
  void drain();
  // False when the controller says that the job has ended; the user is told how. A controller that says that the job
  // goes on, or none: true.
  bool ask_whether_ended(Duration wait);
  [[nodiscard]] bool is_time_to_ask(Duration now) const;
  bool fail(const std::string& message, int status = kExitRefused);
  [[nodiscard]] std::string node_name() const;
  [[nodiscard]] Duration wait_time() const;

  const RunOptions& options_;
  Access access_;
  NodeStream stream_;
  std::unique_ptr<OutputRouter> output_;
  int signal_fd_ = -1;
  io::Fd signal_owner_;
  int input_fd_ = -1;
  io::Fd input_owner_;
  bool input_over_ = false;
  // The node gives the first credit when all tasks have started.
  std::uint64_t input_allowed_ = 0;
  std::uint64_t input_sent_ = 0;
  std::uint32_t input_mode_ = 0;
  bool started_ = false;
  std::string waits_;  // for which other steps, before it starts; empty: for none
  std::string waits_told_;
  Duration waits_since_;
  int interrupted_waiting_ = 0;  // by this signal
  bool run_sent_ = false;
  std::uint32_t step_ = 0;
  std::vector<std::string> nodes_;
  std::vector<std::uint32_t> tasks_;
  std::uint32_t rank_plane_ = 0;  // how their ranks are dealt out
  std::vector<std::uint64_t> received_[2];
  std::vector<bool> ended_;
  std::size_t ended_count_ = 0;
  std::vector<TaskEnd> ends_;      // not yet reported
  std::vector<TaskEnd> all_ends_;  // of every task, for result()
  Duration last_interrupt_ = Duration::from_us(-kTwiceWithin.us);
  int interrupts_ = 0;
  Duration lost_since_;
  Duration asked_;             // the controller, when a node did not answer
  bool said_waiting_ = false;  // that a node does not answer
  Duration resume_at_;         // when to ask again; 0: not
  bool reader_gone_ = false;
  bool output_lost_ = false;
  int redirects_ = 0;
  int status_ = 0;
};

}  // namespace muster::cli
