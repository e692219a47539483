#include "core/engine/place_request.h"

#include <algorithm>
#include <string>
#include <vector>

#include "lib/base/text.h"
#include "lib/model/constraint.h"

namespace muster::engine {
namespace {

Status check_features(const State& state, const sched::Policy& policy, const JobSpec& spec) {
  MUSTER_ASSIGN(const Constraint constraint, parse_constraint(spec.constraint, "--constraint"));
  if (!constraint.counted.empty() && spec.gpus != 0) {
    return invalid_argument(
        "--gpus in total cannot be combined with counts in --constraint: give --gpus-per-node or "
        "--gpus-per-task");
  }
  if (state.nodes.empty()) {
    return ok_status();  // no node has said yet what it has
  }
  const std::vector<std::string> known = known_features(state, policy);
  for (const std::string& feature : features_of(constraint)) {
    if (!std::binary_search(known.begin(), known.end(), feature)) {
      const std::string nearest = nearest_word(feature, known);
      return invalid_argument("--constraint: no node has the feature " + feature +
                              (known.empty()     ? ": the configuration names none ([feature.NAME])"
                               : nearest.empty() ? ": see muster nodes"
                                                 : ": did you mean " + nearest + "?"));
    }
  }
  const std::uint32_t nodes_max = spec.nodes_max == 0 ? spec.ntasks : std::min(spec.nodes_max, spec.ntasks);
  for (const Constraint::Counted& one : constraint.counted) {
    if (one.nodes > nodes_max) {
      return invalid_argument("--constraint: " + format_feature_expr(one.what) + "*" + std::to_string(one.nodes) +
                              " counts more nodes than the " + std::to_string(nodes_max) +
                              " that the job may have: raise --nodes or lower the count");
    }
  }
  return ok_status();
}

Status check_segment(const sched::Policy& policy, const JobSpec& spec) {
  const std::string text = "--segment " + std::to_string(spec.segment);
  if (policy.sites == nullptr || policy.sites->topology.kind != TopologyKind::kBlock) {
    return invalid_argument(text + " needs a network of blocks, and this cluster has none: leave it out");
  }
  if (spec.nodes_min != spec.nodes_max) {
    return invalid_argument(text + " needs a fixed number of nodes: give one with --nodes");
  }
  if (spec.nodes_min % spec.segment != 0) {
    return invalid_argument(text + " does not divide the " + std::to_string(spec.nodes_min) +
                            " nodes of the job: make --nodes a multiple of it");
  }
  const std::uint32_t block = policy.sites->topology.block_sizes.front();
  if (spec.segment > block) {
    return invalid_argument(text + " is more than a block has: at most " + std::to_string(block) +
                            ", as each segment is inside one block");
  }
  if (spec.gpus != 0) {
    return invalid_argument(text + " cannot be combined with --gpus in total: give --gpus-per-node or --gpus-per-task");
  }
  if (!spec.nodelist.empty()) {
    return invalid_argument(text + " cannot be combined with --nodelist: leave one of them out");
  }
  MUSTER_ASSIGN(const Constraint constraint, parse_constraint(spec.constraint, "--constraint"));
  if (!constraint.counted.empty()) {
    return invalid_argument(text + " cannot be combined with counts in --constraint: leave one of them out");
  }
  return ok_status();
}

}  // namespace

std::vector<std::string> known_features(const State& state, const sched::Policy& policy) {
  std::vector<std::string> known;
  if (policy.sites != nullptr) {
    for (const auto& [feature, nodes] : policy.sites->features) {
      known.push_back(feature);
    }
  }
  for (const auto& [feature, ranks] : state.ledger.places(policy.sites)->features) {
    known.push_back(feature);
  }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  return known;
}

Status check_place_request(const State& state, const sched::Policy& policy, const JobSpec& spec) {
  if (!spec.constraint.empty()) {
    MUSTER_TRY(check_features(state, policy, spec));
  }
  if (spec.switches == 0 && !spec.switches_wait.is_infinite()) {
    return invalid_argument("--switches has a time and no number of switches: write N@TIME");
  }
  if (spec.switches_wait < Duration{}) {
    return invalid_argument("--switches: the time is negative: give a positive time");
  }
  if (spec.switches > kSwitchesMax) {
    return invalid_argument("--switches " + std::to_string(spec.switches) + " is too large: at most " +
                            std::to_string(kSwitchesMax));
  }
  return spec.segment == 0 ? ok_status() : check_segment(policy, spec);
}

}  // namespace muster::engine
