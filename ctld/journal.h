// Journal: where the controller's facts become durable. docs/spec/journal.md fixes the format.
//
// The controller hands over one batch at a time; the journal commits it as one transaction and says so. What a batch
// brings (facts, the blobs of its submissions, the history rows of its ends) is committed as a whole or not at all.
// This is the seat of a replicated store; store_sqlite.h is the embedded one.
//
// All functions belong to the loop's thread, callbacks come on it. None of them waits for the disk but close().
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/time.h"
#include "lib/io/hash.h"
#include "lib/model/command.h"
#include "lib/model/fact.h"
#include "lib/model/job.h"

namespace muster::ctld {

// A script or an environment. Stored once however often it is submitted; a batch names it again at each use, so that
// the store knows which blobs no job needs any more.
struct BlobData {
  Digest digest;
  std::string bytes;
};

struct Batch {
  Facts facts;  // never empty
  std::vector<BlobData> blobs;
  std::vector<JobSummary> history;
};

// A place in the journal: its last batch and the hash of the chain up to it. Zero: the empty journal.
struct JournalPosition {
  std::uint64_t seq = 0;
  io::Hash chain{};
  friend bool operator==(const JournalPosition&, const JournalPosition&) = default;
};

// Which ended jobs. Items, user and states are met by a job at once; without items every job counts.
struct HistoryFilter {
  struct Item {
    JobId id{};  // a job, a task by its raw id, or an array (all its tasks)
    bool has_indices = false;
    std::vector<ArrayRange> indices{};  // the user's indices of an array
  };
  std::vector<Item> items{};
  std::string user{};
  std::string queue{};
  std::string name{};
  Instant since{};  // ended at or after; unset: no bound
  Instant until{};  // started (or was submitted, if it never started) at or before; unset: no bound
  std::vector<JobState> states{};
  std::uint64_t limit = 0;     // rows; 0: kHistoryRowsMax
  bool with_requeued = false;  // also attempts after which the job went back to the queue; else only ends of jobs
};

// Rows of one answer: bounds the memory of a reader and the time that a checkpoint may have to wait for it.
inline constexpr std::uint64_t kHistoryRowsMax = 100'000;
inline constexpr std::uint64_t kHistoryRowsDefault = 10'000;

struct HistoryPage {
  std::vector<JobSummary>
      jobs;                   // in the order in which they ended; a range of never started tasks is one for each task
  bool cut = false;           // the limit was reached: these are the newest
  std::uint64_t damaged = 0;  // rows that were left out because their hash does not fit
};

// What is not needed any more once a snapshot has been verified.
struct Compaction {
  std::uint64_t facts_upto = 0;      // batches up to this one may go
  std::uint64_t blobs_upto = 0;      // blobs last named by a batch up to this one may go,
  std::vector<Digest> blobs_in_use;  // but for these (sorted)
};

class Journal {
 public:
  virtual ~Journal() = default;

  // The batch's place in the journal. committed() or failed() follows. At most one batch is under way: idle() first.
  virtual std::uint64_t append(Batch batch) = 0;
  [[nodiscard]] virtual bool idle() const = 0;

  // The bytes of blobs, in the order asked for; kNotFound or kCorrupt for each that cannot be given.
  using BlobsRead = std::function<void(std::vector<Result<std::string>>)>;
  virtual void read_blobs(std::vector<Digest> digests, BlobsRead done) = 0;

  // Ended jobs. Runs beside everything else; a question that needs too much work is kLimitReached.
  using HistoryRead = std::function<void(Result<HistoryPage>)>;
  virtual void read_history(HistoryFilter filter, HistoryRead done) = 0;

  // Forgets in small steps between batches.
  virtual void compact(Compaction compaction) = 0;

  // Waits for the batch under way and leaves the files tidy. No callbacks come after it.
  virtual void close() = 0;
};

struct JournalEvents {
  std::function<void(std::uint64_t seq)> committed;
  // The journal is unusable from now on and nothing of the batch was committed for sure: the daemon must stop.
  std::function<void(Error)> failed;
};

}  // namespace muster::ctld
