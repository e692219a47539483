#include <gtest/gtest.h>

#include <set>

#include "lib/model/fact.h"
#include "lib/model/job.h"
#include "lib/model/orders.h"
#include "lib/model/patterns.h"

namespace muster {
namespace {

std::string error_of(std::string_view text) {
  const auto spec = parse_array_spec(text);
  if (spec.ok()) return "accepted as " + format_array_spec(*spec);
  EXPECT_EQ(spec.error().code, ErrorCode::kInvalidArgument);
  return spec.error().message;
}

TEST(JobState, NamesAreTheOnesOfTheCommandLine) {
  std::string names;
  int terminal = 0;
  for (int i = 0; i <= static_cast<int>(JobState::kDeadline); ++i) {
    names += std::string(to_string(static_cast<JobState>(i))) + " ";
    terminal += is_terminal(static_cast<JobState>(i)) ? 1 : 0;
  }
  EXPECT_EQ(names,
            "pending starting running suspended stopping completed failed cancelled timeout out_of_memory "
            "node_failed preempted deadline ");
  EXPECT_EQ(terminal, 8);
  EXPECT_FALSE(is_terminal(JobState::kStopping));
  EXPECT_TRUE(is_terminal(JobState::kCompleted));
}

TEST(EndCause, EveryOneHasItsOwnName) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(EndCause::kShepherdDied); ++i)
    names.insert(to_string(static_cast<EndCause>(i)));
  for (int i = 0; i <= static_cast<int>(StopCause::kScriptEnded); ++i) {
    names.insert(std::string_view(to_string(static_cast<StopCause>(i))));
  }
  EXPECT_EQ(names.size(), 9U + 2U);  // both have "cancelled"
}

TEST(ArraySpec, CountsPositionsThroughTheRangesInTheirOrder) {
  const auto spec = parse_array_spec("7,1-3,10-20:5%2");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  EXPECT_EQ(spec->size(), 7U);
  EXPECT_EQ(spec->max_running, 2U);
  std::vector<std::uint64_t> indices;
  for (std::uint64_t position = 0; position < spec->size(); ++position) indices.push_back(spec->index_at(position));
  EXPECT_EQ(indices, (std::vector<std::uint64_t>{7, 1, 2, 3, 10, 15, 20}));
  EXPECT_EQ(spec->position_of(15), 5U);
  EXPECT_EQ(spec->position_of(16), std::nullopt);
  EXPECT_EQ(spec->min_index(), 1U);
  EXPECT_EQ(spec->max_index(), 20U);
  EXPECT_EQ(format_array_spec(*spec), "7,1-3,10-20:5%2");
}

TEST(ArraySpec, IsWrittenInOneWay) {
  EXPECT_EQ(format_array_spec(*parse_array_spec("0-9:1")), "0-9");
  EXPECT_EQ(format_array_spec(*parse_array_spec("5-5")), "5");
  EXPECT_EQ(format_array_spec(*parse_array_spec("5-8:2")), "5-7:2");
  EXPECT_EQ(format_array_spec(*parse_array_spec("5-8:10")), "5");
  EXPECT_EQ(format_array_spec(*parse_array_spec("007")), "7");
}

TEST(ArraySpec, AcceptsAsManyTasksAsTheLimitAndNoMore) {
  EXPECT_EQ(parse_array_spec("0-9999999")->size(), kArrayTasksMax);
  EXPECT_NE(error_of("0-10000000").find("more than 10000000 tasks"), std::string::npos);
  EXPECT_NE(error_of("0-9999999,10000000").find("more than 10000000 tasks"), std::string::npos);
  EXPECT_NE(error_of("0-9223372036854775807").find("more than 10000000 tasks"), std::string::npos);
  EXPECT_EQ(parse_array_spec("9223372036854775807")->max_index(), kArrayIndexMax);
}

TEST(ArraySpec, RefusesWhatIsNoArray) {
  for (const char* text : {"",
                           "%4",
                           ",",
                           "1,",
                           ",1",
                           "-1",
                           "1-",
                           "1--2",
                           "a",
                           "1-2-3",
                           "1:2",
                           "1-2:",
                           "1-2:0",
                           "1-2:x",
                           "1-2%",
                           "1-2%0",
                           "1-2%x",
                           "1%2%3",
                           " 1",
                           "1 ",
                           "9223372036854775808",
                           "18446744073709551616",
                           "1-2:99999999999999999999",
                           "1%-1",
                           "+1",
                           "0x10",
                           "1-2%10000001",
                           "[1-2]"}) {
    EXPECT_EQ(error_of(text).find("accepted"), std::string::npos) << text << ": " << error_of(text);
  }
  EXPECT_NE(error_of("9-1").find("descending"), std::string::npos);
  EXPECT_NE(error_of("1-5,3").find("1-5 and 3 overlap"), std::string::npos);
  EXPECT_NE(error_of("1-9:2,2-9:3").find("overlap"), std::string::npos);
  EXPECT_EQ(parse_array_spec("1-9:2,2-8:2")->size(), 9U);
  EXPECT_NE(error_of("0-9223372036854775807:4611686018427387904,4611686018427387904").find("overlap"),
            std::string::npos);
  // The text is shown cut and without control characters.
  EXPECT_LT(error_of(std::string(10'000, '\x1b')).size(), 600U);
}

TEST(ArraySpec, TooManyRangesAreRefusedQuickly) {
  std::string singles;
  for (std::size_t i = 0; i <= kArrayRangesMax; ++i) singles += (i == 0 ? "" : ",") + std::to_string(2 * i);
  EXPECT_NE(error_of(singles).find("more than 10000 ranges"), std::string::npos);
  EXPECT_TRUE(parse_array_spec(singles.substr(0, singles.rfind(','))).ok());
  std::string crossing;  // each lies across all the others, none has an index in common
  for (std::uint64_t i = 0; i < 1000; ++i) {
    crossing += (i == 0 ? "" : ",") + std::to_string(i) + "-" + std::to_string(5000 + i) + ":1000";
  }
  EXPECT_NE(error_of(crossing).find("across each other"), std::string::npos);
}

Job active_job(StopCause stop, std::int32_t signal, bool started, std::vector<NodePhase> phases) {
  Active active;
  active.stop = stop;
  active.stop_signal = signal;
  active.started = started;
  for (const NodePhase phase : phases) active.nodes.push_back({NodeShare{}, phase, {}});
  Job job;
  job.phase = active;
  return job;
}

TEST(Job, StateFollowsFromThePhase) {
  using enum NodePhase;
  EXPECT_EQ(Job{}.state(), JobState::kPending);
  EXPECT_EQ(active_job(StopCause::kNone, 0, false, {kLaunching, kStarted}).state(), JobState::kStarting);
  EXPECT_EQ(active_job(StopCause::kNone, 0, true, {kStarted, kLaunching}).state(), JobState::kRunning);
  EXPECT_EQ(active_job(StopCause::kCancelled, 0, true, {kStarted, kEnded}).state(), JobState::kStopping);
  EXPECT_EQ(active_job(StopCause::kCancelled, 0, false, {kLaunching}).state(), JobState::kStopping);
  EXPECT_EQ(active_job(StopCause::kScriptEnded, 0, true, {kEnded, kStarted}).state(), JobState::kStopping);
  EXPECT_EQ(active_job(StopCause::kCancelled, 10, true, {kStarted}).state(), JobState::kRunning);
  EXPECT_EQ(active_job(StopCause::kCancelled, 0, true, {kEnded, kEnded}).state(), JobState::kRunning);
}

TEST(Job, ComparesSpecsByValue) {
  JobSpec spec;
  spec.name = "a";
  Job a;
  Job b;
  EXPECT_TRUE(a == b);
  a.spec = std::make_shared<const JobSpec>(spec);
  EXPECT_FALSE(a == b);
  b.spec = std::make_shared<const JobSpec>(spec);
  EXPECT_TRUE(a == b);
  spec.name = "b";
  b.spec = std::make_shared<const JobSpec>(spec);
  EXPECT_FALSE(a == b);
  EXPECT_FALSE((JobSubmitted{JobId(1), {}, a.spec, 0}) == (JobSubmitted{JobId(1), {}, b.spec, 0}));
  EXPECT_TRUE((JobSubmitted{JobId(1), {}, a.spec, 0}) == (JobSubmitted{JobId(1), {}, a.spec, 0}));
  LaunchOrder order;
  LaunchOrder other;
  order.spec = a.spec;
  other.spec = b.spec;
  EXPECT_FALSE(order == other);
  JobSummary summary;
  JobSummary other_summary;
  summary.spec = a.spec;
  EXPECT_FALSE(summary == other_summary);
}

PatternValues values() {
  PatternValues v;
  v.job = JobId(42);
  v.array = JobId(40);
  v.is_array = true;
  v.array_index = 7;
  v.job_name = "../etc/x";
  v.user = "ann";
  v.node = "n1";
  v.node_rank = 2;
  v.task = 13;
  return v;
}

TEST(Patterns, EachLetterStandsForItsValue) {
  EXPECT_EQ(expand_pattern("%j-%A_%a %u %N %n %t 100%%", values()), "42-40_7 ann n1 2 13 100%");
  EXPECT_EQ(expand_pattern("%4j-%04a-%1j-%3N-%4%", values()), "0042-0007-42-n1-%");
  EXPECT_EQ(expand_pattern(kDefaultOutput, values()), "muster-42.out");
  EXPECT_EQ(expand_pattern(kDefaultArrayOutput, values()), "muster-40_7.out");
}

TEST(Patterns, AJobsNameCannotLeaveItsDirectory) {
  EXPECT_EQ(expand_pattern("%x.out", values()), ".._etc_x.out");
}

TEST(Patterns, WithoutAnArrayTheJobStandsForIt) {
  PatternValues v = values();
  v.is_array = false;
  EXPECT_EQ(expand_pattern("%A_%a", v), "42_4294967294");
}

TEST(Patterns, WhatIsNoPatternStays) {
  EXPECT_EQ(expand_pattern("%z %5z %", values()), "%z %5z %");
  EXPECT_EQ(expand_pattern("%12", values()), "%12");
  EXPECT_EQ(expand_pattern("", values()), "");
  EXPECT_EQ(expand_pattern("%99999999999999999999j", values()).size(), 20U);
}

TEST(Patterns, RelativePathsLieBelowTheDirectory) {
  EXPECT_EQ(resolve_path("/home/ann", "x.out"), "/home/ann/x.out");
  EXPECT_EQ(resolve_path("/", "x.out"), "/x.out");
  EXPECT_EQ(resolve_path("/home/ann", "/tmp/x.out"), "/tmp/x.out");
}

}  // namespace
}  // namespace muster
