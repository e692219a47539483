// SQLite, wrapped: connections and prepared statements with Result. Only the parts of the store include it.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "ctld/store_format.h"
#include "ctld/store_sqlite.h"
#include "lib/base/result.h"

namespace muster::ctld {

// Memory of all of SQLite: page caches, and the largest rows twice. A damaged length must not take the machine's.
inline constexpr std::int64_t kHeapLimitBytes = std::int64_t{1} << 30;

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

}  // namespace muster::ctld
