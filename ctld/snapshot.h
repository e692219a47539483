// Snapshots: a whole State in a file, so that a start does not replay everything. docs/spec/journal.md fixes the
// format.
//
//   "MUSTSNP1", then parts: kind (1 byte), length (4 bytes, little endian), bytes
//     h  pb::SnapshotPart with term, time, next id;   n  nodes;   a  array records;   j  jobs;   r  known requests
//     q  billing rules, accounts, users, QOS, and what was used; none where accounting was never used
//     v  reservations
//     d  digests of the blobs that the jobs need, 32 bytes each, sorted
//     e  the end: seq (8 bytes), hash of the chain at seq, hash of the parts before d
//   and the BLAKE2b-256 of everything before it.
//
// The encoding of a State is a function of its value, so two programs that hold the same State have the same hash.
// Files appear whole (written beside, renamed) and are never changed. Callable from every thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/engine/state.h"
#include "ctld/journal.h"

namespace muster::ctld {

inline constexpr std::size_t kSnapshotPartBytesMax = 256U << 20U;
// Records in one part: small enough that reader and writer hold little of it at a time.
inline constexpr std::size_t kSnapshotRecordsPerPart = 1'000;

struct SnapshotInfo {
  JournalPosition position;
  io::Hash state_hash{};
};

std::string snapshot_path(const std::string& state_dir, std::uint64_t seq);
// The seqs of the folder's snapshots, ascending.
std::vector<std::uint64_t> list_snapshots(const std::string& state_dir);

// Removes what helpers that were killed left half written.
void remove_partial_snapshots(const std::string& state_dir);

io::Hash hash_state(const engine::State& state);

// Writes and syncs STATE_DIR/snapshot-SEQ.
Result<SnapshotInfo> write_snapshot(const std::string& state_dir, const engine::State& state,
                                    const JournalPosition& position);

struct LoadedSnapshot {
  engine::State state;  // with its indexes
  SnapshotInfo info;
};
// kCorrupt names the file and what is wrong with it. Uses a second thread for the decoding.
Result<LoadedSnapshot> load_snapshot(const std::string& path);

// Reads a file for its soundness, its place and the blobs it needs, without building the State.
struct CheckedSnapshot {
  SnapshotInfo info;
  std::vector<Digest> blobs;
};
Result<CheckedSnapshot> check_snapshot(const std::string& path);

}  // namespace muster::ctld
