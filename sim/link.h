// Link: the connection between one node daemon and the controller, as ZeroMQ over TCP behaves, and worse.
//
// A connection has a life, the session, which the controller can tell from earlier ones (the ROUTER's own routing id).
// What is under way when a session ends is lost; or the controller still reads it, while the node speaks in the next
// one. What the node sends while there is no session waits in its socket and
// goes out at the start of the next one. Both directions can stall for a while (a lost packet, a full buffer) and then
// go on, or end in a new session. On a rough link orders and reports also overtake each other and come twice;
// registrations keep their place, because a later report says more than an earlier registration.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "sim/messages.h"
#include "sim/random.h"
#include "sim/timeline.h"

namespace muster::sim {

struct LinkOptions {
  Duration delay_min = Duration::from_us(50);
  Duration delay_max = Duration::from_ms(2);
  std::uint64_t double_permille = 0;    // chance that a message comes twice
  std::uint64_t overtake_permille = 0;  // chance that a message is late by up to overtake_max, and passed by others
  Duration overtake_max = Duration::from_ms(500);
  // Chance that the controller still reads what a session that the node has given up had under way.
  std::uint64_t linger_permille = 0;
  // Chance that what a crashed controller had sent still reaches the daemon, after its successor has spoken.
  std::uint64_t outlive_permille = 0;
};

class Link {
 public:
  using SessionId = std::uint64_t;  // 0: none

  Link(Timeline& timeline, Random random, LinkOptions options);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // What is called when a message arrives; and at the node, when a session began.
  std::function<void(SessionId, ToController)> at_controller;
  std::function<void(ToNode)> at_node;
  std::function<void()> node_connected;

  void set_node_up(bool up);  // a daemon that goes down loses what its socket held
  void set_controller_up(bool up);
  void cut();                                      // the session ends; a new one follows
  void forget_lingering();                         // the machine was off for longer than anything is under way
  void stall(Duration up_for, Duration down_for);  // nothing arrives for that long, then all of it in order

  void send_up(ToController message);
  void send_down(SessionId session, ToNode message);  // dropped unless that session still lives

  // From now on nothing is doubled, overtaken or stalled.
  void calm();
  [[nodiscard]] SessionId session() const { return session_; }

 private:
  struct Direction {
    Instant not_before;  // nothing arrives earlier (order, or a stall)
    Instant barrier;     // as not_before, but also for messages that may overtake
  };
  void end_session();
  void linger();
  void connect_soon();
  void transmit_up(ToController message);
  // When a message sent now arrives.
  Duration arrival(Direction& direction, bool keeps_place);

  Timeline& timeline_;
  Random random_;
  LinkOptions options_;
  bool node_up_ = false;
  bool controller_up_ = false;
  SessionId session_ = 0;
  SessionId last_session_ = 0;
  SessionId outliving_ = 0;       // the session of a crashed controller whose messages still arrive
  SessionId lingering_ = 0;       // a session that the node has given up and the controller still reads
  std::uint64_t connecting_ = 0;  // guards against connecting twice
  Direction up_;
  Direction down_;
  std::deque<ToController> waiting_;
};

}  // namespace muster::sim
