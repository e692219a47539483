// Constraint: which features the nodes of a job must have, as --constraint says it (docs/placement.md).
//
//   constraint := every ( '&' every )*
//   every      := '[' expr ( '|' expr )* ']'      all nodes satisfy the same one of these
//               | '[' every ( '&' every )* ']'  with a count among them: as without the brackets
//               | counted | unit
//   counted    := unit '*' N                       at least N of the nodes satisfy it
//   expr       := and ( '|' and )*                 & binds more tightly than |
//   and        := unit ( '&' unit )*
//   unit       := FEATURE | '(' expr ')'
//
// Without brackets and counts the whole text is one expr that each node must satisfy.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"

namespace muster {

// A condition on the features of one node.
struct FeatureExpr {
  enum class Kind : std::uint8_t { kName, kAll, kAny };
  Kind kind = Kind::kName;
  std::string name;                   // kName
  std::vector<FeatureExpr> children;  // kAll, kAny: two at least
  friend bool operator==(const FeatureExpr&, const FeatureExpr&) = default;
};

struct Constraint {
  std::vector<FeatureExpr> every;  // each node satisfies all of these
  struct Counted {
    FeatureExpr what;
    std::uint32_t nodes = 0;
    friend bool operator==(const Counted&, const Counted&) = default;
  };
  std::vector<Counted> counted;  // at least so many of the nodes satisfy it
  // Of each list there is one that all nodes satisfy.
  std::vector<std::vector<FeatureExpr>> same;
  [[nodiscard]] bool empty() const { return every.empty() && counted.empty() && same.empty(); }
  friend bool operator==(const Constraint&, const Constraint&) = default;
};

inline constexpr std::size_t kConstraintBytesMax = 4'096;
inline constexpr std::size_t kConstraintDepthMax = 32;  // of parentheses
// A count for each class of nodes is looked for: their number grows as two to this.
inline constexpr std::size_t kConstraintCountsMax = 4;
// Each is tried in turn.
inline constexpr std::size_t kConstraintChoicesMax = 32;
inline constexpr std::uint32_t kConstraintNodesMax = 1'000'000;  // of one count
// Features of one node or of one cluster's configuration.
inline constexpr int kFeaturesMax = 10'000;

// As a node name: 1 to 63 letters, digits, '_', '.', '-', ':' after the first, which is a letter or digit.
bool is_valid_feature(std::string_view text);

// An empty text is the empty constraint. `what` names the option in the error, which tells the position.
Result<Constraint> parse_constraint(std::string_view text, std::string_view what);
// parse_constraint gives the same value again.
std::string format_constraint(const Constraint& constraint);
std::string format_feature_expr(const FeatureExpr& expr);

// All features that it names, each once, sorted.
std::vector<std::string> features_of(const Constraint& constraint);

}  // namespace muster
