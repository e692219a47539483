#include "lib/model/accounting.h"

#include <algorithm>
#include <cctype>

#include "lib/base/text.h"

namespace muster {
namespace {

constexpr std::size_t kUserNameBytesMax = 255;  // Linux's LOGIN_NAME_MAX
constexpr std::size_t kNamesInListMax = 1'000;
constexpr std::string_view kPreemptNames[] = {"queue", "requeue", "cancel", "checkpoint", "suspend"};

// One row for each limit: its key and where it lives.
template <typename Limits>
struct LimitRow {
  std::string_view key;
  std::optional<std::uint64_t> Limits::*place;
};
constexpr LimitRow<UseLimits> kUseRows[] = {{"jobs", &UseLimits::jobs},   {"pending", &UseLimits::pending},
                                            {"cpus", &UseLimits::cpus},   {"gpus", &UseLimits::gpus},
                                            {"nodes", &UseLimits::nodes}, {"cpu_minutes", &UseLimits::cpu_minutes}};
constexpr LimitRow<JobLimits> kJobRows[] = {
    {"cpus", &JobLimits::cpus}, {"gpus", &JobLimits::gpus}, {"nodes", &JobLimits::nodes}};
constexpr std::string_view kJobTime = "time";

// A part of a record whose keys begin with `prefix`.
struct Section {
  std::string_view prefix;
  UseLimits* use = nullptr;
  JobLimits* job = nullptr;
};

Status set_number(std::optional<std::uint64_t>& place, const AccountingSetting& s) {
  if (s.value.empty()) {
    place.reset();
    return ok_status();
  }
  MUSTER_ASSIGN(place, parse_count(s.value, s.key, {0, kUseLimitMax}));
  return ok_status();
}

Status set_time(std::optional<Duration>& place, const AccountingSetting& s) {
  if (s.value.empty()) {
    place.reset();
    return ok_status();
  }
  const auto time = parse_duration(s.value);
  if (!time.ok()) {
    return invalid_argument(s.key + ": " + time.error().message);
  }
  place = time->is_infinite() ? std::nullopt : std::optional(*time);
  return ok_status();
}

// Whether the key is a limit of one of the sections, and then what became of it.
std::optional<Status> set_limit(const std::vector<Section>& sections, const AccountingSetting& s) {
  for (const Section& section : sections) {
    if (!s.key.starts_with(section.prefix)) {
      continue;
    }
    const std::string_view name = std::string_view(s.key).substr(section.prefix.size());
    if (section.use != nullptr) {
      for (const auto& row : kUseRows) {
        if (row.key == name) {
          return set_number(section.use->*row.place, s);
        }
      }
    }
    if (section.job != nullptr) {
      for (const auto& row : kJobRows) {
        if (row.key == name) {
          return set_number(section.job->*row.place, s);
        }
      }
      if (name == kJobTime) {
        return set_time(section.job->time, s);
      }
    }
  }
  return std::nullopt;
}

void add_keys(const std::vector<Section>& sections, std::vector<std::string>& keys) {
  for (const Section& section : sections) {
    const std::string prefix(section.prefix);
    if (section.use != nullptr) {
      for (const auto& row : kUseRows) {
        keys.push_back(prefix + std::string(row.key));
      }
    }
    if (section.job != nullptr) {
      keys.push_back(prefix + std::string(kJobTime));
      for (const auto& row : kJobRows) {
        keys.push_back(prefix + std::string(row.key));
      }
    }
  }
}

Error unknown_key(const AccountingSetting& s, std::vector<std::string> keys, const std::vector<Section>& sections) {
  add_keys(sections, keys);
  const std::string nearest = nearest_word(s.key, keys);
  std::string all;
  for (const std::string& key : keys) {
    all += (all.empty() ? "" : ", ") + key;
  }
  return invalid_argument("unknown setting \"" + printable(s.key.substr(0, 80)) +
                          "\": " + (nearest.empty() ? "use one of " + all : "did you mean " + nearest + "?"));
}

Status set_shares(std::uint32_t& shares, const AccountingSetting& s) {
  MUSTER_ASSIGN(const std::uint64_t value, parse_count(s.value.empty() ? "1" : s.value, s.key, {0, kSharesMax}));
  shares = static_cast<std::uint32_t>(value);
  return ok_status();
}

Status set_name(std::string& place, const AccountingSetting& s) {
  if (!s.value.empty() && !is_valid_node_name(s.value)) {
    return invalid_argument(s.key + ": \"" + printable(s.value.substr(0, 80)) +
                            "\" is no name: use 1 to 63 letters, digits, '_', '.', '-'");
  }
  place = s.value;
  return ok_status();
}

// "a,b" is the list, "+c" adds to it, "-a" takes away from it.
Status set_names(std::vector<std::string>& place, const AccountingSetting& s) {
  std::vector<std::string> names;
  std::string_view text = s.value;
  const char sign = !text.empty() && (text.front() == '+' || text.front() == '-') ? text.front() : '=';
  if (sign != '=') {
    text.remove_prefix(1);
  }
  for (const std::string_view item : text.empty() ? std::vector<std::string_view>{} : split(text, ',')) {
    std::string name;
    MUSTER_TRY(set_name(name, {s.key, std::string(trim(item))}));
    if (name.empty()) {
      return invalid_argument(s.key + ": \"" + printable(s.value.substr(0, 80)) +
                              "\" has an empty name: separate names by single commas");
    }
    names.push_back(std::move(name));
  }
  if (sign == '-') {
    std::erase_if(place, [&](const std::string& n) { return std::find(names.begin(), names.end(), n) != names.end(); });
    return ok_status();
  }
  if (sign == '+') {
    names.insert(names.end(), place.begin(), place.end());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (names.size() > kNamesInListMax) {
    return invalid_argument(s.key + ": the list has " + std::to_string(names.size()) + " names: at most " +
                            std::to_string(kNamesInListMax));
  }
  place = std::move(names);
  return ok_status();
}

Status set_preempt_mode(QosPreempt& mode, const AccountingSetting& s) {
  const auto* const end = std::end(kPreemptNames);
  const auto* const found = std::find(std::begin(kPreemptNames), end, s.value.empty() ? kPreemptNames[0] : s.value);
  if (found == end) {
    return invalid_argument(s.key + ": \"" + printable(s.value.substr(0, 80)) +
                            "\" is no mode: use queue, requeue, cancel, checkpoint or suspend");
  }
  mode = static_cast<QosPreempt>(found - std::begin(kPreemptNames));
  return ok_status();
}

std::vector<Section> sections_of(Account& a) {
  return {{"user.", &a.per_user, nullptr}, {"job.", nullptr, &a.job}, {"", &a.all, nullptr}};
}
std::vector<Section> sections_of(Association& a) {
  return {{"job.", nullptr, &a.job}, {"", &a.all, nullptr}};
}
std::vector<Section> sections_of(Qos& q) {
  return {{"user.", &q.per_user, nullptr},
          {"account.", &q.per_account, nullptr},
          {"job.", nullptr, &q.job},
          {"", &q.all, nullptr}};
}

}  // namespace

std::string_view to_string(QosPreempt mode) {
  return kPreemptNames[static_cast<std::size_t>(mode)];
}

const Association* User::association(std::string_view account) const {
  const auto it = std::find_if(associations.begin(), associations.end(),
                               [account](const Association& a) { return a.account == account; });
  return it == associations.end() ? nullptr : &*it;
}

bool is_valid_user_name(std::string_view name) {
  return !name.empty() && name.size() <= kUserNameBytesMax && is_valid_utf8(name) &&
         std::none_of(name.begin(), name.end(), [](char c) {
           const auto byte = static_cast<unsigned char>(c);
           return byte <= 0x20 || byte == 0x7f || c == ',' || c == '=';
         });
}

Status change(Account& account, const AccountingSetting& s) {
  if (s.key == "parent") return set_name(account.parent, s);
  if (s.key == "shares") return set_shares(account.shares, s);
  if (s.key == "allowed_qos") return set_names(account.allowed_qos, s);
  if (s.key == "default_qos") return set_name(account.default_qos, s);
  const auto sections = sections_of(account);
  if (const auto done = set_limit(sections, s)) return *done;
  return unknown_key(s, {"parent", "shares", "allowed_qos", "default_qos"}, sections);
}

Status change(Qos& qos, const AccountingSetting& s) {
  if (s.key == "priority") {
    MUSTER_ASSIGN(const std::int64_t value,
                  parse_integer(s.value.empty() ? "0" : s.value, s.key, -kQosPriorityMax, kQosPriorityMax));
    qos.priority = static_cast<std::int32_t>(value);
    return ok_status();
  }
  if (s.key == "usage_factor") {
    MUSTER_ASSIGN(const std::uint64_t value,
                  parse_count(s.value.empty() ? "100" : s.value, s.key, {0, kUsageFactorMax}));
    qos.usage_factor = static_cast<std::uint32_t>(value);
    return ok_status();
  }
  if (s.key == "preempts") return set_names(qos.preempts, s);
  if (s.key == "preempt_mode") return set_preempt_mode(qos.preempt_mode, s);
  if (s.key == "preempt_grace") {
    std::optional<Duration> grace;
    MUSTER_TRY(set_time(grace, s));
    if (!s.value.empty() && !grace) {
      return invalid_argument(s.key + ": a grace must end: give a time such as 5m");
    }
    qos.preempt_grace = grace.value_or(Duration{});
    return ok_status();
  }
  const auto sections = sections_of(qos);
  if (const auto done = set_limit(sections, s)) return *done;
  return unknown_key(s, {"priority", "usage_factor", "preempts", "preempt_mode", "preempt_grace"}, sections);
}

Status change(User& user, const AccountingSetting& s) {
  if (s.key == "default_account") return set_name(user.default_account, s);
  if (s.key == "allowed_qos") return set_names(user.allowed_qos, s);
  Association any;
  return unknown_key(s, {"account", "default_account", "allowed_qos", "shares"}, sections_of(any));
}

Status change(Association& association, const AccountingSetting& s) {
  if (s.key == "shares") return set_shares(association.shares, s);
  const auto sections = sections_of(association);
  if (const auto done = set_limit(sections, s)) return *done;
  return unknown_key(s, {"account", "default_account", "allowed_qos", "shares"}, sections);
}

bool is_association_key(std::string_view key) {
  Association any;
  std::vector<std::string> keys{"shares"};
  add_keys(sections_of(any), keys);
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

}  // namespace muster
