#include "core/engine/reservation.h"

#include <algorithm>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "core/engine/normalise.h"
#include "core/sched/span.h"
#include "lib/base/text.h"
#include "lib/model/job_name.h"

namespace muster::engine {
namespace {

// A start that lies so little in the past is meant as "now": the clocks of two machines differ, and requests take time.
constexpr Duration kStartGrace = Duration::from_s(60);
// A promise that moves by less is not told as delayed; the journal does not write it either.
constexpr Duration kDelayTold = Duration::from_s(60);
// Jobs and nodes that one sentence names.
constexpr std::size_t kNamedMax = 20;

Error refused(std::string message) {
  return make_error(ErrorCode::kRefused, std::move(message));
}

std::string shown(const std::string& name) {
  return printable(name.substr(0, 60));
}

std::string in_text(Instant at, Instant now) {
  return at <= now ? "at once" : "in " + format_duration(at - now);
}

// "12, 14, 17 and 5 more".
std::string listed(const std::vector<std::string>& items) {
  std::string text;
  for (std::size_t i = 0; i < items.size() && i < kNamedMax; ++i) {
    text += (i == 0 ? "" : ", ") + items[i];
  }
  return items.size() <= kNamedMax ? text : text + " and " + std::to_string(items.size() - kNamedMax) + " more";
}
std::string jobs_text(const std::vector<std::string>& ids) {
  return (ids.size() == 1 ? "job " : "jobs ") + listed(ids);
}

// `text` says who names it.
Error no_reservation(const State& state, const std::string& name, const std::string& text) {
  std::vector<std::string> known;
  for (const auto& [each, reservation] : state.reservations) {
    known.push_back(each);
  }
  const std::string nearest = nearest_word(name, known);
  return make_error(ErrorCode::kNotFound,
                    text + (nearest.empty() ? ": see muster show reservation" : ": did you mean " + nearest + "?"));
}

Error needs_administrator() {
  return make_error(ErrorCode::kPermissionDenied,
                    "reservations are managed with an administrator's key: ask one of them");
}

// The jobs that wait and name the reservation.
std::vector<const Job*> waiting_for(const State& state, const std::string& name) {
  std::vector<const Job*> jobs;
  for (const auto* records : {&state.jobs, &state.arrays}) {
    for (const auto& [id, job] : *records) {
      if (job.spec->reservation == name && !job.is_active() && (!job.is_array_record || !job.waiting.empty())) {
        jobs.push_back(&job);
      }
    }
  }
  return jobs;
}

class Make {
 public:
  Make(const State& state, const sched::Policy& policy, const MakeReservation& command, Instant now)
      : s_(state), policy_(policy), c_(command), now_(now) {}

  Result<Decision> run() {
    MUSTER_TRY(begin());
    MUSTER_TRY(set_times());
    MUSTER_TRY(set_members());
    MUSTER_TRY(set_nodes());
    MUSTER_TRY(check_new());
    MUSTER_TRY(check_overlap());
    MUSTER_TRY(check_running());
    d_.matched = 1;
    const auto before = s_.reservations.find(r_.name);
    if (before == s_.reservations.end() || before->second != r_) {
      note_orphans();
      note_delays();
      d_.facts.push_back(Fact{now_, ReservationMade{r_}});
    }
    return std::move(d_);
  }

 private:
  Status begin() {
    if (!c_.caller.admin) {
      return needs_administrator();
    }
    const auto known = s_.reservations.find(c_.name);
    if (!c_.create) {
      if (known == s_.reservations.end()) {
        return no_reservation(s_, c_.name, "there is no reservation " + shown(c_.name));
      }
      r_ = known->second;
      return ok_status();
    }
    if (!is_valid_node_name(c_.name)) {
      return invalid_argument("\"" + printable(c_.name.substr(0, 80)) +
                              "\" is no name of a reservation: use 1 to 63 letters, digits, '_', '.', '-'");
    }
    if (known == s_.reservations.end() && s_.reservations.size() >= kReservationsMax) {
      return make_error(ErrorCode::kLimitReached, "there are " + std::to_string(s_.reservations.size()) +
                                                      " reservations, which is the limit: delete some");
    }
    r_.name = c_.name;
    r_.created_by = c_.caller.user;
    r_.created = now_;
    return ok_status();
  }

  Status set_times() {
    if (c_.create && !c_.start) {
      return invalid_argument(
          "--start is missing: say when the reservation begins, such as now+1h or 2030-01-31T08:00");
    }
    if (c_.create && !c_.duration) {
      return invalid_argument("--duration is missing: say how long the reservation lasts, such as 2h");
    }
    r_.start = c_.start.value_or(r_.start);
    r_.duration = c_.duration.value_or(r_.duration);
    r_.every = c_.every.value_or(r_.every);
    if (r_.duration < kWindowMin) {
      return invalid_argument("--duration is not positive: give at least a second");
    }
    if (r_.every < Duration{} || (r_.every != Duration{} && r_.every < kPeriodMin)) {
      return invalid_argument("--every is shorter than " + format_duration(kPeriodMin) +
                              ": give a longer period, such as 1d, or 0 for a single window");
    }
    if (r_.every != Duration{} && r_.every < r_.duration) {
      return invalid_argument("--every " + format_duration(r_.every) + " is shorter than --duration " +
                              format_duration(r_.duration) + ": windows of one reservation cannot overlap");
    }
    if (c_.start && r_.start + kStartGrace < now_) {
      return refused("--start lies " + format_duration(now_ - r_.start) +
                     " in the past: give the present (now) or a later time");
    }
    if (!window_after(r_, now_)) {
      return refused("reservation " + r_.name + " is over: give a new --start");
    }
    return ok_status();
  }

  Status set_members() {
    r_.users = c_.users.value_or(r_.users);
    r_.accounts = c_.accounts.value_or(r_.accounts);
    r_.maintenance = c_.maintenance.value_or(r_.maintenance);
    r_.ignore_jobs = c_.ignore_jobs || (!c_.create && r_.ignore_jobs);
    for (auto* list : {&r_.users, &r_.accounts}) {
      const char* option = list == &r_.users ? "--users" : "--accounts";
      if (list->size() > kReservationMembersMax) {
        return invalid_argument(std::string(option) + " has more than " + std::to_string(kReservationMembersMax) +
                                " names: name accounts instead of users");
      }
      std::set<std::string> seen;
      std::erase_if(*list, [&seen](const std::string& name) { return !seen.insert(name).second; });
      for (const std::string& name : *list) {
        if (name.empty() || name.size() > kNameBytesMax || printable(name) != name) {
          return invalid_argument(std::string(option) + " names \"" + printable(name.substr(0, 60)) +
                                  "\", which is no name: write names separated by commas");
        }
      }
    }
    const bool members = !r_.users.empty() || !r_.accounts.empty();
    if (r_.maintenance && members) {
      return invalid_argument(
          "nobody runs in a maintenance reservation, and this one has users or accounts: leave --maintenance out, or "
          "set "
          "--users= and --accounts= to nothing");
    }
    if (!r_.maintenance && !members) {
      return invalid_argument(
          "nobody could use the reservation: give --users or --accounts, or --maintenance if nobody shall");
    }
    return ok_status();
  }

  Status set_nodes() {
    if (c_.node_count != 0) {
      return pick_nodes();
    }
    if (c_.nodes) {
      r_.nodes = *c_.nodes;
      if (r_.nodes == std::vector<std::string>{"ALL"} && find_node(s_, "ALL") == nullptr) {
        r_.nodes.clear();
        for (const Node& node : s_.nodes) {
          r_.nodes.push_back(node.name);
        }
      }
    }
    if (r_.nodes.empty()) {
      return invalid_argument("--nodes is missing: name nodes such as n[1-4], give their number, or ALL");
    }
    std::vector<std::string> known;
    for (const std::string& name : r_.nodes) {
      if (find_node(s_, name) != nullptr) {
        continue;
      }
      for (const Node& node : s_.nodes) {
        known.push_back(node.name);
      }
      const std::string nearest = nearest_word(name, known);
      return invalid_argument("--nodes names the unknown node " + printable(name.substr(0, 80)) +
                              (nearest.empty() ? ": see muster nodes" : ": did you mean " + nearest + "?"));
    }
    std::sort(r_.nodes.begin(), r_.nodes.end(), natural_less);
    r_.nodes.erase(std::unique(r_.nodes.begin(), r_.nodes.end()), r_.nodes.end());
    return ok_status();
  }

  // The same once more is the request of a client that lost the answer.
  Status check_new() {
    const auto known = s_.reservations.find(r_.name);
    if (!c_.create || known == s_.reservations.end() || !window_after(known->second, now_)) {
      return ok_status();
    }
    r_.created = known->second.created;
    return known->second == r_ ? ok_status()
                               : Status(refused("reservation " + r_.name +
                                                " is there already: change it with muster reservation update " +
                                                r_.name + ", or choose another name"));
  }

  // The first nodes in service that no other reservation has then and where no job reaches into it.
  Status pick_nodes() {
    r_.nodes.clear();
    std::vector<std::string> ids;
    for (const NodeIndex index : s_.ledger.order()) {
      if (r_.nodes.size() == c_.node_count) {
        break;
      }
      ids.clear();
      add_running(index, ids);
      if (s_.ledger.nodes()[index.value].usable && rival_on(index) == nullptr && ids.empty()) {
        r_.nodes.push_back(s_.nodes[index.value].name);
      }
    }
    if (r_.nodes.size() < c_.node_count) {
      return refused("--nodes " + std::to_string(c_.node_count) + ": only " + std::to_string(r_.nodes.size()) +
                     " nodes in service are free then: ask for fewer, or for another time");
    }
    return ok_status();
  }

  const Reservation* rival_on(NodeIndex node) const {
    for (const Reservation* other : s_.windows.on(node)) {
      if (other->name != r_.name && windows_overlap(*other, r_)) {
        return other;
      }
    }
    return nullptr;
  }

  Status check_overlap() const {
    for (const std::string& name : r_.nodes) {
      if (const Reservation* other = rival_on(find_node(s_, name)->index)) {
        return refused("node " + name + " belongs to reservation " + other->name +
                       " at some of that time: choose other nodes or another time, or delete that one");
      }
    }
    return ok_status();
  }

  // Jobs on the node whose time limit reaches into a window and that do not belong to it.
  void add_running(NodeIndex node, std::vector<std::string>& ids) const {
    for (const JobId id : s_.jobs_on_node[node.value]) {
      const Job& job = s_.jobs.at(id);
      const Instant end = sched::believed_end(std::get<Active>(job.phase));
      if (job.spec->reservation != r_.name && meets_window(r_, now_, std::max(end, now_ + Duration::from_us(1)))) {
        ids.push_back(job_name(job));
      }
    }
  }

  Status check_running() const {
    if (r_.ignore_jobs) {
      return ok_status();
    }
    std::set<std::string, decltype(&natural_less)> ids(&natural_less);
    for (const std::string& name : r_.nodes) {
      std::vector<std::string> on;
      add_running(find_node(s_, name)->index, on);
      ids.insert(on.begin(), on.end());
    }
    if (ids.empty()) {
      return ok_status();
    }
    return refused(
        "the time limits of running " + jobs_text({ids.begin(), ids.end()}) +
        " reach into the reservation: choose a later time or other nodes, or let them run with --ignore-jobs");
  }

  // Jobs that wait for the reservation and that can run in it no more.
  void note_orphans() {
    std::vector<std::string> denied;
    std::vector<std::string> long_ones;
    for (const Job* job : waiting_for(s_, r_.name)) {
      if (r_.maintenance || !admits(r_, job->spec->user, job->spec->account)) {
        denied.push_back(job_name(*job));
      } else if (is_too_long(*job->spec, r_)) {
        long_ones.push_back(job_name(*job));
      }
    }
    if (!denied.empty()) {
      d_.notes.push_back(jobs_text(denied) + " may not use reservation " + r_.name +
                         " any more and will wait for ever: "
                         "cancel them, or admit their users");
    }
    if (!long_ones.empty()) {
      d_.notes.push_back(jobs_text(long_ones) + " of reservation " + r_.name +
                         " have time limits longer than its windows and will wait for ever");
    }
  }

  // Which promised starts it moves.
  void note_delays() {
    if (s_.promised.empty()) {
      return;
    }
    const sched::Windows windows = s_.windows.with(r_.name, &r_, s_.node_by_name);
    sched::Cluster cluster = cluster_of(s_);
    const auto before = starts_of(cluster);
    cluster.windows = &windows;
    const auto after = starts_of(cluster);
    for (const auto& [id, promise] : s_.promised) {
      const auto was = before.find(id);
      if (was == before.end()) {
        continue;
      }
      const auto is = after.find(id);
      const std::string job = "job " + std::to_string(id.value);
      if (is == after.end()) {
        d_.notes.push_back(job + ", which was promised a start " + in_text(was->second, now_) +
                           ", fits at no time beside the reservation");
      } else if (is->second > was->second + kDelayTold) {
        d_.notes.push_back(job + ", which was promised a start " + in_text(was->second, now_) + ", will start " +
                           in_text(is->second, now_) + " because of the reservation");
      }
    }
  }

  std::map<JobId, Instant> starts_of(const sched::Cluster& cluster) const {
    const sched::DefaultOrder order(policy_, &s_.accounts, now_);
    const sched::Plan plan = sched::look_ahead(cluster, policy_, order, 0, now_).plan;
    std::map<JobId, Instant> starts;
    for (const Placement& p : plan.placements) {
      starts.emplace(p.job, now_);
    }
    for (const sched::Promise& p : plan.promises) {
      starts.emplace(p.job, p.start);
    }
    return starts;
  }

 public:
  static bool is_too_long(const JobSpec& spec, const Reservation& r) {
    const bool continuous = r.every != Duration{} && r.every <= r.duration;
    return !continuous && spec.time_limit > r.duration;
  }

 private:
  const State& s_;
  const sched::Policy& policy_;
  const MakeReservation& c_;
  Instant now_;
  Reservation r_;
  Decision d_;
};

Status check_licenses(const sched::Policy& policy, JobSpec& spec) {
  MUSTER_ASSIGN(spec.licenses, merged_licenses(std::move(spec.licenses), "--licenses"));
  for (const LicenseCount& one : spec.licenses) {
    const auto total = policy.licenses.find(one.name);
    if (total == policy.licenses.end()) {
      std::vector<std::string> known;
      for (const auto& [name, count] : policy.licenses) {
        known.push_back(name);
      }
      const std::string nearest = nearest_word(one.name, known);
      return invalid_argument("--licenses names the unknown licence " + one.name + ": " +
                              (nearest.empty() ? "see muster show license" : "did you mean " + nearest + "?"));
    }
    if (one.count > total->second) {
      return refused("--licenses asks for " + std::to_string(one.count) + " of licence " + one.name +
                     ", the cluster has " + std::to_string(total->second) + ": ask for fewer");
    }
  }
  return ok_status();
}

Status check_reservation(const State& state, const JobSpec& spec, Instant now) {
  if (spec.reservation.empty()) {
    return ok_status();
  }
  const std::string option = "--reservation " + shown(spec.reservation);
  const Reservation* r = state.windows.find(spec.reservation);
  switch (state.windows.access(spec, now)) {
    case sched::Windows::Access::kGone:
      return no_reservation(state, spec.reservation, option + " does not exist");
    case sched::Windows::Access::kEnded:
      return refused(option + ": the reservation is over: leave the option out, or name another one");
    case sched::Windows::Access::kMaintenance:
      return refused(option + ": it is for maintenance, and nobody runs in it: leave the option out");
    case sched::Windows::Access::kDenied:
      return make_error(ErrorCode::kPermissionDenied,
                        option + ": user " + printable(spec.user) +
                            (spec.account.empty() ? "" : " with account " + printable(spec.account)) +
                            " is not on its list: ask an administrator, or leave the option out");
    case sched::Windows::Access::kOk:
      break;
  }
  if (Make::is_too_long(spec, *r)) {
    return refused("--time " + format_duration(spec.time_limit) + " is longer than the windows of reservation " +
                   r->name + ": ask for at most " + format_duration(r->duration));
  }
  return ok_status();
}

}  // namespace

Result<Decision> make_reservation(const State& state, const sched::Policy& policy, const MakeReservation& command,
                                  Instant now) {
  return Make(state, policy, command, now).run();
}

Result<Decision> remove_reservation(const State& state, const RemoveReservation& command, Instant now) {
  if (!command.caller.admin) {
    return needs_administrator();
  }
  if (!state.reservations.contains(command.name)) {
    return no_reservation(state, command.name, "there is no reservation " + shown(command.name));
  }
  std::vector<std::string> ids;
  for (const Job* job : waiting_for(state, command.name)) {
    ids.push_back(std::to_string(job->id.value));
  }
  Decision d;
  if (!ids.empty()) {
    if (!command.force) {
      return refused("pending " + jobs_text(ids) + " would be left without reservation " + command.name +
                     ": cancel them, or delete it with --force; they then wait until there is one of this name again");
    }
    d.notes.push_back(jobs_text(ids) + " now wait until there is a reservation " + command.name +
                      " again: cancel them "
                      "if there will be none");
  }
  d.matched = 1;
  d.facts.push_back(Fact{now, ReservationRemoved{command.name}});
  return d;
}

std::string forgotten_reservation(const State& state, Instant now) {
  const auto it = std::find_if(state.reservations.begin(), state.reservations.end(), [now](const auto& entry) {
    return !window_after(entry.second, now - kReservationKept);
  });
  return it == state.reservations.end() ? std::string() : it->first;
}

Status check_reservation_and_licenses(const State& state, const sched::Policy& policy, JobSpec& spec, Instant now) {
  MUSTER_TRY(check_licenses(policy, spec));
  return check_reservation(state, spec, now);
}

PlacementRules::PlacementRules(const State& state, const sched::Policy& policy, Instant now)
    : s_(state), now_(now), licenses_(policy.licenses, state.licenses, now) {}

const char* PlacementRules::refusal(const Job& job, const Placement& placement) const {
  const JobSpec& spec = *job.spec;
  const Instant end = sched::end_of(now_, sched::given_limit(placement, spec));
  if (!licenses_.covers(spec.licenses, now_, end)) {
    return "its licences are not free any more";
  }
  if (s_.windows.access(spec, now_) != sched::Windows::Access::kOk) {
    return "may not use its reservation";
  }
  const bool reserved = !spec.reservation.empty();
  for (const NodeShare& share : placement.shares) {
    if ((reserved || s_.windows.touches(share.node)) && !s_.windows.allows(share.node, now_, end, spec.reservation)) {
      return "a node of the plan is reserved for others before its time limit ends";
    }
  }
  return nullptr;
}

void PlacementRules::started(const Job& job, const Placement& placement) {
  licenses_.take(job.spec->licenses, now_, sched::end_of(now_, sched::given_limit(placement, *job.spec)));
}

}  // namespace muster::engine
