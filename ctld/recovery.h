// Recovery: the State that the files of a state folder stand for. Used by the daemon at its start, and by the helper
// process that makes snapshots beside the running daemon (muster-ctld --make-snapshot).
#pragma once

#include <cstdint>
#include <string>

#include "core/engine/state.h"
#include "ctld/journal.h"

namespace muster::ctld {

struct Recovered {
  engine::State state;
  JournalPosition position;        // the last batch in `state`
  std::uint64_t snapshot_seq = 0;  // 0: from the beginning
  std::uint64_t batches_replayed = 0;
};

// Loads the newest usable snapshot that is not beyond `upto` and replays the batches after it, up to `upto`. A damaged
// snapshot is passed over with a warning when an older one and the journal still hold everything. kCorrupt names the
// file and the batch; nothing is changed then.
Result<Recovered> recover(const std::string& state_dir, std::uint64_t upto = UINT64_MAX);

// Also checks that nothing committed is missing at the journal's end. For the daemon, which holds the folder alone.
Result<Recovered> recover_all(const std::string& state_dir);

// The helper: recovers up to batch `upto` and writes its snapshot.
Status make_snapshot(const std::string& state_dir, std::uint64_t upto);

}  // namespace muster::ctld
