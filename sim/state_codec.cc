#include "sim/state_codec.h"

#include <utility>

#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::sim {

std::string encode_state(const engine::State& state) {
  pb::SnapshotPart part;
  part.set_term(state.term.value);
  part.set_now_us(state.now.us);
  part.set_next_job(state.next_job.value);
  for (const Node& node : state.nodes) wire::to_pb(node, *part.add_nodes());
  for (const auto& [id, array] : state.arrays) wire::to_pb(array, true, *part.add_jobs());
  for (const auto& [id, job] : state.jobs) {
    wire::to_pb(job, engine::find_array(state, job.array) == nullptr, *part.add_jobs());
  }
  for (const auto& [request, known] : state.requests) {
    pb::KnownRequest& out = *part.add_requests();
    out.mutable_request()->set_high(request.high);
    out.mutable_request()->set_low(request.low);
    out.set_job(known.job.value);
    out.set_at_us(known.at.us);
  }
  return part.SerializeAsString();
}

Result<engine::State> decode_state(std::string_view bytes) {
  pb::SnapshotPart part;
  if (!part.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return make_error(ErrorCode::kCorrupt, "the snapshot is no SnapshotPart");
  }
  engine::State state;
  state.term = Term{part.term()};
  state.now = Instant{part.now_us()};
  state.next_job = JobId{part.next_job()};
  for (const pb::Node& in : part.nodes()) {
    MUSTER_ASSIGN(Node node, wire::from_pb(in));
    state.nodes.push_back(std::move(node));
  }
  for (const pb::Job& in : part.jobs()) {
    const Job* array = in.array() == 0 ? nullptr : engine::find_array(state, JobId{in.array()});
    MUSTER_ASSIGN(Job job, wire::from_pb(in, array == nullptr ? nullptr : array->spec));
    const JobId id = job.id;
    (job.is_array_record ? state.arrays : state.jobs).emplace(id, std::move(job));
  }
  for (const pb::KnownRequest& in : part.requests()) {
    state.requests.emplace(RequestId{in.request().high(), in.request().low()},
                           engine::KnownRequest{Instant{in.at_us()}, JobId{in.job()}});
  }
  engine::rebuild_indexes(state);
  return state;
}

Result<Facts> from_journal(std::string_view row) {
  return wire::decode_facts(row);
}

Result<Facts> through_journal(const Facts& facts, std::string& bytes) {
  bytes = wire::encode_facts(facts);
  return wire::decode_facts(bytes);
}

}  // namespace muster::sim
