// Reservations and licences: changes and questions.
#include <algorithm>
#include <utility>

#include "ctld/requests_common.h"
#include "lib/base/text.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

using Texts = google::protobuf::RepeatedPtrField<std::string>;

std::vector<std::string> list_of(const Texts& items) {
  return {items.begin(), items.end()};
}

Result<MakeReservation> read_change(const pb::ReservationChange& in, const Caller& caller) {
  const auto bounded = [](std::int64_t us, std::int64_t max, const char* option) -> Status {
    return us < 0 || us > max ? Status(invalid_argument(std::string(option) + " is out of bounds: give a smaller time"))
                              : ok_status();
  };
  MUSTER_TRY(bounded(in.start_us(), INT64_MAX / 2, "--start"));
  MUSTER_TRY(bounded(in.duration_us(), Duration::infinite().us, "--duration"));
  MUSTER_TRY(bounded(in.every_us(), Duration::infinite().us, "--every"));
  if (in.nodes_size() > static_cast<int>(kNodeListMax)) {
    return invalid_argument("--nodes names more than " + std::to_string(kNodeListMax) + " nodes: name fewer");
  }
  MakeReservation out;
  out.caller = caller;
  out.name = in.name();
  out.create = in.action() == 0;
  if (in.has_start_us()) out.start = Instant::from_us(in.start_us());
  if (in.has_duration_us()) out.duration = Duration::from_us(in.duration_us());
  if (in.has_every_us()) out.every = Duration::from_us(in.every_us());
  if (in.has_nodes()) out.nodes = list_of(in.nodes());
  out.node_count = in.node_count();
  if (in.has_users()) out.users = list_of(in.users());
  if (in.has_accounts()) out.accounts = list_of(in.accounts());
  if (in.has_maintenance()) out.maintenance = in.maintenance();
  out.ignore_jobs = in.ignore_jobs();
  return out;
}

// Names that are asked for and not there become notes; without names all are meant.
template <typename Map>
std::vector<std::string> asked_names(const Texts& names, const Map& known, const char* what, Texts& notes) {
  std::vector<std::string> result;
  if (names.empty()) {
    for (const auto& [name, value] : known) {
      result.push_back(name);
    }
  }
  for (const std::string& name : names) {
    if (known.contains(name)) {
      result.push_back(name);
    } else {
      *notes.Add() = std::string(what) + " " + printable(name.substr(0, 80)) + ": no such " + what +
                     ": see `muster show " + what + "`";
    }
  }
  return result;
}

}  // namespace

void Requests::change_reservation(const Call& call, const pb::Request& request) {
  const pb::ReservationChange& in = request.reservation_change();
  Command command;
  if (in.action() == 2) {
    command = RemoveReservation{call.caller, in.name(), in.force()};
  } else if (in.action() > 2) {
    return fail(call, invalid_argument("the reservation cannot be changed that way: use a client of the same version"));
  } else {
    auto change = read_change(in, call.caller);
    if (!change.ok()) {
      return fail(call, change.error());
    }
    command = std::move(*change);
  }
  const auto decision = pipeline_.execute(command);
  if (!decision.ok()) {
    return fail(call, decision.error());
  }
  auto message = std::make_shared<pb::Reply>();
  pb::OperationReply& out = *message->mutable_operation();
  out.set_matched(decision->matched);
  for (std::size_t i = 0; i < std::min(decision->notes.size(), kNotesMax); ++i) {
    out.add_notes(decision->notes[i]);
  }
  reply_after_commit(call, std::move(message));
}

void Requests::reservations(const Call& call, const pb::Request& request) {
  const engine::State& state = pipeline_.state();
  const Instant now = pipeline_.now();
  auto message = std::make_shared<pb::Reply>();
  pb::ReservationList& list = *message->mutable_reservations();
  const auto names =
      asked_names(request.reservations().names(), state.reservations, "reservation", *list.mutable_notes());
  struct Jobs {
    std::uint64_t pending = 0;
    std::uint64_t active = 0;
  };
  std::map<std::string, Jobs> jobs;
  if (!names.empty()) {
    for (const auto* records : {&state.jobs, &state.arrays}) {
      for (const auto& [id, job] : *records) {
        if (!job.spec->reservation.empty()) {
          Jobs& of = jobs[job.spec->reservation];
          std::uint64_t waiting = job.is_active() || job.is_array_record ? 0 : 1;
          for (const PositionRange& range : job.waiting) {
            waiting += range.end - range.begin;
          }
          of.pending += waiting;
          of.active += job.is_active() ? 1 : 0;
        }
      }
    }
  }
  for (const std::string& name : names) {
    const Reservation& reservation = state.reservations.at(name);
    pb::ReservationView& view = *list.add_reservations();
    wire::to_pb(reservation, *view.mutable_reservation());
    const auto window = window_after(reservation, now);
    view.set_state(!window ? "ended" : window->start <= now ? "active" : "waiting");
    if (window) {
      view.set_window_start_us(window->start.us);
      view.set_window_end_us(window->end.us);
    }
    view.set_jobs_pending(jobs[name].pending);
    view.set_jobs_active(jobs[name].active);
  }
  reply_after_commit(call, std::move(message));
}

void Requests::licenses(const Call& call, const pb::Request& request) {
  const LicenseTotals& totals = pipeline_.policy().licenses;
  auto message = std::make_shared<pb::Reply>();
  pb::LicenseList& list = *message->mutable_licenses();
  for (const std::string& name : asked_names(request.licenses().names(), totals, "license", *list.mutable_notes())) {
    pb::LicenseView& view = *list.add_licenses();
    view.set_name(name);
    view.set_total(totals.at(name));
    view.set_used(pipeline_.state().licenses.used(name));
  }
  reply_after_commit(call, std::move(message));
}

}  // namespace muster::ctld
