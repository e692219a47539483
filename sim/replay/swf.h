// Recorded workloads in the Standard Workload Format of the Parallel Workloads Archive
// (https://www.cs.huji.ac.il/labs/parallel/workload/swf.html): a job on each line, 18 numbers, -1 for what is unknown;
// comments begin with ';' and name the machine's size. Plain or compressed by gzip, recognised by its content.
//
// A line that is no job is counted and reported, never guessed at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/base/result.h"

namespace muster::sim {

// A longer line is a bad one; of a longer comment the beginning counts.
inline constexpr std::size_t kSwfLineMax = 65'536;
inline constexpr std::uint64_t kSwfJobsMax = 50'000'000;
// Times in seconds and numbers of cores beyond this are no measurements; sums of times stay far from overflow.
inline constexpr std::int64_t kSwfValueMax = 100'000'000'000;
inline constexpr std::size_t kSwfBadLinesKept = 5;
// The largest machine that can be replayed: its cores are the indices of one set.
inline constexpr std::int64_t kReplayMachineMax = std::int64_t{IndexSet::kStoredMax} + 1;

// The fields that a replay uses. Times in whole seconds: fractions are cut off.
struct SwfRecord {
  std::int64_t number = 0;       // field 1
  std::int64_t submit_s = 0;     // field 2; never negative
  std::int64_t run_s = -1;       // field 4
  std::int64_t allocated = -1;   // field 5, processors
  std::int64_t requested = -1;   // field 8, processors
  std::int64_t estimate_s = -1;  // field 9, requested time
  friend bool operator==(const SwfRecord&, const SwfRecord&) = default;
};

struct SwfLog {
  std::int64_t processors = 0;  // "MaxProcs", else "MaxNodes"; 0: not named
  std::vector<SwfRecord> records;
  std::uint64_t lines = 0;
  std::uint64_t bad_lines = 0;
  std::vector<std::string> first_bad;  // "line 12: 3 fields in place of 18"; at most kSwfBadLinesKept
};

// Reads a log piece by piece.
class SwfParser {
 public:
  // Pieces may end anywhere. An error when there are more jobs than kSwfJobsMax; no more may be fed then.
  Status feed(std::string_view bytes);
  // The log, its last line included. Call once.
  Result<SwfLog> finish();

 private:
  Status line_ended();
  Status take_line(std::string_view line);
  void take_comment(std::string_view line);
  void bad(const std::string& why);

  SwfLog log_;
  std::string line_;       // the beginning of a line whose end has not come
  bool too_long_ = false;  // that line exceeds kSwfLineMax
  std::int64_t max_procs_ = 0;
  std::int64_t max_nodes_ = 0;
};

Result<SwfLog> read_swf(const std::string& path);

// A job as it is replayed. Times in seconds.
struct TraceJob {
  std::int64_t number = 0;
  std::int64_t submit_s = 0;
  std::int64_t run_s = 0;  // at least 1, at most estimate_s
  std::int64_t estimate_s = 0;
  std::int64_t width = 0;  // cores, 1 .. machine
  friend bool operator==(const TraceJob&, const TraceJob&) = default;
};

enum class TraceFilter {
  kStrict,  // drops jobs wider than the machine by request or allocation, and those that lack a width, run time or
            // estimate
  kNone,    // drops jobs without run time or width; a missing estimate is the run time
};
enum class TraceWidth { kRequested, kAllocated, kLargest };

struct TraceOptions {
  TraceFilter filter = TraceFilter::kStrict;
  TraceWidth width = TraceWidth::kRequested;  // the other field counts where this one is missing
  bool perfect_estimates = false;             // every estimate is the run time
  std::int64_t machine = 0;                   // cores; 0: as the log says
  std::uint64_t jobs_max = 0;                 // the first so many that the filter leaves; 0: all
};

struct Trace {
  std::int64_t machine = 0;
  std::vector<TraceJob> jobs;  // as they stand in the file
  std::uint64_t dropped = 0;   // by the filter
};

// An error when the machine's size is unknown or too large, or when no job is left.
Result<Trace> select_jobs(const SwfLog& log, const TraceOptions& options);

}  // namespace muster::sim
