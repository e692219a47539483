// Windows: the reservations as a pass sees them: on which nodes, when, and for whom. Kept by evolve() from the records.
// A value. A node without a reservation costs a pass one look-up.
//
// A job that names a reservation may run only on its nodes and within one of its windows; every other job only outside of
// all windows. Windows are computed from start, duration and period when they are asked for, however far away they are.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/time.h"
#include "lib/model/ids.h"
#include "lib/model/job_spec.h"
#include "lib/model/reservation.h"

namespace muster::sched {

// A job of a reservation may end this much after its window: a planner starts jobs some moments after a window has begun,
// and a job that asks for exactly the window's length should run. Another window's begin is never passed.
inline constexpr Duration kWindowSlack = Duration::from_s(10);

class Windows {
 public:
  // Takes the place of all that was there. `index` maps names to nodes; names that it lacks are passed over.
  void rebuild(const std::map<std::string, Reservation>& reservations,
               const std::map<std::string, NodeIndex, std::less<>>& index);
  // As if the reservation had been made or, when `name` is its name and it is null, removed.
  [[nodiscard]] Windows with(const std::string& name, const Reservation* reservation,
                             const std::map<std::string, NodeIndex, std::less<>>& index) const;

  [[nodiscard]] bool empty() const { return reservations_.empty(); }
  [[nodiscard]] const Reservation* find(std::string_view name) const;
  // The reservations of a node.
  [[nodiscard]] bool touches(NodeIndex node) const {
    return node.value < by_node_.size() && !by_node_[node.value].empty();
  }
  [[nodiscard]] std::vector<const Reservation*> on(NodeIndex node) const;
  // The one whose window is open on the node; null: none is.
  [[nodiscard]] const Reservation* open_on(NodeIndex node, Instant at) const;

  // Why jobs like this one cannot use the reservation that they name, whatever the time is.
  enum class Access : std::uint8_t { kOk, kGone, kEnded, kMaintenance, kDenied };
  [[nodiscard]] Access access(const JobSpec& spec, Instant now) const;

  // Whether an attempt may hold the node in [from, until). `reservation` is what its job names; empty: none.
  [[nodiscard]] bool allows(NodeIndex node, Instant from, Instant until, std::string_view reservation) const;
  // The earliest start, not before `from`, of an attempt of this length; nothing when there is none (or none among the
  // next thousand windows of a node that several reservations share).
  [[nodiscard]] std::optional<Instant> next_start(NodeIndex node, Instant from, Duration limit,
                                                  std::string_view reservation) const;
  // Appends the instants in (from, to] at which allows() may change its answer for a start there and this length; of each
  // reservation those of its next hundred windows.
  void changes(NodeIndex node, Instant from, Instant to, Duration limit, std::vector<Instant>& out) const;
  // When the next window begins or ends; nothing when none will.
  [[nodiscard]] std::optional<Instant> next_change(Instant after) const;
  // From then on windows come in their periods alone: single ones are over, and all others have begun.
  [[nodiscard]] Instant regular_from() const;
  // The longest period.
  [[nodiscard]] Duration longest_period() const;

  // The nodes that a job may use that may use `queue_nodes` (empty: all) and names the reservation.
  [[nodiscard]] std::vector<std::string> nodes_for(std::string_view reservation,
                                                   const std::vector<std::string>& queue_nodes) const;

  // Rises with every change.
  [[nodiscard]] std::uint64_t revision() const { return revision_; }
  friend bool operator==(const Windows& a, const Windows& b) {
    return a.reservations_ == b.reservations_ && a.by_node_ == b.by_node_;
  }

 private:
  [[nodiscard]] const Reservation* own_on(NodeIndex node, std::string_view reservation) const;
  [[nodiscard]] bool meets_others(NodeIndex node, Instant from, Instant until, const Reservation* own) const;

  std::vector<Reservation> reservations_;            // by name
  std::vector<std::vector<std::uint32_t>> by_node_;  // places in reservations_
  std::uint64_t revision_ = 0;
};

}  // namespace muster::sched
