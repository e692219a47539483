// The choice among nodes that must suit each other: counts of features, switches, blocks, segments. Internal to sched.
#pragma once

#include <functional>
#include <vector>

#include "core/sched/choose.h"
#include "core/sched/place.h"

namespace muster::sched {

// What is on offer at one instant.
struct Supply {
  // Nodes that may have room, by rank; those that have are among them.
  IndexSet plausible;
  // The offers of those of them that have room, in the order of filling.
  std::function<std::vector<Offer>(const IndexSet& ranks)> offers;
};

// Chooses nodes for a job whose filter binds() and has no choices. `any_switches`: its limit of switches does not count.
std::vector<Slot> choose_together(const Supply& supply, const JobSpec& spec, const NodeFilter& filter,
                                  bool any_switches);

// Chooses among all offers under all rules of the filter.
std::vector<Slot> choose_suitable(std::vector<Offer> offers, const JobSpec& spec, const NodeFilter& filter,
                                  bool any_switches);

// Whether the network bounds where the job goes, and does not only say which places are better.
bool has_hard_domains(const JobSpec& spec, const NodeFilter& filter, bool any_switches);
// With hard domains of which one must hold the whole job: these, with the most nodes for it in each. Empty where it may
// also take several.
struct HardDomain {
  const IndexSet* ranks = nullptr;
  std::uint32_t nodes_max = 0;
};
std::vector<HardDomain> domains_for_whole(const JobSpec& spec, const NodeFilter& filter);

}  // namespace muster::sched
