// Waiting for jobs, and tickets for their streams.
#include <algorithm>
#include <utility>
#include <variant>

#include "ctld/requests_common.h"
#include "ctld/views.h"
#include "lib/io/clock.h"
#include "lib/io/files.h"
#include "lib/io/zap.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {

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
    if (const auto* record = std::get_if<RecordHistory>(&effect); record != nullptr && !record->summary.requeued) {
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
  Views views(state, pipeline_.policy(), pipeline_.now(), &explanations_);
  views.set_planning_waits_until(pipeline_.planning_waits_until());
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
