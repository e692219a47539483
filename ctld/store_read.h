// Reading beside the journal thread: blobs, and questions about history.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ctld/journal.h"
#include "ctld/store_database.h"

namespace muster::ctld {

// A connection for reading; used by one worker at a time.
class ReadConnection {
 public:
  explicit ReadConnection(std::string path) : path_(std::move(path)) {}

  // In the order asked for.
  std::vector<Result<std::string>> blobs(const std::vector<Digest>& digests);
  // kLimitReached when the question takes too much work.
  Result<HistoryPage> history(const HistoryFilter& filter);

 private:
  static int on_progress(void* self) { return --static_cast<ReadConnection*>(self)->steps_left_ <= 0 ? 1 : 0; }
  Status open();
  Result<std::string> blob(const Digest& digest);

  std::string path_;
  std::mutex mutex_;
  std::unique_ptr<Database> db_;
  int steps_left_ = 0;
};

}  // namespace muster::ctld
