#include "lib/config/config.h"

// Some of toml++'s own assertions fail for malformed text, which its parser then refuses in an orderly way.
#define TOML_ASSERT(expression) static_cast<void>(0)
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include "lib/base/text.h"
#include "lib/config/key_table.h"

namespace muster::config {
namespace {

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShownMax = 80;
  return "\"" + printable(text.substr(0, kShownMax)) + (text.size() > kShownMax ? "...\"" : "\"");
}

// `did you mean "x"?` or the list of what there is.
std::string hint(std::string_view word, const std::vector<std::string>& known, const char* what) {
  if (const std::string near = nearest_word(word, known); !near.empty()) return "did you mean " + in_quotes(near) + "?";
  std::string all;
  for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
  return std::string(what) + " " + all;
}

Error unknown_key(std::string_view key, std::string_view section, std::string_view row_section,
                  const std::string& place) {
  return invalid_argument("unknown key " + in_quotes(key) + " in [" + printable(section.substr(0, 80)) + "] at " +
                          place + ": " + hint(key, key_names(row_section), "the keys there are"));
}

Error unknown_section(std::string_view section, const std::string& place) {
  std::vector<std::string> known = section_names();
  for (std::string& name : known) {
    if (const std::string_view word = named_word(name); !word.empty()) name = std::string(word);
  }
  return invalid_argument("unknown section [" + printable(section.substr(0, 80)) + "] at " + place + ": " +
                          hint(section, known, "the sections are"));
}

Error bad_value(std::string_view section, std::string_view key, const std::string& place, const Error& why) {
  return make_error(why.code, "bad value of " + std::string(key) + " in [" + printable(section) + "] at " + place +
                                  ": " + why.message);
}

// The section with this name, made with its defaults where it is new.
template <typename Section>
Result<Section*> section_named(std::map<std::string, Section>& sections, std::string_view name, std::size_t max,
                               const std::string& what, const std::string& place, bool& is_new) {
  const auto known = sections.find(std::string(name));
  is_new = known == sections.end();
  if (!is_new) return &known->second;
  if (sections.size() >= max) {
    return invalid_argument("too many " + what + (what == "switch" ? "es" : "s") + " at " + place + ": at most " +
                            std::to_string(max) + " are possible");
  }
  return &sections[std::string(name)];
}

Result<Named> named(Config& config, std::string_view word, std::string_view name, const std::string& place) {
  const std::string what(word);
  if (!is_valid_node_name(name)) {
    return invalid_argument("bad " + what + " name " + in_quotes(name) + " at " + place +
                            ": use 1 to 63 letters, digits, '_', '.', '-'");
  }
  Named result;
  bool is_new = false;
  if (word == named_word(kQueueSection)) {
    MUSTER_ASSIGN(result.queue, section_named(config.queues, name, kQueuesMax, what, place, is_new));
  } else if (word == named_word(kFeatureSection)) {
    MUSTER_ASSIGN(result.feature, section_named(config.features, name, kNamedSectionsMax, what, place, is_new));
  } else if (word == named_word(kSwitchSection)) {
    MUSTER_ASSIGN(result.network_switch, section_named(config.switches, name, kNamedSectionsMax, what, place, is_new));
    if (is_new) result.network_switch->place = place;
  } else {
    MUSTER_ASSIGN(result.block, section_named(config.blocks, name, kNamedSectionsMax, what, place, is_new));
    if (is_new) {
      result.block->place = place;
      config.block_order.emplace_back(name);
    }
  }
  if (!is_new) return result;
  for (const Row& row : table()) {
    if (named_word(row.section) != word) continue;
    const auto raw = raw_from_text(row, row.default_value);
    MUSTER_CHECK(raw.ok() && store(row, config, result, *raw, "").ok());
  }
  return result;
}

void remember(Config& config, const std::string& name) {
  auto& known = config.explicit_keys;
  const auto at = std::lower_bound(known.begin(), known.end(), name);
  if (at == known.end() || *at != name) known.insert(at, name);
}

// One pass over a parsed file.
class FileReader {
 public:
  FileReader(Config& config, const std::string& file, const std::string& base_dir)
      : config_(config), file_(file), base_dir_(base_dir) {}

  Status read(const toml::table& root) {
    for (const auto& [key, node] : root) {
      const toml::table* section = node.as_table();
      if (section == nullptr) return outside_section(key);
      if (!named_section_of(key.str()).empty()) {
        MUSTER_TRY(read_named(key.str(), *section));
        continue;
      }
      if (key_names(key.str()).empty()) return unknown_section(key.str(), place(key.source()));
      MUSTER_TRY(read_section(key.str(), key.str(), {}, *section));
    }
    return ok_status();
  }

 private:
  Status outside_section(const toml::key& key) {
    if (!named_section_of(key.str()).empty() || !key_names(key.str()).empty()) {
      return invalid_argument("[" + printable(key.str()) + "] at " + place(key.source()) +
                              " is no section: write the section's name in brackets on a line of its own");
    }
    return invalid_argument("key " + in_quotes(key.str()) + " at " + place(key.source()) +
                            " stands outside of a section: write it below a line such as [node]");
  }

  // [queue.main], [switch.leaf1], in the order of the file.
  Status read_named(std::string_view word, const toml::table& sections) {
    std::vector<std::pair<const toml::key*, const toml::node*>> in_order;
    for (const auto& [name, node] : sections) in_order.emplace_back(&name, &node);
    std::stable_sort(in_order.begin(), in_order.end(), [](const auto& a, const auto& b) {
      const auto line = [](const toml::key& key) { return key.source().begin; };
      return std::pair(line(*a.first).line, line(*a.first).column) <
             std::pair(line(*b.first).line, line(*b.first).column);
    });
    for (const auto& [name, node] : in_order) {
      const toml::table* section = node->as_table();
      if (section == nullptr) {
        return invalid_argument("key " + in_quotes(name->str()) + " in [" + std::string(word) + "] at " +
                                place(name->source()) + " belongs to no " + std::string(word) +
                                ": write it below a line such as [" + std::string(word) + ".main]");
      }
      MUSTER_ASSIGN(const Named one, named(config_, word, name->str(), place(name->source())));
      MUSTER_TRY(
          read_section(std::string(word) + "." + std::string(name->str()), named_section_of(word), one, *section));
    }
    return ok_status();
  }

  Status read_section(std::string_view name, std::string_view row_section, Named queue, const toml::table& section) {
    for (const auto& [key, node] : section) {
      const Row* row = find_row(row_section, key.str());
      if (row == nullptr) return unknown_key(key.str(), name, row_section, place(key.source()));
      const auto raw = raw_from_node(node);
      const Status stored = raw.ok() ? store(*row, config_, queue, *raw, base_dir_) : Status(raw.error());
      if (!stored.ok()) return bad_value(name, key.str(), place(node.source()), stored.error());
      remember(config_, std::string(name) + "." + std::string(key.str()));
    }
    return ok_status();
  }

  static Result<RawValue> raw_from_node(const toml::node& node) {
    if (const auto* text = node.as_string()) return RawValue(text->get());
    if (const auto* number = node.as_integer()) return RawValue(number->get());
    if (const auto* flag = node.as_boolean()) return RawValue(flag->get());
    if (const auto* array = node.as_array()) {
      std::vector<std::string> items;
      for (const toml::node& item : *array) {
        const auto* text = item.as_string();
        if (text == nullptr) return invalid_argument("the list has an item that is no text: write each in quotes");
        items.push_back(text->get());
      }
      return RawValue(std::move(items));
    }
    return invalid_argument("a fraction, date or table cannot stand here: give text, a whole number, true or false");
  }

  [[nodiscard]] std::string place(const toml::source_region& source) const {
    return printable(file_) + ":" + std::to_string(source.begin.line) + ":" + std::to_string(source.begin.column);
  }

  Config& config_;
  const std::string& file_;
  const std::string& base_dir_;
};

std::string folder_of(const std::string& path) {
  std::error_code ignored;
  const std::filesystem::path absolute = std::filesystem::absolute(path, ignored);
  return absolute.parent_path().string();
}

Config bare_defaults() {
  Config config;
  for (const Row& row : table()) {
    if (!named_word(row.section).empty()) continue;
    const auto raw = raw_from_text(row, row.default_value);
    MUSTER_CHECK(raw.ok() && store(row, config, {}, *raw, "").ok());
  }
  return config;
}

// What holds between keys.
Status finish(Config& config, const std::string& file) {
  const std::string in_file = file.empty() ? "" : " in " + printable(file);
  if (config.queues.empty()) MUSTER_TRY(named(config, "queue", config.job.default_queue, "job.default_queue"));
  if (!config.queues.contains(config.job.default_queue)) {
    return invalid_argument("default_queue in [job] names the queue " + in_quotes(config.job.default_queue) + in_file +
                            ", which does not exist: add [queue." + config.job.default_queue + "] or name another");
  }
  if (config.job.default_time > config.job.max_time) {
    return invalid_argument("default_time in [job]" + in_file + " is longer than max_time: make one of them fit");
  }
  for (const auto& [name, queue] : config.queues) {
    if (queue.max_nodes != 0 && queue.min_nodes > queue.max_nodes) {
      return invalid_argument("min_nodes in [queue." + name + "]" + in_file +
                              " is above max_nodes: no job could ask for so many and so few");
    }
    if (queue.default_time > queue.max_time) {
      return invalid_argument("default_time in [queue." + name + "]" + in_file +
                              " is longer than max_time: make one of them fit");
    }
  }
  MUSTER_TRY(features_of(config));
  MUSTER_TRY(node_features_of(config));
  MUSTER_TRY(topology_of(config));
  return ok_status();
}

struct SplitName {
  std::string section;      // as written, "queue.main"
  std::string row_section;  // as in the table
  std::string word;         // "queue"; empty where there is one section of its name
  std::string name;         // "main"
  std::string key;
};

// "node.kill_grace", "queue.main.priority".
Result<SplitName> split_name(std::string_view name, const std::string& place) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0 || dot + 1 == name.size()) {
    return invalid_argument("bad setting " + in_quotes(name) + " at " + place + ": write section.key=value");
  }
  SplitName result{std::string(name.substr(0, dot)), "", "", "", std::string(name.substr(dot + 1))};
  const std::string word = result.section.substr(0, result.section.find('.'));
  if (const std::string_view row_section = named_section_of(word); !row_section.empty()) {
    if (result.section == word) {
      return invalid_argument("bad setting " + in_quotes(name) + " at " + place + ": name the " + word + " as in " +
                              word + ".main." + printable(result.key.substr(0, 80)));
    }
    result.word = word;
    result.name = result.section.substr(word.size() + 1);
    result.row_section = row_section;
  } else {
    result.row_section = result.section;
    if (key_names(result.section).empty()) return unknown_section(result.section, place);
  }
  if (find_row(result.row_section, result.key) == nullptr) {
    return unknown_key(result.key, result.section, result.row_section, place);
  }
  return result;
}

Status apply(Config& config, std::string_view name, std::string_view value, const std::string& place,
             const std::string& base_dir) {
  MUSTER_ASSIGN(const SplitName parts, split_name(name, place));
  const Row& row = *find_row(parts.row_section, parts.key);
  Named one;
  if (!parts.word.empty()) {
    MUSTER_ASSIGN(one, named(config, parts.word, parts.name, place));
  }
  const auto raw = raw_from_text(row, value);
  const Status stored = raw.ok() ? store(row, config, one, *raw, base_dir) : Status(raw.error());
  if (!stored.ok()) return bad_value(parts.section, parts.key, place, stored.error());
  remember(config, parts.section + "." + parts.key);
  return ok_status();
}

Status apply_assignment(Config& config, std::string_view assignment, const std::string& base_dir) {
  const std::string place = "--set " + printable(assignment.substr(0, 120));
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos) {
    return invalid_argument("bad setting " + in_quotes(assignment) + ": write --set section.key=value");
  }
  return apply(config, trim(assignment.substr(0, equals)), trim(assignment.substr(equals + 1)), place, base_dir);
}

Result<std::string> read_whole_file(const std::string& path) {
  const auto failed = [&](int error_number) {
    const ErrorCode code = error_number == ENOENT   ? ErrorCode::kNotFound
                           : error_number == EACCES ? ErrorCode::kPermissionDenied
                                                    : ErrorCode::kIo;
    return make_error(code, "cannot read the configuration " + printable(path) + ": " + std::strerror(error_number));
  };
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Closer> file(std::fopen(path.c_str(), "rbe"));
  if (!file) return failed(errno);
  std::string text;
  char piece[16 * 1024];
  while (const std::size_t got = std::fread(piece, 1, sizeof piece, file.get())) {
    text.append(piece, got);
    if (text.size() > kConfigBytesMax) {
      return make_error(ErrorCode::kLimitReached, "the configuration " + printable(path) + " is too large: at most " +
                                                      std::to_string(kConfigBytesMax) + " bytes are read");
    }
  }
  if (std::ferror(file.get()) != 0) return failed(errno);
  return text;
}

// A TOML string in quotes.
std::string toml_quoted(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result.append(1, '\\').append(1, c);
    } else if (byte < 0x20 || byte == 0x7F) {
      result.append("\\u00").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string toml_value(const Row& row, const std::string& text) {
  switch (row.type) {
    case ValueType::kBool:
    case ValueType::kCount:
    case ValueType::kInteger:
      return text;
    case ValueType::kNameList:
      if (text.empty()) return "[]";
      [[fallthrough]];
    case ValueType::kEndpointList: {
      std::string items;
      for (const std::string_view item : split(text, ',')) items += (items.empty() ? "" : ", ") + toml_quoted(item);
      return "[" + items + "]";
    }
    case ValueType::kString:
    case ValueType::kName:
    case ValueType::kPath:
    case ValueType::kTopology:
    case ValueType::kDuration:
    case ValueType::kMemory:
    case ValueType::kEndpoint:
    case ValueType::kNodeList:
    case ValueType::kChoice:
    case ValueType::kLicenses:
      return toml_quoted(text);
  }
  return toml_quoted(text);
}

}  // namespace

Config defaults() {
  Config config = bare_defaults();
  MUSTER_CHECK(finish(config, "").ok());
  return config;
}

Result<Config> parse(std::string_view text, const std::string& file, const std::string& base_dir,
                     const Overrides& overrides) {
  Config config = bare_defaults();
  if (text.size() > kConfigBytesMax) {
    return make_error(ErrorCode::kLimitReached, "the configuration " + printable(file) + " is too large: at most " +
                                                    std::to_string(kConfigBytesMax) + " bytes are read");
  }
  config.path = file;
  try {
    const toml::table root = toml::parse(text, std::string_view(file));
    MUSTER_TRY(FileReader(config, file, base_dir).read(root));
  } catch (const toml::parse_error& error) {
    const auto& at = error.source().begin;
    return invalid_argument("bad TOML at " + printable(file) + ":" + std::to_string(at.line) + ":" +
                            std::to_string(at.column) + ": " + printable(error.description()));
  } catch (const std::exception& error) {
    return invalid_argument("cannot read the configuration " + printable(file) + ": " + printable(error.what()));
  }
  for (const std::string& assignment : overrides) MUSTER_TRY(apply_assignment(config, assignment, base_dir));
  MUSTER_TRY(finish(config, file));
  return config;
}

Result<Config> load(const std::string& path, const Overrides& overrides) {
  MUSTER_ASSIGN(const std::string text, read_whole_file(path));
  return parse(text, path, folder_of(path), overrides);
}

Status set_override(Config& config, std::string_view assignment) {
  return set_overrides(config, {std::string(assignment)});
}

Status set_overrides(Config& config, const Overrides& assignments) {
  Config changed = config;
  const std::string base_dir = config.path.empty() ? "" : folder_of(config.path);
  for (const std::string& assignment : assignments) MUSTER_TRY(apply_assignment(changed, assignment, base_dir));
  MUSTER_TRY(finish(changed, config.path));
  config = std::move(changed);
  return ok_status();
}

Status check_setting(std::string_view key) {
  const std::string place = "--set " + printable(key.substr(0, 120));
  MUSTER_ASSIGN(const SplitName parts, split_name(key, place));
  const Row& row = *find_row(parts.row_section, parts.key);
  const bool of_policy = row.section != "controller" && row.section != "log";
  if (row.reloadable && of_policy && row.used_by.find("ctld") != std::string_view::npos) return ok_status();
  return invalid_argument("the key " + in_quotes(key) +
                          " cannot be changed at run time: change the configuration file and start the daemon again");
}

namespace {

constexpr std::string_view kQueuePrefix = "queue.";  // and a name: the queue itself, which is made by that

// One setting; what holds between keys is not looked at.
Status apply_one_setting(Config& config, const std::string& key, const std::string& value) {
  if (key.starts_with(kQueuePrefix) && key.find('.', kQueuePrefix.size()) == std::string::npos) {
    const auto queue =
        named(config, named_word(kQueueSection), std::string_view(key).substr(kQueuePrefix.size()), "queue");
    return queue.ok() ? ok_status() : Status(queue.error());
  }
  MUSTER_TRY(check_setting(key));
  const std::string place = "--set " + printable((key + "=" + value).substr(0, 120));
  MUSTER_ASSIGN(const SplitName parts, split_name(key, place));
  if (parts.word == named_word(kQueueSection) && !config.queues.contains(parts.name)) {
    std::vector<std::string> known;
    for (const auto& [name, queue] : config.queues) known.push_back(name);
    return invalid_argument("unknown queue " + in_quotes(parts.name) + ": " + hint(parts.name, known, "there are") +
                            " (--create makes a new one)");
  }
  return apply(config, key, value, place, "");
}

// Queues first, so that their keys find them.
std::vector<std::pair<std::string, std::string>> in_order(const Settings& settings) {
  std::vector<std::pair<std::string, std::string>> out(settings.begin(), settings.end());
  std::stable_partition(out.begin(), out.end(), [](const auto& setting) {
    return setting.first.starts_with(kQueuePrefix) && setting.first.find('.', kQueuePrefix.size()) == std::string::npos;
  });
  return out;
}

}  // namespace

Result<Config> with_settings(const Config& file, const Settings& settings) {
  Config config = file;
  for (const auto& [key, value] : in_order(settings)) MUSTER_TRY(apply_one_setting(config, key, value));
  MUSTER_TRY(finish(config, ""));
  return config;
}

Config with_usable_settings(const Config& file, const Settings& settings, std::vector<std::string>& problems) {
  if (auto whole = with_settings(file, settings); whole.ok()) return std::move(*whole);
  Config config = file;
  for (const auto& [key, value] : in_order(settings)) {
    Config changed = config;
    Status status = apply_one_setting(changed, key, value);
    if (status.ok()) status = finish(changed, "");
    if (status.ok()) {
      config = std::move(changed);
    } else {
      problems.push_back(key + "=" + value + ": " + status.error().message);
    }
  }
  return config;
}

Result<std::string> find_config_path(const std::string& option) {
  std::string path = option;
  std::string from = "--config";
  if (path.empty()) {
    const char* variable = std::getenv("MUSTER_CONFIG");
    path = variable != nullptr ? variable : "";
    from = "MUSTER_CONFIG";
  }
  std::error_code ignored;
  if (!path.empty()) {
    std::error_code error;
    if (std::filesystem::exists(path, error)) return path;
    if (error) {
      return make_error(ErrorCode::kIo, "the configuration " + in_quotes(path) + " that " + from +
                                            " names cannot be looked at: " + error.message() +
                                            ": ask its owner to make it readable, or name another one");
    }
    return make_error(ErrorCode::kNotFound,
                      "the configuration " + in_quotes(path) + " does not exist: correct " + from + ", which names it");
  }
  if (std::filesystem::exists(kDefaultPath, ignored)) return std::string(kDefaultPath);
  return make_error(ErrorCode::kNotFound,
                    std::string("there is no configuration ") + kDefaultPath +
                        ": name one with --config or MUSTER_CONFIG, or start a cluster of your own "
                        "with muster local start");
}

std::vector<KeyInfo> keys() {
  std::vector<KeyInfo> infos;
  for (const Row& row : table()) {
    infos.push_back({row.section, row.key, row.type, row.unit, row.default_value, bounds_of(row), row.meaning,
                     row.used_by, row.reloadable});
  }
  return infos;
}

std::vector<ShownKey> show(const Config& shown_config) {
  Config config = shown_config;  // the accessors give writable places
  std::vector<ShownKey> shown;
  const auto add = [&](const Row& row, const std::string& section, Named one) {
    const std::string name = section + "." + std::string(row.key);
    const bool is_set = std::binary_search(config.explicit_keys.begin(), config.explicit_keys.end(), name);
    shown.push_back({name, to_text(row, config, one), !is_set, std::string(row.unit), std::string(row.meaning)});
  };
  const std::vector<Row>& rows = table();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string word(named_word(rows[i].section));
    if (word.empty()) {
      add(rows[i], std::string(rows[i].section), {});
      continue;
    }
    // The rows of a section stand together; each section of the kind shows all of them.
    std::size_t end = i;
    while (end < rows.size() && rows[end].section == rows[i].section) ++end;
    const auto add_all = [&](const std::string& name, Named one) {
      for (std::size_t k = i; k < end; ++k) add(rows[k], word + "." + name, one);
    };
    if (rows[i].section == kQueueSection) {
      for (auto& [name, section] : config.queues) add_all(name, {.queue = &section});
    } else if (rows[i].section == kFeatureSection) {
      for (auto& [name, section] : config.features) add_all(name, {.feature = &section});
    } else if (rows[i].section == kSwitchSection) {
      for (auto& [name, section] : config.switches) add_all(name, {.network_switch = &section});
    } else {
      for (auto& [name, section] : config.blocks) add_all(name, {.block = &section});
    }
    i = end - 1;
  }
  return shown;
}

Result<std::string> format_config(const std::vector<std::pair<std::string, std::string>>& values) {
  Config scratch = bare_defaults();
  // Sections in the order of their first key; in TOML a section may be opened only once.
  std::vector<std::pair<std::string, std::string>> sections;
  for (const auto& [name, value] : values) {
    const std::string place = "\"" + printable(name.substr(0, 80)) + "\"";
    MUSTER_ASSIGN(const SplitName parts, split_name(name, place));
    if (std::binary_search(scratch.explicit_keys.begin(), scratch.explicit_keys.end(),
                           parts.section + "." + parts.key)) {
      return invalid_argument("the setting " + place + " is given twice: give it once");
    }
    MUSTER_TRY(apply(scratch, name, value, place, ""));
    auto at = std::find_if(sections.begin(), sections.end(), [&](const auto& s) { return s.first == parts.section; });
    if (at == sections.end()) {
      const std::string head = parts.word.empty() ? parts.section : parts.word + "." + toml_quoted(parts.name);
      at = sections.insert(sections.end(), {parts.section, "[" + head + "]\n"});
    }
    at->second += parts.key + " = " + toml_value(*find_row(parts.row_section, parts.key), value) + "\n";
  }
  std::string text;
  for (const auto& [name, body] : sections) text += (text.empty() ? "" : "\n") + body;
  return text;
}

}  // namespace muster::config
