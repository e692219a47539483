// Random values of lib/model, for properties that must hold for every value. All parts vary, also the empty ones; sizes
// stay small enough for thousands of rounds. The generator is given, so a printed seed repeats a run.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lib/model/command.h"
#include "lib/model/fact.h"

namespace muster::test {

class RandomModel {
 public:
  explicit RandomModel(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool coin() { return below(2) == 0; }
  // Small, large and extreme numbers alike.
  std::uint64_t u64() { return random_() >> below(64); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(u64()); }
  std::int32_t i32() { return static_cast<std::int32_t>(u32()); }
  std::int64_t i64() { return static_cast<std::int64_t>(u64()); }
  // Any bytes: names and paths of users need not be UTF-8.
  std::string text() {
    std::string value(below(3) == 0 ? 0 : below(20), '\0');
    for (char& c : value) c = static_cast<char>(below(4) == 0 ? below(256) : 'a' + below(26));
    return value;
  }
  template <typename Make>
  auto list(std::uint64_t max, Make make) {
    std::vector<decltype(make())> values;
    for (std::uint64_t i = below(max + 1); i > 0; --i) values.push_back(make());
    return values;
  }
  std::vector<std::string> texts() {
    return list(4, [this] { return text(); });
  }
  template <typename E>
  E enumerator(E last) {
    return static_cast<E>(below(static_cast<std::uint64_t>(last) + 1));
  }

  Instant instant() { return Instant::from_us(coin() ? 0 : static_cast<std::int64_t>(u64() / 4)); }
  Duration duration() {
    return below(8) == 0 ? Duration::infinite() : Duration::from_us(static_cast<std::int64_t>(u64() / 8));
  }
  JobState state() { return enumerator(JobState::kDeadline); }
  StopCause stop_cause() { return enumerator(kStopCauseLast); }
  AttemptKey key() { return {JobId(u64()), Attempt(u32())}; }
  RequestId request() { return coin() ? RequestId{} : RequestId{u64(), u64()}; }
  Digest digest() {
    Digest value;
    if (coin()) return value;
    for (std::uint8_t& byte : value.bytes) byte = static_cast<std::uint8_t>(below(256));
    return value;
  }
  IndexSet index_set() {
    IndexSet set;
    for (std::uint64_t i = below(6); i > 0; --i) set.insert(static_cast<std::uint32_t>(below(coin() ? 70 : 65'536)));
    return set;
  }
  // Ranges that do not overlap, in any order.
  ArraySpec array_spec() {
    ArraySpec spec;
    std::uint64_t next = below(3) == 0 ? u64() / 4 : below(5);
    for (std::uint64_t i = below(5) + 1; i > 0; --i) {
      const std::uint64_t count = 1 + below(coin() ? 3 : 1000);
      const std::uint64_t step = count == 1 ? 1 : 1 + below(5);
      spec.ranges.push_back({next, next + (count - 1) * step, step});
      next += count * step + below(3);
    }
    if (coin()) std::swap(spec.ranges.front(), spec.ranges.back());
    if (coin()) spec.max_running = 1 + below(kArrayTasksMax);
    return spec;
  }

  DependencyTerm dependency_term() {
    return {enumerator(DependencyKind::kAfterCorr), {JobId(u64()), coin(), u64()}, duration()};
  }
  OpenDependency open_dependency() {
    return {enumerator(DependencyKind::kAfterCorr),
            JobId(u64()),
            coin(),
            duration(),
            coin(),
            some_positions(),
            some_positions()};
  }
  Positions some_positions() {
    Positions set;
    for (std::uint64_t i = below(4); i > 0; --i) add(set, positions());
    return set;
  }
  JobChange change() {
    JobChange c;
    c.fields = list(5, [this] { return enumerator(kSpecFieldLast); });
    c.values = spec();
    return c;
  }
  LimitOrder limit() { return {key(), Term(u64()), duration()}; }

  JobSpec spec() {
    JobSpec s;
    s.kind = enumerator(JobKind::kAllocDetached);
    for (std::string* member : {&s.name, &s.user, &s.queue, &s.account, &s.qos, &s.comment, &s.work_dir, &s.stdout_path,
                                &s.stderr_path, &s.stdin_path, &s.submit_host, &s.script_name, &s.export_mode}) {
      *member = text();
    }
    for (std::uint32_t* member : {&s.uid, &s.gid, &s.nodes_min, &s.nodes_max, &s.ntasks, &s.ntasks_per_node,
                                  &s.cpus_per_task, &s.gpus, &s.gpus_per_node, &s.gpus_per_task}) {
      *member = u32();
    }
    for (std::uint64_t* member : {&s.mem_per_node_mib, &s.mem_per_cpu_mib, &s.mem_per_gpu_mib}) *member = u64();
    for (bool* member : {&s.exclusive, &s.hold, &s.requeue, &s.requeue_given, &s.open_mode_given, &s.warn_batch_only})
      *member = coin();
    s.nodelist = texts();
    s.exclude = texts();
    s.avoid = texts();
    s.constraint = text();
    s.switches = u32();
    s.switches_wait = duration();
    s.segment = u32();
    s.locality = enumerator(Locality::kRequire);
    s.cpu_bind = text();
    s.gpu_bind = text();
    s.distribution = text();
    s.threads_per_core = u32();
    s.args = texts();
    s.time_limit = duration();
    s.nice = i32();
    s.begin = instant();
    if (coin()) s.array = array_spec();
    s.dependency = {list(3, [this] { return dependency_term(); }), coin()};
    s.reservation = text();
    s.licenses = list(3, [this] { return LicenseCount{text(), 1 + below(kLicenseCountMax)}; });
    s.open_mode = enumerator(OpenMode::kAppend);
    s.warn_signal = i32();
    s.warn_before = duration();
    s.script = digest();
    s.environment = digest();
    s.time_min = duration();
    s.deadline = instant();
    return s;
  }
  JobSpecPtr spec_ptr() { return std::make_shared<const JobSpec>(spec()); }

  Core core() { return {u32(), u32(), index_set()}; }
  Gpu gpu() { return {text(), text(), text(), u32(), u32()}; }
  Nic nic() { return {text(), texts()}; }
  NodeHardware hardware() {
    return {u32(), u32(),  list(5, [this] { return core(); }), list(3, [this] { return gpu(); }),
            u64(), coin(), list(3, [this] { return nic(); }),  list(3, [this] { return u64(); })};
  }
  PcieTier tier() { return enumerator(PcieTier::kSameDevice); }
  NodeTopology topology() {
    NodeTopology t;
    t.packages = u32();
    t.numa = list(3, [this] { return TopologyNuma{index_set(), u64()}; });
    t.cores = list(5, [this] { return TopologyCore{u32(), u32(), u32(), index_set()}; });
    t.gpus = list(3, [this] { return TopologyGpu{text(), text(), text(), u32(), text(), index_set()}; });
    t.links = list(9, [this] { return GpuLink{u32(), tier()}; });
    t.nics = list(3, [this] {
      return TopologyNic{text(), texts(), coin(), u32(), index_set(), list(3, [this] { return tier(); })};
    });
    t.mem_mib = u64();
    t.pretended = coin();
    return t;
  }
  TopologyHash topology_hash() { return {u64(), u64()}; }
  NodeShare share() { return {NodeIndex(u32()), index_set(), index_set(), u64(), u32()}; }
  PlannedShare planned_share() { return {NodeIndex(u32()), u32(), u32(), u32(), u64()}; }
  std::vector<NodeShare> shares() {
    return list(4, [this] { return share(); });
  }
  Usage attempt_usage() { return coin() ? Usage{} : Usage{duration(), u64(), u64(), u64(), u64(), u64()}; }
  Outcome outcome() {
    return {enumerator(EndCause::kShepherdDied), i32(), i32(), text(), duration(), instant(), attempt_usage(),
            enumerator(kNodeFaultLast),          text()};
  }
  std::vector<EnforcedBy> enforcement() {
    return list(3, [this] { return EnforcedBy{text(), text()}; });
  }
  Peer peer() { return {text(), text(), text(), u32(), u32(), u32()}; }
  LaunchOrder launch() {
    LaunchOrder order;
    order.key = key();
    order.term = Term(u64());
    order.node = text();
    order.node_rank = u32();
    order.spec = spec_ptr();
    order.share = share();
    order.peers = list(4, [this] { return peer(); });
    order.array = JobId(u64());
    order.array_index = u64();
    order.submit_time = instant();
    order.time_limit = duration();
    order.lease = duration();
    return order;
  }
  StopOrder stop() { return {key(), Term(u64()), stop_cause(), i32(), i32(), duration()}; }
  SuspendOrder suspend() { return {key(), Term(u64()), coin(), u64(), coin()}; }
  AttemptReport report() { return {key(), coin(), outcome(), u64(), maybe_proof()}; }
  NodeRegistration registration() {
    return {text(),
            hardware(),
            text(),
            text(),
            text(),
            list(4, [this] { return report(); }),
            u64(),
            texts(),
            coin() ? std::optional(topology()) : std::nullopt,
            enforcement(),
            health_problems(),
            coin()};
  }
  JobSelector::Item selector_item() {
    JobSelector::Item item{JobId(u64()), coin(), {}};
    if (item.has_indices) item.indices = array_spec().ranges;
    return item;
  }
  JobSelector selector() {
    return {list(4, [this] { return selector_item(); }), text(), text(), text(), list(3, [this] { return state(); })};
  }

  PositionRange positions() {
    const std::uint64_t begin = below(kArrayTasksMax);
    return {begin, begin + 1 + below(kArrayTasksMax - begin)};
  }
  TaskProof task_proof() {
    return {u32(), u32(), index_set(), index_set(), coin(), coin(), index_set(), coin(), coin(), coin(), coin()};
  }
  PlacementProof placement_proof() {
    return {coin(), u32(), u32(), text(), list(3, [this] { return task_proof(); })};
  }
  std::optional<PlacementProof> maybe_proof() { return coin() ? std::optional(placement_proof()) : std::nullopt; }
  AttemptOnNode attempt_on_node() {
    AttemptOnNode value{share(), enumerator(NodePhase::kEnded), {}};
    if (coin()) value.outcome = outcome();
    value.stands_still = coin();
    value.proof = maybe_proof();
    return value;
  }
  StopTerms stop_terms() { return {JobId(u64()), coin(), i32(), duration()}; }
  Active active() {
    return {instant(),
            coin(),
            list(3, [this] { return attempt_on_node(); }),
            stop_cause(),
            i32(),
            text(),
            Duration::from_us(1 + static_cast<std::int64_t>(u64() / 8)),
            coin(),
            instant(),
            stop_terms(),
            {instant(), duration(), u64(), JobId(u64()), instant()}};
  }
  Job job() {
    Job j;
    j.id = JobId(u64());
    j.spec = spec_ptr();
    j.submit_time = instant();
    j.eligible_time = instant();
    j.priority = i64();
    j.held = coin();
    j.attempt = Attempt(u32());
    j.array = JobId(u64());
    j.array_position = u64();
    j.is_array_record = coin();
    j.waiting = list(3, [this] { return positions(); });
    j.array_running = u64();
    j.promised_start = Instant{i64()};
    j.promised_place = list(3, [this] { return planned_share(); });
    j.open = list(3, [this] { return open_dependency(); });
    j.array_failed = coin();
    j.array_started = instant();
    j.failed_positions = some_positions();
    j.held_positions = some_positions();
    j.requeued = list(3, [this] { return RequeuedTask{u64(), Attempt(u32()), text(), u32()}; });
    j.last_end = text();
    j.node_faults = u32();
    if (coin()) j.phase = active();
    return j;
  }
  std::vector<HealthProblem> health_problems() {
    return list(3, [this] { return HealthProblem{text(), text()}; });
  }
  Blame blame() { return {key(), instant(), text()}; }
  Doubt doubt() { return {key(), instant(), JobId(u64()), text(), digest(), u64(), text()}; }
  NodeHealth node_health() {
    NodeHealth health;
    health.problems = health_problems();
    health.fault = enumerator(kNodeFaultLast);
    health.fault_text = text();
    health.since = instant();
    health.blames = list(3, [this] { return blame(); });
    health.doubts = list(3, [this] { return doubt(); });
    health.rests_until = instant();
    return health;
  }
  Node node() {
    return {NodeIndex(u32()), text(), hardware(), text(), text(),  text(),          enumerator(Contact::kUnreachable),
            coin(),           text(), instant(),  u64(),  texts(), topology_hash(), enforcement(),
            node_health(),    coin()};
  }
  Reservation reservation() {
    return {text(), instant(), duration(), duration(), texts(), texts(), texts(), coin(), coin(), text(), instant()};
  }
  JobSummary summary() {
    JobSummary s;
    s.id = JobId(u64());
    s.spec = spec_ptr();
    s.array = JobId(u64());
    s.array_position = u64();
    s.count = u64();
    s.attempt = Attempt(u32());
    s.state = state();
    s.reason = text();
    s.exit_code = i32();
    s.exit_signal = i32();
    s.submit_time = instant();
    s.eligible_time = instant();
    s.start_time = instant();
    s.end_time = instant();
    s.shares = shares();
    s.nodes = texts();
    s.requeued = coin();
    s.proofs = list(3, [this] { return placement_proof(); });
    s.usage = attempt_usage();
    return s;
  }

  std::optional<std::uint64_t> maybe() { return coin() ? std::optional(u64()) : std::nullopt; }
  UseLimits use_limits() { return {maybe(), maybe(), maybe(), maybe(), maybe(), maybe()}; }
  JobLimits job_limits() { return {coin() ? std::optional(duration()) : std::nullopt, maybe(), maybe(), maybe()}; }
  std::uint32_t tree_shares() { return static_cast<std::uint32_t>(below(kSharesMax + 1)); }
  Account account() {
    return {text(), text(), tree_shares(), use_limits(), use_limits(), job_limits(), texts(), text()};
  }
  Association association() { return {text(), tree_shares(), use_limits(), job_limits()}; }
  User user() {
    return {text(), text(), list(3, [this] { return association(); }), texts()};
  }
  Qos qos() {
    Qos q;
    q.name = text();
    q.priority = static_cast<std::int32_t>(below(2 * kQosPriorityMax + 1)) - kQosPriorityMax;
    q.usage_factor = static_cast<std::uint32_t>(below(kUsageFactorMax + 1));
    q.all = use_limits();
    q.per_user = use_limits();
    q.per_account = use_limits();
    q.job = job_limits();
    q.preempts = texts();
    q.preempt_mode = enumerator(QosPreempt::kSuspend);
    q.preempt_grace = duration();
    return q;
  }
  BillingRules billing() {
    const auto weight = [this] { return static_cast<std::uint32_t>(below(kBillingWeightMax + 1)); };
    return {weight(), weight(), weight(),
            Duration::from_s(static_cast<std::int64_t>(below(kHalfLifeDaysMax * 86'400)))};
  }
  UsageRecord usage() { return {text(), text(), u64(), u64(), instant()}; }

  FactBody fact_body(std::size_t kind) {
    switch (kind) {
      case 0:
        return TermStarted{Term(u64())};
      case 1:
        return NodeRegistered{NodeIndex(u32()), text(),          hardware(),    text(), text(), text(), u64(),
                              texts(),          topology_hash(), enforcement(), coin()};
      case 2:
        return NodeBecameUnreachable{NodeIndex(u32())};
      case 3:
        return NodeDrained{NodeIndex(u32()), text()};
      case 4:
        return NodeResumed{NodeIndex(u32())};
      case 5:
        return JobSubmitted{JobId(u64()), request(), spec_ptr(), i64()};
      case 6:
        return RequestsForgotten{instant()};
      case 7:
        return JobHeld{JobId(u64())};
      case 8:
        return JobReleased{JobId(u64())};
      case 9:
        return AttemptStarted{JobId(u64()), Attempt(u32()), shares(), duration()};
      case 10:
        return AttemptConfirmed{key(), NodeIndex(u32())};
      case 11:
        return AttemptEndedOnNode{key(), NodeIndex(u32()), outcome()};
      case 12:
        return StopRequested{key(), stop_cause(), i32(), text(), stop_terms()};
      case 13:
        return JobEnded{JobId(u64()), state(), text(), i32(), i32()};
      case 14:
        return StartPromised{JobId(u64()), instant(), list(3, [this] { return planned_share(); })};
      case 21:
        return AccountSet{account()};
      case 22:
        return AccountRemoved{text()};
      case 23:
        return UserSet{user()};
      case 24:
        return UserRemoved{text()};
      case 25:
        return QosSet{qos()};
      case 26:
        return QosRemoved{text()};
      case 27:
        return BillingConfigured{billing()};
      case 15:
        return DependencySet{JobId(u64()), list(3, [this] { return open_dependency(); })};
      case 16:
        return SettingChanged{text(), coin() ? std::optional(text()) : std::nullopt};
      case 17:
        return JobUpdated{JobId(u64()), Attempt(u32()), spec_ptr(), i64()};
      case 18:
        return AttemptTimeLimitChanged{key(), duration()};
      case 19:
        return ArrayTasksHeld{JobId(u64()), some_positions()};
      case 20:
        return ArrayTasksReleased{JobId(u64()), some_positions()};
      case 28:
        return ReservationMade{reservation()};
      case 29:
        return ReservationRemoved{text()};
      case 30:
        return JobRequeued{JobId(u64()), state(), text(), coin()};
      case 31:
        return AttemptSuspended{key(), text(), JobId(u64())};
      case 32:
        return AttemptResumed{key(), text()};
      case 33:
        return NodeClassAdded{topology_hash(), topology()};
      case 34:
        return AttemptStoodStill{key(), NodeIndex(u32())};
      case 35:
        return AttemptProven{key(), NodeIndex(u32()), placement_proof()};
      case 36:
        return NodeHealthChanged{NodeIndex(u32()), health_problems()};
      case 37:
        return NodeFaulted{NodeIndex(u32()), enumerator(kNodeFaultLast), text()};
      case 38:
        return NodeDoubted{NodeIndex(u32()), doubt()};
      case 39:
        return NodeBlamed{NodeIndex(u32()), blame(), instant()};
      case 40:
        return NodeTrusted{NodeIndex(u32()), coin(), u32(), u32()};
      default:
        return ArrayTasksEnded{JobId(u64()), positions(), state(), text()};
    }
  }
  Fact fact() { return {instant(), fact_body(below(std::variant_size_v<FactBody>))}; }

 private:
  std::mt19937_64 random_;
};

}  // namespace muster::test
