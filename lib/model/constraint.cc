#include "lib/model/constraint.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "lib/base/text.h"

namespace muster {
namespace {

bool is_name_byte(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '.' ||
         c == '-' || c == ':';
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view what) : text_(text), what_(what) {}

  Result<Constraint> run() {
    if (text_.size() > kConstraintBytesMax) {
      return invalid_argument(std::string(what_) + ": it has " + std::to_string(text_.size()) + " bytes: at most " +
                              std::to_string(kConstraintBytesMax));
    }
    skip_blanks();
    if (at_end()) return std::move(out_);
    if (alternatives_at_top()) {
      MUSTER_ASSIGN(FeatureExpr expr, any(0));
      if (!at_end()) return expected("& or |");
      out_.every.push_back(std::move(expr));
      return std::move(out_);
    }
    for (;;) {
      MUSTER_TRY(clause());
      if (at_end()) break;
      if (!take('&')) return expected("& between conditions");
    }
    std::size_t choices = 1;
    for (const auto& list : out_.same) choices *= list.size();
    if (choices > kConstraintChoicesMax) {
      return invalid_argument(std::string(what_) + ": [ ] gives " + std::to_string(choices) + " choices: at most " +
                              std::to_string(kConstraintChoicesMax) + " are possible");
    }
    return std::move(out_);
  }

 private:
  [[nodiscard]] bool at_end() const { return at_ == text_.size(); }
  [[nodiscard]] char peek() const { return at_end() ? '\0' : text_[at_]; }
  void skip_blanks() {
    while (!at_end() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool take(char c) {
    if (peek() != c || at_end()) return false;
    ++at_;
    skip_blanks();
    return true;
  }
  [[nodiscard]] Error expected(const std::string& wanted) const {
    const std::string found = at_end() ? "the end" : "\"" + printable(text_.substr(at_, 20)) + "\"";
    return invalid_argument(std::string(what_) + ": at position " + std::to_string(at_ + 1) + " " + wanted +
                            " is expected, not " + found);
  }
  [[nodiscard]] Error too_many(const std::string& things, std::size_t max) const {
    return invalid_argument(std::string(what_) + ": it has more than " + std::to_string(max) + " " + things +
                            ": use fewer");
  }

  // Whether a | stands outside of all parentheses and brackets: then the text is one condition for each node.
  [[nodiscard]] bool alternatives_at_top() const {
    int depth = 0;
    for (const char c : text_) {
      depth += c == '(' || c == '[' ? 1 : c == ')' || c == ']' ? -1 : 0;
      if (c == '|' && depth == 0) return true;
    }
    return false;
  }

  Status clause() { return take('[') ? bracket() : counted_unit(); }

  Status counted_unit() {
    MUSTER_ASSIGN(FeatureExpr what, unit(0));
    MUSTER_ASSIGN(const std::optional<std::uint32_t> nodes, count());
    if (!nodes) {
      out_.every.push_back(std::move(what));
      return ok_status();
    }
    if (out_.counted.size() == kConstraintCountsMax) return too_many("counts", kConstraintCountsMax);
    out_.counted.push_back({std::move(what), *nodes});
    return ok_status();
  }

  // After '[': counts joined by &, or choices joined by |.
  Status bracket() {
    const std::string_view inside = text_.substr(at_, text_.find(']', at_) - at_);
    if (inside.find('*') != std::string_view::npos) {
      do {
        MUSTER_TRY(counted_unit());
      } while (take('&'));
      return take(']') ? ok_status() : Status(expected("& or ]"));
    }
    std::vector<FeatureExpr> choices;
    do {
      if (choices.size() == kConstraintChoicesMax) return too_many("choices", kConstraintChoicesMax);
      MUSTER_ASSIGN(FeatureExpr next, all(0));
      choices.push_back(std::move(next));
    } while (take('|'));
    if (!take(']')) return expected("| or ]");
    if (choices.size() == 1) {
      out_.every.push_back(std::move(choices.front()));
    } else if (out_.same.size() == kConstraintChoicesMax) {
      return too_many("[ ]", kConstraintChoicesMax);
    } else {
      out_.same.push_back(std::move(choices));
    }
    return ok_status();
  }

  Result<std::optional<std::uint32_t>> count() {
    if (!take('*')) return std::optional<std::uint32_t>();
    const std::size_t begin = at_;
    while (!at_end() && peek() >= '0' && peek() <= '9') ++at_;
    const auto number = parse_count(text_.substr(begin, at_ - begin), what_, {1, kConstraintNodesMax});
    if (!number.ok()) {
      at_ = begin;
      return expected("a number of nodes from 1 to " + std::to_string(kConstraintNodesMax));
    }
    skip_blanks();
    return std::optional(static_cast<std::uint32_t>(*number));
  }

  Result<FeatureExpr> any(std::size_t depth) {
    return joined(FeatureExpr::Kind::kAny, '|', [&] { return all(depth); });
  }
  Result<FeatureExpr> all(std::size_t depth) {
    return joined(FeatureExpr::Kind::kAll, '&', [&] { return unit(depth); });
  }
  // One of the same kind inside is opened, so that a text has one value.
  template <typename Next>
  Result<FeatureExpr> joined(FeatureExpr::Kind kind, char separator, Next next) {
    FeatureExpr list;
    list.kind = kind;
    do {
      Result<FeatureExpr> one = next();
      if (!one.ok()) return one.error();
      if (one->kind == kind) {
        std::move(one->children.begin(), one->children.end(), std::back_inserter(list.children));
      } else {
        list.children.push_back(std::move(*one));
      }
    } while (take(separator));
    if (list.children.size() == 1) {
      FeatureExpr only = std::move(list.children.front());
      return only;
    }
    return list;
  }

  Result<FeatureExpr> unit(std::size_t depth) {
    if (take('(')) {
      if (depth == kConstraintDepthMax) return too_many("parentheses in each other", kConstraintDepthMax);
      MUSTER_ASSIGN(FeatureExpr inner, any(depth + 1));
      if (peek() == '*') return expected("a count only outside of parentheses; here )");
      if (!take(')')) return expected("&, | or )");
      return inner;
    }
    const std::size_t begin = at_;
    while (!at_end() && is_name_byte(peek())) ++at_;
    const std::string_view name = text_.substr(begin, at_ - begin);
    if (!is_valid_feature(name)) {
      at_ = begin;
      return expected("the name of a feature (1 to 63 letters, digits, '_', '.', '-', ':')");
    }
    skip_blanks();
    FeatureExpr expr;
    expr.name = std::string(name);
    return expr;
  }

  std::string_view text_;
  std::string_view what_;
  std::size_t at_ = 0;
  Constraint out_;
};

void collect(const FeatureExpr& expr, std::set<std::string>& names) {
  if (expr.kind == FeatureExpr::Kind::kName) names.insert(expr.name);
  for (const FeatureExpr& child : expr.children) collect(child, names);
}

std::string in_parentheses(const FeatureExpr& expr) {
  const std::string text = format_feature_expr(expr);
  return expr.kind == FeatureExpr::Kind::kName ? text : "(" + text + ")";
}

}  // namespace

bool is_valid_feature(std::string_view text) {
  constexpr std::size_t kNameMax = 63;
  if (text.empty() || text.size() > kNameMax || !std::all_of(text.begin(), text.end(), is_name_byte)) return false;
  const char first = text.front();
  return first != '_' && first != '.' && first != '-' && first != ':';
}

Result<Constraint> parse_constraint(std::string_view text, std::string_view what) {
  return Parser(text, what).run();
}

std::string format_feature_expr(const FeatureExpr& expr) {
  if (expr.kind == FeatureExpr::Kind::kName) return expr.name;
  std::string text;
  for (const FeatureExpr& child : expr.children) {
    text += (text.empty() ? "" : expr.kind == FeatureExpr::Kind::kAll ? "&" : "|") + in_parentheses(child);
  }
  return text;
}

std::string format_constraint(const Constraint& constraint) {
  std::string text;
  const auto add = [&text](const std::string& clause) { text += (text.empty() ? "" : "&") + clause; };
  for (const FeatureExpr& expr : constraint.every) add(in_parentheses(expr));
  for (const Constraint::Counted& one : constraint.counted)
    add(in_parentheses(one.what) + "*" + std::to_string(one.nodes));
  for (const auto& list : constraint.same) {
    std::string choices;
    for (const FeatureExpr& expr : list) choices += (choices.empty() ? "" : "|") + in_parentheses(expr);
    add("[" + choices + "]");
  }
  return text;
}

std::vector<std::string> features_of(const Constraint& constraint) {
  std::set<std::string> names;
  for (const FeatureExpr& expr : constraint.every) collect(expr, names);
  for (const Constraint::Counted& one : constraint.counted) collect(one.what, names);
  for (const auto& list : constraint.same) {
    for (const FeatureExpr& expr : list) collect(expr, names);
  }
  return {names.begin(), names.end()};
}

}  // namespace muster
