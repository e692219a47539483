// reservation create|update|delete, show reservation, show license.
#include <algorithm>

#include "cli/commands.h"
#include "cli/json.h"
#include "cli/query.h"
#include "cli/report.h"
#include "cli/table.h"
#include "cli/views.h"
#include "lib/base/text.h"
#include "lib/io/clock.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

using Texts = google::protobuf::RepeatedPtrField<std::string>;

void add_names(const Given& given, Texts& out) {
  for (const std::string_view name : split(*given.value, ',')) {
    if (!trim(name).empty()) *out.Add() = std::string(trim(name));
  }
}

// "n[1-4]", a number of nodes, or ALL.
Status set_nodes(const Given& given, pb::ReservationChange& out) {
  const std::string& text = *given.value;
  if (!text.empty() && text.find_first_not_of("0123456789") == std::string::npos) {
    MUSTER_ASSIGN(const std::uint64_t count, parse_count(text, given.source, {1, kNodeListMax}));
    out.set_node_count(static_cast<std::uint32_t>(count));
    return ok_status();
  }
  const auto names = expand_node_list(text);
  if (!names.ok()) return invalid_argument(given.source + ": " + names.error().message);
  out.set_has_nodes(true);
  for (const std::string& name : *names) out.add_nodes(name);
  return ok_status();
}

// 0 makes it a single window again.
Status set_period(const Given& given, pb::ReservationChange& out) {
  if (*given.value == "0") {
    out.set_every_us(0);
    return ok_status();
  }
  const auto period = parse_duration(*given.value);
  if (!period.ok()) return invalid_argument(given.source + ": " + period.error().message);
  if (period->is_infinite()) return invalid_argument(given.source + " has no end: give a period such as 1d or 7d");
  out.set_every_us(period->us);
  return ok_status();
}

Status set_option(const Given& given, pb::ReservationChange& out) {
  switch (given.option->id) {
    case OptionId::kStart: {
      MUSTER_ASSIGN(const Instant start, parse_time(*given.value, given.source, io::wall_now()));
      out.set_start_us(start.us);
      break;
    }
    case OptionId::kDuration: {
      MUSTER_ASSIGN(const Duration duration, parse_duration(*given.value));
      out.set_duration_us(duration.us);
      break;
    }
    case OptionId::kEvery:
      return set_period(given, out);
    case OptionId::kReservedNodes:
      return set_nodes(given, out);
    case OptionId::kUsers:
      out.set_has_users(true);
      add_names(given, *out.mutable_users());
      break;
    case OptionId::kAccounts:
      out.set_has_accounts(true);
      add_names(given, *out.mutable_accounts());
      break;
    case OptionId::kMaintenance:
      out.set_maintenance(given.value.value_or("yes") == "yes");
      break;
    case OptionId::kIgnoreJobs:
      out.set_ignore_jobs(true);
      break;
    case OptionId::kForce:
      out.set_force(true);
      break;
    default:
      break;  // not about the reservation
  }
  return ok_status();
}

Result<pb::Request> read_command(const Parsed& parsed) {
  const std::string how = "muster reservation create|update|delete NAME";
  if (parsed.operands.empty()) return invalid_argument("reservation needs to know what to do: " + how);
  pb::Request request;
  pb::ReservationChange& change = *request.mutable_reservation_change();
  const std::string& action = parsed.operands.front();
  const std::vector<std::string> actions = {"create", "update", "delete"};
  const auto at = std::find(actions.begin(), actions.end(), action);
  if (at == actions.end()) {
    if (action == "show" || action == "list")
      return invalid_argument("reservation " + action + ": use muster show reservation");
    return invalid_argument("reservation " + printable(action) + ": there is no such action: " + how);
  }
  if (parsed.operands.size() != 2) return invalid_argument("reservation " + action + " needs one name: " + how);
  change.set_action(static_cast<std::uint32_t>(at - actions.begin()));
  change.set_name(parsed.operands[1]);
  for (const Given& given : parsed.given) MUSTER_TRY(set_option(given, change));
  return request;
}

std::vector<std::string> list_of(const Texts& items) {
  return {items.begin(), items.end()};
}

std::string joined(const Texts& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ",") + item;
  return printable(text);
}

std::string duration_text(std::int64_t us) {
  const Duration duration = Duration::from_us(us);
  return duration.is_infinite() ? "unlimited" : format_duration(duration);
}

std::string reservation_text(const pb::ReservationView& view) {
  const pb::Reservation& r = view.reservation();
  std::string out;
  add_line(out, "Reservation", printable(r.name()));
  add_line(out, "State", view.state());
  add_line(out, "Begins", format_time(r.start_us()));
  add_line(out, "Duration", duration_text(r.duration_us()));
  if (r.every_us() != 0) {
    add_line(out, "Every", duration_text(r.every_us()));
  }
  if (view.window_start_us() != 0) {
    const bool endless = view.window_end_us() >= INT64_MAX / 2;
    add_line(
        out, view.state() == "active" ? "Window now" : "Next window",
        format_time(view.window_start_us()) + " to " + (endless ? "unlimited" : format_time(view.window_end_us())));
  }
  add_line(out, "Nodes", std::to_string(r.nodes_size()) + ": " + join_nodes(list_of(r.nodes())));
  add_line(out, "Users", joined(r.users()));
  add_line(out, "Accounts", joined(r.accounts()));
  add_line(out, "Maintenance", r.maintenance() ? "yes, nobody runs" : "no");
  add_line(out, "Jobs",
           std::to_string(view.jobs_pending()) + " pending, " + std::to_string(view.jobs_active()) + " running");
  add_line(out, "Made by", printable(r.created_by()) + " at " + format_time(r.created_us()));
  return out;
}

void add_asked(const Parsed& parsed, Texts& names) {
  for (std::size_t i = 1; i < parsed.operands.size(); ++i) *names.Add() = parsed.operands[i];
}

int report_notes(const Texts& notes) {
  for (const std::string& note : notes) error_line(note);
  return notes.empty() ? kExitOk : kExitRefused;
}

}  // namespace

int command_reservation(const Parsed& parsed) {
  auto request = read_command(parsed);
  if (!request.ok()) return usage_error(request.error());
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  const auto reply = (*client)->call(*request);
  if (!reply.ok()) return report_error(reply.error());
  return report_operation(reply->operation(), parsed.has(OptionId::kJson));
}

int show_reservations(Client& client, const Parsed& parsed) {
  pb::Request request;
  add_asked(parsed, *request.mutable_reservations()->mutable_names());
  const auto reply = client.call(request);
  if (!reply.ok()) return report_error(reply.error());
  const pb::ReservationList& list = reply->reservations();
  if (parsed.has(OptionId::kJson)) {
    print(reservations_json(list));
    return report_notes(list.notes());
  }
  std::string text;
  for (const pb::ReservationView& view : list.reservations())
    text += (text.empty() ? "" : "\n") + reservation_text(view);
  print(text.empty() && list.notes().empty() ? "There are no reservations.\n" : text);
  return report_notes(list.notes());
}

int show_licenses(Client& client, const Parsed& parsed) {
  pb::Request request;
  add_asked(parsed, *request.mutable_licenses()->mutable_names());
  const auto reply = client.call(request);
  if (!reply.ok()) return report_error(reply.error());
  const pb::LicenseList& list = reply->licenses();
  if (parsed.has(OptionId::kJson)) {
    print(licenses_json(list));
    return report_notes(list.notes());
  }
  Table table({{"LICENSE"}, {"TOTAL", true}, {"USED", true}, {"FREE", true}});
  for (const pb::LicenseView& view : list.licenses())
    table.add({view.name(), std::to_string(view.total()), std::to_string(view.used()),
               std::to_string(view.total() - std::min(view.total(), view.used()))});
  print(table.empty() && list.notes().empty() ? "There are no licences: scheduling.licenses sets them up.\n"
                                              : table.text(output_width()));
  return report_notes(list.notes());
}

}  // namespace muster::cli
