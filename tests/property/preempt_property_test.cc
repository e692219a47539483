// Preemption under random workloads: only those that may be are preempted, and only as many as are needed; two jobs never
// preempt each other; what was preempted for a job lets it start, unless one that stands before it came; everything comes
// to rest; replaying the journal gives the live state. MUSTER_SEED repeats a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "core/engine/engine.h"
#include "core/engine/running.h"
#include "core/sched/preempt.h"
#include "sim/random.h"
#include "sim/random_spec.h"
#include "sim/state_codec.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

constexpr const char* kQueues[] = {"scavenge", "normal", "urgent"};
constexpr const char* kQos[] = {"", "low", "mid", "high"};

Outcome outcome_of(EndCause cause) {
  Outcome outcome;
  outcome.cause = cause;
  return outcome;
}

class World {
 public:
  explicit World(std::uint64_t seed) : random_(seed) {
    for (const char* name : kQueues) {
      sched::QueuePolicy queue;
      queue.name = name;
      queue.priority = static_cast<std::int64_t>(policy_.queues.size()) * 10;
      queue.time_default = Duration::from_s(600);
      queue.preempt_mode = static_cast<sched::PreemptMode>(random_.below(5));
      if (random_.permille(300)) queue.preempt_exempt = Duration::from_s(static_cast<std::int64_t>(random_.below(60)));
      if (random_.permille(300)) queue.preempt_grace = Duration::from_s(static_cast<std::int64_t>(random_.below(30)));
      policy_.queues.push_back(queue);
    }
    policy_.queues.front().preempt_mode =
        random_.permille(500) ? sched::PreemptMode::kSuspend : sched::PreemptMode::kRequeue;
    policy_.default_queue = "normal";
    nodes_ = static_cast<std::uint32_t>(random_.between(1, 5));
    run(StartTerm{});
    if (random_.permille(500)) define_qos();
    for (std::uint32_t i = 1; i <= nodes_; ++i) {
      NodeRegistration r;
      r.name = "n" + std::to_string(i);
      r.boot_id = "boot";
      r.hardware = sim::random_hardware(random_, 8);
      if (i != 1) r.topology = sim::topology_of(r.hardware);
      run(RegisterNode{r});
    }
  }

  void step(bool arrivals) {
    now_ = now_ + random_.duration(Duration::from_ms(100), Duration::from_s(30));
    for (std::uint64_t i = arrivals ? random_.below(3) : 0; i > 0; --i) submit();
    if (random_.permille(100)) user_command();
    run(Tick{});  // deadlines
    nodes_report();
    if (::testing::Test::HasFatalFailure()) return;
    plan();
    const std::vector<std::string> broken = engine::check_invariants(state_);
    ASSERT_TRUE(broken.empty()) << broken.front();
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

  void release_all() {
    JobSelector held;
    held.states = {JobState::kPending};
    run(ReleaseJobs{{"root", true}, held});
    // Those that stand still for others go on by themselves.
    JobSelector still;
    for (const auto& [id, job] : state_.jobs) {
      const auto* active = std::get_if<Active>(&job.phase);
      if (active != nullptr && active->suspension.since.is_set() && active->suspension.room_for == JobId{}) {
        still.items.push_back({id, false, {}});
      }
    }
    if (!still.items.empty()) run(ContinueJobs{{"root", true}, still});
  }
  [[nodiscard]] bool at_rest() const { return state_.jobs.empty() && state_.arrays.empty(); }
  [[nodiscard]] std::uint64_t preempted() const { return pairs_.size(); }

 private:
  void define_qos() {
    const auto add = [this](const char* name, const char* preempts) {
      ChangeAccounting command{{"root", true}, AccountingKind::kQos, AccountingVerb::kAdd, name, {}};
      if (preempts[0] != 0) command.settings.push_back({"preempts", preempts});
      if (random_.permille(300))
        command.settings.push_back({"preempt_mode", random_.permille(500)   ? "cancel"
                                                    : random_.permille(500) ? "suspend"
                                                                            : "requeue"});
      if (random_.permille(300)) command.settings.push_back({"preempt_grace", "20s"});
      run(command);
    };
    add("low", "");
    add("mid", "low");
    add("high", "low,mid");
  }
  [[nodiscard]] sched::PreemptRules rules() const { return sched::preempt_rules(&state_.accounts); }

  void submit() {
    sim::SpecOptions options;
    options.nodes = nodes_;
    options.cores_max = 8;
    options.now = now_;
    options.user = "u";
    JobSpec spec = sim::random_spec(random_, options);
    spec.queue = kQueues[random_.below(3)];
    spec.qos = kQos[random_.below(4)];
    spec.hold = false;
    spec.dependency = {};
    spec.begin = {};
    if (random_.permille(600)) {  // others fit beside it while it stands still
      spec.mem_per_cpu_mib = spec.mem_per_gpu_mib = 0;
      spec.mem_per_node_mib = random_.between(1, 200);
    }
    spec.time_limit = Duration::from_s(static_cast<std::int64_t>(random_.between(30, 3'000)));
    run(SubmitJob{{"u", false}, {}, std::make_shared<const JobSpec>(std::move(spec))});
  }

  void user_command() {
    if (state_.jobs.empty()) return;
    auto it = state_.jobs.begin();
    std::advance(it, random_.below(state_.jobs.size()));
    JobSelector one;
    one.items.push_back({it->first, false, {}});
    const Caller user{"u", false};
    switch (random_.below(4)) {
      case 0:
        return run(CancelJobs{user, one, 0});
      case 1:
        return run(RequeueJobs{user, one});
      case 2:
        return run(SuspendJobs{user, one});
      default:
        return run(ContinueJobs{user, one});
    }
  }

  // What runs ends at the end of its limit or by chance; what was told to stop is gone a little later.
  void nodes_report() {
    std::vector<std::pair<std::string, AttemptReport>> reports;
    for (const auto& [id, job] : state_.jobs) {
      const auto* active = std::get_if<Active>(&job.phase);
      if (active == nullptr) continue;
      const bool stopping = active->stop != StopCause::kNone;
      if (!stopping && active->suspension.room_for != JobId{}) {
        for (const AttemptOnNode& on : active->nodes) {
          if (on.phase == NodePhase::kEnded || on.stands_still || random_.permille(300)) continue;
          reports.emplace_back(state_.nodes[on.share.node.value].name,
                               AttemptReport{{id, job.attempt}, false, {}, active->suspension.orders});
        }
      }
      const bool over = !active->suspension.since.is_set() &&
                        now_ >= active->start_time + active->suspension.earlier + active->time_limit;
      const bool by_chance = !stopping && !active->suspension.since.is_set() && random_.permille(20);
      if (!over && !by_chance && !(stopping && random_.permille(600))) continue;
      for (const AttemptOnNode& on : active->nodes) {
        if (on.phase == NodePhase::kEnded || (stopping && random_.permille(200))) continue;
        const EndCause cause = stopping ? EndCause::kCancelled : over ? EndCause::kTimeLimit : EndCause::kExited;
        reports.emplace_back(state_.nodes[on.share.node.value].name,
                             AttemptReport{{id, job.attempt}, true, outcome_of(cause)});
      }
    }
    for (auto& [node, report] : reports) run(ReportAttempts{node, {report}});
  }

  void plan() {
    for (int i = 0; i < 20; ++i) {
      const sched::Plan plan = engine::plan(state_, policy_, {}, now_);
      ApplyPlan command = engine::apply_plan(state_, plan);
      check_preemptions(command, plan);
      if (::testing::Test::HasFatalFailure()) return;
      const bool complete = plan.complete;
      run(std::move(command));
      if (complete) return check_standing_still();
    }
  }

  const Job& record(JobId id) const {
    const Job* array = engine::find_array(state_, id);
    return array != nullptr ? *array : state_.jobs.at(id);
  }

  void check_preemptions(const ApplyPlan& command, const sched::Plan& plan) {
    std::map<JobId, std::vector<AttemptKey>> by_job;
    for (const Preemption& p : command.preemptions) by_job[p.job].push_back(p.victim);
    for (const auto& [id, victims] : by_job) {
      const Job& job = record(id);
      for (const AttemptKey& victim : victims) {
        const Job& stopped = state_.jobs.at(victim.job);
        ASSERT_TRUE(sched::may_preempt(policy_, rules(), *job.spec, *stopped.spec));
        ASSERT_GT(sched::standing_of(policy_, rules(), *job.spec), sched::standing_of(policy_, rules(), *stopped.spec));
        const JobId array = stopped.array;
        ASSERT_FALSE(pairs_.contains({victim.job, id}) || pairs_.contains({array, id}))
            << "jobs " << id.value << " and " << victim.job.value << " preempt each other";
        pairs_.emplace(id, array != JobId{} ? array : victim.job);
      }
      // Again for the same job only when all of it is gone, and one that stands before it took the place, or one of its tasks.
      ASSERT_FALSE(waits_for_room(id)) << "job " << id.value << " preempts more before what it has is gone";
      // Jobs of one standing pass each other as they age, and a stop that took very long may come too late for the job to
      // end before what is promised behind it: so once or twice nothing starts, but not again and again.
      const bool starts = std::any_of(command.placements.begin(), command.placements.end(),
                                      [id = id](const Placement& p) { return p.job == id; });
      Batches& before = batches_[id];
      before.barren = before.starts == starts_ && !starts ? before.barren + 1 : 0;
      before.starts = starts_;
      ASSERT_LE(before.barren, 3U) << "job " << id.value << " preempts again and again and nothing starts";
    }
    const bool alone = by_job.size() == 1 && command.placements.empty() && is_first(by_job.begin()->first);
    // One that can be shortened is given the room for its whole limit, though less might have done.
    if (alone && record(by_job.begin()->first).spec->time_min == Duration{}) {
      const JobId id = by_job.begin()->first;
      const auto promise = std::find_if(plan.promises.begin(), plan.promises.end(),
                                        [id](const sched::Promise& p) { return p.job == id; });
      ASSERT_NE(promise, plan.promises.end());
      check_needed(id, by_job.begin()->second, promise->start);
    }
  }

  // Whether something that makes room for the job still has what it is to give.
  [[nodiscard]] bool waits_for_room(JobId id) const {
    const auto making = state_.making_room.find(id);
    return making != state_.making_room.end() &&
           std::any_of(making->second.begin(), making->second.end(), [&](JobId other) {
             const auto& active = std::get<Active>(state_.jobs.at(other).phase);
             return std::any_of(active.nodes.begin(), active.nodes.end(),
                                [&](const AttemptOnNode& on) { return sched::has_yet_to_give(active, on, id); });
           });
  }

  // Where nothing waits, whoever has all its cores free goes on.
  void check_standing_still() const {
    for (const JobId id : state_.pending.empty() ? state_.standing_still : std::set<JobId>{}) {
      const auto& active = std::get<Active>(state_.jobs.at(id).phase);
      const bool could = active.stop == StopCause::kNone &&
                         std::all_of(active.nodes.begin(), active.nodes.end(), [&](const AttemptOnNode& on) {
                           return on.phase == NodePhase::kEnded ||
                                  (on.stands_still &&
                                   on.share.cores.is_subset_of(state_.ledger.nodes()[on.share.node.value].free_cores));
                         });
      ASSERT_FALSE(could) << "job " << id.value << " stands still for nobody";
    }
  }

  [[nodiscard]] bool is_first(JobId id) const {
    const sched::DefaultOrder order(policy_, &state_.accounts, now_);
    const auto place = [&](const Job& j) {
      const sched::Standing s = sched::standing_of(policy_, rules(), *j.spec);
      return std::tuple(-s.tier, -s.rank, -order.points(*j.spec, j.eligible_time, now_), j.eligible_time, j.id);
    };
    for (const auto& [spec, group] : state_.pending.groups()) {
      for (const sched::PendingEntry& entry : group) {
        if (entry.id != id && place(record(entry.id)) < place(record(id))) return false;
      }
    }
    // The end of one of its tasks lets an array go on that stands at its limit of them.
    for (const auto& [other, array] : state_.arrays) {
      if (other != id && sched::at_array_limit(array, 0) && place(array) < place(record(id))) return false;
    }
    return true;
  }

  // The first job in order starts when its victims are gone, and what ends by itself until then, and not when one of them
  // is left.
  void check_needed(JobId id, const std::vector<AttemptKey>& victims, Instant start) {
    ++checked_;
    for (std::size_t spared = 0; spared <= victims.size(); ++spared) {
      engine::State after = state_;
      const auto end = [&](const Job& job) {
        std::vector<Fact> facts;
        for (const AttemptOnNode& on : std::get<Active>(job.phase).nodes) {
          if (on.phase != NodePhase::kEnded) {
            facts.push_back(
                Fact{now_, AttemptEndedOnNode{{job.id, job.attempt}, on.share.node, outcome_of(EndCause::kCancelled)}});
          }
        }
        facts.push_back(Fact{now_, JobEnded{job.id, JobState::kCancelled, ""}});
        for (const Fact& fact : facts) engine::evolve(after, fact);
      };
      for (std::size_t i = 0; i < victims.size(); ++i) {
        const Job& victim = state_.jobs.at(victims[i].job);
        if (i == spared) continue;
        if (sched::giving_way(policy_, rules(), *record(id).spec, *victim.spec).mode != sched::PreemptMode::kSuspend) {
          end(victim);
          continue;
        }
        engine::evolve(after, Fact{now_, AttemptSuspended{victims[i], "", id}});
        for (const AttemptOnNode& on : std::get<Active>(victim.phase).nodes) {
          engine::evolve(after, Fact{now_, AttemptStoodStill{victims[i], on.share.node}});
        }
      }
      for (const auto& [other, job] : state_.jobs) {
        const auto* active = std::get_if<Active>(&job.phase);
        const bool victim =
            std::any_of(victims.begin(), victims.end(), [&](const AttemptKey& v) { return v.job == other; });
        if (active == nullptr || victim) continue;
        if (sched::believed_end(*active) <= start) {
          end(job);
        } else if (active->suspension.room_for != JobId{} && active->stop == StopCause::kNone) {
          // It is about to stand still, for another one; what it gives counts then, too.
          for (const AttemptOnNode& on : active->nodes) {
            if (on.phase == NodePhase::kEnded || on.stands_still) continue;
            engine::evolve(after, Fact{now_, AttemptStoodStill{{job.id, job.attempt}, on.share.node}});
          }
        }
      }
      const sched::Plan plan = engine::plan(after, policy_, {}, now_);
      const bool starts =
          std::any_of(plan.placements.begin(), plan.placements.end(), [id](const Placement& p) { return p.job == id; });
      if (spared == victims.size()) {
        ASSERT_TRUE(starts) << "job " << id.value
                            << " does not start when its victims are gone: " << text_of(*record(id).spec);
      } else {
        ASSERT_FALSE(starts) << "job " << id.value << " does not need job " << victims[spared].job.value << " to stop";
      }
    }
  }

  void run(const Command& command) {
    const Result<engine::Decision> decision = engine::decide(state_, policy_, command, now_);
    if (!decision.ok()) return;
    if (std::holds_alternative<ApplyPlan>(command)) {
      ASSERT_TRUE(decision->notes.empty()) << "a fresh plan is refused: " << decision->notes.front();
    }
    for (const Fact& fact : decision->facts) {
      // What may take the place that was made for a job, or turn the order round.
      const auto* suspended = std::get_if<AttemptSuspended>(&fact.body);
      const auto* resumed = std::get_if<AttemptResumed>(&fact.body);
      const bool turns =
          std::holds_alternative<AttemptStarted>(fact.body) || std::holds_alternative<JobSubmitted>(fact.body) ||
          (suspended != nullptr && suspended->room_for == JobId{}) || (resumed != nullptr && !resumed->by.empty());
      suspended_ += suspended != nullptr && suspended->room_for != JobId{} ? 1U : 0U;
      resumed_ += resumed != nullptr && resumed->by.empty() ? 1U : 0U;
      starts_ += turns ? 1 : 0;
      remember(fact);
      Effects effects;
      engine::apply(state_, fact, effects);
      for (const Effect& effect : effects) {
        const auto* row = std::get_if<RecordHistory>(&effect);
        if (row != nullptr && !row->summary.requeued) {
          for (std::uint64_t i = 0; i < row->summary.count; ++i) {
            ASSERT_TRUE(ended_.insert(JobId{row->summary.id.value + i}).second) << "ended twice";
          }
        }
      }
    }
    if (!decision->facts.empty()) {
      std::string row;
      ASSERT_TRUE(sim::through_journal(decision->facts, row).ok());
      rows_.push_back(std::move(row));
    }
  }

  static std::string text_of(const JobSpec& s) {
    return s.queue + " qos " + s.qos + " nodes " + std::to_string(s.nodes_min) + "-" + std::to_string(s.nodes_max) +
           " tasks " + std::to_string(s.ntasks) + " cpus " + std::to_string(s.cpus_per_task) + " for " +
           std::to_string(s.time_limit.seconds()) + " s" + (s.exclusive ? " exclusive" : "") +
           (s.constraint.empty() ? "" : " constraint " + s.constraint) +
           (s.deadline.is_set() ? " deadline " + std::to_string((s.deadline.us - kStart.us) / 1'000) + " ms" : "") +
           (s.array
                ? " array of " + std::to_string(s.array->size()) + " at most " + std::to_string(s.array->max_running)
                : "");
  }

  // What led to a failure.
  void remember(const Fact& fact) {
    std::string text = std::to_string((fact.at.us - kStart.us) / 1'000) + " ms ";
    const auto id = [](JobId job) { return std::to_string(job.value); };
    if (const auto* submitted = std::get_if<JobSubmitted>(&fact.body)) {
      text += "submit " + id(submitted->id) + " " + text_of(*submitted->spec);
    } else if (const auto* started = std::get_if<AttemptStarted>(&fact.body)) {
      text += "start " + id(started->job);
    } else if (const auto* stop = std::get_if<StopRequested>(&fact.body)) {
      text += "stop " + id(stop->key.job) + " for " + id(stop->terms.room_for);
    } else if (const auto* gone = std::get_if<AttemptEndedOnNode>(&fact.body)) {
      text += "gone " + id(gone->key.job) + " from " + std::to_string(gone->node.value);
    } else if (const auto* promised = std::get_if<StartPromised>(&fact.body)) {
      text +=
          "promise " + id(promised->job) + " at " + std::to_string((promised->start.us - kStart.us) / 1'000) + " ms";
    } else if (const auto* suspended = std::get_if<AttemptSuspended>(&fact.body)) {
      text += "suspend " + id(suspended->key.job) + " for " + id(suspended->room_for);
    } else if (const auto* still = std::get_if<AttemptStoodStill>(&fact.body)) {
      text += "still " + id(still->key.job) + " on " + std::to_string(still->node.value);
    } else if (const auto* resumed = std::get_if<AttemptResumed>(&fact.body)) {
      text += "go on " + id(resumed->key.job);
    } else {
      text += "fact " + std::to_string(fact.body.index());
    }
    trail_.push_back(std::move(text));
  }

  static constexpr Instant kStart = Instant::from_s(1'700'000'000);
  sim::Random random_;
  sched::Policy policy_;
  std::uint32_t nodes_ = 0;
  engine::State state_;
  std::vector<std::string> rows_;
  Instant now_ = kStart;
  std::uint64_t starts_ = 0;
  std::set<std::pair<JobId, JobId>> pairs_;  // who preempted whom; of arrays the arrays
  // Of one job that preempts: what had happened at the last time, and how often nothing had since the time before.
  struct Batches {
    std::uint64_t starts = UINT64_MAX;
    std::uint64_t barren = 0;
  };
  std::map<JobId, Batches> batches_;
  std::set<JobId> ended_;

 public:
  std::uint64_t checked_ = 0;
  std::uint64_t suspended_ = 0;
  std::uint64_t resumed_ = 0;
  std::vector<std::string> trail_;
};

// One random workload, all of whose rules are checked on the way.
void come_to_rest(World& world, const std::string& name) {
  for (int i = 0; i < 80 && !::testing::Test::HasFatalFailure(); ++i) world.step(true);
  if (!::testing::Test::HasFatalFailure()) world.check_replay();
  // The last jobs need one limit after the other at most; a storm of preemptions would need more.
  for (int i = 0; i < 20'000 && !world.at_rest() && !::testing::Test::HasFatalFailure(); ++i) {
    world.release_all();
    world.step(false);
  }
  ASSERT_TRUE(world.at_rest() || ::testing::Test::HasFatalFailure()) << "it never comes to rest";
  if (!::testing::Test::HasFatalFailure()) world.check_replay();
  std::string trail;
  for (std::size_t i = world.trail_.size() - std::min<std::size_t>(world.trail_.size(), 60); i < world.trail_.size();
       ++i) {
    trail += "\n" + world.trail_[i];
  }
  ASSERT_FALSE(::testing::Test::HasFatalFailure()) << name << trail;
}

TEST(PreemptProperty, RandomWorkloadsComeToRest) {
  const std::uint64_t seed = test::first_seed();
  const char* rounds_given = std::getenv("MUSTER_ROUNDS");
  const std::uint64_t rounds = rounds_given != nullptr ? std::strtoull(rounds_given, nullptr, 10) : 60;
  std::uint64_t preempted = 0;
  std::uint64_t checked = 0;
  std::uint64_t suspended = 0;
  std::uint64_t resumed = 0;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    World world(sim::mix(seed + round));
    come_to_rest(world, "round " + std::to_string(round) + " of MUSTER_SEED=" + std::to_string(seed));
    if (HasFatalFailure()) return;
    preempted += world.preempted();
    checked += world.checked_;
    suspended += world.suspended_;
    resumed += world.resumed_;
  }
  EXPECT_GT(preempted, rounds) << "hardly anything is preempted: the test shows nothing";
  EXPECT_GT(suspended, rounds) << "hardly anything stands still: the test shows nothing";
  EXPECT_GT(resumed, rounds / 2) << "hardly anything goes on: the test shows nothing";
  EXPECT_GT(checked, rounds / 10) << "hardly any choice was checked: the test shows nothing";
}

// The cores of a job that is about to stand still were counted twice when another job preempted it as well.
TEST(PreemptProperty, CoresOfOneThatIsAboutToStandStillAreGivenOnce) {
  World world(sim::mix(3078362769));
  come_to_rest(world, "cores given twice");
  EXPECT_GT(world.suspended_, 0U);
}

// Victims were stopped for cores that belonged to a job that stood still and came first.
TEST(PreemptProperty, NobodyIsStoppedForCoresThatAnotherOneHadBefore) {
  World world(sim::mix(3078362790));
  come_to_rest(world, "cores of one that stands still");
  EXPECT_GT(world.suspended_, 0U);
}

// An endless stream of small jobs, of the same and of a lower queue, on a machine that is full at any time; urgent ones
// preempt some of them. The job that needs all of the machine starts within the longest limit that it met, and some time
// for the urgent ones that came before it.
TEST(PreemptProperty, AJobOfTheWholeMachineStarts) {
  constexpr std::uint32_t kNodes = 4;
  constexpr std::uint32_t kCores = 8;
  const Duration limit = Duration::from_s(600);
  for (const bool low_may_be_preempted : {false, true}) {
    sched::Policy policy;
    for (const char* name : kQueues) {
      sched::QueuePolicy queue;
      queue.name = name;
      queue.priority = static_cast<std::int64_t>(policy.queues.size());
      queue.time_default = limit;
      queue.preempt_mode = sched::PreemptMode::kRequeue;
      policy.queues.push_back(queue);
    }
    policy.queues[0].preempt_mode = low_may_be_preempted ? sched::PreemptMode::kRequeue : sched::PreemptMode::kOff;
    policy.default_queue = "normal";
    engine::State state;
    Instant now = Instant::from_s(1'700'000'000);
    const auto run = [&](const Command& command) {
      Result<engine::Decision> decision = engine::decide(state, policy, command, now);
      EXPECT_TRUE(decision.ok());
      for (const Fact& fact : decision->facts) {
        Effects effects;
        engine::apply(state, fact, effects);
      }
      return decision->job;
    };
    const auto submit = [&](const char* queue, std::uint32_t nodes, std::uint32_t cpus) {
      auto spec = std::make_shared<JobSpec>();
      spec->user = "u";
      spec->work_dir = "/";
      spec->queue = queue;
      spec->nodes_min = spec->nodes_max = spec->ntasks = nodes;
      spec->cpus_per_task = cpus;
      spec->time_limit = limit;
      return run(SubmitJob{{"u", false}, {}, spec});
    };
    run(StartTerm{});
    for (std::uint32_t i = 1; i <= kNodes; ++i) {
      NodeRegistration r;
      r.name = "n" + std::to_string(i);
      r.boot_id = "boot";
      for (std::uint32_t c = 0; c < kCores; ++c) r.hardware.cores.push_back(Core{0, 0, IndexSet::range(c, 1)});
      r.hardware.mem_mib = 8'000;
      run(RegisterNode{r});
    }
    JobId whole;
    Instant asked;
    Instant started;
    for (int second = 0; second < 3'000 && !started.is_set(); ++second) {
      now = now + Duration::from_s(1);
      if (second % 5 == 0) submit("scavenge", 1, 2);
      if (second % 7 == 0) submit("normal", 1, 2);
      if (second == 300) {
        whole = submit("normal", kNodes, kCores);
        asked = now;
      }
      if (second > 200 && second < 400 && second % 50 == 0) submit("urgent", 1, 4);
      std::vector<std::pair<std::string, AttemptReport>> reports;
      for (const auto& [id, job] : state.jobs) {
        const auto* active = std::get_if<Active>(&job.phase);
        const bool ends = active != nullptr && (active->stop != StopCause::kNone || now >= active->start_time + limit);
        for (const AttemptOnNode& on : ends ? active->nodes : std::vector<AttemptOnNode>{}) {
          reports.emplace_back(state.nodes[on.share.node.value].name,
                               AttemptReport{{id, job.attempt},
                                             true,
                                             outcome_of(active->stop == StopCause::kNone ? EndCause::kTimeLimit
                                                                                         : EndCause::kCancelled)});
        }
      }
      for (const auto& [node, report] : reports) run(ReportAttempts{node, {report}});
      for (bool complete = false; !complete;) {
        sched::Plan plan = engine::plan(state, policy, {}, now);
        complete = plan.complete;
        run(engine::apply_plan(state, std::move(plan)));
      }
      if (whole != JobId{} && engine::find_job(state, whole) != nullptr &&
          engine::find_job(state, whole)->is_active()) {
        started = now;
      }
    }
    ASSERT_TRUE(started.is_set()) << "it starves";
    EXPECT_LE(started - asked, limit + limit);
  }
}

}  // namespace
}  // namespace muster
