// Horizon: when what is held is believed to become free. For every node, the amounts that running attempts hold and the
// instants by which their time limits end them. Kept by evolve() beside the ledger. A value.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/time.h"
#include "lib/model/hardware.h"
#include "lib/model/job.h"

namespace muster::sched {

// Counts of what one node has, offers or gives. Which cores and GPUs they are is chosen when a job starts: attempts that
// start in the order of time never need more than the counts say.
struct Amount {
  std::int64_t cores = 0;
  std::int64_t gpus = 0;
  std::int64_t mem_mib = 0;

  [[nodiscard]] bool covers(const Amount& need) const {
    return need.cores <= cores && need.gpus <= gpus && need.mem_mib <= mem_mib;
  }
  Amount& operator+=(const Amount& o);
  Amount& operator-=(const Amount& o);
  friend bool operator==(const Amount&, const Amount&) = default;
};
[[nodiscard]] Amount amount_of(const NodeShare& share);
// The smaller of each.
[[nodiscard]] Amount least(const Amount& a, const Amount& b);

class Horizon {
 public:
  struct Hold {
    Instant until;
    Amount amount;
    friend bool operator==(const Hold&, const Hold&) = default;
  };

  void hold(const NodeShare& share, Instant until);
  // The same share and instant that were given to hold().
  void release(const NodeShare& share, Instant until);

  // In the order of `until`; empty for a node that holds nothing.
  [[nodiscard]] const std::vector<Hold>& on(NodeIndex node) const;
  friend bool operator==(const Horizon& a, const Horizon& b);

 private:
  std::vector<std::vector<Hold>> nodes_;
};

// The end of a span that may have no limit, without overflow.
[[nodiscard]] Instant end_of(Instant start, Duration limit);

// The share's cores alone, and all of it but these.
[[nodiscard]] NodeShare cores_of(const NodeShare& share);
[[nodiscard]] NodeShare without_cores(const NodeShare& share);

// What the attempt keeps from all others on this node, which it has not left.
[[nodiscard]] NodeShare held_share(const AttemptOnNode& on);
// The same in parts, each with when it is believed to become free.
struct HeldPart {
  NodeShare share;
  Instant until;
};
[[nodiscard]] std::vector<HeldPart> held_parts(const Active& active, const AttemptOnNode& on);

// How long the attempt has run, without the time in which it stood still.
[[nodiscard]] Duration ran_for(const Active& active, Instant now);

// When what the attempt holds is believed to become free: at the end of its time limit, which stands still while it is
// suspended; or soon, when it was told to stop.
[[nodiscard]] Instant believed_end(const Active& active);

}  // namespace muster::sched
