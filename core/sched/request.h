// What a job's request means on one node.
#pragma once

#include <cstdint>
#include <string>

#include "core/sched/ledger.h"
#include "lib/model/job_spec.h"

namespace muster::sched {

// CPUs of the whole job; at least 1.
[[nodiscard]] std::uint64_t cpus_of(const JobSpec& spec);

// What `tasks` tasks of the job need on the node; `gpus_of_total` of the GPUs that it asked for in total fall to it.
[[nodiscard]] Amount need_of(const JobSpec& spec, const NodeCapacity& node, std::uint64_t tasks,
                             std::uint64_t gpus_of_total);

// How many tasks of the job fit into what is free on the node.
[[nodiscard]] std::uint32_t tasks_that_fit(const JobSpec& spec, const NodeCapacity& node, const Amount& free);

// Of GPUs that the job asks for in total, how many what is free on a node gives beside one task of it.
[[nodiscard]] std::uint32_t gpus_that_fit(const JobSpec& spec, const Amount& free);

// Whether every node of the job has the same number of tasks, whichever nodes they are.
[[nodiscard]] bool is_even(const JobSpec& spec);

// "2 nodes with 8 tasks of 1 CPU, 4 GPUs a node": the request in words.
[[nodiscard]] std::string describe_request(const JobSpec& spec);

// "1 node", "3 nodes".
[[nodiscard]] std::string plural(std::uint64_t n, const char* one, const char* many);

}  // namespace muster::sched
