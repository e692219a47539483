#include "cli/table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ctime>

#include "lib/base/text.h"

namespace muster::cli {
namespace {

// Characters, not bytes: continuation bytes of UTF-8 take no room. Double-width characters count as one; a table that
// is off by one then is no harm.
std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string shortened(const std::string& text, std::size_t width) {
  if (display_width(text) <= width) return text;
  std::string result;
  std::size_t used = 0;
  for (const char c : text) {
    const bool starts_character = (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    if (starts_character && ++used > width - 1) break;
    result += c;
  }
  return result + "+";
}

}  // namespace

void Table::add(std::vector<std::string> cells) {
  for (std::string& cell : cells) {
    cell = printable(cell);
    if (cell.empty()) cell = "-";
  }
  rows_.push_back(std::move(cells));
}

std::vector<std::size_t> Table::shown(std::size_t width, const std::vector<std::size_t>& needed) const {
  std::vector<std::size_t> result;
  std::size_t least = 0;  // the width with all that may be shortened as short as can be
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    result.push_back(i);
    const std::size_t shortest = columns_[i].width_min == 0 ? needed[i] : std::min(needed[i], columns_[i].width_min);
    least += shortest + (i == 0 ? 0 : 2);
  }
  while (width != 0 && least > width) {
    const auto sparest = std::max_element(result.begin(), result.end(), [this](std::size_t a, std::size_t b) {
      return columns_[a].spare < columns_[b].spare;
    });
    if (sparest == result.end() || columns_[*sparest].spare == 0) break;
    const std::size_t i = *sparest;
    least -= 2 + (columns_[i].width_min == 0 ? needed[i] : std::min(needed[i], columns_[i].width_min));
    result.erase(sparest);
  }
  return result;
}

std::string Table::text(std::size_t width, bool with_titles) const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    std::size_t needed = with_titles ? columns_[i].title.size() : 1;
    for (const auto& row : rows_) needed = std::max(needed, display_width(row[i]));
    widths.push_back(needed);
  }
  const std::vector<std::size_t> columns = shown(width, widths);
  std::size_t total = columns.empty() ? 0 : 2 * (columns.size() - 1);
  for (const std::size_t i : columns) total += widths[i];
  // The widest column that may still shrink gives one character at a time.
  while (width != 0 && total > width) {
    std::size_t widest = columns_.size();
    for (const std::size_t i : columns) {
      const bool may = columns_[i].width_min != 0 && widths[i] > columns_[i].width_min;
      if (may && (widest == columns_.size() || widths[i] > widths[widest])) widest = i;
    }
    if (widest == columns_.size()) break;
    --widths[widest];
    --total;
  }
  std::string out;
  const auto add_line = [&](const auto& cell_of) {
    std::string line;
    for (const std::size_t i : columns) {
      const std::string cell = shortened(cell_of(i), widths[i]);
      const std::string pad(widths[i] - std::min(widths[i], display_width(cell)), ' ');
      if (i != columns.front()) line += "  ";
      line += columns_[i].right ? pad + cell : cell + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  };
  if (with_titles) add_line([&](std::size_t i) { return columns_[i].title; });
  for (const auto& row : rows_) add_line([&](std::size_t i) { return row[i]; });
  return out;
}

std::size_t output_width() {
  if (const char* columns = getenv("COLUMNS"); columns != nullptr) {
    const auto width = parse_count(columns, "COLUMNS", {20, 10'000});
    if (width.ok()) return *width;
  }
  if (isatty(STDOUT_FILENO) == 0) return 0;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

std::string folded(std::string_view text, std::size_t width, std::size_t indent) {
  if (width == 0) return std::string(text);
  const std::size_t room = width > indent + 20 ? width - indent : 20;
  std::string out;
  while (display_width(text) > room) {
    std::size_t end = 0;  // of what fits
    for (std::size_t used = 0; end < text.size(); ++end) {
      const bool starts_character = (static_cast<unsigned char>(text[end]) & 0xC0U) != 0x80U;
      if (starts_character && used++ == room) break;
    }
    // At a blank or after a comma, unless that would leave half of the line empty.
    std::size_t cut = text.find_last_of(" ,", end - 1);
    cut = cut == std::string_view::npos || cut < end / 2 ? end : cut + 1;
    out += text.substr(0, cut);
    out.erase(out.find_last_not_of(' ') + 1);
    out += '\n' + std::string(indent, ' ');
    text.remove_prefix(cut);
  }
  return out.append(text);
}

std::string format_time(std::int64_t us) {
  if (us == 0) return "-";
  const time_t seconds = static_cast<time_t>(us / 1'000'000);
  struct tm local {};
  if (localtime_r(&seconds, &local) == nullptr) return "-";
  char text[64];
  return {text, strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &local)};
}

std::string format_span(std::int64_t us) {
  if (us < 0) return "-";
  return format_duration(Duration::from_us(us));
}

std::string join_nodes(const std::vector<std::string>& names) {
  return printable(fold_node_list(names));
}

bool print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace muster::cli
