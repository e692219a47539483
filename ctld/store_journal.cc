// Making and checking the database, and reading the journal at the start.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "ctld/snapshot.h"
#include "ctld/store_database.h"
#include "ctld/store_format.h"
#include "ctld/store_sqlite.h"
#include "lib/io/files.h"
#include "lib/io/log.h"

namespace muster::ctld {
namespace {

// "MUSq" as SQLite's application id, so that file(1) and a human see what the file is.
constexpr std::int32_t kApplicationId = 0x4d555371;

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

// Of the database, whatever the block size of its disk is.
constexpr std::int64_t kPageBytes = 4096;

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
  // SQLite notices a missing end only where it reads it. With a log beside it the file may end anywhere: a crash while
  // the log was copied leaves that, and the log has the rest.
  struct stat log {};
  const bool has_log = stat((path + "-wal").c_str(), &log) == 0 && log.st_size != 0;
  if (!is_new && !has_log && info.st_size % kPageBytes != 0) {
    return corrupt(path, "its end is cut off");
  }
  Database db;
  MUSTER_TRY(db.open(path, true, is_new));
  if (is_new) {
    MUSTER_TRY(db.run(("PRAGMA page_size = " + std::to_string(kPageBytes)).c_str()));
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

}  // namespace muster::ctld
