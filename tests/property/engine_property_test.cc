// Random commands, sensible and senseless ones, straight against decide() and apply(): the invariants hold after each,
// replaying the journal's bytes gives the live state, and so does a snapshot.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>

#include "core/engine/engine.h"
#include "sim/random.h"
#include "sim/random_spec.h"
#include "sim/state_codec.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

constexpr std::uint32_t kNodes = 4;
constexpr std::uint32_t kCoresMax = 6;

sched::Policy policy() {
  sched::Policy policy;
  sched::QueuePolicy batch;
  batch.name = "batch";
  batch.priority = 10;
  batch.time_default = Duration::from_s(60);
  sched::QueuePolicy low = batch;
  low.name = "low";
  low.priority = 1;
  low.nodes = {"n1", "n3"};
  low.preempt_mode = sched::PreemptMode::kRequeue;
  low.preempt_exempt = Duration::from_s(1);
  policy.queues = {batch, low};
  policy.default_queue = "batch";
  policy.request_memory = Duration::from_s(30);
  policy.licenses = {{"seat", 2}};
  return policy;
}

// One engine, its journal, and a hand that gives it commands.
class Engine {
 public:
  explicit Engine(std::uint64_t seed) : random_(seed) {
    if (random_.permille(700)) policy_.sites = sim::random_sites(random_, kNodes);
    run(StartTerm{});
  }

  void step() {
    now_ = now_ + random_.duration(Duration{}, Duration::from_s(2));
    switch (random_.below(12)) {
      case 0:
      case 1:
      case 2:
        submit();
        break;
      case 3:
        register_node();
        break;
      case 4:
      case 5:
        report();
        break;
      case 6:
      case 7:
        run(some_plan());
        break;
      case 8:
        command_of_a_user();
        break;
      case 9:
        command_of_an_administrator();
        break;
      case 10:
        run(LoseNode{NodeIndex{static_cast<std::uint32_t>(random_.below(kNodes + 2))}});
        break;
      default:
        if (random_.permille(100)) {
          run(StartTerm{});
        } else {
          run(Tick{});
        }
        break;
    }
  }

  // From the journal's bytes, and from a snapshot's.
  void check_replay() {
    engine::State replayed;
    for (const std::string& row : rows_) {
      std::string again;
      const Result<Facts> facts = decode(row, again);
      ASSERT_TRUE(facts.ok()) << facts.error().message;
      ASSERT_EQ(again, row);
      for (const Fact& fact : *facts) engine::evolve(replayed, fact);
    }
    ASSERT_EQ(sim::encode_state(replayed), sim::encode_state(state_));
    ASSERT_EQ(replayed, state_);
    const Result<engine::State> loaded = sim::decode_state(sim::encode_state(state_));
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    ASSERT_EQ(*loaded, state_);
  }

  [[nodiscard]] const engine::State& state() const { return state_; }
  [[nodiscard]] std::size_t started() const { return started_; }

 private:
  static Result<Facts> decode(const std::string& row, std::string& again) {
    MUSTER_ASSIGN(Facts facts, sim::from_journal(row));
    static_cast<void>(sim::through_journal(facts, again));
    return facts;
  }

  void run(const Command& command) {
    const Result<engine::Decision> decision = engine::decide(state_, policy_, command, now_);
    if (!decision.ok()) {
      ASSERT_FALSE(decision.error().message.empty());
      return;
    }
    for (const Fact& fact : decision->facts) {
      Effects effects;
      const bool starts = std::holds_alternative<AttemptStarted>(fact.body);
      engine::apply(state_, fact, effects);
      if (starts) ++started_;
      if (const auto* started = std::get_if<AttemptStarted>(&fact.body)) {
        // Placements are applied on connected nodes only, so each of them is told.
        const auto launches = std::count_if(effects.begin(), effects.end(), [](const Effect& effect) {
          return std::holds_alternative<SendLaunch>(effect);
        });
        ASSERT_EQ(static_cast<std::size_t>(launches), started->shares.size());
      }
    }
    if (!decision->facts.empty()) {
      std::string row;
      const Result<Facts> back = sim::through_journal(decision->facts, row);
      ASSERT_TRUE(back.ok()) << back.error().message;
      ASSERT_EQ(*back, decision->facts);
      rows_.push_back(std::move(row));
    }
    const std::vector<std::string> broken = engine::check_invariants(state_);
    ASSERT_TRUE(broken.empty()) << broken.front();
    for (std::uint32_t node = 0; node < state_.nodes.size(); ++node) {
      for (const Effect& effect : engine::outstanding(state_, NodeIndex{node})) {
        const auto* launch = std::get_if<SendLaunch>(&effect);
        if (launch != nullptr) {
          ASSERT_TRUE(engine::is_owed(state_, launch->node, launch->order));
        }
      }
    }
  }

  sim::SpecOptions spec_options() {
    sim::SpecOptions options;
    options.nodes = kNodes;
    options.cores_max = kCoresMax;
    options.now = now_;
    options.user = user();
    options.licenses = policy_.licenses;
    options.reservations = {"r1", "r2"};
    for (const auto* records : {&state_.jobs, &state_.arrays}) {
      for (const auto& [id, job] : *records) options.jobs.push_back(id);
    }
    if (random_.permille(100)) options.jobs.emplace_back(random_.below(state_.next_job.value + 3));
    return options;
  }

  void submit() {
    const sim::SpecOptions options = spec_options();
    SubmitJob submit;
    submit.caller = Caller{random_.permille(950) ? options.user : user(), random_.permille(50)};
    // Few values, so that some come again.
    if (random_.permille(800)) submit.request = RequestId{1, random_.below(200)};
    submit.spec = std::make_shared<const JobSpec>(sim::random_spec(random_, options));
    run(submit);
  }

  std::string user() { return "u" + std::to_string(random_.between(1, 3)); }
  std::string node_name() { return "n" + std::to_string(random_.between(1, kNodes)); }

  AttemptReport some_report() {
    AttemptReport report;
    report.key = AttemptKey{JobId{random_.below(state_.next_job.value + 3)}, Attempt{1}};
    if (!state_.jobs.empty() && random_.permille(900)) {
      auto it = state_.jobs.begin();
      std::advance(it, random_.below(state_.jobs.size()));
      report.key = AttemptKey{it->first, it->second.attempt};
    }
    report.ended = random_.permille(600);
    if (report.ended) {
      report.outcome.cause = static_cast<EndCause>(random_.below(9));
      report.outcome.exit_code = static_cast<std::int32_t>(random_.below(3));
      report.outcome.ran = random_.duration({}, Duration::from_s(9));
    }
    return report;
  }

  void register_node() {
    NodeRegistration registration;
    registration.name = node_name();
    registration.hardware = sim::random_hardware(random_, kCoresMax);
    const Node* known = engine::find_node(state_, registration.name);
    if (known != nullptr && random_.permille(800)) registration.hardware = known->hardware;
    if (random_.permille(700)) registration.topology = sim::topology_of(registration.hardware);
    if (random_.permille(300)) registration.features = sim::random_features(random_);
    registration.boot_id = "boot" + std::to_string(random_.below(2));
    registration.endpoint = "tcp://" + registration.name + ":7071";
    // Some come late, some are of a release that does not number them.
    registration.sequence = random_.permille(800) ? ++registrations_ : random_.below(registrations_ + 1);
    for (std::uint64_t i = random_.below(6); i > 0; --i) registration.attempts.push_back(some_report());
    if (random_.permille(20)) registration.hardware.cores.clear();
    if (random_.permille(20)) registration.name = "not a name";
    run(RegisterNode{registration});
  }

  void report() {
    ReportAttempts reports;
    reports.node = random_.permille(950) ? node_name() : "n99";
    for (std::uint64_t i = random_.below(4); i > 0; --i) reports.reports.push_back(some_report());
    run(reports);
  }

  // What the planner says, and now and then something spoilt, or made up for jobs that do not wait.
  ApplyPlan some_plan() {
    sched::WorkBudget budget;
    budget.placements_made = static_cast<std::uint32_t>(random_.between(1, 20));
    ApplyPlan plan = engine::apply_plan(state_, engine::plan(state_, policy_, budget, now_));
    if (random_.permille(300)) plan.promises.clear();
    if (random_.permille(700)) return plan;
    std::vector<Placement>& placements = plan.placements;
    if (random_.permille(300) && !placements.empty()) placements.push_back(random_.pick(placements));
    for (Placement& placement : placements) {
      if (random_.permille(700)) continue;
      spoil(placement);
    }
    const auto some_job = [this] { return JobId{random_.below(state_.next_job.value + 2)}; };
    plan.preemptions.push_back(Preemption{some_job(), some_report().key});
    for (Preemption& preemption : plan.preemptions) {
      if (random_.permille(300)) preemption.job = some_job();
      if (random_.permille(100)) preemption.victim.attempt = Attempt{random_.permille(500) ? 1U : 2U};
    }
    return plan;
  }
  void spoil(Placement& placement) {
    switch (random_.below(7)) {
      case 0:
        placement.job = JobId{random_.below(state_.next_job.value + 2)};
        break;
      case 1:
        placement.position = random_.below(20);
        break;
      case 2:
        placement.shares.clear();
        break;
      case 3:
        placement.shares.push_back(placement.shares.front());
        break;
      case 4:
        placement.shares.front().cores = IndexSet::range(0, static_cast<std::uint32_t>(random_.between(1, 90)));
        break;
      case 5:
        placement.shares.front().node = NodeIndex{static_cast<std::uint32_t>(random_.below(kNodes + 3))};
        break;
      default:
        placement.shares.front().mem_mib = random_.next();
        break;
    }
  }

  JobSelector some_jobs() {
    JobSelector selector;
    if (random_.permille(200)) {
      selector.user = user();
      if (random_.permille(500)) selector.states = {static_cast<JobState>(random_.below(13))};
      if (random_.permille(300)) selector.name = "job" + std::to_string(random_.below(5));
      return selector;
    }
    for (std::uint64_t i = random_.between(1, 3); i > 0; --i) {
      JobSelector::Item item;
      item.id = JobId{random_.below(state_.next_job.value + 2)};
      item.has_indices = random_.permille(200);
      if (item.has_indices)
        item.indices.push_back(ArrayRange{random_.below(4), 4 + random_.below(20), random_.between(1, 3)});
      selector.items.push_back(std::move(item));
    }
    return selector;
  }

  void command_of_a_user() {
    const Caller caller{user(), random_.permille(300)};
    switch (random_.below(10)) {
      case 6:
      case 7:
        run(RequeueJobs{caller, some_jobs()});
        break;
      case 8:
        run(SuspendJobs{caller, some_jobs()});
        break;
      case 9:
        run(ContinueJobs{caller, some_jobs()});
        break;
      case 0:
        run(HoldJobs{caller, some_jobs()});
        break;
      case 2:
      case 3:
        run(UpdateJobs{caller, some_jobs(), sim::random_change(random_, spec_options())});
        break;
      case 1:
        run(ReleaseJobs{caller, some_jobs()});
        break;
      default: {
        CancelJobs cancel{caller, some_jobs(), 0};
        if (random_.permille(300)) cancel.signal = SIGUSR1;
        run(cancel);
        break;
      }
    }
  }

  void reserve(const Caller& caller) {
    const std::string name = random_.permille(900) ? "r" + std::to_string(random_.between(1, 2)) : "not a name";
    if (random_.permille(200)) {
      run(RemoveReservation{caller, name, random_.permille(700)});
      return;
    }
    MakeReservation make;
    make.caller = caller;
    make.name = name;
    make.create = random_.permille(700);
    if (random_.permille(950)) make.start = now_ + random_.duration(Duration{}, Duration::from_s(20));
    if (random_.permille(950)) make.duration = random_.duration(Duration{}, Duration::from_s(20));
    if (random_.permille(300)) make.every = random_.duration(Duration{}, Duration::from_s(200));
    if (random_.permille(300)) {
      make.node_count = static_cast<std::uint32_t>(random_.between(1, kNodes + 1));
    } else {
      make.nodes = std::vector<std::string>{node_name(), random_.permille(950) ? node_name() : "n99"};
    }
    if (random_.permille(200)) make.maintenance = random_.permille(700);
    const bool nobody = make.maintenance.value_or(false) && random_.permille(900);
    if (random_.permille(900)) make.users = nobody ? std::vector<std::string>{} : std::vector<std::string>{user()};
    make.ignore_jobs = random_.permille(500);
    run(make);
  }

  void command_of_an_administrator() {
    const Caller caller{"root", random_.permille(950)};
    std::vector<std::string> nodes{node_name()};
    if (random_.permille(200)) nodes.push_back(node_name());
    if (random_.permille(50)) nodes.emplace_back("n99");
    if (random_.permille(300)) {
      reserve(caller);
    } else if (random_.permille(400)) {
      run(DrainNodes{caller, nodes, "reason" + std::to_string(random_.below(2))});
    } else {
      run(ResumeNodes{caller, nodes});
    }
  }

  sim::Random random_;
  std::uint64_t registrations_ = 0;
  sched::Policy policy_ = policy();
  engine::State state_;
  std::vector<std::string> rows_;
  Instant now_ = Instant::from_s(1'700'000'000);
  std::size_t started_ = 0;
};

TEST(EngineProperty, InvariantsHoldAndReplayGivesTheLiveState) {
  const std::uint64_t seed = test::first_seed();
  std::size_t started = 0;
  for (std::uint64_t round = 0; round < 40; ++round) {
    Engine engine(sim::mix(seed + round));
    for (int i = 0; i < 400 && !testing::Test::HasFatalFailure(); ++i) {
      engine.step();
      if (i % 100 == 99) engine.check_replay();
    }
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "round " << round << " of MUSTER_SEED=" << seed;
    started += engine.started();
  }
  EXPECT_GT(started, 100U) << "the commands never start anything: the test shows nothing";
}

}  // namespace
}  // namespace muster
