// Placement of one job: on which nodes, with how many of its tasks on each. Counts first (cores, GPUs, memory); which
// cores and GPUs they are is chosen when it starts.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/sched/ledger.h"
#include "core/sched/timeline.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// The nodes that a job may use, by their rank in the ledger's order, and what binds those that it gets to each other.
struct NodeFilter {
  bool all = true;  // `ranks` counts only when not
  IndexSet ranks;
  bool spread = false;  // the nodes with most free first
  // All of the job's nodes are in one of these; empty: no such condition. From [a|b] in its constraint.
  std::vector<IndexSet> choices;
  // At least so many of the job's nodes are among these. From counts in its constraint.
  struct Quota {
    IndexSet ranks;
    std::uint32_t nodes = 0;
  };
  std::vector<Quota> quotas;
  std::shared_ptr<const Places> places;  // null: the network does not matter to the job
  [[nodiscard]] bool allows(std::uint32_t rank) const { return all || ranks.contains(rank); }
  // Whether its nodes must suit each other.
  [[nodiscard]] bool binds() const { return places != nullptr || !quotas.empty(); }
  void narrow(const IndexSet& to);
};
// Whether the job can run on no other nodes than those that it names.
bool only_named(const JobSpec& spec);
// `allowed` lists the names of nodes that the job's queue has; empty means all. A null `sites`: no features, no network.
NodeFilter make_filter(const Ledger& ledger, const JobSpec& spec, const std::vector<std::string>& allowed,
                       const std::shared_ptr<const Sites>& sites = nullptr);

// Whether a job that may start since `since` may use any number of switches at `at`; and from when on it may.
bool any_switches(const JobSpec& spec, Instant since, Instant at);
Instant switches_lapse(const JobSpec& spec, Instant since);

// What is wrong with these nodes for the job, whatever is free on them; null: nothing.
const char* unsuitable(const Ledger& ledger, const JobSpec& spec, const NodeFilter& filter,
                       const std::vector<NodeShare>& shares, bool any_switches);

// Where the job fits now until the time at which its limit ends it; empty when it does not. The tightest fit: the nodes
// with the fewest free GPUs and cores that suffice, as few nodes as hold it, in the smallest domain of the network that
// has them. The spec must be normalised (engine/normalise.h). `any_switches`: its limit of switches does not count.
std::vector<Slot> fit_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                          bool any_switches = false);

// The earliest time, not before `not_before`, at which the job fits for its whole time limit, and where; nothing when it
// does not fit the usable nodes at any time.
struct Spot {
  Instant start;
  std::vector<Slot> slots;
};
// From `lapse` on its limit of switches does not count.
std::optional<Spot> earliest_fit(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                 Instant not_before, Instant lapse = Instant{INT64_MAX / 2});

// Shares for slots that fit_now() gave: the lowest of what is free stands for as much. Which cores and GPUs a job gets is
// chosen when it starts (share.h).
std::vector<NodeShare> shares_for(const Draft& draft, const std::vector<Slot>& slots);

// Why a request cannot be placed.
enum class Obstacle {
  kNone,
  kNoNodes,       // the queue has no node that has ever registered
  kNodeList,      // a node asked for by name is unknown or excluded
  kTogether,      // there are enough nodes, but not such that suit each other: features, switches, blocks
  kTooManyNodes,  // fewer nodes than asked for
  kCores,
  kMemory,
  kGpus,
  kLocality,  // enough of everything, but its tasks would not be near their GPUs
};

struct PlaceResult {
  std::vector<NodeShare> shares;  // empty: no placement
  Obstacle obstacle = Obstacle::kNone;
  std::string detail;  // a sentence for people: what is missing, with numbers
};

// Which resources count as there.
enum class Assume {
  kFreeNow,      // usable nodes, what is free on them
  kUsableEmpty,  // usable nodes, as if nothing ran
  kAllEmpty,     // every node that ever registered, as if nothing ran and none were drained or away
};

// Whether the job would fit if nothing ran and every node that ever registered were in service. Looks at classes of nodes;
// false may also mean that only place() can tell.
bool surely_fits_empty(const Ledger& ledger, const JobSpec& spec, const NodeFilter& filter);

// Places the job without regard to time, or says what is missing. Looks at every node.
PlaceResult place(const Draft& draft, const JobSpec& spec, const std::vector<std::string>& allowed, Assume assume,
                  const std::shared_ptr<const Sites>& sites = nullptr);

}  // namespace muster::sched
