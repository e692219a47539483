// Scenario: drives core/engine as a shell would, checks the invariants and that replay equals the live state after
// every step, and fails a test that leaves effects unlooked at.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/engine/engine.h"
#include "gtest/gtest.h"

namespace muster::testing {

inline NodeHardware hardware(std::uint32_t cores, std::uint32_t gpus = 0, std::uint64_t mem_mib = 65'536) {
  NodeHardware h;
  h.pretended = true;
  h.mem_mib = mem_mib;
  for (std::uint32_t i = 0; i < cores; ++i) {
    h.cores.push_back(Core{.package = 0, .numa = 0, .threads = IndexSet::range(i, 1)});
  }
  for (std::uint32_t i = 0; i < gpus; ++i) {
    Gpu g;
    g.pci_address = "0000:0" + std::to_string(i) + ":00.0";
    g.vendor_index = i;
    h.gpus.push_back(g);
  }
  return h;
}

inline NodeRegistration registration(const std::string& name, const NodeHardware& h,
                                     const std::string& boot = "boot-1") {
  NodeRegistration r;
  r.name = name;
  r.hardware = h;
  r.boot_id = boot;
  r.endpoint = "tcp://127.0.0.1:1";
  r.public_key = "key-of-" + name;
  return r;
}

inline JobSpec job(std::uint32_t nodes, std::uint32_t ntasks, std::uint32_t cpus = 1) {
  JobSpec s;
  s.name = "job";
  s.user = "alice";
  s.nodes_min = nodes;
  s.ntasks = ntasks;
  s.cpus_per_task = cpus;
  s.work_dir = "/tmp";
  return s;
}

inline sched::Policy policy() {
  sched::Policy p;
  sched::QueuePolicy main;
  main.name = "main";
  main.time_default = Duration::from_s(3600);
  sched::QueuePolicy urgent = main;
  urgent.name = "urgent";
  urgent.priority = 10;
  p.queues = {main, urgent};
  p.default_queue = "main";
  return p;
}

class Scenario {
 public:
  Scenario() { run(StartTerm{}); }
  ~Scenario() { EXPECT_TRUE(effects.empty()) << "effects nobody looked at: " << effects.size(); }
  Scenario(const Scenario&) = delete;
  Scenario& operator=(const Scenario&) = delete;

  // Runs a command that must be accepted.
  engine::Decision run(const Command& command) {
    now_ = now_ + Duration::from_ms(1);
    Result<engine::Decision> r = engine::decide(state, rules, command, now_);
    EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().message);
    if (!r.ok()) {
      return {};
    }
    for (const Fact& f : r->facts) {
      engine::apply(state, f, effects);
      engine::evolve(replayed_, f);
    }
    effects.insert(effects.end(), r->effects.begin(), r->effects.end());
    const std::vector<std::string> wrong = engine::check_invariants(state);
    EXPECT_TRUE(wrong.empty()) << wrong.front();
    EXPECT_EQ(state, replayed_);
    return std::move(*r);
  }
  Error refused(const Command& command) {
    Result<engine::Decision> r = engine::decide(state, rules, command, now_);
    EXPECT_FALSE(r.ok());
    return r.ok() ? Error{} : r.error();
  }

  JobId submit(JobSpec spec, RequestId request = {}) {
    return run(SubmitJob{{spec.user, spec.nice < 0}, request, std::make_shared<JobSpec>(std::move(spec))}).job;
  }
  Error submit_refused(JobSpec spec) {
    return refused(SubmitJob{{spec.user, false}, {}, std::make_shared<JobSpec>(std::move(spec))});
  }
  void node(const std::string& name, std::uint32_t cores, std::uint32_t gpus = 0) {
    run(RegisterNode{registration(name, hardware(cores, gpus))});
  }
  // One planning pass, applied; returns how many attempts started.
  std::uint64_t schedule() { return run(ApplyPlan{engine::plan(state, rules, {}, now_).placements}).matched; }
  // The same with its promises and preemptions.
  engine::Decision plan_all() { return run(engine::apply_plan(state, engine::plan(state, rules, {}, now_))); }
  void wait(Duration time) { now_ = now_ + time; }
  [[nodiscard]] Instant now() const { return now_; }
  void report(const std::string& node, JobId id, bool ended, Outcome outcome = {}) {
    const Job* j = engine::find_job(state, id);
    const Attempt attempt = j != nullptr ? j->attempt : Attempt{1};
    run(ReportAttempts{node, {AttemptReport{{id, attempt}, ended, std::move(outcome)}}});
  }
  // All effects of one kind, taken out of the pile.
  template <typename T>
  std::vector<T> take() {
    std::vector<T> out;
    Effects rest;
    for (Effect& e : effects) {
      if (auto* t = std::get_if<T>(&e)) {
        out.push_back(std::move(*t));
      } else {
        rest.push_back(std::move(e));
      }
    }
    effects = std::move(rest);
    return out;
  }
  void drop_effects() { effects.clear(); }
  // Lets time go by.
  void pass(Duration time) { now_ = now_ + time; }

  engine::State state;
  sched::Policy rules = policy();
  Effects effects;

 private:
  engine::State replayed_;
  Instant now_ = Instant::from_s(1'700'000'000);
};

}  // namespace muster::testing
