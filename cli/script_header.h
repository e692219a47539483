// The head of a job script: its `#MUSTER --option` and `#SBATCH --option` lines. Pure functions over the text.
//
// The head ends at the first line that is neither blank nor a comment. A directive is `#MUSTER` or `#SBATCH` at the
// very beginning of a line, then a blank, then words as a shell would split them: '...' and "..." quotes, \ before one
// character, and ` # comment` at the end.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/wire/codec.h"

namespace muster::cli {

// The size of the largest script, as the controller's.
inline constexpr std::size_t kScriptBytesMax = wire::kScriptBytesMax;
// Words of one directive line and directive lines of a script: far above what people write.
inline constexpr std::size_t kDirectiveWordsMax = 1'000;
inline constexpr std::size_t kDirectivesMax = 10'000;

struct Directive {
  std::size_t line = 0;  // from 1
  std::vector<std::string> words;
  friend bool operator==(const Directive&, const Directive&) = default;
};

struct ScriptHeader {
  std::vector<Directive> directives;
  // The first directive-like line after the head, which has no effect; 0: none. The user is warned.
  std::size_t ignored_line = 0;
};

// `name` stands before the line number in errors: "job.sh:3: ...". Refused: an empty script, one above kScriptBytesMax,
// one without #!, with NUL bytes or with Windows line ends, an unfinished quote in a directive.
Result<ScriptHeader> parse_script_header(std::string_view text, std::string_view name);

}  // namespace muster::cli
