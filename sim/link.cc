#include "sim/link.h"

#include <algorithm>
#include <utility>

namespace muster::sim {
namespace {
constexpr Duration kReconnectMin = Duration::from_ms(1);
constexpr Duration kReconnectMax = Duration::from_ms(300);  // ZMQ_RECONNECT_IVL as the daemons set it
}  // namespace

Link::Link(Timeline& timeline, Random random, LinkOptions options)
    : timeline_(timeline), random_(random), options_(options) {}

void Link::set_node_up(bool up) {
  node_up_ = up;
  waiting_.clear();
  outliving_ = 0;
  linger();
  end_session();
  connect_soon();
}

void Link::set_controller_up(bool up) {
  controller_up_ = up;
  lingering_ = 0;
  if (!up && session_ != 0) outliving_ = random_.permille(options_.outlive_permille) ? session_ : 0;
  end_session();
  connect_soon();
}

void Link::cut() {
  linger();
  end_session();
  connect_soon();
}

void Link::forget_lingering() {
  lingering_ = 0;
}

void Link::stall(Duration up_for, Duration down_for) {
  up_.barrier = up_.not_before = std::max(up_.not_before, timeline_.now() + up_for);
  down_.barrier = down_.not_before = std::max(down_.not_before, timeline_.now() + down_for);
}

void Link::calm() {
  options_.double_permille = 0;
  options_.overtake_permille = 0;
  options_.linger_permille = 0;
  options_.outlive_permille = 0;
}

void Link::linger() {
  if (session_ != 0 && random_.permille(options_.linger_permille)) lingering_ = session_;
}

void Link::end_session() {
  session_ = 0;
  ++connecting_;
  up_ = {};
  down_ = {};
}

void Link::connect_soon() {
  if (!node_up_ || !controller_up_ || session_ != 0) return;
  timeline_.after(random_.duration(kReconnectMin, kReconnectMax), [this, mine = ++connecting_] {
    if (mine != connecting_) return;
    session_ = ++last_session_;
    while (!waiting_.empty()) {
      transmit_up(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    if (node_connected) node_connected();
  });
}

Duration Link::arrival(Direction& direction, bool keeps_place) {
  const Instant now = timeline_.now();
  Instant at = now + random_.duration(options_.delay_min, options_.delay_max);
  if (!keeps_place && random_.permille(options_.overtake_permille)) {
    // Late, and it holds nobody up.
    at = at + random_.duration(Duration{}, options_.overtake_max);
    return std::max(at, direction.barrier) - now;
  }
  at = std::max(at, direction.not_before);
  direction.not_before = at;
  if (keeps_place) direction.barrier = at;
  return at - now;
}

void Link::transmit_up(ToController message) {
  // A heartbeat says nothing that could be out of date.
  const bool registration = std::holds_alternative<NodeRegistration>(message);
  // What the checks find now takes the place of what they found before.
  const bool keeps_place = registration || std::holds_alternative<Health>(message);
  const int copies = !registration && random_.permille(options_.double_permille) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    timeline_.after(arrival(up_, keeps_place), [this, session = session_, message] {
      if (session == session_ || session == lingering_) at_controller(session, message);
    });
  }
}

void Link::send_up(ToController message) {
  if (session_ == 0) {
    waiting_.push_back(std::move(message));
  } else {
    transmit_up(std::move(message));
  }
}

void Link::send_down(SessionId session, ToNode message) {
  if (session == 0 || session != session_) return;
  const int copies = random_.permille(options_.double_permille) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    timeline_.after(arrival(down_, false), [this, session, message] {
      if (session == session_ || session == outliving_) at_node(message);
    });
  }
}

}  // namespace muster::sim
