// Jobs with --locality=require: where each of their tasks can be near a GPU of its own. The planner counts; which cores and
// GPUs are near each other is asked of core/topo here. Internal to sched, but for choose_share() (share.h).
//
// What is free now is known core by core, so that a start is certain. Which cores will be free later nobody knows: such a
// job is promised whole nodes, on which it surely fits, and starts sooner when the right ones become free.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/sched/choose.h"
#include "core/sched/place.h"

namespace muster::sched {

// Whether the job requires it and has GPUs to be near to.
[[nodiscard]] bool requires_near(const JobSpec& spec);

// What fit_now() and earliest_fit() do for such jobs.
std::vector<Slot> fit_near_now(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                               bool any_switches);
std::optional<Spot> earliest_near(const Timeline& timeline, const JobSpec& spec, const NodeFilter& filter,
                                  Instant not_before, Instant lapse);

// Takes the offers away on whose nodes such a job could not have these slots (empty nodes, or what is free there now), and
// says why in `why`. False: all of them can have them.
bool drop_far_offers(const Draft& draft, const JobSpec& spec, const std::vector<Slot>& slots, Assume assume,
                     std::vector<Offer>& offers, std::string& why);

}  // namespace muster::sched
