#include "noded/task_proof.h"

#include <linux/mempolicy.h>

#include <algorithm>
#include <string>

#include "core/topo/bind.h"

namespace muster::noded {
namespace {

constexpr std::int32_t kPreferredMany = 5;  // MPOL_PREFERRED_MANY, Linux 5.15

constexpr std::uint8_t kGroupInside = 1;
constexpr std::uint8_t kGroupOutside = 2;

// The OS numbers of the NUMA nodes of these hardware threads.
IndexSet numa_of(const NodeTopology& topology, const IndexSet& threads) {
  IndexSet out;
  for (const TopologyCore& core : topology.cores) {
    if (core.threads.intersects(threads)) {
      out |= topology.numa[core.numa].os_nodes;
    }
  }
  return out;
}

void add_fault(std::string& to, const std::string& what) {
  to += to.empty() ? what : ", " + what;
}

std::string fault_of(const NodeIdentity& node, const Decided& decided, const TaskProof& found,
                     const StepTaskBoundFrame& read_back) {
  std::string out;
  if (read_back.group == kGroupOutside) {
    add_fault(out, "outside of its job's cgroup");
  }
  if (decided.threads.empty()) {
    return out;
  }
  if (!(found.cpus == decided.threads)) {
    add_fault(out, "CPUs " + found.cpus.to_string() + " in place of " + decided.threads.to_string());
  }
  if (read_back.memory_policy >= 0 && !found.memory_local) {
    add_fault(out, "memory by policy " + std::to_string(read_back.memory_policy) + " in place of where it runs");
  }
  if (node.topology != nullptr && !found.memory.empty()) {
    const IndexSet wanted = numa_of(*node.topology, decided.threads);
    if (!wanted.is_subset_of(found.memory)) {
      add_fault(out, "memory of NUMA nodes " + found.memory.to_string() + " without " +
                         (wanted - found.memory).to_string() + ", where its CPUs are");
    }
  }
  return out;
}

}  // namespace

Verdict prove(const NodeIdentity& node, const Decided& decided, const StepTaskBoundFrame& read_back) {
  Verdict out;
  TaskProof& proof = out.proof;
  const bool pretended = node.hardware.pretended;
  out.pretended = pretended;
  proof.step = read_back.step;
  proof.rank = read_back.rank;
  proof.cpus = IndexSet::from_words(read_back.cpus);
  proof.memory = IndexSet::from_words(read_back.memory);
  // With preferred nodes, which are the attempt's own, the nearest of them comes first.
  proof.memory_local = read_back.memory_policy == MPOL_DEFAULT || read_back.memory_policy == MPOL_LOCAL ||
                       read_back.memory_policy == kPreferredMany;
  proof.own_group = read_back.group == kGroupInside;
  for (const std::uint32_t gpu : decided.gpus.to_vector()) {
    if (gpu < node.hardware.gpus.size()) {
      proof.gpus.insert(std::min(node.hardware.gpus[gpu].vendor_index, IndexSet::kIndexMax));
    }
  }
  if (node.node_class != nullptr) {
    const topo::Grades grades =
        topo::grades_of_threads(*node.node_class, pretended ? decided.threads : proof.cpus, decided.gpus);
    proof.local_device = grades.device;
    proof.local_numa = grades.numa;
    proof.local_package = grades.package;
  }
  if (!pretended) {
    out.fault = fault_of(node, decided, proof, read_back);
  }
  proof.as_decided = out.fault.empty();
  return out;
}

}  // namespace muster::noded
