// `muster logs`: shows what a job has written, from the node that has the file, over the network.
#include <poll.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "cli/client.h"
#include "cli/query.h"
#include "cli/report.h"
#include "cli/run_options.h"
#include "cli/run_output.h"
#include "cli/run_stream.h"
#include "lib/io/clock.h"
#include "lib/model/job_spec.h"
#include "lib/model/outcome.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr Duration kWaitSlice = Duration::from_s(30);
// Tickets for clients are short-lived; an older one is asked for anew before a connection is made again.
constexpr Duration kTicketFresh = Duration::from_s(30 * 60);
constexpr Duration kOpenTimeout = Duration::from_s(10);
// How long the node's daemon may be away (restarting) before a stream that had begun is given up.
constexpr Duration kResumePatience = Duration::from_s(60);

std::string job_text(const LogsOptions& options) {
  return "job " + std::to_string(options.job) +
         (options.has_array_task ? "_" + std::to_string(options.array_task) : "");
}

// The one job that is meant.
Result<pb::JobView> find(Client& client, const LogsOptions& options) {
  JobSelector::Item item;
  item.id = JobId(options.job);
  if (options.has_array_task) {
    item.has_indices = true;
    item.indices.push_back({.first = options.array_task, .last = options.array_task, .step = 1});
  }
  MUSTER_ASSIGN(const std::vector<pb::JobView> jobs, find_job(client, item, false));
  if (jobs.size() > 1 || jobs.front().array_waiting_count() > 1) {
    return invalid_argument("job " + std::to_string(options.job) + " is an array: name one task of it, such as " +
                            std::to_string(options.job) + "_" + std::to_string(jobs.front().array_task()));
  }
  return jobs.front();
}

bool has_started(const pb::JobView& job) {
  return job.start_time_us() != 0;
}

// Waits (with -f) until the job has begun to run. kRefused when there is nothing to read.
Result<pb::JobView> find_started(Client& client, const LogsOptions& options) {
  while (true) {
    MUSTER_ASSIGN(const pb::JobView job, find(client, options));
    const auto state = static_cast<JobState>(job.state());
    if (job.kind() != static_cast<std::uint32_t>(JobKind::kBatch)) {
      const bool run = job.kind() == static_cast<std::uint32_t>(JobKind::kRun);
      return make_error(ErrorCode::kRefused, job_text(options) + " was started by `muster " + (run ? "run" : "alloc") +
                                                 "`: its output went to the caller of that command");
    }
    // A job that is starting may not have reached its node yet.
    if (has_started(job) && state != JobState::kPending && !(options.follow && state == JobState::kStarting)) {
      return job;
    }
    if (is_terminal(state)) {
      return make_error(ErrorCode::kRefused, job_text(options) + " ended before it started (" +
                                                 std::string(to_string(state)) + "): it has no output");
    }
    if (!options.follow) {
      return make_error(ErrorCode::kRefused,
                        job_text(options) + " has not started: use -f to wait for it, or see `muster why`");
    }
    pb::Request request;
    request.mutable_wait()->set_job(job.id());
    request.mutable_wait()->set_timeout_us(kWaitSlice.us);
    MUSTER_ASSIGN(const pb::Reply reply, client.call(request, kWaitSlice + client.timeout()));
    (void)reply;
  }
}

Result<pb::Reply> ask_ticket(Client& client, std::uint64_t job) {
  pb::Request request;
  request.mutable_ticket()->set_job(job);
  request.mutable_ticket()->set_client_key(client.public_key());
  MUSTER_ASSIGN(pb::Reply reply, client.call(request));
  if (!reply.has_ticket()) {
    return make_error(ErrorCode::kCorrupt, "the controller's answer is of another kind: are both of a like version?");
  }
  return reply;
}

class LogsRead {
 public:
  // `client` outlives it.
  LogsRead(const LogsOptions& options, Client& client, const pb::TicketReply& ticket, ClientKey key)
      : options_(options),
        client_(client),
        ticket_(ticket.ticket().SerializeAsString()),
        obtained_(io::boottime_now()),
        job_(ticket.job().id()),
        address_{.name = ticket.node(), .endpoint = ticket.endpoint(), .public_key = ticket.public_key()},
        key_(std::move(key)) {}

  Status run();

 private:
  enum class Next { kGoOn, kDone };
  Status open(Duration timeout);
  Result<Next> receive_all();

  const LogsOptions& options_;
  Client& client_;
  std::string ticket_;
  Duration obtained_;
  std::uint64_t job_ = 0;
  NodeAddress address_;
  ClientKey key_;
  std::unique_ptr<NodeStream> stream_;
  std::unique_ptr<OutputRouter> output_;
  std::uint64_t offset_ = 0;
};

// A new stream each time, so that nothing of an earlier one is taken for it.
Status LogsRead::open(Duration timeout) {
  if (io::boottime_now() - obtained_ > kTicketFresh) {
    if (const auto reply = ask_ticket(client_, job_)) {
      ticket_ = reply->ticket().ticket().SerializeAsString();
      obtained_ = io::boottime_now();
    }
  }
  stream_ = std::make_unique<NodeStream>(address_, key_);
  MUSTER_TRY(stream_->open(timeout));
  pb::NodeRequest request;
  auto& logs = *request.mutable_logs();
  (void)logs.mutable_ticket()->ParseFromString(ticket_);
  logs.set_stderr_file(options_.stderr_file);
  logs.set_follow(options_.follow);
  logs.set_offset(offset_);
  (void)stream_->send(request);
  return ok_status();
}

Result<LogsRead::Next> LogsRead::receive_all() {
  while (true) {
    MUSTER_ASSIGN(const std::optional<pb::NodeReply> reply, stream_->receive());
    if (!reply) {
      return Next::kGoOn;
    }
    if (reply->has_refused()) {
      const std::uint32_t code = reply->refused().code();
      return make_error(code <= static_cast<std::uint32_t>(ErrorCode::kInternal) ? static_cast<ErrorCode>(code)
                                                                                 : ErrorCode::kInternal,
                        reply->refused().message());
    }
    if (!reply->has_logs()) {
      continue;
    }
    const pb::LogsData& logs = reply->logs();
    if (!logs.note().empty()) {
      error_line("warning: " + logs.note());
    }
    output_->put(0, 1, logs.data());
    offset_ = logs.offset() + logs.data().size();
    if (logs.end()) {
      return Next::kDone;
    }
  }
}

Status LogsRead::run() {
  OutputOptions output;
  output.nodes = {""};
  output.tasks = {1};
  MUSTER_ASSIGN(output_, OutputRouter::make(output));
  MUSTER_TRY(open(kOpenTimeout));
  Duration lost_since;
  std::vector<pollfd> polls;
  while (true) {
    if (!stream_->connected()) {
      const Duration now = io::boottime_now();
      lost_since = lost_since.us == 0 ? now : lost_since;
      if (const Status status = open(Duration::from_ms(500)); !status) {
        if (now - lost_since > kResumePatience) {
          return status;
        }
        continue;
      }
      lost_since = {};
    }
    MUSTER_ASSIGN(Next next, receive_all());
    if (!output_->flush()) {
      return ok_status();  // nobody reads any more
    }
    if (next == Next::kGoOn) {
      if (const std::uint64_t bytes = output_->take_credit(); bytes > 0) {
        pb::NodeRequest request;
        request.mutable_logs_credit()->set_bytes(bytes);
        (void)stream_->send(request);
      }
      stream_->keep_alive();
      // Sending may have taken the edge of the socket's readiness.
      MUSTER_ASSIGN(next, receive_all());
    }
    if (next == Next::kDone) {
      output_->drain();
      return ok_status();
    }
    if (!stream_->connected()) {
      continue;
    }
    polls.clear();
    polls.push_back({stream_->fd(), POLLIN, 0});
    output_->add_polls(polls);
    (void)::poll(polls.data(), polls.size(), 500);
  }
}

}  // namespace

int show_logs(const LogsOptions& options) {
  if (options.has_step || options.has_task) {
    error_line(
        "--step and --task: the output of steps goes to the command that started them, and so into the job's "
        "own output: leave them out");
    return kExitUsage;
  }
  auto client = Client::open(options.connect);
  if (!client) {
    return report_error(client.error());
  }
  const auto job = find_started(**client, options);
  if (!job) {
    return report_error(job.error());
  }
  const auto reply = ask_ticket(**client, job->id());
  if (!reply) {
    return report_error(reply.error());
  }
  const ClientKey key{.public_key = (*client)->public_key(), .secret_key = (*client)->secret_key()};
  if (const Status status = LogsRead(options, **client, reply->ticket(), key).run(); !status) {
    return report_error(status.error());
  }
  return kExitOk;
}

}  // namespace muster::cli
