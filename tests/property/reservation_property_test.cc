// Reservations and licences in random clusters with random jobs, cancels, lost nodes and changes of reservations: nothing
// runs where a window that was there before it does not let it, no licence is held twice, replay gives the live state,
// nothing that stands behind a promised job delays it, and what `why` names is all that holds a job back. MUSTER_SEED
// repeats a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "core/engine/engine.h"
#include "sim/random.h"
#include "sim/state_codec.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

constexpr Duration kMinute = Duration::from_s(60);
const std::vector<std::string> kUsers = {"alice", "bob", "carol"};
const std::vector<std::string> kNames = {"r1", "r2", "r3"};

// The windows of a reservation up to an instant, one after the other, by addition alone.
std::vector<Window> windows_until(const Reservation& r, Instant until) {
  std::vector<Window> all;
  for (Instant start = r.start; start < until; start = start + r.every) {
    all.push_back(Window{start, start + r.duration});
    if (r.every == Duration{}) {
      break;
    }
  }
  return all;
}

class World {
 public:
  struct Kind {
    bool calm = false;  // no lost nodes, no changes of reservations, and later jobs stand behind earlier ones
  };

  World(std::uint64_t seed, Kind kind) : random_(seed), kind_(kind) {
    sched::QueuePolicy q;
    q.name = "main";
    q.time_default = Duration::from_s(3600);
    policy_.queues = {q};
    policy_.default_queue = "main";
    policy_.licenses = {{"a", random_.between(1, 4)}, {"b", 1}};
    policy_.rules.promises = static_cast<std::uint32_t>(random_.between(1, 3));
    nodes_ = static_cast<std::uint32_t>(random_.between(1, 4));
    cores_ = static_cast<std::uint32_t>(random_.between(1, 4));
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      register_node(i);
    }
    for (std::uint64_t i = random_.below(3); i > 0; --i) {
      make_reservation();
    }
  }

  // One thing happens, at the latest when something that time alone brings is due.
  void event() {
    const Instant until = now_ + random_.duration(Duration{}, Duration::from_s(900));
    for (auto next = next_due(until); next; next = next_due(until)) {
      now_ = *next;
      end_overdue();
      plan();
    }
    now_ = until;
    const std::uint64_t what = random_.below(1000);
    if (what < 550) {
      submit();
    } else if (what < 750) {
      end_some_job();
    } else if (what < 850) {
      cancel_some_job();
    } else if (kind_.calm) {
      run(Tick{});
    } else if (what < 920) {
      change_reservations();
    } else {
      change_nodes();
    }
    plan();
  }

  void plan() {
    while (true) {
      sched::Plan p = engine::plan(state_, policy_, {}, now_, memory_);
      const bool complete = p.complete;
      const engine::Decision d = run(engine::apply_plan(state_, std::move(p)));
      for (const std::string& note : d.notes) {
        ADD_FAILURE() << "the plan breaks a rule: " << note;
      }
      if (d.matched == 0 || complete) {
        return;
      }
    }
  }

  void check_replay() const {
    engine::State replayed;
    for (const std::string& row : rows_) {
      const Result<Facts> facts = sim::from_journal(row);
      ASSERT_TRUE(facts.ok()) << facts.error().message;
      for (const Fact& fact : *facts) {
        engine::evolve(replayed, fact);
      }
    }
    ASSERT_EQ(replayed, state_);
    const Result<engine::State> loaded = sim::decode_state(sim::encode_state(state_));
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    ASSERT_EQ(*loaded, state_);
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
  [[nodiscard]] const JobSpec& spec(JobId id) const { return *state_.jobs.at(id).spec; }
  [[nodiscard]] Instant now() const { return now_; }

  // Takes away what the blockers name, and then what stands before it.
  void remove(JobId id, const sched::Explanation& why) {
    std::set<JobId> has_start;
    for (const JobId other : pending()) {
      if (explain(other).planned_start) {
        has_start.insert(other);
      }
    }
    for (const sched::Blocker& blocker : why.blockers) {
      if (blocker.kind == "resources") {
        end_where([&](const Job& job) { return holds_any_of(job, blocker.nodes); });
      } else if (blocker.kind == "licenses") {
        end_where([&](const Job& job) { return !job.spec->licenses.empty(); });
      } else if (blocker.kind == "reservation") {
        open_reservation(id, blocker.nodes);
      }
    }
    // Jobs that fit at no time beside the reservations and what runs stand before nobody; when a window or a job is gone
    // sooner than was believed, they may come.
    for (const JobId other : pending()) {
      const bool ahead = std::find(why.ahead.begin(), why.ahead.end(), other) != why.ahead.end();
      if (other != id && (ahead || !has_start.contains(other))) {
        run(CancelJobs{{"root", true}, selector(other), 0});
      }
    }
    plan();
  }

  // The same job with another time limit starts in its place.
  [[nodiscard]] bool starts_with_limit(JobId id, Duration limit) {
    JobSpec s = spec(id);
    s.time_limit = limit;
    const Instant since = state_.jobs.at(id).eligible_time;
    run(CancelJobs{{"root", true}, selector(id), 0});
    const JobId again = state_.next_job;
    Effects effects;
    engine::apply(state_, Fact{since, JobSubmitted{again, {}, std::make_shared<JobSpec>(s), 0}}, effects);
    memory_ = {};
    plan();
    return runs(again);
  }

  std::map<std::string, int> seen;  // how often what was met, so that the test shows something

 private:
  void register_node(std::uint32_t i) {
    NodeRegistration r;
    r.name = "n" + std::to_string(i + 1);
    r.boot_id = "boot";
    r.hardware.mem_mib = 8'192;
    for (std::uint32_t c = 0; c < cores_; ++c) {
      r.hardware.cores.push_back(Core{.package = 0, .numa = 0, .threads = IndexSet::range(c, 1)});
    }
    const Node* known = engine::find_node(state_, r.name);
    // It still has what it had.
    if (known != nullptr) {
      for (const JobId id : state_.jobs_on_node[known->index.value]) {
        r.attempts.push_back(AttemptReport{{id, state_.jobs.at(id).attempt}, false, {}});
      }
    }
    run(RegisterNode{r});
  }

  // The next instant, not behind `until`, at which an attempt ends by its limit, a window begins or ends, or a promise is
  // due.
  [[nodiscard]] std::optional<Instant> next_due(Instant until) const {
    std::optional<Instant> next;
    const auto consider = [&](Instant at) {
      if (at > now_ && at <= until && (!next || at < *next)) {
        next = at;
      }
    };
    for (const auto& [id, job] : state_.jobs) {
      if (const auto* active = std::get_if<Active>(&job.phase)) {
        consider(active->start_time + job.spec->time_limit);
      } else if (job.promised_start.is_set()) {
        consider(job.promised_start);
      }
    }
    for (const auto& [name, r] : state_.reservations) {
      for (const Window& w : windows_until(r, until + Duration::from_us(1))) {
        consider(w.start);
        consider(w.end);
      }
    }
    return next;
  }

  void end_overdue() {
    end_where([this](const Job& job) {
      const auto* active = std::get_if<Active>(&job.phase);
      return active != nullptr && active->start_time + job.spec->time_limit <= now_;
    });
  }

  template <typename Match>
  void end_where(Match match) {
    std::vector<JobId> ids;
    for (const auto& [id, job] : state_.jobs) {
      if (job.is_active() && match(job)) {
        ids.push_back(id);
      }
    }
    for (const JobId id : ids) {
      end(id);
    }
  }
  bool holds_any_of(const Job& job, const std::vector<std::string>& names) const {
    for (const AttemptOnNode& on : std::get<Active>(job.phase).nodes) {
      if (std::find(names.begin(), names.end(), state_.nodes[on.share.node.value].name) != names.end()) {
        return true;
      }
    }
    return false;
  }
  void end(JobId id) {
    const Job job = state_.jobs.at(id);
    for (const AttemptOnNode& on : std::get<Active>(job.phase).nodes) {
      run(ReportAttempts{state_.nodes[on.share.node.value].name, {AttemptReport{{id, job.attempt}, true, {}}}});
    }
  }

  void submit() {
    JobSpec s;
    s.user = random_.pick(kUsers);
    s.account = random_.permille(500) ? "physics" : "";
    s.name = "job";
    s.work_dir = "/tmp";
    s.cpus_per_task = static_cast<std::uint32_t>(random_.between(1, cores_));
    s.ntasks = static_cast<std::uint32_t>(random_.between(1, 3));
    if (random_.permille(400)) {
      s.nodes_min = s.nodes_max = static_cast<std::uint32_t>(random_.between(1, nodes_));
      s.ntasks = std::max(s.ntasks, s.nodes_min);
    }
    s.exclusive = random_.permille(100);
    s.time_limit = Duration::from_s(static_cast<std::int64_t>(random_.between(1, 90)) * 60);
    if (random_.permille(350)) {
      s.reservation = random_.pick(kNames);
      const auto r = state_.reservations.find(s.reservation);
      if (r != state_.reservations.end()) {
        s.time_limit = std::min(s.time_limit, r->second.duration);
      }
    }
    if (random_.permille(300)) {
      s.licenses.push_back({"a", random_.between(1, policy_.licenses.at("a"))});
    }
    if (random_.permille(150)) {
      s.licenses.push_back({"b", 1});
    }
    s.nice = kind_.calm ? ++submitted_ * 100'000 : 0;
    run(SubmitJob{{s.user, false}, {}, std::make_shared<JobSpec>(std::move(s))});
  }

  JobId some_job() {
    auto it = state_.jobs.lower_bound(JobId{random_.below(state_.next_job.value)});
    return it == state_.jobs.end() ? state_.jobs.begin()->first : it->first;
  }
  void end_some_job() {
    if (!state_.jobs.empty()) {
      if (const JobId id = some_job(); runs(id)) {
        end(id);
      }
    }
  }
  void cancel_some_job() {
    if (!state_.jobs.empty()) {
      if (const JobId id = some_job(); !runs(id)) {
        run(CancelJobs{{"root", true}, selector(id), 0});
      }
    }
  }
  static JobSelector selector(JobId id) {
    JobSelector s;
    s.items.push_back({.id = id, .has_indices = false, .indices = {}});
    return s;
  }

  void make_reservation() {
    MakeReservation c;
    c.caller = {"root", true};
    c.name = random_.pick(kNames);
    c.create = !state_.reservations.contains(c.name);
    c.start = now_ + kMinute + random_.duration(Duration{}, Duration::from_s(7'200));
    c.duration = random_.duration(kMinute, Duration::from_s(5'400));
    c.every = Duration{};
    if (random_.permille(500)) {
      c.every = *c.duration + random_.duration(Duration{}, Duration::from_s(7'200));
    }
    c.maintenance = random_.permille(300);
    c.users = std::vector<std::string>{};
    c.accounts = std::vector<std::string>{};
    if (!*c.maintenance) {
      c.users = std::vector<std::string>{random_.pick(kUsers)};
      if (random_.permille(300)) {
        c.accounts = std::vector<std::string>{"physics"};
      }
    }
    c.ignore_jobs = random_.permille(200);
    if (random_.permille(200)) {
      c.node_count = static_cast<std::uint32_t>(random_.between(1, nodes_));
    } else {
      std::vector<std::string> names;
      for (std::uint64_t i = random_.between(1, nodes_); i > 0; --i) {
        names.push_back("n" + std::to_string(random_.between(1, nodes_)));
      }
      c.nodes = std::move(names);
    }
    run(c);
  }
  void change_reservations() {
    if (random_.permille(700) || state_.reservations.empty()) {
      make_reservation();
    } else {
      run(RemoveReservation{{"root", true}, random_.pick(kNames), random_.permille(700)});
    }
  }

  void change_nodes() {
    const auto i = static_cast<std::uint32_t>(random_.below(nodes_));
    const std::string name = "n" + std::to_string(i + 1);
    switch (random_.below(4)) {
      case 0:
        run(LoseNode{NodeIndex{i}});
        break;
      case 1:
        run(DrainNodes{{"root", true}, {name}, "test"});
        break;
      default:
        run(ResumeNodes{{"root", true}, {name}});
        register_node(i);
        break;
    }
  }
  void resume_all() {
    for (std::uint32_t i = 0; i < nodes_; ++i) {
      run(ResumeNodes{{"root", true}, {"n" + std::to_string(i + 1)}});
      register_node(i);
    }
  }

  // What a reservation keeps from the job is given to it: those of others go, its own one is open for it.
  void open_reservation(JobId id, const std::vector<std::string>& nodes) {
    const JobSpec& s = spec(id);
    if (s.reservation.empty()) {
      for (const std::string& name : kNames) {
        const auto r = state_.reservations.find(name);
        const bool named = r != state_.reservations.end() &&
                           std::any_of(r->second.nodes.begin(), r->second.nodes.end(), [&](const std::string& node) {
                             return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
                           });
        if (named) {
          run(RemoveReservation{{"root", true}, name, true});
        }
      }
      return;
    }
    MakeReservation c;
    c.caller = {"root", true};
    c.name = s.reservation;
    c.create = !state_.reservations.contains(c.name);
    c.start = now_;
    c.duration = s.time_limit;
    c.every = Duration{};
    c.users = std::vector<std::string>{s.user};
    c.accounts = std::vector<std::string>{};
    c.maintenance = false;
    c.ignore_jobs = true;
    for (const std::string& other : kNames) {
      if (other != c.name) {
        run(RemoveReservation{{"root", true}, other, true});
      }
    }
    c.nodes = std::vector<std::string>{"ALL"};
    run(c);
    // What runs on the nodes that it has now.
    resume_all();
    end_where([](const Job&) { return true; });
  }

  engine::Decision run(const Command& c) {
    auto d = engine::decide(state_, policy_, c, now_);
    if (!d.ok()) {
      EXPECT_FALSE(d.error().message.empty());
      ++seen["refused"];
      return {};
    }
    for (const Fact& f : d->facts) {
      look_at(f);
      Effects effects;
      engine::apply(state_, f, effects);
    }
    if (!d->facts.empty()) {
      std::string row;
      const Result<Facts> back = sim::through_journal(d->facts, row);
      EXPECT_TRUE(back.ok() && *back == d->facts);
      rows_.push_back(std::move(row));
      const std::vector<std::string> wrong = engine::check_invariants(state_);
      EXPECT_TRUE(wrong.empty()) << wrong.front();
      check_licenses();
    }
    return std::move(*d);
  }

  // With the state as it is before the fact.
  void look_at(const Fact& f) {
    if (const auto* started = std::get_if<AttemptStarted>(&f.body)) {
      check_start(*started);
    } else if (std::holds_alternative<ReservationMade>(f.body)) {
      ++seen["reservation made"];
    }
  }

  void check_start(const AttemptStarted& f) {
    const JobSpec& s = spec(f.job);
    const Instant end = now_ + s.time_limit;
    for (const auto& [name, r] : state_.reservations) {
      for (const NodeShare& share : f.shares) {
        const std::string& node = state_.nodes[share.node.value].name;
        const bool has = std::find(r.nodes.begin(), r.nodes.end(), node) != r.nodes.end();
        const bool own = name == s.reservation;
        EXPECT_TRUE(!own || has) << "job " << f.job.value << " runs outside of its reservation's nodes";
        if (!has) {
          continue;
        }
        bool inside = false;
        for (const Window& w : windows_until(r, end)) {
          const bool meets = w.start < end && now_ < w.end;
          EXPECT_TRUE(own || !meets) << "job " << f.job.value << " runs on " << node << " in a window of " << name;
          inside = inside || (w.start <= now_ && now_ < w.end && end <= w.end + sched::kWindowSlack) ||
                   (r.every == r.duration && r.start <= now_);
        }
        EXPECT_TRUE(!own || inside) << "job " << f.job.value << " runs outside of a window of " << name;
        EXPECT_FALSE(own && (r.maintenance || !admits(r, s.user, s.account)));
        seen["started in a reservation"] += own ? 1 : 0;
      }
    }
    EXPECT_TRUE(s.reservation.empty() || state_.reservations.contains(s.reservation));
    seen["started with licences"] += s.licenses.empty() ? 0 : 1;
    ++seen["started"];
    seen["promised"] += state_.jobs.at(f.job).promised_start.is_set() ? 1 : 0;
    if (kind_.calm) {
      check_promises(f);
    }
  }

  // When the next pass starts or promises to start each job.
  [[nodiscard]] std::map<JobId, Instant> starts_in(const engine::State& state) const {
    std::map<JobId, Instant> starts;
    const sched::Plan p = engine::plan(state, policy_, {}, now_);
    for (const Placement& placement : p.placements) {
      starts.emplace(placement.job, now_);
    }
    for (const sched::Promise& promise : p.promises) {
      starts.emplace(promise.job, promise.start);
    }
    return starts;
  }

  // No job that stands before it, which in calm rounds is every older one, is later than was promised because of this
  // start.
  void check_promises(const AttemptStarted& f) {
    engine::State with = state_;
    engine::State without = state_;
    Effects effects;
    engine::apply(with, Fact{now_, f}, effects);
    const auto cancel = engine::decide(without, policy_, CancelJobs{{"root", true}, selector(f.job), 0}, now_);
    ASSERT_TRUE(cancel.ok());
    for (const Fact& fact : cancel->facts) {
      engine::apply(without, fact, effects);
    }
    const std::map<JobId, Instant> starts_with = starts_in(with);
    const std::map<JobId, Instant> starts_without = starts_in(without);
    for (const auto& [id, other] : state_.jobs) {
      if (id == f.job) {
        return;
      }
      const auto was = starts_without.find(id);
      if (!other.promised_start.is_set() || was == starts_without.end() || was->second > other.promised_start) {
        continue;
      }
      ++seen["start behind a promise"];
      const auto is = starts_with.find(id);
      EXPECT_TRUE(is != starts_with.end() && is->second <= other.promised_start)
          << "job " << f.job.value << " delays job " << id.value << ", which stands before it and was promised a start";
    }
  }
  void check_licenses() {
    std::map<std::string, std::uint64_t> held;
    for (const auto& [id, job] : state_.jobs) {
      for (const LicenseCount& one : job.spec->licenses) {
        held[one.name] += job.is_active() ? one.count : 0;
      }
    }
    for (const auto& [name, count] : held) {
      EXPECT_LE(count, policy_.licenses.at(name)) << "licence " << name << " is held twice";
      EXPECT_EQ(count, state_.licenses.used(name));
      seen["all of a licence held"] += count == policy_.licenses.at(name) ? 1 : 0;
    }
  }

  sim::Random random_;
  Kind kind_;
  engine::State state_;
  sched::Policy policy_;
  sched::PlanMemory memory_;
  std::vector<std::string> rows_;
  Instant now_ = Instant::from_s(1'700'000'000);
  std::uint32_t nodes_ = 0;
  std::uint32_t cores_ = 0;
  std::int32_t submitted_ = 0;
};

void add(std::map<std::string, int>& total, const std::map<std::string, int>& one) {
  for (const auto& [what, count] : one) {
    total[what] += count;
  }
}

TEST(Reservations, NothingRunsWhereAWindowDoesNotLetItAndNoLicenceIsHeldTwice) {
  const std::uint64_t seed = test::first_seed();
  std::map<std::string, int> seen;
  for (std::uint64_t round = 0; round < 1'000 && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round seed " + std::to_string(seed + round));
    World world(seed + round, {});
    for (int i = 0; i < 60 && !::testing::Test::HasFailure(); ++i) {
      world.event();
    }
    world.check_replay();
    add(seen, world.seen);
  }
  for (const char* what : {"started", "started in a reservation", "started with licences", "all of a licence held",
                           "reservation made", "promised", "refused"}) {
    EXPECT_GT(seen[what], 100) << what;
  }
}

// A job that filled a gap on a node made the first of two promised jobs move to this node in the next pass, since it was
// the tightest one now, and the second one had to wait for it.
TEST(Reservations, APromisedJobDoesNotMoveToThePlaceOfTheNext) {
  World world(268, {.calm = true});
  for (int i = 0; i < 60 && !::testing::Test::HasFailure(); ++i) {
    world.event();
  }
}

TEST(Reservations, PromisesHoldBesideWindowsAndLicences) {
  const std::uint64_t seed = test::first_seed();
  std::map<std::string, int> seen;
  for (std::uint64_t round = 0; round < 1'000 && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round seed " + std::to_string(seed + round));
    World world(seed + round, {.calm = true});
    for (int i = 0; i < 60 && !::testing::Test::HasFailure(); ++i) {
      world.event();
    }
    add(seen, world.seen);
  }
  for (const char* what : {"started in a reservation", "started with licences", "start behind a promise"}) {
    EXPECT_GT(seen[what], 100) << what;
  }
}

TEST(Reservations, WhatWhyNamesIsAllThatHoldsAJobBack) {
  const std::uint64_t seed = test::first_seed();
  std::map<std::string, int> kinds;
  int limits = 0;
  for (std::uint64_t round = 0; round < 400 && !::testing::Test::HasFailure(); ++round) {
    World world(seed + round, {});
    for (int i = 0; i < 50 && !::testing::Test::HasFailure(); ++i) {
      world.event();
    }
    for (const JobId id : world.pending()) {
      SCOPED_TRACE("round seed " + std::to_string(seed + round) + " job " + std::to_string(id.value));
      const sched::Explanation why = world.explain(id);
      EXPECT_FALSE(why.blockers.empty());
      if (std::any_of(why.blockers.begin(), why.blockers.end(), [](const auto& b) { return b.kind == "nodes"; })) {
        continue;  // when the nodes are back, jobs come that nobody planned
      }
      std::string named;
      for (const sched::Blocker& blocker : why.blockers) {
        named += blocker.kind + ": " + blocker.text + "\n";
        ++kinds[blocker.kind];
      }
      World without = world;
      without.remove(id, why);
      std::string still;
      if (!without.runs(id)) {
        for (const sched::Blocker& b : without.explain(id).blockers) still += b.kind + ": " + b.text + "\n";
      }
      EXPECT_TRUE(without.runs(id)) << named << "still:\n" << still;
      for (const sched::SmallerRequest& change : why.changes) {
        if (change.option == "--time" && change.start <= world.now()) {
          std::int64_t h = 0;
          std::int64_t m = 0;
          std::int64_t s = 0;
          ASSERT_EQ(std::sscanf(change.value.c_str(), "%ld:%ld:%ld", &h, &m, &s), 3) << change.value;
          World changed = world;
          EXPECT_TRUE(changed.starts_with_limit(id, Duration::from_s(h * 3600 + m * 60 + s))) << change.value << "\n"
                                                                                              << named;
          ++limits;
        }
      }
    }
  }
  for (const char* kind : {"reservation", "licenses", "resources", "priority"}) {
    EXPECT_GT(kinds[kind], 0) << kind;
  }
  EXPECT_GT(limits, 0);
}

}  // namespace
}  // namespace muster
