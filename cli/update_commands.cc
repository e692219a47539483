// muster update: jobs, queues, settings.
#include <algorithm>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/job_ids.h"
#include "cli/job_options.h"
#include "cli/query.h"
#include "cli/report.h"
#include "lib/base/text.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::cli {
namespace {

constexpr OptionId kOfSettings[] = {OptionId::kSet, OptionId::kReset, OptionId::kCreate, OptionId::kDelete,
                                    OptionId::kForce};
constexpr OptionId kOfEverything[] = {OptionId::kConfig, OptionId::kKey, OptionId::kTimeout, OptionId::kJson};

template <typename List>
bool is_among(OptionId id, const List& list) {
  return std::find(std::begin(list), std::end(list), id) != std::end(list);
}

int send(const Parsed& parsed, pb::Request& request) {
  auto client = Client::open(connect_options(parsed));
  if (!client.ok()) return report_error(client.error());
  const auto reply = (*client)->call(request);
  if (!reply.ok()) return report_error(reply.error());
  return report_operation(reply->operation(), parsed.has(OptionId::kJson));
}

int update_jobs(const Parsed& parsed) {
  for (const Given& given : parsed.given) {
    if (is_among(given.option->id, kOfSettings)) {
      return usage_error(given.source + " is about queues and settings: write muster update queue NAME, or config");
    }
  }
  JobSelector selector;
  for (const std::string& operand : parsed.operands) {
    auto items = parse_job_list(operand);
    if (!items.ok()) return usage_error(items.error());
    std::move(items->begin(), items->end(), std::back_inserter(selector.items));
  }
  const auto change = build_change(parsed, read_surroundings());
  if (!change.ok()) return usage_error(change.error());
  if (change->fields.empty())
    return usage_error("nothing to change: give an option with its new value, as in --time 2h");
  pb::Request request;
  wire::to_pb(*change, *request.mutable_update());
  wire::to_pb(selector, *request.mutable_update()->mutable_jobs());
  return send(parsed, request);
}

// "key=value"; the key gets `prefix` in front.
Status add_setting(const std::string& text, const std::string& prefix, pb::SettingsRequest& out) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return invalid_argument("\"" + printable(text.substr(0, 80)) + "\" is no setting: write KEY=VALUE");
  }
  pb::SettingChanged& change = *out.add_changes();
  change.set_key(prefix + std::string(trim(text.substr(0, equals))));
  change.set_is_set(true);
  change.set_value(std::string(trim(text.substr(equals + 1))));
  return ok_status();
}

void add_reset(const std::string& key, const std::string& prefix, pb::SettingsRequest& out) {
  out.add_changes()->set_key(prefix + key);
}

// Options and the operands from `first` on: KEY=VALUE to set, KEY to reset.
Status read_settings(const Parsed& parsed, std::size_t first, const std::string& prefix, pb::SettingsRequest& out) {
  for (const Given& given : parsed.given) {
    if (given.option->id == OptionId::kSet) MUSTER_TRY(add_setting(*given.value, prefix, out));
    if (given.option->id == OptionId::kReset && given.value) add_reset(*given.value, prefix, out);
  }
  for (std::size_t i = first; i < parsed.operands.size(); ++i) {
    const std::string& operand = parsed.operands[i];
    if (operand.find('=') == std::string::npos && parsed.has(OptionId::kReset)) {
      add_reset(operand, prefix, out);
    } else {
      MUSTER_TRY(add_setting(operand, prefix, out));
    }
  }
  return ok_status();
}

int update_queue(const Parsed& parsed, pb::Request& request) {
  if (parsed.operands.size() < 2) return usage_error("update queue needs the queue's name: muster update queue NAME");
  pb::SettingsRequest& settings = *request.mutable_settings();
  const std::string& name = parsed.operands[1];
  if (auto status = read_settings(parsed, 2, "queue." + name + ".", settings); !status.ok())
    return usage_error(status.error());
  if (parsed.has(OptionId::kCreate)) settings.set_create_queue(name);
  if (parsed.has(OptionId::kDelete)) settings.set_delete_queue(name);
  const bool resets_a_key = std::any_of(settings.changes().begin(), settings.changes().end(),
                                        [](const pb::SettingChanged& change) { return !change.is_set(); });
  if (parsed.has(OptionId::kReset) && !resets_a_key) settings.set_reset_queue(name);
  if (settings.changes().empty() && !parsed.has(OptionId::kCreate) && !parsed.has(OptionId::kDelete) &&
      !parsed.has(OptionId::kReset))
    return usage_error("nothing to change: give --set KEY=VALUE, --reset, --create or --delete");
  if (parsed.has(OptionId::kDelete) && (parsed.has(OptionId::kCreate) || !settings.changes().empty()))
    return usage_error("--delete stands alone: leave out what else is to be changed");
  return send(parsed, request);
}

int update_config(const Parsed& parsed, pb::Request& request) {
  if (parsed.has(OptionId::kCreate) || parsed.has(OptionId::kDelete))
    return usage_error("--create and --delete are about queues: write muster update queue NAME");
  if (auto status = read_settings(parsed, 1, "", *request.mutable_settings()); !status.ok())
    return usage_error(status.error());
  if (request.settings().changes().empty())
    return usage_error("nothing to change: give --set SECTION.KEY=VALUE, or --reset=SECTION.KEY");
  return send(parsed, request);
}

}  // namespace

int command_update(const Parsed& parsed) {
  if (parsed.operands.empty())
    return usage_error("update needs jobs, a queue or config: muster update ID... --option value");
  const std::string& kind = parsed.operands.front();
  if (kind != "queue" && kind != "config") return update_jobs(parsed);
  for (const Given& given : parsed.given) {
    if (!is_among(given.option->id, kOfSettings) && !is_among(given.option->id, kOfEverything))
      return usage_error(given.source + " is about jobs: name some, or write --set KEY=VALUE");
  }
  pb::Request request;
  request.mutable_settings()->set_force(parsed.has(OptionId::kForce));
  return kind == "queue" ? update_queue(parsed, request) : update_config(parsed, request);
}

}  // namespace muster::cli
