#include "ctld/requests.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <variant>

#include "ctld/views.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/hash.h"
#include "lib/io/zap.h"
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

std::string id_text(JobId id) {
  return "job " + std::to_string(id.value);
}

Error no_such_job(JobId id) {
  return make_error(ErrorCode::kNotFound, id_text(id) + ": no such job: see `muster queue` and `muster history`");
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

bool owns(const Caller& caller, const JobSpec& spec) {
  return caller.admin || caller.user == spec.user;
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

Digest digest_of(const std::string& bytes) {
  return bytes.empty() ? Digest{} : Digest{io::blake2b_256(bytes)};
}

bool matches(const JobSelector& selector, const Job& job) {
  if ((!selector.user.empty() && selector.user != job.spec->user) ||
      (!selector.queue.empty() && selector.queue != job.spec->queue) ||
      (!selector.name.empty() && selector.name != job.spec->name)) {
    return false;
  }
  return selector.states.empty() ||
         std::find(selector.states.begin(), selector.states.end(), job.state()) != selector.states.end();
}

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

bool is_waiting_at(const Job& array, std::uint64_t position) {
  return std::any_of(array.waiting.begin(), array.waiting.end(),
                     [&](const PositionRange& range) { return range.begin <= position && position < range.end; });
}

}  // namespace

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
    return invalid_argument("a job of `muster run` has no script: use muster submit");
  }
  if (in.environment().size() > wire::kEnvironmentBytesMax) {
    return invalid_argument("the environment has " + std::to_string(in.environment().size()) + " bytes, the limit is " +
                            std::to_string(wire::kEnvironmentBytesMax) + ": choose variables with --export");
  }
  return ok_status();
}

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
  const auto decision = in.test_only() ? pipeline_.test(command) : pipeline_.execute(command);
  if (!decision.ok()) {
    return fail(call, decision.error());
  }
  if (!in.test_only() && !decision->facts.empty()) {
    for (const auto& [digest, bytes] :
         {std::pair{command.spec->script, &in.script()}, std::pair{command.spec->environment, &in.environment()}}) {
      if (digest.is_set()) {
        if (nodes_.blobs().get(digest) == nullptr) {
          nodes_.blobs().put(digest, std::make_shared<const std::string>(*bytes));
        }
        pipeline_.add_blob(digest, *bytes);
      }
    }
  }
  auto message = std::make_shared<pb::Reply>();
  message->mutable_submit()->set_job(in.test_only() ? 0 : decision->job.value);
  message->mutable_submit()->set_tasks(command.spec->array ? command.spec->array->size() : 1);
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
    case pb::Request::kDrain:
      command = DrainNodes{call.caller, std::move(names), request.drain().reason()};
      break;
    default:
      command = ResumeNodes{call.caller, std::move(names)};
      break;
  }
  auto decision = pipeline_.execute(command);
  if (!decision.ok()) {
    return fail(call, decision.error());
  }
  if (decision->unknown.empty()) {
    return answer_operation(call, decision->matched, std::move(decision->notes));
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
      answer_operation(call, decision.matched, std::move(decision.notes));
    });
  });
}

void Requests::answer_operation(const Call& call, std::uint64_t matched, std::vector<std::string> notes) {
  auto message = std::make_shared<pb::Reply>();
  auto& out = *message->mutable_operation();
  out.set_matched(matched);
  for (std::size_t i = 0; i < std::min(notes.size(), kNotesMax); ++i) {
    out.add_notes(notes[i]);
  }
  if (notes.size() > kNotesMax) {
    out.add_notes("and " + std::to_string(notes.size() - kNotesMax) + " more of this kind");
  }
  out.set_failed(!notes.empty());
  reply_after_commit(call, std::move(message));
}

// ---------------------------------------------------------------- jobs

// A question about jobs on its way through the State, part after part.
struct Requests::JobWalk {
  Call call;
  JobSelector selector;
  bool with_ended = false;
  bool with_placement = false;
  // Array records and jobs share ids: records come first.
  JobId next_array;
  JobId next_job;
  std::set<JobId> shown;        // by id, of named jobs
  std::set<JobId> shown_items;  // named items that were found
  std::vector<std::string> notes;
};

void Requests::jobs(const Call& call, const pb::Request& request) {
  auto selector = read_selector(request.jobs().jobs(), pipeline_.policy());
  if (!selector.ok()) {
    return fail(call, selector.error());
  }
  auto walk = std::make_shared<JobWalk>();
  walk->call = call;
  walk->selector = std::move(*selector);
  walk->with_ended = request.jobs().with_ended();
  walk->with_placement = request.jobs().with_placement();
  if (walk->selector.items.empty()) {
    jobs_part(walk);
  } else {
    jobs_named(walk);
  }
}

// The next kViewsPerReply jobs in the order of their ids. The State may change between two parts; each part is true.
void Requests::jobs_part(const std::shared_ptr<JobWalk>& walk) {
  const auto& state = pipeline_.state();
  Views views(state, pipeline_.policy(), pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_jobs();
  auto array = state.arrays.lower_bound(walk->next_array);
  auto job = state.jobs.lower_bound(walk->next_job);
  std::size_t seen = 0;
  // Jobs that the filter passes over count as well, less: a round stays short whatever the filter is.
  while ((array != state.arrays.end() || job != state.jobs.end()) && seen < kViewsPerReply * 50) {
    const bool take_array = job == state.jobs.end() || (array != state.arrays.end() && array->first <= job->first);
    const Job& each = take_array ? (array++)->second : (job++)->second;
    const bool shown = matches(walk->selector, each) && !(each.is_array_record && each.waiting.empty());
    if (shown) {
      views.job(each, walk->with_placement, *list.add_jobs());
    }
    seen += shown ? 50 : 1;
  }
  const bool more = array != state.arrays.end() || job != state.jobs.end();
  walk->next_array = array != state.arrays.end() ? array->first : JobId(UINT64_MAX);
  walk->next_job = job != state.jobs.end() ? job->first : JobId(UINT64_MAX);
  part_after_commit(walk->call, message, more ? [this, walk] { jobs_part(walk); } : std::function<void()>());
}

void Requests::jobs_named(const std::shared_ptr<JobWalk>& walk) {
  const auto& state = pipeline_.state();
  Views views(state, pipeline_.policy(), pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_jobs();
  bool cut = false;
  const auto room = [&] {
    cut = cut || static_cast<std::size_t>(list.jobs_size()) >= kNamedTasksMax;
    return !cut;
  };
  const auto show = [&](const Job& job, JobId item) {
    walk->shown_items.insert(item);
    if (matches(walk->selector, job) && room() && (job.is_array_record || walk->shown.insert(job.id).second)) {
      views.job(job, walk->with_placement, *list.add_jobs());
    }
  };
  const auto show_waiting = [&](const Job& array, std::uint64_t position, JobId item) {
    walk->shown_items.insert(item);
    if (matches(walk->selector, array) && room() && walk->shown.insert(JobId(array.id.value + position)).second) {
      views.waiting_task(array, position, *list.add_jobs());
    }
  };
  for (const auto& item : walk->selector.items) {
    const Job* array = engine::find_array(state, item.id);
    if (item.has_indices) {
      if (array == nullptr) {
        continue;
      }
      for (const auto& range : item.indices) {
        for (std::uint64_t i = 0; i < range.count() && room(); ++i) {
          const auto position = array->spec->array->position_of(range.first + i * range.step);
          if (!position) {
            continue;
          }
          if (is_waiting_at(*array, *position)) {
            show_waiting(*array, *position, item.id);
          } else if (const Job* task = engine::find_job(state, JobId(item.id.value + *position))) {
            show(*task, item.id);
          }
        }
      }
    } else if (array != nullptr) {
      if (!array->waiting.empty()) {
        show(*array, item.id);
      }
      const JobId end(item.id.value + array->spec->array->size());
      for (auto task = state.jobs.lower_bound(item.id); task != state.jobs.end() && task->first < end && room();
           ++task) {
        show(task->second, item.id);
      }
    } else if (const Job* job = engine::find_job(state, item.id)) {
      show(*job, item.id);
    } else if (const Job* of = engine::find_array_of(state, item.id)) {
      show_waiting(*of, item.id.value - of->id.value, item.id);
    }
  }
  if (cut) {
    walk->notes.push_back("more than " + std::to_string(kNamedTasksMax) + " tasks are meant: only these are shown");
  }
  const bool more = walk->with_ended;
  if (!more) {
    for (const auto& note : walk->notes) {
      list.add_notes(note);
    }
  }
  part_after_commit(walk->call, message, more ? [this, walk] { jobs_ended(walk); } : std::function<void()>());
}

// The second half of a question that names jobs: those of them that have ended.
void Requests::jobs_ended(const std::shared_ptr<JobWalk>& walk) {
  HistoryFilter filter;
  for (const auto& item : walk->selector.items) {
    filter.items.push_back({item.id, item.has_indices, item.indices});
  }
  filter.user = walk->selector.user;
  filter.queue = walk->selector.queue;
  filter.name = walk->selector.name;
  filter.states = walk->selector.states;
  filter.limit = kNamedTasksMax;
  read_history(walk->call, std::move(filter), [this, walk](HistoryRows page) {
    std::erase_if(page->jobs, [&](const JobSummary& job) { return !walk->shown.insert(job.id).second; });
    for (const auto& job : page->jobs) {
      walk->shown_items.insert(job.id);
      walk->shown_items.insert(job.array);
    }
    for (const auto& item : walk->selector.items) {
      if (!walk->shown_items.contains(item.id)) {
        walk->notes.push_back(no_such_job(item.id).message);
      }
    }
    history_part(walk->call, std::move(page), 0, walk->with_placement, walk->notes);
  });
}

// ---------------------------------------------------------------- nodes and configuration

void Requests::nodes(const Call& call, const pb::Request& request) {
  const auto& state = pipeline_.state();
  std::vector<NodeIndex> which;
  std::vector<std::string> notes;
  for (const auto& name : request.nodes().names()) {
    if (const Node* node = engine::find_node(state, name)) {
      which.push_back(node->index);
    } else {
      notes.push_back("node " + printable(name) + ": no such node: see `muster nodes`");
    }
  }
  if (request.nodes().names().empty()) {
    which = state.ledger.order();
  }
  nodes_part(call, std::move(which), 0, std::move(notes));
}

void Requests::nodes_part(const Call& call, std::vector<NodeIndex> which, std::size_t from,
                          std::vector<std::string> notes) {
  const auto& state = pipeline_.state();
  Views views(state, pipeline_.policy(), pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_nodes();
  const std::size_t end = std::min(which.size(), from + kViewsPerReply);
  for (std::size_t i = from; i < end; ++i) {
    views.node(state.nodes[which[i].value], *list.add_nodes());
  }
  const bool more = end < which.size();
  if (!more) {
    for (const auto& note : notes) {
      list.add_notes(note);
    }
  }
  std::function<void()> next;
  if (more) {
    next = [this, call, end, which = std::move(which), notes = std::move(notes)] {
      nodes_part(call, which, end, notes);
    };
  }
  part_after_commit(call, message, std::move(next));
}

void Requests::show_config(const Call& call) {
  auto message = std::make_shared<pb::Reply>();
  auto& out = *message->mutable_config();
  for (const auto& key : config::show(config_)) {
    auto& value = *out.add_values();
    value.set_key(key.name);
    value.set_value(key.value);
    value.set_source(key.is_default ? "default" : config_.path);
  }
  reply_after_commit(call, std::move(message));
}

// ---------------------------------------------------------------- history

void Requests::read_history(const Call& call, HistoryFilter filter, std::function<void(HistoryRows)> done) {
  read_history(std::move(filter), [this, call, done = std::move(done)](Result<HistoryRows> rows) {
    if (rows.ok()) {
      done(std::move(*rows));
    } else {
      fail(call, rows.error());
    }
  });
}

void Requests::read_history(HistoryFilter filter, std::function<void(Result<HistoryRows>)> done) {
  if (history_queue_.size() >= kHistoryReadsQueued) {
    return done(
        make_error(ErrorCode::kLimitReached, "too many questions about history are waiting: try again later"));
  }
  history_queue_.push_back({std::move(filter), [this, done = std::move(done)](Result<HistoryPage> page) {
                              // The next question is read when these rows are gone.
                              HistoryRows rows(new HistoryPage(page.ok() ? std::move(*page) : HistoryPage{}),
                                               [this, alive = std::weak_ptr<int>(alive_)](HistoryPage* gone) {
                                                 delete gone;
                                                 if (!alive.expired()) {
                                                   --history_reads_;
                                                   next_history_read();
                                                 }
                                               });
                              if (page.ok()) {
                                done(std::move(rows));
                              } else {
                                done(page.error());
                              }
                            }});
  next_history_read();
}

void Requests::next_history_read() {
  while (history_reads_ < kHistoryReadsAtOnce && !history_queue_.empty() && !pipeline_.full()) {
    ++history_reads_;
    HistoryRead read = std::move(history_queue_.front());
    history_queue_.pop_front();
    journal_.read_history(std::move(read.filter), std::move(read.done));
  }
}

void Requests::history(const Call& call, const pb::Request& request) {
  const auto& in = request.history();
  // The selector's decoder checks items and states.
  pb::JobSelector selector_in;
  *selector_in.mutable_items() = in.items();
  *selector_in.mutable_states() = in.states();
  auto selector = read_selector(selector_in, pipeline_.policy());
  if (!selector.ok()) {
    return fail(call, selector.error());
  }
  HistoryFilter filter;
  for (auto& item : selector->items) {
    filter.items.push_back({item.id, item.has_indices, std::move(item.indices)});
  }
  filter.states = std::move(selector->states);
  filter.user = in.user();
  filter.since = Instant::from_us(in.since_us());
  filter.until = Instant::from_us(in.until_us());
  filter.limit = in.limit();
  // What has ended is in the database when the open batch is.
  pipeline_.after_commit([this, call, filter = std::move(filter)]() mutable {
    const std::uint64_t limit = filter.limit;
    read_history(call, std::move(filter), [this, call, limit](HistoryRows page) {
      std::vector<std::string> notes;
      if (page->cut && limit != page->jobs.size()) {
        notes.push_back("only the newest " + std::to_string(page->jobs.size()) +
                        " jobs are shown: ask for a shorter time");
      }
      history_part(call, std::move(page), 0, false, std::move(notes));
    });
  });
}

// The rows are on disk; what else a view tells comes from the State, which may be ahead.
void Requests::history_part(const Call& call, HistoryRows page, std::size_t from, bool with_placement,
                            std::vector<std::string> notes) {
  const Views views(pipeline_.state(), pipeline_.policy(), pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_jobs();
  const std::size_t end = std::min(page->jobs.size(), from + kViewsPerReply);
  for (std::size_t i = from; i < end; ++i) {
    views.ended(page->jobs[i], with_placement, *list.add_jobs());
  }
  std::function<void()> next;
  if (end < page->jobs.size()) {
    next = [this, call, page, end, with_placement, notes = std::move(notes)] {
      history_part(call, page, end, with_placement, notes);
    };
  } else {
    if (page->damaged > 0) {
      notes.push_back(std::to_string(page->damaged) + " rows of the history are damaged and left out");
    }
    for (const auto& note : notes) {
      list.add_notes(note);
    }
  }
  part_after_commit(call, std::move(message), std::move(next));
}

// ---------------------------------------------------------------- waiting

void Requests::wait(const Call& call, const pb::Request& request) {
  const auto& in = request.wait();
  const auto& state = pipeline_.state();
  const JobId id(in.job());
  const bool is_array = engine::find_array(state, id) != nullptr;
  const Job* job = is_array ? nullptr : engine::find_job(state, id);
  const bool waits = is_array || job != nullptr || engine::find_array_of(state, id) != nullptr;
  bool done = !waits;
  if (!in.until_ended()) {
    done = done || (job != nullptr && job->state() == JobState::kRunning) ||
           (is_array && engine::find_array(state, id)->array_running > 0);
  }
  if (done) {
    return answer_wait(call, id, is_array, {});
  }
  if (waiters_.size() >= kWaitersMax) {
    return fail(call, make_error(ErrorCode::kLimitReached, "too many clients wait for jobs: try again later"));
  }
  Duration timeout = in.timeout_us() > 0 ? Duration::from_us(in.timeout_us()) : kWaitMax;
  timeout = std::min(timeout, kWaitMax);
  Waiter waiter{call, id, is_array, in.until_ended(), io::boottime_now() + timeout};
  const std::uint64_t number = next_waiter_++;
  waiters_by_job_.emplace(id, number);
  waiters_by_deadline_.emplace(waiter.deadline, number);
  waiters_.emplace(number, std::move(waiter));
  arm_wait_timer();
}

void Requests::remove_waiter(std::uint64_t number) {
  const auto waiter = waiters_.find(number);
  waiters_by_deadline_.erase({waiter->second.deadline, number});
  const auto [begin, end] = waiters_by_job_.equal_range(waiter->second.job);
  for (auto each = begin; each != end; ++each) {
    if (each->second == number) {
      waiters_by_job_.erase(each);
      break;
    }
  }
  waiters_.erase(waiter);
}

void Requests::perform(const Effects& effects) {
  if (waiters_.empty()) {
    return;
  }
  std::map<JobId, const JobSummary*> ended;
  for (const auto& effect : effects) {
    if (const auto* record = std::get_if<RecordHistory>(&effect)) {
      ended[record->summary.id] = &record->summary;
    }
  }
  for (const auto& effect : effects) {
    const auto* announced = std::get_if<AnnounceJob>(&effect);
    if (announced == nullptr) {
      continue;
    }
    const bool terminal = announced->whole_array || is_terminal(announced->state);
    std::vector<std::uint64_t> told;
    const auto collect = [&](JobId job, bool is_array) {
      const auto [begin, end] = waiters_by_job_.equal_range(job);
      for (auto each = begin; each != end; ++each) {
        const Waiter& waiter = waiters_.at(each->second);
        if (waiter.is_array == is_array && (terminal || !waiter.until_ended)) {
          told.push_back(each->second);
        }
      }
    };
    collect(announced->job, announced->whole_array);
    if (const Job* task = engine::find_job(pipeline_.state(), announced->job);
        !terminal && task != nullptr && task->array.value != 0) {
      collect(task->array, true);  // an array has started when one of its tasks has
    }
    for (const std::uint64_t number : told) {
      const Waiter waiter = waiters_.at(number);
      remove_waiter(number);
      answer_wait(waiter.call, waiter.job, waiter.is_array, ended);
    }
  }
  arm_wait_timer();
}

// What is known of the job now. The State may be ahead of the disk, whoever calls: only what `ended` says is committed.
void Requests::answer_wait(const Call& call, JobId id, bool is_array, const std::map<JobId, const JobSummary*>& ended) {
  const auto& state = pipeline_.state();
  Views views(state, pipeline_.policy(), pipeline_.now());
  auto message = std::make_shared<pb::Reply>();
  auto& list = *message->mutable_jobs();
  if (const auto summary = ended.find(id); !is_array && summary != ended.end()) {
    views.ended(*summary->second, false, *list.add_jobs());
    return reply(call, *message);
  }
  const Job* array = engine::find_array(state, id);
  const Job* job = engine::find_job(state, id);
  const Job* of = engine::find_array_of(state, id);
  if (is_array && array != nullptr) {
    views.job(*array, false, *list.add_jobs());
  } else if (is_array) {
    // Its tasks are in the history; here it only matters that none is left.
    auto& view = *list.add_jobs();
    view.set_id(id.value);
    view.set_array(id.value);
    view.set_state(static_cast<std::uint32_t>(JobState::kCompleted));
  } else if (job != nullptr) {
    views.job(*job, false, *list.add_jobs());
  } else if (of != nullptr) {
    views.waiting_task(*of, id.value - of->id.value, *list.add_jobs());
  } else {
    // Its end may be in the open batch, and in the history after that.
    pipeline_.after_commit([this, call, id] {
      HistoryFilter filter;
      filter.items.push_back({id, false, {}});
      filter.limit = kViewsPerReply;
      read_history(call, std::move(filter), [this, call, id](HistoryRows page) {
        if (page->jobs.empty()) {
          return fail(call, no_such_job(id));
        }
        history_part(call, std::move(page), 0, false, {});
      });
    });
    return;
  }
  reply_after_commit(call, std::move(message));
}

void Requests::expire_waiters() {
  const Duration now = io::boottime_now();
  while (!waiters_by_deadline_.empty() && waiters_by_deadline_.begin()->first <= now) {
    const std::uint64_t number = waiters_by_deadline_.begin()->second;
    const Waiter waiter = waiters_.at(number);
    remove_waiter(number);
    answer_wait(waiter.call, waiter.job, waiter.is_array, {});
  }
  arm_wait_timer();
}

void Requests::arm_wait_timer() {
  if (waiters_by_deadline_.empty()) {
    wait_timer_.stop();
    return;
  }
  wait_timer_.start_once(std::max(waiters_by_deadline_.begin()->first - io::boottime_now(), Duration::from_ms(1)));
}

// ---------------------------------------------------------------- tickets

// The key that the caller will use with the node. A client of an early release does not say; it is known when the
// user has one key only.
Result<std::string> Requests::key_of(const Call& call, const std::string& given) const {
  if (!given.empty()) {
    return given;
  }
  MUSTER_ASSIGN(const std::string text, io::read_file(config_.controller.authorized, io::kAuthorizedBytesMax));
  MUSTER_ASSIGN(const auto keys, io::parse_authorized_keys(text, config_.controller.authorized));
  std::string found;
  for (const auto& [key, user_id] : keys) {
    if (user_id == (call.caller.admin ? "admin:" : "user:") + call.caller.user) {
      if (!found.empty()) {
        return invalid_argument("the request does not name the caller's key: use a client of the same version");
      }
      found = key;
    }
  }
  return found;
}

void Requests::ticket(const Call& call, const pb::Request& request) {
  const JobId id(request.ticket().job());
  const auto& state = pipeline_.state();
  const auto key = key_of(call, request.ticket().client_key());
  if (!key.ok()) {
    return fail(call, key.error());
  }
  const Job* job = engine::find_job(state, id);
  const Job* array = engine::find_array(state, id);
  const Job* of = array != nullptr ? array : engine::find_array_of(state, id);
  const Job* any = job != nullptr ? job : of;
  if (any != nullptr && !owns(call.caller, *any->spec)) {
    return fail(call, make_error(ErrorCode::kPermissionDenied,
                                 id_text(id) + " belongs to " + any->spec->user + ": only its user may do this"));
  }
  if (job == nullptr && of == nullptr) {
    pipeline_.after_commit([this, call, id, client_key = *key] { ticket_of_ended(call, id, client_key); });
    return;
  }
  const auto* active = job != nullptr ? std::get_if<Active>(&job->phase) : nullptr;
  if (active == nullptr) {
    return fail(call, make_error(ErrorCode::kRefused, id_text(id) + " has not started: wait until it runs"));
  }
  if (!active->started) {
    return fail(call, make_error(ErrorCode::kUnavailable, id_text(id) + " is starting: try again"));
  }
  const Node& node = state.nodes[active->nodes.front().share.node.value];
  auto message = std::make_shared<pb::Reply>();
  auto& out = *message->mutable_ticket();
  tickets_.for_client(*job, node.name, *key, pipeline_.now(), *out.mutable_ticket());
  out.set_endpoint(node.endpoint);
  out.set_public_key(node.public_key);
  out.set_node(node.name);
  Views(state, pipeline_.policy(), pipeline_.now()).job(*job, false, *out.mutable_job());
  reply_after_commit(call, std::move(message));
}

void Requests::ticket_of_ended(const Call& call, JobId id, const std::string& client_key) {
  HistoryFilter filter;
  filter.items.push_back({id, false, {}});
  filter.limit = kViewsPerReply;
  read_history(call, std::move(filter), [this, call, id, client_key](HistoryRows page) {
    const auto found =
        std::find_if(page->jobs.begin(), page->jobs.end(), [&](const JobSummary& job) { return job.id == id; });
    if (found == page->jobs.end()) {
      return fail(call, no_such_job(id));
    }
    const JobSummary& job = *found;
    if (!owns(call.caller, *job.spec)) {
      return fail(call, make_error(ErrorCode::kPermissionDenied,
                                   id_text(id) + " belongs to " + job.spec->user + ": only its user may do this"));
    }
    if (job.nodes.empty()) {
      return fail(call, make_error(ErrorCode::kRefused, id_text(id) + " never started: it has no output"));
    }
    const auto& state = pipeline_.state();
    const Node* node = engine::find_node(state, job.nodes.front());
    if (node == nullptr || node->contact != Contact::kConnected) {
      return fail(call, make_error(ErrorCode::kRefused, "node " + job.nodes.front() + ", which has the output of " +
                                                            id_text(id) + ", is not connected: try again when it is"));
    }
    auto message = std::make_shared<pb::Reply>();
    auto& out = *message->mutable_ticket();
    tickets_.for_client(job, client_key, pipeline_.now(), *out.mutable_ticket());
    out.set_endpoint(node->endpoint);
    out.set_public_key(node->public_key);
    out.set_node(node->name);
    Views(state, pipeline_.policy(), pipeline_.now()).ended(job, false, *out.mutable_job());
    // Where the node is reached may not be on disk yet.
    reply_after_commit(call, std::move(message));
  });
}

}  // namespace muster::ctld
