#include "ctld/requests.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <optional>
#include <set>
#include <utility>
#include <variant>

#include "core/engine/dependency.h"
#include "ctld/requests_common.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

std::int64_t resident_bytes() {
  const auto text = io::read_file("/proc/self/statm", 4'096);
  unsigned long long total = 0;
  unsigned long long resident = 0;
  if (!text.ok() || std::sscanf(text->c_str(), "%llu %llu", &total, &resident) != 2) {
    return 0;
  }
  return static_cast<std::int64_t>(resident) * sysconf(_SC_PAGESIZE);
}

// Why an operation found nothing of this id, from the rows that the history has of it.
std::string why_unknown(JobId id, const HistoryPage* rows) {
  bool tasks = false;
  for (const auto& job : rows != nullptr ? rows->jobs : std::vector<JobSummary>{}) {
    if (job.id == id && job.array != id) {
      return "has already ended (" + std::string(to_string(job.state)) + ")";
    }
    tasks = tasks || job.array == id;
  }
  if (tasks) {
    return "has already ended";
  }
  return rows == nullptr || rows->cut || rows->damaged > 0 ? "no such job, or it has ended"
                                                           : "no such job: see `muster queue` and `muster history`";
}

// What the client checked too; whoever speaks the protocol by other means is told the same.
Status check_script(const std::string& script, std::uint64_t bytes_max) {
  if (script.empty()) {
    return invalid_argument("the job has no script: give one, or use --wrap COMMAND");
  }
  if (script.size() > bytes_max) {
    return invalid_argument("the script has " + std::to_string(script.size()) + " bytes, the limit is " +
                            std::to_string(bytes_max) +
                            " (controller.script_bytes_max): put data into a file that the script reads");
  }
  if (script.compare(0, 2, "#!") != 0) {
    return invalid_argument(
        "the script does not begin with #!: name its interpreter in the first line, as in #!/bin/sh");
  }
  if (const auto nul = script.find('\0'); nul != std::string::npos) {
    return invalid_argument("the script has a NUL byte at offset " + std::to_string(nul) + ": submit a text file");
  }
  const auto line_end = script.find('\n');
  if (line_end != std::string::npos && script[line_end - 1] == '\r') {
    return invalid_argument("line 1 of the script ends with a carriage return: convert it with dos2unix");
  }
  return ok_status();
}

// A job that a dependency names and of which neither the state nor what was looked up tells.
std::optional<DependencyTarget> unknown_target(const engine::State& state, const Dependency& dependency,
                                               const std::vector<EndedJob>& ended_jobs) {
  std::set<DependencyTarget> told;
  for (const EndedJob& ended : ended_jobs) {
    told.insert(ended.target);
  }
  for (const DependencyTerm& term : dependency.terms) {
    if (term.kind == DependencyKind::kSingleton || told.contains(term.target)) {
      continue;
    }
    const auto known = engine::is_known(state, term.target);
    if (!known.ok()) {
      return std::nullopt;  // the decision says what is wrong
    }
    if (!*known) {
      return term.target;
    }
  }
  return std::nullopt;
}

bool is_meant(const JobSummary& row, const DependencyTarget& target) {
  // A row with the id of an array and that array is the array's first task.
  return target.has_task || row.array == target.job || (row.id == target.job && row.array != row.id);
}

Digest digest_of(const std::string& bytes) {
  return bytes.empty() ? Digest{} : Digest{io::blake2b_256(bytes)};
}

}  // namespace

Result<JobSelector> read_selector(const pb::JobSelector& in, const sched::Policy& policy) {
  MUSTER_ASSIGN(auto selector, wire::from_pb(in));
  if (!selector.queue.empty() && policy.find_queue(selector.queue) == nullptr) {
    std::string known;
    for (const auto& queue : policy.queues) {
      known += (known.empty() ? "" : ", ") + queue.name;
    }
    return make_error(ErrorCode::kNotFound, "unknown queue " + printable(selector.queue) + ": the queues are " + known);
  }
  std::uint64_t indices = 0;
  for (const auto& item : selector.items) {
    for (const auto& range : item.indices) {
      indices += std::min(range.count(), kNamedIndicesMax + 1);
      if (indices > kNamedIndicesMax) {
        return invalid_argument("more than " + std::to_string(kNamedIndicesMax) +
                                " tasks are named by index: name the array itself (" + std::to_string(item.id.value) +
                                ")");
      }
    }
  }
  return selector;
}

Requests::Requests(io::Loop& loop, const config::Config& config, Pipeline& pipeline, Journal& journal, Outbox& outbox,
                   Nodes& nodes, const Tickets& tickets)
    : loop_(loop),
      config_(config),
      pipeline_(pipeline),
      journal_(journal),
      outbox_(outbox),
      nodes_(nodes),
      tickets_(tickets),
      started_(pipeline.now()),
      wait_timer_(loop, [this] { expire_waiters(); }) {}

Requests::~Requests() = default;

// ---------------------------------------------------------------- replies

void Requests::forget_request(const std::string& peer) {
  const auto count = unanswered_.find(peer);
  if (count != unanswered_.end() && --count->second == 0) {
    unanswered_.erase(count);
  }
}

void Requests::reply(const Call& call, pb::Reply& message, bool more) {
  message.set_correlation(call.correlation);
  message.set_more(more);
  // A client that is gone, or does not read, loses its reply; it asks again on its next connection.
  (void)outbox_.send(call.peer, wire::MessageKind::kClientReply, message);
  if (!more) {
    forget_request(call.peer);
  }
}

void Requests::reply_after_commit(const Call& call, std::shared_ptr<pb::Reply> message) {
  const std::uint64_t bytes = message->ByteSizeLong();
  pipeline_.after_commit([this, call, message = std::move(message)] { reply(call, *message); }, bytes);
}

void Requests::part_after_commit(const Call& call, std::shared_ptr<pb::Reply> message, std::function<void()> next) {
  const std::uint64_t bytes = message->ByteSizeLong();
  pipeline_.after_commit(
      [this, call, message = std::move(message), next = std::move(next)]() mutable {
        const bool more = next != nullptr;
        // A client need not hear of a round that found nothing.
        if (!more || !message->has_jobs() || message->jobs().jobs_size() > 0) {
          reply(call, *message, more);
        }
        if (more) {
          parts_.push_back(std::move(next));
          resume();
        }
      },
      bytes);
}

void Requests::resume() {
  if (!parts_.empty() && !part_scheduled_ && !pipeline_.full()) {
    part_scheduled_ = true;
    loop_.defer([this] { next_part(); });
  }
  next_history_read();
}

void Requests::next_part() {
  part_scheduled_ = false;
  const auto make = std::move(parts_.front());
  parts_.pop_front();
  make();
  resume();
}

void Requests::fail(const Call& call, const Error& error) {
  // What was refused may have been refused because of what is not on disk yet.
  auto message = std::make_shared<pb::Reply>();
  message->mutable_error()->set_code(static_cast<std::uint32_t>(error.code));
  message->mutable_error()->set_message(error.message);
  reply_after_commit(call, std::move(message));
}

void Requests::refuse(const std::string& peer, const Error& error) {
  pb::Reply message;
  message.mutable_error()->set_code(static_cast<std::uint32_t>(error.code));
  message.mutable_error()->set_message(error.message);
  (void)outbox_.send(peer, wire::MessageKind::kClientReply, message);
}

void Requests::on_request(const std::string& peer, const Caller& caller, const pb::Request& request) {
  const Call call{peer, request.correlation(), caller};
  auto& unanswered = ++unanswered_[peer];
  if (unanswered > config_.controller.client_queue_max) {
    fail(call, make_error(ErrorCode::kLimitReached, "this connection has " + std::to_string(unanswered - 1) +
                                                        " unanswered requests (controller.client_queue_max): read the "
                                                        "replies first"));
    return;
  }
  switch (request.body_case()) {
    case pb::Request::kPing:
      return ping(call);
    case pb::Request::kSubmit:
      return submit(call, request);
    case pb::Request::kCancel:
    case pb::Request::kHold:
    case pb::Request::kRelease:
    case pb::Request::kRequeue:
    case pb::Request::kSuspend:
    case pb::Request::kContinueJobs:
    case pb::Request::kDrain:
    case pb::Request::kResume:
      return operate(call, request);
    case pb::Request::kJobs:
      return jobs(call, request);
    case pb::Request::kNodes:
      return nodes(call, request);
    case pb::Request::kHistory:
      return history(call, request);
    case pb::Request::kWait:
      return wait(call, request);
    case pb::Request::kTicket:
      return ticket(call, request);
    case pb::Request::kConfig:
      return show_config(call);
    case pb::Request::kUpdate:
      return update(call, request);
    case pb::Request::kSettings:
      return change_settings(call, request);
    case pb::Request::kAccountingChange:
      return change_accounting(call, request);
    case pb::Request::kAccounting:
      return accounting(call, request);
    case pb::Request::kPriorities:
      return priorities(call, request);
    case pb::Request::kReservationChange:
      return change_reservation(call, request);
    case pb::Request::kReservations:
      return reservations(call, request);
    case pb::Request::kLicenses:
      return licenses(call, request);
    case pb::Request::BODY_NOT_SET:
      break;
  }
  fail(call, invalid_argument(std::string("the controller (version ") + kVersion +
                              ") does not know this request: use a client of the same version"));
}

// ---------------------------------------------------------------- changes

void Requests::ping(const Call& call) {
  const auto& state = pipeline_.state();
  auto message = std::make_shared<pb::Reply>();
  auto& out = *message->mutable_ping();
  out.set_version(kVersion);
  out.set_cluster(config_.cluster.name);
  out.set_term(state.term.value);
  out.set_now_us(pipeline_.now().us);
  out.set_jobs_pending(state.waiting_tasks);
  out.set_jobs_active(state.active_jobs);
  out.set_nodes_connected(nodes_.connected());
  out.set_nodes_known(state.nodes.size());
  out.set_started_us(started_.us);
  out.set_state_bytes(resident_bytes());
  reply_after_commit(call, std::move(message));
}

Status Requests::check_submission(const Call& call, const pb::Request& request, JobSpec& spec) {
  const auto& in = request.submit();
  if (in.request().high() == 0 && in.request().low() == 0) {
    return invalid_argument("the submission has no request id: use a client of the same version");
  }
  if (spec.user.empty()) {
    spec.user = call.caller.user;
  }
  if (spec.user != call.caller.user && !call.caller.admin) {
    return make_error(ErrorCode::kPermissionDenied, "a job of user " + printable(spec.user) +
                                                        " cannot be submitted with the key of " + call.caller.user +
                                                        ": use that user's key");
  }
  MUSTER_TRY(users_.check(spec.user, spec.uid, spec.gid, pipeline_.now()));
  if (spec.kind == JobKind::kBatch) {
    MUSTER_TRY(
        check_script(in.script(), std::min<std::uint64_t>(config_.controller.script_bytes_max, wire::kScriptBytesMax)));
  } else if (!in.script().empty()) {
    return invalid_argument("a job of `muster run` or `muster alloc` has no script: use muster submit");
  }
  if (in.environment().size() > wire::kEnvironmentBytesMax) {
    return invalid_argument("the environment has " + std::to_string(in.environment().size()) + " bytes, the limit is " +
                            std::to_string(wire::kEnvironmentBytesMax) + ": choose variables with --export");
  }
  return ok_status();
}

// Where the accepted job would go; its spec has the defaults filled in only in the fact.
void Requests::plan_test(const engine::Decision& decision, pb::SubmitReply& out) {
  const auto* submitted = std::get_if<JobSubmitted>(&decision.facts.front().body);
  if (submitted == nullptr || decision.facts.size() > 1) {
    return;  // with a dependency that is open nobody knows when
  }
  const Instant now = pipeline_.now();
  const engine::Explainer& explainer = explanations_.get(pipeline_.state(), pipeline_.policy(), now);
  const auto spot = explainer.place_of_new(*submitted->spec);
  if (!spot) {
    std::string waits_for;
    for (const sched::Blocker& blocker : explainer.blockers_of_new(*submitted->spec)) {
      waits_for += (waits_for.empty() ? "" : "; ") + blocker.text;
    }
    out.set_waits_for(waits_for);
    return;
  }
  out.set_starts_now(spot->start <= now);
  out.set_planned_start_us(spot->start.us);
  for (const sched::Slot& slot : spot->slots) {
    out.add_planned_nodes(pipeline_.state().nodes[slot.node.value].name);
  }
}

// A request that waits for what the history knows of the jobs that its dependency names.
struct Requests::Lookup {
  Call call;
  Dependency dependency;
  std::vector<EndedJob> ended;
  std::function<void(std::vector<EndedJob>)> done;
};

void Requests::submit(const Call& call, const pb::Request& request) {
  const auto& in = request.submit();
  auto parsed = wire::from_pb(in.spec());
  if (!parsed.ok()) {
    return fail(call, parsed.error());
  }
  if (const Status status = check_submission(call, request, *parsed); !status.ok()) {
    return fail(call, status.error());
  }
  parsed->script = digest_of(in.script());
  parsed->environment = digest_of(in.environment());
  SubmitJob command;
  command.caller = call.caller;
  command.request = RequestId{in.request().high(), in.request().low()};
  command.spec = std::make_shared<const JobSpec>(std::move(*parsed));
  if (in.test_only()) {
    command.request = RequestId{};
  }
  const Dependency& dependency = command.spec->dependency;
  look_up_ended(call, dependency,
                [this, call, command, script = in.script(), environment = in.environment(),
                 test_only = in.test_only()](std::vector<EndedJob> ended) mutable {
                  command.ended = std::move(ended);
                  accept(call, command, script, environment, test_only);
                });
}

void Requests::look_up_ended(const Call& call, const Dependency& dependency,
                             std::function<void(std::vector<EndedJob>)> done) {
  go_on(std::make_shared<Lookup>(Lookup{call, dependency, {}, std::move(done)}));
}

// Asks the history whether the job, task or whole array has ended, and how. What has just ended is in it after the open
// batch.
void Requests::look_up(const std::shared_ptr<Lookup>& lookup, const DependencyTarget& target) {
  HistoryFilter filter;
  filter.items.push_back({target.job, target.has_task, {}});
  if (target.has_task) {
    filter.items.back().indices.push_back(ArrayRange{target.task, target.task, 1});
  }
  filter.limit = kNamedTasksMax;
  pipeline_.after_commit([this, lookup, target, filter = std::move(filter)]() mutable {
    HistoryFilter bad_ends = filter;
    for (std::uint32_t state = 0; state <= static_cast<std::uint32_t>(JobState::kDeadline); ++state) {
      if (is_terminal(static_cast<JobState>(state)) && static_cast<JobState>(state) != JobState::kCompleted) {
        bad_ends.states.push_back(static_cast<JobState>(state));
      }
    }
    filter.with_requeued = true;  // a start counts, whatever became of it
    read_history(lookup->call, std::move(filter), [this, lookup, target, bad_ends](HistoryRows rows) mutable {
      EndedJob ended{.target = target, .completed = true, .start = {}};
      bool found = false;
      for (const JobSummary& row : rows->jobs) {
        if (is_meant(row, target)) {
          found = found || !row.requeued;
          ended.start = std::max(ended.start, row.start_time);
          if (row.array == target.job && row.spec->array) {
            ended.array = row.spec->array;
          }
        }
      }
      if (!found) {
        return lookup->done(std::move(lookup->ended));  // refused, unless it repeats an accepted submission
      }
      rows.reset();
      // An array may have more tasks than rows were asked for: whether one of them failed is a question of its own.
      read_history(lookup->call, std::move(bad_ends), [this, lookup, target, ended](const HistoryRows& bad) mutable {
        for (const JobSummary& row : bad->jobs) {
          if (is_meant(row, target)) {
            ended.completed = false;
            add(ended.failed, {row.array_position, row.array_position + row.count});
          }
        }
        if (bad->cut) {
          ended.array.reset();  // not all of the failed ones are known, so no tasks can be paired with it
        }
        lookup->ended.push_back(std::move(ended));
        go_on(lookup);
      });
    });
  });
}

void Requests::go_on(const std::shared_ptr<Lookup>& lookup) {
  if (const auto target = unknown_target(pipeline_.state(), lookup->dependency, lookup->ended)) {
    return look_up(lookup, *target);
  }
  lookup->done(std::move(lookup->ended));
}

void Requests::accept(const Call& call, const SubmitJob& command, const std::string& script,
                      const std::string& environment, bool test_only) {
  const auto decision = test_only ? pipeline_.test(command) : pipeline_.execute(command);
  if (!decision.ok()) {
    return fail(call, decision.error());
  }
  if (!test_only && !decision->facts.empty()) {
    for (const auto& [digest, bytes] :
         {std::pair{command.spec->script, &script}, std::pair{command.spec->environment, &environment}}) {
      if (digest.is_set()) {
        if (nodes_.blobs().get(digest) == nullptr) {
          nodes_.blobs().put(digest, std::make_shared<const std::string>(*bytes));
        }
        pipeline_.add_blob(digest, *bytes);
      }
    }
  }
  auto message = std::make_shared<pb::Reply>();
  message->mutable_submit()->set_job(test_only ? 0 : decision->job.value);
  message->mutable_submit()->set_tasks(command.spec->array ? command.spec->array->size() : 1);
  if (test_only && !decision->facts.empty()) {
    plan_test(*decision, *message->mutable_submit());
  }
  reply_after_commit(call, std::move(message));
}

void Requests::operate(const Call& call, const pb::Request& request) {
  const auto selector_in = [&]() -> const pb::JobSelector* {
    switch (request.body_case()) {
      case pb::Request::kCancel:
        return &request.cancel().jobs();
      case pb::Request::kHold:
        return &request.hold().jobs();
      case pb::Request::kRelease:
        return &request.release().jobs();
      case pb::Request::kRequeue:
        return &request.requeue().jobs();
      case pb::Request::kSuspend:
        return &request.suspend().jobs();
      case pb::Request::kContinueJobs:
        return &request.continue_jobs().jobs();
      default:
        return nullptr;
    }
  }();
  JobSelector selector;
  if (selector_in != nullptr) {
    auto parsed = read_selector(*selector_in, pipeline_.policy());
    if (!parsed.ok()) {
      return fail(call, parsed.error());
    }
    selector = std::move(*parsed);
    if (selector == JobSelector{}) {
      return fail(call, invalid_argument("no job is selected: name jobs, or give a filter"));
    }
  }
  std::vector<std::string> names;
  const auto& drain = request.has_drain() ? request.drain() : request.resume();
  for (const auto& name : drain.nodes()) {
    names.push_back(name);
  }
  Command command;
  switch (request.body_case()) {
    case pb::Request::kCancel:
      command = CancelJobs{call.caller, std::move(selector), request.cancel().signal()};
      break;
    case pb::Request::kHold:
      command = HoldJobs{call.caller, std::move(selector)};
      break;
    case pb::Request::kRelease:
      command = ReleaseJobs{call.caller, std::move(selector)};
      break;
    case pb::Request::kRequeue:
      command = RequeueJobs{call.caller, std::move(selector)};
      break;
    case pb::Request::kSuspend:
      command = SuspendJobs{call.caller, std::move(selector)};
      break;
    case pb::Request::kContinueJobs:
      command = ContinueJobs{call.caller, std::move(selector)};
      break;
    case pb::Request::kDrain:
      command = DrainNodes{call.caller, std::move(names), request.drain().reason()};
      break;
    default:
      command = ResumeNodes{call.caller, std::move(names)};
      break;
  }
  operate_on_jobs(call, command);
}

void Requests::operate_on_jobs(const Call& call, const Command& command) {
  auto decision = pipeline_.execute(command);
  if (!decision.ok()) {
    return fail(call, decision.error());
  }
  if (decision->unknown.empty()) {
    return answer_operation(call, decision->matched, std::move(decision->notes), std::move(decision->remarks));
  }
  HistoryFilter filter;
  for (const JobId id : decision->unknown) {
    filter.items.push_back({id, false, {}});
  }
  filter.limit = kNamedTasksMax;
  // The operation is done, whether the history answers or not. What has just ended is in it after the open batch.
  pipeline_.after_commit([this, call, filter = std::move(filter), decision = std::move(*decision)]() mutable {
    read_history(std::move(filter), [this, call, decision = std::move(decision)](Result<HistoryRows> rows) mutable {
      for (const JobId id : decision.unknown) {
        decision.notes.push_back(id_text(id) + ": " + why_unknown(id, rows.ok() ? rows->get() : nullptr));
      }
      answer_operation(call, decision.matched, std::move(decision.notes), std::move(decision.remarks));
    });
  });
}

void Requests::answer_operation(const Call& call, std::uint64_t matched, std::vector<std::string> notes,
                                std::vector<std::string> remarks) {
  auto message = std::make_shared<pb::Reply>();
  auto& out = *message->mutable_operation();
  out.set_matched(matched);
  out.set_failed(!notes.empty());
  std::move(remarks.begin(), remarks.end(), std::back_inserter(notes));
  for (std::size_t i = 0; i < std::min(notes.size(), kNotesMax); ++i) {
    out.add_notes(notes[i]);
  }
  if (notes.size() > kNotesMax) {
    out.add_notes("and " + std::to_string(notes.size() - kNotesMax) + " more of this kind");
  }
  reply_after_commit(call, std::move(message));
}

}  // namespace muster::ctld
