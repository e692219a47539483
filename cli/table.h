// Tables for people: columns as wide as their content, the terminal's width respected by leaving out the columns that
// can be spared and shortening those that may be shortened. Neither a terminal nor COLUMNS: everything is shown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/time.h"

namespace muster::cli {

struct Column {
  std::string title;
  bool right = false;
  std::size_t width_min = 0;  // may be shortened down to this many characters; 0: never
  int spare = 0;              // on a terminal that is too narrow the columns with the highest go first; 0: never
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as columns. Control characters are made printable.
  void add(std::vector<std::string> cells);
  // `width` in characters; 0: no limit. Lines end with '\n'; no blanks at their ends.
  [[nodiscard]] std::string text(std::size_t width, bool with_titles = true) const;
  [[nodiscard]] bool empty() const { return rows_.empty(); }

 private:
  // Those that are shown, by their numbers, for what their content needs.
  [[nodiscard]] std::vector<std::size_t> shown(std::size_t width, const std::vector<std::size_t>& needed) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// The width to fit on standard output: COLUMNS, else the terminal's; 0: neither, so there is no limit.
std::size_t output_width();

// The text in lines of at most `width` characters (0: no limit), each but the first indented; the first has room for
// width - indent characters, because something stands before it.
std::string folded(std::string_view text, std::size_t width, std::size_t indent);

// "2026-11-23T15:16:16" in local time; "-" when unset.
std::string format_time(std::int64_t us);
// "D-HH:MM:SS"; "-" when negative.
std::string format_span(std::int64_t us);
// Folded and printable, "" for none.
std::string join_nodes(const std::vector<std::string>& names);

// Writes all of it to standard output; false when that failed (a closed pipe), with errno.
bool print(std::string_view text);

}  // namespace muster::cli
