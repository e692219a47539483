// The one table of configuration keys, and the reading and printing of one value. Only for the sources of lib/config.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lib/base/result.h"
#include "lib/config/config.h"

namespace muster::config {

inline constexpr std::string_view kQueueSection = "queue.NAME";
inline constexpr std::string_view kFeatureSection = "feature.NAME";
inline constexpr std::string_view kSwitchSection = "switch.NAME";
inline constexpr std::string_view kBlockSection = "block.NAME";

// Of sections that there are several of, [queue.main] and [queue.debug], the one that is meant; at most one is set.
struct Named {
  QueueSection* queue = nullptr;
  FeatureSection* feature = nullptr;
  SwitchSection* network_switch = nullptr;
  BlockSection* block = nullptr;
  QueueSection* operator->() const { return queue; }
};

// Where a value lives. Nothing is named for keys of other sections.
template <typename T>
using Access = T& (*)(Config&, Named);
using Place = std::variant<Access<std::string>, Access<std::vector<std::string>>, Access<std::uint64_t>,
                           Access<std::int64_t>, Access<bool>, Access<Duration>>;

struct Row {
  std::string_view section;
  std::string_view key;
  ValueType type;
  std::string_view unit;
  std::string_view default_value;
  // Of counts and integers in the key's unit, of durations in seconds, of memory in MiB.
  std::int64_t min;
  std::int64_t max;
  std::string_view choices;
  Place place;
  std::string_view used_by;
  bool reloadable;
  std::string_view meaning;
};

const std::vector<Row>& table();

// "queue" of "queue.NAME"; empty for a section that there is one of.
std::string_view named_word(std::string_view row_section);
// "queue.NAME" of "queue"; empty for a word that begins no such section.
std::string_view named_section_of(std::string_view word);

// The row of a key; null when there is none. Sections of queues are given as kQueueSection, others likewise.
const Row* find_row(std::string_view section, std::string_view key);
std::vector<std::string> section_names();
std::vector<std::string> key_names(std::string_view section);
std::string bounds_of(const Row& row);

// A value as TOML or an override gives it.
using RawValue = std::variant<std::string, std::int64_t, bool, std::vector<std::string>>;
// The value of an override, which is untyped text.
Result<RawValue> raw_from_text(const Row& row, std::string_view text);
// Checks the value and stores it. The error is a sentence without its place: `"x" is not ..: write ..`.
Status store(const Row& row, Config& config, Named named, const RawValue& value, const std::string& base_dir);
// The value as an override would give it.
std::string to_text(const Row& row, Config& config, Named named);

}  // namespace muster::config
