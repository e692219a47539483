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
  std::replace(known.begin(), known.end(), std::string(kQueueSection), std::string("queue"));
  return invalid_argument("unknown section [" + printable(section.substr(0, 80)) + "] at " + place + ": " +
                          hint(section, known, "the sections are"));
}

Error bad_value(std::string_view section, std::string_view key, const std::string& place, const Error& why) {
  return make_error(why.code, "bad value of " + std::string(key) + " in [" + printable(section) + "] at " + place +
                                  ": " + why.message);
}

Result<QueueSection*> queue_named(Config& config, std::string_view name, const std::string& place) {
  if (!is_valid_node_name(name)) {
    return invalid_argument("bad queue name " + in_quotes(name) + " at " + place +
                            ": use 1 to 63 letters, digits, '_', '.', '-'");
  }
  const auto known = config.queues.find(std::string(name));
  if (known != config.queues.end()) return &known->second;
  if (config.queues.size() >= kQueuesMax) {
    return invalid_argument("too many queues at " + place + ": at most " + std::to_string(kQueuesMax) +
                            " are possible");
  }
  QueueSection& queue = config.queues[std::string(name)];
  for (const Row& row : table()) {
    if (row.section != kQueueSection) continue;
    const auto raw = raw_from_text(row, row.default_value);
    MUSTER_CHECK(raw.ok() && store(row, config, &queue, *raw, "").ok());
  }
  return &queue;
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
      if (key.str() == "queue") {
        MUSTER_TRY(read_queues(*section));
        continue;
      }
      if (key_names(key.str()).empty()) return unknown_section(key.str(), place(key.source()));
      MUSTER_TRY(read_section(key.str(), key.str(), nullptr, *section));
    }
    return ok_status();
  }

 private:
  Status outside_section(const toml::key& key) {
    if (key.str() == "queue" || !key_names(key.str()).empty()) {
      return invalid_argument("[" + printable(key.str()) + "] at " + place(key.source()) +
                              " is no section: write the section's name in brackets on a line of its own");
    }
    return invalid_argument("key " + in_quotes(key.str()) + " at " + place(key.source()) +
                            " stands outside of a section: write it below a line such as [node]");
  }

  Status read_queues(const toml::table& queues) {
    for (const auto& [name, node] : queues) {
      const toml::table* section = node.as_table();
      if (section == nullptr) {
        return invalid_argument("key " + in_quotes(name.str()) + " in [queue] at " + place(name.source()) +
                                " belongs to no queue: write it below a line such as [queue.main]");
      }
      MUSTER_ASSIGN(QueueSection * queue, queue_named(config_, name.str(), place(name.source())));
      MUSTER_TRY(read_section(std::string(kQueuePrefix) + std::string(name.str()), kQueueSection, queue, *section));
    }
    return ok_status();
  }

  Status read_section(std::string_view name, std::string_view row_section, QueueSection* queue,
                      const toml::table& section) {
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
    if (row.section == kQueueSection) continue;
    const auto raw = raw_from_text(row, row.default_value);
    MUSTER_CHECK(raw.ok() && store(row, config, nullptr, *raw, "").ok());
  }
  return config;
}

// What holds between keys.
Status finish(Config& config, const std::string& file) {
  const std::string in_file = file.empty() ? "" : " in " + printable(file);
  if (config.queues.empty()) MUSTER_TRY(queue_named(config, config.job.default_queue, "job.default_queue"));
  if (!config.queues.contains(config.job.default_queue)) {
    return invalid_argument("default_queue in [job] names the queue " + in_quotes(config.job.default_queue) + in_file +
                            ", which does not exist: add [queue." + config.job.default_queue + "] or name another");
  }
  if (config.job.default_time > config.job.max_time) {
    return invalid_argument("default_time in [job]" + in_file + " is longer than max_time: make one of them fit");
  }
  for (const auto& [name, queue] : config.queues) {
    if (queue.default_time > queue.max_time) {
      return invalid_argument("default_time in [queue." + name + "]" + in_file +
                              " is longer than max_time: make one of them fit");
    }
  }
  return ok_status();
}

struct SplitName {
  std::string section;      // as written, "queue.main"
  std::string row_section;  // as in the table
  std::string queue;        // empty unless it is a queue's key
  std::string key;
};

// "node.kill_grace", "queue.main.priority".
Result<SplitName> split_name(std::string_view name, const std::string& place) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0 || dot + 1 == name.size()) {
    return invalid_argument("bad setting " + in_quotes(name) + " at " + place + ": write section.key=value");
  }
  SplitName result{std::string(name.substr(0, dot)), "", "", std::string(name.substr(dot + 1))};
  if (result.section.starts_with(kQueuePrefix)) {
    result.queue = result.section.substr(kQueuePrefix.size());
    result.row_section = kQueueSection;
  } else {
    result.row_section = result.section;
    if (result.section == "queue") {
      return invalid_argument("bad setting " + in_quotes(name) + " at " + place +
                              ": name the queue as in queue.main.priority");
    }
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
  QueueSection* queue = nullptr;
  if (!parts.queue.empty()) {
    MUSTER_ASSIGN(queue, queue_named(config, parts.queue, place));
  }
  const auto raw = raw_from_text(row, value);
  const Status stored = raw.ok() ? store(row, config, queue, *raw, base_dir) : Status(raw.error());
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
  Config changed = config;
  const std::string base_dir = config.path.empty() ? "" : folder_of(config.path);
  MUSTER_TRY(apply_assignment(changed, assignment, base_dir));
  MUSTER_TRY(finish(changed, config.path));
  config = std::move(changed);
  return ok_status();
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
    if (std::filesystem::exists(path, ignored)) return path;
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

std::vector<ShownKey> show(const Config& config) {
  std::vector<ShownKey> shown;
  const auto add = [&](const Row& row, const std::string& section, const QueueSection* queue) {
    const std::string name = section + "." + std::string(row.key);
    const bool is_set = std::binary_search(config.explicit_keys.begin(), config.explicit_keys.end(), name);
    shown.push_back({name, to_text(row, config, queue), !is_set, std::string(row.unit), std::string(row.meaning)});
  };
  const std::vector<Row>& rows = table();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].section != kQueueSection) {
      add(rows[i], std::string(rows[i].section), nullptr);
      continue;
    }
    // The rows of a section stand together; each queue shows all of them.
    std::size_t end = i;
    while (end < rows.size() && rows[end].section == kQueueSection) ++end;
    for (const auto& [name, queue] : config.queues) {
      for (std::size_t k = i; k < end; ++k) add(rows[k], std::string(kQueuePrefix) + name, &queue);
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
      const std::string head = parts.queue.empty() ? parts.section : "queue." + toml_quoted(parts.queue);
      at = sections.insert(sections.end(), {parts.section, "[" + head + "]\n"});
    }
    at->second += parts.key + " = " + toml_value(*find_row(parts.row_section, parts.key), value) + "\n";
  }
  std::string text;
  for (const auto& [name, body] : sections) text += (text.empty() ? "" : "\n") + body;
  return text;
}

}  // namespace muster::config
