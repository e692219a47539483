// The choice among nodes that offer a job something: internal to sched.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/sched/ledger.h"
#include "core/sched/timeline.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// What one node offers a job.
struct Offer {
  NodeIndex index;
  std::uint32_t rank = 0;      // the node's place in the ledger's order
  std::uint32_t position = 0;  // its place among the nodes of a job
  const NodeCapacity* node = nullptr;
  Amount free;
  std::uint32_t capacity = 0;  // tasks of the job that fit
  std::uint32_t gpus = 0;      // of GPUs that it asks for in total, those that fit
  std::uint32_t tasks = 0;     // tasks given
};

Offer make_offer(const Draft& draft, const JobSpec& spec, NodeIndex index, Amount free);

// The order in which nodes are filled: suspect ones last; of the others the fewest free GPUs and cores first, or, spreading, the most (of GPUs only where
// the job uses some); equal ones by rank.
void sort_for_filling(std::vector<Offer>& offers, const JobSpec& spec, bool spread);

// Chooses among offers, which stand in the order of filling. First fit in that order, else the nodes with most room, else
// those with most GPUs, else what an exact search finds; as few nodes as hold all tasks, within the counts. Those in
// `chosen` are taken whatever their number. Empty when the offers do not suffice.
struct NodeCounts {
  std::uint64_t min = 1;
  std::uint64_t max = UINT64_MAX;
};
std::vector<Slot> choose_from(std::vector<Offer>& offers, std::vector<Offer*> chosen, const JobSpec& spec,
                              NodeCounts nodes);
// The same with the nodes that the job names and as many as it allows; `missing` then names a node that was asked for by
// name and cannot be had.
std::vector<Slot> choose(std::vector<Offer>& offers, const JobSpec& spec, std::string& missing);
// The offers of the nodes that the job names; nothing when one cannot be had.
std::optional<std::vector<Offer*>> named_offers(std::vector<Offer>& offers, const JobSpec& spec, std::string& missing);
[[nodiscard]] NodeCounts node_counts(const JobSpec& spec);

// The slots of a job whose tasks are spread evenly over the chosen offers, which hold all of them; empty when the GPUs
// that it asked for in total are not there. The order of the slots is that of `chosen`.
std::vector<Slot> spread_over(std::vector<Offer*>& chosen, const JobSpec& spec);

}  // namespace muster::sched
