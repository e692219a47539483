// StepCoordinator: the half of steps that speaks with clients, on the first node of each job. It lays a step out, has
// its parts started, forwards output, input and signals, and tells how it ended. For a job of kind kRun its first step
// is the job: the coordinator finishes the job with the step's outcome.
//
// It holds no output beyond what has been given to the client's connection and not been credited, at most the windows
// of the parts. Loop thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "noded/attempts.h"
#include "noded/step_layout.h"
#include "noded/step_part.h"
#include "noded/step_queue.h"
#include "noded/step_records.h"
#include "noded/ticket.h"

namespace muster::pb {
class NodeRequest;
class NodeReply;
class RunStep;
class ResumeStep;
}  // namespace muster::pb

namespace muster::noded {

// A stream of a client: what its messages carry, and the connection that they come by.
struct ClientAddress {
  std::string peer;    // routing id
  std::string key;     // Z85 key that ZAP authenticated
  std::string stream;  // chosen by the client
};

struct CoordinatorOptions {
  Attempts* attempts = nullptr;
  std::function<Status(const ClientAddress& to, const pb::NodeReply& reply)> to_client;
  // To the part on a node of the job; `here`: this node.
  std::function<void(const Peer& node, bool here, const pb::NodeRequest& request)> to_part;
  // Monotonic time.
  std::function<Duration()> now;
  Duration client_lost_after;
  Duration client_awaited;
  Duration peer_start_patience;
  // Parts that do not answer are not given up (the controller decides about nodes); this is how often they are asked.
  Duration part_keepalive;
};

class StepCoordinator {
 public:
  // Steps of one job that run at the same time; more wait.
  static constexpr std::size_t kStepsPerJobMax = 1024;
  static constexpr std::size_t kStepsWaitingMax = 2048;
  // Each of those that wait holds its request, some kilobytes with a usual environment; together, of all jobs, so much.
  static constexpr std::size_t kWaitingBytesMax = 32U << 20U;
  static_assert(kStepsPerJobMax <= StepRecords::kEndedMax);
  // A cancelled step whose parts do not tell its end is over for the client after this time.
  static constexpr Duration kCancelPatience = Duration::from_s(60);

  explicit StepCoordinator(CoordinatorOptions options);
  ~StepCoordinator();

  // The ticket was checked and belongs to the attempt.
  void run(const ClientAddress& client, const Ticket& ticket, const AttemptInfo& info, const pb::RunStep& request);
  void resume(const ClientAddress& client, const Ticket& ticket, const AttemptInfo& info,
              const pb::ResumeStep& request);
  // StepInput, StepSignal, StepCredit, StepKeepalive.
  void on_client(const ClientAddress& client, const pb::NodeRequest& request);
  // From the part on the node of this name.
  void on_part(const std::string& node, const pb::NodeReply& reply);

  void attempt_running(const AttemptInfo& info, const std::vector<std::uint32_t>& steps);
  void attempt_ended(AttemptKey key, const Outcome& outcome);

  // Does what is due, and says when to call again (at the latest); nothing: not before something else happens.
  std::optional<Duration> tick();

 private:
  enum class PartState : std::uint8_t { kStarting, kRunning, kRefused };
  struct PartRecord {
    std::size_t job_node = 0;
    std::uint32_t tasks = 0;
    std::vector<std::uint32_t> ranks;
    IndexSet cores = {};  // of a step with cores of its own: places among the job's there
    IndexSet gpus = {};
    PartState state = PartState::kStarting;
    bool ask_again = false;  // the start or resume was refused for now
    bool resuming = false;   // what is asked is a resume
    bool say_again = false;  // may have run before its start was asked for: a resume follows
    std::uint64_t credit_due = 0;
    std::uint64_t window = 0;  // credit is returned in pieces of a part of this
  };
  struct RankRecord {
    std::uint64_t forwarded[2] = {0, 0};  // bytes of stream 1 and 2 given to the client
    std::uint64_t input_taken = 0;
    bool input_closed = false;
    bool ended = false;
    std::uint32_t part = 0;
  };
  struct Unread {
    std::size_t part = 0;
    std::uint64_t bytes = 0;  // of data, as the client counts
    std::uint64_t cost = 0;   // as the part counts
  };
  struct Step;
  // A step that waits for others (step_shares.h). It gets its number when it starts.
  struct Waiting {
    ClientAddress client;
    std::unique_ptr<pb::RunStep> request;
    std::size_t bytes = 0;  // of the request
    Duration heard;         // of its client
    bool away = false;      // its client's connection is gone; it may come back
    std::string reason;     // as its client was told
    IndexSet nodes;         // of the job, on which it may run
    StepSharing sharing = StepSharing::kWhole;
  };
  struct Awaited {  // attempts and steps whose client has not come (back)
    Duration until;
    bool finish_job = false;
    std::vector<std::uint32_t> steps;
  };

  Step* find(const StepId& id);
  Step* find(const ClientAddress& client);
  std::size_t steps_of(AttemptKey key) const;
  void refuse(const ClientAddress& client, const Error& error);
  void send_started(Step& step);
  void ask_part(Step& step, std::size_t part);
  void all_parts(Step& step, const pb::NodeRequest& request);
  void on_part_started(Step& step, std::size_t part);
  void on_part_refused(Step& step, std::size_t part, const Error& error);
  void on_output(Step& step, std::size_t part, const pb::NodeReply& reply);
  void on_task_ended(Step& step, const pb::NodeReply& reply);
  void on_part_ended(Step& step, std::size_t part);
  void on_input_taken(Step& step, const pb::NodeReply& reply);
  void on_credit(Step& step, std::uint64_t bytes);
  void give_credit(Step& step, std::size_t part, std::uint64_t cost, bool now);
  void cancel(Step& step, const std::string& why);
  void complete(Step& step);
  void drop(const StepId& id);
  void start_again(const ClientAddress& client, const AttemptInfo& info, const pb::RunStep& request,
                   const StepRecord& record);
  void begin(std::unique_ptr<Step> owned, const ClientAddress& client, const AttemptInfo& info,
             const pb::RunStep& request);
  void client_came(const StepId& id, bool is_job);
  Waiting* find_waiting(const ClientAddress& client);
  void enter(const ClientAddress& client, const AttemptInfo& info, const pb::RunStep& request);
  // False: the step still waits; else it was started or refused.
  // `has_waited`: its client may be gone meanwhile.
  bool try_start(const AttemptInfo& info, Waiting& waiting, const StepsAhead& ahead, bool has_waited);
  bool is_there(Waiting& waiting);
  void start_granted(const AttemptInfo& info, const Waiting& waiting, const StepGrant& grant);
  void start_waiting();
  void start_waiting_of(AttemptKey key);
  void client_is_back(Waiting& waiting, const ClientAddress& client);
  void tell_waiting(const Waiting& waiting);
  void on_waiting_client(const ClientAddress& client, const pb::NodeRequest& request);
  void end_waiting(const Waiting& waiting, const std::string& why);
  void forget_lost_waiting(Duration now);
  [[nodiscard]] std::vector<StepUse> uses_for(AttemptKey key, StepSharing sharing) const;
  void handle_part(const std::string& node, const pb::NodeReply& reply);
  // Valid until the attempt ends.
  Result<StepRecords*> records_of(const AttemptInfo& info);
  void record_end(const AttemptInfo& info, std::uint32_t step, std::int32_t exit_code);
  void tell_ended(const ClientAddress& client, std::int32_t exit_code);

  CoordinatorOptions options_;
  std::map<StepId, std::unique_ptr<Step>> steps_;
  std::map<std::pair<std::string, std::string>, StepId> by_client_;  // key, stream
  std::map<AttemptKey, Awaited> awaited_;
  std::map<AttemptKey, std::map<std::uint32_t, StepUse>> uses_;         // of steps with records that are not over
  std::map<AttemptKey, std::list<Waiting>> waiting_;                    // in order
  std::map<std::pair<std::string, std::string>, AttemptKey> waits_in_;  // key, stream
  std::set<AttemptKey> due_;                                            // steps of these ended: others may start
  std::map<AttemptKey, StepRecords> records_;                           // read when an attempt's first request comes
};

}  // namespace muster::noded
