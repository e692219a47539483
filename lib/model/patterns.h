// File name patterns of cli.md: %j %A %a %x %u %N %n %t %%, with an optional zero-filled width ("%4j").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/model/ids.h"

namespace muster {

struct PatternValues {
  JobId job;    // %j
  JobId array;  // %A: the array's id, or the job's when there is no array
  bool is_array = false;
  std::uint64_t array_index = 0;  // %a (4294967294 when there is no array, as Slurm prints)
  std::string job_name;           // %x
  std::string user;               // %u
  std::string node;               // %N
  std::uint32_t node_rank = 0;    // %n
  std::uint32_t task = 0;         // %t
};

// Expands a pattern. '/' in a job's name becomes '_', so that a name cannot leave its directory. Unknown letters and
// a trailing '%' stay as they are.
std::string expand_pattern(std::string_view pattern, const PatternValues& values);
// The first '%' with its letter that stands for nothing ("%q", or "%" at the end), neither here nor among more_letters;
// empty: there is none.
std::string_view unknown_pattern(std::string_view pattern, std::string_view more_letters = {});
// `path` as absolute path below `dir` when it is relative.
std::string resolve_path(std::string_view dir, std::string_view path);

inline constexpr std::string_view kDefaultOutput = "muster-%j.out";
inline constexpr std::string_view kDefaultArrayOutput = "muster-%A_%a.out";

}  // namespace muster
