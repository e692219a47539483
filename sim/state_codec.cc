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
  for (const auto& [key, value] : state.settings) {
    pb::Setting& out = *part.add_settings();
    out.set_key(key);
    out.set_value(value);
  }
  for (const Node& node : state.nodes) wire::to_pb(node, *part.add_nodes());
  for (const auto& [hash, node_class] : state.node_classes) {
    wire::to_pb(NodeClassAdded{.hash = hash, .topology = node_class.get()->topology()}, *part.add_node_classes());
  }
  for (const auto& [id, array] : state.arrays) wire::to_pb(array, true, *part.add_jobs());
  for (const auto& [id, job] : state.jobs) {
    const Job* array = engine::find_array(state, job.array);
    wire::to_pb(job, array == nullptr || array->spec != job.spec, *part.add_jobs());
  }
  for (const auto& [request, known] : state.requests) {
    pb::KnownRequest& out = *part.add_requests();
    out.mutable_request()->set_high(request.high);
    out.mutable_request()->set_low(request.low);
    out.set_job(known.job.value);
    out.set_at_us(known.at.us);
  }
  for (const auto& [name, account] : state.accounts.accounts()) wire::to_pb(account, *part.add_accounts());
  for (const auto& [name, user] : state.accounts.users()) wire::to_pb(user, *part.add_users());
  for (const auto& [name, qos] : state.accounts.all_qos()) wire::to_pb(qos, *part.add_qos());
  for (const UsageRecord& record : state.accounts.usage_records()) wire::to_pb(record, *part.add_usage());
  wire::to_pb(state.accounts.billing(), *part.mutable_billing());
  for (const auto& [name, reservation] : state.reservations) wire::to_pb(reservation, *part.add_reservations());
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
  for (const pb::Setting& in : part.settings()) state.settings.emplace(in.key(), in.value());
  for (const pb::NodeClassAdded& in : part.node_classes()) {
    MUSTER_ASSIGN(const NodeClassAdded added, wire::from_pb(in));
    state.node_classes.emplace(added.hash, topo::SharedClass(added.topology));
  }
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
  for (const pb::Account& in : part.accounts()) {
    MUSTER_ASSIGN(Account account, wire::from_pb(in));
    state.accounts.load(std::move(account));
  }
  for (const pb::User& in : part.users()) {
    MUSTER_ASSIGN(User user, wire::from_pb(in));
    state.accounts.load(std::move(user));
  }
  for (const pb::Qos& in : part.qos()) {
    MUSTER_ASSIGN(Qos qos, wire::from_pb(in));
    state.accounts.load(std::move(qos));
  }
  for (const pb::Usage& in : part.usage()) {
    MUSTER_ASSIGN(const UsageRecord record, wire::from_pb(in));
    state.accounts.load(record);
  }
  MUSTER_ASSIGN(const BillingRules billing, wire::from_pb(part.billing()));
  state.accounts.load(billing);
  for (const pb::Reservation& in : part.reservations()) {
    MUSTER_ASSIGN(Reservation reservation, wire::from_pb(in));
    std::string name = reservation.name;
    state.reservations.emplace(std::move(name), std::move(reservation));
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
