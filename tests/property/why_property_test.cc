// What `why` says is true and complete: when everything that it names is taken away, the job starts; and each change of
// the request that it offers for now starts the job now. In random clusters with random jobs; MUSTER_SEED repeats a run.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "core/engine/engine.h"
#include "sim/random.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

constexpr int kRounds = 400;
constexpr int kEventsPerRound = 60;

class World {
 public:
  explicit World(std::uint64_t seed) : random_(seed) {
    sched::QueuePolicy q;
    q.name = "main";
    q.time_default = Duration::from_s(3600);
    policy_.queues = {q};
    policy_.default_queue = "main";
    nodes_ = static_cast<std::uint32_t>(random_.between(1, 5));
    cores_ = static_cast<std::uint32_t>(random_.between(1, 8));
    gpus_ = static_cast<std::uint32_t>(random_.below(5));
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      NodeRegistration r;
      r.name = "n" + std::to_string(i + 1);
      r.boot_id = "boot";
      r.hardware.mem_mib = 8'192;
      for (std::uint32_t c = 0; c < cores_; ++c) {
        r.hardware.cores.push_back(Core{.package = 0, .numa = 0, .threads = IndexSet::range(c, 1)});
      }
      for (std::uint32_t g = 0; g < gpus_; ++g) {
        r.hardware.gpus.push_back(Gpu{.pci_address = "0000:0" + std::to_string(g) + ":00.0",
                                      .uuid = {},
                                      .model = {},
                                      .vendor_index = g,
                                      .numa = 0});
      }
      run(RegisterNode{r});
    }
  }

  void event() {
    now_ = now_ + Duration::from_s(static_cast<std::int64_t>(random_.below(300)));
    if (random_.permille(600)) {
      submit(random_spec());
    } else if (!state_.jobs.empty()) {
      const JobId id = some_job();
      if (state_.jobs.at(id).is_active()) {
        end(id);
      } else if (random_.permille(300)) {
        run(CancelJobs{{"alice", false}, selector(id), 0});
      } else if (random_.permille(300)) {
        run(HoldJobs{{"alice", false}, selector(id)});
      }
    }
    plan();
  }

  [[nodiscard]] std::vector<JobId> pending() const {
    std::vector<JobId> ids;
    for (const auto& [id, job] : state_.jobs) {
      if (!job.is_active()) {
        ids.push_back(id);
      }
    }
    return ids;
  }
  [[nodiscard]] sched::Explanation explain(JobId id) const {
    return engine::Explainer(state_, policy_, now_).explain(state_.jobs.at(id));
  }
  [[nodiscard]] bool runs(JobId id) const {
    const Job* job = engine::find_job(state_, id);
    return job != nullptr && job->is_active();
  }
  [[nodiscard]] Instant now() const { return now_; }
  [[nodiscard]] const JobSpec& spec(JobId id) const { return *state_.jobs.at(id).spec; }

  // Takes away what the blockers name.
  void remove(JobId id, const sched::Explanation& why) {
    for (const sched::Blocker& blocker : why.blockers) {
      if (blocker.kind == "held") {
        run(ReleaseJobs{{"alice", false}, selector(id)});
      } else if (blocker.kind == "resources") {
        end_all_on(blocker.nodes);
      }
    }
    for (const auto& blocker : why.blockers) {
      if (blocker.kind == "priority" || blocker.kind == "resources") {
        for (const JobId ahead : why.ahead) {
          run(CancelJobs{{"alice", false}, selector(ahead), 0});
        }
      }
    }
    // What was held back by its hold stands in no order and has nothing ahead of it; it may meet others now.
    plan();
  }
  // The job is replaced by one with the change.
  JobId resubmit(JobId id, const sched::SmallerRequest& change) {
    JobSpec s = spec(id);
    const std::uint32_t value =
        change.option == "--time" || change.value.empty() ? 0 : static_cast<std::uint32_t>(std::stoul(change.value));
    if (change.option == "--gpus-per-node") {
      s.gpus_per_node = value;
    } else if (change.option == "--gpus-per-task") {
      s.gpus_per_task = value;
    } else if (change.option == "--gpus") {
      s.gpus = value;
    } else if (change.option == "--cpus-per-task") {
      s.cpus_per_task = value;
    } else if (change.option == "--ntasks") {
      s.ntasks = value;
    } else if (change.option == "--mem") {
      s.mem_per_node_mib = value;
    } else if (change.option == "--exclusive") {
      s.exclusive = false;
    } else if (change.option == "--time") {
      std::int64_t h = 0;
      std::int64_t m = 0;
      std::int64_t sec = 0;
      EXPECT_EQ(std::sscanf(change.value.c_str(), "%ld:%ld:%ld", &h, &m, &sec), 3) << change.value;
      s.time_limit = Duration::from_s(h * 3600 + m * 60 + sec);
    } else {
      ADD_FAILURE() << "unknown option " << change.option;
    }
    // In its place: the changed job has waited as long as the other one.
    const Instant since = state_.jobs.at(id).eligible_time;
    run(CancelJobs{{"alice", false}, selector(id), 0});
    const JobId again = state_.next_job;
    Effects effects;
    engine::apply(state_, Fact{since, JobSubmitted{again, {}, std::make_shared<JobSpec>(s), 0}}, effects);
    plan();
    return again;
  }
  void plan() {
    while (true) {
      sched::Plan p = engine::plan(state_, policy_, {}, now_);
      const bool complete = p.complete;
      if (run(engine::apply_plan(state_, std::move(p))).matched == 0 || complete) {
        return;
      }
    }
  }

 private:
  JobSpec random_spec() {
    JobSpec s;
    s.user = "alice";
    s.name = "job";
    s.work_dir = "/tmp";
    s.cpus_per_task = static_cast<std::uint32_t>(random_.between(1, std::max<std::uint32_t>(1, cores_ / 2)));
    s.ntasks = static_cast<std::uint32_t>(random_.between(1, 4));
    if (random_.permille(300)) {
      s.nodes_min = s.nodes_max = static_cast<std::uint32_t>(random_.between(1, nodes_));
      s.ntasks = std::max(s.ntasks, s.nodes_min);
    }
    if (gpus_ != 0 && random_.permille(400)) {
      s.gpus_per_node = static_cast<std::uint32_t>(random_.between(1, gpus_));
    }
    if (random_.permille(300)) {
      s.mem_per_node_mib = random_.between(1, 8'192);
    }
    s.exclusive = random_.permille(100);
    s.time_limit = Duration::from_s(static_cast<std::int64_t>(random_.between(1, 120)) * 60);
    return s;
  }
  JobId submit(const JobSpec& s) { return run(SubmitJob{{"alice", false}, {}, std::make_shared<JobSpec>(s)}).job; }
  JobId some_job() {
    auto it = state_.jobs.lower_bound(JobId{random_.below(state_.next_job.value)});
    return it == state_.jobs.end() ? state_.jobs.begin()->first : it->first;
  }
  static JobSelector selector(JobId id) {
    JobSelector s;
    s.items.push_back({.id = id, .has_indices = false, .indices = {}});
    return s;
  }
  void end(JobId id) {
    const Job job = state_.jobs.at(id);
    for (const AttemptOnNode& on : std::get<Active>(job.phase).nodes) {
      run(ReportAttempts{state_.nodes[on.share.node.value].name, {AttemptReport{{id, job.attempt}, true, {}}}});
    }
  }
  void end_all_on(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const std::set<JobId> on = state_.jobs_on_node[engine::find_node(state_, name)->index.value];
      for (const JobId id : on) {
        if (runs(id)) {
          end(id);
        }
      }
    }
  }
  engine::Decision run(const Command& c) {
    auto d = engine::decide(state_, policy_, c, now_);
    if (!d.ok()) {
      return {};  // a request that this cluster can never hold
    }
    Effects effects;
    for (const Fact& f : d->facts) {
      engine::apply(state_, f, effects);
    }
    return std::move(*d);
  }

  sim::Random random_;
  engine::State state_;
  sched::Policy policy_;
  Instant now_ = Instant::from_s(1'700'000'000);
  std::uint32_t nodes_ = 0;
  std::uint32_t cores_ = 0;
  std::uint32_t gpus_ = 0;
};

// How often each kind of blocker was seen, and how many changes for now were tried.
struct Seen {
  std::map<std::string, int> kinds;
  int offers = 0;
};

// One random cluster, and what `why` says about each of its waiting jobs.
void expect_true_and_complete(std::uint64_t seed, Seen& seen) {
  World world(seed);
  for (int i = 0; i < kEventsPerRound; ++i) {
    world.event();
  }
  for (const JobId id : world.pending()) {
    SCOPED_TRACE("round seed " + std::to_string(seed) + " job " + std::to_string(id.value));
    const sched::Explanation why = world.explain(id);
    ASSERT_FALSE(why.blockers.empty());
    std::string named;
    for (const sched::Blocker& blocker : why.blockers) {
      named += blocker.kind + ": " + blocker.text + "\n";
      ++seen.kinds[blocker.kind];
    }
    World without = world;
    without.remove(id, why);
    EXPECT_TRUE(without.runs(id)) << named;
    const bool held = why.blockers.front().kind == "held";
    for (const sched::SmallerRequest& change : why.changes) {
      if (held || change.start > world.now()) {
        continue;
      }
      World changed = world;
      EXPECT_TRUE(changed.runs(changed.resubmit(id, change))) << change.option << " " << change.value << "\n" << named;
      ++seen.offers;
    }
  }
}

TEST(Why, WhatItNamesIsAllThatHoldsAJobBack) {
  const std::uint64_t seed = test::first_seed();
  Seen seen;
  for (int round = 0; round < kRounds && !::testing::Test::HasFailure(); ++round) {
    expect_true_and_complete(seed + static_cast<std::uint64_t>(round), seen);
  }
  for (const char* kind : {"held", "resources", "priority"}) {
    EXPECT_GT(seen.kinds[kind], 0) << kind;
  }
  EXPECT_GT(seen.offers, 0);
}

// A pass that only moved promises was followed by one that came to other places: a job that could start then waited
// with nothing to name.
TEST(Why, APassAfterMovedPromisesComesToTheSamePlaces) {
  Seen seen;
  expect_true_and_complete(2284759548, seen);
  EXPECT_GT(seen.kinds["resources"], 0);
}

}  // namespace
}  // namespace muster
