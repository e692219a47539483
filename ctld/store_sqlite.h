// The embedded store: one SQLite file in WAL mode with synchronous=FULL, one fsync for each batch.
//
//   STATE_DIR/journal.db      facts (a chain of hashes), blobs, history
//   STATE_DIR/journal.head    the last committed place, written after each commit. SQLite takes a WAL whose tail is
//                             damaged for one that ended there; with the head the loss is noticed.
//
// Three parts: the store of the running daemon (its journal thread writes; readers use connections of their own), and
// JournalReader, which walks the facts at the start, and in the helper that makes snapshots.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ctld/journal.h"
#include "lib/io/loop.h"

namespace muster::ctld {

inline constexpr int kSchemaVersion = 1;
// The largest value SQLite may hold or hand out: a batch of facts, a script. A damaged length fails on it.
inline constexpr std::size_t kRowBytesMax = 256U << 20U;

std::string journal_path(const std::string& state_dir);

// Makes the database if the folder has none, and checks that what is there is a database of this cluster and schema.
// A folder that had one (its head or a snapshot is there) is refused rather than begun anew.
Status prepare_store(const std::string& state_dir, const std::string& cluster);

class JournalReader {
 public:
  static Result<std::unique_ptr<JournalReader>> open(const std::string& state_dir);
  ~JournalReader();

  // The first and last batch that are there; both 0 when there is none.
  struct Bounds {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
  };
  Result<Bounds> bounds();

  // The bytes of up to rows_max batches after `position`, not beyond `upto`, checked against the chain; moves
  // `position` forward. Empty at the end. kCorrupt names the file and the batch.
  Result<std::vector<std::string>> read(JournalPosition& position, std::uint64_t upto, std::size_t rows_max);

  // kCorrupt when the folder's head says that more was committed than `position`, which is the journal's end.
  Status check_head(const JournalPosition& position);

 private:
  struct Impl;
  explicit JournalReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Opens the store for appending behind `position`, which must be the journal's end.
Result<std::unique_ptr<Journal>> open_store(io::Loop& loop, const std::string& state_dir,
                                            const JournalPosition& position, JournalEvents events);

}  // namespace muster::ctld
