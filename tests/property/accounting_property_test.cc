// Random accounts, users, QOS, limits and jobs: no limit is ever exceeded by a start, the counts agree with the records,
// replaying the journal's bytes gives the live state and what was used, a snapshot too, and raising what `why` names lets
// the job start. MUSTER_SEED repeats a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "sim/random.h"
#include "sim/state_codec.h"
#include "tests/support/seed.h"

namespace muster {
namespace {

constexpr int kRounds = 1'000;
constexpr int kEventsPerRound = 80;

const Caller kAdmin{"root", true};

class World {
 public:
  explicit World(std::uint64_t seed) : random_(seed) {
    sched::QueuePolicy main;
    main.name = "main";
    main.time_default = Duration::from_s(3600);
    sched::QueuePolicy urgent = main;
    urgent.name = "urgent";
    urgent.priority = 5;
    policy_.queues = {main, urgent};
    policy_.default_queue = "main";
    const auto nodes = static_cast<std::uint32_t>(random_.between(1, 4));
    cores_ = static_cast<std::uint32_t>(random_.between(2, 8));
    gpus_ = static_cast<std::uint32_t>(random_.below(4));
    for (std::uint32_t i = 0; i < nodes; ++i) {
      register_node("n" + std::to_string(i + 1));
    }
    run(ConfigureBilling{{.cpu = static_cast<std::uint32_t>(random_.below(300)),
                          .gpu = static_cast<std::uint32_t>(random_.below(3000)),
                          .memory_gib = static_cast<std::uint32_t>(random_.below(50)),
                          .half_life = Duration::from_s(static_cast<std::int64_t>(random_.below(86'400)))}});
    define();
    for (int i = 0; i < 6; ++i) {
      administrate();
    }
  }

  void event() {
    now_ = now_ + Duration::from_ms(static_cast<std::int64_t>(random_.below(400'000)));
    if (random_.permille(550)) {
      submit();
    } else if (random_.permille(150)) {
      administrate();
    } else if (!state_.jobs.empty()) {
      change_job();
    }
    plan();
  }

  void check() const {
    const std::vector<std::string> wrong = engine::check_invariants(state_);
    ASSERT_TRUE(wrong.empty()) << wrong.front();
    engine::State replayed;
    for (const std::string& row : rows_) {
      const Result<Facts> facts = sim::from_journal(row);
      ASSERT_TRUE(facts.ok()) << facts.error().message;
      for (const Fact& fact : *facts) engine::evolve(replayed, fact);
    }
    ASSERT_EQ(sim::encode_state(replayed), sim::encode_state(state_));
    ASSERT_EQ(replayed, state_);
    const Result<engine::State> loaded = sim::decode_state(sim::encode_state(state_));
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    ASSERT_EQ(*loaded, state_);
    // The parts of what was used are never more than the whole, but for roundings.
    for (const auto& [name, account] : state_.accounts.accounts()) {
      const sched::Uint128 part = state_.accounts.used(name, "", now_);
      ASSERT_LE(part, state_.accounts.used("", "", now_) + sched::kUseUnitsPerCpuSecond);
    }
  }

  [[nodiscard]] std::vector<JobId> pending() const {
    std::vector<JobId> ids;
    for (const auto& [id, array] : state_.arrays) {
      if (!array.waiting.empty()) ids.push_back(id);
    }
    for (const auto& [id, job] : state_.jobs) {
      if (!job.is_active()) ids.push_back(id);
    }
    return ids;
  }
  [[nodiscard]] const Job& record(JobId id) const {
    const Job* array = engine::find_array(state_, id);
    return array != nullptr ? *array : state_.jobs.at(id);
  }
  [[nodiscard]] sched::Explanation explain(JobId id) const {
    return engine::Explainer(state_, policy_, now_).explain(record(id));
  }
  // Of an array: another of its tasks has started.
  [[nodiscard]] bool has_started(JobId id, std::uint64_t waiting_before) const {
    const Job* array = engine::find_array(state_, id);
    if (array != nullptr) return waiting(*array) < waiting_before;
    const Job* job = engine::find_job(state_, id);
    return job != nullptr && job->is_active();
  }
  static std::uint64_t waiting(const Job& job) {
    std::uint64_t n = 0;
    for (const PositionRange& r : job.waiting) n += r.end - r.begin;
    return n;
  }

  // Takes away what the blockers name, and the jobs that stand before it and would take the room.
  void remove(JobId id, const sched::Explanation& why) {
    bool nodes_too = false;
    for (const sched::Blocker& b : why.blockers) {
      if (b.kind == "limit") {
        raise(b.text);
      } else if (b.kind == "held") {
        run(ReleaseJobs{kAdmin, selector(id)});
      } else if (b.kind == "resources" || b.kind == "priority") {
        nodes_too = true;
        end_all_on(b.nodes);
      }
    }
    for (const JobId other : pending()) {
      if (other == id) continue;
      const bool competes = std::any_of(why.blockers.begin(), why.blockers.end(),
                                        [](const sched::Blocker& b) { return b.kind == "limit" || b.kind == "held"; });
      const bool ahead = std::find(why.ahead.begin(), why.ahead.end(), other) != why.ahead.end();
      if (competes || (nodes_too && ahead)) run(CancelJobs{kAdmin, selector(other), 0});
    }
    plan();
  }

  void plan() {
    while (true) {
      sched::Plan p = engine::plan(state_, policy_, {}, now_);
      const bool complete = p.complete;
      const engine::Decision decision = run(engine::apply_plan(state_, std::move(p)));
      // The planner and the check at the start go by the same rules.
      ASSERT_TRUE(decision.notes.empty()) << decision.notes.front();
      check_limits(decision);
      if (decision.matched == 0 || complete) return;
    }
  }
  [[nodiscard]] int starts_checked() const { return starts_checked_; }

 private:
  // ---------------------------------------------------------------- limits, from the records alone

  struct Sum {
    std::uint64_t jobs = 0, cpus = 0, gpus = 0, nodes = 0;
    sched::Uint128 cpu_us = 0;
    bool endless = false;
  };
  [[nodiscard]] bool is_below(const std::string& account, const std::string& top) const {
    std::string name = account;
    for (int i = 0; i < 50; ++i) {
      if (name == top) return true;
      const Account* a = state_.accounts.account(name);
      if (a == nullptr || a->parent.empty()) return false;
      name = a->parent;
    }
    return false;
  }
  template <typename Counts>
  [[nodiscard]] Sum sum(Counts counts) const {
    Sum s;
    for (const auto& [id, job] : state_.jobs) {
      const auto* active = std::get_if<Active>(&job.phase);
      if (active == nullptr || !counts(*job.spec)) continue;
      ++s.jobs;
      for (const AttemptOnNode& on : active->nodes) {
        if (on.phase == NodePhase::kEnded) continue;
        ++s.nodes;
        s.cpus += on.share.cores.count();
        s.gpus += on.share.gpus.count();
        // What is being stopped is believed to be gone soon.
        const Instant end = sched::believed_end(*active);
        s.endless = s.endless || end == sched::end_of(Instant{}, Duration::infinite());
        if (end > now_)
          s.cpu_us += sched::Uint128{on.share.cores.count()} * static_cast<std::uint64_t>((end - now_).us);
      }
    }
    return s;
  }
  void expect_within(const UseLimits& limits, const Sum& s, const std::string& what) const {
    const auto within = [&](const std::optional<std::uint64_t>& limit, std::uint64_t used, const char* key) {
      if (limit) {
        ASSERT_LE(used, *limit) << what << " " << key;
      }
    };
    within(limits.jobs, s.jobs, "jobs");
    within(limits.cpus, s.cpus, "cpus");
    within(limits.gpus, s.gpus, "gpus");
    within(limits.nodes, s.nodes, "nodes");
    if (limits.cpu_minutes) {
      ASSERT_FALSE(s.endless) << what;
      ASSERT_LE(static_cast<double>(s.cpu_us), static_cast<double>(*limits.cpu_minutes) * 60e6)
          << what << " cpu_minutes";
    }
  }
  // Whoever had a job started is within the limits afterwards. (A limit that was lowered below what runs already is
  // exceeded, but nothing starts under it, except what uses none of what it limits.)
  void check_limits(const engine::Decision& decision) {
    for (const Fact& fact : decision.facts) {
      const auto* started = std::get_if<AttemptStarted>(&fact.body);
      if (started == nullptr) continue;
      ++starts_checked_;
      const JobSpec spec = *state_.jobs.at(started->job).spec;
      const bool gpus = std::any_of(started->shares.begin(), started->shares.end(),
                                    [](const NodeShare& s) { return !s.gpus.empty(); });
      const auto within = [&](UseLimits limits, auto counts, const std::string& what) {
        if (!gpus) limits.gpus.reset();
        expect_within(limits, sum(counts), what);
      };
      const User* user = state_.accounts.user(spec.user);
      if (const Association* a = user == nullptr ? nullptr : user->association(spec.account)) {
        within(
            a->all, [&](const JobSpec& s) { return s.user == spec.user && s.account == spec.account; }, "user");
      }
      for (const auto& [name, account] : state_.accounts.accounts()) {
        if (!is_below(spec.account, name)) continue;
        within(
            account.all, [&](const JobSpec& s) { return is_below(s.account, name); }, "account " + name);
        within(
            account.per_user, [&](const JobSpec& s) { return s.user == spec.user && is_below(s.account, name); },
            "each user in " + name);
      }
      if (const Qos* q = state_.accounts.qos(spec.qos)) {
        within(
            q->all, [&](const JobSpec& s) { return s.qos == spec.qos; }, "qos");
        within(
            q->per_user, [&](const JobSpec& s) { return s.qos == spec.qos && s.user == spec.user; }, "qos user");
        if (!spec.account.empty()) {
          within(
              q->per_account, [&](const JobSpec& s) { return s.qos == spec.qos && s.account == spec.account; },
              "qos account");
        }
      }
    }
  }

  // "...: muster account modify physics user.cpus=12 would allow it"
  void raise(const std::string& text) {
    const auto from = text.find(": muster ");
    const auto to = text.rfind(" would allow it");
    ASSERT_TRUE(from != std::string::npos && to != std::string::npos) << text;
    std::vector<std::string> words;
    std::string word;
    for (const char c : text.substr(from + 9, to - from - 9) + " ") {
      if (c == ' ') {
        words.push_back(word);
        word.clear();
      } else {
        word += c;
      }
    }
    ASSERT_GE(words.size(), 4U) << text;
    ASSERT_EQ(words[1], "modify");
    ChangeAccounting change{.caller = kAdmin,
                            .kind = words[0] == "account" ? AccountingKind::kAccount
                                    : words[0] == "user"  ? AccountingKind::kUser
                                                          : AccountingKind::kQos,
                            .verb = AccountingVerb::kModify,
                            .name = words[2]};
    for (std::size_t i = 3; i < words.size(); ++i) {
      const auto equals = words[i].find('=');
      ASSERT_NE(equals, std::string::npos) << text;
      change.settings.push_back({words[i].substr(0, equals), words[i].substr(equals + 1)});
    }
    const auto decision = engine::decide(state_, policy_, change, now_);
    ASSERT_TRUE(decision.ok()) << text << "\n" << decision.error().message;
    run(change);
  }

  // ---------------------------------------------------------------- random things

  std::string account_name() { return "a" + std::to_string(random_.below(6)); }
  std::string user_name() { return "u" + std::to_string(random_.below(4)); }
  std::string qos_name() { return "q" + std::to_string(random_.below(3)); }

  AccountingSetting some_limit(const std::vector<std::string>& prefixes) {
    const std::string prefix = random_.pick(prefixes);
    if (prefix == "job.") {
      const std::string key = random_.pick(std::vector<std::string>{"cpus", "nodes", "gpus", "time"});
      if (random_.permille(500)) return {prefix + key, ""};
      return {prefix + key,
              key == "time" ? std::to_string(random_.between(10, 200)) : std::to_string(random_.between(1, 12))};
    }
    const std::string key =
        random_.pick(std::vector<std::string>{"jobs", "cpus", "gpus", "nodes", "cpu_minutes", "pending"});
    if (random_.permille(300)) return {prefix + key, ""};
    const std::uint64_t value = key == "cpu_minutes" ? random_.between(30, 2'000)
                                : key == "pending"   ? random_.between(5, 40)
                                                     : random_.between(2, 14);
    return {prefix + key, std::to_string(value)};
  }

  // A tree of accounts, users in two of them each, and QOS; some are missing.
  void define() {
    for (int i = 0; i < 6; ++i) {
      std::vector<AccountingSetting> settings;
      if (i > 0 && random_.permille(600)) {
        settings.push_back({"parent", "a" + std::to_string(random_.below(static_cast<std::uint64_t>(i)))});
      }
      if (random_.permille(900)) add(AccountingKind::kAccount, "a" + std::to_string(i), settings);
    }
    for (int i = 0; i < 4; ++i) {
      for (int k = 0; k < 2; ++k) {
        add(AccountingKind::kUser, "u" + std::to_string(i), {{"account", account_name()}});
      }
    }
    for (int i = 0; i < 3; ++i) {
      if (random_.permille(900)) add(AccountingKind::kQos, "q" + std::to_string(i), {});
    }
  }
  void add(AccountingKind kind, const std::string& name, const std::vector<AccountingSetting>& settings) {
    run(ChangeAccounting{
        .caller = kAdmin, .kind = kind, .verb = AccountingVerb::kAdd, .name = name, .settings = settings});
  }

  void administrate() {
    ChangeAccounting c{.caller = kAdmin,
                       .kind = static_cast<AccountingKind>(random_.below(3)),
                       .verb = random_.permille(600)   ? AccountingVerb::kModify
                               : random_.permille(800) ? AccountingVerb::kAdd
                                                       : AccountingVerb::kDelete,
                       .name = {}};
    const bool sets = c.verb != AccountingVerb::kDelete;
    switch (c.kind) {
      case AccountingKind::kAccount:
        c.name = account_name();
        if (sets && random_.permille(500))
          c.settings.push_back({"parent", random_.permille(700) ? account_name() : ""});
        if (sets && random_.permille(500)) c.settings.push_back({"shares", std::to_string(random_.below(5))});
        if (sets && random_.permille(100)) c.settings.push_back({"default_qos", qos_name()});
        if (sets && random_.permille(600)) c.settings.push_back(some_limit({"", "user.", "job."}));
        break;
      case AccountingKind::kUser:
        c.name = user_name();
        if (random_.permille(800)) c.settings.push_back({"account", account_name()});
        if (sets && random_.permille(500)) c.settings.push_back({"shares", std::to_string(random_.below(5))});
        if (sets && random_.permille(600)) c.settings.push_back(some_limit({"", "job."}));
        break;
      case AccountingKind::kQos:
        c.name = qos_name();
        if (sets && random_.permille(400)) c.settings.push_back({"priority", std::to_string(random_.below(20))});
        if (sets && random_.permille(300)) c.settings.push_back({"usage_factor", std::to_string(random_.below(300))});
        if (sets && random_.permille(200)) c.settings.push_back({"preempts", qos_name()});
        if (sets && random_.permille(600)) c.settings.push_back(some_limit({"", "user.", "account.", "job."}));
        break;
    }
    run(c);
  }

  void submit() {
    JobSpec s;
    s.user = user_name();
    s.name = "job";
    s.work_dir = "/tmp";
    if (random_.permille(700)) s.account = account_name();
    if (random_.permille(500)) s.qos = qos_name();
    if (random_.permille(100)) s.queue = "urgent";
    s.cpus_per_task = static_cast<std::uint32_t>(random_.between(1, std::max<std::uint32_t>(1, cores_ / 2)));
    s.ntasks = static_cast<std::uint32_t>(random_.between(1, 4));
    if (gpus_ != 0 && random_.permille(400)) s.gpus_per_node = static_cast<std::uint32_t>(random_.between(1, gpus_));
    s.exclusive = random_.permille(100);
    s.time_limit = Duration::from_s(static_cast<std::int64_t>(random_.between(1, 120)) * 60);
    if (random_.permille(30)) s.time_limit = Duration::infinite();
    if (random_.permille(150)) {
      s.array = ArraySpec{{{0, random_.between(1, 6), 1}}, random_.below(4)};
    }
    run(SubmitJob{{s.user, false}, {}, std::make_shared<JobSpec>(s)});
  }

  void change_job() {
    auto it = state_.jobs.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(state_.jobs.size())));
    const JobId id = it->first;
    if (it->second.is_active()) {
      if (random_.permille(150)) {
        run(CancelJobs{kAdmin, selector(id), 0});
      } else {
        end(id, random_.permille(300));
      }
    } else if (random_.permille(300)) {
      run(CancelJobs{kAdmin, selector(id), 0});
    } else if (random_.permille(500)) {
      run(HoldJobs{kAdmin, selector(id)});
    } else {
      run(ReleaseJobs{kAdmin, selector(id)});
    }
  }

  void register_node(const std::string& name) {
    NodeRegistration r;
    r.name = name;
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
  static JobSelector selector(JobId id) {
    JobSelector s;
    s.items.push_back({.id = id, .has_indices = false, .indices = {}});
    return s;
  }
  // On all its nodes, or only on some of them.
  void end(JobId id, bool some = false) {
    const Job job = state_.jobs.at(id);
    for (const AttemptOnNode& on : std::get<Active>(job.phase).nodes) {
      if (some && random_.permille(500)) continue;
      run(ReportAttempts{state_.nodes[on.share.node.value].name, {AttemptReport{{id, job.attempt}, true, {}}}});
    }
  }
  void end_all_on(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const std::set<JobId> on = state_.jobs_on_node[engine::find_node(state_, name)->index.value];
      for (const JobId id : on) {
        const Job* job = engine::find_job(state_, id);
        if (job != nullptr && job->is_active()) end(id);
      }
    }
  }
  engine::Decision run(const Command& c) {
    auto d = engine::decide(state_, policy_, c, now_);
    if (!d.ok()) {
      EXPECT_FALSE(d.error().message.empty());
      return {};
    }
    Effects effects;
    for (const Fact& f : d->facts) {
      engine::apply(state_, f, effects);
    }
    if (!d->facts.empty()) {
      rows_.emplace_back();
      const Result<Facts> back = sim::through_journal(d->facts, rows_.back());
      EXPECT_TRUE(back.ok() && *back == d->facts);
    }
    return std::move(*d);
  }

  sim::Random random_;
  engine::State state_;
  sched::Policy policy_;
  std::vector<std::string> rows_;
  Instant now_ = Instant::from_s(1'700'000'000);
  std::uint32_t cores_ = 0;
  std::uint32_t gpus_ = 0;
  int starts_checked_ = 0;
};

TEST(AccountingProperty, LimitsHoldReplayIsEqualAndWhyIsRight) {
  const std::uint64_t seed = test::first_seed();
  int limited = 0;
  int starts = 0;
  std::map<std::string, int> words;
  for (int round = 0; round < kRounds && !testing::Test::HasFailure(); ++round) {
    const std::uint64_t round_seed = seed + static_cast<std::uint64_t>(round);
    SCOPED_TRACE("MUSTER_SEED=" + std::to_string(round_seed) + ", its first round");
    World world(round_seed);
    for (int i = 0; i < kEventsPerRound && !testing::Test::HasFailure(); ++i) {
      world.event();
      if (i % 20 == 19) world.check();
    }
    starts += world.starts_checked();
    for (const JobId id : world.pending()) {
      if (testing::Test::HasFailure()) break;
      const sched::Explanation why = world.explain(id);
      std::string named;
      bool has_limit = false;
      bool unmovable = false;  // what this test cannot take away
      for (const sched::Blocker& b : why.blockers) {
        named += b.kind + ": " + b.word + ": " + b.text + "\n";
        has_limit = has_limit || b.kind == "limit";
        unmovable = unmovable || b.kind == "array_limit" || b.text.find("without a time limit") != std::string::npos;
        if (b.kind == "limit") ++words[b.word];
      }
      if (!has_limit || unmovable) continue;
      ++limited;
      World without = world;
      const std::uint64_t waiting = World::waiting(world.record(id));
      without.remove(id, why);
      std::string still;
      if (!without.has_started(id, waiting)) {
        for (const sched::Blocker& b : without.explain(id).blockers) still += b.kind + ": " + b.text + "\n";
      }
      EXPECT_TRUE(without.has_started(id, waiting)) << "job " << id.value << "\n" << named << "still:\n" << still;
    }
  }
  std::cout << starts << " starts checked, " << limited << " jobs freed from limits:";
  for (const auto& [word, count] : words) std::cout << " " << word << "=" << count;
  std::cout << "\n";
  EXPECT_GT(starts, 5'000);
  EXPECT_GT(limited, 200);
  EXPECT_GE(words.size(), 8U);
}

}  // namespace
}  // namespace muster
