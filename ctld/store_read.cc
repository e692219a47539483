#include "ctld/store_read.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "lib/io/log.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"

namespace muster::ctld {
namespace {

// Work of one history question, in SQLite's virtual machine instructions; some seconds.
constexpr int kHistoryStepsMax = 200'000'000;
constexpr int kProgressEvery = 1'000'000;

// Tasks named one by one in a history question that are looked up by id; more are found by reading the whole array.
constexpr std::uint64_t kIndexLookupsMax = 1'000;

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

  // The rows that stand for one id: its end, and its attempts before that. A row of several ids begins at the first.
  Status find_raw(std::uint64_t id) {
    if (id > static_cast<std::uint64_t>(INT64_MAX)) {
      return ok_status();
    }
    Statement rows;
    MUSTER_TRY(rows.prepare(db_, std::string(kHistoryColumns) +
                                     "WHERE id_first = (SELECT max(id_first) FROM history WHERE id_first <= ?) "
                                     "AND id_first <= ? ORDER BY row DESC"));
    rows.bind(id);
    rows.bind(id);
    for (;;) {
      MUSTER_ASSIGN(const bool more, rows.step());
      if (!more || page_.cut) {
        return ok_status();
      }
      auto job = decode(rows);
      if (job && id - job->id.value < job->count) {
        job->array_position += id - job->id.value;
        job->id = JobId(id);
        job->count = 1;
        take(*job, nullptr);
      }
    }
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
    if (job.requeued && !filter_.with_requeued) {
      return false;
    }
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

}  // namespace

std::vector<Result<std::string>> ReadConnection::blobs(const std::vector<Digest>& digests) {
  const std::lock_guard lock(mutex_);
  std::vector<Result<std::string>> answers;
  const Status opened = open();
  for (const auto& digest : digests) {
    answers.push_back(opened.ok() ? blob(digest) : Result<std::string>(opened.error()));
  }
  return answers;
}

Result<HistoryPage> ReadConnection::history(const HistoryFilter& filter) {
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

Status ReadConnection::open() {
  if (db_) {
    return ok_status();
  }
  auto db = std::make_unique<Database>();
  MUSTER_TRY(db->open(path_, false, false));
  db_ = std::move(db);
  return ok_status();
}

Result<std::string> ReadConnection::blob(const Digest& digest) {
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

}  // namespace muster::ctld
