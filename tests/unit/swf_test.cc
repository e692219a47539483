// The reader of workload logs and the choice of the jobs to replay.
#include "sim/replay/swf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>

#include <fstream>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace muster::sim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

SwfLog parsed(std::string_view text) {
  SwfParser parser;
  EXPECT_TRUE(parser.feed(text).ok());
  auto log = parser.finish();
  EXPECT_TRUE(log.ok());
  return *log;
}

constexpr const char* kHeader = "; MaxNodes: 50\n;MaxProcs:   100 (of 128)\n";
// number, submit, wait, run, allocated, cpu, memory, requested, estimate, ...
constexpr const char* kLine = "7 100 -1 60 8 -1 -1 16 300 -1 1 1 1 -1 -1 -1 -1 -1\n";

TEST(Swf, ReadsTheFieldsThatAReplayUses) {
  const SwfLog log = parsed(std::string(kHeader) + kLine);
  EXPECT_EQ(log.processors, 100);
  EXPECT_EQ(log.lines, 3U);
  EXPECT_EQ(log.bad_lines, 0U);
  EXPECT_THAT(log.records, ElementsAre(SwfRecord{7, 100, 60, 8, 16, 300}));
}

TEST(Swf, TheMachineIsAsLargeAsItsNodesWhereProcessorsAreNotNamed) {
  EXPECT_EQ(parsed("; MaxNodes: 256\n").processors, 256);
  EXPECT_EQ(parsed("; MaxNodes: 256\n; MaxProcs: unknown\n").processors, 256);
  EXPECT_EQ(parsed("; MaxProcs: 338\n; MaxProcs: 512\n").processors, 338);
  EXPECT_EQ(parsed("; Note: MaxProcs: 99\n; MaxProcs: -4\n; MaxProcsX: 5\n").processors, 0);
  EXPECT_EQ(parsed("").processors, 0);
}

TEST(Swf, BlanksTabsAndLineEndsDoNotMatter) {
  const SwfLog log = parsed(
      "\r\n  \t\n  7\t100 -1  60 8 -1 -1 16 300 -1 1 1 1 -1 -1 -1 -1 -1 \r\n"
      "8 101 -1 61 9 142.00 -1 17 301 -1 1 1 1 -1 -1 -1 -1 -1");  // no end of line
  EXPECT_EQ(log.bad_lines, 0U);
  EXPECT_THAT(log.records, ElementsAre(SwfRecord{7, 100, 60, 8, 16, 300}, SwfRecord{8, 101, 61, 9, 17, 301}));
}

TEST(Swf, FractionsAreCutOffAndPlusSignsRead) {
  const SwfLog log = parsed("+7 100.9 -1 6e1 8 -1 -1 16.0 300.5 -1 1 1 1 -1 -1 -1 -1 -1\n");
  EXPECT_THAT(log.records, ElementsAre(SwfRecord{7, 100, 60, 8, 16, 300}));
}

TEST(Swf, BadLinesAreCountedAndNamedByNumberAndReason) {
  const auto only_bad = [](const std::string& line) {
    const SwfLog log = parsed("; a comment\n" + line + "\n" + kLine);
    EXPECT_EQ(log.records.size(), 1U) << line;
    EXPECT_EQ(log.bad_lines, 1U) << line;
    return log.first_bad.empty() ? std::string() : log.first_bad.front();
  };
  EXPECT_EQ(only_bad("1 2 3"), "line 2: 3 fields in place of 18");
  EXPECT_EQ(only_bad("1"), "line 2: 1 field in place of 18");
  EXPECT_EQ(only_bad("7 100 -1 60 8 -1 -1 16 300 -1 1 1 1 -1 -1 -1 -1 -1 -1"), "line 2: 19 fields in place of 18");
  EXPECT_EQ(only_bad("7 100 -1 60 8 -1 -1 sixteen 300 -1 1 1 1 -1 -1 -1 -1 -1"),
            "line 2: field 8 is \"sixteen\", which is no number");
  for (const char* word : {"nan", "inf", "-inf", "0x10", "1e", "--1", "+-1", "1,5", "1e999"}) {
    EXPECT_THAT(only_bad("7 100 -1 " + std::string(word) + " 8 -1 -1 16 300 -1 1 1 1 -1 -1 -1 -1 -1"),
                HasSubstr("line 2: field 4 is"))
        << word;
  }
  EXPECT_EQ(only_bad("7 -1 -1 60 8 -1 -1 16 300 -1 1 1 1 -1 -1 -1 -1 -1"), "line 2: the submit time is missing");
  EXPECT_THAT(only_bad("7 100 -1 9999999999999999999 8 -1 -1 16 300 -1 1 1 1 -1 -1 -1 -1 -1"),
              HasSubstr("the run time is beyond"));
  EXPECT_THAT(only_bad("7 100 -1 60 8 -1 -1 16 1e30 -1 1 1 1 -1 -1 -1 -1 -1"),
              HasSubstr("the requested time is beyond"));
  EXPECT_THAT(only_bad(std::string("7 \0 3", 5)), HasSubstr("\\x00"));
}

TEST(Swf, OnlyTheFirstBadLinesAreKept) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "nonsense\n";
  const SwfLog log = parsed(text);
  EXPECT_EQ(log.bad_lines, 1000U);
  ASSERT_EQ(log.first_bad.size(), kSwfBadLinesKept);
  EXPECT_THAT(log.first_bad.back(), HasSubstr("line 5: "));
}

TEST(Swf, ALineWithoutEndTakesNoMemory) {
  SwfParser parser;
  const std::string piece(1 << 20, '1');
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(parser.feed(piece).ok());
  ASSERT_TRUE(parser.feed("\n").ok());
  ASSERT_TRUE(parser.feed("; " + piece + "\n").ok());  // a comment may be long
  ASSERT_TRUE(parser.feed(kLine).ok());
  const auto log = parser.finish();
  ASSERT_TRUE(log.ok());
  EXPECT_THAT(log->first_bad, ElementsAre("line 1: longer than 65536 bytes"));
  EXPECT_EQ(log->records.size(), 1U);
}

TEST(Swf, PiecesMayEndAnywhere) {
  const std::string text = std::string(kHeader) + kLine + "bad\n\n" + kLine;
  const SwfLog whole = parsed(text);
  for (std::size_t size = 1; size < 20; ++size) {
    SwfParser parser;
    for (std::size_t at = 0; at < text.size(); at += size) {
      ASSERT_TRUE(parser.feed(std::string_view(text).substr(at, size)).ok());
    }
    const auto log = parser.finish();
    ASSERT_TRUE(log.ok());
    EXPECT_EQ(log->records, whole.records);
    EXPECT_EQ(log->first_bad, whole.first_bad);
    EXPECT_EQ(log->processors, whole.processors);
    EXPECT_EQ(log->lines, whole.lines);
  }
}

class SwfFile : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& bytes) {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }
  std::string write_gzip(const std::string& name, const std::string& bytes) {
    const std::string path = dir_ / name;
    gzFile file = gzopen(path.c_str(), "wb");
    EXPECT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())), static_cast<int>(bytes.size()));
    EXPECT_EQ(gzclose(file), Z_OK);
    return path;
  }
  static std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static std::string failure(const std::string& path) {
    const auto log = read_swf(path);
    EXPECT_FALSE(log.ok());
    return log.ok() ? "" : log.error().message;
  }
  static std::string many_lines() {
    std::string text = kHeader;
    for (int i = 0; i < 5000; ++i)
      text += "7 " + std::to_string(i * i) + " -1 60 8 -1 -1 16 300 -1 1 1 1 -1 -1 -1 -1 -1\n";
    return text;
  }
  test::TempDir dir_;
};

TEST_F(SwfFile, PlainAndCompressedFilesGiveTheSameWhateverTheirNames) {
  const auto plain = read_swf(write("log.gz", many_lines()));
  const auto compressed = read_swf(write_gzip("log.swf", many_lines()));
  ASSERT_TRUE(plain.ok() && compressed.ok());
  EXPECT_EQ(plain->records.size(), 5000U);
  EXPECT_EQ(plain->records, compressed->records);
}

TEST_F(SwfFile, ADamagedCompressedFileIsRefused) {
  const std::string whole = content(write_gzip("whole", many_lines()));
  EXPECT_THAT(failure(write("cut", whole.substr(0, whole.size() / 2))), HasSubstr("is damaged"));
  EXPECT_THAT(failure(write("cut-end", whole.substr(0, whole.size() - 1))), HasSubstr("is damaged"));
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 0x55);
  EXPECT_THAT(failure(write("flipped", flipped)), HasSubstr("is damaged"));
}

TEST_F(SwfFile, WhatCannotBeReadIsNamed) {
  EXPECT_THAT(failure(dir_ / "missing.swf"), HasSubstr("missing.swf: No such file"));
  EXPECT_THAT(failure(dir_.path()), HasSubstr("Is a directory"));
}

TEST_F(SwfFile, AnEmptyFileIsAnEmptyLog) {
  const auto log = read_swf(write("empty", ""));
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->lines, 0U);
}

// --- filters ---------------------------------------------------------------------------------------------------

SwfLog log_of(std::vector<SwfRecord> records, std::int64_t processors = 100) {
  SwfLog log;
  log.processors = processors;
  log.records = std::move(records);
  return log;
}

std::vector<std::int64_t> kept(const SwfLog& log, const TraceOptions& options) {
  std::vector<std::int64_t> numbers;
  const auto trace = select_jobs(log, options);
  EXPECT_TRUE(trace.ok());
  if (!trace.ok()) return numbers;
  for (const TraceJob& job : trace->jobs) numbers.push_back(job.number);
  EXPECT_EQ(numbers.size() + trace->dropped, log.records.size());
  return numbers;
}

// number, submit, run, allocated, requested, estimate
const std::vector<SwfRecord> kMixed = {
    {1, 0, 60, 8, 16, 300},     // good
    {2, 0, 60, 8, 101, 300},    // requested too wide
    {3, 0, 60, 101, 16, 300},   // allocated too wide
    {4, 0, 60, -1, -1, 300},    // no width
    {5, 0, 0, 8, 16, 300},      // no run time
    {6, 0, 60, 8, 16, -1},      // no estimate
    {7, 0, 60, -1, 16, 300},    // requested only
    {8, 0, 60, 8, -1, 300},     // allocated only
    {9, 0, 900, 100, 100, 300}  // ran over its estimate
};

TEST(SwfFilter, StrictDropsWhatIsMissingOrTooWide) {
  EXPECT_THAT(kept(log_of(kMixed), {}), ElementsAre(1, 7, 8, 9));
}

TEST(SwfFilter, NoneNeedsOnlyRunTimeAndWidth) {
  const TraceOptions options{.filter = TraceFilter::kNone};
  EXPECT_THAT(kept(log_of(kMixed), options), ElementsAre(1, 3, 6, 7, 8, 9));
  const auto trace = select_jobs(log_of(kMixed), options);
  EXPECT_EQ(trace->jobs[2], (TraceJob{6, 0, 60, 60, 16})) << "a missing estimate is the run time";
}

TEST(SwfFilter, WidthsAreTheRequestedOnesUnlessAskedOtherwise) {
  const SwfLog log =
      log_of({{1, 0, 60, 8, 16, 300}, {2, 0, 60, 24, 16, 300}, {3, 0, 60, 8, -1, 300}, {4, 0, 60, -1, 16, 300}});
  const auto widths = [&](TraceWidth width) {
    const auto trace = select_jobs(log, TraceOptions{.width = width});
    EXPECT_TRUE(trace.ok());
    std::vector<std::int64_t> all;
    for (const TraceJob& job : trace->jobs) all.push_back(job.width);
    return all;
  };
  EXPECT_THAT(widths(TraceWidth::kRequested), ElementsAre(16, 16, 8, 16));
  EXPECT_THAT(widths(TraceWidth::kAllocated), ElementsAre(8, 24, 8, 16));
  EXPECT_THAT(widths(TraceWidth::kLargest), ElementsAre(16, 24, 8, 16));
}

TEST(SwfFilter, AJobRunsNoLongerThanItsEstimate) {
  const SwfLog log = log_of({{1, 5, 900, 4, 4, 300}, {2, 6, 60, 4, 4, 300}});
  EXPECT_THAT(select_jobs(log, {})->jobs, ElementsAre(TraceJob{1, 5, 300, 300, 4}, TraceJob{2, 6, 60, 300, 4}));
  EXPECT_THAT(select_jobs(log, TraceOptions{.perfect_estimates = true})->jobs,
              ElementsAre(TraceJob{1, 5, 300, 300, 4}, TraceJob{2, 6, 60, 60, 4}));
}

TEST(SwfFilter, TheMachineAndTheNumberOfJobsCanBeGiven) {
  EXPECT_THAT(kept(log_of(kMixed, 0), TraceOptions{.machine = 16}), ElementsAre(1, 7, 8));
  const auto trace = select_jobs(log_of(kMixed), TraceOptions{.jobs_max = 2});
  ASSERT_TRUE(trace.ok());
  EXPECT_EQ(trace->jobs.size(), 2U);
  EXPECT_EQ(trace->jobs[1].number, 7) << "the first two that the filter leaves";
  EXPECT_TRUE(select_jobs(log_of(kMixed, kReplayMachineMax), {}).ok());
}

TEST(SwfFilter, RefusalsSayWhatToDo) {
  const auto refusal = [](const SwfLog& log, const TraceOptions& options = {}) {
    const auto trace = select_jobs(log, options);
    EXPECT_FALSE(trace.ok());
    return trace.ok() ? "" : trace.error().message;
  };
  EXPECT_THAT(refusal(log_of(kMixed, 0)), HasSubstr("give --machine"));
  EXPECT_THAT(refusal(log_of(kMixed, kReplayMachineMax + 1)), HasSubstr("too large"));
  EXPECT_THAT(refusal(log_of({kMixed[5]})), HasSubstr("--filter none"));
  EXPECT_THAT(refusal(log_of({})), HasSubstr("it is empty"));
  EXPECT_THAT(refusal(parsed("; MaxProcs: 4\nnonsense\n")),
              HasSubstr("every line is bad, beginning with line 2: field 1"));
}

}  // namespace
}  // namespace muster::sim
