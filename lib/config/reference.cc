// The reference page of configuration keys, made from the table.
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/config/key_table.h"

namespace muster::config {
namespace {

std::string type_name(ValueType type) {
  switch (type) {
    case ValueType::kString:
      return "text";
    case ValueType::kName:
      return "name";
    case ValueType::kPath:
      return "path";
    case ValueType::kTopology:
      return "topology";
    case ValueType::kBool:
      return "true or false";
    case ValueType::kCount:
    case ValueType::kInteger:
      return "whole number";
    case ValueType::kDuration:
      return "time";
    case ValueType::kMemory:
      return "memory";
    case ValueType::kEndpoint:
      return "address";
    case ValueType::kEndpointList:
      return "list of addresses";
    case ValueType::kNodeList:
      return "node list";
    case ValueType::kNameList:
      return "list of names";
    case ValueType::kChoice:
      return "one of";
    case ValueType::kLicenses:
      return "licences with counts";
  }
  return "";
}

// Text for a cell of a Markdown table.
std::string cell(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '|') result += '\\';
    result += c;
  }
  return result;
}

std::string code(std::string_view text) {
  return text.empty() ? "empty" : "`" + cell(text) + "`";
}

std::string accepted(const Row& row) {
  std::string text = type_name(row.type);
  if (const std::string bounds = bounds_of(row); !bounds.empty()) text += " " + cell(bounds);
  if (row.type == ValueType::kDuration) text += " (bare: " + std::string(row.unit) + ")";
  return text;
}

}  // namespace

std::string reference_markdown() {
  std::string page =
      "# Configuration keys\n\n"
      "This page is made from the table in `lib/config/key_table.cc`; change it there. The file is TOML. Times are "
      "written as `90s`, `15m`, `2h`, `1d` or `HH:MM:SS`, memory as `512M` or `64G`. Relative paths are relative to "
      "the "
      "configuration file's folder.\n";
  std::string_view section;
  for (const Row& row : table()) {
    if (row.section != section) {
      section = row.section;
      page += "\n## [" + std::string(section) +
              "]\n\n| key | accepts | default | read by | meaning |\n|---|---|---|---|---|\n";
    }
    std::string readers;
    for (const std::string_view reader : split(row.used_by, ',')) {
      readers += (readers.empty() ? "" : ", ") + std::string(reader);
    }
    page += "| `" + std::string(row.key) + "` | " + accepted(row) + " | " + code(row.default_value) + " | " + readers +
            " | " + cell(row.meaning) + " |\n";
  }
  return page;
}

}  // namespace muster::config
