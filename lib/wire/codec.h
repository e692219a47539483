// Encoding of lib/model's values as protobuf messages (muster.proto), for the wire and the journal.
//
// to_pb functions are total. from_pb functions check what they read: enumerators out of range, index sets above
// IndexSet::kIndexMax, lists above their limits and missing parts are kCorrupt with the field's name. Both directions are
// inverse: from_pb(to_pb(x)) == x.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/model/command.h"
#include "lib/model/fact.h"
#include "lib/model/job.h"
#include "lib/model/orders.h"

namespace muster::pb {  // generated; include lib/wire/muster.pb.h in .cc files only
class JobSpec;
class NodeHardware;
class NodeShare;
class EnforcedBy;
class AttemptUsage;
class Outcome;
class LaunchOrder;
class StopOrder;
class SuspendOrder;
class AttemptReport;
class PlacementProof;
class LimitOrder;
class UpdateRequest;
class AttemptKey;
class NodeRegistration;
class HealthProblem;
class Blame;
class HealthReport;
class Fact;
class Job;
class Node;
class Reservation;
class JobSummary;
class JobSelector;
class ArraySpec;
class Gpu;
class Nic;
class RequestId;
class SelectorItem;
class Account;
class Association;
class User;
class Qos;
class BillingRules;
class Usage;
class NodeTopology;
class TopologyHash;
class NodeClassAdded;
}  // namespace muster::pb

namespace muster::wire {

void to_pb(const JobSpec& in, pb::JobSpec& out);
void to_pb(const NodeHardware& in, pb::NodeHardware& out);
void to_pb(const NodeShare& in, pb::NodeShare& out);
void to_pb(const Usage& in, pb::AttemptUsage& out);
void to_pb(const EnforcedBy& in, pb::EnforcedBy& out);
void to_pb(const Outcome& in, pb::Outcome& out);
void to_pb(const AttemptKey& in, pb::AttemptKey& out);
void to_pb(const LaunchOrder& in, pb::LaunchOrder& out);
void to_pb(const StopOrder& in, pb::StopOrder& out);
void to_pb(const LimitOrder& in, pb::LimitOrder& out);
void to_pb(const JobChange& in, pb::UpdateRequest& out);
void to_pb(const SuspendOrder& in, pb::SuspendOrder& out);
void to_pb(const PlacementProof& in, pb::PlacementProof& out);
void to_pb(const AttemptReport& in, pb::AttemptReport& out);
void to_pb(const NodeRegistration& in, pb::NodeRegistration& out);
void to_pb(const HealthProblem& in, pb::HealthProblem& out);
void to_pb(const Blame& in, pb::Blame& out);
void to_pb(const std::vector<HealthProblem>& in, pb::HealthReport& out);
void to_pb(const Fact& in, pb::Fact& out);
void to_pb(const Node& in, pb::Node& out);
void to_pb(const Reservation& in, pb::Reservation& out);
void to_pb(const JobSummary& in, pb::JobSummary& out);
void to_pb(const JobSelector& in, pb::JobSelector& out);
void to_pb(const JobSelector::Item& in, pb::SelectorItem& out);
void to_pb(const ArraySpec& in, pb::ArraySpec& out);
void to_pb(const Gpu& in, pb::Gpu& out);
void to_pb(const Nic& in, pb::Nic& out);
void to_pb(const RequestId& in, pb::RequestId& out);
void to_pb(const Account& in, pb::Account& out);
void to_pb(const Association& in, pb::Association& out);
void to_pb(const User& in, pb::User& out);
void to_pb(const Qos& in, pb::Qos& out);
void to_pb(const BillingRules& in, pb::BillingRules& out);
void to_pb(const UsageRecord& in, pb::Usage& out);
void to_pb(const NodeTopology& in, pb::NodeTopology& out);
void to_pb(const TopologyHash& in, pb::TopologyHash& out);
void to_pb(const NodeClassAdded& in, pb::NodeClassAdded& out);
// `with_spec` false leaves the spec out (a task of an array whose record carries the same object).
void to_pb(const Job& in, bool with_spec, pb::Job& out);

Result<JobSpec> from_pb(const pb::JobSpec& in);
Result<NodeHardware> from_pb(const pb::NodeHardware& in);
Result<NodeShare> from_pb(const pb::NodeShare& in);
Result<Usage> from_pb(const pb::AttemptUsage& in);
Result<EnforcedBy> from_pb(const pb::EnforcedBy& in);
Result<Outcome> from_pb(const pb::Outcome& in);
AttemptKey from_pb(const pb::AttemptKey& in);
Result<LaunchOrder> from_pb(const pb::LaunchOrder& in);
Result<StopOrder> from_pb(const pb::StopOrder& in);
Result<LimitOrder> from_pb(const pb::LimitOrder& in);
Result<JobChange> from_pb(const pb::UpdateRequest& in);
Result<SuspendOrder> from_pb(const pb::SuspendOrder& in);
Result<PlacementProof> from_pb(const pb::PlacementProof& in);
Result<AttemptReport> from_pb(const pb::AttemptReport& in);
Result<NodeRegistration> from_pb(const pb::NodeRegistration& in);
Result<HealthProblem> from_pb(const pb::HealthProblem& in);
Result<std::vector<HealthProblem>> from_pb(const pb::HealthReport& in);
Result<Fact> from_pb(const pb::Fact& in);
Result<Node> from_pb(const pb::Node& in);
Result<Reservation> from_pb(const pb::Reservation& in);
Result<JobSummary> from_pb(const pb::JobSummary& in);
Result<JobSelector> from_pb(const pb::JobSelector& in);
Result<JobSelector::Item> from_pb(const pb::SelectorItem& in);
Result<ArraySpec> from_pb(const pb::ArraySpec& in);
Gpu from_pb(const pb::Gpu& in);
Result<Nic> from_pb(const pb::Nic& in);
RequestId from_pb(const pb::RequestId& in);
Result<Account> from_pb(const pb::Account& in);
Result<Association> from_pb(const pb::Association& in);
Result<User> from_pb(const pb::User& in);
Result<Qos> from_pb(const pb::Qos& in);
Result<BillingRules> from_pb(const pb::BillingRules& in);
Result<UsageRecord> from_pb(const pb::Usage& in);
Result<NodeTopology> from_pb(const pb::NodeTopology& in);
TopologyHash from_pb(const pb::TopologyHash& in);
Result<NodeClassAdded> from_pb(const pb::NodeClassAdded& in);
// `array_spec` is used when the message says that the spec is the array record's.
Result<Job> from_pb(const pb::Job& in, const JobSpecPtr& array_spec);

// The bytes of one journal row (pb::FactBatch) and back. Decoding fails as a whole when anything in it is wrong.
std::string encode_facts(const Facts& facts);
Result<Facts> decode_facts(std::string_view bytes);

// Framing: every ZeroMQ message is [header, body]. The header is "MUS1" and one byte for the kind.
inline constexpr std::string_view kMagic = "MUS1";
enum class MessageKind : char {
  kClientRequest = 'q',      // pb::Request     client -> controller
  kClientReply = 'r',        // pb::Reply       controller -> client
  kNodeMessage = 'n',        // pb::NodeMessage node -> controller
  kControllerMessage = 'c',  // pb::ControllerMessage
  kNodeRequest = 's',        // pb::NodeRequest client or node -> node; third frame: the stream id (8 bytes)
  kNodeReply = 't',          // pb::NodeReply
};
std::string header(MessageKind kind);
// kCorrupt when it is not one of Muster's headers; says which version was met when only that differs.
Result<MessageKind> parse_header(std::string_view frame);

// Largest body accepted on any socket: a script, an environment, arguments, and the rest.
inline constexpr std::size_t kMessageBytesMax = 16U << 20U;
// What is larger is data and belongs in a file of its own. controller.script_bytes_max may ask for less.
inline constexpr std::size_t kScriptBytesMax = 4U << 20U;
inline constexpr std::size_t kEnvironmentBytesMax = 2U << 20U;
// Arguments of one script: what fits Linux's 2 MiB of arguments, each with its pointer and its end.
inline constexpr std::size_t kArgumentsMax = 200'000;

}  // namespace muster::wire
