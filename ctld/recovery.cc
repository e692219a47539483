#include "ctld/recovery.h"

#include <deque>
#include <future>
#include <utility>
#include <vector>

#include "core/engine/engine.h"
#include "ctld/snapshot.h"
#include "ctld/store_sqlite.h"
#include "lib/io/log.h"
#include "lib/wire/codec.h"

namespace muster::ctld {
namespace {

// Batches read in one question: the reader's hold on the database must be short, or the WAL cannot be reset.
constexpr std::size_t kBatchesAtOnce = 64;
// Such groups of batches that are being decoded, each by a thread of its own: two keep two cores busy beside the thread
// that evolves, and bound the memory.
constexpr std::size_t kDecodedAhead = 2;

struct DecodedRows {
  std::vector<Facts> batches;
};

Result<DecodedRows> decode_rows(const std::vector<std::string>& rows, std::uint64_t first_seq,
                                const std::string& path) {
  DecodedRows out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto facts = wire::decode_facts(rows[i]);
    if (!facts.ok()) {
      return make_error(ErrorCode::kCorrupt, path + " is damaged: batch " + std::to_string(first_seq + i) + ": " +
                                                 facts.error().message + ": restore a copy of its folder");
    }
    out.batches.push_back(std::move(*facts));
  }
  return out;
}

// Shares must name nodes that are there: evolve() looks them up.
Status check_fact(const engine::State& state, const Fact& fact) {
  const auto* started = std::get_if<AttemptStarted>(&fact.body);
  if (started == nullptr) {
    return ok_status();
  }
  for (const auto& share : started->shares) {
    if (share.node.value >= state.nodes.size()) {
      return make_error(ErrorCode::kCorrupt,
                        "job " + std::to_string(started->job.value) + " starts on an unknown node");
    }
  }
  return ok_status();
}

Status evolve_batches(const std::vector<Facts>& batches, const std::string& path, Recovered& out) {
  for (const auto& facts : batches) {
    ++out.position.seq;
    for (const auto& fact : facts) {
      if (const Status status = check_fact(out.state, fact); !status.ok()) {
        return make_error(ErrorCode::kCorrupt, path + " is damaged: batch " + std::to_string(out.position.seq) + ": " +
                                                   status.error().message + ": restore a copy of its folder");
      }
      engine::evolve(out.state, fact);
    }
    ++out.batches_replayed;
  }
  return ok_status();
}

// This thread reads rows, checks their chain and evolves; others decode what comes next, which is most of the work.
Status replay(const std::string& state_dir, std::uint64_t upto, Recovered& out) {
  MUSTER_ASSIGN(const auto reader, JournalReader::open(state_dir));
  MUSTER_ASSIGN(const auto bounds, reader->bounds());
  const std::string path = journal_path(state_dir);
  if (bounds.last < out.position.seq) {
    return make_error(ErrorCode::kCorrupt, path + " is damaged: it ends at batch " + std::to_string(bounds.last) +
                                               ", but there is a snapshot of batch " +
                                               std::to_string(out.position.seq) + ": restore a copy of its folder");
  }
  JournalPosition ahead = out.position;
  std::deque<std::future<Result<DecodedRows>>> decoding;
  for (bool more = true; more || !decoding.empty();) {
    if (more) {
      const std::uint64_t first = ahead.seq + 1;
      MUSTER_ASSIGN(auto rows, reader->read(ahead, upto, kBatchesAtOnce));
      more = !rows.empty();
      if (more) {
        decoding.push_back(std::async(
            std::launch::async, [rows = std::move(rows), first, &path] { return decode_rows(rows, first, path); }));
      }
    }
    if (decoding.size() > (more ? kDecodedAhead : 0)) {
      const auto rows = decoding.front().get();
      decoding.pop_front();
      if (!rows.ok()) {
        return rows.error();
      }
      MUSTER_TRY(evolve_batches(rows->batches, path, out));
    }
  }
  out.position = ahead;
  return ok_status();
}

}  // namespace

Result<Recovered> recover(const std::string& state_dir, std::uint64_t upto) {
  const auto seqs = list_snapshots(state_dir);
  std::string damaged;
  Recovered out;
  for (auto seq = seqs.rbegin(); seq != seqs.rend(); ++seq) {
    if (*seq > upto) {
      continue;
    }
    auto loaded = load_snapshot(snapshot_path(state_dir, *seq));
    if (!loaded.ok()) {
      damaged = loaded.error().message;
      io::log_warning("a snapshot cannot be used", {{"error", damaged}});
      continue;
    }
    out.state = std::move(loaded->state);
    out.position = loaded->info.position;
    out.snapshot_seq = *seq;
    break;
  }
  if (out.snapshot_seq == 0) {
    MUSTER_ASSIGN(const auto reader, JournalReader::open(state_dir));
    MUSTER_ASSIGN(const auto bounds, reader->bounds());
    if (bounds.first > 1) {
      return make_error(ErrorCode::kCorrupt, journal_path(state_dir) + " begins at batch " +
                                                 std::to_string(bounds.first) +
                                                 " and there is no usable snapshot of what was before" +
                                                 (damaged.empty() ? "" : " (" + damaged + ")") +
                                                 ": restore a copy of the folder " + state_dir);
    }
  }
  MUSTER_TRY(replay(state_dir, upto, out));
  return out;
}

Result<Recovered> recover_all(const std::string& state_dir) {
  MUSTER_ASSIGN(auto recovered, recover(state_dir));
  MUSTER_ASSIGN(const auto reader, JournalReader::open(state_dir));
  MUSTER_TRY(reader->check_head(recovered.position));
  return recovered;
}

Status make_snapshot(const std::string& state_dir, std::uint64_t upto) {
  MUSTER_ASSIGN(const auto recovered, recover(state_dir, upto));
  if (recovered.position.seq != upto) {
    return make_error(ErrorCode::kNotFound, journal_path(state_dir) + " has no batch " + std::to_string(upto));
  }
  MUSTER_TRY(write_snapshot(state_dir, recovered.state, recovered.position));
  return ok_status();
}

}  // namespace muster::ctld
