#include "sim/world.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/engine/dependency.h"
#include "lib/base/text.h"
#include "sim/checks.h"
#include "sim/client.h"
#include "sim/controller.h"
#include "sim/link.h"
#include "sim/node.h"
#include "sim/random.h"
#include "sim/state_codec.h"
#include "sim/store.h"
#include "sim/timeline.h"

namespace muster::sim {
namespace {

constexpr Instant kStart = Instant::from_s(1'700'000'000);
// The calm end must come to rest within this many events: far above what any of the first 5,000 seeds needed.
constexpr std::uint64_t kCalmStepsMax = 300'000;
constexpr std::uint64_t kWarmUpStepsMax = 20'000;
constexpr std::uint64_t kStepsPerAudit = 500;  // between looks for lost jobs, which cost more

// How long on average between two faults of a kind, and how long they last at most; zero: never in this run. Each run
// draws its own, so that some runs show one kind alone and others all of them at once.
struct Fault {
  Duration between;
  Duration lasts_max;
};

sched::Policy draw_policy(Random& random, std::uint32_t nodes) {
  sched::Policy policy;
  sched::QueuePolicy batch;
  batch.name = "batch";
  batch.priority = 10;
  batch.time_default = Duration::from_s(60);
  sched::QueuePolicy low = batch;
  low.name = "low";
  low.priority = 1;
  if (random.permille(300)) {
    for (std::uint32_t i = 1; i <= nodes; ++i) {
      if (i == 1 || random.permille(600)) low.nodes.push_back("n" + std::to_string(i));
    }
  }
  low.spread = random.permille(300);
  if (random.permille(500)) policy.sites = random_sites(random, nodes);
  if (random.permille(600)) {
    low.preempt_mode = static_cast<sched::PreemptMode>(random.between(1, 4));
    if (low.preempt_mode == sched::PreemptMode::kSuspend) {
      batch.mem_per_cpu_mib = low.mem_per_cpu_mib = 128;  // so that others fit beside what stands still
    }
    if (random.permille(300)) low.preempt_grace = Duration::from_ms(static_cast<std::int64_t>(random.below(3'000)));
    if (random.permille(300)) low.preempt_exempt = Duration::from_s(static_cast<std::int64_t>(random.below(5)));
  }
  policy.queues = {batch, low};
  policy.default_queue = "batch";
  if (random.permille(500)) policy.licenses = {{"seat", random.between(1, 3)}};
  // Longer than any client of a run goes on asking, and short enough to be seen.
  policy.request_memory = Duration::from_s(600);
  if (random.permille(500)) {
    policy.node_faults_max = static_cast<std::uint32_t>(random.between(1, 4));
    policy.node_failures_max = static_cast<std::uint32_t>(random.between(1, 3));
    policy.node_rest = Duration::from_s(2);
    policy.node_suspect_time = Duration::from_s(60);
  }
  return policy;
}

LinkOptions draw_link(Random& random) {
  LinkOptions options;
  if (random.permille(500)) {
    options.double_permille = random.below(200);
    options.overtake_permille = random.below(300);
    options.outlive_permille = random.below(1000);
    options.linger_permille = random.below(1000);
  }
  if (random.permille(200)) options.delay_max = Duration::from_ms(200);
  return options;
}

class World {
 public:
  explicit World(const WorldOptions& options)
      : options_(options),
        random_(options.seed),
        timeline_(kStart),
        node_count_(options.nodes != 0 ? options.nodes : static_cast<std::uint32_t>(random_.between(1, 5))),
        cores_max_(static_cast<std::uint32_t>(random_.between(1, 8))),
        policy_(draw_policy(random_, node_count_)),
        checks_(policy_) {
    make_nodes();
    make_controller();
    make_clients();
  }

  WorldResult run() {
    for (auto& node : nodes_) node->boot();
    controller_->start({});
    if (step_until([this] { return all_registered(); }, kWarmUpStepsMax, "the nodes never all registered")) {
      for (auto& client : clients_) client->begin();
      begin_faults();
      for (std::uint64_t i = 0; i < options_.steps && step(); ++i) {
      }
      if (checks_.problem().empty()) end_calmly();
    }
    WorldResult result;
    result.problem = checks_.problem();
    result.steps = steps_;
    result.jobs = store_.history.size();
    result.starts = checks_.starts();
    result.faults = faults_;
    result.fingerprint = mix(checks_.fingerprint() ^ mix(static_cast<std::uint64_t>(timeline_.now().us)) ^ steps_);
    return result;
  }

 private:
  // ---- the parts

  void make_nodes() {
    const LinkOptions link_options = draw_link(random_);
    for (std::uint32_t i = 0; i < node_count_; ++i) {
      links_.push_back(std::make_unique<Link>(timeline_, random_.fork(), link_options));
      NodeOptions options;
      options.name = "n" + std::to_string(i + 1);
      options.hardware = random_hardware(random_, cores_max_);
      options.features = random_features(random_);
      options.says_topology = mix(options_.seed ^ mix(i)) % 5 != 0;
      options.sees_connections = random_.permille(500);
      options.launch_failure_permille = random_.below(60);
      options.has_prolog = mix(options_.seed ^ mix(i + 1000)) % 3 == 0;
      if (options.has_prolog) checks_.has_prolog(i);
      full_hardware_.push_back(options.hardware);
      nodes_.push_back(std::make_unique<SimNode>(timeline_, random_.fork(), options, *links_[i], options_.seed));
      SimNode& node = *nodes_.back();
      Link& link = *links_.back();
      node.watch.on_process = [this, i, &node](const LaunchOrder& order) {
        log("n" + std::to_string(i + 1) + " runs job " + std::to_string(order.key.job.value) + "." +
            std::to_string(order.key.attempt.value));
        checks_.process_began(i, node.hardware(), order);
      };
      node.watch.on_gone = [this, i](AttemptKey key, const Outcome& outcome) {
        log("n" + std::to_string(i + 1) + " ended job " + std::to_string(key.job.value) + "." +
            std::to_string(key.attempt.value) + ": " + std::string(to_string(outcome.cause)));
        checks_.process_gone(i, key, outcome);
      };
      node.watch.on_still = [this, i](AttemptKey key, bool stands_still) {
        log("n" + std::to_string(i + 1) + (stands_still ? " stops job " : " goes on with job ") +
            std::to_string(key.job.value) + "." + std::to_string(key.attempt.value));
        checks_.process_still(i, key, stands_still);
      };
      node.watch.problem = [this](std::string problem) { checks_.fail(std::move(problem)); };
      link.at_node = [&node](const ToNode& message) { node.from_controller(message); };
      link.node_connected = [&node] { node.connected(); };
      link.at_controller = [this, i](Link::SessionId session, const ToController& message) {
        controller_->from_node(i, session, message);
      };
    }
  }

  void make_controller() {
    ControllerOptions options;
    options.policy = policy_;
    if (random_.permille(400)) options.budget.placements_made = static_cast<std::uint32_t>(random_.between(1, 4));
    if (random_.permille(300)) options.rows_per_snapshot = random_.between(1, 10);
    std::vector<Link*> links;
    for (const auto& link : links_) links.push_back(link.get());
    controller_ = std::make_unique<Controller>(timeline_, random_.fork(), options, store_, std::move(links));
    controller_->watch.problem = [this](std::string problem) { checks_.fail(std::move(problem)); };
    controller_->watch.on_fact = [this](const engine::State& before, const Fact& fact) {
      if (options_.log) log("  " + describe(fact));
      checks_.fact_comes(before, fact);
    };
    controller_->watch.on_commit = [this](const Facts& facts, const std::vector<JobSummary>& history) {
      checks_.committed(facts, history);
    };
    controller_->watch.on_planned = [this](const engine::State& state) {
      checks_.planned(state, controller_->wall_clock());
    };
  }

  void make_clients() {
    loss_permille_ = random_.permille(500) ? random_.below(300) : 0;
    const std::uint64_t users = random_.between(1, 4);
    const bool reserves = random_.permille(500);
    for (std::uint64_t i = 0; i <= users; ++i) {
      ClientOptions options;
      options.admin = i == users;
      options.user = options.admin ? "root" : "u" + std::to_string(i + 1);
      options.specs.nodes = node_count_;
      options.specs.cores_max = cores_max_;
      options.specs.user = options.user;
      options.specs.licenses = policy_.licenses;
      if (reserves) options.specs.reservations = {"r1", "r2"};
      if (options.admin) options.think_max = Duration::from_s(reserves ? 5 : 20);
      clients_.push_back(std::make_unique<Client>(
          timeline_, random_.fork(), options,
          [this](const Command& command, Client::Reply reply) { carry(command, std::move(reply)); }));
      ClientWatch& watch = clients_.back()->watch;
      watch.acknowledged = [this](RequestId request, JobId job) { checks_.acknowledged(request, job); };
      watch.cancelled = [this](JobId job) { checks_.cancelled(job); };
      watch.drained = [this](const std::vector<std::string>& nodes, std::optional<bool> drained) {
        checks_.drained(nodes, drained);
      };
      watch.problem = [this](std::string problem) { checks_.fail(std::move(problem)); };
    }
  }

  // A request and its answer, each of which can be lost or come twice.
  void carry(const Command& command, Client::Reply reply) {
    const int copies = random_.permille(loss_permille_ / 4) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      if (random_.permille(loss_permille_)) continue;
      timeline_.after(random_.duration(Duration::from_us(100), Duration::from_ms(3)), [this, command, reply] {
        if (!controller_->up()) return;
        controller_->request(command, [this, reply](const Result<engine::Decision>& decision) {
          if (random_.permille(loss_permille_)) return;
          timeline_.after(random_.duration(Duration::from_us(100), Duration::from_ms(3)),
                          [reply, decision] { reply(decision); });
        });
      });
    }
  }

  // ---- faults

  void begin_faults() {
    faulty_ = true;
    using Strike = void (World::*)(Duration);
    const std::vector<std::pair<Strike, Fault>> kinds = {
        {&World::crash_controller, {Duration::from_s(10), Duration::from_s(12)}},
        {&World::crash_daemon, {Duration::from_s(6), Duration::from_s(10)}},
        {&World::cut_power, {Duration::from_s(20), Duration::from_s(15)}},
        {&World::cut_link, {Duration::from_s(5), {}}},
        {&World::stall_link, {Duration::from_s(6), Duration::from_s(14)}},
        {&World::kill_shepherd, {Duration::from_s(12), {}}},
        {&World::slow_disk, {Duration::from_s(15), Duration::from_s(5)}},
        {&World::fall_ill, {Duration::from_s(12), Duration::from_s(20)}},
    };
    for (const auto& [strike, fault] : kinds) {
      if (random_.permille(400)) continue;  // not in this run
      // Some runs are ten times as rough as others.
      const std::int64_t divisor = random_.permille(300) ? 10 : 1;
      repeat(strike, Fault{Duration{fault.between.us / divisor}, fault.lasts_max});
    }
  }

  void repeat(void (World::*strike)(Duration), Fault fault) {
    timeline_.after(random_.duration(Duration{}, fault.between + fault.between), [this, strike, fault] {
      if (!faulty_) return;
      ++faults_;
      // Many short ones, some long ones.
      const Duration longest = random_.permille(500) ? Duration{fault.lasts_max.us / 20} : fault.lasts_max;
      (this->*strike)(random_.duration(Duration{}, longest));
      repeat(strike, fault);
    });
  }

  SimNode& any_node(std::size_t& place) {
    place = random_.below(node_count_);
    return *nodes_[place];
  }

  void crash_controller(Duration lasts) {
    if (!controller_->up()) return;
    log("-- controller crashes");
    controller_->crash();
    // The machine it comes back on may have a clock that is behind.
    const Duration offset =
        random_.permille(200) ? Duration{} - random_.duration({}, Duration::from_s(30)) : Duration{};
    timeline_.after(lasts, [this, offset] { start_controller(offset); });
  }
  void start_controller(Duration offset) {
    if (controller_->up()) return;
    controller_->start(offset);
    log("-- controller starts with term " + std::to_string(controller_->state().term.value));
    checks_.nothing_lost(controller_->state());
  }

  void crash_daemon(Duration lasts) {
    std::size_t place = 0;
    SimNode& node = any_node(place);
    if (!node.daemon_up()) return;
    log("-- daemon of n" + std::to_string(place + 1) + " crashes");
    node.crash_daemon();
    timeline_.after(lasts, [&node] { node.start_daemon(); });
  }

  void cut_power(Duration lasts) {
    std::size_t place = 0;
    SimNode& node = any_node(place);
    if (!node.powered()) return;
    log("-- power of n" + std::to_string(place + 1) + " is cut");
    node.cut_power();
    checks_.power_was_cut(place);
    if (random_.permille(300)) {
      // It comes back with other hardware: a GPU or some memory is missing, or there again.
      NodeHardware hardware = full_hardware_[place];
      if (!hardware.gpus.empty() && random_.permille(500)) hardware.gpus.pop_back();
      if (random_.permille(300)) hardware.mem_mib /= 2;
      if (hardware.cores.size() > 1 && random_.permille(200)) hardware.cores.pop_back();
      node.set_hardware(std::move(hardware));
    }
    timeline_.after(lasts, [&node] {
      if (!node.powered()) node.boot();
    });
  }

  void cut_link(Duration /*lasts*/) { links_[random_.below(node_count_)]->cut(); }
  void stall_link(Duration lasts) {
    const bool both = random_.permille(500);
    const bool up = random_.permille(500);
    links_[random_.below(node_count_)]->stall(both || up ? lasts : Duration{}, both || !up ? lasts : Duration{});
  }
  void kill_shepherd(Duration /*lasts*/) {
    std::size_t place = 0;
    any_node(place).kill_a_shepherd();
  }
  void slow_disk(Duration lasts) { controller_->slow_disk(lasts); }
  // Checks of a node fail for a while; sometimes others do before it is well again.
  void fall_ill(Duration lasts) {
    std::size_t place = 0;
    SimNode& node = any_node(place);
    log("-- n" + std::to_string(place + 1) + " falls ill");
    std::vector<HealthProblem> problems = {{"disk", "the spool has 3 MiB free"}};
    if (random_.permille(300)) problems.push_back({"program", "exit code 3"});
    node.set_problems(std::move(problems));
    timeline_.after(lasts, [&node] { node.set_problems({}); });
  }

  // ---- steps

  bool step() {
    if (!timeline_.step()) {
      checks_.fail("nothing happens any more");
      return false;
    }
    ++steps_;
    if (controller_->up() && controller_->version() != checked_version_) {
      checked_version_ = controller_->version();
      checks_.state_changed(controller_->state());
    }
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i]->version() == node_versions_[i]) continue;
      node_versions_[i] = nodes_[i]->version();
      if (std::string broken = nodes_[i]->check(); !broken.empty()) checks_.fail(std::move(broken));
    }
    if (steps_ % kStepsPerAudit == 0 && controller_->idle()) checks_.nothing_lost(controller_->state());
    return checks_.problem().empty();
  }

  template <typename Condition>
  bool step_until(Condition condition, std::uint64_t steps_max, const std::string& otherwise) {
    for (std::uint64_t i = 0; !condition(); ++i) {
      if (i == steps_max) checks_.fail(otherwise + (why_.empty() ? "" : ": " + why_));
      if (!checks_.problem().empty() || !step()) return false;
    }
    return true;
  }

  bool all_registered() {
    if (!controller_->idle() || controller_->state().nodes.size() != node_count_) return false;
    for (const Node& node : controller_->state().nodes) {
      if (node.contact != Contact::kConnected) return false;
    }
    return true;
  }

  // ---- the end: everything works again, and everything must come to rest

  void end_calmly() {
    log("-- calm");
    faulty_ = false;
    loss_permille_ = 0;
    for (auto& link : links_) link->calm();
    for (auto& client : clients_) client->stop();
    start_controller({});
    for (std::size_t i = 0; i < nodes_.size(); ++i) repair(i);
    if (!step_until([this] { return clients_idle(); }, kCalmStepsMax, "a client never got its answer")) return;
    if (!step_until([this] { return all_registered(); }, kCalmStepsMax, "the nodes never all came back")) return;
    // Nobody else releases and resumes any more.
    const Caller admin{"root", true};
    std::vector<std::string> names;
    for (std::uint32_t i = 1; i <= node_count_; ++i) names.push_back("n" + std::to_string(i));
    checks_.drained(names, std::nullopt);
    JobSelector all;
    all.states = {JobState::kPending};
    Client& client = *clients_.back();
    client.ask(ResumeNodes{admin, names}, [this, &client, admin, all](const Result<engine::Decision>& resumed) {
      if (!resumed.ok()) checks_.fail("resume was refused: " + resumed.error().message);
      client.ask(ReleaseJobs{admin, all}, [this, &client, admin](const Result<engine::Decision>& released) {
        if (!released.ok()) checks_.fail("release was refused: " + released.error().message);
        JobSelector still;
        still.states = {JobState::kSuspended};
        client.ask(ContinueJobs{admin, still}, [this](const Result<engine::Decision>& continued) {
          if (!continued.ok()) checks_.fail("continue was refused: " + continued.error().message);
          released_ = true;
        });
      });
    });
    const auto at_rest = [this, &client, admin] {
      if (released_ && client.idle()) resume_faulted(client, admin);
      if (released_ && client.idle()) cancel_hopeless(client, admin);
      return released_ && client.idle() && quiet();
    };
    if (!step_until(at_rest, kCalmStepsMax, "it never comes to rest")) return;
    checks_.nothing_left(controller_->state());
    replay_everything();
  }

  // What waits for something that can never be leaves by its user's hand alone.
  void cancel_hopeless(Client& client, const Caller& admin) {
    JobSelector hopeless;
    for (const auto* records : {&controller_->state().jobs, &controller_->state().arrays}) {
      for (const auto& [id, job] : *records) {
        const bool shut_out =
            !job.is_active() &&
            controller_->state().windows.access(*job.spec, controller_->wall_clock()) != sched::Windows::Access::kOk;
        if (engine::is_never_satisfied(job) || shut_out) hopeless.items.push_back({id, false, {}});
      }
    }
    if (hopeless.items.empty()) return;
    client.ask(CancelJobs{admin, std::move(hopeless), 0}, [this](const Result<engine::Decision>& cancelled) {
      if (!cancelled.ok()) checks_.fail("a cancel was refused: " + cancelled.error().message);
    });
  }

  // What nodes and jobs are taken out for by themselves, an administrator has to look at.
  void resume_faulted(Client& client, const Caller& admin) {
    std::vector<std::string> names;
    for (const Node& node : controller_->state().nodes) {
      if (node.health.fault != NodeFault::kNone) names.push_back(node.name);
    }
    JobSelector held;
    for (const auto* records : {&controller_->state().jobs, &controller_->state().arrays}) {
      for (const auto& [id, job] : *records) {
        const bool faulty =
            job.node_faults != 0 || std::any_of(job.requeued.begin(), job.requeued.end(),
                                                [](const RequeuedTask& t) { return t.node_faults != 0; });
        if (!job.is_active() && faulty && (job.held || !job.held_positions.empty()))
          held.items.push_back({id, false, {}});
      }
    }
    if (names.empty() && held.items.empty()) return;
    const auto release = [this, &client, admin, held] {
      if (held.items.empty()) return;
      client.ask(ReleaseJobs{admin, held}, [this](const Result<engine::Decision>& released) {
        if (!released.ok()) checks_.fail("a release was refused: " + released.error().message);
      });
    };
    if (names.empty()) return release();
    client.ask(ResumeNodes{admin, names}, [this, release](const Result<engine::Decision>& resumed) {
      if (!resumed.ok()) checks_.fail("resume was refused: " + resumed.error().message);
      release();
    });
  }

  void repair(std::size_t i) {
    nodes_[i]->set_problems({});
    if (nodes_[i]->hardware() != full_hardware_[i]) {
      if (nodes_[i]->powered()) {
        nodes_[i]->cut_power();
        checks_.power_was_cut(i);
      }
      nodes_[i]->set_hardware(full_hardware_[i]);
    }
    if (nodes_[i]->powered()) {
      nodes_[i]->start_daemon();
    } else {
      nodes_[i]->boot();
    }
  }

  bool clients_idle() {
    for (const auto& client : clients_) {
      if (!client->idle()) return false;
    }
    return true;
  }

  bool quiet() {
    if (!controller_->idle()) {
      why_ = "the controller is at work";
      return false;
    }
    const engine::State& state = controller_->state();
    if (!state.jobs.empty() || !state.arrays.empty()) {
      const Job& job = state.jobs.empty() ? state.arrays.begin()->second : state.jobs.begin()->second;
      why_ = "job " + std::to_string(job.id.value) + " is " + std::string(to_string(job.state()));
      return false;
    }
    for (const auto& node : nodes_) {
      if (!node->quiet(why_)) return false;
    }
    return true;
  }

  // From the first row on, without a snapshot: the same state, byte for byte.
  void replay_everything() {
    engine::State state;
    for (const std::string& row : store_.rows) {
      const Result<Facts> facts = from_journal(row);
      if (!facts.ok()) {
        checks_.fail("the journal cannot be read: " + facts.error().message);
        return;
      }
      for (const Fact& fact : *facts) engine::evolve(state, fact);
    }
    if (encode_state(state) != encode_state(controller_->state()) || state != controller_->state()) {
      checks_.fail("replaying the whole journal does not give the live state");
    }
  }

  // ---- telling

  void log(const std::string& line) {
    if (!options_.log) return;
    const std::int64_t us = (timeline_.now() - kStart).us;
    std::string fraction = std::to_string(us % 1'000'000);
    fraction.insert(0, 6 - fraction.size(), '0');
    options_.log(std::to_string(us / 1'000'000) + "." + fraction + " " + line);
  }

  static std::string describe(const Fact& fact) {
    const auto id = [](JobId job) { return std::to_string(job.value); };
    const auto of = [&](AttemptKey key) { return id(key.job) + "." + std::to_string(key.attempt.value); };
    const auto on = [](NodeIndex node) { return " on #" + std::to_string(node.value); };
    struct Words {
      static std::string limit_text(const std::optional<std::uint64_t>& limit) {
        return limit ? std::to_string(*limit) : "unlimited";
      }
      decltype(id)& id_;
      decltype(of)& of_;
      decltype(on)& on_;
      std::string operator()(const TermStarted& f) const { return "TermStarted " + std::to_string(f.term.value); }
      std::string operator()(const NodeClassAdded& f) const {
        return "NodeClassAdded " + std::to_string(f.hash.low) + ", " + std::to_string(f.topology.cores.size()) +
               " cores";
      }
      std::string operator()(const NodeRegistered& f) const {
        return "NodeRegistered " + f.name + on_(f.index) + " " + f.boot_id;
      }
      std::string operator()(const NodeBecameUnreachable& f) const { return "NodeBecameUnreachable" + on_(f.node); }
      std::string operator()(const NodeDrained& f) const { return "NodeDrained" + on_(f.node); }
      std::string operator()(const NodeHealthChanged& f) const {
        return "NodeHealthChanged" + on_(f.node) + (f.problems.empty() ? " good" : " " + f.problems.front().check);
      }
      std::string operator()(const NodeDoubted& f) const {
        return "NodeDoubted" + on_(f.node) + " " + of_(f.doubt.attempt);
      }
      std::string operator()(const NodeBlamed& f) const {
        return "NodeBlamed" + on_(f.node) + " " + of_(f.blame.attempt) + (f.rests_until.is_set() ? ", it rests" : "");
      }
      std::string operator()(const NodeTrusted& f) const {
        return "NodeTrusted" + on_(f.node) + (f.rested ? ", it has rested" : "");
      }
      std::string operator()(const NodeFaulted& f) const {
        return "NodeFaulted" + on_(f.node) + " " + std::string(to_string(f.fault)) + ": " + f.text;
      }
      std::string operator()(const NodeResumed& f) const { return "NodeResumed" + on_(f.node); }
      std::string operator()(const JobSubmitted& f) const {
        const JobSpec& s = *f.spec;
        return "JobSubmitted " + id_(f.id) + (s.array ? " array " + format_array_spec(*s.array) : "") + " nodes " +
               std::to_string(s.nodes_min) + "-" + std::to_string(s.nodes_max) + " tasks " + std::to_string(s.ntasks) +
               (s.hold ? " held" : "") + " queue " + s.queue + (s.account.empty() ? "" : " account " + s.account) +
               (s.qos.empty() ? "" : " qos " + s.qos);
      }
      std::string operator()(const RequestsForgotten& /*f*/) const { return "RequestsForgotten"; }
      std::string operator()(const JobHeld& f) const { return "JobHeld " + id_(f.job); }
      std::string operator()(const StartPromised& f) const {
        return "StartPromised " + id_(f.job) + " at " + std::to_string(f.start.us);
      }
      std::string operator()(const DependencySet& f) const {
        std::string text = "DependencySet " + id_(f.job);
        for (const OpenDependency& open : f.open) {
          text += " " + std::string(to_string(open.kind)) + ":" + id_(open.job) + (open.whole_array ? "[]" : "") +
                  (open.never ? " never" : "");
        }
        return text;
      }
      std::string operator()(const JobReleased& f) const { return "JobReleased " + id_(f.job); }
      std::string operator()(const AttemptStarted& f) const {
        std::string text = "AttemptStarted " + id_(f.job) + "." + std::to_string(f.attempt.value);
        for (const NodeShare& s : f.shares) text += on_(s.node) + " cores " + s.cores.to_string();
        return text;
      }
      std::string operator()(const AttemptConfirmed& f) const { return "AttemptConfirmed " + of_(f.key) + on_(f.node); }
      std::string operator()(const AttemptEndedOnNode& f) const {
        return "AttemptEndedOnNode " + of_(f.key) + on_(f.node) + " " + std::string(to_string(f.outcome.cause)) + " " +
               f.outcome.detail;
      }
      std::string operator()(const StopRequested& f) const {
        return "StopRequested " + of_(f.key) + " " + std::string(to_string(f.cause)) + " " + std::to_string(f.signal) +
               (f.terms.room_for != JobId{} ? " for " + id_(f.terms.room_for) : "");
      }
      std::string operator()(const JobRequeued& f) const { return "JobRequeued " + id_(f.job) + " " + f.reason; }
      std::string operator()(const AttemptSuspended& f) const {
        return "AttemptSuspended " + of_(f.key) + (f.room_for != JobId{} ? " for " + id_(f.room_for) : "");
      }
      std::string operator()(const AttemptStoodStill& f) const {
        return "AttemptStoodStill " + of_(f.key) + on_(f.node);
      }
      std::string operator()(const AttemptProven& f) const {
        return "AttemptProven " + of_(f.key) + on_(f.node) + " tasks " + std::to_string(f.proof.tasks);
      }
      std::string operator()(const AttemptResumed& f) const { return "AttemptResumed " + of_(f.key); }
      std::string operator()(const JobEnded& f) const {
        return "JobEnded " + id_(f.job) + " " + std::string(to_string(f.state)) + " " + f.reason;
      }
      std::string operator()(const SettingChanged& f) const {
        return "SettingChanged " + f.key + "=" + f.value.value_or("(as configured)");
      }
      std::string operator()(const JobUpdated& f) const {
        const JobSpec& s = *f.spec;
        return "JobUpdated " + id_(f.job) + (f.attempt != Attempt{} ? " running" : "") + " nodes " +
               std::to_string(s.nodes_min) + "-" + std::to_string(s.nodes_max) + " tasks " + std::to_string(s.ntasks) +
               " limit " + std::to_string(s.time_limit.us) + " min " + std::to_string(s.time_min.us) + " deadline " +
               std::to_string(s.deadline.us) + " queue " + s.queue;
      }
      std::string operator()(const AttemptTimeLimitChanged& f) const {
        return "AttemptTimeLimitChanged " + of_(f.key) + " " + std::to_string(f.time_limit.us);
      }
      static std::string ranges(const Positions& positions) {
        std::string text;
        for (const PositionRange& r : positions) text += " " + std::to_string(r.begin) + "-" + std::to_string(r.end);
        return text;
      }
      std::string operator()(const ArrayTasksHeld& f) const {
        return "ArrayTasksHeld " + id_(f.array) + ranges(f.positions);
      }
      std::string operator()(const ArrayTasksReleased& f) const {
        return "ArrayTasksReleased " + id_(f.array) + ranges(f.positions);
      }
      std::string operator()(const ReservationMade& f) const {
        const Reservation& r = f.reservation;
        return "ReservationMade " + r.name + " at " + std::to_string(r.start.us) + " for " +
               std::to_string(r.duration.us) + " every " + std::to_string(r.every.us) + " nodes " +
               fold_node_list(r.nodes) + (r.maintenance ? " maintenance" : "");
      }
      std::string operator()(const ReservationRemoved& f) const { return "ReservationRemoved " + f.name; }
      std::string operator()(const ArrayTasksEnded& f) const {
        return "ArrayTasksEnded " + id_(f.array) + " " + std::to_string(f.positions.begin) + "-" +
               std::to_string(f.positions.end);
      }
      std::string operator()(const AccountSet& f) const {
        return "AccountSet " + f.account.name + " below " + f.account.parent + " jobs " +
               limit_text(f.account.all.jobs) + " for each user " + limit_text(f.account.per_user.jobs);
      }
      std::string operator()(const AccountRemoved& f) const { return "AccountRemoved " + f.name; }
      std::string operator()(const UserSet& f) const { return "UserSet " + f.user.name; }
      std::string operator()(const UserRemoved& f) const { return "UserRemoved " + f.name; }
      std::string operator()(const QosSet& f) const {
        return "QosSet " + f.qos.name + " jobs " + limit_text(f.qos.all.jobs) + " for each user " +
               limit_text(f.qos.per_user.jobs);
      }
      std::string operator()(const QosRemoved& f) const { return "QosRemoved " + f.name; }
      std::string operator()(const BillingConfigured& f) const {
        return "BillingConfigured " + std::to_string(f.rules.cpu) + " " + std::to_string(f.rules.gpu);
      }
    };
    return std::visit(Words{id, of, on}, fact.body);
  }

  WorldOptions options_;
  Random random_;
  Timeline timeline_;
  std::uint32_t node_count_;
  std::uint32_t cores_max_;
  sched::Policy policy_;
  Checks checks_;
  Store store_;
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<NodeHardware> full_hardware_;
  std::unique_ptr<Controller> controller_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::uint64_t loss_permille_ = 0;
  bool faulty_ = false;
  bool released_ = false;
  std::uint64_t steps_ = 0;
  std::uint64_t faults_ = 0;
  std::uint64_t checked_version_ = 0;
  std::vector<std::uint64_t> node_versions_ = std::vector<std::uint64_t>(node_count_);
  std::string why_;
};

}  // namespace

WorldResult run_world(const WorldOptions& options) {
  return World(options).run();
}

}  // namespace muster::sim
