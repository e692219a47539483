#include "sim/node.h"

#include <csignal>
#include <utility>
#include <variant>
#include <vector>

#include "sim/random_spec.h"

namespace muster::sim {
namespace {

constexpr Duration kStartMin = Duration::from_us(200);
constexpr Duration kStartMax = Duration::from_ms(20);
constexpr Duration kPrologMax = Duration::from_ms(400);
constexpr Duration kRunMin = Duration::from_ms(1);
constexpr Duration kRunMax = Duration::from_s(12);
constexpr std::size_t kReportsAtOnce = 64;

Outcome outcome_of(EndCause cause, std::int32_t exit_code, std::int32_t signal, std::string detail) {
  return Outcome{.cause = cause, .exit_code = exit_code, .signal = signal, .detail = std::move(detail), .ran = {}};
}

Outcome random_end(Random& random) {
  switch (random.below(16)) {
    case 0:
    case 1:
      return outcome_of(EndCause::kExited, static_cast<std::int32_t>(random.between(1, 255)), 0, "");
    case 2:
      return outcome_of(EndCause::kSignalled, 0, SIGSEGV, "");
    case 3:
      return outcome_of(EndCause::kOutOfMemory, 0, SIGKILL, "out of memory");
    case 4:
      return outcome_of(EndCause::kOutputFailed, 0, 0, "no space left on device");
    default:
      return outcome_of(EndCause::kExited, 0, 0, "");
  }
}

}  // namespace

SimNode::SimNode(Timeline& timeline, Random random, NodeOptions options, Link& link, std::uint64_t seed)
    : timeline_(timeline), random_(random), options_(std::move(options)), link_(link), seed_(seed) {}

void SimNode::problem(std::string text) {
  if (watch.problem) watch.problem("node " + options_.name + ": " + text);
}

std::pair<Duration, Outcome> SimNode::fate(std::uint64_t seed, AttemptKey key) {
  Random random(mix(seed ^ mix(key.job.value * 1000 + key.attempt.value)));
  const Duration longest = random.permille(700) ? Duration::from_s(2) : kRunMax;
  const Duration ran = random.duration(kRunMin, longest);
  Outcome outcome = random_end(random);
  outcome.ran = ran;
  return {ran, std::move(outcome)};
}

// ---- power and daemon

void SimNode::boot() {
  powered_ = true;
  ++boots_;
  registrations_ = 0;
  link_.forget_lingering();
  start_daemon();
}

void SimNode::cut_power() {
  crash_daemon();
  powered_ = false;
  ++version_;
  std::vector<AttemptKey> gone;
  for (const auto& [key, shepherd] : shepherds_) gone.push_back(key);
  for (const AttemptKey& key : gone) {
    shepherds_.erase(key);
    if (watch.on_gone) watch.on_gone(key, outcome_of(EndCause::kNodeLost, 0, 0, "the power was cut"));
  }
  // Records are not synced one by one: some are lost, some lose their end.
  for (auto it = disk_.begin(); it != disk_.end();) {
    const std::uint64_t luck = random_.below(3);
    if (luck == 0) {
      it = disk_.erase(it);
      continue;
    }
    if (luck == 1) it->second.end.reset();
    ++it;
  }
}

void SimNode::start_daemon() {
  if (!powered_ || daemon_ != nullptr) return;
  ++daemons_;
  ++version_;
  daemon_ = std::make_unique<Daemon>();
  daemon_->state = agent::initial_state(options_.name, term_on_disk_);
  daemon_->heard = timeline_.now();
  recover_records();
  link_.set_node_up(true);
  send_registration();
  beat();
}

void SimNode::crash_daemon() {
  if (daemon_ == nullptr) return;
  ++version_;
  daemon_.reset();
  link_.set_node_up(false);
}

void SimNode::recover_records() {
  const std::map<AttemptKey, Record> found = disk_;
  for (const auto& [key, record] : found) {
    const auto shepherd = shepherds_.find(key);
    agent::Found what = agent::FoundNotBegun{};
    if (record.end) {
      what = agent::FoundEnded{*record.end};
    } else if (shepherd != shepherds_.end() && !shepherd->second.dead) {
      what = agent::FoundRunning{};
    } else if (record.boot != boots_) {
      what = agent::FoundEnded{outcome_of(EndCause::kNodeLost, 0, 0, "the node restarted")};
    } else if (record.begun) {
      what = agent::FoundEnded{bury(key)};
    }
    if (const auto* ended = std::get_if<agent::FoundEnded>(&what)) disk_[key].end = ended->outcome;
    perform(agent::recover(daemon_->state, key, record.order, what));
  }
}

// ---- processes

void SimNode::begin(const std::shared_ptr<const LaunchOrder>& order) {
  const AttemptKey key = order->key;
  Record& record = disk_.at(key);
  if (record.begun || shepherds_.contains(key)) {
    problem("a second shepherd begins for job " + std::to_string(key.job.value));
    return;
  }
  record.begun = true;
  Shepherd begun;
  begun.order = order;
  begun.begun_at = timeline_.now();
  shepherds_.emplace(key, std::move(begun));
  ++version_;
  if (watch.on_process) watch.on_process(*order);
  to_daemon(random_.duration(Duration{}, Duration::from_ms(5)),
            [this, key] { perform(agent::on_started(daemon_->state, key)); });

  // The first node's processes end by themselves; the other nodes hold their share until they are told to stop.
  auto [ran, outcome] = fate(seed_, key);
  end_within(ran, outcome, *order, time_limit_of(*order));
  end_later(key, ran, outcome);
}

void SimNode::end_within(Duration& ran, Outcome& outcome, const LaunchOrder& order, Duration limit) {
  if (order.node_rank != 0 || ran > limit) {
    ran = limit;
    outcome = outcome_of(EndCause::kTimeLimit, 0, SIGTERM, "");
    outcome.ran = ran;
  }
}

void SimNode::do_effect(const agent::SetLimit& effect) {
  const auto it = shepherds_.find(effect.key);
  if (it == shepherds_.end() || it->second.dead || it->second.stopping) return;
  Shepherd& shepherd = it->second;
  auto [ran, outcome] = fate(seed_, effect.key);
  end_within(ran, outcome, *shepherd.order, effect.limit);
  shepherd.end_at = shepherd.begun_at + shepherd.stood_still + ran;
  shepherd.end = outcome;
  if (shepherd.suspended_at) return;  // the end comes when it goes on
  end_later(effect.key, std::max(shepherd.end_at - timeline_.now(), Duration::from_us(1)), std::move(outcome));
}

// The newest end that was planned is the one that comes.
void SimNode::end_later(AttemptKey key, Duration delay, Outcome outcome) {
  Shepherd& planned = shepherds_.at(key);
  const std::uint64_t number = ++shepherd_numbers_;
  planned.number = number;
  planned.end_at = timeline_.now() + delay;
  planned.end = outcome;
  timeline_.after(delay, [this, key, number, outcome = std::move(outcome)] {
    const auto it = shepherds_.find(key);
    if (it == shepherds_.end() || it->second.number != number || it->second.dead) return;
    // The shepherd has seen all of it end; its record is written before anybody is told.
    disk_.at(key).end = outcome;
    shepherds_.erase(it);
    ++version_;
    if (watch.on_gone) watch.on_gone(key, outcome);
    to_daemon(random_.duration(Duration{}, Duration::from_ms(5)),
              [this, key, outcome] { perform(agent::on_ended(daemon_->state, key, outcome)); });
  });
}

void SimNode::kill_a_shepherd() {
  for (auto& [key, shepherd] : shepherds_) {
    if (shepherd.dead || !random_.permille(500)) continue;
    shepherd.dead = true;  // what ran under it goes on until the daemon empties the group
    to_daemon(Duration::from_ms(1), [this, key = key] {
      const auto it = shepherds_.find(key);
      if (it == shepherds_.end() || !it->second.dead) return;
      const Outcome outcome = bury(key);
      disk_.at(key).end = outcome;
      perform(agent::on_ended(daemon_->state, key, outcome));
    });
    return;
  }
}

Outcome SimNode::bury(AttemptKey key) {
  const Outcome outcome = outcome_of(EndCause::kShepherdDied, 0, 0, "the shepherd died");
  if (shepherds_.erase(key) != 0 && watch.on_gone) watch.on_gone(key, outcome);
  ++version_;
  return outcome;
}

void SimNode::to_daemon(Duration delay, std::function<void()> event) {
  timeline_.after(delay, [this, daemon = daemons_, event = std::move(event)] {
    // A daemon that came later has found the same on disk.
    if (daemon_ != nullptr && daemon == daemons_) event();
  });
}

// ---- effects

void SimNode::perform(const agent::AgentEffects& effects) {
  ++version_;
  for (const agent::AgentEffect& effect : effects) {
    std::visit([this](const auto& e) { do_effect(e); }, effect);
  }
}

void SimNode::do_effect(const agent::StartAttempt& effect) {
  const AttemptKey key = effect.order->key;
  const auto [it, fresh] =
      disk_.try_emplace(key, Record{.order = effect.order, .boot = boots_, .begun = false, .end = {}});
  if (!fresh && (it->second.begun || it->second.end || it->second.boot != boots_)) {
    problem("job " + std::to_string(key.job.value) + " would start a second time");
    return;
  }
  Duration delay = random_.duration(kStartMin, kStartMax);
  if (options_.has_prolog) {
    delay = delay + random_.duration(Duration{}, kPrologMax);
    if (random_.permille(options_.prolog_failure_permille)) {
      Outcome outcome = outcome_of(EndCause::kLaunchFailed, 0, 0, "prolog: exit code 1");
      outcome.fault = NodeFault::kProlog;
      outcome.fault_text = "exit code 1";
      to_daemon(delay, [this, key, outcome] { perform(agent::on_launch_failed(daemon_->state, key, outcome)); });
      return;
    }
  }
  if (random_.permille(options_.launch_failure_permille)) {
    to_daemon(delay, [this, key] {
      perform(agent::on_launch_failed(daemon_->state, key,
                                      outcome_of(EndCause::kLaunchFailed, 0, 0, "no such directory: /work")));
    });
    return;
  }
  to_daemon(delay, [this, order = effect.order] { begin(order); });
}

void SimNode::do_effect(const agent::StopAttempt& effect) {
  const auto it = shepherds_.find(effect.key);
  if (it == shepherds_.end() || it->second.dead) return;
  Shepherd& shepherd = it->second;
  Outcome outcome = outcome_of(EndCause::kCancelled, 0, SIGTERM, "");
  outcome.ran = timeline_.now() - shepherd.begun_at;
  if (effect.signal != 0) {
    // Most programs handle the signal; some die of it.
    if (random_.permille(200)) {
      outcome.cause = EndCause::kSignalled;
      outcome.signal = effect.signal;
      if (!shepherd.stopping && !shepherd.suspended_at) end_later(effect.key, Duration::from_ms(1), outcome);
    }
    return;
  }
  if (shepherd.stopping) return;
  shepherd.stopping = true;
  if (shepherd.gives_cores) {
    end_later(effect.key, Duration::from_us(1), outcome);  // it is killed without going on
    return;
  }
  resume(shepherd);
  const Duration left = shepherd.end_at - timeline_.now();
  if (effect.notice_signal != 0 && random_.permille(300)) {
    // It saves what it has and gives up.
    outcome.cause = EndCause::kExited;
    outcome.exit_code = 85;
    outcome.signal = 0;
  }
  const Duration stop = effect.notice + random_.duration(Duration::from_us(100), options_.grace);
  if (stop < left) end_later(effect.key, stop, outcome);
  if (stop >= left) end_later(effect.key, std::max(left, Duration{}), Outcome(shepherd.end));
}

void SimNode::resume(Shepherd& shepherd) {
  if (!shepherd.suspended_at) return;
  const Duration stood_still = timeline_.now() - *shepherd.suspended_at;
  shepherd.stood_still = shepherd.stood_still + stood_still;
  shepherd.end_at = shepherd.end_at + stood_still;
  shepherd.suspended_at.reset();
  if (std::exchange(shepherd.gives_cores, false) && watch.on_still) {
    watch.on_still({shepherd.order->key.job, shepherd.order->key.attempt}, false);
  }
}

void SimNode::do_effect(const agent::SuspendAttempt& effect) {
  const auto it = shepherds_.find(effect.key);
  if (it == shepherds_.end() || it->second.dead || it->second.stopping) return;
  Shepherd& shepherd = it->second;
  if (effect.suspend && !shepherd.suspended_at) {
    shepherd.suspended_at = timeline_.now();
    shepherd.number = ++shepherd_numbers_;  // the end that was planned does not come
  }
  if (effect.suspend && effect.gives_cores) {
    if (!std::exchange(shepherd.gives_cores, true) && watch.on_still) watch.on_still(effect.key, true);
    to_daemon(random_.duration(Duration{}, Duration::from_ms(5)), [this, key = effect.key, number = effect.number] {
      perform(agent::on_stood_still(daemon_->state, key, number));
    });
  } else if (!effect.suspend && shepherd.suspended_at) {
    resume(shepherd);
    end_later(effect.key, std::max(shepherd.end_at - timeline_.now(), Duration::from_us(1)), Outcome(shepherd.end));
  }
}

void SimNode::do_effect(const agent::RecordEnd& effect) {
  Record& record =
      disk_.try_emplace(effect.key, Record{.order = {}, .boot = boots_, .begun = false, .end = {}}).first->second;
  record.end = effect.outcome;
}

void SimNode::do_effect(const agent::SendReport& effect) {
  link_.send_up(Reports{{effect.report}});
}

void SimNode::do_effect(const agent::ForgetAttempt& effect) {
  if (shepherds_.contains(effect.key)) problem("a running attempt is forgotten");
  disk_.erase(effect.key);
}

// ---- the controller

void SimNode::send_registration() {
  NodeRegistration registration;
  registration.name = options_.name;
  registration.hardware = options_.hardware;
  registration.features = options_.features;
  if (options_.says_topology) {
    registration.topology = topology_of(options_.hardware);
  }
  registration.boot_id = options_.name + "-boot" + std::to_string(boots_);
  registration.endpoint = "tcp://" + options_.name + ":7071";
  registration.public_key = "key-of-" + options_.name;
  registration.sequence = ++registrations_;
  registration.problems = problems_;
  registration.has_prolog = options_.has_prolog;
  registration.attempts = agent::registered_attempts(daemon_->state);
  link_.send_up(std::move(registration));
}

void SimNode::set_problems(std::vector<HealthProblem> problems) {
  problems_ = std::move(problems);
  ++version_;
  if (daemon_ != nullptr) link_.send_up(Health{problems_});
}

void SimNode::connected() {
  if (daemon_ != nullptr && options_.sees_connections) send_registration();
}

void SimNode::beat() {
  if (timeline_.now() - daemon_->heard > options_.silence_max) {
    daemon_->heard = timeline_.now();
    link_.cut();
  }
  link_.send_up(Heartbeat{});
  perform(agent::retry_reports(daemon_->state, kReportsAtOnce));
  to_daemon(options_.heartbeat, [this] { beat(); });
}

void SimNode::from_controller(const ToNode& message) {
  if (daemon_ == nullptr) return;
  agent::AgentEffects effects;
  const bool current = agent::hear_term(daemon_->state, message.term, effects);
  perform(effects);
  if (!current) return;
  daemon_->heard = timeline_.now();
  if (std::holds_alternative<RegisterAgain>(message.body)) {
    send_registration();
  } else if (const auto* launch = std::get_if<LaunchOrder>(&message.body)) {
    perform(agent::on_launch(daemon_->state, std::make_shared<const LaunchOrder>(*launch)));
  } else if (const auto* stop = std::get_if<StopOrder>(&message.body)) {
    perform(agent::on_stop(daemon_->state, *stop));
  } else if (const auto* limit = std::get_if<LimitOrder>(&message.body)) {
    perform(agent::on_limit(daemon_->state, *limit));
  } else if (const auto* suspend = std::get_if<SuspendOrder>(&message.body)) {
    perform(agent::on_suspend(daemon_->state, *suspend));
  } else if (std::holds_alternative<RunChecks>(message.body)) {
    link_.send_up(Health{problems_});
  } else if (const auto* acknowledge = std::get_if<Acknowledge>(&message.body)) {
    perform(agent::on_acknowledged(daemon_->state, acknowledge->key));
  }
}

// ---- checks

std::string SimNode::check() const {
  if (daemon_ == nullptr) return {};
  const std::string broken = agent::check_invariants(daemon_->state);
  return broken.empty() ? broken : "node " + options_.name + ": " + broken;
}

bool SimNode::quiet(std::string& why) const {
  if (daemon_ == nullptr) {
    why = options_.name + " has no daemon";
  } else if (!shepherds_.empty()) {
    why = options_.name + " still runs job " + std::to_string(shepherds_.begin()->first.job.value);
  } else if (!daemon_->state.attempts.empty()) {
    why = options_.name + " still knows job " + std::to_string(daemon_->state.attempts.begin()->first.job.value);
  } else if (!disk_.empty()) {
    why = options_.name + " still has a record of job " + std::to_string(disk_.begin()->first.job.value);
  } else {
    return true;
  }
  return false;
}

}  // namespace muster::sim
