#include <gtest/gtest.h>

#include "lib/model/dependency.h"

namespace muster {
namespace {

constexpr auto kAfter = DependencyKind::kAfter;
constexpr auto kAfterAny = DependencyKind::kAfterAny;
constexpr auto kAfterOk = DependencyKind::kAfterOk;
constexpr auto kAfterNotOk = DependencyKind::kAfterNotOk;
constexpr auto kSingleton = DependencyKind::kSingleton;

DependencyTerm term(DependencyKind kind, std::uint64_t job, std::int64_t minutes = 0) {
  return {kind, {JobId(job), false, 0}, Duration::from_s(minutes * 60)};
}

TEST(Dependency, IsReadAsSlurmsUsersWriteIt) {
  const struct {
    const char* text;
    Dependency value;
  } cases[] = {
      {"afterok:42", {{term(kAfterOk, 42)}, false}},
      {"afterok:42:43:44", {{term(kAfterOk, 42), term(kAfterOk, 43), term(kAfterOk, 44)}, false}},
      {"afterany:42,afternotok:43", {{term(kAfterAny, 42), term(kAfterNotOk, 43)}, false}},
      {"afterok:42?afternotok:43:44", {{term(kAfterOk, 42), term(kAfterNotOk, 43), term(kAfterNotOk, 44)}, true}},
      {"after:42", {{term(kAfter, 42)}, false}},
      {"after:42+10:43+0:44", {{term(kAfter, 42, 10), term(kAfter, 43), term(kAfter, 44)}, false}},
      {"singleton", {{{kSingleton, {}, {}}}, false}},
      {"singleton,afterok:42_7", {{{kSingleton, {}, {}}, {kAfterOk, {JobId(42), true, 7}, {}}}, false}},
      {"afterany:42_0", {{{kAfterAny, {JobId(42), true, 0}, {}}}, false}},
  };
  for (const auto& one : cases) {
    const auto parsed = parse_dependency(one.text, "--dependency");
    ASSERT_TRUE(parsed.ok()) << one.text << ": " << parsed.error().message;
    EXPECT_EQ(*parsed, one.value) << one.text;
    const auto again = parse_dependency(format_dependency(*parsed), "--dependency");
    ASSERT_TRUE(again.ok()) << format_dependency(*parsed);
    EXPECT_EQ(*again, *parsed) << format_dependency(*parsed);
  }
  EXPECT_EQ(format_dependency(*parse_dependency("afterok:1,afterok:2_3,singleton", "")), "afterok:1:2_3,singleton");
  EXPECT_EQ(format_dependency(*parse_dependency("after:1+5:2", "")), "after:1+5:2");
}

TEST(Dependency, RefusesWhatIsNone) {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {
      {"", "it is empty"},
      {"42", "no kind of dependency"},
      {"afterok", "afterok names no job: write afterok:ID"},
      {"afterok:", "is not a job"},
      {"afterok:x", "is not a job"},
      {"afterok:0", "is not a job"},
      {"afterok:-1", "is not a job"},
      {"afterok:42_", "is not a job"},
      {"afterok:42_x", "is not a job"},
      {"afterok:99999999999999999999999", "is not a job"},
      {"afterok:42:", "is not a job"},
      {"afterok:42,", "no kind of dependency"},
      {",afterok:42", "no kind of dependency"},
      {"afterok:42?", "no kind of dependency"},
      {"afterokk:42", "did you mean afterok?"},
      {"afterok:42,afterany:43?singleton", "mixes , (all must hold) and ?"},
      {"singleton:42", "singleton names no job"},
      {"afterok:42+10", "minutes, which only after takes"},
      {"after:42+", "number of minutes"},
      {"after:42+x", "number of minutes"},
      {"after:42+99999999999", "number of minutes"},
      {"after:42+10?after:43", "cannot be combined with ?"},
      {"aftercorr:42_1", "aftercorr pairs the tasks of two arrays: name the array alone, as in aftercorr:42"},
      {"aftercorr:42?afterok:43", "aftercorr, which keeps back single tasks, cannot be combined with ?"},
  };
  for (const auto& one : cases) {
    const auto parsed = parse_dependency(one.text, "--dependency");
    ASSERT_FALSE(parsed.ok()) << one.text;
    EXPECT_NE(parsed.error().message.find(one.says), std::string::npos) << parsed.error().message;
    EXPECT_EQ(parsed.error().message.rfind("--dependency: ", 0), 0U) << parsed.error().message;
  }
}

TEST(Dependency, NamesAtMostAThousandJobs) {
  std::string text = "afterok";
  for (std::size_t i = 1; i <= kDependencyTermsMax; ++i) text += ":" + std::to_string(i);
  EXPECT_TRUE(parse_dependency(text, "-d").ok());
  EXPECT_FALSE(parse_dependency(text + ":7", "-d").ok());
  EXPECT_FALSE(parse_dependency(text + ",singleton", "-d").ok());
}

}  // namespace
}  // namespace muster
