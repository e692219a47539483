// What travels between the controller and a node in the simulation: the messages of lib/wire/muster.proto as values.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "lib/model/orders.h"

namespace muster::sim {

struct Heartbeat {};
struct Reports {
  std::vector<AttemptReport> reports;
};
struct Health {
  std::vector<HealthProblem> problems;
};
using ToController = std::variant<NodeRegistration, Heartbeat, Reports, Health>;

struct HeartbeatReply {};
struct RunChecks {};
struct Registered {};
struct RegisterAgain {
  std::uint64_t sequence_above = 0;
};
struct Acknowledge {
  AttemptKey key;
};
struct ToNode {
  Term term;
  std::variant<HeartbeatReply, Registered, RegisterAgain, Acknowledge, LaunchOrder, StopOrder, LimitOrder, SuspendOrder,
               RunChecks>
      body;
};

}  // namespace muster::sim
