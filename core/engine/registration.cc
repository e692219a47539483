#include "core/engine/registration.h"

#include <algorithm>
#include <string>

#include "lib/base/text.h"
#include "lib/model/constraint.h"

namespace muster::engine {
namespace {

Status check_topology_of(const State& state, const NodeRegistration& r) {
  if (!r.topology) {
    return ok_status();
  }
  std::string problem = check_node_topology(*r.topology);
  if (problem.empty()) {
    problem = check_same_node(*r.topology, r.hardware);
  }
  if (!problem.empty()) {
    return invalid_argument("node " + r.name + " registered with a topology that cannot be: " + problem +
                            ": see `muster-noded --show-topology` on the node");
  }
  const auto known = state.node_classes.find(topology_hash(*r.topology));
  if (known != state.node_classes.end() && !(known->second.get()->topology() == class_of(*r.topology))) {
    return invalid_argument("node " + r.name +
                            " registered with a topology that has the hash of another one: use nodes that nobody "
                            "has tampered with");
  }
  return ok_status();
}

}  // namespace

Status check_registration(const State& state, const NodeRegistration& r) {
  if (!is_valid_node_name(r.name)) {
    return invalid_argument("\"" + printable(r.name) + "\" is not a node name");
  }
  for (const std::string& feature : r.features) {
    if (!is_valid_feature(feature)) {
      return invalid_argument("node " + r.name + " registered with the feature \"" + printable(feature) +
                              "\", which is no name of one: correct `features` in its [node] section");
    }
  }
  if (r.hardware.cores.empty()) {
    return invalid_argument("node " + r.name + " registered without a core");
  }
  return check_topology_of(state, r);
}

std::string missing_gpus(const Node& known, const NodeRegistration& r) {
  if (r.hardware.gpus.size() >= known.hardware.gpus.size()) {
    return {};  // another machine perhaps, and none that lacks something
  }
  std::string gone;
  for (const Gpu& gpu : known.hardware.gpus) {
    const bool there = std::any_of(r.hardware.gpus.begin(), r.hardware.gpus.end(),
                                   [&gpu](const Gpu& each) { return each.pci_address == gpu.pci_address; });
    if (!there) {
      gone += (gone.empty() ? "" : ", ") + gpu.pci_address;
    }
  }
  if (gone.empty()) {
    return {};
  }
  return health_text("it came back with " + std::to_string(r.hardware.gpus.size()) + " of its " +
                     std::to_string(known.hardware.gpus.size()) + " GPUs, without " + gone + ": muster resume " +
                     known.name + " when that is meant");
}

}  // namespace muster::engine
