// The coordinator's side towards the parts of a step: what they are asked, and what they say.
#include <algorithm>
#include <set>
#include <utility>

#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/free_port.h"
#include "noded/step_coordinator.h"
#include "noded/step_coordinator_step.h"

namespace muster::noded {
namespace {

// "host" of "tcp://host:port", without the brackets of an IPv6 address.
std::string host_of(const std::string& endpoint) {
  const std::size_t begin = endpoint.find("://");
  const std::size_t from = begin == std::string::npos ? 0 : begin + 3;
  const std::size_t colon = endpoint.rfind(':');
  std::string host =
      endpoint.substr(from, colon == std::string::npos || colon < from ? std::string::npos : colon - from);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return host;
}

// A port for the step's own use (MASTER_PORT) on its first node: below the ephemeral ports, and different for steps at the
// same time. That it is free is known of this node alone.
std::uint32_t port_of(const StepId& id, bool here, const std::set<std::uint32_t>& taken) {
  constexpr std::uint32_t kFirst = 15'000;
  constexpr std::uint32_t kCount = 15'000;
  const auto port = static_cast<std::uint32_t>(kFirst + (id.key.job.value * 131 + id.step) % kCount);
  return here ? free_port(port, kFirst, kCount, taken) : port;
}

Outcome lost_outcome(const std::string& why) {
  Outcome outcome;
  outcome.cause = EndCause::kCancelled;
  outcome.signal = 9;
  outcome.detail = why;
  return outcome;
}

}  // namespace

// Sends a part its start, or its resume.
void StepCoordinator::ask_part(Step& step, std::size_t i) {
  PartRecord& part = step.parts[i];
  part.ask_again = false;
  pb::NodeRequest request;
  if (part.resuming || !step.spec) {
    auto& resume = *request.mutable_peer_resume();
    fill_step_key(step.id, *resume.mutable_step());
    for (const std::uint32_t number : part.ranks) {
      const RankRecord& rank = step.ranks[number];
      for (std::uint32_t s = 0; s < 2; ++s) {
        if (rank.forwarded[s] > 0) {
          auto& received = *resume.add_received();
          received.set_rank(number);
          received.set_stream(s + 1);
          received.set_bytes(rank.forwarded[s]);
        }
      }
    }
    // The shepherd counts all of it as credited.
    part.credit_due = 0;
    for (Unread& unread : step.unread) {
      if (unread.part == i) {
        unread.cost = 0;
      }
    }
  } else {
    auto& start = *request.mutable_peer_start();
    fill_step_key(step.id, *start.mutable_step());
    *start.mutable_spec() = *step.spec;
    start.set_node_index(static_cast<std::uint32_t>(i));
    start.set_first_rank(part.ranks.empty() ? 0 : part.ranks.front());
    start.set_rank_plane(step.rank_plane);
    for (std::size_t k = 0; k < step.parts.size(); ++k) {
      start.add_nodes(step.node(k).name);
      start.add_tasks(step.parts[k].tasks);
    }
    start.set_exact(step.sharing == StepSharing::kExact || step.sharing == StepSharing::kExclusive);
    for (const std::uint32_t core : part.cores.to_vector()) {
      start.add_cores(core);
    }
    for (const std::uint32_t gpu : part.gpus.to_vector()) {
      start.add_gpus(gpu);
    }
    start.set_master_address(host_of(step.node(0).endpoint));
    if (step.master_port == 0) {
      std::set<std::uint32_t> taken;
      for (const auto& [id, other] : steps_) {
        taken.insert(other->master_port);
      }
      step.master_port = port_of(step.id, step.here(0), taken);
    }
    start.set_master_port(step.master_port);
  }
  const Peer node = step.node(i);
  options_.to_part(node, step.here(i), request);
}

void StepCoordinator::all_parts(Step& step, const pb::NodeRequest& request) {
  const std::size_t count = step.parts.size();
  const StepId id = step.id;
  for (std::size_t i = 0; i < count; ++i) {
    Step* still = find(id);  // a part that is here may answer at once
    if (still == nullptr) {
      return;
    }
    const Peer node = still->node(i);
    options_.to_part(node, still->here(i), request);
  }
}

void StepCoordinator::on_part(const std::string& node, const pb::NodeReply& reply) {
  handle_part(node, reply);
  start_waiting();
}

void StepCoordinator::handle_part(const std::string& node, const pb::NodeReply& reply) {
  using Body = pb::NodeReply::BodyCase;
  const pb::StepKey* key = nullptr;
  switch (reply.body_case()) {
    case Body::kPeerStarted:
      key = &reply.peer_started().step();
      break;
    case Body::kPeerOutput:
      key = &reply.peer_output().step();
      break;
    case Body::kPeerTaskEnded:
      key = &reply.peer_task_ended().step();
      break;
    case Body::kPeerRefused:
      key = &reply.peer_refused().step();
      break;
    case Body::kPeerInputTaken:
      key = &reply.peer_input_taken().step();
      break;
    case Body::kPeerEnded:
      key = &reply.peer_ended().step();
      break;
    case Body::kPeerTaskBound:
      key = &reply.peer_task_bound().step();
      break;
    default:
      return;
  }
  Step* step = find(step_id_of(*key));
  if (step == nullptr || step->over) {
    return;
  }
  const std::optional<std::size_t> part = step->part_of_node(node);
  if (!part) {
    return;
  }
  switch (reply.body_case()) {
    case Body::kPeerStarted:
      return on_part_started(*step, *part);
    case Body::kPeerOutput:
      return on_output(*step, *part, reply);
    case Body::kPeerTaskEnded:
      if (step->rank_in_part(reply.peer_task_ended().ended().rank(), *part)) {
        on_task_ended(*step, reply);
      }
      return;
    case Body::kPeerRefused: {
      const auto& error = reply.peer_refused().error();
      const auto code = error.code() > static_cast<std::uint32_t>(ErrorCode::kInternal)
                            ? ErrorCode::kInternal
                            : static_cast<ErrorCode>(error.code());
      return on_part_refused(*step, *part, make_error(code, error.message()));
    }
    case Body::kPeerInputTaken:
      if (step->rank_in_part(reply.peer_input_taken().rank(), *part)) {
        on_input_taken(*step, reply);
      }
      return;
    case Body::kPeerEnded:
      return on_part_ended(*step, *part);
    case Body::kPeerTaskBound:
      // Nobody asks for it again: a client that is away now does without.
      if (step->client_here && step->rank_in_part(reply.peer_task_bound().bound().rank(), *part)) {
        pb::NodeReply to_client;
        *to_client.mutable_task_bound() = reply.peer_task_bound().bound();
        (void)options_.to_client(step->client, to_client);
      }
      return;
    default:
      return;
  }
}

// The ends of its tasks came before this, unless its supervisor does not know them any more.
void StepCoordinator::on_part_ended(Step& step, std::size_t part) {
  const StepId id = step.id;
  const std::vector<std::uint32_t> ranks = step.parts[part].ranks;  // the step may go on the way
  for (const std::uint32_t rank : ranks) {
    if (step.ranks[rank].ended) {
      continue;
    }
    pb::NodeReply reply;
    auto& ended = *reply.mutable_peer_task_ended()->mutable_ended();
    ended.set_rank(rank);
    ended.set_node(step.node(part).name);
    wire::to_pb(lost_outcome("its end was not recorded"), *ended.mutable_outcome());
    on_task_ended(step, reply);
    if (find(id) == nullptr) {
      return;
    }
  }
}

void StepCoordinator::on_part_started(Step& step, std::size_t part) {
  step.parts[part].state = PartState::kRunning;
  step.parts[part].resuming = false;
  if (!step.cancelled.empty()) {  // too late
    pb::NodeRequest request;
    fill_step_key(step.id, *request.mutable_peer_signal()->mutable_step());
    request.mutable_peer_signal()->set_end(true);
    const Peer node = step.node(part);
    options_.to_part(node, step.here(part), request);
    return;
  }
  if (std::exchange(step.parts[part].say_again, false)) {
    step.parts[part].resuming = true;
    ask_part(step, part);  // the answer is another start
    return;
  }
  if (step.started || !std::all_of(step.parts.begin(), step.parts.end(),
                                   [](const PartRecord& p) { return p.state == PartState::kRunning; })) {
    return;
  }
  step.started = true;
  step.spec.reset();
  if (step.stdin_mode <= 1) {
    pb::NodeReply reply;
    reply.mutable_input_credit()->set_bytes(kInputWindowBytes);
    (void)options_.to_client(step.client, reply);
  }
}

void StepCoordinator::on_part_refused(Step& step, std::size_t i, const Error& error) {
  PartRecord& part = step.parts[i];
  if (error.code == ErrorCode::kNotFound && part.state == PartState::kRunning) {
    // Its daemon was restarted, or our connection was: what it sent since may be lost.
    part.resuming = true;
    part.ask_again = true;
    step.ask_until = options_.now() + options_.client_awaited;
    return;
  }
  if (error.code == ErrorCode::kUnavailable && options_.now() < step.ask_until && step.cancelled.empty()) {
    part.ask_again = true;
    return;
  }
  part.state = PartState::kRefused;
  for (const std::uint32_t number : part.ranks) {
    RankRecord& rank = step.ranks[number];
    if (!rank.ended) {
      rank.ended = true;
      ++step.ended;
    }
  }
  if (step.worst.cause == EndCause::kExited && step.exit_code == 0) {
    step.worst = lost_outcome("node " + step.node(i).name + ": " + error.message);
    step.worst.cause = EndCause::kLaunchFailed;
    step.worst.signal = 0;
  }
  step.exit_code = std::max(step.exit_code, 1);
  cancel(step, "node " + step.node(i).name + ": " + error.message);
}

void StepCoordinator::on_output(Step& step, std::size_t part, const pb::NodeReply& reply) {
  const pb::StepOutput& out = reply.peer_output().output();
  if (!step.rank_in_part(out.rank(), part) || out.stream() < 1 || out.stream() > 2) {
    return;
  }
  const std::uint64_t cost = out.data().size() + kOutputFrameCost;
  std::uint64_t& forwarded = step.ranks[out.rank()].forwarded[out.stream() - 1];
  if (!step.client_here || out.offset() > forwarded) {
    return;  // it comes again with the resume
  }
  const std::uint64_t known = forwarded - out.offset();
  if (known >= out.data().size()) {  // nothing new: the end of the stream, or a repetition
    give_credit(step, part, cost, false);
    return;
  }
  pb::NodeReply to_client;
  pb::StepOutput& piece = *to_client.mutable_output();
  piece.set_rank(out.rank());
  piece.set_stream(out.stream());
  piece.set_data(known == 0 ? out.data() : out.data().substr(known));
  piece.set_offset(forwarded);
  const std::uint64_t bytes = piece.data().size();
  if (!options_.to_client(step.client, to_client)) {
    step.client_here = false;
    return;
  }
  forwarded += bytes;
  step.unread.push_back({.part = part, .bytes = bytes, .cost = cost});
}

void StepCoordinator::give_credit(Step& step, std::size_t i, std::uint64_t cost, bool now) {
  // Small pieces are collected; a part whose window is used up gets them at the latest when the client has read all.
  constexpr std::uint64_t kPiece = 16U << 10U;
  PartRecord& part = step.parts[i];
  part.credit_due += cost;
  if (part.credit_due == 0 || (!now && part.credit_due < kPiece && !step.unread.empty())) {
    return;
  }
  pb::NodeRequest request;
  fill_step_key(step.id, *request.mutable_peer_credit()->mutable_step());
  request.mutable_peer_credit()->set_bytes(part.credit_due);
  part.credit_due = 0;
  const Peer node = step.node(i);
  options_.to_part(node, step.here(i), request);
}

void StepCoordinator::on_task_ended(Step& step, const pb::NodeReply& reply) {
  const pb::StepTaskEnded& ended = reply.peer_task_ended().ended();
  RankRecord& rank = step.ranks[ended.rank()];
  if (rank.ended) {
    return;
  }
  rank.ended = true;
  ++step.ended;
  const Result<Outcome> decoded = wire::from_pb(ended.outcome());
  const Outcome outcome = decoded ? *decoded : lost_outcome("its node sent a damaged outcome");
  const std::int32_t status = exit_status(outcome);
  if (status > step.exit_code) {
    step.exit_code = status;
    step.worst = outcome;
  }
  pb::NodeReply to_client;
  *to_client.mutable_task_ended() = ended;
  (void)options_.to_client(step.client, to_client);
  if (step.ended == step.ranks.size()) {
    complete(step);
    return;
  }
  if (status != 0 && step.kill_on_bad_exit && step.cancelled.empty()) {
    cancel(step, "task " + std::to_string(ended.rank()) + " ended badly");
    return;
  }
  if (step.wait.us > 0 && !step.first_end) {
    step.first_end = options_.now();
  }
  if (step.stdin_mode == 1) {  // its input stands nobody in the way any more
    rank.input_closed = true;
  }
}

void StepCoordinator::on_input_taken(Step& step, const pb::NodeReply& reply) {
  RankRecord& rank = step.ranks[reply.peer_input_taken().rank()];
  rank.input_taken += reply.peer_input_taken().bytes();
  rank.input_closed = rank.input_closed || reply.peer_input_taken().closed();
  std::uint64_t taken = UINT64_MAX;  // by the slowest that still reads
  const std::size_t first = step.stdin_mode == 1 ? 0 : std::min<std::size_t>(step.stdin_rank, step.ranks.size() - 1);
  const std::size_t behind = step.stdin_mode == 1 ? step.ranks.size() : first + 1;
  std::uint64_t most = 0;
  for (std::size_t i = first; i < behind; ++i) {
    most = std::max(most, step.ranks[i].input_taken);
    if (!step.ranks[i].input_closed) {
      taken = std::min(taken, step.ranks[i].input_taken);
    }
  }
  taken = taken == UINT64_MAX ? most : taken;
  if (taken > step.input_granted) {
    pb::NodeReply to_client;
    to_client.mutable_input_credit()->set_bytes(taken - step.input_granted);
    step.input_granted = taken;
    (void)options_.to_client(step.client, to_client);
  }
}

}  // namespace muster::noded
