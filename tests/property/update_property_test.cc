// Random jobs with deadlines, shortest limits and paired arrays, on nodes that obey; holds of single tasks, changes of jobs
// that wait and run, changes of queues. After every step: the invariants; nothing starts that is held, barred, not admitted
// or too late; nothing runs beyond its limit or its deadline by more than a tick; the journal gives the live state; and what
// `why` names holds the job back, and is all that does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "core/engine/deadline.h"
#include "core/engine/dependency.h"
#include "core/engine/engine.h"
#include "core/engine/settings.h"
#include "core/sched/queue_rules.h"
#include "core/sched/span.h"
#include "sim/random.h"
#include "sim/random_spec.h"
#include "sim/state_codec.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

constexpr std::uint32_t kNodes = 3;
constexpr std::uint32_t kCoresMax = 6;
constexpr Duration kTick = Duration::from_s(1);  // every step, as the daemon's timer does it

sched::Policy policy() {
  sched::Policy policy;
  sched::QueuePolicy batch;
  batch.name = "batch";
  batch.priority = 10;
  batch.time_default = Duration::from_s(30);
  sched::QueuePolicy low = batch;
  low.name = "low";
  low.priority = 1;
  policy.queues = {batch, low};
  policy.default_queue = "batch";
  return policy;
}

struct Counts {
  std::uint64_t started = 0;
  std::uint64_t shortened = 0;
  std::uint64_t paired = 0;
  std::uint64_t missed = 0;     // deadlines, by jobs that waited
  std::uint64_t cut_short = 0;  // by a deadline, while they ran
  std::uint64_t updated = 0;
  std::uint64_t held_tasks = 0;
  std::uint64_t forced = 0;
  std::uint64_t refused_settings = 0;
  std::uint64_t explained = 0;
};

class World {
 public:
  World(std::uint64_t seed, Counts& counts) : random_(seed), counts_(counts) {
    run(StartTerm{});
    for (std::uint32_t i = 1; i <= kNodes; ++i) {
      NodeRegistration r;
      r.name = "n" + std::to_string(i);
      r.hardware = sim::random_hardware(random_, kCoresMax);
      if (i != 1) r.topology = sim::topology_of(r.hardware);
      r.boot_id = "boot";
      r.endpoint = "tcp://" + r.name + ":1";
      run(RegisterNode{r});
    }
  }

  void step() {
    now_ = now_ + random_.duration(Duration::from_ms(1), kTick);
    run(Tick{});
    check_ends();
    end_attempts();
    switch (random_.below(10)) {
      case 0:
      case 1:
      case 2:
      case 3:
        submit();
        break;
      case 4:
      case 5:
        update();
        break;
      case 6:
        hold_or_release();
        break;
      case 7:
        change_settings();
        break;
      default:
        break;
    }
    plan();
    if (random_.permille(100)) check_reasons();
  }

  void check_replay() {
    engine::State replayed;
    for (const std::string& row : rows_) {
      const Result<Facts> facts = sim::from_journal(row);
      ASSERT_TRUE(facts.ok()) << facts.error().message;
      for (const Fact& fact : *facts) engine::evolve(replayed, fact);
    }
    ASSERT_EQ(replayed, state_);
    const Result<engine::State> loaded = sim::decode_state(sim::encode_state(state_));
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    ASSERT_EQ(*loaded, state_);
  }

 private:
  // ---- commands

  std::optional<engine::Decision> run(const Command& command) {
    Result<engine::Decision> decision = engine::decide(state_, policy_, command, now_);
    if (!decision.ok()) {
      EXPECT_FALSE(decision.error().message.empty());
      return std::nullopt;
    }
    take(decision->facts);
    return std::move(*decision);
  }

  void take(const Facts& facts) {
    for (const Fact& fact : facts) {
      look_at(fact);
      Effects effects;
      engine::apply(state_, fact, effects);
    }
    if (!facts.empty()) {
      std::string row;
      const Result<Facts> back = sim::through_journal(facts, row);
      ASSERT_TRUE(back.ok()) << back.error().message;
      ASSERT_EQ(*back, facts);
      rows_.push_back(std::move(row));
    }
    const std::vector<std::string> broken = engine::check_invariants(state_);
    ASSERT_TRUE(broken.empty()) << broken.front();
  }

  sim::SpecOptions spec_options() {
    sim::SpecOptions options;
    options.nodes = kNodes;
    options.cores_max = kCoresMax;
    options.now = now_;
    for (const auto* records : {&state_.jobs, &state_.arrays}) {
      for (const auto& [id, job] : *records) options.jobs.push_back(id);
    }
    return options;
  }

  void submit() {
    JobSpec spec = sim::random_spec(random_, spec_options());
    if (random_.permille(300)) pair(spec);
    run(SubmitJob{{"u1", true}, {}, std::make_shared<const JobSpec>(std::move(spec))});
  }

  // With an array that lives.
  void pair(JobSpec& spec) {
    if (state_.arrays.empty()) return;
    auto it = state_.arrays.begin();
    std::advance(it, random_.below(state_.arrays.size()));
    spec.array = ArraySpec{it->second.spec->array->ranges, 0};
    spec.dependency = {};
    spec.dependency.terms.push_back({DependencyKind::kAfterCorr, {it->first, false, 0}, {}});
  }

  JobSelector some_jobs(bool tasks) {
    JobSelector selector;
    JobSelector::Item item;
    item.id = JobId{random_.below(state_.next_job.value + 1)};
    const auto& records = random_.permille(500) && !state_.arrays.empty() ? state_.arrays : state_.jobs;
    if (!records.empty()) {
      auto it = records.begin();
      std::advance(it, random_.below(records.size()));
      item.id = it->first;
    }
    item.has_indices = tasks && engine::find_array(state_, item.id) != nullptr && random_.permille(700);
    if (item.has_indices) {
      const std::uint64_t first = random_.below(8);
      item.indices.push_back({first, first + random_.below(6), 1});
    }
    selector.items.push_back(std::move(item));
    return selector;
  }

  void update() {
    UpdateJobs command{.caller = {"u1", random_.permille(300)},
                       .jobs = some_jobs(false),
                       .change = sim::random_change(random_, spec_options())};
    if (random_.permille(300)) command.change.fields = {SpecField::kTimeLimit};
    if (run(command)) ++counts_.updated;
  }

  void hold_or_release() {
    if (random_.permille(400)) {
      run(HoldJobs{{"u1", false}, some_jobs(true)});
    } else {
      run(ReleaseJobs{{"u1", false}, some_jobs(true)});
    }
  }

  void change_settings() {
    sched::Policy next = policy_;
    sched::QueuePolicy& queue = next.queues[random_.below(next.queues.size())];
    switch (random_.below(6)) {
      case 0:
        queue.time_max = random_.permille(400) ? Duration::infinite() : Duration::from_s(random_.between(20, 60));
        break;
      case 1:
        queue.nodes_max = static_cast<std::uint32_t>(random_.below(4));
        break;
      case 2:
        queue.cpus_max = random_.permille(400) ? 0 : random_.between(4, 12);
        break;
      case 3:
        queue.allow_users = random_.permille(800) ? std::vector<std::string>{} : std::vector<std::string>{"somebody"};
        break;
      case 4:
        queue.nodes = random_.permille(600) ? std::vector<std::string>{} : std::vector<std::string>{"n1", "n2"};
        break;
      default:
        queue.gpus_max = random_.below(4);
        break;
    }
    const bool force = random_.permille(300);
    const engine::ChangeSettings command{
        {"root", true}, {{"queue." + queue.name + ".x", std::to_string(random_.below(9))}}, force};
    const auto decision = engine::decide_settings(state_, policy_, next, command, now_);
    if (!decision.ok()) {
      ++counts_.refused_settings;
      EXPECT_FALSE(force) << decision.error().message;
      return;
    }
    // Jobs that could start by the policy before and cannot by the one after it.
    std::uint64_t stranded = 0;
    for_waiting([&](const Job& job) {
      const auto can_start = [&](const sched::Policy& p) {
        const sched::QueuePolicy& q = *p.find_queue(job.spec->queue);
        return !sched::refusal_of(q, *job.spec) &&
               !sched::place(sched::Draft(state_.ledger), *job.spec, q.nodes, sched::Assume::kAllEmpty).shares.empty();
      };
      stranded += can_start(policy_) && !can_start(next) ? 1 : 0;
    });
    if (!force) {
      EXPECT_EQ(stranded, 0U) << "jobs are stranded and nobody said so";
    }
    counts_.forced += stranded != 0 ? 1 : 0;
    policy_ = next;
    take(decision->facts);
  }

  void plan() {
    for (int pass = 0; pass < 20; ++pass) {
      sched::Plan plan = engine::plan(state_, policy_, {}, now_);
      const bool complete = plan.complete;
      const auto applied = run(engine::apply_plan(state_, std::move(plan)));
      ASSERT_TRUE(applied.has_value());
      EXPECT_TRUE(applied->notes.empty()) << applied->notes.front();  // nothing came between
      if (complete) return;
    }
  }

  template <typename Visit>
  void for_waiting(Visit visit) {
    for (const auto& [id, job] : state_.arrays) {
      if (!job.waiting.empty()) visit(job);
    }
    for (const auto& [id, job] : state_.jobs) {
      if (!job.is_active()) visit(job);
    }
  }

  // ---- the nodes: every attempt ends by itself at some time, by its limit at the latest, and at once when it is told to

  void end_attempts() {
    std::map<std::string, std::vector<AttemptReport>> reports;
    for (const auto& [id, job] : state_.jobs) {
      const auto* active = std::get_if<Active>(&job.phase);
      if (active == nullptr) continue;
      const Duration ran = now_ - active->start_time;
      AttemptReport report{{id, job.attempt}, true, {}};
      if (active->stop != StopCause::kNone) {
        report.outcome.cause = EndCause::kCancelled;
      } else if (ran >= active->time_limit) {
        report.outcome.cause = EndCause::kTimeLimit;
      } else if (random_.permille(80)) {
        report.outcome.exit_code = random_.permille(300) ? 1 : 0;
      } else {
        continue;
      }
      for (const AttemptOnNode& on : active->nodes) {
        if (on.phase != NodePhase::kEnded) reports[state_.nodes[on.share.node.value].name].push_back(report);
      }
    }
    for (auto& [node, each] : reports) run(ReportAttempts{node, std::move(each)});
  }

  // ---- checks

  // Nothing waits that should have been given up, and nothing runs beyond its deadline that has not been told to stop.
  void check_ends() {
    for_waiting([&](const Job& job) {
      const auto latest = sched::latest_start(*job.spec);
      EXPECT_TRUE(!latest || *latest >= now_) << "job " << job.id.value << " waits beyond its latest start";
    });
    for (const auto& [id, job] : state_.jobs) {
      const auto* active = std::get_if<Active>(&job.phase);
      if (active == nullptr) continue;
      EXPECT_TRUE(!job.spec->deadline.is_set() || job.spec->deadline > now_ || active->stop != StopCause::kNone)
          << "job " << id.value << " runs beyond its deadline";
      EXPECT_LE(now_, active->start_time + active->time_limit + kTick + kTick)
          << "job " << id.value << " runs beyond its limit";
    }
  }

  void look_at(const Fact& fact) {
    if (const auto* started = std::get_if<AttemptStarted>(&fact.body)) {
      check_start(*started, fact.at);
    } else if (const auto* ended = std::get_if<JobEnded>(&fact.body)) {
      const Job& job = state_.jobs.at(ended->job);
      ends_[ended->job] = ended->state;
      if (ended->state == JobState::kDeadline) {
        ++(job.is_active() ? counts_.cut_short : counts_.missed);
        ASSERT_TRUE(job.spec->deadline.is_set());
        if (!job.is_active()) {
          EXPECT_LT(*sched::latest_start(*job.spec), fact.at);
        }
      }
    } else if (const auto* tasks = std::get_if<ArrayTasksEnded>(&fact.body)) {
      for (std::uint64_t p = tasks->positions.begin; p < tasks->positions.end; ++p) {
        ends_[JobId{tasks->array.value + p}] = tasks->state;
      }
      counts_.missed += tasks->state == JobState::kDeadline ? 1 : 0;
    } else if (const auto* submitted = std::get_if<JobSubmitted>(&fact.body)) {
      if (submitted->spec->array) arrays_[submitted->id] = *submitted->spec->array;
    } else if (const auto* held = std::get_if<ArrayTasksHeld>(&fact.body)) {
      counts_.held_tasks += count(held->positions);
    }
  }

  void check_start(const AttemptStarted& fact, Instant at) {
    ++counts_.started;
    const Job* array = engine::find_array_of(state_, fact.job);
    const Job* job = array != nullptr ? array : engine::find_job(state_, fact.job);
    ASSERT_NE(job, nullptr);
    const std::string name = "job " + std::to_string(fact.job.value);
    const std::uint64_t position = array != nullptr ? fact.job.value - array->id.value : 0;
    EXPECT_FALSE(job->held || contains(job->held_positions, position)) << name << " is held and starts";
    const JobSpec& spec = *job->spec;
    const Duration limit = fact.time_limit == Duration{} ? spec.time_limit : fact.time_limit;
    EXPECT_LE(limit, spec.time_limit) << name;
    EXPECT_GE(limit, sched::least_limit(spec)) << name;
    counts_.shortened += limit < spec.time_limit ? 1 : 0;
    EXPECT_TRUE(!spec.deadline.is_set() || at + limit <= spec.deadline) << name << " starts too late";
    const auto refused = sched::refusal_of(*policy_.find_queue(spec.queue), spec);
    EXPECT_FALSE(refused) << name << ": " << refused->text;
    for (const DependencyTerm& term : spec.dependency.terms) {
      if (term.kind != DependencyKind::kAfterCorr) continue;
      ++counts_.paired;
      const auto pair = arrays_.at(term.target.job).position_of(spec.array->index_at(position));
      ASSERT_TRUE(pair) << name << " has no counterpart";
      const auto end = ends_.find(JobId{term.target.job.value + *pair});
      ASSERT_TRUE(end != ends_.end()) << name << " starts before its counterpart has ended";
      EXPECT_EQ(end->second, JobState::kCompleted) << name << " starts after a counterpart that failed";
    }
  }

  // Take away what is named, all of it, and the job starts on empty nodes.
  void check_reasons() {
    const engine::Explainer explainer(state_, policy_, now_);
    for_waiting([&](const Job& job) {
      const sched::Explanation why = explainer.explain(job);
      const auto named = [&](const std::string& kind) {
        return std::any_of(why.blockers.begin(), why.blockers.end(),
                           [&](const sched::Blocker& b) { return b.kind == kind; });
      };
      const std::string name = "job " + std::to_string(job.id.value);
      const bool barred = job.is_array_record && has_barred(job) && startable(job).empty();
      EXPECT_EQ(named("held"), job.held || (barred && !both(job.waiting, job.held_positions).empty())) << name;
      EXPECT_EQ(named("queue_limit"), sched::refusal_of(*policy_.find_queue(job.spec->queue), *job.spec).has_value())
          << name;
      if (barred || engine::is_dependent(job)) {
        EXPECT_TRUE(named("dependency") || named("held")) << name;
      }
      EXPECT_FALSE(why.blockers.empty()) << name << " waits for nothing";
      EXPECT_FALSE(explainer.reason(job).word.empty());
      EXPECT_NE(explainer.reason(job).word, "None") << name;
      ++counts_.explained;
      starts_when_freed(job, why);
    });
  }

  void starts_when_freed(const Job& job, const sched::Explanation& why) {
    engine::State free = state_;
    sched::Policy rules = policy_;
    const Instant later = now_ + Duration::from_us(1);
    const auto evolve = [&](FactBody body) { engine::evolve(free, Fact{later, std::move(body)}); };
    // Others are out of the way: nothing runs, and nothing else waits.
    for (const auto& [id, other] : state_.jobs) {
      const auto* active = std::get_if<Active>(&other.phase);
      if (active == nullptr) {
        if (id != job.id) evolve(JobEnded{.job = id, .state = JobState::kCancelled, .reason = {}});
        continue;
      }
      for (const AttemptOnNode& on : active->nodes) {
        if (on.phase != NodePhase::kEnded) evolve(AttemptEndedOnNode{{id, other.attempt}, on.share.node, {}});
      }
      evolve(JobEnded{.job = id, .state = JobState::kCancelled, .reason = {}});
    }
    for (const auto& [id, other] : state_.arrays) {
      if (id == job.id) continue;
      for (const PositionRange& r : other.waiting) {
        evolve(ArrayTasksEnded{.array = id, .positions = r, .state = JobState::kCancelled, .reason = {}});
      }
    }
    for (const sched::Blocker& blocker : why.blockers) {
      if (blocker.kind == "held") {
        evolve(JobReleased{job.id});
        evolve(ArrayTasksReleased{job.id, job.waiting});
      } else if (blocker.kind == "dependency") {
        evolve(DependencySet{job.id, {}});
      } else if (blocker.kind == "queue_limit") {
        for (sched::QueuePolicy& queue : rules.queues) {
          const std::vector<std::string> nodes = queue.nodes;
          queue = policy().queues[queue.name == "batch" ? 0 : 1];
          queue.nodes = nodes;
        }
      } else if (blocker.kind == "begin" || blocker.kind == "nodes" || blocker.kind == "deadline") {
        return;  // time, and nodes that the queue lacks, cannot be given here
      }
    }
    // The minutes after another job's start, which just came about.
    const Job* array = engine::find_array(free, job.id);
    const Job* freed = array != nullptr ? array : engine::find_job(free, job.id);
    if (freed->spec->begin > later) return;
    const sched::Plan plan = engine::plan(free, rules, {}, later);
    // Its latest start may be this very moment.
    const auto latest = sched::latest_start(*job.spec);
    if (latest && *latest < later) return;
    EXPECT_TRUE(std::any_of(plan.placements.begin(), plan.placements.end(),
                            [&](const Placement& p) { return p.job == job.id; }))
        << "job " << job.id.value << " of queue " << job.spec->queue
        << " does not start when what holds it back is gone: " << texts(why) << "limit " << job.spec->time_limit.us
        << " at least " << job.spec->time_min.us << " latest start in " << (latest ? (*latest - later).us : 0)
        << " us; afterwards it waits for " << engine::Explainer(free, rules, later).reason(*freed).detail;
  }

  static std::string texts(const sched::Explanation& why) {
    std::string all;
    for (const sched::Blocker& b : why.blockers) all += b.kind + ": " + b.text + "; ";
    return all;
  }

  sim::Random random_;
  Counts& counts_;
  sched::Policy policy_ = policy();
  engine::State state_;
  std::vector<std::string> rows_;
  Instant now_ = Instant::from_s(1'700'000'000);
  std::map<JobId, JobState> ends_;
  std::map<JobId, ArraySpec> arrays_;

  static sched::Policy policy() { return muster::policy(); }
};

TEST(UpdateProperty, RulesHoldWhateverIsChanged) {
  const std::uint64_t seed = test::first_seed();
  Counts counts;
  for (std::uint64_t round = 0; round < 60; ++round) {
    World world(sim::mix(seed + round), counts);
    for (int i = 0; i < 300 && !testing::Test::HasFailure(); ++i) world.step();
    world.check_replay();
    ASSERT_FALSE(testing::Test::HasFailure()) << "round " << round << " of MUSTER_SEED=" << seed;
  }
  // Each of them happened, or the test shows nothing.
  EXPECT_GT(counts.started, 1'000U);
  EXPECT_GT(counts.shortened, 20U);
  EXPECT_GT(counts.paired, 50U);
  EXPECT_GT(counts.missed, 20U);
  EXPECT_GT(counts.updated, 200U);
  EXPECT_GT(counts.held_tasks, 50U);
  EXPECT_GT(counts.forced, 10U);
  EXPECT_GT(counts.refused_settings, 10U);
  EXPECT_GT(counts.explained, 200U);
  std::printf("started %llu shortened %llu paired %llu missed %llu cut short %llu updated %llu held %llu forced %llu\n",
              static_cast<unsigned long long>(counts.started), static_cast<unsigned long long>(counts.shortened),
              static_cast<unsigned long long>(counts.paired), static_cast<unsigned long long>(counts.missed),
              static_cast<unsigned long long>(counts.cut_short), static_cast<unsigned long long>(counts.updated),
              static_cast<unsigned long long>(counts.held_tasks), static_cast<unsigned long long>(counts.forced));
}

}  // namespace
}  // namespace muster
