// Job specifications drawn at random: small jobs for small clusters, with every kind of request in them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/sched/sites.h"
#include "lib/model/hardware.h"
#include "lib/model/job_change.h"
#include "lib/model/job_spec.h"
#include "lib/model/node_topology.h"
#include "sim/random.h"

namespace muster::sim {

struct SpecOptions {
  std::uint32_t nodes = 3;      // named n1, n2, ...
  std::uint32_t cores_max = 6;  // of the largest node
  Instant now;                  // --begin is drawn relative to it
  std::uint64_t array_tasks_max = 12;
  std::string user = "u1";
  std::vector<JobId> jobs;                // that a dependency may name
  LicenseTotals licenses;                 // of the cluster
  std::vector<std::string> reservations;  // names that may be there
};
JobSpec random_spec(Random& random, const SpecOptions& options);
// What a user may come to change about a job, sensible or not.
JobChange random_change(Random& random, const SpecOptions& options);

// Features of some of the nodes n1, n2, ..., and a network of them or none.
std::shared_ptr<const sched::Sites> random_sites(Random& random, std::uint32_t nodes);
// Features that a node says it has.
std::vector<std::string> random_features(Random& random);

// The hardware of a node: nodes differ a little, and some have GPUs.
NodeHardware random_hardware(Random& random, std::uint32_t cores_max);
// A topology of such hardware: a function of it alone, so that a node always says the same.
NodeTopology topology_of(const NodeHardware& hardware);

}  // namespace muster::sim
