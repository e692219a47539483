// Changes of jobs and of settings: `muster update`.
#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ctld/policy.h"
#include "ctld/requests_common.h"
#include "lib/base/text.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

// Settings of one request.
constexpr int kChangesMax = 1'000;

std::string queue_key(const std::string& queue) {
  return "queue." + queue;
}

Error unknown_queue(const std::string& name, const config::Config& config) {
  std::vector<std::string> known;
  for (const auto& [queue, section] : config.queues) {
    known.push_back(queue);
  }
  const std::string nearest = nearest_word(name, known);
  return make_error(ErrorCode::kNotFound, "unknown queue " + printable(name) +
                                              (nearest.empty() ? ": see `muster show queue`; --create makes a new one"
                                                               : ": did you mean " + nearest + "?"));
}

// Collects what a request changes, and what the settings would be then.
class SettingsChange {
 public:
  SettingsChange(const config::Config& file, const config::Config& current, config::Settings settings)
      : file_(file), current_(current), settings_(std::move(settings)) {}

  Status apply(const pb::SettingsRequest& in) {
    if (in.changes_size() > kChangesMax) {
      return invalid_argument("more than " + std::to_string(kChangesMax) + " settings in one request: give fewer");
    }
    if (!in.create_queue().empty()) {
      MUSTER_TRY(create(in.create_queue()));
    }
    if (!in.delete_queue().empty()) {
      MUSTER_TRY(remove(in.delete_queue()));
    }
    if (!in.reset_queue().empty()) {
      if (!current_.queues.contains(in.reset_queue())) {
        return unknown_queue(in.reset_queue(), current_);
      }
      unset_below(queue_key(in.reset_queue()) + ".");
    }
    for (const auto& change : in.changes()) {
      if (change.is_set()) {
        set(change.key(), change.value());
      } else {
        MUSTER_TRY(config::check_setting(change.key()));
        unset(change.key());
      }
    }
    return ok_status();
  }

  [[nodiscard]] const config::Settings& settings() const { return settings_; }
  std::vector<SettingChanged> take_changes() { return std::move(changes_); }

 private:
  Status create(const std::string& name) {
    if (!is_valid_node_name(name) || name.find('.') != std::string::npos) {
      return invalid_argument("\"" + printable(name.substr(0, 80)) +
                              "\" is no name for a queue: use 1 to 63 letters, digits, '_', '-'");
    }
    if (settings_.contains(queue_key(name))) {
      return ok_status();  // a repeated request
    }
    if (current_.queues.contains(name)) {
      return make_error(ErrorCode::kAlreadyExists, "queue " + name + " exists already: change it without --create");
    }
    set(queue_key(name), config::kQueueMade);
    return ok_status();
  }

  Status remove(const std::string& name) {
    if (!current_.queues.contains(name)) {
      return unknown_queue(name, current_);
    }
    if (file_.queues.contains(name)) {
      return make_error(ErrorCode::kRefused, "queue " + name +
                                                 " is in the configuration file: remove it there, or set its state to "
                                                 "inactive");
    }
    unset_below(queue_key(name) + ".");
    unset(queue_key(name));
    return ok_status();
  }

  void set(const std::string& key, const std::string& value) {
    settings_[key] = value;
    changes_.push_back({key, value});
  }
  void unset(const std::string& key) {
    settings_.erase(key);
    changes_.push_back({key, std::nullopt});
  }
  void unset_below(const std::string& prefix) {
    std::vector<std::string> keys;
    for (auto it = settings_.lower_bound(prefix); it != settings_.end() && it->first.starts_with(prefix); ++it) {
      keys.push_back(it->first);
    }
    for (const std::string& key : keys) {
      unset(key);
    }
  }

  const config::Config& file_;
  const config::Config& current_;
  config::Settings settings_;
  std::vector<SettingChanged> changes_;
};

// A queue may have nodes that are still to come, and a name may be mistyped.
std::vector<std::string> unknown_nodes(const engine::State& state, const std::vector<SettingChanged>& changes) {
  std::vector<std::string> remarks;
  for (const SettingChanged& change : changes) {
    if (!change.key.starts_with("queue.") || !change.key.ends_with(".nodes") || !change.value) {
      continue;
    }
    const auto names = expand_node_list(*change.value);
    std::vector<std::string> unknown;
    if (names.ok()) {
      std::copy_if(names->begin(), names->end(), std::back_inserter(unknown),
                   [&state](const std::string& name) { return !state.node_by_name.contains(name); });
    }
    if (!unknown.empty()) {
      remarks.push_back(change.key + ": " + fold_node_list(unknown) + (unknown.size() == 1 ? " is" : " are") +
                        " not known yet: see `muster nodes`");
    }
  }
  return remarks;
}

}  // namespace

void Requests::update(const Call& call, const pb::Request& request) {
  auto selector = read_selector(request.update().jobs(), pipeline_.policy());
  if (!selector.ok()) {
    return fail(call, selector.error());
  }
  if (selector->items.empty()) {
    return fail(call, invalid_argument("no job is selected: name the jobs to change"));
  }
  auto change = wire::from_pb(request.update());
  if (!change.ok()) {
    return fail(call, change.error());
  }
  UpdateJobs command{.caller = call.caller, .jobs = std::move(*selector), .change = std::move(*change), .ended = {}};
  const Dependency dependency =
      command.change.has(SpecField::kDependency) ? command.change.values.dependency : Dependency{};
  look_up_ended(call, dependency, [this, call, command](std::vector<EndedJob> ended) mutable {
    command.ended = std::move(ended);
    operate_on_jobs(call, command);
  });
}

void Requests::change_settings(const Call& call, const pb::Request& request) {
  engine::ChangeSettings command;
  command.caller = call.caller;
  command.force = request.settings().force();
  std::vector<std::string> unused;
  const auto& now = pipeline_.state().settings;
  const config::Config current = config::with_usable_settings(config_, now, unused);
  SettingsChange change(config_, current, now);
  if (const Status status = change.apply(request.settings()); !status.ok()) {
    return fail(call, status.error());
  }
  const auto config = config::with_settings(config_, change.settings());
  if (!config.ok()) {
    return fail(call, config.error());
  }
  auto policy = make_policy(*config);
  if (!policy.ok()) {
    return fail(call, policy.error());
  }
  command.changes = change.take_changes();
  std::vector<std::string> unknown = unknown_nodes(pipeline_.state(), command.changes);
  auto decision = pipeline_.change_settings(command, std::move(*policy));
  if (!decision.ok()) {
    return fail(call, decision.error());
  }
  decision->remarks.insert(decision->remarks.end(), unknown.begin(), unknown.end());
  answer_operation(call, decision->matched, decision->notes, decision->remarks);
}

// What counts now, and where it comes from.
void Requests::show_config(const Call& call) {
  std::vector<std::string> unused;
  const auto& settings = pipeline_.state().settings;
  const config::Config current = config::with_usable_settings(config_, settings, unused);
  std::map<std::string, std::string> configured;
  for (const auto& key : config::show(config_)) {
    configured.emplace(key.name, key.value);
  }
  auto message = std::make_shared<pb::Reply>();
  auto& out = *message->mutable_config();
  for (const auto& key : config::show(current)) {
    auto& value = *out.add_values();
    value.set_key(key.name);
    value.set_value(key.value);
    value.set_source(key.is_default ? "default" : config_.path);
    if (key.name.starts_with("queue.")) {
      value.set_run_time_queue(settings.contains(key.name.substr(0, key.name.rfind('.'))));
    }
    if (settings.contains(key.name)) {
      value.set_source("changed at run time");
      value.set_overridden(true);
      const auto in_file = configured.find(key.name);
      value.set_configured(in_file == configured.end() ? "" : in_file->second);
    }
  }
  reply_after_commit(call, std::move(message));
}

}  // namespace muster::ctld
