// StepRecords: what the first node of an attempt keeps on disk about the attempt's steps, so that neither a repeated
// request nor a restart of the daemon starts a step twice.
//
//   <attempt's directory>/step.N   the client's request that made step N, its layout, and how it ended
//
// The next number is one more than the last record's, which is never removed. Records are not synced: they must survive
// a restart of the daemon, and after one of the machine the attempt has ended. Loop thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/index_set.h"
#include "lib/base/result.h"
#include "noded/step_shares.h"

namespace muster::noded {

struct StepRecord {
  std::uint32_t step = 0;
  // The request: the client's key and the name that it gave its stream.
  std::string client_key;
  std::string stream;
  struct Node {
    std::string name;
    std::uint32_t tasks = 0;
    // Of steps that do not have all of the job's: places among the job's cores and GPUs there.
    IndexSet cores = {};
    IndexSet gpus = {};
    friend bool operator==(const Node&, const Node&) = default;
  };
  std::vector<Node> nodes;  // in the order of the ranks
  StepSharing sharing = StepSharing::kWhole;
  std::optional<std::int32_t> exit_code;  // of a step that is over
  friend bool operator==(const StepRecord&, const StepRecord&) = default;
};

std::string encode_step_record(const StepRecord& record);
Result<StepRecord> decode_step_record(std::string_view text);

class StepRecords {
 public:
  // Steps that are over and still remembered, for clients that lost the reply: about 200 bytes each. More than a job
  // runs at the same time, so that the last one is always among them.
  static constexpr std::size_t kEndedMax = 1024;

  // Reads what an earlier life of the daemon left in the attempt's directory.
  static Result<StepRecords> load(const std::string& directory);

  [[nodiscard]] const StepRecord* find(const std::string& client_key, const std::string& stream) const;
  [[nodiscard]] const StepRecord* find(std::uint32_t step) const;
  // Those that are not over.
  [[nodiscard]] std::vector<const StepRecord*> running() const;
  // Gives the record its number, one that no step of the attempt has had, and writes it. After a failure nothing is
  // left.
  Result<std::uint32_t> add(StepRecord record);
  // Before anything forgets the step. The end is kept in memory also when it cannot be written.
  Status end(std::uint32_t step, std::int32_t exit_code);

 private:
  explicit StepRecords(std::string directory) : directory_(std::move(directory)) {}
  [[nodiscard]] std::string path_of(std::uint32_t step) const;
  void remember(StepRecord record);

  std::string directory_;
  std::uint32_t next_ = 0;
  std::map<std::uint32_t, StepRecord> records_;
  std::map<std::pair<std::string, std::string>, std::uint32_t> by_client_;
  std::deque<std::uint32_t> ended_;  // oldest first
};

}  // namespace muster::noded
