#include "ctld/store_sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "ctld/store_database.h"
#include "ctld/store_format.h"
#include "ctld/store_read.h"
#include "lib/io/files.h"
#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

// Pages of 4 KiB. Below the first number the WAL is left alone; from it on it is copied when nothing waits; from the
// second on also when something does; from the third on readers are made to let go of it.
constexpr int kCheckpointPages = 4'096;
constexpr int kCheckpointPagesBusy = 16'384;
constexpr int kTruncatePages = 65'536;

// Rows deleted in one transaction of a compaction: some milliseconds, which is what a batch may have to wait.
constexpr std::size_t kCompactRows = 500;

class SqliteStore final : public Journal {
 public:
  SqliteStore(io::Loop& loop, std::string state_dir, const JournalPosition& position, JournalEvents events)
      : loop_(loop),
        state_dir_(std::move(state_dir)),
        events_(std::move(events)),
        position_(position),
        next_seq_(position.seq + 1),
        blob_reader_(std::make_shared<ReadConnection>(journal_path(state_dir_))),
        history_reader_(std::make_shared<ReadConnection>(journal_path(state_dir_))),
        async_(loop, [this] { deliver(); }) {}

  ~SqliteStore() override { SqliteStore::close(); }

  Status open() {
    MUSTER_TRY(db_.open(journal_path(state_dir_), true, false));
    MUSTER_TRY(db_.run("PRAGMA synchronous = FULL"));
    MUSTER_TRY(db_.run("PRAGMA wal_autocheckpoint = 0"));
    MUSTER_TRY(db_.run("PRAGMA cache_size = -65536"));
    sqlite3_wal_hook(db_.handle(), &SqliteStore::on_wal, this);
    MUSTER_TRY(insert_facts_.prepare(db_, "INSERT INTO journal(seq, prev_hash, data, hash) VALUES (?, ?, ?, ?)"));
    MUSTER_TRY(insert_blob_.prepare(db_, "INSERT INTO blobs(digest, data) VALUES (?, ?) ON CONFLICT DO NOTHING"));
    MUSTER_TRY(use_blob_.prepare(
        db_, "INSERT INTO blob_uses(digest, seq) VALUES (?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq"));
    MUSTER_TRY(insert_history_.prepare(
        db_,
        "INSERT INTO history(id_first, count, array_id, user, queue, state, submit_us, start_us, end_us, record, hash) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    const std::string path = head_path(state_dir_);
    head_.reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (!head_.valid()) {
      return io::errno_error("open", path, errno);
    }
    write_head();
    thread_ = std::thread([this] { work(); });
    return ok_status();
  }

  std::uint64_t append(Batch batch) override {
    MUSTER_CHECK(idle_ && !batch.facts.empty());
    idle_ = false;
    const std::uint64_t seq = next_seq_++;
    {
      const std::lock_guard lock(mutex_);
      batch_ = std::move(batch);
    }
    wake_.notify_one();
    return seq;
  }

  [[nodiscard]] bool idle() const override { return idle_; }

  void read_blobs(std::vector<Digest> digests, BlobsRead done) override {
    auto answers = std::make_shared<std::vector<Result<std::string>>>();
    loop_.run_in_worker(
        [reader = blob_reader_, digests = std::move(digests), answers] { *answers = reader->blobs(digests); },
        [alive = std::weak_ptr<int>(alive_), answers, done = std::move(done)] {
          if (!alive.expired()) {
            done(std::move(*answers));
          }
        });
  }

  void read_history(HistoryFilter filter, HistoryRead done) override {
    auto answer = std::make_shared<std::optional<Result<HistoryPage>>>();
    loop_.run_in_worker(
        [reader = history_reader_, filter = std::move(filter), answer] { answer->emplace(reader->history(filter)); },
        [alive = std::weak_ptr<int>(alive_), answer, done = std::move(done)] {
          if (!alive.expired()) {
            done(std::move(**answer));
          }
        });
  }

  void compact(Compaction compaction) override {
    {
      const std::lock_guard lock(mutex_);
      compaction_ = std::move(compaction);
      compaction_cursor_.clear();
    }
    wake_.notify_one();
  }

  void close() override {
    alive_.reset();
    if (!thread_.joinable()) {
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

 private:
  static int on_wal(void* self, sqlite3*, const char*, int pages) {
    static_cast<SqliteStore*>(self)->wal_pages_ = pages;
    return SQLITE_OK;
  }

  // -- on the loop

  void deliver() {
    std::optional<std::uint64_t> committed;
    std::optional<Error> failed;
    {
      const std::lock_guard lock(mutex_);
      committed.swap(committed_);
      failed = failed_;
    }
    if (failed) {
      if (!std::exchange(told_failure_, true)) {
        events_.failed(*failed);
      }
      return;
    }
    if (committed) {
      idle_ = true;
      events_.committed(*committed);
    }
  }

  // -- on the journal thread

  void work() {
    std::unique_lock lock(mutex_);
    while (!failed_) {
      wake_.wait(lock, [this] { return batch_ || compaction_ || stop_; });
      if (batch_) {
        const Batch batch = std::move(*batch_);
        batch_.reset();
        lock.unlock();
        const Status status = commit(batch);
        lock.lock();
        settle(status);
        if (status.ok()) {
          committed_ = position_.seq;
        }
        async_.notify();
      } else if (stop_) {
        break;
      } else {
        Compaction step = std::move(*compaction_);
        compaction_.reset();
        lock.unlock();
        const Result<bool> more = compact_step(step);
        lock.lock();
        settle(more.ok() ? ok_status() : Status(more.error()));
        if (more.ok() && *more && !compaction_) {
          compaction_ = std::move(step);
        }
      }
      if (!failed_) {
        const bool waiting = batch_.has_value();
        lock.unlock();
        const Status status = checkpoint(waiting);
        lock.lock();
        settle(status);
      }
    }
    if (!failed_) {
      // Leaves one file. Readers may hold the WAL; then it stays for the next start.
      sqlite3_wal_checkpoint_v2(db_.handle(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
    }
  }

  void settle(const Status& status) {
    if (!status.ok() && !failed_) {
      failed_ = status.error();
      async_.notify();
    }
  }

  Status commit(const Batch& batch) {
    const Status status = write(batch);
    if (!status.ok()) {
      sqlite3_exec(db_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
      return status;
    }
    write_head();
    return ok_status();
  }

  Status write(const Batch& batch) {
    const std::string facts = wire::encode_facts(batch.facts);
    const JournalPosition next{position_.seq + 1, chain_hash(position_.chain, facts)};
    MUSTER_TRY(db_.run("BEGIN IMMEDIATE"));
    insert_facts_.bind(next.seq);
    insert_facts_.bind(view_of(position_.chain));
    insert_facts_.bind(std::string_view(facts));
    insert_facts_.bind(view_of(next.chain));
    MUSTER_TRY(insert_facts_.execute());
    for (const auto& blob : batch.blobs) {
      insert_blob_.bind(view_of(blob.digest));
      insert_blob_.bind(std::string_view(blob.bytes));
      MUSTER_TRY(insert_blob_.execute());
      use_blob_.bind(view_of(blob.digest));
      use_blob_.bind(next.seq);
      MUSTER_TRY(use_blob_.execute());
    }
    for (const auto& job : batch.history) {
      MUSTER_TRY(write_history(job));
    }
    MUSTER_TRY(db_.run("COMMIT"));
    position_ = next;
    return ok_status();
  }

  Status write_history(const JobSummary& job) {
    pb::JobSummary message;
    wire::to_pb(job, message);
    const std::string record = message.SerializeAsString();
    const io::Hash hash = io::blake2b_256(record);
    insert_history_.bind(job.id.value);
    insert_history_.bind(job.count);
    insert_history_.bind(job.array.value);
    insert_history_.bind(std::string_view(job.spec->user));
    insert_history_.bind(std::string_view(job.spec->queue));
    insert_history_.bind(static_cast<std::int64_t>(job.state));
    insert_history_.bind(job.submit_time.us);
    insert_history_.bind(job.start_time.us);
    insert_history_.bind(job.end_time.us);
    insert_history_.bind(std::string_view(record));
    insert_history_.bind(view_of(hash));
    return insert_history_.execute();
  }

  // Not synced: after a power cut an older head is as good, since it only says what must be there at least.
  void write_head() {
    const std::string bytes = encode_head(position_);
    if (pwrite(head_.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
      io::log_warning("cannot write the journal's head", {{"path", head_path(state_dir_)}, {"errno", errno}});
    }
  }

  Status checkpoint(bool waiting) {
    if (wal_pages_ < (waiting ? kCheckpointPagesBusy : kCheckpointPages)) {
      return ok_status();
    }
    const int mode = wal_pages_ >= kTruncatePages ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;
    const int rc = sqlite3_wal_checkpoint_v2(db_.handle(), nullptr, mode, nullptr, nullptr);
    if ((rc & 0xff) == SQLITE_BUSY || rc == SQLITE_OK) {
      wal_pages_ = 0;  // the hook says the real number at the next commit
      return ok_status();
    }
    return db_.error(rc, "checkpoint");
  }

  // One step; true: there is more to do.
  Result<bool> compact_step(const Compaction& compaction) {
    Statement facts;
    MUSTER_TRY(facts.prepare(
        db_, "DELETE FROM journal WHERE seq IN (SELECT seq FROM journal WHERE seq <= ? ORDER BY seq LIMIT ?)"));
    facts.bind(compaction.facts_upto);
    facts.bind(std::uint64_t{kCompactRows});
    MUSTER_TRY(facts.execute());
    if (sqlite3_changes64(db_.handle()) > 0) {
      return true;
    }
    return compact_blobs(compaction);
  }

  Result<bool> compact_blobs(const Compaction& compaction) {
    std::vector<std::string> old;
    std::size_t seen = 0;
    {
      Statement uses;
      MUSTER_TRY(uses.prepare(db_, "SELECT digest, seq FROM blob_uses WHERE digest > ? ORDER BY digest LIMIT ?"));
      uses.bind(std::string_view(compaction_cursor_));
      uses.bind(std::uint64_t{kCompactRows});
      std::string last;
      for (;;) {
        MUSTER_ASSIGN(const bool more, uses.step());
        if (!more) {
          break;
        }
        ++seen;
        last = std::string(uses.bytes(0));
        if (uses.u64(1) <= compaction.blobs_upto && !in_use(compaction, last)) {
          old.push_back(last);
        }
      }
      compaction_cursor_ = last;
    }
    if (!old.empty()) {
      MUSTER_TRY(delete_blobs(old));
    }
    return seen == kCompactRows;
  }

  static bool in_use(const Compaction& compaction, const std::string& digest) {
    Digest key;
    if (digest.size() != key.bytes.size()) {
      return false;
    }
    std::memcpy(key.bytes.data(), digest.data(), digest.size());
    return std::binary_search(compaction.blobs_in_use.begin(), compaction.blobs_in_use.end(), key);
  }

  Status delete_blobs(const std::vector<std::string>& digests) {
    Statement blob;
    Statement use;
    MUSTER_TRY(blob.prepare(db_, "DELETE FROM blobs WHERE digest = ?"));
    MUSTER_TRY(use.prepare(db_, "DELETE FROM blob_uses WHERE digest = ?"));
    MUSTER_TRY(db_.run("BEGIN IMMEDIATE"));
    for (const auto& digest : digests) {
      blob.bind(std::string_view(digest));
      use.bind(std::string_view(digest));
      Status status = blob.execute();
      if (status.ok()) {
        status = use.execute();
      }
      if (!status.ok()) {
        sqlite3_exec(db_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
        return status;
      }
    }
    return db_.run("COMMIT");
  }

  // The loop's.
  io::Loop& loop_;
  const std::string state_dir_;
  JournalEvents events_;
  bool idle_ = true;
  bool told_failure_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);

  // The journal thread's, once it runs.
  Database db_;
  Statement insert_facts_;
  Statement insert_blob_;
  Statement use_blob_;
  Statement insert_history_;
  JournalPosition position_;
  io::Fd head_;
  int wal_pages_ = 0;
  std::string compaction_cursor_;

  std::uint64_t next_seq_;  // the loop's
  std::shared_ptr<ReadConnection> blob_reader_;
  std::shared_ptr<ReadConnection> history_reader_;

  // Between the two.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<Batch> batch_;
  std::optional<Compaction> compaction_;
  std::optional<std::uint64_t> committed_;
  std::optional<Error> failed_;
  bool stop_ = false;

  io::Async async_;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Journal>> open_store(io::Loop& loop, const std::string& state_dir,
                                            const JournalPosition& position, JournalEvents events) {
  auto store = std::make_unique<SqliteStore>(loop, state_dir, position, std::move(events));
  MUSTER_TRY(store->open());
  return std::unique_ptr<Journal>(std::move(store));
}

}  // namespace muster::ctld
