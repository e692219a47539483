// The coordinator's side towards steps that wait for others of their job.
#include <algorithm>
#include <utility>

#include "lib/io/log.h"
#include "lib/wire/muster.pb.h"
#include "noded/step_coordinator.h"
#include "noded/step_coordinator_step.h"
#include "noded/step_programs.h"

namespace muster::noded {

namespace {

// More than two keepalives of a client that waits.
constexpr Duration kQuietMax = Duration::from_s(5);

}  // namespace

StepCoordinator::Waiting* StepCoordinator::find_waiting(const ClientAddress& client) {
  const auto in = waits_in_.find({client.key, client.stream});
  const auto queue = in == waits_in_.end() ? waiting_.end() : waiting_.find(in->second);
  if (queue == waiting_.end()) {
    return nullptr;
  }
  const auto it = std::find_if(queue->second.begin(), queue->second.end(), [&](const Waiting& waiting) {
    return waiting.client.key == client.key && waiting.client.stream == client.stream;
  });
  return it == queue->second.end() ? nullptr : &*it;
}

// What the decision about a step must know: a job may run many whole steps, which matter to exclusive ones alone.
std::vector<StepUse> StepCoordinator::uses_for(AttemptKey key, StepSharing sharing) const {
  std::vector<StepUse> out;
  const auto uses = uses_.find(key);
  if (uses == uses_.end() || sharing == StepSharing::kOverlap) {
    return out;
  }
  for (const auto& [step, use] : uses->second) {
    const bool matters = use.sharing == StepSharing::kExclusive ||
                         (use.sharing == StepSharing::kExact && sharing != StepSharing::kWhole) ||
                         (use.sharing == StepSharing::kWhole && sharing == StepSharing::kExclusive);
    if (matters) {
      out.push_back(use);
    }
  }
  return out;
}

// A new step: starts it, or lets it wait behind the others.
void StepCoordinator::enter(const ClientAddress& client, const AttemptInfo& info, const pb::RunStep& request) {
  const AttemptKey key = info.order->key;
  StepsAhead ahead;
  std::size_t before = 0;
  if (const auto queue = waiting_.find(key); queue != waiting_.end()) {
    before = queue->second.size();
    for (const Waiting& waiting : queue->second) {
      if (!waiting.away) {
        wait_before(waiting.nodes, waiting.sharing, ahead);
      }
    }
  }
  Waiting entry{.client = client,
                .request = std::make_unique<pb::RunStep>(request),
                .bytes = request.ByteSizeLong(),
                .heard = options_.now(),
                .reason = {},
                .nodes = {},
                .sharing = share_wish(*info.order, request.spec()).sharing};
  if (try_start(info, entry, ahead, false)) {
    return;
  }
  if (before >= kStepsWaitingMax) {
    return refuse(client, make_error(ErrorCode::kLimitReached,
                                     std::to_string(before) + " steps of the job wait already: start fewer at a time"));
  }
  std::size_t bytes = entry.bytes;
  for (const auto& [other, queue] : waiting_) {
    for (const Waiting& waiting : queue) {
      bytes += waiting.bytes;
    }
  }
  if (bytes > kWaitingBytesMax) {
    return refuse(client, make_error(ErrorCode::kLimitReached,
                                     "the steps that wait on this node have " + std::to_string(bytes >> 20U) +
                                         " MiB of arguments and variables: start fewer at a time, or use --export"));
  }
  tell_waiting(entry);
  waits_in_[{client.key, client.stream}] = key;
  waiting_[key].push_back(std::move(entry));
}

bool StepCoordinator::try_start(const AttemptInfo& info, Waiting& waiting, const StepsAhead& ahead, bool has_waited) {
  const AttemptKey key = info.order->key;
  if (steps_of(key) >= kStepsPerJobMax) {
    waiting.reason = "the job runs " + std::to_string(kStepsPerJobMax) + " steps, as many as it may at the same time";
    return false;
  }
  const StepShareWish wish = share_wish(*info.order, waiting.request->spec());
  const Result<StepDecision> decision =
      share_step(key.job.value, job_nodes(*info.order), uses_for(key, wish.sharing), ahead, wish);
  if (!decision) {
    refuse(waiting.client, decision.error());
    return true;
  }
  if (const auto* delay = std::get_if<StepDelay>(&*decision)) {
    waiting.reason = delay->reason;
    waiting.nodes = delay->nodes;
    return false;
  }
  const auto& grant = std::get<StepGrant>(*decision);
  if (waiting.request->spec().stdin_mode() == 0 && waiting.request->spec().stdin_rank() >= grant.plan.ntasks) {
    refuse(waiting.client,
           make_error(ErrorCode::kRefused, "--input=" + std::to_string(waiting.request->spec().stdin_rank()) +
                                               ": the step has tasks 0 to " + std::to_string(grant.plan.ntasks - 1) +
                                               ": name one of them, a file, all or none"));
    return true;
  }
  if (has_too_many_ranges(waiting.request->spec(), grant.plan.ntasks)) {
    refuse(waiting.client, make_error(ErrorCode::kLimitReached,
                                      "--multi-prog: the file names too many ranges of tasks for " +
                                          std::to_string(grant.plan.ntasks) + " tasks: use ranges, or * for the rest"));
    return true;
  }
  if (const auto rank = rank_without_program(waiting.request->spec(), grant.plan.ntasks)) {
    refuse(waiting.client,
           make_error(ErrorCode::kRefused, "--multi-prog: no line of the file names task " + std::to_string(*rank) +
                                               " of " + std::to_string(grant.plan.ntasks) + ": add one, or one for *"));
    return true;
  }
  if (has_waited && !is_there(waiting)) {
    return false;
  }
  start_granted(info, waiting, grant);
  return true;
}

void StepCoordinator::start_granted(const AttemptInfo& info, const Waiting& waiting, const StepGrant& grant) {
  const Result<StepRecords*> records = records_of(info);
  if (!records) {
    return refuse(waiting.client, records.error());
  }
  auto owned = std::make_unique<Step>();
  owned->sharing = waiting.sharing;
  StepRecord record;
  record.client_key = waiting.client.key;
  record.stream = waiting.client.stream;
  record.sharing = waiting.sharing;
  for (std::size_t i = 0; i < grant.nodes.size(); ++i) {
    const StepNodeUse& use = grant.nodes[i];
    const std::uint32_t tasks = grant.plan.nodes[i].tasks;
    record.nodes.push_back(
        {.name = info.order->peers[use.job_node].name, .tasks = tasks, .cores = use.cores, .gpus = use.gpus});
    owned->parts.push_back(
        {.job_node = use.job_node, .tasks = tasks, .ranks = {}, .cores = use.cores, .gpus = use.gpus});
  }
  const Result<std::uint32_t> number = (*records)->add(std::move(record));
  if (!number) {
    return refuse(waiting.client, number.error());
  }
  const AttemptKey key = info.order->key;
  uses_[key][*number] = {.step = *number, .sharing = waiting.sharing, .nodes = grant.nodes};
  owned->id = {.key = key, .step = *number};
  owned->deal(share_wish(*info.order, waiting.request->spec()).layout.plane);
  begin(std::move(owned), waiting.client, info, *waiting.request);
}

// Nobody would know of a step that starts and whose client is gone. A connection that is gone takes no message.
bool StepCoordinator::is_there(Waiting& waiting) {
  pb::NodeReply still_there;
  still_there.mutable_keepalive();
  waiting.away = !options_.to_client(waiting.client, still_there);
  return !waiting.away;
}

void StepCoordinator::client_is_back(Waiting& waiting, const ClientAddress& client) {
  waiting.client = client;
  waiting.heard = options_.now();
  if (waiting.away) {
    waiting.away = false;
    due_.insert(waits_in_[{client.key, client.stream}]);
  }
}

void StepCoordinator::tell_waiting(const Waiting& waiting) {
  pb::NodeReply reply;
  reply.mutable_step_waits()->set_reason(waiting.reason);
  (void)options_.to_client(waiting.client, reply);
}

void StepCoordinator::end_waiting(const Waiting& waiting, const std::string& why) {
  waits_in_.erase({waiting.client.key, waiting.client.stream});
  pb::NodeReply reply;
  reply.mutable_ended()->set_exit_code(1);
  reply.mutable_ended()->set_detail(why);
  (void)options_.to_client(waiting.client, reply);
}

void StepCoordinator::on_waiting_client(const ClientAddress& client, const pb::NodeRequest& request) {
  Waiting& waiting = *find_waiting(client);
  client_is_back(waiting, client);
  if (request.has_keepalive()) {
    pb::NodeReply reply;
    reply.mutable_keepalive();
    (void)options_.to_client(client, reply);
  } else if (request.has_signal()) {  // nothing runs that could take another one than the end
    const AttemptKey key = waits_in_[{client.key, client.stream}];
    end_waiting(waiting, "its client asked for it");
    waiting_[key].remove_if([&](const Waiting& one) { return &one == &waiting; });
    due_.insert(key);  // those behind it may not have to wait
  }
}

void StepCoordinator::start_waiting() {
  while (!due_.empty()) {
    const AttemptKey key = *due_.begin();
    due_.erase(due_.begin());
    start_waiting_of(key);
  }
}

void StepCoordinator::start_waiting_of(AttemptKey key) {
  const auto queue = waiting_.find(key);
  const Result<AttemptInfo> info = options_.attempts->find(key);
  if (queue == waiting_.end() || !info) {
    return;
  }
  std::list<Waiting> left = std::move(queue->second);
  waiting_.erase(queue);
  const Duration now = options_.now();
  StepsAhead ahead;
  for (auto it = left.begin(); it != left.end();) {
    if (info->stopping) {
      end_waiting(*it, "job " + std::to_string(key.job.value) + " is being stopped");
      it = left.erase(it);
      continue;
    }
    // Until its client comes back, such a step is in no one's way.
    if (it->away || (now - it->heard > kQuietMax && !is_there(*it))) {
      ++it;
      continue;
    }
    const std::string told = it->reason;
    // That somebody before waits for all its nodes is known without a decision.
    const bool behind = !it->nodes.empty() && it->sharing != StepSharing::kWhole && (it->nodes - ahead.wanted).empty();
    if (!behind && try_start(*info, *it, ahead, true)) {
      waits_in_.erase({it->client.key, it->client.stream});
      it = left.erase(it);
      continue;
    }
    if (it->away) {
      ++it;
      continue;
    }
    if (it->reason != told) {
      tell_waiting(*it);
    }
    wait_before(it->nodes, it->sharing, ahead);
    ++it;
  }
  if (!left.empty()) {
    waiting_[key] = std::move(left);
  }
}

void StepCoordinator::forget_lost_waiting(Duration now) {
  for (auto queue = waiting_.begin(); queue != waiting_.end();) {
    const std::size_t before = queue->second.size();
    queue->second.remove_if([&](const Waiting& waiting) {
      if (now - waiting.heard <= options_.client_lost_after) {
        return false;
      }
      io::log_warning("the client of a step that waits is lost", {{"job", queue->first.job.value}});
      waits_in_.erase({waiting.client.key, waiting.client.stream});
      return true;
    });
    if (queue->second.size() != before) {
      due_.insert(queue->first);
    }
    queue = queue->second.empty() ? waiting_.erase(queue) : std::next(queue);
  }
}

}  // namespace muster::noded
