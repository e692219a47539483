#include "core/engine/registration.h"

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

}  // namespace muster::engine
