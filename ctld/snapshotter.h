// Snapshotter: has a helper process make a snapshot every so many batches, checks the result, and lets the journal
// forget what two good snapshots cover. The daemon itself never stops for it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/engine/state.h"
#include "ctld/journal.h"
#include "ctld/snapshot.h"
#include "lib/io/loop.h"

namespace muster::ctld {

class Snapshotter {
 public:
  struct Options {
    std::string state_dir;
    std::string program;  // muster-ctld's own path
    std::uint64_t every_batches = 10'000;
    // A batch may carry thousands of facts, and replay is paid by the fact: about a second for so many.
    std::uint64_t every_facts = 300'000;
    // A State with so many records is hashed by the daemon too (some ten milliseconds), to compare with the helper's.
    std::size_t hashed_records_max = 10'000;
  };
  // `state` is the running one. `replayed` batches are already behind the last snapshot.
  Snapshotter(io::Loop& loop, Options options, const engine::State& state, Journal& journal, std::uint64_t replayed);

  // Ends a helper that still runs.
  ~Snapshotter();
  Snapshotter(const Snapshotter&) = delete;
  Snapshotter& operator=(const Snapshotter&) = delete;

  // The State is exactly that after batch `seq`, which has `facts` facts.
  void closing(std::uint64_t seq, std::size_t facts);
  void committed(std::uint64_t seq);
  [[nodiscard]] bool busy() const { return wanted_ != 0; }

 private:
  void start_helper();
  void on_exit(io::ChildExit exit);
  void on_checked(Result<CheckedSnapshot> checked);
  void give_up(const std::string& why);

  io::Loop& loop_;
  Options options_;
  const engine::State& state_;
  Journal& journal_;
  std::uint64_t batches_;     // since the last snapshot
  std::uint64_t facts_ = 0;   // since the last snapshot
  std::uint64_t wanted_ = 0;  // the batch whose snapshot is being made; 0: none
  std::optional<io::Hash> expected_;
  pid_t pid_ = 0;
  std::optional<io::ChildWatcher> helper_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace muster::ctld
