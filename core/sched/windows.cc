#include "core/sched/windows.h"

#include <algorithm>
#include <set>

#include "core/sched/horizon.h"

namespace muster::sched {
namespace {

constexpr int kWindowsLookedAt = 1'000;
constexpr int kWindowsListed = 100;

bool before_name(const Reservation& r, std::string_view name) {
  return r.name < name;
}

bool is_continuous(const Reservation& r) {
  return r.every > Duration{} && r.every <= r.duration;
}

}  // namespace

void Windows::rebuild(const std::map<std::string, Reservation>& reservations,
                      const std::map<std::string, NodeIndex, std::less<>>& index) {
  reservations_.clear();
  by_node_.clear();
  for (const auto& [name, reservation] : reservations) {
    const auto place = static_cast<std::uint32_t>(reservations_.size());
    reservations_.push_back(reservation);
    for (const std::string& node : reservation.nodes) {
      const auto it = index.find(node);
      if (it == index.end()) {
        continue;
      }
      if (by_node_.size() <= it->second.value) {
        by_node_.resize(it->second.value + 1);
      }
      std::vector<std::uint32_t>& on = by_node_[it->second.value];
      if (on.empty() || on.back() != place) {
        on.push_back(place);
      }
    }
  }
  ++revision_;
}

Windows Windows::with(const std::string& name, const Reservation* reservation,
                      const std::map<std::string, NodeIndex, std::less<>>& index) const {
  std::map<std::string, Reservation> all;
  for (const Reservation& r : reservations_) {
    all.emplace(r.name, r);
  }
  all.erase(name);
  if (reservation != nullptr) {
    all.emplace(name, *reservation);
  }
  Windows result;
  result.rebuild(all, index);
  return result;
}

const Reservation* Windows::find(std::string_view name) const {
  const auto it = std::lower_bound(reservations_.begin(), reservations_.end(), name, before_name);
  return it == reservations_.end() || it->name != name ? nullptr : &*it;
}

std::vector<const Reservation*> Windows::on(NodeIndex node) const {
  std::vector<const Reservation*> result;
  if (touches(node)) {
    for (const std::uint32_t place : by_node_[node.value]) {
      result.push_back(&reservations_[place]);
    }
  }
  return result;
}

const Reservation* Windows::open_on(NodeIndex node, Instant at) const {
  for (const Reservation* r : on(node)) {
    if (meets_window(*r, at, at + Duration::from_us(1))) {
      return r;
    }
  }
  return nullptr;
}

Windows::Access Windows::access(const JobSpec& spec, Instant now) const {
  if (spec.reservation.empty()) {
    return Access::kOk;
  }
  const Reservation* r = find(spec.reservation);
  if (r == nullptr) {
    return Access::kGone;
  }
  if (!window_after(*r, now)) {
    return Access::kEnded;
  }
  if (r->maintenance) {
    return Access::kMaintenance;
  }
  return admits(*r, spec.user, spec.account) ? Access::kOk : Access::kDenied;
}

const Reservation* Windows::own_on(NodeIndex node, std::string_view reservation) const {
  if (touches(node)) {
    for (const std::uint32_t place : by_node_[node.value]) {
      if (reservations_[place].name == reservation) {
        return &reservations_[place];
      }
    }
  }
  return nullptr;
}

bool Windows::meets_others(NodeIndex node, Instant from, Instant until, const Reservation* own) const {
  if (!touches(node)) {
    return false;
  }
  const std::vector<std::uint32_t>& places = by_node_[node.value];
  return std::any_of(places.begin(), places.end(), [&](std::uint32_t place) {
    const Reservation& r = reservations_[place];
    return &r != own && meets_window(r, from, until);
  });
}

bool Windows::allows(NodeIndex node, Instant from, Instant until, std::string_view reservation) const {
  if (reservation.empty()) {
    return !meets_others(node, from, until, nullptr);
  }
  const Reservation* own = own_on(node, reservation);
  const auto window = own == nullptr ? std::nullopt : window_after(*own, from);
  return window && window->start <= from && until <= window->end + kWindowSlack &&
         !meets_others(node, from, until, own);
}

std::optional<Instant> Windows::next_start(NodeIndex node, Instant from, Duration limit,
                                           std::string_view reservation) const {
  const Reservation* own = reservation.empty() ? nullptr : own_on(node, reservation);
  if (!reservation.empty() && own == nullptr) {
    return std::nullopt;
  }
  Instant at = from;
  for (int i = 0; i < kWindowsLookedAt; ++i) {
    if (allows(node, at, end_of(at, limit), reservation)) {
      return at;
    }
    std::optional<Instant> next;
    if (own != nullptr) {
      // The window that is open is too short, or the next one is yet to come.
      const auto window = window_after(*own, at);
      if (!window) {
        return std::nullopt;
      }
      const auto later = window->start > at ? window : window_after(*own, window->end);
      if (!later || limit > later->end - later->start + kWindowSlack) {
        return std::nullopt;
      }
      next = later->start;
    } else {
      for (const Reservation* r : on(node)) {
        const auto window = window_after(*r, at);
        if (!window || window->start >= end_of(at, limit)) {
          continue;
        }
        const bool never = r->every > Duration{} && (is_continuous(*r) || limit > r->every - r->duration);
        if (never) {
          return std::nullopt;  // it fits between no two windows
        }
        next = next ? std::max(*next, window->end) : window->end;
      }
    }
    if (!next || *next <= at) {
      return std::nullopt;
    }
    at = *next;
  }
  return std::nullopt;
}

void Windows::changes(NodeIndex node, Instant from, Instant to, Duration limit, std::vector<Instant>& out) const {
  const auto add = [&](Instant at) {
    if (at > from && at <= to) {
      out.push_back(at);
    }
  };
  for (const Reservation* r : on(node)) {
    Instant at = from;
    for (int i = 0; i < kWindowsListed && at <= end_of(to, limit); ++i) {
      const auto window = window_after(*r, at);
      if (!window) {
        break;
      }
      add(window->start);
      add(window->end);
      if (!limit.is_infinite()) {
        // The first starts that reach into the window, and beyond it.
        add(window->start - limit + Duration::from_us(1));
        add(window->end + kWindowSlack - limit + Duration::from_us(1));
      }
      at = window->end;
    }
  }
}

std::optional<Instant> Windows::next_change(Instant after) const {
  std::optional<Instant> next;
  for (const Reservation& r : reservations_) {
    const auto window = window_after(r, after);
    if (!window) {
      continue;
    }
    const Instant at = window->start > after ? window->start : window->end;
    next = next ? std::min(*next, at) : at;
  }
  return next;
}

Instant Windows::regular_from() const {
  Instant from;
  for (const Reservation& r : reservations_) {
    from = std::max(from, r.every > Duration{} ? r.start : end_of(r.start, r.duration));
  }
  return from;
}

Duration Windows::longest_period() const {
  Duration longest;
  for (const Reservation& r : reservations_) {
    longest = std::max(longest, r.every);
  }
  return longest;
}

std::vector<std::string> Windows::nodes_for(std::string_view reservation,
                                            const std::vector<std::string>& queue_nodes) const {
  const Reservation* r = reservation.empty() ? nullptr : find(reservation);
  if (r == nullptr) {
    return queue_nodes;
  }
  if (queue_nodes.empty()) {
    return r->nodes;
  }
  const std::set<std::string> known(queue_nodes.begin(), queue_nodes.end());
  std::vector<std::string> result;
  for (const std::string& name : r->nodes) {
    if (known.contains(name)) {
      result.push_back(name);
    }
  }
  if (result.empty()) {
    result.emplace_back();  // no node has this name; an empty list would mean all of them
  }
  return result;
}

}  // namespace muster::sched
