#include "noded/step_part.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "lib/base/text.h"
#include "lib/io/log.h"
#include "lib/model/step_ranks.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "noded/job_environment.h"
#include "noded/step_layout.h"
#include "noded/step_programs.h"
#include "noded/task_proof.h"

namespace muster::noded {
namespace {

// Waiting parts hold a request of up to a message's size each; a node runs far fewer jobs than this at a time.
constexpr std::size_t kPartsMax = 10'000;

std::vector<std::string> to_strings(const google::protobuf::RepeatedPtrField<std::string>& in) {
  return {in.begin(), in.end()};
}

Status check_start(const pb::PeerStart& r) {
  const int nodes = r.nodes_size();
  if (r.spec().argv_size() == 0) {
    return invalid_argument("the step has no command: give one");
  }
  if (nodes == 0 || r.tasks_size() != nodes || r.node_index() >= static_cast<std::uint32_t>(nodes)) {
    return make_error(ErrorCode::kCorrupt, "the request to start a step does not fit its own layout");
  }
  const std::uint32_t tasks = r.tasks(static_cast<int>(r.node_index()));
  if (tasks == 0 || tasks > kStepTasksMax) {
    return make_error(ErrorCode::kRefused, "a step runs 1 to " + std::to_string(kStepTasksMax) + " tasks on a node, " +
                                               std::to_string(tasks) + " were asked for: use more nodes");
  }
  std::uint64_t ranks = 0;
  for (const std::uint32_t each : r.tasks()) {
    ranks += each;
  }
  if (ranks > kTasksPerStepMax) {
    return make_error(ErrorCode::kCorrupt, "the request to start a step has more tasks than a step can have");
  }
  return ok_status();
}

// What a start needs of the step's input.
void set_input(const pb::PeerStart& r, const std::vector<std::uint32_t>& ranks, StepStartFrame& frame) {
  const bool here = std::find(ranks.begin(), ranks.end(), r.spec().stdin_rank()) != ranks.end();
  switch (r.spec().stdin_mode()) {
    case 0:
      frame.stdin_mode = here ? StdinMode::kRank : StdinMode::kNone;
      frame.stdin_rank = r.spec().stdin_rank();
      break;
    case 1:
      frame.stdin_mode = StdinMode::kAll;
      break;
    default:
      frame.stdin_mode = StdinMode::kNone;
      break;
  }
}

// Whether the client, or the job for all its steps, wants to be told how tasks are bound.
bool is_told(const pb::StepSpec& spec, const JobSpec& job) {
  const auto bind = parse_cpu_bind(spec.cpu_bind().empty() ? job.cpu_bind : spec.cpu_bind());
  return bind.ok() && bind->verbose;
}

void add_binding(const NodeIdentity& node, const topo::BoundTask& bound, StepTask& task) {
  // A pretended node's numbers are not this machine's.
  if (!node.hardware.pretended) {
    task.cpus = bound.chosen.threads.words();
  }
  if (bound.own_gpus) {
    for (std::string& variable : gpu_variables(node, bound.chosen.gpus)) {
      task.environment.push_back(std::move(variable));
    }
  }
}

}  // namespace

StepId step_id_of(const pb::StepKey& key) {
  return {.key = wire::from_pb(key.key()), .step = key.step()};
}

void fill_step_key(const StepId& id, pb::StepKey& out) {
  wire::to_pb(id.key, *out.mutable_key());
  out.set_step(id.step);
}

std::string to_string(const StepId& id) {
  return std::to_string(id.key.job.value) + "." + std::to_string(id.step);
}

std::int32_t exit_status(const Outcome& outcome) {
  if (outcome.signal != 0) {
    return 128 + outcome.signal;
  }
  if (outcome.exit_code == 0 && outcome.cause != EndCause::kExited) {
    return 1;  // it did not end well, whatever it was
  }
  return outcome.exit_code;
}

StepParts::StepParts(Attempts& attempts, Reply reply) : attempts_(attempts), reply_(std::move(reply)) {}
StepParts::~StepParts() = default;

StepParts::Part* StepParts::find(const StepId& id) {
  const auto it = parts_.find(id);
  return it == parts_.end() ? nullptr : &it->second;
}

Result<AttemptInfo> StepParts::authorise(const StepId& id, const CoordinatorAddress& from) {
  MUSTER_ASSIGN(AttemptInfo info, attempts_.find(id.key));
  if (info.order->peers.empty()) {
    return make_error(ErrorCode::kInternal, "the launch order names no nodes");
  }
  if (!from.is_here() && info.order->peers.front().public_key != from.key) {
    return make_error(ErrorCode::kPermissionDenied,
                      "steps of job " + std::to_string(id.key.job.value) + " are started by its first node alone");
  }
  return info;
}

void StepParts::refuse(const CoordinatorAddress& to, const StepId& id, const Error& error) {
  pb::NodeReply reply;
  auto& refused = *reply.mutable_peer_refused();
  fill_step_key(id, *refused.mutable_step());
  refused.mutable_error()->set_code(static_cast<std::uint32_t>(error.code));
  refused.mutable_error()->set_message(error.message);
  reply_(to, reply);
}

void StepParts::handle(const CoordinatorAddress& from, const pb::NodeRequest& request) {
  using Body = pb::NodeRequest::BodyCase;
  const Body body = request.body_case();
  const pb::StepKey* key = nullptr;
  switch (body) {
    case Body::kPeerStart:
      key = &request.peer_start().step();
      break;
    case Body::kPeerInput:
      key = &request.peer_input().step();
      break;
    case Body::kPeerSignal:
      key = &request.peer_signal().step();
      break;
    case Body::kPeerCredit:
      key = &request.peer_credit().step();
      break;
    case Body::kPeerResume:
      key = &request.peer_resume().step();
      break;
    case Body::kPeerKeepalive:
      key = &request.peer_keepalive().step();
      break;
    case Body::kPeerForget:
      key = &request.peer_forget().step();
      break;
    default:
      return;
  }
  const StepId id = step_id_of(*key);
  const Result<AttemptInfo> info = authorise(id, from);
  if (!info) {
    // A job that is not here yet, or not any more. The coordinator asks again, and learns of the end from its own node.
    if (body == Body::kPeerStart || body == Body::kPeerResume) {
      const bool unknown = info.error().code == ErrorCode::kNotFound;
      refuse(from, id, unknown ? make_error(ErrorCode::kUnavailable, info.error().message) : info.error());
    }
    return;
  }
  switch (body) {
    case Body::kPeerStart:
      start(id, from, request.peer_start());
      return;
    case Body::kPeerResume: {
      std::vector<StepReceived> received;
      received.reserve(static_cast<std::size_t>(request.peer_resume().received_size()));
      for (const auto& r : request.peer_resume().received()) {
        received.push_back({.rank = r.rank(), .stream = r.stream(), .bytes = r.bytes()});
      }
      resume(id, from, std::move(received));
      return;
    }
    case Body::kPeerKeepalive: {
      const Part* part = find(id);
      // Another connection than the one we know: what we sent to that one may be lost.
      if (part == nullptr || part->coordinator.peer != from.peer) {
        refuse(from, id, make_error(ErrorCode::kNotFound, "step " + to_string(id) + " must be taken up again"));
        return;
      }
      pb::NodeReply reply;
      fill_step_key(id, *reply.mutable_peer_keepalive()->mutable_step());
      reply_(from, reply);
      return;
    }
    default:
      break;
  }
  if (body != Body::kPeerForget && find(id) == nullptr) {
    return;
  }
  Frame frame;
  if (body == Body::kPeerInput) {
    const auto& in = request.peer_input();
    frame =
        StepInputFrame{.step = id.step, .rank = in.all() ? kAllRanks : in.rank(), .data = in.data(), .eof = in.eof()};
  } else if (body == Body::kPeerSignal) {
    const auto& in = request.peer_signal();
    if (Part* part = find(id); part != nullptr && part->waiting && (in.end() || in.signal() == 9)) {
      parts_.erase(id);  // it never starts
      refuse(from, id, make_error(ErrorCode::kRefused, "the step was ended before its tasks started"));
      return;
    }
    frame = StepSignalFrame{.step = id.step, .signal = in.end() ? 0 : in.signal()};
  } else if (body == Body::kPeerCredit) {
    frame = StepCreditFrame{.step = id.step, .bytes = request.peer_credit().bytes()};
  } else {
    attempts_.unsubscribe(id.key, id.step);
    parts_.erase(id);
    frame = StepForgetFrame{.step = id.step};
  }
  // A shepherd that is not connected now gets what matters with the resume that follows.
  (void)attempts_.send(id.key, frame);
}

void StepParts::start(const StepId& id, const CoordinatorAddress& from, const pb::PeerStart& request) {
  if (Part* part = find(id); part != nullptr) {  // asked again
    part->coordinator = from;
    if (!part->waiting) {
      pb::NodeReply reply;
      fill_step_key(id, *reply.mutable_peer_started()->mutable_step());
      reply_(from, reply);
    }
    return;
  }
  if (const Status status = check_start(request); !status) {
    refuse(from, id, status.error());
    return;
  }
  if (parts_.size() >= kPartsMax) {
    refuse(from, id,
           make_error(ErrorCode::kLimitReached,
                      "this node runs " + std::to_string(kPartsMax) + " steps: wait until one of them ends"));
    return;
  }
  const Result<AttemptInfo> info = attempts_.find(id.key);
  if (!info || info->stopping) {
    refuse(from, id, make_error(ErrorCode::kRefused, "the job is being stopped"));
    return;
  }
  Part& part = parts_[id];
  part.coordinator = from;
  if (!info->running) {
    part.waiting = std::make_unique<pb::PeerStart>(request);
    return;
  }
  launch(id, request);
}

Result<std::vector<topo::BoundTask>> StepParts::bind(const LaunchOrder& order, const pb::PeerStart& request,
                                                     std::uint32_t tasks) {
  const NodeIdentity& node = attempts_.identity();
  if (node.node_class == nullptr) {
    return std::vector<topo::BoundTask>();
  }
  const pb::StepSpec& spec = request.spec();
  return topo::bind_step(*node.node_class, *order.spec, order.share,
                         {.tasks = tasks,
                          .cpus_per_task = spec.cpus_per_task(),
                          .cpu_bind = spec.cpu_bind(),
                          .gpu_bind = spec.gpu_bind(),
                          .distribution = spec.distribution(),
                          .threads_per_core = spec.threads_per_core(),
                          .gpus_per_task = request.exact() ? spec.gpus_per_task() : 0});
}

namespace {

// The job on this node, as far as the step has it. Places that the job does not have are left out.
IndexSet at_places(const IndexSet& held, const google::protobuf::RepeatedField<std::uint32_t>& places) {
  const std::vector<std::uint32_t> all = held.to_vector();
  IndexSet out;
  for (const std::uint32_t place : places) {
    if (place < all.size()) {
      out.insert(all[place]);
    }
  }
  return out;
}

StepProgramsFrame programs_frame(std::uint32_t step, const pb::StepSpec& spec,
                                 const std::vector<std::uint32_t>& ranks) {
  StepProgramsFrame frame;
  frame.step = step;
  for (const std::uint32_t rank : ranks) {
    if (auto argv = program_of(spec, rank)) {  // its coordinator has looked for those without
      frame.programs.push_back({.rank = rank, .argv = std::move(*argv)});
    }
  }
  return frame;
}

std::shared_ptr<const LaunchOrder> narrowed(const std::shared_ptr<const LaunchOrder>& order,
                                            const pb::PeerStart& request) {
  if (!request.exact()) {
    return order;
  }
  auto out = std::make_shared<LaunchOrder>(*order);
  out->share.cores = at_places(order->share.cores, request.cores());
  out->share.gpus = at_places(order->share.gpus, request.gpus());
  return out;
}

}  // namespace

void StepParts::launch(const StepId& id, const pb::PeerStart& request) {
  const CoordinatorAddress coordinator = parts_[id].coordinator;
  const Result<AttemptInfo> info = attempts_.find(id.key);
  if (!info) {
    parts_.erase(id);
    refuse(coordinator, id, info.error());
    return;
  }
  const std::shared_ptr<const LaunchOrder> order = narrowed(info->order, request);
  const pb::StepSpec& spec = request.spec();
  if (spec.programs_size() > 0 && info->protocol < kProgramsProtocolVersion) {
    parts_.erase(id);
    refuse(
        coordinator, id,
        make_error(ErrorCode::kRefused, "--multi-prog: the job was started by an older version: submit another job"));
    return;
  }
  StepLayout layout;
  layout.step = id.step;
  layout.nodes = to_strings(request.nodes());
  layout.tasks.assign(request.tasks().begin(), request.tasks().end());
  layout.ranks = std::move(deal_ranks(layout.tasks, request.rank_plane())[request.node_index()]);
  layout.cpus_per_task = spec.cpus_per_task();
  layout.master_address = request.master_address();
  layout.master_port = request.master_port();

  JobEnvironmentContext context;
  context.identity = attempts_.identity();
  context.user = info->user;
  context.ticket_path = info->ticket_path;
  const std::vector<std::string> submitted = to_strings(spec.environment());

  StepStartFrame frame;
  frame.step = id.step;
  frame.argv = to_strings(spec.argv());
  frame.environment = step_environment(*order, context, submitted, layout, request.node_index());
  frame.work_dir = spec.work_dir();
  frame.umask = spec.umask();
  set_input(request, layout.ranks, frame);
  // All windows of a step together stay within some MiB in the coordinator.
  constexpr std::uint64_t kStepWindowBytes = 16U << 20U;
  constexpr std::uint64_t kWindowMin = 64U << 10U;
  frame.credit_bytes = std::clamp<std::uint64_t>(kStepWindowBytes / layout.nodes.size(), kWindowMin, 1U << 20U);
  const auto count = static_cast<std::uint32_t>(layout.ranks.size());
  Result<std::vector<topo::BoundTask>> bound = bind(*order, request, count);
  if (!bound) {
    parts_.erase(id);
    refuse(coordinator, id, bound.error());
    return;
  }
  frame.tasks.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t rank = layout.ranks[i];
    frame.tasks.push_back(
        {.rank = rank, .environment = task_environment(submitted, layout, request.node_index(), rank, i), .cpus = {}});
    if (i < bound->size()) {
      add_binding(context.identity, (*bound)[i], frame.tasks.back());
    }
  }
  Part& part = parts_[id];
  part.bound = std::move(*bound);
  part.ranks = layout.ranks;
  part.tells_bound = is_told(spec, *info->order->spec);
  follow(id);
  Status sent =
      spec.programs_size() > 0 ? attempts_.send(id.key, programs_frame(id.step, spec, layout.ranks)) : ok_status();
  if (sent) {
    sent = attempts_.send(id.key, frame);
  }
  if (!sent) {
    attempts_.unsubscribe(id.key, id.step);
    parts_.erase(id);
    refuse(coordinator, id, sent.error());
    return;
  }
  pb::NodeReply reply;
  fill_step_key(id, *reply.mutable_peer_started()->mutable_step());
  reply_(coordinator, reply);
}

void StepParts::resume(const StepId& id, const CoordinatorAddress& from, std::vector<StepReceived> received) {
  const Result<AttemptInfo> info = attempts_.find(id.key);
  if (!info || !info->running) {
    refuse(from, id, make_error(ErrorCode::kUnavailable, "the job's supervisor is not connected yet"));
    return;
  }
  Part& part = parts_[id];
  part.coordinator = from;
  follow(id);
  if (const Status sent = attempts_.send(id.key, StepResumeFrame{.step = id.step, .received = std::move(received)});
      !sent) {
    parts_.erase(id);
    refuse(from, id, make_error(ErrorCode::kUnavailable, sent.error().message));
    return;
  }
  pb::NodeReply reply;
  fill_step_key(id, *reply.mutable_peer_started()->mutable_step());
  reply_(from, reply);
}

void StepParts::follow(const StepId& id) {
  attempts_.subscribe(id.key, id.step, [this, id](const Frame& frame) { on_frame(id, frame); });
}

void StepParts::on_frame(const StepId& id, const Frame& frame) {
  Part* part = find(id);
  if (part == nullptr) {
    return;
  }
  pb::NodeReply reply;
  if (const auto* out = std::get_if<StepOutputFrame>(&frame)) {
    auto& peer = *reply.mutable_peer_output();
    fill_step_key(id, *peer.mutable_step());
    peer.mutable_output()->set_rank(out->rank);
    peer.mutable_output()->set_stream(out->stream);
    peer.mutable_output()->set_data(out->data);
    peer.mutable_output()->set_eof(out->eof);
    peer.mutable_output()->set_offset(out->offset);
  } else if (const auto* ended = std::get_if<StepTaskEndedFrame>(&frame)) {
    auto& peer = *reply.mutable_peer_task_ended();
    fill_step_key(id, *peer.mutable_step());
    peer.mutable_ended()->set_rank(ended->rank);
    peer.mutable_ended()->set_node(attempts_.identity().name);
    wire::to_pb(ended->outcome, *peer.mutable_ended()->mutable_outcome());
  } else if (const auto* bound = std::get_if<StepTaskBoundFrame>(&frame)) {
    ++part->proven;
    return on_bound(id, *part, *bound);
  } else if (const auto* taken = std::get_if<StepInputTakenFrame>(&frame)) {
    auto& peer = *reply.mutable_peer_input_taken();
    fill_step_key(id, *peer.mutable_step());
    peer.set_rank(taken->rank);
    peer.set_bytes(taken->bytes);
    peer.set_closed(taken->closed);
  } else if (std::holds_alternative<StepEndedFrame>(frame)) {
    fill_step_key(id, *reply.mutable_peer_ended()->mutable_step());
  } else {
    return;
  }
  const CoordinatorAddress to = part->coordinator;
  reply_(to, reply);
}

void StepParts::on_bound(const StepId& id, const Part& part, const StepTaskBoundFrame& frame) {
  const auto found = std::lower_bound(part.ranks.begin(), part.ranks.end(), frame.rank);
  const auto task = static_cast<std::size_t>(found - part.ranks.begin());
  if (found == part.ranks.end() || *found != frame.rank || task >= part.bound.size()) {
    return;
  }
  const NodeIdentity& node = attempts_.identity();
  const topo::ChosenTask& decided = part.bound[task].chosen;
  const Verdict verdict = prove(node, {.threads = decided.threads, .gpus = decided.gpus}, frame);
  if (!verdict.fault.empty()) {
    io::log_warning("a task is not bound as decided",
                    {{"step", to_string(id)}, {"rank", frame.rank}, {"fault", verdict.fault}});
  }
  attempts_.prove(id.key, verdict, part.proven < part.bound.size());
  if (verdict.fault.empty() && !part.tells_bound) {
    return;
  }
  pb::NodeReply reply;
  auto& peer = *reply.mutable_peer_task_bound();
  fill_step_key(id, *peer.mutable_step());
  pb::StepTaskBound& out = *peer.mutable_bound();
  out.set_rank(frame.rank);
  out.set_node(node.name);
  out.set_cpus(verdict.proof.cpus.to_string());
  out.set_decided(decided.threads.to_string());
  out.set_numa(decided.numa.to_string());
  out.set_gpus(gpu_list(node, decided.gpus));
  out.set_local_device(verdict.proof.local_device);
  out.set_local_numa(verdict.proof.local_numa);
  out.set_local_package(verdict.proof.local_package);
  out.set_pretended(node.hardware.pretended);
  out.set_fault(verdict.fault);
  out.set_memory(verdict.proof.memory_local ? verdict.proof.memory.to_string() : "");
  const CoordinatorAddress to = part.coordinator;
  reply_(to, reply);
}

void StepParts::attempt_running(AttemptKey key) {
  std::vector<std::pair<StepId, std::unique_ptr<pb::PeerStart>>> ready;
  for (auto it = parts_.lower_bound({.key = key, .step = 0}); it != parts_.end() && it->first.key == key; ++it) {
    if (it->second.waiting) {
      ready.emplace_back(it->first, std::move(it->second.waiting));
    }
  }
  for (const auto& [id, request] : ready) {
    if (find(id) != nullptr) {
      launch(id, *request);
    }
  }
}

void StepParts::attempt_ended(AttemptKey key) {
  const auto begin = parts_.lower_bound({.key = key, .step = 0});
  auto end = begin;
  std::vector<std::pair<StepId, CoordinatorAddress>> waiting;
  for (; end != parts_.end() && end->first.key == key; ++end) {
    if (end->second.waiting) {
      waiting.emplace_back(end->first, end->second.coordinator);
    }
  }
  parts_.erase(begin, end);
  for (const auto& [id, coordinator] : waiting) {
    refuse(coordinator, id, make_error(ErrorCode::kRefused, "the job ended before the step's tasks started"));
  }
}

}  // namespace muster::noded
