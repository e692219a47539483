// How the indexes of State follow its records. Used by evolve() and rebuild_indexes() only; not for shells.
#pragma once

#include "core/engine/state.h"

namespace muster::engine {

// Adds what a record means to the indexes, or takes it away again. A record is changed between the two calls.
void index_job(State& state, const Job& job);
void unindex_job(State& state, const Job& job);
// Gives back what an active job holds on one node, before its phase there becomes kEnded.
void unindex_share(State& state, const Job& job, const Active& active, const AttemptOnNode& on);
// When what it holds there becomes free; part of index_job() and unindex_share().
void hold_parts(State& state, const Active& active, const AttemptOnNode& on);
void release_parts(State& state, const Active& active, const AttemptOnNode& on);
// What it is stopped or stands still for; part of index_job() and unindex_job().
void index_room(State& state, const Job& job, const Active& active);
void unindex_room(State& state, const Job& job, const Active& active);
// Its place among the jobs of its user and name; of a single job or an array record, from its submission to its end.
void index_name(State& state, const Job& job);
void unindex_name(State& state, const Job& job);
// Its place among the jobs with a deadline, where that alone changes.
void index_deadline(State& state, const Job& job);
void unindex_deadline(State& state, const Job& job);
// (Re)places a node's entries.
void index_node(State& state, const Node& node);

// Makes the windows anew from the reservations.
void index_reservations(State& state);

// Positions of an array record.
[[nodiscard]] bool is_waiting(const Job& array, std::uint64_t position);
[[nodiscard]] std::uint64_t waiting_count(const Job& array);
// Those that wait no more, with what is known of each.
void remove_positions(Job& array, PositionRange gone);
// The terms that pair tasks of two arrays and keep none back any more.
void drop_met_pairs(Job& array);
// Those of the range that wait.
[[nodiscard]] std::vector<PositionRange> waiting_of(const Job& array, PositionRange range);

}  // namespace muster::engine
