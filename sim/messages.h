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
using ToController = std::variant<NodeRegistration, Heartbeat, Reports>;

struct HeartbeatReply {};
struct Registered {};
struct RegisterAgain {
  std::uint64_t sequence_above = 0;
};
struct Acknowledge {
  AttemptKey key;
};
struct ToNode {
  Term term;
  std::variant<HeartbeatReply, Registered, RegisterAgain, Acknowledge, LaunchOrder, StopOrder, LimitOrder, SuspendOrder>
      body;
};

}  // namespace muster::sim
