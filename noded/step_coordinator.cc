#include "noded/step_coordinator.h"

#include <algorithm>
#include <utility>

#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/step_coordinator_step.h"

namespace muster::noded {
namespace {

// Parts that have not heard of the job yet are asked again this often.
constexpr Duration kAskAgain = Duration::from_ms(10);
constexpr Duration kLook = Duration::from_s(1);   // how often clients and parts are looked after
constexpr std::size_t kEnvironmentMax = 100'000;  // variables of a step; far beyond what execve accepts

std::optional<std::size_t> node_of_job(const LaunchOrder& order, const std::string& name) {
  for (std::size_t i = 0; i < order.peers.size(); ++i) {
    if (order.peers[i].name == name) {
      return i;
    }
  }
  return std::nullopt;
}

// A time that a client sends may be anything.
Duration wait_of(std::uint64_t us) {
  constexpr std::uint64_t kMax = 1'000'000'000'000'000;  // beyond every time limit
  return Duration{static_cast<std::int64_t>(std::min(us, kMax))};
}

}  // namespace

StepCoordinator::StepCoordinator(CoordinatorOptions options) : options_(std::move(options)) {}
StepCoordinator::~StepCoordinator() = default;

StepCoordinator::Step* StepCoordinator::find(const StepId& id) {
  const auto it = steps_.find(id);
  return it == steps_.end() ? nullptr : it->second.get();
}

StepCoordinator::Step* StepCoordinator::find(const ClientAddress& client) {
  const auto it = by_client_.find({client.key, client.stream});
  return it == by_client_.end() ? nullptr : find(it->second);
}

std::size_t StepCoordinator::steps_of(AttemptKey key) const {
  std::size_t count = 0;
  for (auto it = steps_.lower_bound({.key = key, .step = 0}); it != steps_.end() && it->first.key == key; ++it) {
    ++count;
  }
  return count;
}

void StepCoordinator::refuse(const ClientAddress& client, const Error& error) {
  pb::NodeReply reply;
  reply.mutable_refused()->set_code(static_cast<std::uint32_t>(error.code));
  reply.mutable_refused()->set_message(error.message);
  (void)options_.to_client(client, reply);
}

Result<StepRecords*> StepCoordinator::records_of(const AttemptInfo& info) {
  const AttemptKey key = info.order->key;
  auto it = records_.find(key);
  if (it == records_.end()) {
    MUSTER_ASSIGN(StepRecords loaded, StepRecords::load(info.directory));
    it = records_.emplace(key, std::move(loaded)).first;
    for (const StepRecord* record : it->second.running()) {
      if (std::optional<StepUse> use = use_of(*info.order, *record)) {
        uses_[key][record->step] = std::move(*use);
      }
    }
  }
  return &it->second;
}

void StepCoordinator::record_end(const AttemptInfo& info, std::uint32_t step, std::int32_t exit_code) {
  const Result<StepRecords*> records = records_of(info);
  const Status status = records ? (*records)->end(step, exit_code) : Status(records.error());
  if (!status) {
    io::log_warning("cannot record the end of a step",
                    {{"step", to_string(StepId{info.order->key, step})}, {"error", status.error().message}});
  }
  uses_[info.order->key].erase(step);
  due_.insert(info.order->key);
}

// For a client that did not hear of the end of its step.
void StepCoordinator::tell_ended(const ClientAddress& client, std::int32_t exit_code) {
  pb::NodeReply reply;
  reply.mutable_ended()->set_exit_code(exit_code);
  reply.mutable_ended()->set_detail("the connection was lost when it ended, and perhaps the last of its output");
  (void)options_.to_client(client, reply);
}

void StepCoordinator::client_came(const StepId& id, bool is_job) {
  const auto awaited = awaited_.find(id.key);
  if (awaited == awaited_.end()) {
    return;
  }
  std::erase(awaited->second.steps, id.step);
  awaited->second.finish_job = awaited->second.finish_job && !is_job;
  if (awaited->second.steps.empty() && !awaited->second.finish_job) {
    awaited_.erase(awaited);
  }
}

void StepCoordinator::run(const ClientAddress& client, const Ticket& ticket, const AttemptInfo& info,
                          const pb::RunStep& request) {
  if (Step* known = find(client); known != nullptr) {  // the same request again, perhaps by another connection
    known->client = client;
    known->client_here = true;
    known->client_heard = options_.now();
    send_started(*known);
    return;
  }
  if (Waiting* known = find_waiting(client); known != nullptr) {
    client_is_back(*known, client);
    return tell_waiting(*known);
  }
  const auto reject = [&](ErrorCode code, const std::string& message) { refuse(client, make_error(code, message)); };
  if (ticket.uid != info.order->spec->uid) {
    return reject(ErrorCode::kPermissionDenied, "the ticket is of another user than the job");
  }
  const Result<StepRecords*> records = records_of(info);
  if (!records) {
    return refuse(client, records.error());
  }
  if (const StepRecord* record = (*records)->find(client.key, client.stream); record != nullptr) {
    if (record->exit_code) {
      return tell_ended(client, *record->exit_code);
    }
    return start_again(client, info, request, *record);
  }
  if (info.stopping) {
    return reject(ErrorCode::kRefused, "job " + std::to_string(info.order->key.job.value) + " is being stopped");
  }
  if (request.spec().argv_size() == 0 || request.spec().argv(0).empty()) {
    return reject(ErrorCode::kInvalidArgument, "the step has no command: give one");
  }
  if (static_cast<std::size_t>(request.spec().environment_size()) > kEnvironmentMax) {
    return reject(ErrorCode::kInvalidArgument, "the step's environment has too many variables: use --export");
  }
  enter(client, info, request);
}

// This daemon was restarted between the step's record and the client's hearing of it. Which parts have started is
// known to their supervisors alone: every part is asked to start, which does nothing where it has, and then to say all
// of it again.
void StepCoordinator::start_again(const ClientAddress& client, const AttemptInfo& info, const pb::RunStep& request,
                                  const StepRecord& record) {
  auto owned = std::make_unique<Step>();
  owned->id = {.key = info.order->key, .step = record.step};
  owned->sharing = record.sharing;
  std::uint32_t ranks = 0;
  for (const auto& [name, tasks, cores, gpus] : record.nodes) {
    const std::optional<std::size_t> node = node_of_job(*info.order, name);
    if (!node || tasks == 0 || tasks > kTasksPerStepMax - ranks) {
      return refuse(client, make_error(ErrorCode::kCorrupt, "the record of step " + to_string(owned->id) +
                                                                " on this node is damaged: start another step"));
    }
    owned->parts.push_back(
        {.job_node = *node, .tasks = tasks, .ranks = {}, .cores = cores, .gpus = gpus, .say_again = true});
    ranks += tasks;
  }
  owned->deal(share_wish(*info.order, request.spec()).layout.plane);
  begin(std::move(owned), client, info, request);
}

// Has the parts of a new step started.
void StepCoordinator::begin(std::unique_ptr<Step> owned, const ClientAddress& client, const AttemptInfo& info,
                            const pb::RunStep& request) {
  Step& step = *owned;
  step.info = info;
  step.client = client;
  step.client_heard = options_.now();
  step.ask_until = options_.now() + options_.peer_start_patience;
  step.parts_asked = options_.now();
  step.spec = std::make_unique<pb::StepSpec>(request.spec());
  step.kill_on_bad_exit = request.spec().kill_on_bad_exit();
  step.stdin_mode = request.spec().stdin_mode();
  step.stdin_rank = request.spec().stdin_rank();
  step.wait = wait_of(request.spec().wait_us());
  step.is_job = info.order->spec->kind == JobKind::kRun && step.id.step == 0;
  const StepId id = step.id;
  steps_.emplace(id, std::move(owned));
  by_client_[{client.key, client.stream}] = id;
  // The job has a client again; its earlier steps may still wait for theirs.
  client_came(id, true);
  // Before any part can have output. Input waits until all parts run: see on_part_started.
  send_started(step);
  const std::size_t count = step.parts.size();
  for (std::size_t i = 0; i < count; ++i) {
    if (step.cancelled.empty()) {
      ask_part(step, i);
    } else {
      on_part_refused(step, i, make_error(ErrorCode::kRefused, "the step could not start on another node"));
    }
    if (find(id) == nullptr) {
      return;  // refused at once
    }
  }
}

void StepCoordinator::send_started(Step& step) {
  pb::NodeReply reply;
  auto& started = *reply.mutable_started();
  started.set_job(step.id.key.job.value);
  started.set_step(step.id.step);
  for (std::size_t i = 0; i < step.parts.size(); ++i) {
    started.add_nodes(step.node(i).name);
    started.add_tasks(step.parts[i].tasks);
  }
  started.set_rank_plane(step.rank_plane);
  (void)options_.to_client(step.client, reply);
}

void StepCoordinator::on_credit(Step& step, std::uint64_t bytes) {
  const StepId id = step.id;
  step.credited += bytes;
  while (!step.unread.empty() && step.credited >= step.unread.front().bytes) {
    const Unread unread = step.unread.front();
    step.unread.pop_front();
    step.credited -= unread.bytes;
    give_credit(step, unread.part, unread.cost, false);
    if (find(id) == nullptr) {
      return;
    }
  }
  if (step.unread.empty()) {
    step.credited = 0;
    for (std::size_t i = 0; i < step.parts.size(); ++i) {
      give_credit(step, i, 0, true);
      if (find(id) == nullptr) {
        return;
      }
    }
  }
}

void StepCoordinator::on_client(const ClientAddress& client, const pb::NodeRequest& request) {
  Step* step = find(client);
  if (step == nullptr) {
    if (find_waiting(client) != nullptr) {
      return on_waiting_client(client, request);
    }
    if (request.body_case() == pb::NodeRequest::kKeepalive) {
      refuse(client, make_error(ErrorCode::kNotFound, "this node does not know the step (any more)"));
    }
    return;
  }
  step->client_heard = options_.now();
  if (step->client.peer != client.peer || !step->client_here) {
    // A new connection, or one that did not take all: what went there may be lost; the client says what it has
    // (ResumeStep).
    refuse(client, make_error(ErrorCode::kNotFound, "the step must be taken up again"));
    return;
  }
  switch (request.body_case()) {
    case pb::NodeRequest::kKeepalive: {
      pb::NodeReply reply;
      reply.mutable_keepalive();
      (void)options_.to_client(client, reply);
      return;
    }
    case pb::NodeRequest::kCredit:
      on_credit(*step, request.credit().bytes());
      return;
    case pb::NodeRequest::kInput: {
      if (step->stdin_mode > 1) {
        return;
      }
      pb::NodeRequest to_part;
      auto& input = *to_part.mutable_peer_input();
      fill_step_key(step->id, *input.mutable_step());
      input.set_all(step->stdin_mode == 1);
      input.set_data(request.input().data());
      input.set_eof(request.input().eof());
      if (step->stdin_mode == 1) {
        all_parts(*step, to_part);
      } else {
        const std::size_t part = step->stdin_rank < step->ranks.size() ? step->ranks[step->stdin_rank].part : 0;
        input.set_rank(step->stdin_rank);
        const Peer node = step->node(part);
        options_.to_part(node, step->here(part), to_part);
      }
      return;
    }
    case pb::NodeRequest::kSignal: {
      const std::int32_t signal = request.signal().signal();
      if (signal < 0 || signal > 64) {
        return;
      }
      if (!step->started && (signal == 0 || signal == 9)) {  // parts that have not started shall not
        return cancel(*step, "its client asked for it");
      }
      pb::NodeRequest to_part;
      fill_step_key(step->id, *to_part.mutable_peer_signal()->mutable_step());
      to_part.mutable_peer_signal()->set_signal(signal);
      to_part.mutable_peer_signal()->set_end(signal == 0);
      all_parts(*step, to_part);
      return;
    }
    default:
      return;
  }
}

void StepCoordinator::cancel(Step& step, const std::string& why) {
  const StepId id = step.id;
  if (step.cancelled.empty()) {
    step.cancelled = why;
    step.cancelled_at = options_.now();
    pb::NodeRequest request;
    fill_step_key(id, *request.mutable_peer_signal()->mutable_step());
    request.mutable_peer_signal()->set_end(true);
    all_parts(step, request);
  }
  if (Step* still = find(id); still != nullptr && !still->over && still->ended == still->ranks.size()) {
    complete(*still);
  }
}

// Every task has ended: tells the client and lets the parts forget the step.
void StepCoordinator::complete(Step& step) {
  if (step.over) {
    return;
  }
  if (!step.client_here && step.cancelled.empty()) {
    return;  // a client that comes back shall find its output; tick() gives it up
  }
  step.over = true;
  pb::NodeReply reply;
  reply.mutable_ended()->set_exit_code(step.exit_code);
  reply.mutable_ended()->set_detail(step.cancelled);
  if (const Result<AttemptInfo> info = options_.attempts->find(step.id.key);
      step.cancelled.empty() && step.exit_code != 0 && info && info->stopping) {
    reply.mutable_ended()->set_detail("job " + std::to_string(step.id.key.job.value) + " was stopped");
  }
  if (step.client_here) {
    (void)options_.to_client(step.client, reply);
  }
  const StepId id = step.id;
  const bool is_job = step.is_job;
  Outcome outcome = step.worst;
  if (is_job && !step.cancelled.empty() && !step.client_here) {
    outcome = Outcome{};
    outcome.cause = EndCause::kCancelled;
    outcome.detail = step.cancelled;
  }
  record_end(step.info, id.step, step.exit_code);
  pb::NodeRequest forget;
  fill_step_key(id, *forget.mutable_peer_forget()->mutable_step());
  all_parts(step, forget);
  drop(id);
  if (is_job) {
    (void)options_.attempts->finish(id.key, outcome);
  }
}

void StepCoordinator::drop(const StepId& id) {
  const auto it = steps_.find(id);
  if (it != steps_.end()) {
    by_client_.erase({it->second->client.key, it->second->client.stream});
    steps_.erase(it);
  }
}

void StepCoordinator::resume(const ClientAddress& client, const Ticket& ticket, const AttemptInfo& info,
                             const pb::ResumeStep& request) {
  const StepId id{.key = info.order->key, .step = request.step()};
  if (ticket.uid != info.order->spec->uid) {
    return refuse(client, make_error(ErrorCode::kPermissionDenied, "the ticket is of another user than the job"));
  }
  if (!info.running) {
    return refuse(client, make_error(ErrorCode::kUnavailable, "the job's supervisor is not connected yet"));
  }
  Step* step = find(id);
  if (step != nullptr && (step->client.key != client.key || step->client.stream != client.stream)) {
    return refuse(client, make_error(ErrorCode::kPermissionDenied, "step " + to_string(id) + " has another client"));
  }
  if (step == nullptr) {  // this daemon was restarted since
    const Result<StepRecords*> records = records_of(info);
    if (!records) {
      return refuse(client, records.error());
    }
    const StepRecord* record = (*records)->find(id.step);
    if (record == nullptr) {
      return refuse(client, make_error(ErrorCode::kNotFound,
                                       "step " + to_string(id) + " has ended, and its end is not known any more"));
    }
    if (record->client_key != client.key || record->stream != client.stream) {
      return refuse(client, make_error(ErrorCode::kPermissionDenied, "step " + to_string(id) + " has another client"));
    }
    if (record->exit_code) {
      return tell_ended(client, *record->exit_code);
    }
    auto owned = std::make_unique<Step>();
    step = owned.get();
    step->id = id;
    step->info = info;
    step->kill_on_bad_exit = request.kill_on_bad_exit();
    step->stdin_mode = request.stdin_mode();
    step->stdin_rank = request.stdin_rank();
    step->wait = wait_of(request.wait_us());
    step->is_job = info.order->spec->kind == JobKind::kRun && id.step == 0;
    step->started = true;
    std::uint64_t ranks = 0;
    for (int i = 0; i < request.nodes_size() && i < request.tasks_size(); ++i) {
      const std::optional<std::size_t> node = node_of_job(*info.order, request.nodes(i));
      const std::uint32_t tasks = request.tasks(i);
      if (!node || tasks == 0 || tasks > kStepTasksMax) {
        return refuse(client,
                      make_error(ErrorCode::kCorrupt, "the request to resume names nodes that are not the job's"));
      }
      step->parts.push_back({.job_node = *node, .tasks = tasks, .ranks = {}, .state = PartState::kRunning});
      ranks += tasks;
    }
    if (ranks == 0 || ranks > kTasksPerStepMax) {
      return refuse(client, make_error(ErrorCode::kCorrupt, "the request to resume has no layout"));
    }
    step->deal(request.rank_plane());
    steps_.emplace(id, std::move(owned));
    by_client_[{client.key, client.stream}] = id;
  }
  step->client = client;
  step->client_here = true;
  step->client_heard = options_.now();
  step->parts_asked = options_.now();
  step->ask_until = options_.now() + options_.client_awaited;
  step->unread.clear();
  step->credited = 0;
  for (RankRecord& rank : step->ranks) {
    rank.forwarded[0] = 0;
    rank.forwarded[1] = 0;
  }
  for (const auto& received : request.received()) {
    if (received.rank() < step->ranks.size() && received.stream() >= 1 && received.stream() <= 2) {
      step->ranks[received.rank()].forwarded[received.stream() - 1] = received.bytes();
    }
  }
  client_came(id, step->is_job);
  if (!step->started) {
    return;  // the parts are still being asked to start
  }
  send_started(*step);
  // Ends of tasks that the client may have missed come again with the resume.
  step->ended = 0;
  for (RankRecord& rank : step->ranks) {
    rank.ended = false;
  }
  for (std::size_t i = 0; i < step->parts.size(); ++i) {
    step->parts[i].resuming = true;
    ask_part(*step, i);
    if (find(id) == nullptr) {
      return;
    }
  }
}

void StepCoordinator::attempt_running(const AttemptInfo& info, const std::vector<std::uint32_t>& steps) {
  if (info.order->node_rank != 0) {
    return;
  }
  const AttemptKey key = info.order->key;
  Awaited awaited{.until = options_.now() + options_.client_awaited,
                  .finish_job = info.order->spec->kind == JobKind::kRun && steps_of(key) == 0,
                  .steps = {}};
  for (const std::uint32_t step : steps) {
    if (find(StepId{.key = key, .step = step}) == nullptr) {
      awaited.steps.push_back(step);
    }
  }
  // A step that was recorded and never started is nowhere known but here, and would keep its cores.
  if (const Result<StepRecords*> records = records_of(info)) {
    for (const StepRecord* record : (*records)->running()) {
      const bool known = std::find(steps.begin(), steps.end(), record->step) != steps.end();
      if (!known && find(StepId{.key = key, .step = record->step}) == nullptr) {
        awaited.steps.push_back(record->step);
      }
    }
  }
  if (awaited.finish_job || !awaited.steps.empty()) {
    awaited_[key] = std::move(awaited);
  }
}

void StepCoordinator::attempt_ended(AttemptKey key, const Outcome& outcome) {
  awaited_.erase(key);
  records_.erase(key);
  uses_.erase(key);
  due_.erase(key);
  if (const auto queue = waiting_.find(key); queue != waiting_.end()) {
    const std::list<Waiting> left = std::move(queue->second);
    waiting_.erase(queue);
    for (const Waiting& waiting : left) {
      end_waiting(waiting, "job " + std::to_string(key.job.value) + " has ended (" +
                               std::string(to_string(outcome.cause)) +
                               (outcome.detail.empty() ? "" : ": " + outcome.detail) + ")");
    }
  }
  std::vector<StepId> ids;
  for (auto it = steps_.lower_bound({.key = key, .step = 0}); it != steps_.end() && it->first.key == key; ++it) {
    ids.push_back(it->first);
  }
  for (const StepId& id : ids) {
    Step* step = find(id);
    if (step == nullptr) {
      continue;
    }
    const bool all = step->ended == step->ranks.size();
    if (!all) {
      step->exit_code = std::max(step->exit_code, 128 + 9);
    }
    if (step->client_here) {
      pb::NodeReply reply;
      reply.mutable_ended()->set_exit_code(step->exit_code);
      reply.mutable_ended()->set_detail("job " + std::to_string(key.job.value) + " has ended (" +
                                        std::string(to_string(outcome.cause)) +
                                        (outcome.detail.empty() ? "" : ": " + outcome.detail) + ")");
      (void)options_.to_client(step->client, reply);
    }
    pb::NodeRequest forget;
    fill_step_key(id, *forget.mutable_peer_forget()->mutable_step());
    all_parts(*step, forget);
    drop(id);
  }
}

std::optional<Duration> StepCoordinator::tick() {
  const Duration now = options_.now();
  std::optional<Duration> again;
  const auto want = [&](Duration delay) { again = again ? std::min(*again, delay) : delay; };

  std::vector<StepId> ids;
  ids.reserve(steps_.size());
  for (const auto& [id, step] : steps_) {
    ids.push_back(id);
  }
  for (const StepId& id : ids) {
    Step* step = find(id);
    if (step != nullptr) {
      for (std::size_t i = 0; step != nullptr && i < step->parts.size(); ++i) {
        if (step->parts[i].ask_again) {
          ask_part(*step, i);
          step = find(id);
        }
      }
    }
    if (step != nullptr && now - step->client_heard > options_.client_lost_after && step->cancelled.empty()) {
      io::log_warning("the client of a step is lost", {{"step", to_string(id)}});
      step->client_here = false;
      cancel(*step,
             "nothing was heard of its client for " + std::to_string(options_.client_lost_after.seconds()) + " s");
      step = find(id);
    }
    if (step != nullptr && step->first_end && step->cancelled.empty()) {
      const Duration left = *step->first_end + step->wait - now;
      if (left.us <= 0) {
        cancel(*step, "--wait: " + std::to_string(step->wait.seconds()) + " s have passed since its first task ended");
        step = find(id);
      } else {
        want(left);
      }
    }
    if (step != nullptr && !step->cancelled.empty() && now - step->cancelled_at > kCancelPatience) {
      for (RankRecord& rank : step->ranks) {
        if (!rank.ended) {
          rank.ended = true;
          ++step->ended;
          step->exit_code = std::max(step->exit_code, 128 + 9);
        }
      }
      complete(*step);
      step = find(id);
    }
    if (step != nullptr && now - step->parts_asked >= options_.part_keepalive) {
      step->parts_asked = now;
      for (std::size_t i = 0; step != nullptr && i < step->parts.size(); ++i) {
        if (step->parts[i].state == PartState::kRunning && !step->here(i)) {
          pb::NodeRequest request;
          fill_step_key(id, *request.mutable_peer_keepalive()->mutable_step());
          const Peer node = step->node(i);
          options_.to_part(node, false, request);
          step = find(id);
        }
      }
    }
    if (step != nullptr) {
      const bool asking =
          std::any_of(step->parts.begin(), step->parts.end(), [](const PartRecord& p) { return p.ask_again; });
      want(asking ? kAskAgain : kLook);
    }
  }

  std::vector<AttemptKey> late;
  for (const auto& [key, awaited] : awaited_) {
    if (now >= awaited.until) {
      late.push_back(key);
    } else {
      want(kLook);
    }
  }
  for (const AttemptKey& key : late) {
    const Awaited awaited = awaited_[key];
    awaited_.erase(key);
    const Result<AttemptInfo> info = options_.attempts->find(key);
    if (!info) {
      continue;
    }
    io::log_warning("no client came for a job's step", {{"job", key.job.value}});
    for (const std::uint32_t number : awaited.steps) {
      const StepId id{.key = key, .step = number};
      record_end(*info, number, 128 + 9);
      pb::NodeRequest forget;  // ends it where it runs
      fill_step_key(id, *forget.mutable_peer_forget()->mutable_step());
      for (std::size_t i = 0; i < info->order->peers.size(); ++i) {
        options_.to_part(info->order->peers[i], i == info->order->node_rank, forget);
      }
    }
    if (awaited.finish_job) {
      Outcome outcome;
      outcome.cause = EndCause::kCancelled;
      outcome.detail =
          "no client came within " + std::to_string(options_.client_awaited.seconds()) + " s to start the job's step";
      (void)options_.attempts->finish(key, outcome);
    }
  }
  forget_lost_waiting(now);
  start_waiting();
  if (!waiting_.empty()) {
    want(kLook);
  }
  return again;
}

}  // namespace muster::noded
