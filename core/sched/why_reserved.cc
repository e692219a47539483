// Why: what reservations and licences have to do with it.
#include <algorithm>
#include <map>
#include <set>

#include "core/sched/request.h"
#include "core/sched/why.h"
#include "lib/base/text.h"

namespace muster::sched {
namespace {

// Reservations that one sentence names.
constexpr std::size_t kNamedMax = 20;

// Times are given as distances: the core knows no time zone.
std::string in_text(Instant at, Instant now) {
  return at <= now ? "now" : "in " + format_duration(at - now);
}

std::string window_text(const Reservation& r, Instant now) {
  const auto window = window_after(r, now);
  std::string text = (r.maintenance ? "maintenance " : "reservation ") + r.name;
  if (window) {
    text += window->start <= now ? " (open for another " + format_duration(window->end - now) + ")"
                                 : " (begins " + in_text(window->start, now) + ")";
  }
  return text;
}

}  // namespace

void Why::access_blocker(const JobSpec& spec, std::vector<Blocker>& out) const {
  if (spec.reservation.empty()) {
    return;
  }
  const std::string& name = spec.reservation;
  switch (cluster_.windows == nullptr ? Windows::Access::kGone : cluster_.windows->access(spec, now_)) {
    case Windows::Access::kOk:
      return;
    case Windows::Access::kGone:
      out.push_back({"reservation",
                     "ReservationDeleted",
                     "reservation " + name + " was deleted: cancel the job, or wait for a new one of this name",
                     {}});
      return;
    case Windows::Access::kEnded:
      out.push_back({"reservation",
                     "ReservationDeleted",
                     "reservation " + name + " is over: cancel the job, or wait until it is given a new time",
                     {}});
      return;
    case Windows::Access::kMaintenance:
      out.push_back(
          {"reservation", "Reservation", "reservation " + name + " is for maintenance now, and nobody runs in it", {}});
      return;
    case Windows::Access::kDenied:
      out.push_back(
          {"reservation", "Reservation", "its user is not on the list of reservation " + name + " any more", {}});
      return;
  }
}

// Whether none of its windows is open for all its time limit.
bool Why::own_window_blocker(const JobSpec& spec, const Reservation& own, std::vector<Blocker>& out) const {
  const auto window = window_after(own, now_);
  const bool open = window && window->start <= now_;
  if (open && end_of(now_, spec.time_limit) <= window->end + kWindowSlack) {
    return false;
  }
  std::string text = "waits for a window of reservation " + own.name;
  if (open) {
    text += ": the one that is open ends in " + format_duration(window->end - now_) + ", before its time limit of " +
            format_duration(spec.time_limit);
    const auto next = window_after(own, window->end);
    text += next ? "; the next one begins " + in_text(next->start, now_) : "; there is no other";
  } else if (window) {
    text += ", which begins " + in_text(window->start, now_);
  }
  out.push_back({"reservation", "Reservation", std::move(text), {}});
  return true;
}

bool Why::window_blocker(const JobSpec& spec, std::vector<Blocker>& out) const {
  const Windows& windows = *present_.windows();
  const Instant end = end_of(now_, spec.time_limit);
  const Reservation* own = spec.reservation.empty() ? nullptr : windows.find(spec.reservation);
  if (own != nullptr && own_window_blocker(spec, *own, out)) {
    return true;
  }
  const Ledger& ledger = cluster_.ledger;
  const NodeFilter filter = filter_of(spec);
  std::vector<std::string> nodes;
  std::set<std::string> texts;
  for (std::size_t rank = 0; rank < ledger.order().size(); ++rank) {
    const NodeIndex index = ledger.order()[rank];
    const NodeCapacity& n = ledger.nodes()[index.value];
    if (!filter.allows(static_cast<std::uint32_t>(rank)) || !n.usable || !windows.touches(index) ||
        windows.allows(index, now_, end, spec.reservation)) {
      continue;
    }
    nodes.push_back(n.name);
    for (const Reservation* r : windows.on(index)) {
      if (r != own && meets_window(*r, now_, end) && texts.size() < kNamedMax) {
        texts.insert(window_text(*r, now_));
      }
    }
  }
  if (nodes.empty()) {
    return false;
  }
  std::string named;
  for (const std::string& text : texts) {
    named += (named.empty() ? "" : ", ") + text;
  }
  std::string text = plural(nodes.size(), "node", "nodes") + (nodes.size() == 1 ? " is" : " are") +
                     " reserved before its time limit of " + format_duration(spec.time_limit) + " ends: " + named +
                     "; ";
  std::vector<std::string> lacking;
  text += node_summary(spec, lacking);
  out.push_back({"reservation", "Reservation", std::move(text), std::move(nodes)});
  return false;
}

void Why::license_blocker(const JobSpec& spec, std::vector<Blocker>& out) const {
  const LicenseLine& line = present_.licenses();
  const Instant end = end_of(now_, spec.time_limit);
  std::string text;
  for (const LicenseCount& one : spec.licenses) {
    const std::int64_t free = line.free(one.name, now_, end);
    const std::int64_t lacking = static_cast<std::int64_t>(one.count) - free;
    if (lacking <= 0) {
      continue;
    }
    const auto total = policy_.licenses.find(one.name);
    const std::uint64_t all = total == policy_.licenses.end() ? 0 : total->second;
    text += (text.empty() ? "lacks " : ", ") + std::to_string(lacking) + " of licence " + one.name + " (" +
            std::to_string(all) + " in all, " + std::to_string(cluster_.licenses->used(one.name)) + " held";
    const auto at = line.earliest({one}, spec.time_limit, now_);
    text += at ? "; they are free " + in_text(*at, now_) + ")" : "; there are too few for it)";
  }
  if (!text.empty()) {
    out.push_back({"licenses", "Licenses", std::move(text), {}});
  }
}

std::vector<std::int64_t> Why::limits_before_windows(const Job& job) const {
  std::set<std::int64_t> limits;
  if (present_.windows() == nullptr) {
    return {};
  }
  const Ledger& ledger = cluster_.ledger;
  const NodeFilter filter = filter_of(*job.spec);
  for (std::size_t rank = 0; rank < ledger.order().size(); ++rank) {
    if (!filter.allows(static_cast<std::uint32_t>(rank))) {
      continue;
    }
    for (const Reservation* r : present_.windows()->on(ledger.order()[rank])) {
      const bool own = r->name == job.spec->reservation;
      const auto window = window_after(*r, now_);
      if (!window) {
        continue;
      }
      // Whole minutes with some to spare, so that it is still true when it has been typed.
      const Instant end = own ? window->end : window->start;
      const std::int64_t seconds = ((end - now_).seconds() - 30) / 60 * 60;
      if (seconds >= 60 && Duration::from_s(seconds) < job.spec->time_limit) {
        limits.insert(seconds);
      }
    }
  }
  return {limits.begin(), limits.end()};
}

}  // namespace muster::sched
