#include "noded/allocation_holder.h"

#include <algorithm>
#include <vector>

#include "lib/base/text.h"
#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/job_environment.h"

namespace muster::noded {
namespace {

constexpr Duration kLook = Duration::from_s(1);

std::string job_text(AttemptKey key) {
  return "job " + std::to_string(key.job.value);
}

Outcome lost(std::string why) {
  Outcome outcome;
  outcome.cause = EndCause::kCancelled;
  outcome.detail = std::move(why);
  return outcome;
}

// What a client may say of its command. All else of an outcome is for the node to tell: it would be blamed for it.
Outcome of_command(const Outcome& said) {
  constexpr std::int32_t kExitCodeMax = 255;
  constexpr std::int32_t kSignalMax = 64;
  constexpr std::size_t kDetailMax = 200;
  Outcome out;
  if (said.cause == EndCause::kExited && said.exit_code >= 0 && said.exit_code <= kExitCodeMax) {
    out.exit_code = said.exit_code;
  } else if (said.cause == EndCause::kSignalled && said.signal > 0 && said.signal <= kSignalMax) {
    out.cause = EndCause::kSignalled;
    out.signal = said.signal;
  } else if (said.cause == EndCause::kCancelled) {
    return lost(printable(std::string_view(said.detail).substr(0, kDetailMax)));
  } else {
    return lost("its client sent an outcome that no command has");
  }
  return out;
}

}  // namespace

void AllocationHolder::refuse(const ClientAddress& client, ErrorCode code, const std::string& message) {
  pb::NodeReply reply;
  reply.mutable_refused()->set_code(static_cast<std::uint32_t>(code));
  reply.mutable_refused()->set_message(message);
  (void)options_.to_client(client, reply);
}

void AllocationHolder::hold(const ClientAddress& client, const Ticket& ticket, const AttemptInfo& info) {
  const AttemptKey key = info.order->key;
  if (ticket.uid != info.order->spec->uid) {
    return refuse(client, ErrorCode::kPermissionDenied, "the ticket is of another user than the job");
  }
  if (info.order->spec->kind != JobKind::kAlloc) {
    return refuse(client, ErrorCode::kRefused, job_text(key) + " is held by nobody: it is no job of `muster alloc`");
  }
  if (info.stopping) {
    return refuse(client, ErrorCode::kUnavailable, job_text(key) + " is being stopped");
  }
  if (!info.running) {
    return refuse(client, ErrorCode::kUnavailable, "the job's supervisor is not connected yet");
  }
  const auto known = holds_.find(key);
  if (known != holds_.end() &&
      (known->second.client.key != client.key || known->second.client.stream != client.stream)) {
    return refuse(client, ErrorCode::kPermissionDenied, job_text(key) + " has another client");
  }
  awaited_.erase(key);
  Hold& hold = holds_[key];
  hold.client = client;
  hold.heard = options_.now();
  pb::NodeReply reply;
  auto& held = *reply.mutable_allocation_held();
  for (std::string& variable : login_environment(
           *info.order, {.identity = options_.attempts->identity(), .user = info.user, .ticket_path = {}})) {
    held.add_environment(std::move(variable));
  }
  held.set_ticket(info.ticket);
  (void)options_.to_client(client, reply);
}

bool AllocationHolder::on_client(const ClientAddress& client, const pb::NodeRequest& request) {
  const auto it = std::find_if(holds_.begin(), holds_.end(), [&](const auto& entry) {
    return entry.second.client.key == client.key && entry.second.client.stream == client.stream;
  });
  if (it == holds_.end()) {
    if (request.has_release_allocation()) {
      refuse(client, ErrorCode::kNotFound, "this node does not know the allocation (any more)");
      return true;
    }
    return false;
  }
  it->second.heard = options_.now();
  if (it->second.client.peer != client.peer) {  // a new connection: what was sent to the old one may be lost
    refuse(client, ErrorCode::kNotFound, "the allocation must be taken up again");
    return true;
  }
  if (request.has_keepalive()) {
    pb::NodeReply reply;
    reply.mutable_keepalive();
    (void)options_.to_client(client, reply);
  } else if (request.has_release_allocation()) {
    const Result<Outcome> outcome = wire::from_pb(request.release_allocation().outcome());
    end(it->first, outcome ? of_command(*outcome) : lost("its client sent a damaged outcome"));
  }
  return true;
}

void AllocationHolder::end(AttemptKey key, const Outcome& outcome) {
  if (const Status status = options_.attempts->finish(key, outcome); !status) {
    // Its client, or the next look at who is lost, asks again.
    io::log_warning("cannot end an allocation", {{"job", key.job.value}, {"error", status.error().message}});
    return;
  }
  awaited_.erase(key);
  if (const auto it = holds_.find(key); it != holds_.end()) {
    it->second.over = true;
  }
}

void AllocationHolder::attempt_running(const AttemptInfo& info) {
  const AttemptKey key = info.order->key;
  if (info.order->node_rank == 0 && info.order->spec->kind == JobKind::kAlloc && !holds_.contains(key)) {
    awaited_[key] = options_.now() + options_.client_awaited;
  }
}

void AllocationHolder::attempt_ended(AttemptKey key, const Outcome& outcome) {
  awaited_.erase(key);
  const auto it = holds_.find(key);
  if (it == holds_.end()) {
    return;
  }
  pb::NodeReply reply;
  wire::to_pb(outcome, *reply.mutable_allocation_ended()->mutable_outcome());
  (void)options_.to_client(it->second.client, reply);
  holds_.erase(it);
}

std::optional<Duration> AllocationHolder::tick() {
  const Duration now = options_.now();
  std::vector<std::pair<AttemptKey, Outcome>> ends;
  for (const auto& [key, hold] : holds_) {
    if (!hold.over && now - hold.heard > options_.client_lost_after) {
      ends.emplace_back(key, lost("nothing was heard of its client for " +
                                  std::to_string(options_.client_lost_after.seconds()) + " s"));
    }
  }
  for (const auto& [key, until] : awaited_) {
    if (now >= until) {
      ends.emplace_back(key, lost("no client came within " + std::to_string(options_.client_awaited.seconds()) +
                                  " s to hold the allocation"));
    }
  }
  for (const auto& [key, outcome] : ends) {
    io::log_warning("an allocation is held by nobody", {{"job", key.job.value}, {"why", outcome.detail}});
    end(key, outcome);
  }
  return holds_.empty() && awaited_.empty() ? std::nullopt : std::optional(kLook);
}

}  // namespace muster::noded
