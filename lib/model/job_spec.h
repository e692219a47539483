// JobSpec: what a user asked for. Immutable after submission; one object is shared by all tasks of an array.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/model/binding.h"
#include "lib/model/dependency.h"
#include "lib/model/ids.h"
#include "lib/model/license.h"

namespace muster {

enum class JobKind : std::uint8_t {
  kBatch,  // a script runs on the first node
  kRun,    // `muster run` outside a job: lives as long as the step that its client starts on the first node
  kAlloc,  // `muster alloc`: nothing runs in it but steps; lives as long as its client holds it at the first node
  kAllocDetached,  // `muster alloc --no-shell`: likewise, until it is cancelled or its time is over
};

enum class OpenMode : std::uint8_t { kTruncate, kAppend };

// Indices of an array as ranges with step, in the order given; positions count through them from 0.
struct ArrayRange {
  std::uint64_t first = 0;
  std::uint64_t last = 0;  // inclusive
  std::uint64_t step = 1;
  [[nodiscard]] std::uint64_t count() const { return (last - first) / step + 1; }
  friend bool operator==(const ArrayRange&, const ArrayRange&) = default;
};

struct ArraySpec {
  std::vector<ArrayRange> ranges;
  std::uint64_t max_running = 0;  // %MAX; 0: no limit

  [[nodiscard]] std::uint64_t size() const;
  // The index that the user gave for position 0 .. size()-1.
  [[nodiscard]] std::uint64_t index_at(std::uint64_t position) const;
  // The position of a user's index, if it is in the array.
  [[nodiscard]] std::optional<std::uint64_t> position_of(std::uint64_t index) const;
  [[nodiscard]] std::uint64_t min_index() const;
  [[nodiscard]] std::uint64_t max_index() const;
  friend bool operator==(const ArraySpec&, const ArraySpec&) = default;
};

// At most this many tasks in one array: ids are consecutive, and a record per started task must stay affordable.
inline constexpr std::uint64_t kArrayTasksMax = 10'000'000;
// The largest index: programs may read it into a signed 64-bit integer.
inline constexpr std::uint64_t kArrayIndexMax = INT64_MAX;
// Ranges of one array: looking up a position walks through them.
inline constexpr std::size_t kArrayRangesMax = 10'000;
// What parse_array_spec checks, for a value that came another way. Every other function expects a value that passes.
Status check_array_spec(const ArraySpec& spec);
// "0-9", "1,3,5-9:2", "1-1000%50". Overlapping, empty or descending ranges are refused.
Result<ArraySpec> parse_array_spec(std::string_view text);
std::string format_array_spec(const ArraySpec& spec);

struct JobSpec {
  JobKind kind = JobKind::kBatch;
  std::string name;
  std::string user;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string queue;  // empty: the default queue, filled in at submission
  std::string account;
  std::string qos;
  std::string comment;

  // Size. 0 means "not asked" and is filled in at submission (nodes_min, ntasks, cpus_per_task become at least 1).
  std::uint32_t nodes_min = 0;
  std::uint32_t nodes_max = 0;  // 0 after submission: as many as needed
  std::uint32_t ntasks = 0;
  std::uint32_t ntasks_per_node = 0;
  std::uint32_t cpus_per_task = 0;  // physical cores
  std::uint64_t mem_per_node_mib = 0;
  std::uint64_t mem_per_cpu_mib = 0;
  std::uint64_t mem_per_gpu_mib = 0;
  std::uint32_t gpus = 0;  // in total
  std::uint32_t gpus_per_node = 0;
  std::uint32_t gpus_per_task = 0;
  bool exclusive = false;
  std::vector<std::string> nodelist;  // must include these
  std::vector<std::string> exclude;
  // Suspect nodes that ended its attempts: it goes there only when no other in service can take it. Never the user's.
  std::vector<std::string> avoid;
  // Features that its nodes must have, as given (constraint.h); empty: any.
  std::string constraint;
  // At most so many leaf switches; 0: any number. After waiting so long any number will do; infinite: never.
  std::uint32_t switches = 0;
  Duration switches_wait = Duration::infinite();
  // How its tasks are placed on each node (binding.h): the last three as given, for its steps that do not say otherwise.
  Locality locality = Locality::kPrefer;
  std::uint32_t threads_per_core = 0;  // hardware threads of each core that it uses; 0: all
  std::string cpu_bind;
  std::string gpu_bind;
  std::string distribution;
  std::uint32_t segment = 0;  // its nodes come in groups of so many, each inside one block; 0: no groups

  Duration time_limit;  // 0: the queue's default, filled in at submission
  Duration time_min;    // the planner may shorten the limit down to this to fit a gap; 0: it may not
  Instant deadline;     // to have ended by; unset: none
  std::int32_t nice = 0;
  Instant begin;          // not before; unset: at once
  Dependency dependency;  // as the user gave it; what of it is open stands in the job
  bool hold = false;
  bool requeue = false;        // whether preemption may put it back into the queue; it is cancelled otherwise
  bool requeue_given = false;  // the user said so; else the configuration's default was filled in at submission
  std::optional<ArraySpec> array;
  std::string reservation;  // the job runs only in its windows; empty: outside of all windows
  LicenseCounts licenses;   // held while it runs; of an array: by each task

  std::string work_dir;
  std::string stdout_path;  // patterns, see patterns.h; relative to work_dir
  std::string stderr_path;  // empty: with stdout
  std::string stdin_path;   // empty: /dev/null
  OpenMode open_mode = OpenMode::kTruncate;
  bool open_mode_given = false;  // else later attempts append to what the first one wrote
  std::string submit_host;
  std::string script_name;  // shown to the user, and $0's base name
  std::vector<std::string> args;
  Digest script;       // blob with the script's bytes (kBatch)
  Digest environment;  // blob: NAME=value\0...
  // --signal: sent that long before the time limit ends the job. 0: none.
  std::int32_t warn_signal = 0;
  Duration warn_before;
  bool warn_batch_only = false;  // to the batch shell alone; else to the tasks of the steps
  // How the client applied --export: "ALL", "NONE", or the user's own list; only shown and exported.
  std::string export_mode;

  friend bool operator==(const JobSpec&, const JobSpec&) = default;
};

using JobSpecPtr = std::shared_ptr<const JobSpec>;

}  // namespace muster
