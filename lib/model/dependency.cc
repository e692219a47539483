#include "lib/model/dependency.h"

#include <utility>

#include "lib/base/text.h"

namespace muster {
namespace {

constexpr std::pair<std::string_view, DependencyKind> kKinds[] = {
    {"after", DependencyKind::kAfter},         {"afterany", DependencyKind::kAfterAny},
    {"afterok", DependencyKind::kAfterOk},     {"afternotok", DependencyKind::kAfterNotOk},
    {"singleton", DependencyKind::kSingleton}, {"aftercorr", DependencyKind::kAfterCorr}};

// The earliest of several times would have to be watched together with what else may come first.
constexpr const char* kCorrWithAny =
    "aftercorr, which keeps back single tasks, cannot be combined with ?: use , or leave it out";
constexpr const char* kCorrOfTask = "aftercorr pairs the tasks of two arrays: name the array alone, as in aftercorr:";
constexpr const char* kDelayWithAny = "minutes after + cannot be combined with ?: leave one of them out";

std::string shown(std::string_view text) {
  return "\"" + printable(std::string(text.substr(0, 60))) + "\"";
}

Error bad(std::string_view what, const std::string& problem) {
  return invalid_argument(std::string(what) + ": " + problem);
}

Error too_many(std::string_view what) {
  return bad(what, "it has more than " + std::to_string(kDependencyTermsMax) + " terms: name fewer jobs");
}

Status check_corr(const Dependency& dependency, const DependencyTerm& term, std::string_view what) {
  if (term.kind != DependencyKind::kAfterCorr) return ok_status();
  if (dependency.any) return bad(what, kCorrWithAny);
  if (term.target.has_task) return bad(what, kCorrOfTask + std::to_string(term.target.job.value));
  return ok_status();
}

// "42", "42_7", "42+10".
Result<DependencyTerm> parse_job(std::string_view text, DependencyKind kind, std::string_view what) {
  DependencyTerm term;
  term.kind = kind;
  const Error error = bad(what, shown(text) + " is not a job: write an id such as 42, or 42_7 for a task of an array");
  const std::size_t plus = text.find('+');
  if (plus != std::string_view::npos) {
    if (kind != DependencyKind::kAfter) {
      return bad(what, shown(text) + " gives minutes, which only after takes: write after:" +
                           printable(std::string(text.substr(0, 60))));
    }
    const auto minutes = parse_count(text.substr(plus + 1), what, {0, kDependencyMinutesMax});
    if (!minutes.ok()) {
      return bad(what, shown(text) + " has no number of minutes from 0 to " + std::to_string(kDependencyMinutesMax) +
                           " after the +: write for example after:42+10");
    }
    term.delay = Duration::from_s(static_cast<std::int64_t>(*minutes) * 60);
    text = text.substr(0, plus);
  }
  const std::size_t underscore = text.find('_');
  const auto job = parse_count(text.substr(0, underscore), what, {1, UINT64_MAX});
  if (!job.ok()) return error;
  term.target.job = JobId(*job);
  if (underscore != std::string_view::npos) {
    const auto task = parse_count(text.substr(underscore + 1), what);
    if (!task.ok()) return error;
    term.target.has_task = true;
    term.target.task = *task;
  }
  return term;
}

// "afterok:41:42", "singleton".
Status parse_clause(std::string_view text, std::string_view what, std::vector<DependencyTerm>& out) {
  const std::size_t colon = text.find(':');
  const std::string_view word = text.substr(0, colon);
  const std::pair<std::string_view, DependencyKind>* found = nullptr;
  for (const auto& kind : kKinds) {
    if (kind.first == word) found = &kind;
  }
  if (found == nullptr) {
    const std::string nearest = nearest_word(std::string(word.substr(0, 60)),
                                             {"after", "afterany", "afterok", "afternotok", "aftercorr", "singleton"});
    return bad(what, shown(word) + " is no kind of dependency: " +
                         (nearest.empty() ? "use after, afterany, afterok, afternotok, aftercorr or singleton"
                                          : "did you mean " + nearest + "?"));
  }
  if (found->second == DependencyKind::kSingleton) {
    if (colon != std::string_view::npos) return bad(what, "singleton names no job: leave out what follows it");
    if (out.size() == kDependencyTermsMax) return too_many(what);
    out.push_back({DependencyKind::kSingleton, {}, {}});
    return ok_status();
  }
  if (colon == std::string_view::npos) {
    return bad(what, std::string(word) + " names no job: write " + std::string(word) + ":ID");
  }
  for (const std::string_view job : split(text.substr(colon + 1), ':')) {
    if (out.size() == kDependencyTermsMax) return too_many(what);
    MUSTER_ASSIGN(DependencyTerm term, parse_job(job, found->second, what));
    out.push_back(term);
  }
  return ok_status();
}

}  // namespace

std::string_view to_string(DependencyKind kind) {
  for (const auto& [word, value] : kKinds) {
    if (value == kind) return word;
  }
  return "";
}

std::string format_dependency_target(const DependencyTarget& target) {
  return std::to_string(target.job.value) + (target.has_task ? "_" + std::to_string(target.task) : "");
}

Status check_dependency(const Dependency& dependency) {
  if (dependency.terms.size() > kDependencyTermsMax) {
    return too_many("--dependency");
  }
  for (const DependencyTerm& term : dependency.terms) {
    const bool singleton = term.kind == DependencyKind::kSingleton;
    if (singleton ? term.target != DependencyTarget{} : term.target.job == JobId{}) {
      return invalid_argument("--dependency: " + std::string(to_string(term.kind)) +
                              (singleton ? " names a job: leave it out" : " names no job: give its id"));
    }
    if (term.delay.us < 0 || term.delay > Duration::from_s(kDependencyMinutesMax * 60) ||
        term.delay.us % 60'000'000 != 0 || (term.kind != DependencyKind::kAfter && term.delay != Duration{})) {
      return invalid_argument("--dependency: only after takes minutes, at most " +
                              std::to_string(kDependencyMinutesMax));
    }
    if (dependency.any && term.delay != Duration{}) {
      return bad("--dependency", kDelayWithAny);
    }
    MUSTER_TRY(check_corr(dependency, term, "--dependency"));
  }
  return ok_status();
}

Result<Dependency> parse_dependency(std::string_view text, std::string_view what) {
  Dependency dependency;
  const bool all = text.find(',') != std::string_view::npos;
  dependency.any = text.find('?') != std::string_view::npos;
  if (all && dependency.any) {
    return bad(what, shown(text) + " mixes , (all must hold) and ? (one is enough): use one of them");
  }
  if (text.empty()) return bad(what, "it is empty: write for example afterok:42");
  for (const std::string_view clause : split(text, dependency.any ? '?' : ',')) {
    MUSTER_TRY(parse_clause(clause, what, dependency.terms));
  }
  for (const DependencyTerm& term : dependency.terms) {
    if (dependency.any && term.delay != Duration{}) return bad(what, kDelayWithAny);
    MUSTER_TRY(check_corr(dependency, term, what));
  }
  return dependency;
}

std::string format_dependency(const Dependency& dependency) {
  std::string text;
  const DependencyTerm* before = nullptr;
  for (const DependencyTerm& term : dependency.terms) {
    const bool same = before != nullptr && before->kind == term.kind && term.kind != DependencyKind::kSingleton;
    if (!same) {
      if (before != nullptr) text += dependency.any ? '?' : ',';
      text += to_string(term.kind);
    }
    if (term.kind != DependencyKind::kSingleton) text += ':' + format_dependency_target(term.target);
    if (term.delay != Duration{}) text += '+' + std::to_string(term.delay.seconds() / 60);
    before = &term;
  }
  return text;
}

}  // namespace muster
