// muster account, user, qos: what administrators change, and what everybody may look at.
#include <algorithm>
#include <array>
#include <cstdio>

#include "cli/commands.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/table.h"
#include "lib/base/text.h"
#include "lib/model/accounting.h"
#include "lib/model/command.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

AccountingKind kind_of(Command command) {
  return command == kAccount ? AccountingKind::kAccount
         : command == kUser  ? AccountingKind::kUser
                             : AccountingKind::kQos;
}

std::string percent(std::uint32_t q16) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%.1f%%", static_cast<double>(q16) * 100 / 65536);
  return text.data();
}
std::string factor(std::uint32_t q16) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%.3f", static_cast<double>(q16) / 65536);
  return text.data();
}

// "cpus=16/64": what is in use of what is allowed, as far as that is counted for this holder.
void add_limits(std::string& out, const std::string& prefix, const pb::UseLimits& limits, const pb::InUse* use) {
  const auto add = [&](const char* key, bool set, std::uint64_t limit, std::uint64_t used) {
    if (!set) return;
    out += (out.empty() ? "" : " ") + prefix + key + "=";
    if (use != nullptr) out += std::to_string(used) + "/";
    out += std::to_string(limit);
  };
  const pb::InUse none;
  const pb::InUse& in = use != nullptr ? *use : none;
  add("jobs", limits.has_jobs(), limits.jobs(), in.jobs());
  add("pending", limits.has_pending(), limits.pending(), in.pending());
  add("cpus", limits.has_cpus(), limits.cpus(), in.cpus());
  add("gpus", limits.has_gpus(), limits.gpus(), in.gpus());
  add("nodes", limits.has_nodes(), limits.nodes(), in.nodes());
  add("cpu_minutes", limits.has_cpu_minutes(), limits.cpu_minutes(), in.cpu_minutes());
}
void add_job_limits(std::string& out, const pb::JobLimits& limits) {
  const auto add = [&](const char* key, const std::string& value) {
    out += std::string(out.empty() ? "" : " ") + "job." + key + "=" + value;
  };
  if (limits.has_time_us()) add("time", format_duration(Duration::from_us(limits.time_us())));
  if (limits.has_cpus()) add("cpus", std::to_string(limits.cpus()));
  if (limits.has_gpus()) add("gpus", std::to_string(limits.gpus()));
  if (limits.has_nodes()) add("nodes", std::to_string(limits.nodes()));
}

std::string joined(const google::protobuf::RepeatedPtrField<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ",") + name;
  return text;
}

Table accounts_table(const pb::AccountingList& list) {
  Table table({{"ACCOUNT"},
               {"PARENT", false, 6},
               {"SHARES", true},
               {"SHARE", true},
               {"USED", true},
               {"FACTOR", true},
               {"RUNNING", true},
               {"WAITING", true},
               {"QOS", false, 8},
               {"LIMITS", false, 12}});
  for (const pb::AccountView& view : list.accounts()) {
    const pb::Account& a = view.account();
    std::string limits;
    add_limits(limits, "", a.all(), &view.use());
    add_limits(limits, "user.", a.per_user(), nullptr);
    add_job_limits(limits, a.job());
    const std::string qos =
        a.default_qos().empty()
            ? joined(a.allowed_qos())
            : a.default_qos() + " (default)" + (a.allowed_qos_size() == 0 ? "" : "," + joined(a.allowed_qos()));
    table.add({a.name(), a.parent(), std::to_string(a.shares()), percent(view.fair_share().shares_fraction()),
               percent(view.fair_share().usage_fraction()), factor(view.fair_share().factor()),
               std::to_string(view.use().jobs()), std::to_string(view.use().pending()), qos, limits});
  }
  return table;
}

Table users_table(const pb::AccountingList& list) {
  Table table({{"USER"},
               {"ACCOUNT"},
               {"DEFAULT"},
               {"SHARES", true},
               {"SHARE", true},
               {"USED", true},
               {"FACTOR", true},
               {"RUNNING", true},
               {"WAITING", true},
               {"QOS", false, 8},
               {"LIMITS", false, 12}});
  for (const pb::UserView& user : list.users()) {
    if (user.associations_size() == 0)
      table.add({user.name(), "", "", "", "", "", "", "", "", joined(user.allowed_qos()), ""});
    for (const pb::AssociationView& view : user.associations()) {
      const pb::Association& a = view.association();
      std::string limits;
      add_limits(limits, "", a.all(), &view.use());
      add_job_limits(limits, a.job());
      table.add({user.name(), a.account(), a.account() == user.default_account() ? "yes" : "",
                 std::to_string(a.shares()), percent(view.fair_share().shares_fraction()),
                 percent(view.fair_share().usage_fraction()), factor(view.fair_share().factor()),
                 std::to_string(view.use().jobs()), std::to_string(view.use().pending()), joined(user.allowed_qos()),
                 limits});
    }
  }
  return table;
}

Table qos_table(const pb::AccountingList& list) {
  Table table({{"QOS"},
               {"PRIORITY", true},
               {"FACTOR", true},
               {"RUNNING", true},
               {"WAITING", true},
               {"PREEMPTS", false, 8},
               {"LIMITS", false, 12}});
  for (const pb::QosView& view : list.qos()) {
    const pb::Qos& q = view.qos();
    std::string limits;
    add_limits(limits, "", q.all(), &view.use());
    add_limits(limits, "user.", q.per_user(), nullptr);
    add_limits(limits, "account.", q.per_account(), nullptr);
    add_job_limits(limits, q.job());
    table.add({q.name(), std::to_string(q.priority()), std::to_string(q.usage_factor()) + "%",
               std::to_string(view.use().jobs()), std::to_string(view.use().pending()), joined(q.preempts()), limits});
  }
  return table;
}

int list_records(Command command, const Parsed& parsed) {
  pb::Request request;
  pb::AccountingQuery& query = *request.mutable_accounting();
  query.set_kind(static_cast<std::uint32_t>(kind_of(command)));
  for (std::size_t i = 1; i < parsed.operands.size(); ++i) query.add_names(parsed.operands[i]);
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  pb::AccountingList all;
  const Status status = (*client)->call_parts(
      request,
      [&](pb::Reply& reply) -> Status {
        if (!reply.has_accounting())
          return make_error(ErrorCode::kCorrupt,
                            "the controller's answer is no such list: are both of a like version?");
        all.MergeFrom(reply.accounting());
        return ok_status();
      },
      [&] { all.Clear(); });
  if (!status.ok()) return report_error(status.error());
  if (parsed.has(OptionId::kJson)) {
    print(command == kAccount ? accounts_json(all) : command == kUser ? users_json(all) : qos_list_json(all));
  } else {
    const Table table = command == kAccount ? accounts_table(all)
                        : command == kUser  ? users_table(all)
                                            : qos_table(all);
    print(table.text(output_width(), !parsed.has(OptionId::kNoHeader)));
  }
  for (const std::string& note : all.notes()) error_line(note);
  return all.notes_size() == 0 ? kExitOk : kExitRefused;
}

int change_record(Command command, const Parsed& parsed, AccountingVerb verb) {
  const std::string what = command_info(command).name;
  if (parsed.operands.size() < 2) {
    return usage_error(what + " " + parsed.operands.front() + " needs a name: muster " + what + " " +
                       parsed.operands.front() + " NAME");
  }
  pb::Request request;
  pb::AccountingChange& change = *request.mutable_accounting_change();
  change.set_kind(static_cast<std::uint32_t>(kind_of(command)));
  change.set_verb(static_cast<std::uint32_t>(verb));
  change.set_name(parsed.operands[1]);
  for (std::size_t i = 2; i < parsed.operands.size(); ++i) {
    const std::string& operand = parsed.operands[i];
    const std::size_t equals = operand.find('=');
    if (equals == std::string::npos || equals == 0) {
      return usage_error("\"" + printable(operand) + "\" is no setting: write KEY=VALUE, see `muster " + what +
                         " --help`");
    }
    pb::AccountingSetting& setting = *change.add_settings();
    setting.set_key(operand.substr(0, equals));
    setting.set_value(operand.substr(equals + 1));
  }
  if (verb == AccountingVerb::kModify && change.settings_size() == 0)
    return usage_error("nothing to change: give settings as KEY=VALUE, see `muster " + what + " --help`");
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  const auto reply = (*client)->call(request);
  if (!reply.ok()) return report_error(reply.error());
  for (const std::string& note : reply->operation().notes()) error_line(note);
  if (parsed.has(OptionId::kJson)) print(operation_json(reply->operation()));
  return kExitOk;
}

}  // namespace

int command_accounting(Command command, const Parsed& parsed) {
  const std::string what = command_info(command).name;
  if (parsed.operands.empty()) return usage_error(what + " needs to know what to do: add, modify, delete or list");
  const std::string& verb = parsed.operands.front();
  if (verb == "list" || verb == "show") return list_records(command, parsed);
  if (verb == "add") return change_record(command, parsed, AccountingVerb::kAdd);
  if (verb == "modify") return change_record(command, parsed, AccountingVerb::kModify);
  if (verb == "delete") return change_record(command, parsed, AccountingVerb::kDelete);
  const std::string nearest = nearest_word(verb, {"add", "modify", "delete", "list"});
  return usage_error(what + " " + printable(verb) + ": " +
                     (nearest.empty() ? "use add, modify, delete or list" : "did you mean " + nearest + "?"));
}

}  // namespace muster::cli
