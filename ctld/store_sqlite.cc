#include "ctld/store_sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "ctld/snapshot.h"
#include "lib/io/files.h"
#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

// "MUSq" as SQLite's application id, so that file(1) and a human see what the file is.
constexpr std::int32_t kApplicationId = 0x4d555371;

// Pages of 4 KiB. Below the first number the WAL is left alone; from it on it is copied when nothing waits; from the
// second on also when something does; from the third on readers are made to let go of it.
constexpr int kCheckpointPages = 4'096;
constexpr int kCheckpointPagesBusy = 16'384;
constexpr int kTruncatePages = 65'536;

// Rows deleted in one transaction of a compaction: some milliseconds, which is what a batch may have to wait.
constexpr std::size_t kCompactRows = 500;

// Work of one history question, in SQLite's virtual machine instructions; some seconds.
constexpr int kHistoryStepsMax = 200'000'000;
constexpr int kProgressEvery = 1'000'000;

// Tasks named one by one in a history question that are looked up by id; more are found by reading the whole array.
constexpr std::uint64_t kIndexLookupsMax = 1'000;

// Memory of all of SQLite: page caches, and the largest rows twice. A damaged length must not take the machine's.
constexpr std::int64_t kHeapLimitBytes = std::int64_t{1} << 30;

constexpr std::size_t kHeadBytes = 8 + io::kHashBytes + io::kHashBytes;

std::string head_path(const std::string& state_dir) {
  return state_dir + "/journal.head";
}

std::string restore_advice(const std::string& path) {
  const auto slash = path.rfind('/');
  return "restore a copy of the folder " + (slash == std::string::npos ? std::string(".") : path.substr(0, slash));
}

Error corrupt(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::kCorrupt, path + " is damaged: " + what + ": " + restore_advice(path));
}

std::string_view view_of(const io::Hash& hash) {
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}
std::string_view view_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

io::Hash chain_hash(const io::Hash& previous, std::string_view data) {
  io::Hasher hasher;
  hasher.update(view_of(previous));
  hasher.update(data);
  return hasher.finish();
}

void put_u64(std::string& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) {
    out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
}
std::uint64_t get_u64(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return value;
}

std::string encode_head(const JournalPosition& position) {
  std::string bytes;
  put_u64(bytes, position.seq);
  bytes += view_of(position.chain);
  bytes += view_of(io::blake2b_256(bytes));
  return bytes;
}

// ---------------------------------------------------------------- SQLite, wrapped

// A connection. Used by one thread at a time.
class Database {
 public:
  Database() = default;
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database() { sqlite3_close_v2(db_); }

  Status open(const std::string& path, bool writable, bool create) {
    path_ = path;
    sqlite3_hard_heap_limit64(kHeapLimitBytes);
    int flags = SQLITE_OPEN_NOMUTEX | (writable ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY);
    if (create) {
      flags |= SQLITE_OPEN_CREATE;
    }
    if (const int rc = sqlite3_open_v2(path.c_str(), &db_, flags, nullptr); rc != SQLITE_OK) {
      return error(rc, "open it");
    }
    sqlite3_extended_result_codes(db_, 1);
    sqlite3_limit(db_, SQLITE_LIMIT_LENGTH, static_cast<int>(kRowBytesMax));
    sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    sqlite3_busy_timeout(db_, 5'000);
    MUSTER_TRY(run("PRAGMA cell_size_check = ON"));
    return run("PRAGMA mmap_size = 0");  // a file that shrinks would end the process with SIGBUS
  }

  Status run(const char* sql) {
    const int rc = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
    return rc == SQLITE_OK ? ok_status() : Status(error(rc, sql));
  }

  // What SQLite said, as one line that names the file and what to do.
  [[nodiscard]] Error error(int rc, std::string_view doing) const {
    const std::string text = db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(rc);
    std::string what = text;
    if (const int os_error = db_ != nullptr ? sqlite3_system_errno(db_) : 0;
        os_error != 0 && ((rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN)) {
      what += std::string(", ") + std::strerror(os_error);
    }
    const std::string context =
        " (" + std::string(doing.substr(0, doing.find_first_of(" \n"))) + ", SQLite code " + std::to_string(rc) + ")";
    switch (rc & 0xff) {
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
      case SQLITE_TOOBIG:
      case SQLITE_ERROR:
      case SQLITE_MISMATCH:
      case SQLITE_CONSTRAINT:
      case SQLITE_EMPTY:
      case SQLITE_FORMAT:
        return corrupt(path_, what + context);
      case SQLITE_FULL:
        return make_error(ErrorCode::kIo, "cannot write " + path_ + ": the disk is full" + context +
                                              ": make room and start muster-ctld again");
      case SQLITE_NOMEM:
        return make_error(ErrorCode::kIo, "cannot use " + path_ + ": no memory, or the file is damaged" + context +
                                              ": " + restore_advice(path_));
      default:
        return make_error(ErrorCode::kIo, "cannot use " + path_ + ": " + what + context +
                                              ": look after the disk and start muster-ctld again");
    }
  }

  sqlite3* handle() { return db_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  sqlite3* db_ = nullptr;
  std::string path_;
};

// A prepared statement. bind() in the order of the question marks, then step() until it says false.
class Statement {
 public:
  Statement() = default;
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  Status prepare(Database& db, const std::string& sql) {
    db_ = &db;
    const int rc = sqlite3_prepare_v3(db.handle(), sql.c_str(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                      &statement_, nullptr);
    return rc == SQLITE_OK ? ok_status() : Status(db.error(rc, sql));
  }

  void reset() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
    next_ = 0;
  }
  void bind(std::uint64_t value) { sqlite3_bind_int64(statement_, ++next_, static_cast<std::int64_t>(value)); }
  void bind(std::int64_t value) { sqlite3_bind_int64(statement_, ++next_, value); }
  // The bytes must live until the statement is reset.
  void bind(std::string_view bytes) {
    sqlite3_bind_blob64(statement_, ++next_, bytes.data() != nullptr ? bytes.data() : "", bytes.size(), SQLITE_STATIC);
  }

  // True: a row is there.
  Result<bool> step() {
    const int rc = sqlite3_step(statement_);
    if (rc == SQLITE_ROW) {
      return true;
    }
    if (rc == SQLITE_DONE) {
      return false;
    }
    return db_->error(rc, sqlite3_sql(statement_));
  }
  // For statements without rows: binds are done, runs it once and resets it.
  Status execute() {
    const auto row = step();
    Status status = row.ok() ? ok_status() : Status(row.error());
    reset();
    return status;
  }

  [[nodiscard]] std::uint64_t u64(int column) {
    return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column));
  }
  [[nodiscard]] std::int64_t i64(int column) { return sqlite3_column_int64(statement_, column); }
  [[nodiscard]] bool is_null(int column) { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  // Valid until the next step.
  [[nodiscard]] std::string_view bytes(int column) {
    const void* data = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return data == nullptr ? std::string_view()
                           : std::string_view(static_cast<const char*>(data), static_cast<std::size_t>(size));
  }

 private:
  Database* db_ = nullptr;
  sqlite3_stmt* statement_ = nullptr;
  int next_ = 0;
};

constexpr const char* kSchema = R"sql(
BEGIN IMMEDIATE;
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE journal(seq INTEGER PRIMARY KEY, prev_hash BLOB NOT NULL, data BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE blobs(digest BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE blob_uses(digest BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE history(row INTEGER PRIMARY KEY, id_first INTEGER NOT NULL, count INTEGER NOT NULL,
                     array_id INTEGER NOT NULL, user BLOB NOT NULL, queue BLOB NOT NULL, state INTEGER NOT NULL,
                     submit_us INTEGER NOT NULL, start_us INTEGER NOT NULL, end_us INTEGER NOT NULL,
                     record BLOB NOT NULL, hash BLOB NOT NULL);
CREATE INDEX history_id ON history(id_first);
CREATE INDEX history_array ON history(array_id) WHERE array_id <> 0;
CREATE INDEX history_user ON history(user);
)sql";

// One value of the table meta; empty when there is none.
Result<std::string> meta_value(Database& db, std::string_view key) {
  Statement statement;
  MUSTER_TRY(statement.prepare(db, "SELECT value FROM meta WHERE key = CAST(? AS TEXT)"));
  statement.bind(key);
  MUSTER_ASSIGN(const bool found, statement.step());
  return found ? std::string(statement.bytes(0)) : std::string();
}

Result<std::int64_t> pragma(Database& db, const std::string& name) {
  Statement statement;
  MUSTER_TRY(statement.prepare(db, "PRAGMA " + name));
  MUSTER_ASSIGN(const bool found, statement.step());
  return found ? statement.i64(0) : std::int64_t{0};
}

Status create_schema(Database& db, const std::string& cluster) {
  MUSTER_TRY(db.run(kSchema));
  MUSTER_TRY(db.run(("PRAGMA application_id = " + std::to_string(kApplicationId)).c_str()));
  Statement insert;
  MUSTER_TRY(insert.prepare(db, "INSERT INTO meta(key, value) VALUES (CAST(? AS TEXT), CAST(? AS TEXT))"));
  const std::string version = std::to_string(kSchemaVersion);
  insert.bind(std::string_view("schema"));
  insert.bind(std::string_view(version));
  MUSTER_TRY(insert.execute());
  insert.bind(std::string_view("cluster"));
  insert.bind(std::string_view(cluster));
  MUSTER_TRY(insert.execute());
  return db.run("COMMIT");
}

Status check_schema(Database& db, const std::string& cluster) {
  MUSTER_ASSIGN(const std::int64_t id, pragma(db, "application_id"));
  if (id != kApplicationId) {
    return corrupt(db.path(), "it is an SQLite database, but none of muster-ctld");
  }
  MUSTER_ASSIGN(const std::string version, meta_value(db, "schema"));
  if (version != std::to_string(kSchemaVersion)) {
    return make_error(ErrorCode::kRefused, db.path() + " has schema version '" + version +
                                               "', this muster-ctld knows " + std::to_string(kSchemaVersion) +
                                               ": start the version that wrote it");
  }
  MUSTER_ASSIGN(const std::string owner, meta_value(db, "cluster"));
  if (owner != cluster) {
    return make_error(ErrorCode::kRefused, db.path() + " belongs to cluster '" + owner + "', the configuration says '" +
                                               cluster + "': set cluster.name or controller.state_dir");
  }
  return ok_status();
}

// ---------------------------------------------------------------- history

bool index_wanted(const std::vector<ArrayRange>& ranges, std::uint64_t index) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const ArrayRange& range) {
    return index >= range.first && index <= range.last && (index - range.first) % range.step == 0;
  });
}

constexpr const char* kHistoryColumns = "SELECT record, hash, end_us FROM history ";

// Collects the answer to one question, newest first.
class HistoryCollector {
 public:
  HistoryCollector(Database& db, const HistoryFilter& filter) : db_(db), filter_(filter) {
    limit_ = filter.limit == 0 ? kHistoryRowsDefault : std::min(filter.limit, kHistoryRowsMax);
  }

  Result<HistoryPage> collect() {
    if (filter_.items.empty()) {
      MUSTER_TRY(scan_all());
    }
    for (const auto& item : filter_.items) {
      MUSTER_TRY(find_item(item));
    }
    std::reverse(page_.jobs.begin(), page_.jobs.end());
    return std::move(page_);
  }

 private:
  // Everything, or one user's: the newest first, until the limit or the time is reached. Rows stand in the order of
  // their end, because facts carry a time that never decreases.
  Status scan_all() {
    Statement rows;
    const std::string where = filter_.user.empty() ? "" : "WHERE user = ? ";
    MUSTER_TRY(rows.prepare(db_, kHistoryColumns + where + "ORDER BY row DESC"));
    if (!filter_.user.empty()) {
      rows.bind(std::string_view(filter_.user));
    }
    for (;;) {
      MUSTER_ASSIGN(const bool more, rows.step());
      if (!more || (filter_.since.is_set() && rows.i64(2) < filter_.since.us)) {
        return ok_status();
      }
      if (const auto job = decode(rows)) {
        take(*job, nullptr);
      }
      if (page_.cut) {
        return ok_status();
      }
    }
  }

  Status find_item(const HistoryFilter::Item& item) {
    const std::size_t before = page_.jobs.size();
    if (item.has_indices) {
      MUSTER_ASSIGN(const bool done, find_indices(item));
      if (done) {
        return ok_status();
      }
    }
    Statement rows;
    MUSTER_TRY(
        rows.prepare(db_, std::string(kHistoryColumns) + "WHERE array_id = ? AND array_id <> 0 ORDER BY row DESC"));
    rows.bind(item.id.value);
    bool is_array = false;
    for (;;) {
      MUSTER_ASSIGN(const bool more, rows.step());
      if (!more || page_.cut) {
        break;
      }
      is_array = true;
      if (const auto job = decode(rows)) {
        take(*job, item.has_indices ? &item.indices : nullptr);
      }
    }
    if (is_array || item.has_indices || page_.jobs.size() != before) {
      return ok_status();
    }
    return find_raw(item.id.value);
  }

  // A few tasks of an array by their ids. False: too many, or the array is not known here.
  Result<bool> find_indices(const HistoryFilter::Item& item) {
    std::uint64_t count = 0;
    for (const auto& range : item.indices) {
      if (range.step == 0 || range.last < range.first || range.count() > kIndexLookupsMax) {
        return false;
      }
      count += range.count();
    }
    if (count > kIndexLookupsMax) {
      return false;
    }
    Statement rows;
    MUSTER_TRY(rows.prepare(db_, std::string(kHistoryColumns) + "WHERE array_id = ? AND array_id <> 0 LIMIT 1"));
    rows.bind(item.id.value);
    MUSTER_ASSIGN(const bool found, rows.step());
    if (!found) {
      return true;  // nothing of this array has ended
    }
    const auto any = decode(rows);
    if (!any || !any->spec->array) {
      return false;
    }
    for (const auto& range : item.indices) {
      for (std::uint64_t i = 0; i < range.count(); ++i) {
        if (const auto position = any->spec->array->position_of(range.first + i * range.step)) {
          MUSTER_TRY(find_raw(item.id.value + *position));
        }
      }
    }
    return true;
  }

  // The row that stands for one id.
  Status find_raw(std::uint64_t id) {
    if (id > static_cast<std::uint64_t>(INT64_MAX)) {
      return ok_status();
    }
    Statement rows;
    MUSTER_TRY(rows.prepare(db_, std::string(kHistoryColumns) + "WHERE id_first <= ? ORDER BY id_first DESC LIMIT 1"));
    rows.bind(id);
    MUSTER_ASSIGN(const bool found, rows.step());
    if (!found) {
      return ok_status();
    }
    auto job = decode(rows);
    if (job && id - job->id.value < job->count) {
      job->array_position += id - job->id.value;
      job->id = JobId(id);
      job->count = 1;
      take(*job, nullptr);
    }
    return ok_status();
  }

  std::optional<JobSummary> decode(Statement& row) {
    const auto record = row.bytes(0);
    if (view_of(io::blake2b_256(record)) != row.bytes(1)) {
      ++page_.damaged;
      return std::nullopt;
    }
    pb::JobSummary message;
    if (!message.ParseFromArray(record.data(), static_cast<int>(record.size()))) {
      ++page_.damaged;
      return std::nullopt;
    }
    auto job = wire::from_pb(message);
    if (!job.ok() || job->count == 0) {
      ++page_.damaged;
      return std::nullopt;
    }
    return std::move(job).value();
  }

  bool matches(const JobSummary& job) const {
    if (!filter_.user.empty() && job.spec->user != filter_.user) {
      return false;
    }
    if (!filter_.queue.empty() && job.spec->queue != filter_.queue) {
      return false;
    }
    if (!filter_.name.empty() && job.spec->name != filter_.name) {
      return false;
    }
    if (!filter_.states.empty() &&
        std::find(filter_.states.begin(), filter_.states.end(), job.state) == filter_.states.end()) {
      return false;
    }
    if (filter_.since.is_set() && job.end_time < filter_.since) {
      return false;
    }
    const Instant begin = job.start_time.is_set() ? job.start_time : job.submit_time;
    return !filter_.until.is_set() || begin <= filter_.until;
  }

  // One row for each task; the last task first, because the page is turned round at the end.
  void take(const JobSummary& job, const std::vector<ArrayRange>* indices) {
    if (!matches(job)) {
      return;
    }
    for (std::uint64_t i = job.count; i-- > 0;) {
      if (indices != nullptr && (!job.spec->array || job.array_position + i >= job.spec->array->size() ||
                                 !index_wanted(*indices, job.spec->array->index_at(job.array_position + i)))) {
        continue;
      }
      if (page_.jobs.size() >= limit_) {
        page_.cut = true;
        return;
      }
      page_.jobs.push_back(job);
      auto& task = page_.jobs.back();
      task.id = JobId(job.id.value + i);
      task.array_position = job.array_position + i;
      task.count = 1;
    }
  }

  Database& db_;
  const HistoryFilter& filter_;
  std::uint64_t limit_ = 0;
  HistoryPage page_;
};

// A connection for reading beside the journal thread; used by one worker at a time.
class ReadConnection {
 public:
  explicit ReadConnection(std::string path) : path_(std::move(path)) {}

  std::vector<Result<std::string>> blobs(const std::vector<Digest>& digests) {
    const std::lock_guard lock(mutex_);
    std::vector<Result<std::string>> answers;
    const Status opened = open();
    for (const auto& digest : digests) {
      answers.push_back(opened.ok() ? blob(digest) : Result<std::string>(opened.error()));
    }
    return answers;
  }

  Result<HistoryPage> history(const HistoryFilter& filter) {
    const std::lock_guard lock(mutex_);
    MUSTER_TRY(open());
    steps_left_ = kHistoryStepsMax / kProgressEvery;
    sqlite3_progress_handler(db_->handle(), kProgressEvery, &ReadConnection::on_progress, this);
    auto page = HistoryCollector(*db_, filter).collect();
    sqlite3_progress_handler(db_->handle(), 0, nullptr, nullptr);
    if (!page.ok() && steps_left_ <= 0) {
      return make_error(ErrorCode::kLimitReached,
                        "this question reads too much of the history: give a user, a later --start-time or ids");
    }
    return page;
  }

 private:
  static int on_progress(void* self) { return --static_cast<ReadConnection*>(self)->steps_left_ <= 0 ? 1 : 0; }

  Status open() {
    if (db_) {
      return ok_status();
    }
    auto db = std::make_unique<Database>();
    MUSTER_TRY(db->open(path_, false, false));
    db_ = std::move(db);
    return ok_status();
  }

  Result<std::string> blob(const Digest& digest) {
    Statement row;
    MUSTER_TRY(row.prepare(*db_, "SELECT data FROM blobs WHERE digest = ?"));
    row.bind(view_of(digest));
    MUSTER_ASSIGN(const bool found, row.step());
    if (!found) {
      return make_error(ErrorCode::kNotFound, path_ + " has no blob " + io::to_hex(view_of(digest)));
    }
    std::string bytes(row.bytes(0));
    if (io::blake2b_256(bytes) != digest.bytes) {
      return corrupt(path_, "the blob " + io::to_hex(view_of(digest)) + " does not have its hash");
    }
    return bytes;
  }

  std::string path_;
  std::mutex mutex_;
  std::unique_ptr<Database> db_;
  int steps_left_ = 0;
};

// ---------------------------------------------------------------- the store

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

std::string journal_path(const std::string& state_dir) {
  return state_dir + "/journal.db";
}

Status prepare_store(const std::string& state_dir, const std::string& cluster) {
  const std::string path = journal_path(state_dir);
  struct stat info {};
  const bool exists = stat(path.c_str(), &info) == 0;
  const bool is_new = !exists || info.st_size == 0;
  if (is_new && (io::path_exists(head_path(state_dir)) || !list_snapshots(state_dir).empty())) {
    return make_error(ErrorCode::kCorrupt, path + (exists ? " is empty" : " is missing") +
                                               " although this folder has had a journal: " + restore_advice(path) +
                                               ", or begin with an empty folder");
  }
  Database db;
  MUSTER_TRY(db.open(path, true, is_new));
  if (is_new) {
    MUSTER_TRY(db.run("PRAGMA page_size = 4096"));
  }
  MUSTER_TRY(db.run("PRAGMA journal_mode = WAL"));
  MUSTER_TRY(db.run("PRAGMA synchronous = FULL"));
  MUSTER_ASSIGN(const std::int64_t tables, [&]() -> Result<std::int64_t> {
    Statement count;
    MUSTER_TRY(count.prepare(db, "SELECT count(*) FROM sqlite_master"));
    MUSTER_ASSIGN(const bool found, count.step());
    return found ? count.i64(0) : std::int64_t{0};
  }());
  // No tables and no head: a first start that was cut short before its schema was committed.
  if (tables == 0 && !io::path_exists(head_path(state_dir))) {
    MUSTER_TRY(create_schema(db, cluster));
  }
  return check_schema(db, cluster);
}

struct JournalReader::Impl {
  std::string state_dir;
  Database db;
  Statement rows;
};

JournalReader::JournalReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
JournalReader::~JournalReader() = default;

Result<std::unique_ptr<JournalReader>> JournalReader::open(const std::string& state_dir) {
  auto impl = std::make_unique<Impl>();
  impl->state_dir = state_dir;
  MUSTER_TRY(impl->db.open(journal_path(state_dir), false, false));
  MUSTER_TRY(impl->rows.prepare(
      impl->db, "SELECT seq, prev_hash, data, hash FROM journal WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"));
  return std::unique_ptr<JournalReader>(new JournalReader(std::move(impl)));
}

Result<JournalReader::Bounds> JournalReader::bounds() {
  Statement statement;
  MUSTER_TRY(statement.prepare(impl_->db, "SELECT (SELECT min(seq) FROM journal), (SELECT max(seq) FROM journal)"));
  MUSTER_ASSIGN(const bool found, statement.step());
  if (!found || statement.is_null(0) || statement.is_null(1)) {
    return Bounds{};
  }
  return Bounds{statement.u64(0), statement.u64(1)};
}

Result<std::vector<std::string>> JournalReader::read(JournalPosition& position, std::uint64_t upto,
                                                     std::size_t rows_max) {
  const std::string& path = impl_->db.path();
  std::vector<std::string> batches;
  auto& rows = impl_->rows;
  rows.reset();
  rows.bind(position.seq);
  rows.bind(std::min<std::uint64_t>(upto, INT64_MAX));
  rows.bind(std::uint64_t{rows_max});
  for (;;) {
    auto more = rows.step();
    if (!more.ok()) {
      return make_error(more.error().code,
                        more.error().message + " (after batch " + std::to_string(position.seq) + ")");
    }
    if (!*more) {
      break;
    }
    const std::uint64_t seq = rows.u64(0);
    if (seq != position.seq + 1) {
      return corrupt(
          path, "batch " + std::to_string(position.seq + 1) + " is missing, the next one is " + std::to_string(seq));
    }
    const auto data = rows.bytes(2);
    const io::Hash hash = chain_hash(position.chain, data);
    if (rows.bytes(1) != view_of(position.chain) || rows.bytes(3) != view_of(hash)) {
      return corrupt(path, "the hash chain is broken at batch " + std::to_string(seq));
    }
    batches.emplace_back(data);
    position = JournalPosition{seq, hash};
  }
  rows.reset();
  return batches;
}

Status JournalReader::check_head(const JournalPosition& position) {
  const std::string path = head_path(impl_->state_dir);
  if (!io::path_exists(path)) {
    return ok_status();
  }
  const auto bytes = io::read_file(path, kHeadBytes);
  const bool sound = bytes.ok() && bytes->size() == kHeadBytes &&
                     view_of(io::blake2b_256(std::string_view(*bytes).substr(0, 8 + io::kHashBytes))) ==
                         std::string_view(*bytes).substr(8 + io::kHashBytes);
  if (!sound) {
    // A power cut can leave it half written; it guards the journal and carries nothing of its own.
    io::log_warning("the journal's head is unreadable and ignored", {{"path", path}});
    return ok_status();
  }
  const std::uint64_t seq = get_u64(*bytes);
  if (seq > position.seq) {
    return corrupt(impl_->db.path(), "it ends at batch " + std::to_string(position.seq) + ", but batch " +
                                         std::to_string(seq) + " was committed");
  }
  if (seq == position.seq && std::string_view(*bytes).substr(8, io::kHashBytes) != view_of(position.chain)) {
    return corrupt(impl_->db.path(), "batch " + std::to_string(seq) + " is not the one that was committed");
  }
  return ok_status();
}

Result<std::unique_ptr<Journal>> open_store(io::Loop& loop, const std::string& state_dir,
                                            const JournalPosition& position, JournalEvents events) {
  auto store = std::make_unique<SqliteStore>(loop, state_dir, position, std::move(events));
  MUSTER_TRY(store->open());
  return std::unique_ptr<Journal>(std::move(store));
}

}  // namespace muster::ctld
