// Requests: what clients ask and what they are answered. Every request gets one reply, or several parts of which the
// last has `more` unset. What a reply says is on disk when it leaves.
//
// Reads are answered in parts of kViewsPerReply rows, one part in a round of the loop, so that a long queue holds up
// nothing; while the pipeline is full, further parts are not made. History is read by a worker on its own connection to
// the database.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "ctld/explainer_cache.h"
#include "ctld/journal.h"
#include "ctld/nodes.h"
#include "ctld/outbox.h"
#include "ctld/pipeline.h"
#include "ctld/tickets.h"
#include "ctld/users.h"
#include "lib/config/config.h"
#include "lib/io/loop.h"

namespace muster::pb {
class JobSelector;
class Reply;
class Request;
class SubmitReply;
}  // namespace muster::pb

namespace muster::ctld {

inline constexpr const char* kVersion = "0.1.0";

// Rows in one reply: some hundred kilobytes, made in a few milliseconds.
inline constexpr std::size_t kViewsPerReply = 1'000;
// Nodes that the reasons in one part may look at.
inline constexpr std::size_t kNodesLookedAtPerPart = 100'000;
// Rows of one answer that names tasks of arrays one by one.
inline constexpr std::size_t kNamedTasksMax = 10'000;
// Tasks of arrays named by index in one request: each is looked up, so it bounds the time of a round.
inline constexpr std::uint64_t kNamedIndicesMax = 1'000'000;
// Notes of one reply; the rest is counted.
inline constexpr std::size_t kNotesMax = 1'000;
// Clients that wait for a job to start or end; each is some hundred bytes.
inline constexpr std::size_t kWaitersMax = 200'000;
// The longest wait before a client must ask again: finds out clients that are gone.
inline constexpr Duration kWaitMax = Duration::from_s(60);
// History questions: read or being answered at the same time, since their rows are in memory; and waiting.
inline constexpr std::size_t kHistoryReadsAtOnce = 2;
inline constexpr std::size_t kHistoryReadsQueued = 1'000;

class Requests {
 public:
  Requests(io::Loop& loop, const config::Config& config, Pipeline& pipeline, Journal& journal, Outbox& outbox,
           Nodes& nodes, const Tickets& tickets);
  ~Requests();
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  // `caller` is whom the connection's key authenticated.
  void on_request(const std::string& peer, const Caller& caller, const pb::Request& request);
  // Answers a request that could not even be read.
  void refuse(const std::string& peer, const Error& error);
  // Tells those who wait.
  void perform(const Effects& effects);
  // The pipeline has room: answers that stopped half-way go on.
  void resume();

 private:
  struct Call {
    std::string peer;
    std::uint64_t correlation = 0;
    Caller caller;
  };
  struct Waiter {
    Call call;
    JobId job;
    bool is_array = false;
    bool until_ended = false;
    Duration deadline{};  // CLOCK_BOOTTIME
  };
  struct JobWalk;
  struct Lookup;
  struct PriorityWalk;
  using HistoryRows = std::shared_ptr<HistoryPage>;
  struct HistoryRead {
    HistoryFilter filter;
    Journal::HistoryRead done;
  };

  void ping(const Call& call);
  void submit(const Call& call, const pb::Request& request);
  // What the history knows of the jobs that a dependency names and the State does not; an error is the answer to the call.
  void look_up_ended(const Call& call, const Dependency& dependency, std::function<void(std::vector<EndedJob>)> done);
  void look_up(const std::shared_ptr<Lookup>& lookup, const DependencyTarget& target);
  void go_on(const std::shared_ptr<Lookup>& lookup);
  void accept(const Call& call, const SubmitJob& command, const std::string& script, const std::string& environment,
              bool test_only);
  void plan_test(const engine::Decision& decision, pb::SubmitReply& out);
  Status check_submission(const Call& call, const pb::Request& request, JobSpec& spec);
  void operate(const Call& call, const pb::Request& request);
  void operate_on_jobs(const Call& call, const Command& command);
  void answer_operation(const Call& call, std::uint64_t matched, std::vector<std::string> notes,
                        std::vector<std::string> remarks = {});
  void update(const Call& call, const pb::Request& request);
  void change_settings(const Call& call, const pb::Request& request);
  void jobs(const Call& call, const pb::Request& request);
  void jobs_part(const std::shared_ptr<JobWalk>& walk);
  void jobs_named(const std::shared_ptr<JobWalk>& walk);
  void jobs_ended(const std::shared_ptr<JobWalk>& walk);
  void change_reservation(const Call& call, const pb::Request& request);
  void reservations(const Call& call, const pb::Request& request);
  void licenses(const Call& call, const pb::Request& request);
  void nodes(const Call& call, const pb::Request& request);
  void nodes_part(const Call& call, std::vector<NodeIndex> which, std::size_t from, bool with_topology,
                  std::vector<std::string> notes);
  void history(const Call& call, const pb::Request& request);
  void history_part(const Call& call, HistoryRows page, std::size_t from, bool with_placement,
                    std::vector<std::string> notes);
  void wait(const Call& call, const pb::Request& request);
  void answer_wait(const Call& call, JobId job, bool is_array, const std::map<JobId, const JobSummary*>& ended);
  void expire_waiters();
  void arm_wait_timer();
  void remove_waiter(std::uint64_t id);
  void ticket(const Call& call, const pb::Request& request);
  void ticket_of_ended(const Call& call, JobId job, const std::string& client_key);
  Result<std::string> key_of(const Call& call, const std::string& given) const;
  void show_config(const Call& call);
  void change_accounting(const Call& call, const pb::Request& request);
  void accounting(const Call& call, const pb::Request& request);
  void accounting_part(const Call& call, AccountingKind kind, const std::string& after);
  void accounting_named(const Call& call, AccountingKind kind, const std::vector<std::string>& names);
  void priorities(const Call& call, const pb::Request& request);
  void priorities_part(const std::shared_ptr<PriorityWalk>& walk);

  void read_history(HistoryFilter filter, std::function<void(Result<HistoryRows>)> done);
  // The same; an error is the answer to the call.
  void read_history(const Call& call, HistoryFilter filter, std::function<void(HistoryRows)> done);
  void next_history_read();

  void reply(const Call& call, pb::Reply& message, bool more = false);
  void reply_after_commit(const Call& call, std::shared_ptr<pb::Reply> message);
  // One part of an answer. When it has left, `next` makes the part after it in a round of its own; without `next` it was
  // the last one.
  void part_after_commit(const Call& call, std::shared_ptr<pb::Reply> message, std::function<void()> next);
  void next_part();
  void fail(const Call& call, const Error& error);
  void forget_request(const std::string& peer);

  io::Loop& loop_;
  const config::Config& config_;
  Pipeline& pipeline_;
  Journal& journal_;
  Outbox& outbox_;
  Nodes& nodes_;
  const Tickets& tickets_;
  Users users_;
  const Instant started_;
  ExplainerCache explanations_;

  std::unordered_map<std::string, std::uint64_t> unanswered_;  // requests, by peer
  std::map<std::uint64_t, Waiter> waiters_;
  std::multimap<JobId, std::uint64_t> waiters_by_job_;
  std::set<std::pair<Duration, std::uint64_t>> waiters_by_deadline_;
  std::uint64_t next_waiter_ = 1;
  io::Timer wait_timer_;
  std::deque<std::function<void()>> parts_;  // of answers that are not complete yet, at most one of each
  bool part_scheduled_ = false;
  std::deque<HistoryRead> history_queue_;
  std::size_t history_reads_ = 0;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace muster::ctld
