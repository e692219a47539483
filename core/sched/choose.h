// The choice among nodes that offer a job something: internal to sched.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/sched/ledger.h"
#include "core/sched/timeline.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// What one node offers a job.
struct Offer {
  NodeIndex index;
  std::uint32_t rank = 0;  // the node's place in the ledger's order
  const NodeCapacity* node = nullptr;
  Amount free;
  std::uint32_t capacity = 0;  // tasks of the job that fit
  std::uint32_t tasks = 0;     // tasks given
};

Offer make_offer(const Draft& draft, const JobSpec& spec, NodeIndex index, Amount free);

// Chooses among offers in the order of nodes. First fit in that order, else the nodes with most room, else those with
// most GPUs; as few nodes as hold all tasks. Empty when they do not suffice; `missing` then names a node that was asked
// for by name and cannot be had.
std::vector<Slot> choose(std::vector<Offer>& offers, const JobSpec& spec, std::string& missing);

// The slots of a job whose tasks are spread evenly over the chosen offers, which hold all of them; empty when the GPUs
// that it asked for in total are not there. The order of the slots is that of `chosen`.
std::vector<Slot> spread_over(std::vector<Offer*>& chosen, const JobSpec& spec);

}  // namespace muster::sched
