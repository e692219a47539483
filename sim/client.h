// Client: a user at a terminal in the simulation. Submits, cancels, holds, releases, drains and resumes; asks again,
// with the same request id, until it has an answer, however often requests or answers are lost.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/engine/engine.h"
#include "lib/model/command.h"
#include "sim/random.h"
#include "sim/random_spec.h"
#include "sim/timeline.h"

namespace muster::sim {

struct ClientOptions {
  std::string user;
  bool admin = false;  // drains and resumes nodes instead of submitting
  SpecOptions specs;
  Duration think_max = Duration::from_ms(1500);
  Duration timeout = Duration::from_s(2);
};

// What the client learnt for certain, for the simulation's checks.
struct ClientWatch {
  std::function<void(RequestId request, JobId job)> acknowledged;
  std::function<void(JobId job)> cancelled;  // the whole job or array, by its id, and the answer was that it matched
  // Nobody knows whether the nodes are drained until the answer is there.
  std::function<void(const std::vector<std::string>& nodes, std::optional<bool> drained)> drained;
  std::function<void(std::string problem)> problem;
};

class Client {
 public:
  using Reply = std::function<void(const Result<engine::Decision>&)>;
  // Carries a request to the controller and its answer back, or loses one of them.
  using Carrier = std::function<void(const Command&, Reply)>;

  Client(Timeline& timeline, Random random, ClientOptions options, Carrier carrier);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  ClientWatch watch;

  void begin();
  void stop() { stopping_ = true; }  // no new requests; the one under way is finished
  [[nodiscard]] bool idle() const { return !asking_; }
  // One request of the simulation's own, with all the retries of a client. Only after stop() and when idle.
  void ask(Command command, Reply then);

 private:
  void think();
  void act();
  void send();
  void submit();
  void cancel();
  void update();
  void drain();
  void change_accounting();
  void reserve();
  JobSelector some_jobs(bool& whole_job);

  Timeline& timeline_;
  Random random_;
  ClientOptions options_;
  Carrier carrier_;
  bool stopping_ = false;
  bool asking_ = false;
  std::uint64_t request_ = 0;  // number of the request under way
  Command command_;
  Reply then_;
  std::vector<JobId> jobs_;  // acknowledged ones
};

}  // namespace muster::sim
