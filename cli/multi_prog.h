// The file of `muster run --multi-prog`: which program which ranks run, in Slurm's format.
//
//   # ranks   program   arguments; %t is the rank, %o its place among the line's ranks, from 0
//   0         ./server  --port 7000
//   1-3,5     ./worker  %o
//   *         ./idle    'two words'
//
// Words may be quoted as in a shell, with '', "" and \; a line that ends with \ goes on. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/result.h"

namespace muster::cli {

struct RankProgram {
  std::vector<std::string> argv;                               // never empty
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranks;  // first and last; empty: all that no other line names
  std::uint32_t line = 0;
};

// A file of this size has a line for each of some 10,000 ranks.
inline constexpr std::size_t kMultiProgBytesMax = 1U << 20U;

// kInvalidArgument names `file` and the line.
Result<std::vector<RankProgram>> parse_multi_prog(std::string_view text, const std::string& file);

}  // namespace muster::cli
