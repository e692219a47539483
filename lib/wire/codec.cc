#include "lib/wire/codec.h"

#include <algorithm>
#include <array>
#include <climits>
#include <utility>

#include "lib/base/text.h"
#include "lib/model/constraint.h"
#include "lib/wire/muster.pb.h"

namespace muster::wire {
namespace {

// ---------------------------------------------------------------- limits of what is read, all far above real use

constexpr int kIndexWordsMax = (IndexSet::kIndexMax + 1) / 64;
constexpr int kCoresMax = IndexSet::kIndexMax + 1;  // of one node; an IndexSet names them
constexpr int kGpusMax = IndexSet::kIndexMax + 1;
constexpr int kBlamesAtMost = static_cast<int>(kBlamesMax);
constexpr int kProblemsMax = static_cast<int>(kHealthProblemsMax);
constexpr int kNicsMax = 4'096;                            // of one node
constexpr int kNicNamesMax = 64;                           // of one adapter
constexpr int kNodesMax = static_cast<int>(kNodeListMax);  // of one job
constexpr int kSelectorItemsMax = 100'000;                 // ids on one command line
constexpr int kSelectorStatesMax = 64;                     // there are fewer states
// The largest time that is read: far in the future, yet any sum of it and a Duration fits.
constexpr std::int64_t kInstantUsMax = INT64_MAX / 2;

// Bits of JobSpec.choices.
constexpr std::uint32_t kWarnBatchOnly = 1;
constexpr std::uint32_t kRequeueGiven = 2;
constexpr std::uint32_t kOpenModeGiven = 4;

// Bits of TaskProof.holds, the lowest first.
constexpr std::array kTaskProofBits{&TaskProof::memory_local, &TaskProof::own_group,     &TaskProof::local_device,
                                    &TaskProof::local_numa,   &TaskProof::local_package, &TaskProof::as_decided};

// ---------------------------------------------------------------- helpers of reading

Error corrupt(std::string_view field, std::string_view problem) {
  return make_error(ErrorCode::kCorrupt, "damaged message: " + std::string(field) + " " + std::string(problem) +
                                             ": send it again, or use the release that wrote it");
}

template <typename E>
Result<E> read_enum(std::uint32_t value, E last, std::string_view field) {
  if (value > static_cast<std::uint32_t>(last)) {
    return corrupt(field, "holds " + std::to_string(value) + ", which this release does not know");
  }
  return static_cast<E>(value);
}
Result<JobState> read_state(std::uint32_t value, std::string_view field) {
  return read_enum(value, JobState::kDeadline, field);
}

Result<Instant> read_instant(std::int64_t us, std::string_view field) {
  if (us < 0 || us > kInstantUsMax) return corrupt(field, "is no time between 1970 and the year 100,000");
  return Instant::from_us(us);
}
Result<Duration> read_duration(std::int64_t us, std::string_view field) {
  if (us < 0 || us > Duration::infinite().us) return corrupt(field, "is no duration");
  return Duration::from_us(us);
}

Result<Digest> read_digest(const std::string& bytes, std::string_view field) {
  Digest digest;
  if (bytes.empty()) return digest;
  if (bytes.size() != digest.bytes.size()) return corrupt(field, "is no digest of 32 bytes");
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

using Words = google::protobuf::RepeatedField<std::uint64_t>;
Result<IndexSet> read_index_set(const Words& in, std::string_view field) {
  if (in.size() > kIndexWordsMax) return corrupt(field, "holds an index above " + std::to_string(IndexSet::kIndexMax));
  return IndexSet::from_words({in.begin(), in.end()});
}

using Texts = google::protobuf::RepeatedPtrField<std::string>;
Result<std::vector<std::string>> read_texts(const Texts& in, int max, std::string_view field) {
  if (in.size() > max) return corrupt(field, "has more than " + std::to_string(max) + " entries");
  return std::vector<std::string>(in.begin(), in.end());
}

Result<Core> read(const pb::Core& in);
Result<AttemptOnNode> read(const pb::AttemptOnNode& in);
Result<TaskProof> read(const pb::TaskProof& in);
Result<PositionRange> read(const pb::PositionRange& in);
Peer read(const pb::Peer& in);
RequeuedTask read(const pb::RequeuedTask& in);
Result<Blame> read(const pb::Blame& in);
Result<Doubt> read(const pb::Doubt& in);
PlannedShare read(const pb::PlannedShare& in);
Result<DependencyTerm> read(const pb::DependencyTerm& in);
Result<LicenseCount> read(const pb::LicenseCount& in);
Result<OpenDependency> read(const pb::OpenDependency& in);
// Messages that the header names are read by from_pb.
template <typename Message>
auto read(const Message& in) {
  return from_pb(in);
}

template <typename Out, typename Message>
Status read_list(const google::protobuf::RepeatedPtrField<Message>& in, int max, std::string_view field,
                 std::vector<Out>& out) {
  if (in.size() > max) return corrupt(field, "has more than " + std::to_string(max) + " entries");
  out.reserve(static_cast<std::size_t>(in.size()));
  for (const Message& item : in) {
    if constexpr (std::is_same_v<decltype(read(item)), Out>) {
      out.push_back(read(item));
    } else {
      MUSTER_ASSIGN(Out value, read(item));
      out.push_back(std::move(value));
    }
  }
  return ok_status();
}

Status read_spec_into(const pb::JobSpec& in, JobSpec& out);
Result<JobSpecPtr> read_spec(bool present, const pb::JobSpec& in, std::string_view field) {
  if (!present) return corrupt(field, "is missing");
  auto spec = std::make_shared<JobSpec>();
  MUSTER_TRY(read_spec_into(in, *spec));
  return JobSpecPtr(std::move(spec));
}

#define MUSTER_REQUIRE(message, part) \
  if (!(message).has_##part()) return corrupt(std::string((message).GetTypeName()) + "." #part, "is missing")

// ---------------------------------------------------------------- helpers of writing

void write_digest(const Digest& in, std::string& out) {
  if (in.is_set()) {
    out.assign(in.bytes.begin(), in.bytes.end());
  } else {
    out.clear();
  }
}
void write_words(const IndexSet& in, Words& out) {
  out.Assign(in.words().begin(), in.words().end());
}
void write_texts(const std::vector<std::string>& in, Texts& out) {
  out.Assign(in.begin(), in.end());
}

template <typename Value, typename Message>
void write_list(const std::vector<Value>& in, google::protobuf::RepeatedPtrField<Message>& out);

void write(const ArrayRange& in, pb::ArrayRange& out) {
  out.set_first(in.first);
  out.set_last(in.last);
  out.set_step(in.step);
}
void write(const DependencyTerm& in, pb::DependencyTerm& out) {
  out.set_kind(static_cast<std::uint32_t>(in.kind));
  out.set_job(in.target.job.value);
  out.set_has_task(in.target.has_task);
  out.set_task(in.target.task);
  out.set_delay_us(in.delay.us);
}
void write(const OpenDependency& in, pb::OpenDependency& out) {
  out.set_kind(static_cast<std::uint32_t>(in.kind));
  out.set_job(in.job.value);
  out.set_whole_array(in.whole_array);
  out.set_delay_us(in.delay.us);
  out.set_never(in.never);
  write_list(in.corr_waits, *out.mutable_corr_waits());
  write_list(in.corr_never, *out.mutable_corr_never());
}
void write(const LicenseCount& in, pb::LicenseCount& out) {
  out.set_name(in.name);
  out.set_count(in.count);
}
void write(const Core& in, pb::Core& out) {
  out.set_package(in.package);
  out.set_numa(in.numa);
  write_words(in.threads, *out.mutable_threads());
}
void write(const Peer& in, pb::Peer& out) {
  out.set_name(in.name);
  out.set_endpoint(in.endpoint);
  out.set_public_key(in.public_key);
  out.set_tasks(in.tasks);
  out.set_cpus(in.cpus);
  out.set_gpus(in.gpus);
}
void write(const PositionRange& in, pb::PositionRange& out) {
  out.set_begin(in.begin);
  out.set_end(in.end);
}
void write(const StopTerms& in, pb::StopTerms& out) {
  out.set_room_for(in.room_for.value);
  out.set_requeue(in.requeue);
  out.set_notice_signal(in.notice_signal);
  out.set_notice_us(in.notice.us);
}
void write(const PlannedShare& in, pb::PlannedShare& out) {
  out.set_node(in.node.value);
  out.set_tasks(in.tasks);
  out.set_cores(in.cores);
  out.set_gpus(in.gpus);
  out.set_mem_mib(in.mem_mib);
}
void write(const RequeuedTask& in, pb::RequeuedTask& out) {
  out.set_position(in.position);
  out.set_attempt(in.attempt.value);
  out.set_last_end(in.last_end);
  out.set_node_faults(in.node_faults);
}
void write(const Doubt& in, pb::Doubt& out) {
  to_pb(in.attempt, *out.mutable_attempt());
  out.set_at_us(in.at.us);
  out.set_array(in.array.value);
  out.set_user(in.user);
  write_digest(in.script, *out.mutable_script());
  out.set_args(in.args);
  out.set_text(in.text);
}
void write(const TaskProof& in, pb::TaskProof& out) {
  out.set_step(in.step);
  out.set_rank(in.rank);
  write_words(in.cpus, *out.mutable_cpus());
  write_words(in.memory, *out.mutable_memory());
  write_words(in.gpus, *out.mutable_gpus());
  std::uint32_t holds = 0;
  for (std::size_t bit = 0; bit < kTaskProofBits.size(); ++bit) {
    holds |= in.*kTaskProofBits[bit] ? 1U << bit : 0U;
  }
  out.set_holds(holds);
}
void write(const AttemptOnNode& in, pb::AttemptOnNode& out) {
  to_pb(in.share, *out.mutable_share());
  out.set_phase(static_cast<std::uint32_t>(in.phase));
  if (in.outcome) to_pb(*in.outcome, *out.mutable_outcome());
  out.set_stands_still(in.stands_still);
  if (in.proof) to_pb(*in.proof, *out.mutable_proof());
}
template <typename Value, typename Message>
void write(const Value& in, Message& out) {
  to_pb(in, out);
}
template <typename Value, typename Message>
void write_list(const std::vector<Value>& in, google::protobuf::RepeatedPtrField<Message>& out) {
  out.Clear();
  out.Reserve(static_cast<int>(in.size()));
  for (const Value& value : in) write(value, *out.Add());
}

// ---------------------------------------------------------------- parts that only this file names

Result<ArrayRange> read_range(const pb::ArrayRange& in) {
  if (in.step() == 0 || in.first() > in.last() || in.last() > kArrayIndexMax) {
    return corrupt("ArrayRange", "is descending, has no step, or goes beyond the largest index");
  }
  return ArrayRange{in.first(), in.last(), in.step()};
}

Result<Core> read(const pb::Core& in) {
  Core out{in.package(), in.numa(), {}};
  MUSTER_ASSIGN(out.threads, read_index_set(in.threads(), "Core.threads"));
  return out;
}

Peer read(const pb::Peer& in) {
  return {in.name(), in.endpoint(), in.public_key(), in.tasks(), in.cpus(), in.gpus()};
}

PlannedShare read(const pb::PlannedShare& in) {
  return {NodeIndex(in.node()), in.tasks(), in.cores(), in.gpus(), in.mem_mib()};
}
Result<Blame> read(const pb::Blame& in) {
  Blame out;
  out.attempt = from_pb(in.attempt());
  MUSTER_ASSIGN(out.at, read_instant(in.at_us(), "Blame.at_us"));
  out.text = in.text();
  return out;
}
Result<Doubt> read(const pb::Doubt& in) {
  Doubt out;
  out.attempt = from_pb(in.attempt());
  MUSTER_ASSIGN(out.at, read_instant(in.at_us(), "Doubt.at_us"));
  out.array = JobId(in.array());
  out.user = in.user();
  MUSTER_ASSIGN(out.script, read_digest(in.script(), "Doubt.script"));
  out.args = in.args();
  out.text = in.text();
  return out;
}
RequeuedTask read(const pb::RequeuedTask& in) {
  return {in.position(), Attempt(in.attempt()), in.last_end(), in.node_faults()};
}

Result<StopTerms> read_terms(const pb::StopTerms& in) {
  StopTerms out;
  out.room_for = JobId(in.room_for());
  out.requeue = in.requeue();
  out.notice_signal = in.notice_signal();
  MUSTER_ASSIGN(out.notice, read_duration(in.notice_us(), "StopTerms.notice_us"));
  return out;
}

Result<PositionRange> read(const pb::PositionRange& in) {
  if (in.begin() >= in.end() || in.end() > kArrayTasksMax) return corrupt("PositionRange", "is empty or too long");
  return PositionRange{in.begin(), in.end()};
}

Result<TaskProof> read(const pb::TaskProof& in) {
  TaskProof out;
  out.step = in.step();
  out.rank = in.rank();
  MUSTER_ASSIGN(out.cpus, read_index_set(in.cpus(), "TaskProof.cpus"));
  MUSTER_ASSIGN(out.memory, read_index_set(in.memory(), "TaskProof.memory"));
  MUSTER_ASSIGN(out.gpus, read_index_set(in.gpus(), "TaskProof.gpus"));
  for (std::size_t bit = 0; bit < kTaskProofBits.size(); ++bit) {
    out.*kTaskProofBits[bit] = (in.holds() >> bit & 1U) != 0;
  }
  return out;
}

Result<AttemptOnNode> read(const pb::AttemptOnNode& in) {
  AttemptOnNode out;
  MUSTER_REQUIRE(in, share);
  MUSTER_ASSIGN(out.share, from_pb(in.share()));
  MUSTER_ASSIGN(out.phase, read_enum(in.phase(), NodePhase::kEnded, "AttemptOnNode.phase"));
  if (in.has_outcome()) {
    MUSTER_ASSIGN(out.outcome, from_pb(in.outcome()));
  }
  out.stands_still = in.stands_still();
  if (in.has_proof()) {
    MUSTER_ASSIGN(out.proof, read(in.proof()));
  }
  return out;
}

Result<Active> read_active(const pb::ActivePhase& in) {
  Active out;
  MUSTER_ASSIGN(out.start_time, read_instant(in.start_time_us(), "ActivePhase.start_time_us"));
  out.started = in.started();
  MUSTER_TRY(read_list(in.nodes(), kNodesMax, "ActivePhase.nodes", out.nodes));
  MUSTER_ASSIGN(out.stop, read_enum(in.stop(), kStopCauseLast, "ActivePhase.stop"));
  out.stop_signal = in.stop_signal();
  out.stop_by = in.stop_by();
  MUSTER_ASSIGN(out.time_limit, read_duration(in.time_limit_us(), "ActivePhase.time_limit_us"));
  out.limit_changed = in.limit_changed();
  MUSTER_ASSIGN(out.stop_time, read_instant(in.stop_time_us(), "ActivePhase.stop_time_us"));
  MUSTER_ASSIGN(out.terms, read_terms(in.terms()));
  MUSTER_ASSIGN(out.suspension.since, read_instant(in.suspension().since_us(), "Suspension.since_us"));
  MUSTER_ASSIGN(out.suspension.earlier, read_duration(in.suspension().earlier_us(), "Suspension.earlier_us"));
  out.suspension.orders = in.suspension().orders();
  out.suspension.room_for = JobId(in.suspension().room_for());
  MUSTER_ASSIGN(out.suspension.resumed, read_instant(in.suspension().resumed_us(), "Suspension.resumed_us"));
  return out;
}

void write_active(const Active& in, pb::ActivePhase& out) {
  out.set_start_time_us(in.start_time.us);
  out.set_started(in.started);
  write_list(in.nodes, *out.mutable_nodes());
  out.set_stop(static_cast<std::uint32_t>(in.stop));
  out.set_stop_signal(in.stop_signal);
  out.set_stop_by(in.stop_by);
  out.set_time_limit_us(in.time_limit.us);
  out.set_limit_changed(in.limit_changed);
  out.set_stop_time_us(in.stop_time.us);
  if (in.terms != StopTerms{}) write(in.terms, *out.mutable_terms());
  if (in.suspension != Suspension{}) {
    out.mutable_suspension()->set_since_us(in.suspension.since.us);
    out.mutable_suspension()->set_earlier_us(in.suspension.earlier.us);
    out.mutable_suspension()->set_orders(in.suspension.orders);
    out.mutable_suspension()->set_room_for(in.suspension.room_for.value);
    out.mutable_suspension()->set_resumed_us(in.suspension.resumed.us);
  }
}

void write(const NodeHealth& in, pb::NodeHealth& out) {
  write_list(in.problems, *out.mutable_problems());
  out.set_fault(static_cast<std::uint32_t>(in.fault));
  out.set_fault_text(in.fault_text);
  out.set_since_us(in.since.us);
  write_list(in.blames, *out.mutable_blames());
  write_list(in.doubts, *out.mutable_doubts());
  out.set_rests_until_us(in.rests_until.us);
}
Result<NodeHealth> read(const pb::NodeHealth& in) {
  NodeHealth out;
  MUSTER_TRY(read_list(in.problems(), kProblemsMax, "NodeHealth.problems", out.problems));
  MUSTER_ASSIGN(out.fault, read_enum(in.fault(), kNodeFaultLast, "NodeHealth.fault"));
  out.fault_text = in.fault_text();
  MUSTER_ASSIGN(out.since, read_instant(in.since_us(), "NodeHealth.since_us"));
  MUSTER_TRY(read_list(in.blames(), kBlamesAtMost, "NodeHealth.blames", out.blames));
  MUSTER_TRY(read_list(in.doubts(), kBlamesAtMost, "NodeHealth.doubts", out.doubts));
  MUSTER_ASSIGN(out.rests_until, read_instant(in.rests_until_us(), "NodeHealth.rests_until_us"));
  return out;
}

// ---------------------------------------------------------------- one function for each kind of fact

struct FactWriter {
  pb::Fact& out;

  void operator()(const TermStarted& in) const { out.mutable_term_started()->set_term(in.term.value); }
  void operator()(const NodeRegistered& in) const {
    pb::NodeRegistered& to = *out.mutable_node_registered();
    to.set_index(in.index.value);
    to.set_name(in.name);
    to_pb(in.hardware, *to.mutable_hardware());
    to.set_boot_id(in.boot_id);
    to.set_endpoint(in.endpoint);
    to.set_public_key(in.public_key);
    to.set_sequence(in.sequence);
    write_texts(in.features, *to.mutable_features());
    if (in.topology.is_set()) to_pb(in.topology, *to.mutable_topology());
    write_list(in.enforcement, *to.mutable_enforcement());
    to.set_has_prolog(in.has_prolog);
  }
  void operator()(const NodeClassAdded& in) const { to_pb(in, *out.mutable_node_class_added()); }
  void operator()(const NodeBecameUnreachable& in) const {
    out.mutable_node_became_unreachable()->set_node(in.node.value);
  }
  void operator()(const NodeDrained& in) const {
    out.mutable_node_drained()->set_node(in.node.value);
    out.mutable_node_drained()->set_reason(in.reason);
  }
  void operator()(const NodeHealthChanged& in) const {
    out.mutable_node_health_changed()->set_node(in.node.value);
    write_list(in.problems, *out.mutable_node_health_changed()->mutable_problems());
  }
  void operator()(const NodeFaulted& in) const {
    out.mutable_node_faulted()->set_node(in.node.value);
    out.mutable_node_faulted()->set_fault(static_cast<std::uint32_t>(in.fault));
    out.mutable_node_faulted()->set_text(in.text);
  }
  void operator()(const NodeDoubted& in) const {
    out.mutable_node_doubted()->set_node(in.node.value);
    write(in.doubt, *out.mutable_node_doubted()->mutable_doubt());
  }
  void operator()(const NodeBlamed& in) const {
    out.mutable_node_blamed()->set_node(in.node.value);
    to_pb(in.blame, *out.mutable_node_blamed()->mutable_blame());
    out.mutable_node_blamed()->set_rests_until_us(in.rests_until.us);
  }
  void operator()(const NodeTrusted& in) const {
    pb::NodeTrusted& to = *out.mutable_node_trusted();
    to.set_node(in.node.value);
    to.set_rested(in.rested);
    to.set_blames(in.blames);
    to.set_doubts(in.doubts);
  }
  void operator()(const NodeResumed& in) const { out.mutable_node_resumed()->set_node(in.node.value); }
  void operator()(const JobSubmitted& in) const {
    pb::JobSubmitted& to = *out.mutable_job_submitted();
    to.set_id(in.id.value);
    if (in.request.is_set()) to_pb(in.request, *to.mutable_request());
    if (in.spec != nullptr) to_pb(*in.spec, *to.mutable_spec());
    to.set_priority(in.priority);
  }
  void operator()(const RequestsForgotten& in) const { out.mutable_requests_forgotten()->set_before_us(in.before.us); }
  void operator()(const JobHeld& in) const { out.mutable_job_held()->set_job(in.job.value); }
  void operator()(const StartPromised& in) const {
    pb::StartPromised& to = *out.mutable_start_promised();
    to.set_job(in.job.value);
    to.set_start_us(in.start.us);
    write_list(in.place, *to.mutable_place());
  }
  void operator()(const DependencySet& in) const {
    pb::DependencySet& to = *out.mutable_dependency_set();
    to.set_job(in.job.value);
    write_list(in.open, *to.mutable_open());
  }
  void operator()(const ReservationMade& in) const { to_pb(in.reservation, *out.mutable_reservation_made()); }
  void operator()(const ReservationRemoved& in) const { out.mutable_reservation_removed()->set_name(in.name); }
  void operator()(const JobReleased& in) const { out.mutable_job_released()->set_job(in.job.value); }
  void operator()(const AttemptStarted& in) const {
    pb::AttemptStarted& to = *out.mutable_attempt_started();
    to.set_job(in.job.value);
    to.set_attempt(in.attempt.value);
    write_list(in.shares, *to.mutable_shares());
    to.set_time_limit_us(in.time_limit.us);
  }
  void operator()(const AttemptConfirmed& in) const {
    to_pb(in.key, *out.mutable_attempt_confirmed()->mutable_key());
    out.mutable_attempt_confirmed()->set_node(in.node.value);
  }
  void operator()(const AttemptEndedOnNode& in) const {
    pb::AttemptEndedOnNode& to = *out.mutable_attempt_ended_on_node();
    to_pb(in.key, *to.mutable_key());
    to.set_node(in.node.value);
    to_pb(in.outcome, *to.mutable_outcome());
  }
  void operator()(const StopRequested& in) const {
    pb::StopRequested& to = *out.mutable_stop_requested();
    to_pb(in.key, *to.mutable_key());
    to.set_cause(static_cast<std::uint32_t>(in.cause));
    to.set_signal(in.signal);
    to.set_by(in.by);
    if (in.terms != StopTerms{}) write(in.terms, *to.mutable_terms());
  }
  void operator()(const JobRequeued& in) const {
    pb::JobRequeued& to = *out.mutable_job_requeued();
    to.set_job(in.job.value);
    to.set_state(static_cast<std::uint32_t>(in.state));
    to.set_reason(in.reason);
    to.set_by_node(in.by_node);
  }
  void operator()(const AttemptSuspended& in) const {
    to_pb(in.key, *out.mutable_attempt_suspended()->mutable_key());
    out.mutable_attempt_suspended()->set_by(in.by);
    out.mutable_attempt_suspended()->set_room_for(in.room_for.value);
  }
  void operator()(const AttemptStoodStill& in) const {
    to_pb(in.key, *out.mutable_attempt_stood_still()->mutable_key());
    out.mutable_attempt_stood_still()->set_node(in.node.value);
  }
  void operator()(const AttemptProven& in) const {
    pb::AttemptProven& to = *out.mutable_attempt_proven();
    to_pb(in.key, *to.mutable_key());
    to.set_node(in.node.value);
    to_pb(in.proof, *to.mutable_proof());
  }
  void operator()(const AttemptResumed& in) const {
    to_pb(in.key, *out.mutable_attempt_resumed()->mutable_key());
    out.mutable_attempt_resumed()->set_by(in.by);
  }
  void operator()(const JobEnded& in) const {
    pb::JobEnded& to = *out.mutable_job_ended();
    to.set_job(in.job.value);
    to.set_state(static_cast<std::uint32_t>(in.state));
    to.set_reason(in.reason);
    to.set_exit_code(in.exit_code);
    to.set_exit_signal(in.exit_signal);
  }
  void operator()(const ArrayTasksEnded& in) const {
    pb::ArrayTasksEnded& to = *out.mutable_array_tasks_ended();
    to.set_array(in.array.value);
    write(in.positions, *to.mutable_positions());
    to.set_state(static_cast<std::uint32_t>(in.state));
    to.set_reason(in.reason);
  }
  void operator()(const SettingChanged& in) const {
    pb::SettingChanged& to = *out.mutable_setting_changed();
    to.set_key(in.key);
    to.set_is_set(in.value.has_value());
    to.set_value(in.value.value_or(""));
  }
  void operator()(const JobUpdated& in) const {
    pb::JobUpdated& to = *out.mutable_job_updated();
    to.set_job(in.job.value);
    if (in.spec != nullptr) to_pb(*in.spec, *to.mutable_spec());
    to.set_priority(in.priority);
    to.set_attempt(in.attempt.value);
  }
  void operator()(const AttemptTimeLimitChanged& in) const {
    to_pb(in.key, *out.mutable_attempt_time_limit_changed()->mutable_key());
    out.mutable_attempt_time_limit_changed()->set_time_limit_us(in.time_limit.us);
  }
  void operator()(const ArrayTasksHeld& in) const {
    out.mutable_array_tasks_held()->set_array(in.array.value);
    write_list(in.positions, *out.mutable_array_tasks_held()->mutable_positions());
  }
  void operator()(const ArrayTasksReleased& in) const {
    out.mutable_array_tasks_released()->set_array(in.array.value);
    write_list(in.positions, *out.mutable_array_tasks_released()->mutable_positions());
  }
  void operator()(const AccountSet& in) const { to_pb(in.account, *out.mutable_account_set()); }
  void operator()(const AccountRemoved& in) const { out.mutable_account_removed()->set_name(in.name); }
  void operator()(const UserSet& in) const { to_pb(in.user, *out.mutable_user_set()); }
  void operator()(const UserRemoved& in) const { out.mutable_user_removed()->set_name(in.name); }
  void operator()(const QosSet& in) const { to_pb(in.qos, *out.mutable_qos_set()); }
  void operator()(const QosRemoved& in) const { out.mutable_qos_removed()->set_name(in.name); }
  void operator()(const BillingConfigured& in) const { to_pb(in.rules, *out.mutable_billing_configured()); }
};

// Ascending, as every function of lib/model/positions.h expects them.
Status read_positions(const google::protobuf::RepeatedPtrField<pb::PositionRange>& in, std::string_view field,
                      Positions& out) {
  MUSTER_TRY(read_list(in, INT_MAX, field, out));
  for (std::size_t i = 1; i < out.size(); ++i) {
    if (out[i].begin < out[i - 1].end) return corrupt(field, "has positions out of order");
  }
  return ok_status();
}

Result<DependencyTerm> read(const pb::DependencyTerm& in) {
  DependencyTerm out;
  MUSTER_ASSIGN(out.kind, read_enum(in.kind(), DependencyKind::kAfterCorr, "DependencyTerm.kind"));
  out.target = {JobId(in.job()), in.has_task(), in.task()};
  MUSTER_ASSIGN(out.delay, read_duration(in.delay_us(), "DependencyTerm.delay_us"));
  return out;
}
Result<OpenDependency> read(const pb::OpenDependency& in) {
  OpenDependency out;
  MUSTER_ASSIGN(out.kind, read_enum(in.kind(), DependencyKind::kAfterCorr, "OpenDependency.kind"));
  out.job = JobId(in.job());
  out.whole_array = in.whole_array();
  MUSTER_ASSIGN(out.delay, read_duration(in.delay_us(), "OpenDependency.delay_us"));
  out.never = in.never();
  MUSTER_TRY(read_positions(in.corr_waits(), "OpenDependency.corr_waits", out.corr_waits));
  MUSTER_TRY(read_positions(in.corr_never(), "OpenDependency.corr_never", out.corr_never));
  return out;
}

Result<LicenseCount> read(const pb::LicenseCount& in) {
  if (in.count() == 0 || in.count() > kLicenseCountMax) return corrupt("LicenseCount.count", "is out of bounds");
  return LicenseCount{in.name(), in.count()};
}

Result<FactBody> read_reservation_made(const pb::Reservation& in) {
  MUSTER_ASSIGN(Reservation reservation, from_pb(in));
  return FactBody(ReservationMade{std::move(reservation)});
}

Result<FactBody> read_promised(const pb::StartPromised& in) {
  StartPromised out{JobId(in.job()), Instant{in.start_us()}};
  MUSTER_TRY(read_list(in.place(), kNodesMax, "StartPromised.place", out.place));
  return FactBody(std::move(out));
}

Result<FactBody> read_dependency_set(const pb::DependencySet& in) {
  DependencySet out;
  out.job = JobId(in.job());
  MUSTER_TRY(read_list(in.open(), static_cast<int>(kDependencyTermsMax), "DependencySet.open", out.open));
  return FactBody(std::move(out));
}

Result<FactBody> read_node_registered(const pb::NodeRegistered& in) {
  NodeRegistered out;
  MUSTER_REQUIRE(in, hardware);
  MUSTER_ASSIGN(out.hardware, from_pb(in.hardware()));
  out.index = NodeIndex(in.index());
  out.name = in.name();
  out.boot_id = in.boot_id();
  out.endpoint = in.endpoint();
  out.public_key = in.public_key();
  out.sequence = in.sequence();
  MUSTER_ASSIGN(out.features, read_texts(in.features(), kFeaturesMax, "NodeRegistered.features"));
  out.topology = from_pb(in.topology());
  MUSTER_TRY(read_list(in.enforcement(), kEnforcedByMax, "NodeRegistered.enforcement", out.enforcement));
  out.has_prolog = in.has_prolog();
  return FactBody(std::move(out));
}

Result<FactBody> read_job_submitted(const pb::JobSubmitted& in) {
  JobSubmitted out;
  MUSTER_ASSIGN(out.spec, read_spec(in.has_spec(), in.spec(), "JobSubmitted.spec"));
  out.id = JobId(in.id());
  out.request = from_pb(in.request());
  out.priority = in.priority();
  return FactBody(std::move(out));
}

Result<FactBody> read_attempt_started(const pb::AttemptStarted& in) {
  AttemptStarted out{JobId(in.job()), Attempt(in.attempt()), {}};
  MUSTER_ASSIGN(out.time_limit, read_duration(in.time_limit_us(), "AttemptStarted.time_limit_us"));
  MUSTER_TRY(read_list(in.shares(), kNodesMax, "AttemptStarted.shares", out.shares));
  return FactBody(std::move(out));
}

Result<FactBody> read_attempt_confirmed(const pb::AttemptConfirmed& in) {
  MUSTER_REQUIRE(in, key);
  return FactBody(AttemptConfirmed{from_pb(in.key()), NodeIndex(in.node())});
}

Result<FactBody> read_attempt_ended(const pb::AttemptEndedOnNode& in) {
  MUSTER_REQUIRE(in, key);
  MUSTER_REQUIRE(in, outcome);
  MUSTER_ASSIGN(Outcome outcome, from_pb(in.outcome()));
  return FactBody(AttemptEndedOnNode{from_pb(in.key()), NodeIndex(in.node()), std::move(outcome)});
}

Result<FactBody> read_stop_requested(const pb::StopRequested& in) {
  MUSTER_REQUIRE(in, key);
  MUSTER_ASSIGN(const StopCause cause, read_enum(in.cause(), kStopCauseLast, "StopRequested.cause"));
  MUSTER_ASSIGN(StopTerms terms, read_terms(in.terms()));
  return FactBody(StopRequested{from_pb(in.key()), cause, in.signal(), in.by(), terms});
}

Result<FactBody> read_job_requeued(const pb::JobRequeued& in) {
  MUSTER_ASSIGN(const JobState state, read_state(in.state(), "JobRequeued.state"));
  return FactBody(JobRequeued{JobId(in.job()), state, in.reason(), in.by_node()});
}

Result<FactBody> read_suspended(const pb::AttemptSuspended& in) {
  MUSTER_REQUIRE(in, key);
  return FactBody(AttemptSuspended{from_pb(in.key()), in.by(), JobId(in.room_for())});
}

Result<FactBody> read_resumed(const pb::AttemptSuspended& in) {
  MUSTER_REQUIRE(in, key);
  return FactBody(AttemptResumed{from_pb(in.key()), in.by()});
}

Result<FactBody> read_stood_still(const pb::AttemptStoodStill& in) {
  MUSTER_REQUIRE(in, key);
  return FactBody(AttemptStoodStill{from_pb(in.key()), NodeIndex(in.node())});
}

Result<FactBody> read_proven(const pb::AttemptProven& in) {
  MUSTER_REQUIRE(in, key);
  MUSTER_REQUIRE(in, proof);
  MUSTER_ASSIGN(PlacementProof proof, read(in.proof()));
  return FactBody(AttemptProven{from_pb(in.key()), NodeIndex(in.node()), std::move(proof)});
}

Result<FactBody> read_job_ended(const pb::JobEnded& in) {
  MUSTER_ASSIGN(const JobState state, read_state(in.state(), "JobEnded.state"));
  return FactBody(JobEnded{JobId(in.job()), state, in.reason(), in.exit_code(), in.exit_signal()});
}

Result<FactBody> read_array_tasks_ended(const pb::ArrayTasksEnded& in) {
  MUSTER_REQUIRE(in, positions);
  MUSTER_ASSIGN(const PositionRange positions, read(in.positions()));
  MUSTER_ASSIGN(const JobState state, read_state(in.state(), "ArrayTasksEnded.state"));
  return FactBody(ArrayTasksEnded{JobId(in.array()), positions, state, in.reason()});
}

Result<FactBody> read_setting_changed(const pb::SettingChanged& in) {
  SettingChanged out;
  out.key = in.key();
  if (in.is_set()) out.value = in.value();
  return FactBody(std::move(out));
}

Result<FactBody> read_job_updated(const pb::JobUpdated& in) {
  JobUpdated out;
  out.job = JobId(in.job());
  out.attempt = Attempt(in.attempt());
  MUSTER_ASSIGN(out.spec, read_spec(in.has_spec(), in.spec(), "JobUpdated.spec"));
  out.priority = in.priority();
  return FactBody(std::move(out));
}

Result<FactBody> read_limit_changed(const pb::AttemptTimeLimitChanged& in) {
  MUSTER_REQUIRE(in, key);
  MUSTER_ASSIGN(const Duration limit, read_duration(in.time_limit_us(), "AttemptTimeLimitChanged.time_limit_us"));
  return FactBody(AttemptTimeLimitChanged{from_pb(in.key()), limit});
}

template <typename Out>
Result<FactBody> read_array_positions(const pb::ArrayPositions& in, std::string_view field) {
  Out out;
  out.array = JobId(in.array());
  MUSTER_TRY(read_positions(in.positions(), field, out.positions));
  return FactBody(std::move(out));
}

Result<FactBody> read_health_changed(const pb::NodeHealthChanged& in) {
  NodeHealthChanged out;
  out.node = NodeIndex(in.node());
  MUSTER_TRY(read_list(in.problems(), kProblemsMax, "NodeHealthChanged.problems", out.problems));
  return FactBody(std::move(out));
}

Result<FactBody> read_fact_body(const pb::Fact& in) {
  switch (in.body_case()) {
    case pb::Fact::kTermStarted:
      return FactBody(TermStarted{Term(in.term_started().term())});
    case pb::Fact::kNodeRegistered:
      return read_node_registered(in.node_registered());
    case pb::Fact::kNodeClassAdded: {
      MUSTER_ASSIGN(NodeClassAdded added, from_pb(in.node_class_added()));
      return FactBody(std::move(added));
    }
    case pb::Fact::kNodeBecameUnreachable:
      return FactBody(NodeBecameUnreachable{NodeIndex(in.node_became_unreachable().node())});
    case pb::Fact::kNodeDrained:
      return FactBody(NodeDrained{NodeIndex(in.node_drained().node()), in.node_drained().reason()});
    case pb::Fact::kNodeResumed:
      return FactBody(NodeResumed{NodeIndex(in.node_resumed().node())});
    case pb::Fact::kJobSubmitted:
      return read_job_submitted(in.job_submitted());
    case pb::Fact::kRequestsForgotten: {
      MUSTER_ASSIGN(const Instant before,
                    read_instant(in.requests_forgotten().before_us(), "RequestsForgotten.before"));
      return FactBody(RequestsForgotten{before});
    }
    case pb::Fact::kJobHeld:
      return FactBody(JobHeld{JobId(in.job_held().job())});
    case pb::Fact::kStartPromised:
      return read_promised(in.start_promised());
    case pb::Fact::kDependencySet:
      return read_dependency_set(in.dependency_set());
    case pb::Fact::kReservationMade:
      return read_reservation_made(in.reservation_made());
    case pb::Fact::kReservationRemoved:
      return FactBody(ReservationRemoved{in.reservation_removed().name()});
    case pb::Fact::kJobReleased:
      return FactBody(JobReleased{JobId(in.job_released().job())});
    case pb::Fact::kAttemptStarted:
      return read_attempt_started(in.attempt_started());
    case pb::Fact::kAttemptConfirmed:
      return read_attempt_confirmed(in.attempt_confirmed());
    case pb::Fact::kAttemptEndedOnNode:
      return read_attempt_ended(in.attempt_ended_on_node());
    case pb::Fact::kStopRequested:
      return read_stop_requested(in.stop_requested());
    case pb::Fact::kJobEnded:
      return read_job_ended(in.job_ended());
    case pb::Fact::kArrayTasksEnded:
      return read_array_tasks_ended(in.array_tasks_ended());
    case pb::Fact::kSettingChanged:
      return read_setting_changed(in.setting_changed());
    case pb::Fact::kJobUpdated:
      return read_job_updated(in.job_updated());
    case pb::Fact::kAttemptTimeLimitChanged:
      return read_limit_changed(in.attempt_time_limit_changed());
    case pb::Fact::kArrayTasksHeld:
      return read_array_positions<ArrayTasksHeld>(in.array_tasks_held(), "ArrayTasksHeld.positions");
    case pb::Fact::kArrayTasksReleased:
      return read_array_positions<ArrayTasksReleased>(in.array_tasks_released(), "ArrayTasksReleased.positions");
    case pb::Fact::kAccountSet: {
      MUSTER_ASSIGN(Account account, from_pb(in.account_set()));
      return FactBody(AccountSet{std::move(account)});
    }
    case pb::Fact::kAccountRemoved:
      return FactBody(AccountRemoved{in.account_removed().name()});
    case pb::Fact::kUserSet: {
      MUSTER_ASSIGN(User user, from_pb(in.user_set()));
      return FactBody(UserSet{std::move(user)});
    }
    case pb::Fact::kUserRemoved:
      return FactBody(UserRemoved{in.user_removed().name()});
    case pb::Fact::kQosSet: {
      MUSTER_ASSIGN(Qos qos, from_pb(in.qos_set()));
      return FactBody(QosSet{std::move(qos)});
    }
    case pb::Fact::kQosRemoved:
      return FactBody(QosRemoved{in.qos_removed().name()});
    case pb::Fact::kBillingConfigured: {
      MUSTER_ASSIGN(const BillingRules rules, from_pb(in.billing_configured()));
      return FactBody(BillingConfigured{rules});
    }
    case pb::Fact::kJobRequeued:
      return read_job_requeued(in.job_requeued());
    case pb::Fact::kAttemptSuspended:
      return read_suspended(in.attempt_suspended());
    case pb::Fact::kAttemptResumed:
      return read_resumed(in.attempt_resumed());
    case pb::Fact::kAttemptStoodStill:
      return read_stood_still(in.attempt_stood_still());
    case pb::Fact::kAttemptProven:
      return read_proven(in.attempt_proven());
    case pb::Fact::kNodeHealthChanged:
      return read_health_changed(in.node_health_changed());
    case pb::Fact::kNodeDoubted: {
      MUSTER_ASSIGN(Doubt doubt, read(in.node_doubted().doubt()));
      return FactBody(NodeDoubted{NodeIndex(in.node_doubted().node()), std::move(doubt)});
    }
    case pb::Fact::kNodeBlamed: {
      MUSTER_ASSIGN(Blame blame, read(in.node_blamed().blame()));
      MUSTER_ASSIGN(const Instant until, read_instant(in.node_blamed().rests_until_us(), "NodeBlamed.rests_until_us"));
      return FactBody(NodeBlamed{NodeIndex(in.node_blamed().node()), std::move(blame), until});
    }
    case pb::Fact::kNodeTrusted: {
      const pb::NodeTrusted& trusted = in.node_trusted();
      return FactBody(NodeTrusted{NodeIndex(trusted.node()), trusted.rested(), trusted.blames(), trusted.doubts()});
    }
    case pb::Fact::kNodeFaulted: {
      MUSTER_ASSIGN(const NodeFault fault, read_enum(in.node_faulted().fault(), kNodeFaultLast, "NodeFaulted.fault"));
      return FactBody(NodeFaulted{NodeIndex(in.node_faulted().node()), fault, in.node_faulted().text()});
    }
    case pb::Fact::BODY_NOT_SET:
      break;
  }
  return corrupt("Fact.body", "is missing or of a kind that this release does not know");
}

}  // namespace

// ---------------------------------------------------------------- jobs as users ask for them

void to_pb(const RequestId& in, pb::RequestId& out) {
  out.set_high(in.high);
  out.set_low(in.low);
}
RequestId from_pb(const pb::RequestId& in) {
  return {in.high(), in.low()};
}

void to_pb(const ArraySpec& in, pb::ArraySpec& out) {
  write_list(in.ranges, *out.mutable_ranges());
  out.set_max_running(in.max_running);
}
Result<ArraySpec> from_pb(const pb::ArraySpec& in) {
  ArraySpec out;
  if (in.ranges_size() > static_cast<int>(kArrayRangesMax)) return corrupt("ArraySpec.ranges", "has too many entries");
  for (const pb::ArrayRange& range : in.ranges()) {
    MUSTER_ASSIGN(const ArrayRange value, read_range(range));
    out.ranges.push_back(value);
  }
  out.max_running = in.max_running();
  const Status status = check_array_spec(out);
  if (!status.ok()) return make_error(ErrorCode::kCorrupt, status.error().message);
  return out;
}

void to_pb(const JobSpec& in, pb::JobSpec& out) {
  out.Clear();
  out.set_kind(static_cast<std::uint32_t>(in.kind));
  out.set_name(in.name);
  out.set_user(in.user);
  out.set_uid(in.uid);
  out.set_gid(in.gid);
  out.set_queue(in.queue);
  out.set_account(in.account);
  out.set_qos(in.qos);
  out.set_comment(in.comment);
  out.set_nodes_min(in.nodes_min);
  out.set_nodes_max(in.nodes_max);
  out.set_ntasks(in.ntasks);
  out.set_ntasks_per_node(in.ntasks_per_node);
  out.set_cpus_per_task(in.cpus_per_task);
  out.set_mem_per_node_mib(in.mem_per_node_mib);
  out.set_mem_per_cpu_mib(in.mem_per_cpu_mib);
  out.set_mem_per_gpu_mib(in.mem_per_gpu_mib);
  out.set_gpus(in.gpus);
  out.set_gpus_per_node(in.gpus_per_node);
  out.set_gpus_per_task(in.gpus_per_task);
  out.set_exclusive(in.exclusive);
  write_texts(in.nodelist, *out.mutable_nodelist());
  write_texts(in.exclude, *out.mutable_exclude());
  write_texts(in.avoid, *out.mutable_avoid());
  out.set_time_limit_us(in.time_limit.us);
  out.set_nice(in.nice);
  out.set_begin_us(in.begin.us);
  out.set_hold(in.hold);
  out.set_requeue(in.requeue);
  if (in.array) to_pb(*in.array, *out.mutable_array());
  out.set_work_dir(in.work_dir);
  out.set_stdout_path(in.stdout_path);
  out.set_stderr_path(in.stderr_path);
  out.set_stdin_path(in.stdin_path);
  out.set_open_mode(static_cast<std::uint32_t>(in.open_mode));
  out.set_submit_host(in.submit_host);
  out.set_script_name(in.script_name);
  write_texts(in.args, *out.mutable_args());
  write_digest(in.script, *out.mutable_script());
  write_digest(in.environment, *out.mutable_environment());
  out.set_export_mode(in.export_mode);
  if (in.dependency != Dependency{}) {
    write_list(in.dependency.terms, *out.mutable_dependency()->mutable_terms());
    out.mutable_dependency()->set_any(in.dependency.any);
  }
  out.set_constraint(in.constraint);
  out.set_switches(in.switches);
  if (!in.switches_wait.is_infinite()) out.set_switches_wait_us(in.switches_wait.us + 1);
  out.set_segment(in.segment);
  out.set_locality(in.locality == Locality::kPrefer ? 0 : static_cast<std::uint32_t>(in.locality) + 1);
  out.set_cpu_bind(in.cpu_bind);
  out.set_gpu_bind(in.gpu_bind);
  out.set_distribution(in.distribution);
  out.set_threads_per_core(in.threads_per_core);
  out.set_time_min_us(in.time_min.us);
  out.set_deadline_us(in.deadline.us);
  out.set_reservation(in.reservation);
  write_list(in.licenses, *out.mutable_licenses());
  out.set_warn_signal(in.warn_signal);
  out.set_warn_before_us(in.warn_before.us);
  out.set_choices((in.warn_batch_only ? kWarnBatchOnly : 0U) | (in.requeue_given ? kRequeueGiven : 0U) |
                  (in.open_mode_given ? kOpenModeGiven : 0U));
}

namespace {
// In place: a start decodes a million of them, and a JobSpec is large.
Status read_spec_into(const pb::JobSpec& in, JobSpec& out) {
  MUSTER_ASSIGN(out.kind, read_enum(in.kind(), JobKind::kAllocDetached, "JobSpec.kind"));
  out.name = in.name();
  out.user = in.user();
  out.uid = in.uid();
  out.gid = in.gid();
  out.queue = in.queue();
  out.account = in.account();
  out.qos = in.qos();
  out.comment = in.comment();
  out.nodes_min = in.nodes_min();
  out.nodes_max = in.nodes_max();
  out.ntasks = in.ntasks();
  out.ntasks_per_node = in.ntasks_per_node();
  out.cpus_per_task = in.cpus_per_task();
  out.mem_per_node_mib = in.mem_per_node_mib();
  out.mem_per_cpu_mib = in.mem_per_cpu_mib();
  out.mem_per_gpu_mib = in.mem_per_gpu_mib();
  out.gpus = in.gpus();
  out.gpus_per_node = in.gpus_per_node();
  out.gpus_per_task = in.gpus_per_task();
  out.exclusive = in.exclusive();
  MUSTER_ASSIGN(out.nodelist, read_texts(in.nodelist(), kNodesMax, "JobSpec.nodelist"));
  MUSTER_ASSIGN(out.exclude, read_texts(in.exclude(), kNodesMax, "JobSpec.exclude"));
  MUSTER_ASSIGN(out.avoid, read_texts(in.avoid(), kNodesMax, "JobSpec.avoid"));
  MUSTER_ASSIGN(out.time_limit, read_duration(in.time_limit_us(), "JobSpec.time_limit_us"));
  out.nice = in.nice();
  MUSTER_ASSIGN(out.begin, read_instant(in.begin_us(), "JobSpec.begin_us"));
  out.hold = in.hold();
  out.requeue = in.requeue();
  if (in.has_array()) {
    MUSTER_ASSIGN(out.array, from_pb(in.array()));
  }
  out.work_dir = in.work_dir();
  out.stdout_path = in.stdout_path();
  out.stderr_path = in.stderr_path();
  out.stdin_path = in.stdin_path();
  MUSTER_ASSIGN(out.open_mode, read_enum(in.open_mode(), OpenMode::kAppend, "JobSpec.open_mode"));
  out.submit_host = in.submit_host();
  out.script_name = in.script_name();
  MUSTER_ASSIGN(out.args, read_texts(in.args(), static_cast<int>(kArgumentsMax), "JobSpec.args"));
  MUSTER_ASSIGN(out.script, read_digest(in.script(), "JobSpec.script"));
  MUSTER_ASSIGN(out.environment, read_digest(in.environment(), "JobSpec.environment"));
  out.export_mode = in.export_mode();
  MUSTER_TRY(read_list(in.dependency().terms(), static_cast<int>(kDependencyTermsMax), "JobSpec.dependency",
                       out.dependency.terms));
  out.dependency.any = in.dependency().any();
  out.constraint = in.constraint();
  out.switches = in.switches();
  if (in.switches_wait_us() != 0) {
    MUSTER_ASSIGN(const Duration one_more, read_duration(in.switches_wait_us(), "JobSpec.switches_wait_us"));
    out.switches_wait = one_more - Duration::from_us(1);
  }
  out.segment = in.segment();
  if (in.locality() != 0) {
    MUSTER_ASSIGN(out.locality, read_enum(in.locality() - 1, Locality::kRequire, "JobSpec.locality"));
  }
  out.cpu_bind = in.cpu_bind();
  out.gpu_bind = in.gpu_bind();
  out.distribution = in.distribution();
  out.threads_per_core = in.threads_per_core();
  MUSTER_ASSIGN(out.time_min, read_duration(in.time_min_us(), "JobSpec.time_min_us"));
  MUSTER_ASSIGN(out.deadline, read_instant(in.deadline_us(), "JobSpec.deadline_us"));
  out.reservation = in.reservation();
  MUSTER_TRY(read_list(in.licenses(), static_cast<int>(kLicensesMax), "JobSpec.licenses", out.licenses));
  out.warn_signal = in.warn_signal();
  MUSTER_ASSIGN(out.warn_before, read_duration(in.warn_before_us(), "JobSpec.warn_before_us"));
  out.warn_batch_only = (in.choices() & kWarnBatchOnly) != 0;
  out.requeue_given = (in.choices() & kRequeueGiven) != 0;
  out.open_mode_given = (in.choices() & kOpenModeGiven) != 0;
  return ok_status();
}
}  // namespace

Result<JobSpec> from_pb(const pb::JobSpec& in) {
  JobSpec out;
  MUSTER_TRY(read_spec_into(in, out));
  return out;
}

void to_pb(const JobSelector::Item& in, pb::SelectorItem& out) {
  out.set_id(in.id.value);
  out.set_has_indices(in.has_indices);
  write_list(in.indices, *out.mutable_indices());
}
Result<JobSelector::Item> from_pb(const pb::SelectorItem& in) {
  JobSelector::Item out;
  out.id = JobId(in.id());
  out.has_indices = in.has_indices();
  if (in.indices_size() > static_cast<int>(kArrayRangesMax)) {
    return corrupt("SelectorItem.indices", "has too many entries");
  }
  for (const pb::ArrayRange& range : in.indices()) {
    MUSTER_ASSIGN(const ArrayRange value, read_range(range));
    out.indices.push_back(value);
  }
  return out;
}

void to_pb(const JobSelector& in, pb::JobSelector& out) {
  write_list(in.items, *out.mutable_items());
  out.set_user(in.user);
  out.set_queue(in.queue);
  out.set_name(in.name);
  out.clear_states();
  for (const JobState state : in.states) out.add_states(static_cast<std::uint32_t>(state));
}
Result<JobSelector> from_pb(const pb::JobSelector& in) {
  JobSelector out;
  MUSTER_TRY(read_list(in.items(), kSelectorItemsMax, "JobSelector.items", out.items));
  out.user = in.user();
  out.queue = in.queue();
  out.name = in.name();
  if (in.states_size() > kSelectorStatesMax) return corrupt("JobSelector.states", "has too many entries");
  for (const std::uint32_t value : in.states()) {
    MUSTER_ASSIGN(const JobState state, read_state(value, "JobSelector.states"));
    out.states.push_back(state);
  }
  return out;
}

// ---------------------------------------------------------------- hardware

void to_pb(const Gpu& in, pb::Gpu& out) {
  out.set_pci_address(in.pci_address);
  out.set_uuid(in.uuid);
  out.set_model(in.model);
  out.set_vendor_index(in.vendor_index);
  out.set_numa(in.numa);
}
Gpu from_pb(const pb::Gpu& in) {
  return {in.pci_address(), in.uuid(), in.model(), in.vendor_index(), in.numa()};
}

void to_pb(const Nic& in, pb::Nic& out) {
  out.set_pci_address(in.pci_address);
  write_texts(in.names, *out.mutable_names());
}
Result<Nic> from_pb(const pb::Nic& in) {
  MUSTER_ASSIGN(std::vector<std::string> names, read_texts(in.names(), kNicNamesMax, "Nic.names"));
  return Nic{in.pci_address(), std::move(names)};
}

void to_pb(const NodeHardware& in, pb::NodeHardware& out) {
  out.set_packages(in.packages);
  out.set_numa_nodes(in.numa_nodes);
  write_list(in.cores, *out.mutable_cores());
  write_list(in.gpus, *out.mutable_gpus());
  out.set_mem_mib(in.mem_mib);
  out.set_pretended(in.pretended);
  write_list(in.nics, *out.mutable_nics());
  out.mutable_numa_mem_mib()->Assign(in.numa_mem_mib.begin(), in.numa_mem_mib.end());
}
Result<NodeHardware> from_pb(const pb::NodeHardware& in) {
  NodeHardware out;
  out.packages = in.packages();
  out.numa_nodes = in.numa_nodes();
  MUSTER_TRY(read_list(in.cores(), kCoresMax, "NodeHardware.cores", out.cores));
  MUSTER_TRY(read_list(in.gpus(), kGpusMax, "NodeHardware.gpus", out.gpus));
  out.mem_mib = in.mem_mib();
  out.pretended = in.pretended();
  MUSTER_TRY(read_list(in.nics(), kNicsMax, "NodeHardware.nics", out.nics));
  if (in.numa_mem_mib_size() > kCoresMax) return corrupt("NodeHardware.numa_mem_mib", "has too many entries");
  out.numa_mem_mib.assign(in.numa_mem_mib().begin(), in.numa_mem_mib().end());
  return out;
}

void to_pb(const NodeShare& in, pb::NodeShare& out) {
  out.set_node(in.node.value);
  write_words(in.cores, *out.mutable_cores());
  write_words(in.gpus, *out.mutable_gpus());
  out.set_mem_mib(in.mem_mib);
  out.set_tasks(in.tasks);
}
Result<NodeShare> from_pb(const pb::NodeShare& in) {
  NodeShare out;
  out.node = NodeIndex(in.node());
  MUSTER_ASSIGN(out.cores, read_index_set(in.cores(), "NodeShare.cores"));
  MUSTER_ASSIGN(out.gpus, read_index_set(in.gpus(), "NodeShare.gpus"));
  out.mem_mib = in.mem_mib();
  out.tasks = in.tasks();
  return out;
}

// ---------------------------------------------------------------- orders and reports

void to_pb(const Usage& in, pb::AttemptUsage& out) {
  out.set_cpu_us(in.cpu.us);
  out.set_memory_peak_bytes(in.memory_peak_bytes);
  out.set_memory_limit_bytes(in.memory_limit_bytes);
  out.set_read_bytes(in.read_bytes);
  out.set_written_bytes(in.written_bytes);
  out.set_oom_kills(in.oom_kills);
}
Result<Usage> from_pb(const pb::AttemptUsage& in) {
  Usage out;
  MUSTER_ASSIGN(out.cpu, read_duration(in.cpu_us(), "Usage.cpu_us"));
  out.memory_peak_bytes = in.memory_peak_bytes();
  out.memory_limit_bytes = in.memory_limit_bytes();
  out.read_bytes = in.read_bytes();
  out.written_bytes = in.written_bytes();
  out.oom_kills = in.oom_kills();
  return out;
}

void to_pb(const EnforcedBy& in, pb::EnforcedBy& out) {
  out.set_function(in.function);
  out.set_by(in.by);
}
Result<EnforcedBy> from_pb(const pb::EnforcedBy& in) {
  return EnforcedBy{in.function(), in.by()};
}

void to_pb(const Outcome& in, pb::Outcome& out) {
  out.set_cause(static_cast<std::uint32_t>(in.cause));
  out.set_exit_code(in.exit_code);
  out.set_signal(in.signal);
  out.set_detail(in.detail);
  out.set_ran_us(in.ran.us);
  out.set_ended_at_us(in.ended_at.us);
  if (in.usage != Usage{}) to_pb(in.usage, *out.mutable_usage());
  out.set_fault(static_cast<std::uint32_t>(in.fault));
  out.set_fault_text(in.fault_text);
}
Result<Outcome> from_pb(const pb::Outcome& in) {
  Outcome out;
  MUSTER_ASSIGN(out.cause, read_enum(in.cause(), EndCause::kShepherdDied, "Outcome.cause"));
  out.exit_code = in.exit_code();
  out.signal = in.signal();
  out.detail = in.detail();
  MUSTER_ASSIGN(out.ran, read_duration(in.ran_us(), "Outcome.ran_us"));
  MUSTER_ASSIGN(out.ended_at, read_instant(in.ended_at_us(), "Outcome.ended_at_us"));
  MUSTER_ASSIGN(out.usage, from_pb(in.usage()));
  MUSTER_ASSIGN(out.fault, read_enum(in.fault(), kNodeFaultLast, "Outcome.fault"));
  out.fault_text = in.fault_text();
  return out;
}

void to_pb(const AttemptKey& in, pb::AttemptKey& out) {
  out.set_job(in.job.value);
  out.set_attempt(in.attempt.value);
}
AttemptKey from_pb(const pb::AttemptKey& in) {
  return {JobId(in.job()), Attempt(in.attempt())};
}

void to_pb(const LaunchOrder& in, pb::LaunchOrder& out) {
  to_pb(in.key, *out.mutable_key());
  out.set_term(in.term.value);
  out.set_node(in.node);
  out.set_node_rank(in.node_rank);
  out.clear_spec();
  if (in.spec != nullptr) to_pb(*in.spec, *out.mutable_spec());
  to_pb(in.share, *out.mutable_share());
  write_list(in.peers, *out.mutable_peers());
  out.set_array(in.array.value);
  out.set_array_index(in.array_index);
  out.set_submit_time_us(in.submit_time.us);
  out.set_lease_us(in.lease.us);
  out.set_time_limit_us(in.time_limit.us);
}
Result<LaunchOrder> from_pb(const pb::LaunchOrder& in) {
  LaunchOrder out;
  MUSTER_REQUIRE(in, key);
  MUSTER_REQUIRE(in, share);
  out.key = from_pb(in.key());
  out.term = Term(in.term());
  out.node = in.node();
  out.node_rank = in.node_rank();
  MUSTER_ASSIGN(out.spec, read_spec(in.has_spec(), in.spec(), "LaunchOrder.spec"));
  MUSTER_ASSIGN(out.share, from_pb(in.share()));
  MUSTER_TRY(read_list(in.peers(), kNodesMax, "LaunchOrder.peers", out.peers));
  out.array = JobId(in.array());
  out.array_index = in.array_index();
  MUSTER_ASSIGN(out.submit_time, read_instant(in.submit_time_us(), "LaunchOrder.submit_time_us"));
  MUSTER_ASSIGN(out.lease, read_duration(in.lease_us(), "LaunchOrder.lease_us"));
  MUSTER_ASSIGN(out.time_limit, read_duration(in.time_limit_us(), "LaunchOrder.time_limit_us"));
  return out;
}

void to_pb(const StopOrder& in, pb::StopOrder& out) {
  to_pb(in.key, *out.mutable_key());
  out.set_term(in.term.value);
  out.set_cause(static_cast<std::uint32_t>(in.cause));
  out.set_signal(in.signal);
  out.set_notice_signal(in.notice_signal);
  out.set_notice_us(in.notice.us);
}
Result<StopOrder> from_pb(const pb::StopOrder& in) {
  MUSTER_REQUIRE(in, key);
  MUSTER_ASSIGN(const StopCause cause, read_enum(in.cause(), kStopCauseLast, "StopOrder.cause"));
  MUSTER_ASSIGN(const Duration notice, read_duration(in.notice_us(), "StopOrder.notice_us"));
  return StopOrder{from_pb(in.key()), Term(in.term()), cause, in.signal(), in.notice_signal(), notice};
}

void to_pb(const SuspendOrder& in, pb::SuspendOrder& out) {
  to_pb(in.key, *out.mutable_key());
  out.set_term(in.term.value);
  out.set_suspend(in.suspend);
  out.set_number(in.number);
  out.set_gives_cores(in.gives_cores);
}
Result<SuspendOrder> from_pb(const pb::SuspendOrder& in) {
  MUSTER_REQUIRE(in, key);
  return SuspendOrder{from_pb(in.key()), Term(in.term()), in.suspend(), in.number(), in.gives_cores()};
}

void to_pb(const LimitOrder& in, pb::LimitOrder& out) {
  to_pb(in.key, *out.mutable_key());
  out.set_term(in.term.value);
  out.set_time_limit_us(in.time_limit.us);
}
Result<LimitOrder> from_pb(const pb::LimitOrder& in) {
  MUSTER_REQUIRE(in, key);
  MUSTER_ASSIGN(const Duration limit, read_duration(in.time_limit_us(), "LimitOrder.time_limit_us"));
  return LimitOrder{from_pb(in.key()), Term(in.term()), limit};
}

void to_pb(const JobChange& in, pb::UpdateRequest& out) {
  out.clear_fields();
  for (const SpecField field : in.fields) out.add_fields(static_cast<std::uint32_t>(field));
  to_pb(in.values, *out.mutable_values());
}
Result<JobChange> from_pb(const pb::UpdateRequest& in) {
  JobChange out;
  if (in.fields_size() > static_cast<int>(kSpecFieldsMax))
    return corrupt("UpdateRequest.fields", "has too many entries");
  for (const std::uint32_t value : in.fields()) {
    MUSTER_ASSIGN(const SpecField field, read_enum(value, kSpecFieldLast, "UpdateRequest.fields"));
    out.fields.push_back(field);
  }
  MUSTER_ASSIGN(out.values, from_pb(in.values()));
  return out;
}

void to_pb(const PlacementProof& in, pb::PlacementProof& out) {
  out.set_pretended(in.pretended);
  out.set_tasks(in.tasks);
  out.set_faults(in.faults);
  out.set_fault(in.fault);
  write_list(in.list, *out.mutable_list());
}

Result<PlacementProof> from_pb(const pb::PlacementProof& in) {
  PlacementProof out;
  out.pretended = in.pretended();
  out.tasks = in.tasks();
  out.faults = in.faults();
  if (in.fault().size() > kProofFaultBytesMax) return corrupt("PlacementProof.fault", "is too long");
  out.fault = in.fault();
  MUSTER_TRY(read_list(in.list(), static_cast<int>(kProofTasksMax), "PlacementProof.list", out.list));
  return out;
}

void to_pb(const AttemptReport& in, pb::AttemptReport& out) {
  to_pb(in.key, *out.mutable_key());
  out.set_ended(in.ended);
  to_pb(in.outcome, *out.mutable_outcome());
  out.set_stands_still(in.stands_still);
  out.clear_proof();
  if (in.proof) to_pb(*in.proof, *out.mutable_proof());
}
Result<AttemptReport> from_pb(const pb::AttemptReport& in) {
  MUSTER_REQUIRE(in, key);
  if (in.ended()) MUSTER_REQUIRE(in, outcome);
  MUSTER_ASSIGN(Outcome outcome, from_pb(in.outcome()));
  AttemptReport out{from_pb(in.key()), in.ended(), std::move(outcome), in.stands_still()};
  if (in.has_proof()) {
    MUSTER_ASSIGN(out.proof, read(in.proof()));
  }
  return out;
}

void to_pb(const HealthProblem& in, pb::HealthProblem& out) {
  out.set_check(in.check);
  out.set_text(in.text);
}
Result<HealthProblem> from_pb(const pb::HealthProblem& in) {
  if (in.check().size() > kHealthTextBytesMax || in.text().size() > kHealthTextBytesMax) {
    return corrupt("HealthProblem", "has a longer text than " + std::to_string(kHealthTextBytesMax) + " bytes");
  }
  return HealthProblem{in.check(), in.text()};
}

void to_pb(const Blame& in, pb::Blame& out) {
  to_pb(in.attempt, *out.mutable_attempt());
  out.set_at_us(in.at.us);
  out.set_text(in.text);
}

void to_pb(const std::vector<HealthProblem>& in, pb::HealthReport& out) {
  write_list(in, *out.mutable_problems());
}
Result<std::vector<HealthProblem>> from_pb(const pb::HealthReport& in) {
  std::vector<HealthProblem> out;
  MUSTER_TRY(read_list(in.problems(), kProblemsMax, "HealthReport.problems", out));
  return out;
}

void to_pb(const NodeRegistration& in, pb::NodeRegistration& out) {
  out.set_name(in.name);
  to_pb(in.hardware, *out.mutable_hardware());
  out.set_boot_id(in.boot_id);
  out.set_endpoint(in.endpoint);
  out.set_public_key(in.public_key);
  write_list(in.attempts, *out.mutable_attempts());
  out.set_sequence(in.sequence);
  write_texts(in.features, *out.mutable_features());
  if (in.topology) to_pb(*in.topology, *out.mutable_topology());
  write_list(in.enforcement, *out.mutable_enforcement());
  write_list(in.problems, *out.mutable_problems());
  out.set_has_prolog(in.has_prolog);
}
Result<NodeRegistration> from_pb(const pb::NodeRegistration& in) {
  NodeRegistration out;
  MUSTER_REQUIRE(in, hardware);
  out.name = in.name();
  MUSTER_ASSIGN(out.hardware, from_pb(in.hardware()));
  out.boot_id = in.boot_id();
  out.endpoint = in.endpoint();
  out.public_key = in.public_key();
  MUSTER_TRY(read_list(in.attempts(), INT_MAX, "NodeRegistration.attempts", out.attempts));
  out.sequence = in.sequence();
  MUSTER_ASSIGN(out.features, read_texts(in.features(), kFeaturesMax, "NodeRegistration.features"));
  MUSTER_TRY(read_list(in.problems(), kProblemsMax, "NodeRegistration.problems", out.problems));
  out.has_prolog = in.has_prolog();
  if (in.has_topology()) {
    MUSTER_ASSIGN(out.topology, from_pb(in.topology()));
  }
  MUSTER_TRY(read_list(in.enforcement(), kEnforcedByMax, "NodeRegistration.enforcement", out.enforcement));
  return out;
}

// ---------------------------------------------------------------- journal, snapshot, history

void to_pb(const Fact& in, pb::Fact& out) {
  out.Clear();
  out.set_at_us(in.at.us);
  std::visit(FactWriter{out}, in.body);
}
Result<Fact> from_pb(const pb::Fact& in) {
  MUSTER_ASSIGN(const Instant at, read_instant(in.at_us(), "Fact.at_us"));
  MUSTER_ASSIGN(FactBody body, read_fact_body(in));
  return Fact{at, std::move(body)};
}

void to_pb(const Reservation& in, pb::Reservation& out) {
  out.set_name(in.name);
  out.set_start_us(in.start.us);
  out.set_duration_us(in.duration.us);
  out.set_every_us(in.every.us);
  write_texts(in.nodes, *out.mutable_nodes());
  write_texts(in.users, *out.mutable_users());
  write_texts(in.accounts, *out.mutable_accounts());
  out.set_maintenance(in.maintenance);
  out.set_ignore_jobs(in.ignore_jobs);
  out.set_created_by(in.created_by);
  out.set_created_us(in.created.us);
}
Result<Reservation> from_pb(const pb::Reservation& in) {
  constexpr int kMembersMax = static_cast<int>(kReservationMembersMax);
  Reservation out;
  out.name = in.name();
  MUSTER_ASSIGN(out.start, read_instant(in.start_us(), "Reservation.start_us"));
  MUSTER_ASSIGN(out.duration, read_duration(in.duration_us(), "Reservation.duration_us"));
  MUSTER_ASSIGN(out.every, read_duration(in.every_us(), "Reservation.every_us"));
  MUSTER_ASSIGN(out.nodes, read_texts(in.nodes(), kNodesMax, "Reservation.nodes"));
  MUSTER_ASSIGN(out.users, read_texts(in.users(), kMembersMax, "Reservation.users"));
  MUSTER_ASSIGN(out.accounts, read_texts(in.accounts(), kMembersMax, "Reservation.accounts"));
  out.maintenance = in.maintenance();
  out.ignore_jobs = in.ignore_jobs();
  out.created_by = in.created_by();
  MUSTER_ASSIGN(out.created, read_instant(in.created_us(), "Reservation.created_us"));
  return out;
}

void to_pb(const Node& in, pb::Node& out) {
  out.set_index(in.index.value);
  out.set_name(in.name);
  to_pb(in.hardware, *out.mutable_hardware());
  out.set_boot_id(in.boot_id);
  out.set_endpoint(in.endpoint);
  out.set_public_key(in.public_key);
  out.set_contact(static_cast<std::uint32_t>(in.contact));
  out.set_drained(in.drained);
  out.set_drain_reason(in.drain_reason);
  out.set_since_us(in.since.us);
  out.set_registration_sequence(in.registration_sequence);
  write_texts(in.features, *out.mutable_features());
  if (in.topology.is_set()) to_pb(in.topology, *out.mutable_topology());
  write_list(in.enforcement, *out.mutable_enforcement());
  if (in.health != NodeHealth{}) write(in.health, *out.mutable_health());
  out.set_has_prolog(in.has_prolog);
}
Result<Node> from_pb(const pb::Node& in) {
  Node out;
  MUSTER_REQUIRE(in, hardware);
  out.index = NodeIndex(in.index());
  out.name = in.name();
  MUSTER_ASSIGN(out.hardware, from_pb(in.hardware()));
  out.boot_id = in.boot_id();
  out.endpoint = in.endpoint();
  out.public_key = in.public_key();
  MUSTER_ASSIGN(out.contact, read_enum(in.contact(), Contact::kUnreachable, "Node.contact"));
  out.drained = in.drained();
  out.drain_reason = in.drain_reason();
  MUSTER_ASSIGN(out.since, read_instant(in.since_us(), "Node.since_us"));
  out.registration_sequence = in.registration_sequence();
  MUSTER_ASSIGN(out.features, read_texts(in.features(), kFeaturesMax, "Node.features"));
  out.topology = from_pb(in.topology());
  MUSTER_TRY(read_list(in.enforcement(), kEnforcedByMax, "Node.enforcement", out.enforcement));
  MUSTER_ASSIGN(out.health, read(in.health()));
  out.has_prolog = in.has_prolog();
  return out;
}

void to_pb(const JobSummary& in, pb::JobSummary& out) {
  out.set_id(in.id.value);
  out.clear_spec();
  if (in.spec != nullptr) to_pb(*in.spec, *out.mutable_spec());
  out.set_array(in.array.value);
  out.set_array_position(in.array_position);
  out.set_count(in.count);
  out.set_attempt(in.attempt.value);
  out.set_state(static_cast<std::uint32_t>(in.state));
  out.set_reason(in.reason);
  out.set_exit_code(in.exit_code);
  out.set_exit_signal(in.exit_signal);
  out.set_submit_time_us(in.submit_time.us);
  out.set_eligible_time_us(in.eligible_time.us);
  out.set_start_time_us(in.start_time.us);
  out.set_end_time_us(in.end_time.us);
  write_list(in.shares, *out.mutable_shares());
  write_texts(in.nodes, *out.mutable_nodes());
  out.set_requeued(in.requeued);
  write_list(in.proofs, *out.mutable_proofs());
  if (in.usage != Usage{}) to_pb(in.usage, *out.mutable_usage());
}
Result<JobSummary> from_pb(const pb::JobSummary& in) {
  JobSummary out;
  out.id = JobId(in.id());
  MUSTER_ASSIGN(out.spec, read_spec(in.has_spec(), in.spec(), "JobSummary.spec"));
  out.array = JobId(in.array());
  out.array_position = in.array_position();
  out.count = in.count();
  out.attempt = Attempt(in.attempt());
  MUSTER_ASSIGN(out.state, read_state(in.state(), "JobSummary.state"));
  out.reason = in.reason();
  out.exit_code = in.exit_code();
  out.exit_signal = in.exit_signal();
  MUSTER_ASSIGN(out.submit_time, read_instant(in.submit_time_us(), "JobSummary.submit_time_us"));
  MUSTER_ASSIGN(out.eligible_time, read_instant(in.eligible_time_us(), "JobSummary.eligible_time_us"));
  MUSTER_ASSIGN(out.start_time, read_instant(in.start_time_us(), "JobSummary.start_time_us"));
  MUSTER_ASSIGN(out.end_time, read_instant(in.end_time_us(), "JobSummary.end_time_us"));
  MUSTER_TRY(read_list(in.shares(), kNodesMax, "JobSummary.shares", out.shares));
  MUSTER_ASSIGN(out.nodes, read_texts(in.nodes(), kNodesMax, "JobSummary.nodes"));
  out.requeued = in.requeued();
  MUSTER_TRY(read_list(in.proofs(), kNodesMax, "JobSummary.proofs", out.proofs));
  MUSTER_ASSIGN(out.usage, from_pb(in.usage()));
  return out;
}

void to_pb(const Job& in, bool with_spec, pb::Job& out) {
  out.Clear();
  out.set_id(in.id.value);
  if (with_spec && in.spec != nullptr) to_pb(*in.spec, *out.mutable_spec());
  out.set_spec_of_array(!with_spec);
  out.set_submit_time_us(in.submit_time.us);
  out.set_eligible_time_us(in.eligible_time.us);
  out.set_priority(in.priority);
  out.set_held(in.held);
  out.set_attempt(in.attempt.value);
  out.set_array(in.array.value);
  out.set_array_position(in.array_position);
  out.set_is_array_record(in.is_array_record);
  write_list(in.waiting, *out.mutable_waiting());
  out.set_array_running(in.array_running);
  out.set_promised_start_us(in.promised_start.us);
  write_list(in.promised_place, *out.mutable_promised_place());
  write_list(in.open, *out.mutable_open());
  out.set_array_failed(in.array_failed);
  out.set_array_started_us(in.array_started.us);
  write_list(in.failed_positions, *out.mutable_failed_positions());
  write_list(in.held_positions, *out.mutable_held_positions());
  write_list(in.requeued, *out.mutable_requeued());
  out.set_last_end(in.last_end);
  out.set_node_faults(in.node_faults);
  if (const auto* active = std::get_if<Active>(&in.phase)) write_active(*active, *out.mutable_active());
}
Result<Job> from_pb(const pb::Job& in, const JobSpecPtr& array_spec) {
  Job out;
  out.id = JobId(in.id());
  if (in.spec_of_array()) {
    if (array_spec == nullptr) return corrupt("Job.spec", "should be its array's, which is missing");
    out.spec = array_spec;
  } else {
    MUSTER_ASSIGN(out.spec, read_spec(in.has_spec(), in.spec(), "Job.spec"));
  }
  MUSTER_ASSIGN(out.submit_time, read_instant(in.submit_time_us(), "Job.submit_time_us"));
  MUSTER_ASSIGN(out.eligible_time, read_instant(in.eligible_time_us(), "Job.eligible_time_us"));
  out.priority = in.priority();
  out.held = in.held();
  out.attempt = Attempt(in.attempt());
  out.array = JobId(in.array());
  out.array_position = in.array_position();
  out.is_array_record = in.is_array_record();
  MUSTER_TRY(read_list(in.waiting(), INT_MAX, "Job.waiting", out.waiting));
  out.array_running = in.array_running();
  out.promised_start = Instant{in.promised_start_us()};
  MUSTER_TRY(read_list(in.promised_place(), kNodesMax, "Job.promised_place", out.promised_place));
  MUSTER_TRY(read_list(in.open(), static_cast<int>(kDependencyTermsMax), "Job.open", out.open));
  out.array_failed = in.array_failed();
  MUSTER_ASSIGN(out.array_started, read_instant(in.array_started_us(), "Job.array_started_us"));
  MUSTER_TRY(read_positions(in.failed_positions(), "Job.failed_positions", out.failed_positions));
  MUSTER_TRY(read_positions(in.held_positions(), "Job.held_positions", out.held_positions));
  MUSTER_TRY(read_list(in.requeued(), static_cast<int>(kArrayTasksMax), "Job.requeued", out.requeued));
  out.last_end = in.last_end();
  out.node_faults = in.node_faults();
  if (in.has_active()) {
    MUSTER_ASSIGN(Active active, read_active(in.active()));
    if (active.time_limit == Duration{}) active.time_limit = out.spec->time_limit;  // from a release without it
    out.phase = std::move(active);
  }
  return out;
}

std::string encode_facts(const Facts& facts) {
  google::protobuf::Arena arena;
  auto* batch = google::protobuf::Arena::CreateMessage<pb::FactBatch>(&arena);
  write_list(facts, *batch->mutable_facts());
  return batch->SerializeAsString();
}

Result<Facts> decode_facts(std::string_view bytes) {
  google::protobuf::Arena arena;
  auto* batch = google::protobuf::Arena::CreateMessage<pb::FactBatch>(&arena);
  if (bytes.size() > INT_MAX || !batch->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return corrupt("FactBatch", "is not a batch of facts");
  }
  Facts facts;
  MUSTER_TRY(read_list(batch->facts(), INT_MAX, "FactBatch.facts", facts));
  return facts;
}

// ---------------------------------------------------------------- framing

std::string header(MessageKind kind) {
  return std::string(kMagic) + static_cast<char>(kind);
}

Result<MessageKind> parse_header(std::string_view frame) {
  constexpr std::string_view kName = kMagic.substr(0, 3);
  if (frame.size() != kMagic.size() + 1 || !frame.starts_with(kName)) {
    return make_error(ErrorCode::kCorrupt,
                      "the message is not one of Muster's: check that the address and port belong "
                      "to a Muster daemon");
  }
  if (!frame.starts_with(kMagic)) {
    return make_error(ErrorCode::kCorrupt, "the other side speaks version \"" + printable(frame.substr(3, 1)) +
                                               "\" of the protocol, this one version \"" +
                                               std::string(kMagic.substr(3)) + "\": use releases that are neighbours");
  }
  switch (const auto kind = static_cast<MessageKind>(frame.back())) {
    case MessageKind::kClientRequest:
    case MessageKind::kClientReply:
    case MessageKind::kNodeMessage:
    case MessageKind::kControllerMessage:
    case MessageKind::kNodeRequest:
    case MessageKind::kNodeReply:
      return kind;
  }
  return make_error(ErrorCode::kCorrupt, "the message is of the unknown kind \"" + printable(frame.substr(4)) +
                                             "\": use releases that are neighbours");
}

}  // namespace muster::wire
